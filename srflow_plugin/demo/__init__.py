"""The page of ``srflow demo``: its answers (:mod:`session`), its look (:mod:`page`), its server (:mod:`serve`)."""
