"""Training and evaluation of vsrife's own weights; not part of the installed package."""
