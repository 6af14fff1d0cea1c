"""Runs a pair of frames on one device; knows no VapourSynth."""
