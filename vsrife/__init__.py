"""vsrife: frame interpolation for VapourSynth with RIFE's IFNet.

Names are loaded when they are first used, so that `python -m vsrife models` starts without torch and VapourSynth.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vsrife.errors import ClipError, DeviceError, MediaError, OptionError, RifeError, WeightsError

if TYPE_CHECKING:
    from vsrife.arrays import flow, interpolate
    from vsrife.filter import RIFE, rife
    from vsrife.merging import merge
    from vsrife.motion import Flow

__version__ = "0.1.0"

__all__ = [
    "RIFE",
    "ClipError",
    "DeviceError",
    "Flow",
    "MediaError",
    "OptionError",
    "RifeError",
    "WeightsError",
    "__version__",
    "flow",
    "interpolate",
    "merge",
    "rife",
]

_HOMES = {
    "Flow": "vsrife.motion",
    "RIFE": "vsrife.filter",
    "flow": "vsrife.arrays",
    "interpolate": "vsrife.arrays",
    "merge": "vsrife.merging",
    "rife": "vsrife.filter",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vsrife' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
