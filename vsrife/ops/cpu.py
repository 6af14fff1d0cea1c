"""CPU twins: gathering ops compiled by numba, parallel over rows, no intermediate tensors; fused convolutions.

Tensors are logically NCHW like everywhere, in channels-last memory, which is what the convolutions want as well.
Kernels are compiled on first use (seconds) and kept on disk by numba. Arithmetic is float32.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vsrife.ops import reference
from vsrife.ops.reference import Axis, Conv

# VapourSynth's scripts run with every logger at debug level, where numba prints each step of its compiler.
logging.getLogger("numba").setLevel(logging.WARNING)

Array = NDArray[Any]
Float = np.float32


def _pixels(image: Tensor) -> Array:
    """(1, C, H, W) as an array of (H, W, C), without a copy where the memory is channels-last."""
    return image.detach().permute(0, 2, 3, 1).contiguous()[0].numpy()


def _tensor(pixels: Array) -> Tensor:
    """(H, W, C) as (1, C, H, W) in channels-last memory, without a copy."""
    return torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)


@numba.njit(inline="always")
def _inside(position, last):  # type: ignore[no-untyped-def]
    """Clamp to 0..last; not a number becomes 0, since indices follow from it."""
    if not position > Float(0):
        return Float(0)
    return min(position, last)


@numba.njit(inline="always")
def _between(i, step, count):  # type: ignore[no-untyped-def]
    """Where sample i of an enlarged axis lies among `count` small ones: first neighbour, second, its weight."""
    at = _inside((Float(i) + Float(0.5)) * step - Float(0.5), Float(count - 1))
    low = int(at)
    return low, min(low + 1, count - 1), at - Float(low)


@numba.njit(inline="always")
def _enlarged_row(small, y, step, row):  # type: ignore[no-untyped-def]
    """One row of `small`, enlarged along the other axis only: each value is then used for many pixels."""
    top, low, weight = _between(y, step, small.shape[0])
    for x in range(small.shape[1]):
        for c in range(small.shape[2]):
            row[x, c] = small[top, x, c] + (small[low, x, c] - small[top, x, c]) * weight


@numba.njit(parallel=True, fastmath={"contract", "nsz"}, cache=True)
def _enlarge_add(total, small, out):  # type: ignore[no-untyped-def]
    height, width, channels = out.shape
    small_height, small_width = small.shape[0], small.shape[1]
    step_y, step_x = Float(small_height) / Float(height), Float(small_width) / Float(width)
    for y in numba.prange(height):
        row = np.empty((small_width, channels), np.float32)
        _enlarged_row(small, y, step_y, row)
        for x in range(width):
            left, right, weight = _between(x, step_x, small_width)
            for c in range(channels):
                out[y, x, c] = total[y, x, c] + (row[left, c] + (row[right, c] - row[left, c]) * weight)


def enlarge_add(total: Tensor, small: Tensor) -> Tensor:
    """Twin of `reference.enlarge_add`."""
    out = np.empty(_pixels(total).shape, np.float32)
    _enlarge_add(_pixels(total), _pixels(small), out)
    return _tensor(out)


@numba.njit(parallel=True, fastmath={"contract", "nsz"}, cache=True)
def _sample(image, top, low, weight_y, left, right, weight_x, out):  # type: ignore[no-untyped-def]
    channels = out.shape[2]
    for y in numba.prange(out.shape[0]):
        row = np.empty((image.shape[1], channels), np.float32)
        for x in range(image.shape[1]):
            for c in range(channels):
                above = Float(image[top[y], x, c])
                row[x, c] = above + (Float(image[low[y], x, c]) - above) * weight_y[y]
        for x in range(out.shape[1]):
            for c in range(channels):
                before = row[left[x], c]
                out[y, x, c] = before + (row[right[x], c] - before) * weight_x[x]


def sample(image: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Twin of `reference.sample`."""
    out = np.empty((len(rows.low), len(columns.low), image.shape[1]), np.float32)
    axes = (part.numpy() for axis in (rows, columns) for part in (axis.low, axis.high, axis.weight.float()))
    _sample(_pixels(image), *axes, out)
    return _tensor(out)


@numba.njit(inline="always")
def _gather(image, x, y, channels, weight, out):  # type: ignore[no-untyped-def]
    """Add `weight` times the bilinear sample of `image` at (x, y) to `out`. The length of tuple `channels` unrolls."""
    height, width = image.shape[0], image.shape[1]
    x = _inside(x, Float(width - 1))
    y = _inside(y, Float(height - 1))
    left, top = int(x), int(y)
    right, low = min(left + 1, width - 1), min(top + 1, height - 1)
    weight_x, weight_y = x - Float(left), y - Float(top)
    both = weight_x * weight_y * weight
    only_x, only_y = weight_x * weight - both, weight_y * weight - both
    neither = weight - both - only_x - only_y
    for c in range(len(channels)):
        out[c] += (
            neither * image[top, left, c]
            + only_x * image[top, right, c]
            + only_y * image[low, left, c]
            + both * image[low, right, c]
        )


