"""VapourSynth nodes."""
