"""Interpolation between two pictures in memory; no VapourSynth involved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vsrife.devices import parse_device, parse_precision, parse_scale
from vsrife.engine import Engine, NetworkOptions, Picture, network
from vsrife.errors import OptionError
from vsrife.planes import Colorimetry, PictureFormat

_FORMATS: dict[str, tuple[int, bool]] = {  # dtype of an array to bits per sample and whether they are float
    "uint8": (8, False),
    "uint16": (16, False),
    "float16": (16, True),
    "float32": (32, True),
}


def interpolate[Array: (NDArray[Any], Tensor)](
    a: Array,
    b: Array,
    timestep: float = 0.5,
    *,
    scale: float = 1.0,
    model: str | Path | None = None,
    ensemble: bool = False,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> Array:
    """The picture at a time between two.

    Args:
        a: the earlier picture, (H, W, 3) RGB of uint8, uint16, or float16 or float32 of 0..1.
        b: the later one, same shape and dtype.
        timestep: 0 is the time of `a`, 1 that of `b`, which both come back unchanged.
        scale, model, ensemble, device, precision: as in `vsrife.RIFE`.

    Returns:
        Shape and dtype of `a`; a NumPy array or a tensor on the device of `a`, as that is. Equal pictures give `a`.

    Raises:
        OptionError: shapes or dtypes that do not fit, or an argument out of range.
        WeightsError: the model is not here, or not usable.
        DeviceError: the device is absent or out of memory.
    """
    if not 0 <= timestep <= 1:
        raise OptionError(f"timestep must be between 0 and 1, got {timestep!r}; 0.5 is halfway")
    left, right = _array("a", a), _array("b", b)
    if left.shape != right.shape or left.dtype != right.dtype:
        raise OptionError(
            f"pictures must have one shape and dtype, got {left.shape} {left.dtype} and {right.shape} {right.dtype}; "
            "convert one of them"
        )
    if timestep in (0, 1):
        return a if timestep == 0 else b
    chosen = parse_device(device)
    options = NetworkOptions(model, parse_scale(scale), ensemble, chosen, parse_precision(precision, chosen))
    bits, floating = _FORMATS[str(left.dtype)]
    fmt = PictureFormat("RGB", bits, floating, width=left.shape[1], height=left.shape[0])
    color = Colorimetry(matrix=0, full_range=True, chroma_location=0)
    before, after = (Picture(key, list(array.transpose(2, 0, 1)), color) for key, array in enumerate((left, right)))
    planes = Engine(network(options), fmt).interpolate(before, after, timestep)
    if planes is None:
        return a
    result = torch.stack(planes, dim=-1)
    return result.to(a.device) if isinstance(a, Tensor) else result.numpy()


def _array(name: str, picture: NDArray[Any] | Tensor) -> NDArray[Any]:
    array = picture.detach().cpu().numpy() if isinstance(picture, Tensor) else np.asarray(picture)
    if array.ndim != 3 or array.shape[2] != 3 or str(array.dtype) not in _FORMATS:
        raise OptionError(
            f"{name} must be RGB of shape (H, W, 3) and dtype {', '.join(_FORMATS)}, got {array.shape} "
            f"{array.dtype}; convert it"
        )
    return array