@numba.njit(parallel=True, fastmath={"contract", "nsz"}, cache=True)
def _warp_stacks(stack0, stack1, flow, rows, columns, taps, channels, extra, out):  # type: ignore[no-untyped-def]
    height, width = out.shape[0], out.shape[1]
    count, extras = len(channels), extra.shape[2]
    share = Float(1) / Float(taps * taps)
    step_y, step_x = Float(extra.shape[0]) / Float(height), Float(extra.shape[1]) / Float(width)
    for i in numba.prange(height):
        row = np.empty((extra.shape[1], extras), np.float32)
        _enlarged_row(extra, i, step_y, row)
        for j in range(width):
            pixel = out[i, j]
            pixel[: 2 * count] = Float(0)
            for k in range(4):
                pixel[2 * count + extras + k] = Float(0)
            for a in range(i * taps, (i + 1) * taps):
                for b in range(j * taps, (j + 1) * taps):
                    x, y = columns[b], rows[a]
                    _gather(stack0, x + flow[a, b, 0], y + flow[a, b, 1], channels, share, pixel[:count])
                    _gather(stack1, x + flow[a, b, 2], y + flow[a, b, 3], channels, share, pixel[count : 2 * count])
                    for k in range(4):
                        pixel[2 * count + extras + k] += share * flow[a, b, k]
            left, right, weight = _between(j, step_x, extra.shape[1])
            for e in range(extras):
                pixel[2 * count + e] = row[left, e] + (row[right, e] - row[left, e]) * weight


def warp_stacks(
    stack0: Tensor, stack1: Tensor, flow: Tensor, rows: Tensor, columns: Tensor, taps: int, extra: Tensor
) -> Tensor:
    """Twin of `reference.warp_stacks`."""
    channels = stack0.shape[1]
    shape = flow.shape[-2] // taps, flow.shape[-1] // taps, 2 * channels + extra.shape[1] + 4
    out = np.empty(shape, np.float32)
    _warp_stacks(
        _pixels(stack0), _pixels(stack1), _pixels(flow), rows.flatten().numpy(), columns.numpy(), taps,
        (0,) * channels, _pixels(extra), out,
    )  # fmt: skip
    return _tensor(out)


@numba.njit(parallel=True, fastmath={"contract", "nsz"}, cache=True)
def _blend(a, b, flow, share, channels, out):  # type: ignore[no-untyped-def]
    height, width = out.shape[0], out.shape[1]
    for y in numba.prange(height):
        for x in range(width):
            weight = share[y, x, 0]
            pixel = out[y, x]
            pixel[:] = Float(0)
            at_x, at_y = Float(x), Float(y)
            _gather(a, at_x + flow[y, x, 0], at_y + flow[y, x, 1], channels, weight, pixel)
            _gather(b, at_x + flow[y, x, 2], at_y + flow[y, x, 3], channels, Float(1) - weight, pixel)


def blend(a: Tensor, b: Tensor, flow: Tensor, share: Tensor) -> Tensor:
    """Twin of `reference.blend`."""
    if a.dtype == torch.float16:  # which numba does not know
        a, b = a.float(), b.float()
    channels = a.shape[1]
    out = np.empty((*flow.shape[-2:], channels), np.float32)
    _blend(_pixels(a), _pixels(b), _pixels(flow), _pixels(share), (0,) * channels, out)
    return _tensor(out)


def convolve(x: Tensor, conv: Conv) -> Tensor:
    """Twin of `reference.convolve`: oneDNN's convolution with LeakyReLU in one pass, where it can be."""
    plain = conv.activated and conv.slopes is None and not conv.residual
    if not (_FUSES and plain and x.dtype == torch.float32):
        return reference.convolve(x, conv)
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, _packed(conv, x.shape), conv.bias, [1, 1], [conv.stride] * 2, [1, 1], conv.groups,
        "leaky_relu", [reference.LEAKY_SLOPE], "",
    )  # fmt: skip
    return result


def _packed(conv: Conv, shape: torch.Size) -> Tensor:
    """The weights as oneDNN wants them for inputs of this shape, reordered once."""
    known = _packed_weights.setdefault(conv, {})
    weight = known.get(shape)
    if weight is None:
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            conv.weight.contiguous(), [1, 1], [conv.stride] * 2, [1, 1], conv.groups, list(shape)
        )
        if len(known) >= SHAPES_KEPT:
            known.pop(next(iter(known)), None)
        known[shape] = weight
    return weight


SHAPES_KEPT = 2  # picture sizes that are in use at once, as a rule at most
# Lives as long as the network. Engines take turns on the CPU, so that two threads never meet here.
_packed_weights: weakref.WeakKeyDictionary[Conv, dict[torch.Size, Tensor]] = weakref.WeakKeyDictionary()
_FUSES = torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
