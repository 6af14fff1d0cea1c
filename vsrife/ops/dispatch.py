"""Chooses the twin of each op: by device, dtype and what is installed.

`reference` holds every op in plain PyTorch. A twin has the same signature and the same meaning within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from vsrife.ops import reference
from vsrife.ops.reference import Axis, Conv, RgbTransform, TransposedConv, WarpInputs


class Ops(Protocol):
    """The ops that have twins; `reference` documents them."""

    def planes_to_rgb(self, planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor: ...

    def sample(self, image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor: ...

    def upsample(self, maps: Sequence[Tensor], height: int, width: int, accumulate: Tensor | None = None) -> Tensor: ...

    def warp_stacks(self, inputs: WarpInputs, weight: Tensor) -> Tensor: ...

    def warp_convolve(self, inputs: WarpInputs, conv: Conv) -> Tensor: ...

    def blend(self, a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor: ...

    def static_radius(self, a: Tensor, b: Tensor) -> Tensor: ...

    def blend_plane(self, a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, radius: Tensor, peak: int) -> Tensor: ...

    def convolve(self, x: Tensor, conv: Conv) -> Tensor: ...

    def convolve_chain(self, x: Tensor, convs: Sequence[Conv]) -> Tensor: ...

    def conv_transpose(self, x: Tensor, conv: TransposedConv) -> Tensor: ...

    def head(self, x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor: ...


@lru_cache(maxsize=8)
def choose(device: torch.device, dtype: torch.dtype) -> Ops:
    """The ops for convolutions of `dtype` on `device`."""
    if dtype == torch.float64:
        return reference
    try:
        if device.type == "cuda":
            from vsrife.ops.cuda import kernels as on_cuda  # PyTorch brings Triton along on Linux only

            return on_cuda
        if device.type == "cpu":
            from vsrife.ops.cpu import kernels  # numba is optional

            return kernels
    except ImportError:
        pass
    return reference


OP_NAMES = (
    "planes_to_rgb", "sample", "upsample", "warp_stacks", "warp_convolve", "blend", "static_radius", "blend_plane",
    "convolve", "convolve_chain", "conv_transpose", "head",
)  # fmt: skip
