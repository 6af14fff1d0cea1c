"""Exact times: pure arithmetic, without torch and VapourSynth."""
