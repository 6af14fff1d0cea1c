"""vsrife: frame interpolation for VapourSynth with RIFE's IFNet."""

__version__ = "0.1.0"
