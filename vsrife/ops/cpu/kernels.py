"""CPU twins: oneDNN's fused convolutions, and everything else compiled, parallel over rows, in one pass over memory.

Tensors are logically NCHW like everywhere, in channels-last memory, which is what the convolutions want as well.
Arithmetic is float32. Numba compiles what goes through the rows on first use (seconds) and keeps it on disk; what is
done within a row is written for vectors (`jit`) and compiled in milliseconds.
"""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vsrife.ops import reference
from vsrife.ops.cpu import blending, encoder, int8, to_rgb, warping
from vsrife.ops.cpu.buffers import buffer_pool
from vsrife.ops.cpu.encoder import runs, runs_at
from vsrife.ops.reference import STATIC_RADII_PX, Axis, Conv, RgbTransform, TransposedConv, WarpInputs

# VapourSynth's scripts run with every logger at debug level, where numba prints each step of its compiler.
logging.getLogger("numba").setLevel(logging.WARNING)

Array = NDArray[Any]


def _each[**P](batched: int) -> Callable[[Callable[P, Tensor]], Callable[P, Tensor]]:
    """Makes of an op for one sample one for a batch, whose size is that of argument number `batched`."""

    def decorate(op: Callable[P, Tensor]) -> Callable[P, Tensor]:
        @functools.wraps(op)
        def for_all(*arguments: P.args, **keywords: P.kwargs) -> Tensor:
            count = len(arguments[batched])  # type: ignore[arg-type]
            if count == 1:
                return op(*arguments, **keywords)

            def part(argument: Any, i: int) -> Any:
                own = isinstance(argument, Tensor) and argument.ndim == 4 and len(argument) == count
                return argument[i : i + 1] if own else argument

            return torch.cat([op(*(part(one, i) for one in arguments), **keywords) for i in range(count)])

        return for_all

    return decorate


def upsample(maps: Sequence[Tensor], height: int, width: int, accumulate: Tensor | None = None) -> Tensor:
    """Twin of `reference.upsample`."""
    return warping.upsample(maps, height, width, accumulate)


