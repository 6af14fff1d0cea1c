"""The operations on CUDA: cuDNN's convolutions, and Triton kernels for everything else."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vsrife.errors import first_line
from vsrife.ops.cuda import KernelError, kernels
from vsrife.ops.protocol import STATIC_RADII_PX, Axis, Conv, Ops, RgbTransform, TransposedConv, WarpInputs

PIXELS = 128  # of one program
FUSION = {"enable_fp_fusion": True}  # multiply-adds; left open, Triton warns


def launch(kernel: Any, written: Tensor, *arguments: Any, groups: int = 1, **constants: Any) -> None:
    """Launch a kernel for every pixel of `written`, (N, any, H, W), on its device; images are as `_image` has them, and
    each of `groups` of channels has programs of its own.

    Raises:
        KernelError: it does not compile or cannot be launched.
    """
    pixels = written.shape[-2] * written.shape[-1]
    grid = (-(-pixels // PIXELS), written.shape[0], groups)
    try:
        with torch.cuda.device(written.device) if written.is_cuda else nullcontext():
            kernel[grid](*arguments, **constants, P=PIXELS, **FUSION)
    except Exception as error:  # compilers fail in many ways
        if "out of memory" in str(error):
            raise
        raise KernelError(f"{kernel.__name__} failed, got {type(error).__name__}: {first_line(error)}") from error


class CudaOps(Ops):
    """One pass over memory for each operation; `Ops` documents them."""

    def stack_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Half of the bytes in float16; the warped stacks are rounded to that for the convolutions anyway."""
        return torch.float16 if dtype == torch.float16 else torch.float32

    def planes_to_rgb(self, planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
        rows, columns, bias = transform.rows, transform.columns, transform.bias
        axes = ((bias,) * 3,) * 2 if rows is None or columns is None else (_axis(rows), _axis(columns))
        launch(
            kernels.planes_to_rgb_kernel, out, tuple(map(_image, planes)), transform.weight.contiguous(), bias, *axes,
            _image(out), *planes[0].shape[-2:], *out.shape[-2:],
            PLANES=len(planes), SUBSAMPLED=rows is not None, CLAMPS=clamps,
        )  # fmt: skip
        return out

    def sample(self, image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
        out = _empty(image, image.shape[1], len(rows.low), len(columns.low), image.dtype)
        arguments = _image(image), _image(out), _axis(rows), _axis(columns), *out.shape[-2:], out.shape[1]
        launch(kernels.sample_kernel, out, *arguments, C=_lanes(out.shape[1]))
        return out if accumulate is None else out.add_(accumulate)

    def upsample(self, maps: Sequence[Tensor], height: int, width: int, accumulate: Tensor | None = None) -> Tensor:
        like = max(maps, key=len)
        out = _empty(like, like.shape[1], height, width, like.dtype)
        arguments = *_maps(maps, height, width), _image(out), height, width, out.shape[1]
        launch(kernels.upsample_kernel, out, *arguments, MAPS=len(maps), C=_lanes(out.shape[1]))
        return out if accumulate is None else out + accumulate

    def warp_stacks(self, inputs: WarpInputs, channels: int, dtype: torch.dtype) -> Tensor:
        """The flow is summed at the taps and never written."""
        (height, width), extra, size = inputs.size, inputs.extra, inputs.stack0.shape[-2:]
        stacked, extras = inputs.stack0.shape[1], extra.shape[1]
        out = _empty(max(inputs.maps, key=len), channels, height, width, dtype)
        times = inputs.times.to(extra.dtype).expand(-1, -1, height, width)
        launch(
            kernels.warp_stacks_kernel, out, _image(inputs.stack0), _image(inputs.stack1), *_maps(inputs.maps, *size),
            inputs.rows, inputs.columns, *_maps([extra], height, width), _image(times), _image(out), height, width,
            *size, stacked, extras, times.shape[1], channels, TAPS=inputs.taps, MAPS=len(inputs.maps),
            C=_lanes(stacked), E=_lanes(extras), R=_lanes(channels - 2 * stacked - extras - 4),
        )  # fmt: skip
        return out

    def blend(self, a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor:
        height, width = flow.shape[-2:]
        out = _empty(flow, a.shape[1], height, width, flow.dtype)
        return _blend(a, b, flow, weight0, weight0, out, PLANE=False, ROUNDS=False)

    def static_radius(self, a: Tensor, b: Tensor) -> Tensor:
        equal = (a == b).contiguous().view(torch.int8)
        distances, out = torch.empty_like(equal), torch.empty_like(equal)
        for kernel_in, kernel_out in ((equal, distances), (distances, out)):
            constants = {"COLUMNS": kernel_out is out, "RADIUS": STATIC_RADII_PX[-1]}
            launch(kernels.static_radius_kernel, kernel_out, kernel_in, kernel_out, *a.shape[-2:], **constants)
        return out

    def blend_plane(self, a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, radius: Tensor, peak: int) -> Tensor:
        out = torch.empty((len(flow), 1, *flow.shape[-2:]), dtype=a.dtype, device=a.device)
        return _blend(a, b, flow, mask, radius, out, peak, PLANE=True, ROUNDS=not a.dtype.is_floating_point)

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        """cuDNN's convolution, then bias, residual and activation in place."""
        y = F.conv2d(x, conv.weight, None, stride=conv.stride, padding=1, groups=conv.groups)
        channels, height, width = y.shape[1:]
        lanes = min(32, _lanes(channels))
        bias = y if conv.bias is None else conv.bias
        slopes = y if conv.slopes is None else conv.slopes
        prelu = conv.activated and conv.slopes is not None
        launch(
            kernels.finish_kernel, y, _image(y), _image(x), bias, slopes, height, width, channels,
            groups=-(-channels // lanes), BIASED=conv.bias is not None, RESIDUAL=conv.residual, PRELU=prelu,
            LEAKY=conv.activated and not prelu, C=lanes,
        )  # fmt: skip
        return y

    def conv_transpose(self, x: Tensor, conv: TransposedConv) -> Tensor:
        height, width = (conv.factor * side for side in x.shape[-2:])
        return _transposed(x, conv, _empty(x, len(conv.weight) // conv.factor**2, height, width, torch.float32))

    def head(self, x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
        return _transposed(self.convolve_chain(x, convs), last, out)


def _blend(
    a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor, radius: Tensor, out: Tensor, peak: int = 0, **kind: bool
) -> Tensor:
    images = map(_image, (a, b, flow, weight0, radius, out))
    sizes, channels = (*out.shape[-2:], *a.shape[-2:]), out.shape[1]
    launch(kernels.blend_kernel, out, *images, *sizes, channels, float(peak), **kind, C=_lanes(channels))
    return out


def _transposed(x: Tensor, conv: TransposedConv, out: Tensor) -> Tensor:
    """cuDNN's convolution, then bias and interleaving into `out`, (N, any, factor * H, factor * W)."""
    grid = F.conv2d(x, conv.weight, padding=1)
    channels, height, width = out.shape[1:]
    launch(
        kernels.interleave_kernel, out, _image(grid), conv.bias, _image(out), height, width, channels,
        SIDE=conv.factor // 2, C=_lanes(channels),
    )  # fmt: skip
    return out


def _lanes(channels: int) -> int:
    """The least power of two that holds this many channels."""
    return max(1, 1 << (channels - 1).bit_length())


def _empty(like: Tensor, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """(N, channels, height, width) in channels-last memory; N and device as those of `like`."""
    shape = (like.shape[0], channels, height, width)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _image(image: Tensor) -> tuple[Any, ...]:
    """An image as a kernel's argument; its stride is 0 along a batch of one, so that it serves any batch."""
    n, *others = image.stride()
    return image, n if image.shape[0] > 1 else 0, *others


def _axis(axis: Axis) -> tuple[Tensor, Tensor, Tensor]:
    return axis.low, axis.high, axis.weight.float()


def _maps(maps: Sequence[Tensor], height: int, width: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Maps of any sizes as kernel arguments, and of each its height, width, and its samples for one row and for one
    column of the picture."""
    return tuple(map(_image, maps)), tuple((h, w, h / height, w / width) for h, w in (m.shape[-2:] for m in maps))


cuda_ops = CudaOps()
