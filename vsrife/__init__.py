"""vsrife: frame interpolation for VapourSynth with RIFE's IFNet.

Names are loaded when they are first used, so that `python -m vsrife models` starts without torch and VapourSynth.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vsrife._version import __version__
from vsrife.errors import ClipError, DeviceError, MediaError, OptionError, RifeError, WeightsError

if TYPE_CHECKING:
    from vsrife.arrays import flow, interpolate
    from vsrife.filters.compat import rife
    from vsrife.filters.flow import Flow
    from vsrife.filters.merge import merge
    from vsrife.filters.rife import RIFE


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
    "Flow": "vsrife.filters.flow",
    "RIFE": "vsrife.filters.rife",
    "flow": "vsrife.arrays",
    "interpolate": "vsrife.arrays",
    "merge": "vsrife.filters.merge",
    "rife": "vsrife.filters.compat",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vsrife' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
