"""Interpolation without a network, to compare with: repeat, blend, and classical optical flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from vsrife.evaluation.metrics import Image8

Flow = NDArray[np.floating]
# Two pictures and times between them, 0..1; gives the picture at each time. All are (H, W, 3) RGB of 8 bits.
Interpolator = Callable[[Image8, Image8, Sequence[float]], Iterator[Image8]]


def repeat(first: Image8, last: Image8, times: Sequence[float]) -> Iterator[Image8]:  # noqa: ARG001
    """The earlier picture again."""
    yield from (first for _ in times)


def blend(first: Image8, last: Image8, times: Sequence[float]) -> Iterator[Image8]:
    """The mean of both, weighted by time."""
    yield from (_rounded(_mixed(first, last, t)) for t in times)


def dis(first: Image8, last: Image8, times: Sequence[float]) -> Iterator[Image8]:
    """OpenCV's DIS flow (medium preset, on grey) in both directions; both pictures warped to the time and mixed.

    The flow at time t is made from those between the pictures as if they were equal along the motion (Jiang et al.,
    "Super SloMo", CVPR 2018, equation 4).

    Raises:
        ModuleNotFoundError: OpenCV is not installed.
    """
    forth, back = _dis_flow(first, last), _dis_flow(last, first)
    for t in times:
        to_first = t * (t * back - (1 - t) * forth)
        to_last = (1 - t) * ((1 - t) * forth - t * back)
        yield _rounded(_mixed(_warp(first, to_first), _warp(last, to_last), t))


BASELINES: Mapping[str, Interpolator] = MappingProxyType({"repeat": repeat, "blend": blend, "dis": dis})


def _mixed(first: NDArray[np.generic], last: NDArray[np.generic], t: float) -> NDArray[np.float32]:
    weight = np.float32(t)
    return first.astype(np.float32) * (1 - weight) + last.astype(np.float32) * weight


def _rounded(values: NDArray[np.float32]) -> Image8:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _dis_flow(first: Image8, last: Image8) -> Flow:
    """(H, W, 2), pixels from the first picture to the last, x before y."""
    import cv2

    grey = (cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY) for image in (first, last))
    flow: Flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)  # type: ignore[call-overload]
    return flow


def _warp(picture: Image8, flow: Flow) -> NDArray[np.generic]:
    import cv2

    height, width = flow.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return cv2.remap(
        picture, columns + flow[..., 0], rows + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
