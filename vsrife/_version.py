"""The version, apart from everything that is slow to import."""

__version__ = "0.2.0"
