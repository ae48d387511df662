"""From latents to images: drawn (:mod:`draw`), in tiles (:mod:`tiling`), and where they explode (:mod:`explosions`)."""
