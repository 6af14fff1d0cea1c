"""How fast things are. Each file is a command; `all.py` runs those that belong together."""
