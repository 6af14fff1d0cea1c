"""Scores as tables, plots, strips of pictures and a page; for `vsrife compare` and `training.evaluate`."""
