"""Interpolation and optical flow between two pictures in memory, without VapourSynth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Unpack, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vsrife.engine.color import to_samples
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.keywords import NetworkKeywords
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.engine.sources import InputFrame
from vsrife.errors import OptionError, shown
from vsrife.networks.ifnet import warp_by_flow

Timestep = float | NDArray[Any] | Tensor

_FORMATS: dict[str, tuple[int, bool]] = {  # dtype of an array to bits per sample and whether they are float
    "uint8": (8, False),
    "uint16": (16, False),
    "float16": (16, True),
    "float32": (32, True),
}
_COLOR = Colorimetry(matrix=0, full_range=True, chroma_location=0)
_GROUND = 0.5  # background of transparent pixels for the network: black and white shapes both stand out
# Colours are weighted by their alpha; this small addition keeps those of transparent pixels where there are no others.
_UNSEEN = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class OpticalFlow[Array: (NDArray[Any], Tensor)]:
    """The optical flow between two pictures, at the pixels of a time in between.

    Flow is in pixels, x (to the right) before y (down): pixel (x, y) of the picture in between shows what is at
    (x, y) + `to_a[y, x]` in the earlier picture and at (x, y) + `to_b[y, x]` in the later one.

    Attributes:
        to_a: (H, W, 2) float32, towards the earlier picture.
        to_b: (H, W, 2) float32, towards the later one. At timestep 0 this is the flow from `a` to `b`, and `to_a` at
            timestep 1 is that from `b` to `a`, both as Middlebury defines them.
        mask: (H, W) float32, 0..1: the weight of `a` in the picture in between.
        warp_a: `a` moved to the time in between, shape and dtype of `a`.
        warp_b: `b` moved to the time in between.
    """

    to_a: Array
    to_b: Array
    mask: Array
    warp_a: Array
    warp_b: Array


@overload
def interpolate[Array: (NDArray[Any], Tensor)](
    a: Array, b: Array, timestep: Timestep = 0.5, **options: Unpack[NetworkKeywords]
) -> Array: ...
@overload
def interpolate[Array: (NDArray[Any], Tensor)](
    a: Array, b: Array, timestep: Sequence[Timestep], **options: Unpack[NetworkKeywords]
) -> list[Array]: ...
def interpolate[Array: (NDArray[Any], Tensor)](
    a: Array, b: Array, timestep: Timestep | Sequence[Timestep] = 0.5, **options: Unpack[NetworkKeywords]
) -> Array | list[Array]:
    """Interpolate the picture at a time between two, or at several times.

    Args:
        a: the earlier picture, of uint8, uint16, or float16 or float32 of 0..1: (H, W) or (H, W, 1) grey, (H, W, 2)
            grey and alpha, (H, W, 3) RGB, (H, W, 4) RGB and straight alpha. A tensor may lie on any device.
        b: the later one, same shape and dtype.
        timestep: 0 is the time of `a`, 1 that of `b`, which both come back unchanged. An array (H, W) is a time for
            every pixel. A list of these gives a list of pictures, for which each source is prepared once.
        options: `scale`, `model`, `ensemble`, `tta`, `tta_temporal`, `device`, `precision`, as in `vsrife.RIFE`.

    Returns:
        Shape and dtype of `a`; a NumPy array or a tensor on the device of `a`, as that is. Equal pictures give `a`.
        Alpha and colours follow the same motion; colours are weighted by their alpha.

    Raises:
        OptionError: shapes or dtypes that do not fit, or an argument out of range.
        WeightsError: the model is not here, or not usable.
        DeviceError: the device is absent or out of memory.
    """
    pair = Pair(a, b, **options)
    if isinstance(timestep, (list, tuple)):
        return [pair.at(time) for time in [_checked(one, pair.size) for one in timestep]]
    return pair.at(_checked(timestep, pair.size))


def flow[Array: (NDArray[Any], Tensor)](
    a: Array, b: Array, timestep: Timestep = 0.5, **options: Unpack[NetworkKeywords]
) -> OpticalFlow[Array]:
    """Estimate the optical flow between two pictures that `interpolate` would use.

    Args:
        a, b, timestep, options: as for `interpolate`; at 0 and 1 the network runs as well.

    Raises:
        OptionError, WeightsError, DeviceError: as `interpolate`.
    """
    pair = Pair(a, b, **options)
    return pair.flow(_checked(timestep, pair.size))


def _checked(timestep: Any, size: tuple[int, int]) -> float | Tensor:
    """A timestep as a number or a float32 tensor (H, W)."""
    if isinstance(timestep, (np.ndarray, Tensor)) and timestep.ndim:
        times = timestep if isinstance(timestep, Tensor) else torch.from_numpy(np.array(timestep))
        if tuple(times.shape) != size:
            raise OptionError(
                f"timestep must be a number or an array {size} like the pictures, got one of {tuple(times.shape)}; "
                "for several times give a list"
            )
        times = times.to(torch.float32)
        low, high = times.min().item(), times.max().item()
        if not (low >= 0 and high <= 1):
            raise OptionError(f"timestep must be between 0 and 1, got {low:g} to {high:g} in an array; scale it")
        return times
    if not 0 <= timestep <= 1:
        raise OptionError(f"timestep must be between 0 and 1, got {shown(timestep)}; 0.5 is halfway")
    return float(timestep)


class Pair[Array: (NDArray[Any], Tensor)]:
    """Two pictures, with everything that does not depend on the time between them.

    Raises:
        OptionError, DeviceError: as `interpolate`. The network is loaded when it is first needed.
    """

    def __init__(self, a: Array, b: Array, **options: Unpack[NetworkKeywords]) -> None:
        _check_picture("a", a)
        _check_picture("b", b)
        if tuple(a.shape) != tuple(b.shape) or a.dtype != b.dtype:
            raise OptionError(
                f"pictures must have one shape and dtype, got {tuple(a.shape)} {_dtype(a)} and {tuple(b.shape)} "
                f"{_dtype(b)}; convert one of them"
            )
        self.a: Array = a
        self.b: Array = b
        self._options = NetworkOptions.of(**options)
        bits, floating = _FORMATS[_dtype(a)]
        height, width = self.size
        colours = a.ndim == 3 and a.shape[2] >= 3
        self._fmt = PictureFormat("RGB" if colours else "GRAY", bits, floating, width, height)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.a.shape[:2]
        return height, width

    def at(self, timestep: float | Tensor) -> Array:
        """The picture at a time 0..1, or with a time for each pixel (H, W)."""
        if isinstance(timestep, float) and timestep in (0, 1):
            return self.b if timestep else self.a
        planes = self._engine.interpolate(*self._pictures, timestep, out="device")
        if planes is None:
            return self.a
        result: Array = self._joined(planes)
        return result

    def flow(self, timestep: float | Tensor) -> OpticalFlow[Array]:
        """The optical flow at a time 0..1, or at a time for each pixel (H, W)."""
        flow, weight0 = self._engine.motion(*self._pictures, timestep)
        to_a, to_b = flow[:2], flow[2:]
        warped = (self._warped(picture, part) for picture, part in zip(self._pictures, (to_a, to_b), strict=True))
        return OpticalFlow(
            self._out(to_a.permute(1, 2, 0)), self._out(to_b.permute(1, 2, 0)), self._out(weight0), *warped
        )

    def _warped(self, picture: InputFrame, flow: Tensor) -> Any:
        planes = [*picture.planes, *(plane for extra in picture.carried for plane in extra.planes)]
        stack = torch.stack([torch.as_tensor(plane).to(flow.device, flow.dtype) for plane in planes])
        return self._joined(tuple(warp_by_flow(stack[None], flow[None])[0]))

    @cached_property
    def _translucent(self) -> bool:
        """Whether any alpha is below its maximum."""
        if self.a.ndim < 3 or self.a.shape[2] not in (2, 4):
            return False
        return any(bool((picture[..., -1] != self._peak).any()) for picture in (self.a, self.b))

    @property
    def _peak(self) -> float:
        return 1.0 if self._fmt.floating else float(self._fmt.peak)

    @cached_property
    def _pictures(self) -> tuple[InputFrame, InputFrame]:
        return self._picture(0, self.a), self._picture(1, self.b)

    def _picture(self, key: int, array: NDArray[Any] | Tensor) -> InputFrame:
        """The picture for the engine: translucent colours on a background, with colours and alpha carried along."""
        tensor = array.detach() if isinstance(array, Tensor) else torch.from_numpy(np.array(array))
        planes = list(tensor.to(self._options.device).reshape(*self.size, -1).unbind(-1))
        colours = planes[: self._fmt.num_planes]
        if not self._translucent:
            return InputFrame(key, colours, _COLOR)
        opacity = planes[-1].float() / self._peak
        shown = [torch.lerp(torch.full_like(opacity, _GROUND), c.float() / self._peak, opacity) for c in colours]
        weighted = [c.float() * (opacity + _UNSEEN) for c in colours]
        extras = InputFrame(key, weighted, _COLOR), InputFrame(key, [opacity], _COLOR)
        return InputFrame(key, shown, _COLOR, extras)

    @cached_property
    def _engine(self) -> Engine:
        net = network(self._options)
        if not self._translucent:
            return Engine(net, self._fmt, averaging=self._options.averaging)
        seen, grey = (PictureFormat(f, 32, True, self._fmt.width, self._fmt.height) for f in (self._fmt.family, "GRAY"))
        return Engine(net, seen, carried=(seen, grey), averaging=self._options.averaging)

    def _joined(self, planes: Sequence[Tensor]) -> Any:
        """Join planes of the engine to the shape and dtype of `a`."""
        if self._translucent:
            opacity = planes[-1]
            planes = [p / (opacity + _UNSEEN) for p in planes[self._fmt.num_planes : -1]]
            planes.append(opacity * self._peak)
        samples = [to_samples(p, self._fmt) if p.is_floating_point() else p for p in planes]
        if not self._translucent and self.a.ndim == 3 and self.a.shape[2] in (2, 4):
            samples.append(torch.full_like(samples[0], self._peak))
        return self._out(torch.stack(samples, dim=-1).reshape(self.a.shape))

    def _out(self, result: Tensor) -> Any:
        """Return an array where `a` is one, otherwise a tensor on its device."""
        return result.to(self.a.device) if isinstance(self.a, Tensor) else result.contiguous().cpu().numpy()


def _dtype(picture: NDArray[Any] | Tensor) -> str:
    return str(picture.dtype).removeprefix("torch.")


def _check_picture(name: str, picture: Any) -> None:
    is_array = isinstance(picture, (np.ndarray, Tensor))
    layout = is_array and picture.ndim in (2, 3) and (picture.ndim == 2 or picture.shape[2] in (1, 2, 3, 4))
    if not layout or 0 in picture.shape or _dtype(picture) not in _FORMATS:
        got = f"{tuple(picture.shape)} {_dtype(picture)}" if is_array else type(picture).__name__
        raise OptionError(
            f"{name} must be an array (H, W), or (H, W, C) of 1 to 4 channels, and of dtype {', '.join(_FORMATS)}, got "
            f"{got}; convert it"
        )
