"""The operations on a CPU: oneDNN's fused convolutions, and compiled kernels that pass over memory once.

Tensors are NCHW in channels-last memory, as the convolutions want them. Arithmetic is float32. Numba compiles the loops
over rows on first use (seconds) and caches them on disk; the work within a row is emitted as vector code by `llvm`, in
milliseconds. What a kernel does not cover is left to the reference.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vsrife.ops.cpu import blending, encoder, int8, sampling, to_rgb, warping
from vsrife.ops.protocol import LEAKY_SLOPE, Axis, Conv, RgbTransform, TransposedConv, WarpInputs
from vsrife.ops.reference import Reference, activate


def _each_sample[**P](op: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Let an operation for one sample work on a batch, whose size is that of its flow."""

    @functools.wraps(op)
    def batched(*arguments: P.args, **keywords: P.kwargs) -> Tensor:
        flow: Any = arguments[3]
        count = len(flow)
        if count == 1:
            return op(*arguments, **keywords)

        def part(argument: Any, i: int) -> Any:
            split = isinstance(argument, Tensor) and argument.ndim == flow.ndim and len(argument) == count
            return argument[i : i + 1] if split else argument

        return torch.cat([op(*(part(one, i) for one in arguments), **keywords) for i in range(count)])

    return batched


class CpuOps(Reference):
    """The operations as CPU kernels; `Ops` documents them."""

    def planes_to_rgb(self, planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
        planes = [plane if plane.dtype in blending.SAMPLE_TYPES else plane.float() for plane in planes]
        if out.dtype == torch.float32 and out.stride(1) == 1:
            return to_rgb.planes_to_rgb(planes, transform, clamps, out)
        exact = torch.empty(out.shape, memory_format=torch.channels_last)
        return out.copy_(to_rgb.planes_to_rgb(planes, transform, clamps, exact))

    def sample(self, image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
        if image.dtype != torch.float32:
            return super().sample(image, rows, columns, accumulate)
        return sampling.sample(image, rows, columns, accumulate)

    def upsample(self, maps: Sequence[Tensor], height: int, width: int, accumulate: Tensor | None = None) -> Tensor:
        return sampling.upsample(maps, height, width, accumulate)

    def warp_stacks(self, inputs: WarpInputs, channels: int, dtype: torch.dtype) -> Tensor:
        return warping.warp_stacks(inputs, channels).to(dtype)

    def warp_convolve(self, inputs: WarpInputs, conv: Conv) -> Tensor:
        if warping.supports(conv):
            return warping.warp_convolve(inputs, conv)
        return super().warp_convolve(inputs, conv)

    @_each_sample
    def blend(self, a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor:
        return warping.blend(a.float(), b.float(), flow, weight0)

    def static_radius(self, a: Tensor, b: Tensor) -> Tensor:
        if a.dtype == torch.float16:  # which numba does not know
            a, b = a.float(), b.float()
        return blending.static_radius(a, b)

    def static_edges(self, a: Tensor, b: Tensor, radius: Tensor, contrast: float) -> Tensor:
        if a.dtype == torch.float16:
            a, b = a.float(), b.float()
        return blending.static_edges(a, b, radius, contrast)

    @_each_sample
    def blend_plane(self, a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, radius: Tensor, peak: int) -> Tensor:
        if a.dtype == torch.float16:
            return self.blend_plane(a.float(), b.float(), flow, mask, radius, peak).half()
        if not blending.supports(a):
            return super().blend_plane(a, b, flow, mask, radius, peak)
        return blending.blend_plane(a, b, flow, torch.sigmoid(mask), radius, peak)

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        if conv.scales is not None:
            return self.convolve_chain(x, [conv])
        if not _FUSES or conv.slopes is not None or x.dtype not in _FUSED_DTYPES:
            return super().convolve(x, conv)
        window = [1, 1], [conv.stride] * 2, [1, 1], conv.groups
        weight = _packed(conv, x.shape, conv.stride, conv.groups)
        if conv.residual:
            y: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
                x, x, weight, conv.bias, *window, "add", 1.0, None, [], ""
            )  # fmt: skip
            return activate(y, None) if conv.activated else y
        activation = ("leaky_relu", [LEAKY_SLOPE], "") if conv.activated else _NO_ACTIVATION
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, conv.bias, *window, *activation)
        return result

    def convolve_chain(self, x: Tensor, convs: Sequence[Conv]) -> Tensor:
        ranges: Sequence[int8.ValueRange] = ()
        for conv in convs:
            if conv.scales is None:
                x, ranges = self.convolve(x, conv), ()
            elif int8.supports(x, conv):
                x, ranges = int8.convolve(x, conv, ranges)
            else:
                x, ranges = super().convolve(x, conv), ()
        return x

    def conv_transpose(self, x: Tensor, conv: TransposedConv) -> Tensor:
        if conv.scales is not None and int8.supports(x, conv):
            grid, _ = int8.convolve(x, conv)
        elif conv.scales is None and _FUSES and x.dtype == torch.float32:
            grid = torch.ops.mkldnn._convolution_pointwise(
                x, _packed(conv, x.shape, 1, 1), conv.bias, [1, 1], [1, 1], [1, 1], 1, *_NO_ACTIVATION
            )  # fmt: skip
        else:
            return super().conv_transpose(x, conv)
        return encoder.interleave(grid, conv.factor)

    def head(self, x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
        if encoder.supports(x, convs, last, out):
            return encoder.head(x, convs, last, out)
        return super().head(x.contiguous(memory_format=torch.channels_last), convs, last, out)


def _packed(conv: Conv | TransposedConv, shape: torch.Size, stride: int, groups: int) -> Tensor:
    """The weights in oneDNN's own order for inputs of this shape; reordered once."""
    by_shape = _packed_weights.setdefault(conv, {})
    weight = by_shape.get(shape)
    if weight is None:
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight.contiguous(), [1, 1], [stride] * 2, [1, 1], groups, list(shape)
        )
        if len(by_shape) >= SHAPES_KEPT:
            by_shape.pop(next(iter(by_shape)), None)
        by_shape[shape] = weight
    return weight


SHAPES_KEPT = 2  # frame sizes in use at once, as a rule at most
# Entries live as long as the network. Engines take turns on the CPU, so that no two threads work here at once.
_packed_weights: weakref.WeakKeyDictionary[Conv | TransposedConv, dict[torch.Size, Tensor]] = (
    weakref.WeakKeyDictionary()
)
_FUSES = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
_FUSED_DTYPES = (
    (torch.float32, torch.bfloat16) if _FUSES and torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)
)
_NO_ACTIVATION: tuple[str, list[float], str] = ("none", [], "")

cpu_ops = CpuOps()
