"""The tensor operations of the network, and the values they take.

`Ops` is what a backend implements: `reference` in plain PyTorch, `cpu` and `cuda` with kernels. All give the same
results within rounding. A backend overrides the compositions (`warp_convolve`, `convolve_chain`, `head`) that it fuses.

Coordinates are pixels with half-pixel centres: sample i covers [i, i + 1) and its centre is i + 0.5. Arithmetic is in
the dtype of the arguments; coordinates, flow and blend weights are float32 (float64 in tests), never half precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LEAKY_SLOPE = 0.2  # of every LeakyReLU in the network
STATIC_RADII_PX = (1, 2, 4, 8, 16, 32)
EDGE_PX = 2  # between the sides of an edge: softened edges of letters are as wide


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Conv:
    """A 3x3 convolution with its activation: PReLU where `slopes` is given, else LeakyReLU, or none.

    Attributes:
        weight: (out, in / groups, 3, 3); int8 where `scales` is given, and the input is then quantized as well.
        bias: (out,).
        stride: 1 or 2.
        groups: of channels.
        slopes: (out,), of PReLU.
        residual: whether the input is added before the activation.
        activated: whether there is an activation.
        scales: (out,), the value of a weight of 1.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int = 1
    groups: int = 1
    slopes: Tensor | None = None
    residual: bool = False
    activated: bool = True
    scales: Tensor | None = None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class TransposedConv:
    """A 4x4 transposed convolution with stride 2 and padding 1, optionally followed by a pixel shuffle by 2.

    Each output reads 2x2 inputs, chosen by the parities of its row and column. So the weights are held as those of an
    ordinary 2x2 convolution with padding 1, whose result has (H + 1) x (W + 1) positions: outputs of parity (p, q) come
    from the positions that start at (p, q).

    Attributes:
        weight: (4 * out, in, 2, 2), ordered by row parity, shuffle row, column parity, shuffle column, channel; int8
            where `scales` is given.
        bias: (4 * out,).
        factor: by which height and width grow: 2, or 4 with the pixel shuffle.
        scales: (4 * out,), the value of a weight of 1.
    """

    weight: Tensor
    bias: Tensor
    factor: int
    scales: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, shuffles: bool) -> TransposedConv:
        """From the transposed convolution's weight (in, out, 4, 4) and bias (out,)."""
        inputs, outputs = weight.shape[:2]
        side = 2 if shuffles else 1
        channels = outputs // side**2
        # Output 2i + p reads input i - 1 + p + k with the tap 3 - 2k - p of the transposed kernel, k = 0, 1.
        parities = weight.flip(-1, -2).reshape(inputs, channels, side, side, 2, 2, 2, 2)
        ordered = parities.permute(5, 2, 7, 3, 1, 0, 4, 6)
        return cls(
            ordered.reshape(4 * outputs, inputs, 2, 2),
            bias.reshape(1, channels, side, 1, side).permute(0, 2, 3, 4, 1).expand(2, -1, 2, -1, -1).flatten(),
            2 * side,
        )


@dataclass(frozen=True, slots=True)
class Axis:
    """Sampling positions along one axis, as two neighbours and the weight of the second.

    Attributes:
        low: (L,) int64, index of the first neighbour.
        high: (L,) int64, index of the second.
        weight: (L,) weight of the second, 0..1.
    """

    low: Tensor
    high: Tensor
    weight: Tensor

    @classmethod
    def at(cls, positions: Tensor, size: int) -> Axis:
        """From positions on an axis of `size` samples; positions outside it read the border sample.

        Args:
            positions: (L,) float64 sample indices. In float32 they would be off by 1/3 pixel at 8K after scaling.
            size: number of samples on the axis.
        """
        clamped = positions.clamp(0, size - 1)
        low = clamped.floor()
        return cls(low=low.long(), high=(low.long() + 1).clamp_max(size - 1), weight=(clamped - low))

    @classmethod
    def resizing(cls, count: int, size: int) -> Axis:
        """The positions that `reference.resize` reads on an axis of `size` samples resized to `count`."""
        return cls.at((torch.arange(count, dtype=torch.float64) + 0.5) * (size / count) - 0.5, size)

    def to(self, device: torch.device, dtype: torch.dtype) -> Axis:
        """A copy on `device` with weights of `dtype`."""
        return Axis(self.low.to(device), self.high.to(device), self.weight.to(device, dtype))


