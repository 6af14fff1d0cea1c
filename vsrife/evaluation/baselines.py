"""Interpolation without a network, to compare with: repeat, blend, and classical optical flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vsrife.evaluation import BASELINE_NAMES
from vsrife.evaluation.metrics import Image8

FlowField = NDArray[np.floating]  # (H, W, 2) pixels, x before y
# Two pictures and times between them, 0..1, to the picture at each time. All are (H, W, 3) RGB of 8 bits.
Interpolator = Callable[[Image8, Image8, Sequence[float]], Iterator[Image8]]


def repeat(a: Image8, b: Image8, times: Sequence[float]) -> Iterator[Image8]:  # noqa: ARG001
    """Repeat the earlier picture."""
    yield from (a for _ in times)


def blend(a: Image8, b: Image8, times: Sequence[float]) -> Iterator[Image8]:
    """Cross-fade linearly."""
    yield from (_to_8_bits(_mix(a, b, t)) for t in times)


def dis(a: Image8, b: Image8, times: Sequence[float]) -> Iterator[Image8]:
    """Warp both pictures along OpenCV's DIS flow (medium preset, on grey) and cross-fade them.

    The flow at time t is derived from the flows between the pictures, assumed constant along the motion (Jiang et al.,
    "Super SloMo", CVPR 2018, equation 4).

    Raises:
        ModuleNotFoundError: OpenCV is not installed.
    """
    forward, backward = _dis_flow(a, b), _dis_flow(b, a)
    for t in times:
        to_a = t * (t * backward - (1 - t) * forward)
        to_b = (1 - t) * ((1 - t) * forward - t * backward)
        yield _to_8_bits(_mix(_warp(a, to_a), _warp(b, to_b), t))


BASELINES: Mapping[str, Interpolator] = MappingProxyType(dict(zip(BASELINE_NAMES, (repeat, blend, dis), strict=True)))


def _mix(a: NDArray[np.generic], b: NDArray[np.generic], t: float) -> NDArray[np.float32]:
    weight1 = np.float32(t)
    return a.astype(np.float32) * (1 - weight1) + b.astype(np.float32) * weight1


def _to_8_bits(values: NDArray[np.float32]) -> Image8:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _dis_flow(a: Image8, b: Image8) -> FlowField:
    """Flow from `a` to `b`."""
    import cv2  # optional, of the extras `cli` and `train`

    grey = (cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (a, b))
    flow: FlowField = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)  # type: ignore[call-overload]
    return flow


def _warp(picture: Image8, flow: FlowField) -> NDArray[np.generic]:
    import cv2  # optional, of the extras `cli` and `train`

    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(
        picture, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