def sample(image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
    """Twin of `reference.sample`."""
    if image.dtype != torch.float32:
        return reference.sample(image, rows, columns, accumulate)
    return warping.sample(image, rows, columns, accumulate)


def planes_to_rgb(planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
    """Twin of `reference.planes_to_rgb`."""
    known = [plane if plane.dtype in blending.KINDS else plane.float() for plane in planes]
    if out.dtype == torch.float32 and out.stride(1) == 1:
        return to_rgb.planes_to_rgb(known, transform, clamps, out)
    exact = torch.empty(out.shape, memory_format=torch.channels_last)
    return out.copy_(to_rgb.planes_to_rgb(known, transform, clamps, exact))


def warp_stacks(inputs: WarpInputs, weight: Tensor) -> Tensor:
    """Twin of `reference.warp_stacks`."""
    return warping.gather(inputs, weight.shape[1]).to(weight.dtype)


def warp_convolve(inputs: WarpInputs, conv: Conv) -> Tensor:
    """Twin of `reference.warp_convolve`."""
    outputs = len(conv.weight)
    if conv.weight.dtype == torch.float32 and conv.stride == 2 and conv.groups == 1 and warping.lanes_for(outputs):
        return warping.gather_convolve(inputs, conv)
    return convolve(warp_stacks(inputs, conv.weight), conv)


@_each(2)
def blend(a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor:
    """Twin of `reference.blend`."""
    return warping.blend(a.float(), b.float(), flow, weight0)


@_each(2)
def blend_plane(a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, radius: Tensor, peak: int) -> Tensor:
    """Twin of `reference.blend_plane`."""
    if a.dtype == torch.float16:
        return blend_plane(a.float(), b.float(), flow, mask, radius, peak).half()
    if a.dtype not in blending.KINDS or a.nbytes < blending.READ:
        return reference.blend_plane(a, b, flow, mask, radius, peak)
    first, second = (plane[0, 0].contiguous() for plane in (a, b))
    out = torch.empty_like(first)
    blending.blend_plane(first, second, flow, torch.sigmoid(mask)[0, 0], radius[0, 0], peak, out)
    return out[None, None]


@numba.njit(parallel=True, cache=True)
def _static_radius(a, b, radii, result):  # type: ignore[no-untyped-def]
    """Differences spread step by step; around the picture lies a border that never differs.

    Rows are taken as slices, so that every index is from 0 on: else the compiler does not make vectors of them.
    """
    height, width = result.shape
    border = radii[-1] // 2
    moved = np.zeros((height + 2 * border, width + 2 * border), np.uint8)
    spread = np.zeros_like(moved)
    for y in numba.prange(height):
        row, found = moved[y + border, border : border + width], result[y]
        for x in range(width):
            row[x] = a[y, x] != b[y, x]
        for x in range(width):
            found[x] = -np.int8(row[x])
    reached = 0  # boxes of 2 * reached + 1 samples are filled
    for radius in radii:
        step = radius - reached
        left = 0
        for y in numba.prange(height):
            row, found = spread[y + border, border : border + width], result[y]
            row[:] = 0
            for down in range(-step, step + 1, step):
                for right in range(-step, step + 1, step):
                    near = moved[y + border + down, border + right : border + right + width]
                    for x in range(width):
                        row[x] |= near[x]
            for x in range(width):
                found[x] = found[x] if row[x] else radius
            left += width - np.sum(row)
        if left == 0:
            break
        moved, spread = spread, moved
        reached = radius


def static_radius(a: Tensor, b: Tensor) -> Tensor:
    """Twin of `reference.static_radius`."""
    if a.dtype == torch.float16:
        a, b = a.float(), b.float()
    result = np.empty(a.shape[-2:], np.int8)
    _static_radius(a[0, 0].numpy(), b[0, 0].numpy(), STATIC_RADII_PX, result)
    return torch.from_numpy(result)[None, None]


def convolve(x: Tensor, conv: Conv) -> Tensor:
    """Twin of `reference.convolve`: oneDNN's convolution with what follows in one pass, as far as it can be."""
    if conv.scales is not None:
        return convolve_chain(x, [conv])
    if not _FUSES or conv.slopes is not None or x.dtype not in _FUSED_TYPES:
        return reference.convolve(x, conv)
    window = [1, 1], [conv.stride] * 2, [1, 1], conv.groups
    weight = _packed(conv, x.shape, conv.stride, conv.groups)
    if conv.residual:
        y: Tensor = torch.ops.mkldnn._convolution_pointwise.binary(
            x, x, weight, conv.bias, *window, "add", 1.0, None, [], ""
        )  # fmt: skip
        return reference.activate(y, None) if conv.activated else y
    tail = ("leaky_relu", [reference.LEAKY_SLOPE], "") if conv.activated else _NOTHING_BEHIND
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, conv.bias, *window, *tail)
    return result


def convolve_chain(x: Tensor, convs: Sequence[Conv]) -> Tensor:
    """Twin of `reference.convolve_chain`."""
    spans: Sequence[int8.Span] = ()
    for conv in convs:
        if conv.scales is None:
            x, spans = convolve(x, conv), ()
        elif int8.serves(x, conv):
            x, spans = int8.convolve(x, conv, spans)
        else:
            x, spans = reference.convolve(x, conv), ()
    return x


@numba.njit(parallel=True, cache=True)
def _interleave(places, copy, out):  # type: ignore[no-untyped-def]
    """Of (H + 1, W + 1, 2, side, 2, run), each parity where it belongs in (H, 2, side, W, 2, run)."""
    height, _, side, width, _, run = out.shape
    size = 4 * run
    step, stride = 4 * side * size, 2 * size
    for i in numba.prange(height):
        for p in range(2):
            for r in range(side):
                for q in range(2):
                    runs(copy, (
                        places.ctypes.data + ((i + p) * (width + 1) + q) * step + ((p * side + r) * 2 + q) * size, step,
                        out.ctypes.data + (((i * 2 + p) * side + r) * width * 2 + q) * size, stride, width,
                    ))  # fmt: skip


def conv_transpose(x: Tensor, conv: TransposedConv) -> Tensor:
    """Twin of `reference.conv_transpose`."""
    if conv.scales is not None and int8.serves(x, conv):
        places, _ = int8.convolve(x, conv)
    elif conv.scales is None and _FUSES and x.dtype == torch.float32:
        places = torch.ops.mkldnn._convolution_pointwise(
            x, _packed(conv, x.shape, 1, 1), conv.bias, [1, 1], [1, 1], [1, 1], 1, *_NOTHING_BEHIND
        )  # fmt: skip
    else:
        return reference.conv_transpose(x, conv)
    count, _, height, width = x.shape
    side = conv.factor // 2
    known = places.permute(0, 2, 3, 1).contiguous().reshape(count, height + 1, width + 1, 2, side, 2, -1)
    out = buffer_pool.take((count, height, 2, side, width, 2, known.shape[-1]))
    for i in range(count):
        _interleave(known[i].numpy(), runs_at(known.shape[-1]), out[i])
    return torch.from_numpy(out.reshape(count, height * 2 * side, width * 2 * side, -1)).permute(0, 3, 1, 2)


def head(x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
    """Twin of `reference.head`."""
    if encoder.serves(x, convs, last, out):
        return encoder.head(x, convs, last, out)
    x = x.contiguous(memory_format=torch.channels_last)  # what the convolutions want
    return out.copy_(conv_transpose(convolve_chain(x, convs), last))


def _packed(conv: Conv | TransposedConv, shape: torch.Size, stride: int, groups: int) -> Tensor:
    """The weights as oneDNN wants them for inputs of this shape, reordered once."""
    known = _packed_weights.setdefault(conv, {})
    weight = known.get(shape)
    if weight is None:
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight.contiguous(), [1, 1], [stride] * 2, [1, 1], groups, list(shape)
        )
        if len(known) >= SHAPES_KEPT:
            known.pop(next(iter(known)), None)
        known[shape] = weight
    return weight


SHAPES_KEPT = 2  # picture sizes that are in use at once, as a rule at most
# Lives as long as the network. Engines take turns on the CPU, so that two threads never meet here.
_packed_weights: weakref.WeakKeyDictionary[Conv | TransposedConv, dict[torch.Size, Tensor]] = (
    weakref.WeakKeyDictionary()
)
_FUSES = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
_FUSED_TYPES = (torch.float32, torch.bfloat16)
_NOTHING_BEHIND: tuple[str, list[float], str] = ("none", [], "")  # no activation
