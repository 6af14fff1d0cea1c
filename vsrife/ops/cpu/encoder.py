"""CPU kernels that encode a frame: all layers of the head on one tile of the picture while it is in the caches.

Layer after layer, each would write 16 MB for a frame of 1280x720 and read them again. Arithmetic is float32.
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
from vsrife.ops.cpu.conv_tiles import ConvTile, conv_tile, conv_tile_at, packed_layer
from vsrife.ops.cpu.llvm import I64, Emitter, emitted, lanes_for, parallel_kernel, vectors_of
from vsrife.ops.cpu.sampling import pixel_layout
from vsrife.ops.protocol import Conv, TransposedConv

Array = NDArray[Any]

ROWS, COLUMNS = 32, 112  # of a tile at most, at half the frame's size: 1 MB between 16 channels, half of a core's cache

# --- code within a row ------------------------------------------------------------------------------------------------

COPY_RUNS = {
    "source": I64,  # address of the first run
    "source_step": I64,  # bytes between runs there
    "target": I64,
    "target_step": I64,
    "count": I64,  # of runs
}


def _emit_copy_runs(builder: ir.IRBuilder, arguments: Sequence[ir.Value], length: int) -> None:
    """Emit a copy of runs of `length` numbers."""
    source, source_step, target, target_step, count = arguments
    loop = Emitter(builder, 1).loop(count, [source, target])
    _, read, write = loop.values
    for first, lanes in vectors_of(length):
        e = Emitter(builder, lanes)
        e.store(e.load_floats(read, 4 * first), write, 4 * first)
    loop.end([builder.add(read, source_step), builder.add(write, target_step)])


_copy_runs, _copy_runs_at = emitted(COPY_RUNS, _emit_copy_runs)


# --- the head ---------------------------------------------------------------------------------------------------------


def _layer_arguments(layer: Conv | TransposedConv, width: int) -> tuple[int, ...]:
    """What `_convolve` takes of a layer for rows of `width` pixels; the addresses are valid as long as the layer is."""
    outputs, taps = len(layer.weight), layer.weight.shape[-1]
    tile = ConvTile.of(lanes_for(outputs), outputs, width, taps)
    addresses = (array.ctypes.data for array in packed_layer(layer, tile))
    stride = 1 if isinstance(layer, TransposedConv) else layer.stride
    return *addresses, outputs, tile.vectors * tile.lanes, tile.pixels, conv_tile_at(tile), taps, stride


@numba.njit
def _convolve(source, columns, channels, layer, target, height, width):  # type: ignore[no-untyped-def]
    """Convolve (any, columns, channels) at the address `source` to (height, width, outputs) at `target`."""
    weights, scaling, outputs, together, pixels, tile, taps, stride = layer
    row, steps = 4 * columns * channels, taps * channels
    for r in range(height):
        for group in range(outputs // together):
            weight = weights + group * taps * steps * 4 * together
            j = 0
            while j < width:
                left = min(j, width - pixels)  # the last tile of a row may repeat some pixels
                conv_tile(tile, (
                    source + stride * (r * row + 4 * left * channels), 4 * stride * channels, row, weight, steps,
                    scaling + group * 8 * together, target + 4 * ((r * width + left) * outputs + group * together),
                    4 * outputs,
                ))  # fmt: skip
                j += pixels


@numba.njit
def _encode_tile(number, frame, sizes, layers, copy_pixels, copy_features, out, memory):  # type: ignore[no-untyped-def]
    """Compute all layers of one tile. A function of its own, since a loop over tiles compiles slowly if it is long."""
    height, width, channels, tile_height, tile_width, _, across = sizes
    half_height, half_width = height // 2, width // 2
    margin = len(layers) - 2  # layers between the first and the last
    features = layers[-1, 2] // 4
    # The last layer's positions lie between four pixels at half size; each has the index of its lower right one.
    top = min(number // across * tile_height, half_height + 1 - tile_height)
    left = min(number % across * tile_width, half_width + 1 - tile_width)
    y, x = top - 1 - margin, left - 1 - margin
    rows, columns = tile_height + 1 + 2 * margin, tile_width + 1 + 2 * margin
    pixels, pixel_columns = memory[0], 2 * columns + 1
    for i in range((2 * rows + 1) * pixel_columns * channels):
        pixels[i] = np.float32(0)
    first, end = max(0, 1 - 2 * x), min(pixel_columns, width - 2 * x + 1)
    for r in range(2 * rows + 1):
        line = 2 * y - 1 + r
        if 0 <= line < height:
            _copy_runs(copy_pixels, (
                frame[0] + line * frame[1] + (2 * x - 1 + first) * frame[2], frame[2],
                pixels.ctypes.data + 4 * (r * pixel_columns + first) * channels, 4 * channels, end - first,
            ))  # fmt: skip
    source, source_columns, inputs = pixels.ctypes.data, pixel_columns, channels
    for i in range(margin + 1):
        layer_out, outputs = memory[1 + i % 2], layers[i, 2]
        _convolve(source, source_columns, inputs, layers[i], layer_out.ctypes.data, rows, columns)
        # Outside the picture the next layer reads zeros.
        for r in range(rows):
            start = r * columns * outputs
            if 0 <= y + r < half_height:
                for c in range(-x * outputs):
                    layer_out[start + c] = np.float32(0)
                for c in range(max(0, half_width - x) * outputs, columns * outputs):
                    layer_out[start + c] = np.float32(0)
            else:
                for c in range(columns * outputs):
                    layer_out[start + c] = np.float32(0)
        source, source_columns, inputs = layer_out.ctypes.data, columns, outputs
        y, x, rows, columns = y + 1, x + 1, rows - 2, columns - 2
    grid = memory[0].ctypes.data
    _convolve(source, source_columns, inputs, layers[-1], grid, tile_height, tile_width)
    size = 4 * features
    for r in range(tile_height):
        for p in range(2):
            line = 2 * (top + r) - p
            if line < 0 or line >= height:
                continue
            for q in range(2):
                first = max(left, q)
                end = min(left + tile_width, half_width + q)
                if end > first:
                    _copy_runs(copy_features, (
                        grid + ((r * tile_width + first - left) * 4 + p * 2 + q) * size, 4 * size,
                        out[0] + line * out[1] + (2 * first - q) * out[2], 2 * out[2], end - first,
                    ))  # fmt: skip


@parallel_kernel
def _head(frame, sizes, layers, copy_pixels, copy_features, out, memory):  # type: ignore[no-untyped-def]
    """Compute all layers, tile by tile.

    Args:
        frame: address, bytes between rows, between pixels.
        sizes: the frame's height, width and channels, a tile's rows and columns, the tiles along both axes.
        layers: `_layer_arguments` of each.
        copy_pixels: code that copies pixels.
        copy_features: code that copies features.
        out: address, bytes between rows, between pixels.
        memory: for each worker, a tile's pixels and two buffers between layers.
    """
    tiles = sizes[5] * sizes[6]
    for worker in numba.prange(len(memory)):
        for number in range(worker, tiles, len(memory)):
            _encode_tile(number, frame, sizes, layers, copy_pixels, copy_features, out, memory[worker])


def supports(x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> bool:
    """Whether `head` can compute these layers on this CPU."""
    first, *inner = convs
    layers: list[Conv | TransposedConv] = [*convs, last]
    plain = all(c.scales is None and c.groups == 1 and not c.residual for c in convs) and last.scales is None
    strides = first.stride == 2 and all(conv.stride == 1 for conv in inner) and last.factor == 2
    fits = all(lanes_for(len(layer.weight)) for layer in layers) and len(x) == 1
    exact = all(tensor.dtype == torch.float32 for tensor in (x, out, first.weight))
    return plain and strides and fits and exact and x.stride(1) == out.stride(1) == 1


def head(x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
    """`Ops.head` for layers that it `supports`."""
    channels, height, width = x.shape[1:]
    (tile_height, down), (tile_width, across) = _divide(height // 2 + 1, ROWS), _divide(width // 2 + 1, COLUMNS)
    margin = len(convs) - 1
    widths = [*(tile_width + 1 + 2 * i for i in range(margin, -1, -1)), tile_width]
    layers: list[Conv | TransposedConv] = [*convs, last]
    arguments = np.array([_layer_arguments(layer, side) for layer, side in zip(layers, widths, strict=True)])
    rows, columns = tile_height + 1 + 2 * margin, tile_width + 1 + 2 * margin
    largest = max(
        (2 * rows + 1) * (2 * columns + 1) * channels, tile_height * tile_width * len(last.weight),
        rows * columns * max(len(conv.weight) for conv in convs),
    )  # fmt: skip
    workers = min(numba.get_num_threads(), down * across)
    _head(
        _address(x), np.array([height, width, channels, tile_height, tile_width, down, across]), arguments,
        _copy_runs_at(channels), _copy_runs_at(out.shape[1]), _address(out),
        buffer_pool.take((workers, 3, largest)),
    )  # fmt: skip
    return out


def _divide(size: int, most: int) -> tuple[int, int]:
    """The size and the number of parts: as few as there can be, and equal but for an overlap."""
    count = -(-size // most)
    return -(-size // count), count


def _address(pixels: Tensor) -> Array:
    """Address, bytes between rows, bytes between pixels."""
    pixels, *steps = pixel_layout(pixels)
    return np.array([pixels.data_ptr(), *steps])


# --- transposed convolutions ------------------------------------------------------------------------------------------


@parallel_kernel
def _interleave(grid, copy_runs, out):  # type: ignore[no-untyped-def]
    """Copy each parity of (H + 1, W + 1, 2, side, 2, run) to its place in (H, 2, side, W, 2, run)."""
    height, _, side, width, _, run = out.shape
    size = 4 * run
    step, stride = 4 * side * size, 2 * size
    for i in numba.prange(height):
        for p in range(2):
            for r in range(side):
                for q in range(2):
                    _copy_runs(copy_runs, (
                        grid.ctypes.data + ((i + p) * (width + 1) + q) * step + ((p * side + r) * 2 + q) * size, step,
                        out.ctypes.data + (((i * 2 + p) * side + r) * width * 2 + q) * size, stride, width,
                    ))  # fmt: skip


def interleave(grid: Tensor, factor: int) -> Tensor:
    """Arrange the positions of a transposed convolution as pixels.

    Args:
        grid: (N, factor**2 * C, H + 1, W + 1) float32; `TransposedConv` describes its channels.
        factor: of the convolution.

    Returns:
        (N, C, factor * H, factor * W) in channels-last memory.
    """
    count, _, height, width = grid.shape
    side, height, width = factor // 2, height - 1, width - 1
    samples = grid.permute(0, 2, 3, 1).contiguous().reshape(count, height + 1, width + 1, 2, side, 2, -1)
    run = samples.shape[-1]
    out = buffer_pool.take((count, height, 2, side, width, 2, run))
    for i in range(count):
        _interleave(samples[i].numpy(), _copy_runs_at(run), out[i])
    return torch.from_numpy(out.reshape(count, height * factor, width * factor, -1)).permute(0, 3, 1, 2)
