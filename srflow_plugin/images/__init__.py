"""Images: files (:mod:`files`, :mod:`photographs`), :mod:`tensors`, sizes (:mod:`resize`), :mod:`pictures` of them."""
