"""The head of a frame on a CPU: all of its layers on one tile of the picture while that lies in the caches.

Twin of `reference.head`. Layer after layer, each would write 16 MB for a picture of 1280x720 and read them again.
Arithmetic is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numpy.typing import NDArray
from torch import Tensor

from vsrife.ops.cpu.buffers import buffer_pool
from vsrife.ops.cpu.conv_tiles import Shape, prepared, tile, tile_at
from vsrife.ops.cpu.llvm import I64, Writer, function
from vsrife.ops.cpu.warping import lanes_for, parts_of, strided
from vsrife.ops.protocol import Conv, TransposedConv

Array = NDArray[Any]

ROWS, COLUMNS = 32, 112  # of a tile at most, at half the frame's size: 1 MB between 16 channels, half of a core's cache
RUNS = {"source": I64, "step": I64, "target": I64, "stride": I64, "count": I64}


def _write_runs(builder: ir.IRBuilder, arguments: Sequence[ir.Value], length: int) -> None:
    """Copy runs of `length` numbers from steps of so many bytes to a stride of so many."""
    source, step, target, stride, count = arguments
    loop = Writer(builder, 1).loop(count, [source, target])
    _, at, to = loop.values
    for first, lanes in parts_of(length):
        w = Writer(builder, lanes)
        w.store(w.floats_at(at, 4 * first), to, 4 * first)
    loop.end([builder.add(at, step), builder.add(to, stride)])


runs, runs_at = function(RUNS, _write_runs)


def _numbers(layer: Conv | TransposedConv, wide: int) -> tuple[int, ...]:
    """What the kernel has to know of a layer for rows of `wide` pixels; its weights live as long as it does."""
    outputs, taps = len(layer.weight), layer.weight.shape[-1]
    shape = Shape.of(lanes_for(outputs), outputs, wide, taps)
    memory = (array.ctypes.data for array in prepared(layer, shape))
    stride = 1 if isinstance(layer, TransposedConv) else layer.stride
    return *memory, outputs, shape.vectors * shape.lanes, shape.pixels, tile_at(shape), taps, stride


@numba.njit
def _convolve(source, columns, channels, layer, target, high, wide):  # type: ignore[no-untyped-def]
    """A layer from (any, columns, channels) at the address `source` to (high, wide, outputs) at `target`."""
    weights, scaling, outputs, together, pixels, code, taps, stride = layer
    row, steps = 4 * columns * channels, taps * channels
    for r in range(high):
        for group in range(outputs // together):
            weight = weights + group * taps * steps * 4 * together
            j = 0
            while j < wide:
                left = min(j, wide - pixels)  # the last tile of a row may do some pixels again
                tile(code, (
                    source + stride * (r * row + 4 * left * channels), 4 * stride * channels, row, weight, steps,
                    scaling + group * 8 * together, target + 4 * ((r * wide + left) * outputs + group * together),
                    4 * outputs,
                ))  # fmt: skip
                j += pixels


@numba.njit
def _tile_of_head(number, frame, picture, layers, copy, place, out, memory):  # type: ignore[no-untyped-def]
    """All layers of one tile; apart from the loop over tiles, whose compilation takes longer the more stands in it."""
    height, width, channels, high, wide, _, across = picture
    half_height, half_width = height // 2, width // 2
    around = len(layers) - 2  # layers between the first and the last
    features = layers[-1, 2] // 4
    # A place lies between four pixels at half size, its own being the lower right one.
    top = min(number // across * high, half_height + 1 - high)
    left = min(number % across * wide, half_width + 1 - wide)
    y, x = top - 1 - around, left - 1 - around
    rows, columns = high + 1 + 2 * around, wide + 1 + 2 * around
    given, given_columns = memory[0], 2 * columns + 1
    for i in range((2 * rows + 1) * given_columns * channels):
        given[i] = np.float32(0)
    first, end = max(0, 1 - 2 * x), min(given_columns, width - 2 * x + 1)
    for r in range(2 * rows + 1):
        at = 2 * y - 1 + r
        if 0 <= at < height:
            runs(copy, (
                frame[0] + at * frame[1] + (2 * x - 1 + first) * frame[2], frame[2],
                given.ctypes.data + 4 * (r * given_columns + first) * channels, 4 * channels, end - first,
            ))  # fmt: skip
    source, source_columns, inputs = given.ctypes.data, given_columns, channels
    for i in range(around + 1):
        between, outputs = memory[1 + i % 2], layers[i, 2]
        _convolve(source, source_columns, inputs, layers[i], between.ctypes.data, rows, columns)
        # Beyond the picture the next layer reads zeros.
        for r in range(rows):
            start = r * columns * outputs
            if 0 <= y + r < half_height:
                for c in range(-x * outputs):
                    between[start + c] = np.float32(0)
                for c in range(max(0, half_width - x) * outputs, columns * outputs):
                    between[start + c] = np.float32(0)
            else:
                for c in range(columns * outputs):
                    between[start + c] = np.float32(0)
        source, source_columns, inputs = between.ctypes.data, columns, outputs
        y, x, rows, columns = y + 1, x + 1, rows - 2, columns - 2
    places = memory[0].ctypes.data
    _convolve(source, source_columns, inputs, layers[-1], places, high, wide)
    size = 4 * features
    for r in range(high):
        for p in range(2):
            at = 2 * (top + r) - p
            if at < 0 or at >= height:
                continue
            for q in range(2):
                first = max(left, q)
                end = min(left + wide, half_width + q)
                if end > first:
                    runs(place, (
                        places + ((r * wide + first - left) * 4 + p * 2 + q) * size, 4 * size,
                        out[0] + at * out[1] + (2 * first - q) * out[2], 2 * out[2], end - first,
                    ))  # fmt: skip


@numba.njit(parallel=True, cache=True)
def _head(frame, picture, layers, copy, place, out, memory):  # type: ignore[no-untyped-def]
    """All layers, tile by tile.

    Args:
        frame: address, bytes between rows, between pixels.
        picture: its height and width, channels, rows and columns of a tile, and how many tiles there are along both.
        layers: for each, what `_numbers` has.
        copy: code that copies pixels.
        place: code that puts features in their place.
        out: address, bytes between rows, between pixels.
        memory: for each worker, one for what a tile reads and two for what lies between layers.
    """
    tiles = picture[5] * picture[6]
    for worker in numba.prange(len(memory)):
        for number in range(worker, tiles, len(memory)):
            _tile_of_head(number, frame, picture, layers, copy, place, out, memory[worker])


def supports(x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> bool:
    """Whether `head` can do this here."""
    first, *inner = convs
    plain = all(c.scales is None and c.groups == 1 and not c.residual for c in convs) and last.scales is None
    strides = first.stride == 2 and all(conv.stride == 1 for conv in inner) and last.factor == 2
    fits = all(lanes_for(len(layer.weight)) for layer in _all(convs, last)) and len(x) == 1
    exact = all(tensor.dtype == torch.float32 for tensor in (x, out, first.weight))
    return plain and strides and fits and exact and x.stride(1) == out.stride(1) == 1


def head(x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
    """What `reference.head` gives, where it `serves`."""
    channels, height, width = x.shape[1:]
    (high, down), (wide, across) = _parts(height // 2 + 1, ROWS), _parts(width // 2 + 1, COLUMNS)
    around = len(convs) - 1
    sides = [*(wide + 1 + 2 * i for i in range(around, -1, -1)), wide]
    layers = np.array([_numbers(layer, side) for layer, side in zip(_all(convs, last), sides, strict=True)])
    rows, columns = high + 1 + 2 * around, wide + 1 + 2 * around
    largest = max(
        (2 * rows + 1) * (2 * columns + 1) * channels, high * wide * len(last.weight),
        rows * columns * max(len(conv.weight) for conv in convs),
    )  # fmt: skip
    workers = min(numba.get_num_threads(), down * across)
    _head(
        _places(x), np.array([height, width, channels, high, wide, down, across]), layers, runs_at(channels),
        runs_at(out.shape[1]), _places(out),
        buffer_pool.take((workers, 3, largest)),
    )  # fmt: skip
    return out


def _all(convs: Sequence[Conv], last: TransposedConv) -> list[Conv | TransposedConv]:
    return [*convs, last]


def _parts(size: int, most: int) -> tuple[int, int]:
    """The size of a part, and how many there are: few, and alike."""
    count = -(-size // most)
    return -(-size // count), count


def _places(pixels: Tensor) -> Array:
    """Address, bytes between rows and between pixels."""
    pixels, *steps = strided(pixels)
    return np.array([pixels.data_ptr(), *steps])


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


def interleave(grid: Tensor, factor: int) -> Tensor:
    """Put the positions of a transposed convolution where they belong.

    Args:
        grid: (N, factor**2 * C, H + 1, W + 1) float32; `TransposedConv` explains its channels.
        factor: of the convolution.

    Returns:
        (N, C, factor * H, factor * W) in channels-last memory.
    """
    count, _, height, width = grid.shape
    side, height, width = factor // 2, height - 1, width - 1
    places = grid.permute(0, 2, 3, 1).contiguous().reshape(count, height + 1, width + 1, 2, side, 2, -1)
    run = places.shape[-1]
    out = buffer_pool.take((count, height, 2, side, width, 2, run))
    for i in range(count):
        _interleave(places[i].numpy(), runs_at(run), out[i])
    return torch.from_numpy(out.reshape(count, height * factor, width * factor, -1)).permute(0, 3, 1, 2)
