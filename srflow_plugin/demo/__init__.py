"""The page of ``srflow demo``: :mod:`session` says what it shows, :mod:`page` how it looks."""
