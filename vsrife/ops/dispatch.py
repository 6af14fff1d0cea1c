"""Choose the backend of the operations by device, dtype and what is installed."""

from __future__ import annotations

from functools import lru_cache

import torch

from vsrife.ops.protocol import Ops
from vsrife.ops.reference import reference


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
            from vsrife.ops.cpu.kernels import cpu_ops  # numba is optional

            return cpu_ops
    except ImportError:
        pass
    return reference
