"""The operations on CUDA: cuDNN's convolutions, and Triton kernels for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vsrife.ops.cuda import KernelError, kernels
from vsrife.ops.protocol import STATIC_RADII_PX, Axis, Conv, Ops, RgbTransform, TransposedConv, WarpInputs

PIXELS = 128  # of one program
FUSION = {"enable_fp_fusion": True}  # multiply-adds; left open, Triton warns


def launch(kernel: Any, grid: tuple[int, ...], written: Tensor, *arguments: Any, **constants: Any) -> None:
    """Launch a kernel on the device of the tensor that it writes.

    Raises:
        KernelError: it does not compile or cannot be launched.
    """
    try:
        with torch.cuda.device(written.device) if written.is_cuda else nullcontext():
            kernel[grid](*arguments, **constants, **FUSION)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # compilers fail in many ways
        if "out of memory" in str(error):
            raise
        reason = str(error).strip().partition("\n")[0][:200]
        raise KernelError(f"{kernel.__name__} failed, got {type(error).__name__}: {reason}") from error


class CudaOps(Ops):
    """One pass over memory for each operation; `Ops` documents them."""

    def stack_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Half of the bytes in float16; the warped stacks are rounded to that for the convolutions anyway."""
        return torch.float16 if dtype == torch.float16 else torch.float32

    def planes_to_rgb(self, planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
        height, width = planes[0].shape[-2:]
        first, second, third = planes if len(planes) == 3 else (planes[0],) * 3
        rows, columns, bias = transform.rows, transform.columns, transform.bias
        axes = (bias,) * 6 if rows is None or columns is None else (
            rows.low, rows.high, rows.weight, columns.low, columns.high, columns.weight
        )  # fmt: skip
        launch(
            kernels.planes_to_rgb_kernel, (_blocks(out.shape[-2] * out.shape[-1]),), out,
            first, *first.stride()[2:], second, *second.stride()[2:], third, *third.stride()[2:],
            transform.weight.contiguous(), bias, *axes, out, *out.stride()[1:], height, width, *out.shape[-2:],
            PLANES=len(planes), SUBSAMPLED=rows is not None, CLAMPS=clamps, P=PIXELS,
        )  # fmt: skip
        return out

    def sample(self, image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
        channels, height, width = image.shape[1], len(rows.low), len(columns.low)
        out = _empty(image, channels, height, width, image.dtype)
        summand = out if accumulate is None else accumulate
        launch(
            kernels.sample_kernel, (_blocks(height * width), len(image)), out,
            image, *_strides(image), summand, *_strides(summand), out, *out.stride(),
            rows.low, rows.high, rows.weight.float(), columns.low, columns.high, columns.weight.float(),
            height, width, channels, ADDS=accumulate is not None, C=_lanes(channels), P=PIXELS,
        )  # fmt: skip
        return out

    def upsample(self, maps: Sequence[Tensor], height: int, width: int, accumulate: Tensor | None = None) -> Tensor:
        like = max(maps, key=len) if accumulate is None else max(*maps, accumulate, key=len)
        channels = like.shape[1]
        out = _empty(like, channels, height, width, like.dtype)
        summand = out if accumulate is None else accumulate
        launch(
            kernels.upsample_kernel, (_blocks(height * width), len(out)), out,
            summand, *_strides(summand), *_maps(maps, height, width), out, *out.stride(),
            height, width, channels, ADDS=accumulate is not None, MAPS=len(maps), C=_lanes(channels), P=PIXELS,
        )  # fmt: skip
        return out

    def warp_stacks(self, inputs: WarpInputs, channels: int, dtype: torch.dtype) -> Tensor:
        """The flow is summed at the taps and never written."""
        height, width = inputs.size
        stack0, stack1, extra = inputs.stack0, inputs.stack1, inputs.extra
        stacked, extras = stack0.shape[1], extra.shape[1]
        out = _empty(max(inputs.maps, key=len), channels, height, width, dtype)
        rest = channels - 2 * stacked - extras - 4
        times = inputs.times.to(extra.dtype).expand(-1, -1, height, width)
        launch(
            kernels.warp_stacks_kernel, (_blocks(height * width), len(out)), out,
            stack0, *_strides(stack0), stack1, *_strides(stack1), *_maps(inputs.maps, *stack0.shape[-2:]),
            inputs.rows, inputs.columns, extra, *_strides(extra), times, *_strides(times), out, *out.stride(),
            height, width, *stack0.shape[-2:], *extra.shape[-2:], extra.shape[-2] / height, extra.shape[-1] / width,
            stacked, extras, times.shape[1], channels,
            TAPS=inputs.taps, MAPS=len(inputs.maps), C=_lanes(stacked), E=_lanes(extras), R=_lanes(rest), P=PIXELS,
        )  # fmt: skip
        return out

    def blend(self, a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor:
        height, width = flow.shape[-2:]
        channels = a.shape[1]
        out = _empty(flow, channels, height, width, flow.dtype)
        launch(
            kernels.blend_kernel, (_blocks(height * width), len(flow)), out,
            a, *_strides(a), b, *_strides(b), flow, *_strides(flow), weight0, *_strides(weight0), out, *out.stride(),
            height, width, *a.shape[-2:], channels, C=_lanes(channels), P=PIXELS,
        )  # fmt: skip
        return out

    def static_radius(self, a: Tensor, b: Tensor) -> Tensor:
        height, width = a.shape[-2:]
        distances = torch.empty((1, 1, height, width), dtype=torch.int8, device=a.device)
        out = torch.empty_like(distances)
        grid, constants = (_blocks(height * width),), {"RADIUS": STATIC_RADII_PX[-1], "P": PIXELS}
        launch(
            kernels.row_distance_kernel, grid, distances,
            a, *a.stride()[2:], b, *b.stride()[2:], distances, height, width, **constants,
        )  # fmt: skip
        launch(kernels.static_radius_kernel, grid, out, distances, out, height, width, **constants)
        return out

    def blend_plane(self, a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, radius: Tensor, peak: int) -> Tensor:
        height, width = flow.shape[-2:]
        out = torch.empty((len(flow), 1, height, width), dtype=a.dtype, device=a.device)
        launch(
            kernels.blend_plane_kernel, (_blocks(height * width), len(flow)), out,
            a, *a.stride()[2:], b, *b.stride()[2:], flow, *_strides(flow), mask, *_strides(mask),
            radius, *radius.stride()[2:], out, *out.stride(), height, width, float(peak),
            ROUNDS=not a.dtype.is_floating_point, P=PIXELS,
        )  # fmt: skip
        return out

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        """cuDNN's convolution, then bias, residual and activation in place."""
        y = F.conv2d(x, conv.weight, None, stride=conv.stride, padding=1, groups=conv.groups)
        channels, height, width = y.shape[1:]
        lanes = min(32, _lanes(channels))
        bias = y if conv.bias is None else conv.bias
        slopes = y if conv.slopes is None else conv.slopes
        prelu = conv.activated and conv.slopes is not None
        launch(
            kernels.finish_kernel, (_blocks(height * width), len(y), -(-channels // lanes)), y,
            y, *_strides(y), x, *_strides(x), bias, slopes, height, width, channels,
            BIASED=conv.bias is not None, RESIDUAL=conv.residual, PRELU=prelu, LEAKY=conv.activated and not prelu,
            C=lanes, P=PIXELS,
        )  # fmt: skip
        return y

    def conv_transpose(self, x: Tensor, conv: TransposedConv) -> Tensor:
        height, width = (conv.factor * side for side in x.shape[-2:])
        return _transposed(x, conv, _empty(x, len(conv.weight) // conv.factor**2, height, width, torch.float32))

    def head(self, x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
        return _transposed(self.convolve_chain(x, convs), last, out)


def _transposed(x: Tensor, conv: TransposedConv, out: Tensor) -> Tensor:
    """cuDNN's convolution, then bias and interleaving into `out`, (N, any, factor * H, factor * W)."""
    grid = F.conv2d(x, conv.weight, padding=1)
    channels, height, width = out.shape[1:]
    launch(
        kernels.interleave_kernel, (_blocks(height * width), len(out)), out,
        grid, *_strides(grid), conv.bias, out, *out.stride(), height, width, channels,
        SIDE=conv.factor // 2, C=_lanes(channels), P=PIXELS,
    )  # fmt: skip
    return out


def _lanes(channels: int) -> int:
    """The least power of two that holds this many channels."""
    return max(1, 1 << (channels - 1).bit_length())


def _blocks(pixels: int) -> int:
    return -(-pixels // PIXELS)


def _empty(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """(N, channels, height, width) in channels-last memory; N and device as those of `like`."""
    shape = (like.shape[0], channels, height, width)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _strides(image: Tensor) -> tuple[int, int, int, int]:
    """In samples; 0 along a batch of one, so that it serves any batch."""
    n, c, y, x = image.stride()
    return (n if image.shape[0] > 1 else 0), c, y, x


def _maps(maps: Sequence[Tensor], height: int, width: int) -> tuple[tuple[Any, ...], ...]:
    """Maps of any sizes as kernel arguments: their memory; four strides of each; of each its height, width, and its
    samples for one row and for one column of the picture."""
    sides = ((h, w, h / height, w / width) for h, w in (small.shape[-2:] for small in maps))
    return tuple(maps), tuple(chain.from_iterable(map(_strides, maps))), tuple(chain.from_iterable(sides))


cuda_ops = CudaOps()
