"""The version, in one place: setup.py, ``--version`` and downloads read it here."""

__version__ = "0.3.0"
