"""Chooses the twin of each op: by device, dtype and what is installed.

`reference` holds every op in plain PyTorch. A twin has the same signature and the same meaning within rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from vsrife.ops import reference
from vsrife.ops.reference import Axis, Conv, Expansion


class Ops(Protocol):
    """The ops that have twins; `reference` documents them."""

    def sample(self, image: Tensor, rows: Axis, columns: Axis, total: Tensor | None = None) -> Tensor: ...

    def enlarge_add(self, total: Tensor, small: Tensor) -> Tensor: ...

    def warp_stacks(
        self, stack0: Tensor, stack1: Tensor, flow: Tensor, rows: Tensor, columns: Tensor, taps: int, extra: Tensor,
        times: Tensor, into: Tensor,
    ) -> Tensor: ...  # fmt: skip

    def blend(self, a: Tensor, b: Tensor, flow: Tensor, share: Tensor) -> Tensor: ...

    def calm(self, a: Tensor, b: Tensor) -> Tensor: ...

    def blend_plane(
        self, a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, calmness: Tensor, peak: int
    ) -> Tensor: ...

    def convolve(self, x: Tensor, conv: Conv) -> Tensor: ...

    def expand(self, x: Tensor, expansion: Expansion) -> Tensor: ...


@lru_cache(maxsize=8)
def choose(device: torch.device, dtype: torch.dtype) -> Ops:
    """The ops for convolutions of `dtype` on `device`."""
    if device.type != "cpu" or dtype == torch.float64:
        return reference
    try:
        from vsrife.ops import cpu
    except ImportError:  # numba is optional
        return reference
    return cpu