@dataclass(frozen=True, slots=True, eq=False)
class RgbTransform:
    """The affine map from a picture's samples to RGB; one form for all formats.

    Attributes:
        weight: (3, planes), red, green and blue per code of each plane.
        bias: (3,), RGB of codes that are 0.
        rows: positions of the first plane's rows in the second and third; None where all planes have one size.
        columns: the same for columns.
    """

    weight: Tensor
    bias: Tensor
    rows: Axis | None = None
    columns: Axis | None = None


@dataclass(frozen=True, slots=True, eq=False)
class WarpInputs:
    """The inputs of a block, before they are warped and concatenated.

    Attributes:
        stack0: (N, C, H, W), or (1, C, H, W) for any N: frame 0 and its features.
        stack1: frame 1 and its features.
        maps: each (N, 4, any, any); their sum, upsampled to H x W, is the flow in pixels: x and y into `stack0`, then
            into `stack1`.
        flow: computes that sum at the taps, (N, 4, taps * h, taps * w), for backends that do not sum `maps` themselves.
        rows: (taps * h, 1), the taps' rows in pixels.
        columns: (taps * w,), the taps' columns in pixels.
        taps: samples averaged along each axis of an output pixel, 1 or 2.
        extra: (N, E, any, any), further maps, resized to h x w.
        times: (N, T, 1, 1) or (N, T, h, w), passed through as the last channels.
    """

    stack0: Tensor
    stack1: Tensor
    maps: Sequence[Tensor]
    flow: Callable[[], Tensor]
    rows: Tensor
    columns: Tensor
    taps: int
    extra: Tensor
    times: Tensor

    @property
    def count(self) -> int:
        """The number of flows, N."""
        return max(map(len, self.maps))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the result, h and w."""
        return len(self.rows) // self.taps, len(self.columns) // self.taps


def _change(plane: Tensor, axis: int, length: int) -> Tensor:
    """How much the first samples along an axis differ from the last, float32."""
    first, last = (plane.narrow(axis, start, length).float() for start in (0, plane.shape[axis] - length))
    return (first - last).abs()


class Ops(Protocol):
    """The operations of a backend. None changes its arguments, except `out` and `accumulate`."""

    def stack_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of the frames and features to be warped, of a network with convolutions of `dtype`."""
        return torch.float64 if dtype == torch.float64 else torch.float32

    def planes_to_rgb(self, planes: Sequence[Tensor], transform: RgbTransform, clamps: bool, out: Tensor) -> Tensor:
        """Convert a picture to RGB, padded with zeros on the right and at the bottom.

        Args:
            planes: per plane (1, 1, h, w), in any sample type.
            transform: from samples to RGB.
            clamps: whether RGB is limited to 0..1.
            out: (1, 3, H, W), at least as large as the first plane, of any float dtype and memory format; overwritten.

        Returns:
            `out`.
        """
        ...

    def sample(self, image: Tensor, rows: Axis, columns: Axis, accumulate: Tensor | None = None) -> Tensor:
        """Interpolate an image bilinearly on the grid rows x columns.

        Args:
            image: (N, C, H, W), of a float dtype.
            rows: positions along H.
            columns: positions along W.
            accumulate: (N, C, len(rows), len(columns)), added to the result; it may be overwritten.

        Returns:
            (N, C, len(rows), len(columns)), dtype of `image`.
        """
        ...

    def upsample(self, maps: Sequence[Tensor], height: int, width: int, accumulate: Tensor | None = None) -> Tensor:
        """Sum small maps, each resized bilinearly.

        Args:
            maps: each (N, C, any, any).
            height: of the result.
            width: of the result.
            accumulate: (N, C, height, width), added to the result.

        Returns:
            (N, C, height, width).
        """
        ...

    def warp_stacks(self, inputs: WarpInputs, channels: int, dtype: torch.dtype) -> Tensor:
        """Warp both stacks, average them over each pixel's taps, and append the further maps.

        Args:
            inputs: what to warp, and the flow.
            channels: of the result; those beyond the inputs' are zero.
            dtype: of the result.

        Returns:
            (N, channels, h, w): both stacks, `extra`, the averaged flow, `times`, zeros.
        """
        ...

    def warp_convolve(self, inputs: WarpInputs, conv: Conv) -> Tensor:
        """Apply a block's first convolution to its warped inputs."""
        return self.convolve(self.warp_stacks(inputs, conv.weight.shape[1], conv.weight.dtype), conv)

    def blend(self, a: Tensor, b: Tensor, flow: Tensor, weight0: Tensor) -> Tensor:
        """Warp both pictures to a time in between and mix them.

        Args:
            a: (N, C, H, W), picture 0, in any units and of any dtype.
            b: picture 1, of the same shape.
            flow: (N, 4, h, w) in samples of the pictures: x and y into `a`, then into `b`; h <= H and w <= W.
            weight0: (N, 1, h, w), weight of `a`, 0..1.

        Returns:
            (N, C, h, w), dtype of `flow`. Positions outside the pictures read the border sample.
        """
        ...

    def static_radius(self, a: Tensor, b: Tensor) -> Tensor:
        """Measure how far two planes are equal around each sample.

        Args:
            a: (1, 1, H, W), plane 0 in its own samples.
            b: plane 1.

        Returns:
            (1, 1, H, W) int8: the largest radius r of 0 and `STATIC_RADII_PX` whose box of side 2r + 1 holds no
            difference; -1 where the samples themselves differ.
        """
        ...

    def static_edges(self, a: Tensor, b: Tensor, radius: Tensor, contrast: float) -> Tensor:
        """Count to how many of its four sides each equal sample has strong contrast in both planes.

        Args:
            a: (1, 1, H, W), plane 0 in its own samples.
            b: plane 1.
            radius: (1, 1, H, W), the `static_radius` of the planes.
            contrast: least difference from the sample `EDGE_PX` away.

        Returns:
            (1, 1, H, W) uint8, 0 to 4; 0 where the samples differ.
        """
        equal = radius >= 0
        edges = torch.zeros_like(equal, dtype=torch.uint8)
        for axis in (2, 3):
            length = max(0, edges.shape[axis] - EDGE_PX)
            far = edges.shape[axis] - length
            least = torch.minimum(*(_change(plane, axis, length) for plane in (a, b)))
            for start in (0, far):
                edges.narrow(axis, start, length).add_((least >= contrast) & equal.narrow(axis, start, length))
        return edges

    def blend_plane(self, a: Tensor, b: Tensor, flow: Tensor, mask: Tensor, radius: Tensor, peak: int) -> Tensor:
        """Interpolate a plane in its own samples: `blend`, but the sample of `a` wherever it is static.

        Args:
            a: (1, 1, H, W), plane 0 in its own samples.
            b: plane 1.
            flow: (N, 4, H, W) in samples of the plane.
            mask: (N, 1, H, W), logit of the weight of `a`.
            radius: (1, 1, H, W), the `static_radius` of the planes.
            peak: the largest sample value of an integer plane; float planes are neither rounded nor limited.

        Returns:
            (N, 1, H, W), dtype of `a`.
        """
        ...

    def convolve(self, x: Tensor, conv: Conv) -> Tensor:
        """Apply a 3x3 convolution with zero padding, then its residual and activation.

        Args:
            x: (N, C, H, W), dtype of the weights; float32 or float64 where those are int8.
            conv: weights and what follows them.
        """
        ...

    def convolve_chain(self, x: Tensor, convs: Sequence[Conv]) -> Tensor:
        """Apply convolutions one after the other.

        Args:
            x: (N, C, H, W), dtype of the weights.
            convs: in their order.
        """
        for conv in convs:
            x = self.convolve(x, conv)
        return x

    def conv_transpose(self, x: Tensor, conv: TransposedConv) -> Tensor:
        """Apply a transposed convolution and its pixel shuffle.

        Args:
            x: (N, C, H, W), dtype of the weights; float32 or float64 where those are int8.
            conv: the weights.

        Returns:
            (N, out, factor * H, factor * W) in channels-last memory; float64 where the weights are, else float32.
        """
        ...

    def head(self, x: Tensor, convs: Sequence[Conv], last: TransposedConv, out: Tensor) -> Tensor:
        """Encode a frame into features.

        Args:
            x: (1, 3, H, W), dtype of the weights; H and W are even.
            convs: the first with stride 2.
            last: with factor 2.
            out: (1, C, H, W) of any float dtype and memory format; it is overwritten.

        Returns:
            `out`.
        """
        return out.copy_(self.conv_transpose(self.convolve_chain(x, convs), last))


OP_NAMES = (
    "planes_to_rgb", "sample", "upsample", "warp_stacks", "warp_convolve", "blend", "static_radius", "static_edges",
    "blend_plane", "convolve", "convolve_chain", "conv_transpose", "head",
)  # fmt: skip
