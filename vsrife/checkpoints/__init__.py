"""Weights files: find, read, recognise, download, import and export."""
