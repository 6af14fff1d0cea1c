"""Source frames: in the caller's memory, and on the network's device."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.transfer import Planes, Transfer

ROWS_COMPARED = 64  # at once: most frames differ in the first of them


@dataclass(frozen=True, slots=True)
class InputFrame:
    """A source frame in the caller's memory.

    Attributes:
        key: identifies the frame within one engine, such as its number; equal keys mean equal samples.
        planes: per plane (h, w) in the clip's own samples; only read. Tensors may be on the network's device.
        color: how to interpret the samples.
        carried: frames that are warped along with this one; their keys are ignored.
    """

    key: Hashable
    planes: Sequence[NDArray[Any] | Tensor]
    color: Colorimetry
    carried: tuple[InputFrame, ...] = ()

    def equals(self, other: InputFrame) -> bool:
        """Whether all samples are equal; carried frames are not compared. Arrays are compared without a device."""
        return all(_equal(a, b) for a, b in zip(self.planes, other.planes, strict=True))


def _equal(a: NDArray[Any] | Tensor, b: NDArray[Any] | Tensor) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    starts = range(0, len(a), ROWS_COMPARED)
    return all(np.array_equal(a[i : i + ROWS_COMPARED], b[i : i + ROWS_COMPARED]) for i in starts)


@dataclass(frozen=True, slots=True, eq=False)
class SourceFrame:
    """A source frame on the network's device.

    Attributes:
        key: identifies the frame within one engine.
        fmt: of the planes.
        color: how to interpret the samples.
        planes: per plane (1, 1, h, w), in the clip's own samples or in float values of the same unit.
        carried: frames that are warped along with this one.
        image: (1, 3, H, W) RGB at the padded size, which the network reads instead of the planes; None: it reads these.
    """

    key: Hashable
    fmt: PictureFormat
    color: Colorimetry
    planes: Planes
    carried: tuple[SourceFrame, ...] = ()
    image: Tensor | None = None

    @classmethod
    def upload(
        cls, frame: InputFrame, fmt: PictureFormat, carried: Sequence[PictureFormat], transfer: Transfer
    ) -> SourceFrame:
        """Copy a frame to the device.

        Args:
            frame: in the caller's memory.
            fmt: of the frame.
            carried: formats of its carried frames.
            transfer: of the device.
        """
        planes = tuple(transfer.upload(plane)[None, None] for plane in frame.planes)
        extras = zip(frame.carried, carried, strict=True)
        uploaded = tuple(
            cls((frame.key, i), own, extra.color, tuple(transfer.upload(plane)[None, None] for plane in extra.planes))
            for i, (extra, own) in enumerate(extras)
        )
        return cls(frame.key, fmt, frame.color, planes, uploaded)

    def equals(self, other: SourceFrame) -> bool:
        """Whether all samples are equal; carried frames are not compared."""
        return all(torch.equal(a, b) for a, b in zip(self.planes, other.planes, strict=True))
