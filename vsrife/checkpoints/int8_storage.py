"""Kernels stored in eight bits: int8 values, and a float32 scale for each output channel.

A safetensors file keeps the scale of `NAME` under `NAME.scale`, in a shape that broadcasts. The file takes half the
bytes of float16, and its values are close to what inference in eight bits rounds to anyway.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vsrife.checkpoints.finding import SCALE_SUFFIX

LARGEST = 127


def quantise(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return int8 values and scales for every kernel of a body, float16 for all else.

    A block's first convolution and the head stay in float16: they are small, and computed in float at every precision.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 4 and name.startswith("block") and "conv0.0." not in name and "beta" not in name:
            stored[name], stored[name + SCALE_SUFFIX] = _nearest(tensor.float())
        else:
            stored[name] = tensor.half().contiguous()
    return stored


def _nearest(kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Return values and scales along the axis that fits better: outputs of transposed convolutions are the second."""
    candidates = []
    for axes in ((1, 2, 3), (0, 2, 3)):
        scale = kernels.abs().amax(axes, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST
        values = torch.round(kernels / scale)
        candidates.append(((values * scale - kernels).square().sum(), values, scale))
    _, values, scale = min(candidates, key=lambda each: float(each[0]))
    return values.to(torch.int8).contiguous(), scale.contiguous()


def restore(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Multiply int8 values by their scales; return everything else as it is, without the scales."""
    scaled = {name for name, tensor in stored.items() if tensor.dtype == torch.int8 and name + SCALE_SUFFIX in stored}
    scales = {name + SCALE_SUFFIX for name in scaled}
    return {
        name: tensor * stored[name + SCALE_SUFFIX] if name in scaled else tensor
        for name, tensor in stored.items()
        if name not in scales
    }
