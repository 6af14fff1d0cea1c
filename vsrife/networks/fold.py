"""Exact algebra on loaded weights: the same function with fewer operations.

What is folded, once, when weights are loaded:
- `conv(x) * beta + x`: beta goes into weight and bias; in float32 the identity goes into the centre tap as well, so
  that the residual is never read. In half precision that would double the weights' rounding error: the add stays.
- flow divided by the block's scale, and multiplied by it again: both go into the weights.
- block 0's first convolution is linear in the two frames and the timestep: it is split into one part for each role of a
  frame and one for the timestep.
- unused outputs of the last convolution are not computed.
- ensemble: the pass in the other time direction permutes input channels of the first convolution instead of data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vsrife.networks.catalogue import BODY_LAYERS, FLOW_CHANNELS, IMAGE_CHANNELS, Layout
from vsrife.ops.dispatch import choose
from vsrife.ops.protocol import Conv, Ops, TransposedConv

# Channel counts of int8 weights must be multiples of these: a vector, and the products that one instruction sums.
QUANTIZED_OUTPUTS, QUANTIZED_INPUTS = 8, 4
COARSE_SCALE = 4  # blocks of this scale or more keep their last convolution in float32: one int8 step is a visible jump
LARGEST_WEIGHT_CODE = 127


@dataclass(frozen=True, slots=True)
class FoldedBlock:
    """One IFBlock, ready to run at one scale.

    Attributes:
        scale: frame side / side that the block works at.
        first: c/2 outputs for each pass; an ensemble has two. Inputs: stack 0, stack 1, mask, carried features, flow in
            pixels, times (t, and 1 - t for an ensemble), zero padding to a multiple of eight in half precision. A stack
            is a frame followed by its head features, 3 + k channels. In block 0 it reads a single stack and yields
            its part as frame 0, then as frame 1, without bias and activation.
        time: of block 0, the timestep's part with the bias and the activation; None in other blocks.
        second: to c channels.
        body: the rest, at one size.
        outer_skip: whether the body's input is added to its result.
        last: to the outputs that are used: flow in pixels of the frame, mask, carried features.
    """

    scale: float
    first: Conv
    time: Conv | None
    second: Conv
    body: tuple[Conv, ...]
    outer_skip: bool
    last: TransposedConv


@dataclass(frozen=True, slots=True, weakref_slot=True)
class FoldedNet:
    """Everything that a layout's forward needs at one flow scale, on one device, in one precision.

    Attributes:
        layout: the row it came from.
        scale: the flow scale.
        ensemble: whether both time directions run.
        dtype: of the convolutions; coordinates, flow and blend are float32 (float64 when this is float64).
        head: convolutions of the encoder but the last.
        head_last: its transposed convolution.
        blocks: coarse to fine.
        retry: the blocks at doubled scales for layouts that try again, else empty.
    """

    layout: Layout
    scale: float
    ensemble: bool
    dtype: torch.dtype
    head: tuple[Conv, ...]
    head_last: TransposedConv | None
    blocks: tuple[FoldedBlock, ...]
    retry: tuple[FoldedBlock, ...]

    @property
    def device(self) -> torch.device:
        return self.blocks[0].first.weight.device

    @property
    def ops(self) -> Ops:
        """The fastest operations for this device and dtype."""
        return choose(self.device, self.dtype)

    @property
    def exact(self) -> torch.dtype:
        """The dtype of coordinates, flow and blend."""
        return torch.float64 if self.dtype == torch.float64 else torch.float32


def fold(
    layout: Layout,
    tensors: Mapping[str, Tensor],
    *,
    scale: float = 1.0,
    ensemble: bool = False,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> FoldedNet:
    """Fold a state dict for one flow scale.

    Args:
        layout: the row of the catalogue that the tensors belong to.
        tensors: every tensor of the layout, by name.
        scale: flow scale, 0.25, 0.5, 1, 2 or 4.
        ensemble: run both time directions and average; the layout must support it.
        device: where the network runs; None is the CPU.
        dtype: of the convolutions. int8 quantizes the convolutions within blocks. The head stays in float32, and so
            do the first convolution of a block, whose inputs have no common scale (colours beside flow in pixels), and
            the last one of coarse blocks.

    Returns:
        The network for `pyramid`. The algebra is done in float64 and rounded once.
    """
    exact = {name: tensor.to(torch.float64) for name, tensor in tensors.items()}
    quantized, dtype = dtype == torch.int8, torch.float32 if dtype == torch.int8 else dtype
    folder = _Folder(layout, exact, ensemble, device or torch.device("cpu"), dtype, quantized)
    scales = layout.scale_list(scale)
    head, head_last = folder.head()
    return FoldedNet(
        layout=layout,
        scale=scale,
        ensemble=ensemble,
        dtype=dtype,
        head=head,
        head_last=head_last,
        blocks=tuple(folder.block(i, s) for i, s in enumerate(scales)),
        retry=tuple(folder.block(i, 2 * s) for i, s in enumerate(scales)) if layout.rescales else (),
    )


class _Folder:
    def __init__(
        self,
        layout: Layout,
        tensors: Mapping[str, Tensor],
        ensemble: bool,
        device: torch.device,
        dtype: torch.dtype,
        quantized: bool,
    ) -> None:
        self.layout, self.tensors, self.ensemble, self.device, self.dtype = layout, tensors, ensemble, device, dtype
        self.quantized = quantized

    def _place(self, tensor: Tensor) -> Tensor:
        placed = tensor.to(self.device, self.dtype).contiguous()
        return placed.contiguous(memory_format=torch.channels_last) if placed.ndim == 4 else placed

    def _within(self, weight: Tensor, groups: int = 1) -> tuple[Tensor, Tensor | None]:
        """The weight (out, in, kh, kw) of a convolution within a block, and the scale of each output if it is int8."""
        outputs, inputs = weight.shape[:2]
        if not self.quantized or groups > 1 or outputs % QUANTIZED_OUTPUTS or inputs % QUANTIZED_INPUTS:
            return self._place(weight), None
        scales = weight.abs().amax((1, 2, 3)) / LARGEST_WEIGHT_CODE
        scales = torch.where(scales > 0, scales, 1)
        codes = (weight / scales[:, None, None, None]).round()
        return codes.to(self.device, torch.int8).contiguous(), self._place(scales)

    def _optional(self, name: str) -> Tensor | None:
        return self._place(self.tensors[name]) if name in self.tensors else None

    def head(self) -> tuple[tuple[Conv, ...], TransposedConv | None]:
        head = self.layout.head
        if head is None:
            return (), None
        *names, last = (f"encode.{name}" for name in head.names)
        convs = tuple(
            Conv(
                self._place(self.tensors[f"{name}.weight"]),
                self._place(self.tensors[f"{name}.bias"]),
                stride=2 if i == 0 else 1,
                activated=head.activated,
            )
            for i, name in enumerate(names)
        )
        exact = TransposedConv.of(self.tensors[f"{last}.weight"], self.tensors[f"{last}.bias"], False)
        return convs, TransposedConv(self._place(exact.weight), self._place(exact.bias), exact.factor)

    def block(self, index: int, scale: float) -> FoldedBlock:
        name = f"block{index}"
        first, time = (self._first_of_pair if index == 0 else self._first)(name, scale)
        second, scales = self._within(self.tensors[f"{name}.conv0.1.0.weight"])
        return FoldedBlock(
            scale=scale,
            first=first,
            time=time,
            second=Conv(
                second,
                self._place(self.tensors[f"{name}.conv0.1.0.bias"]),
                stride=2,
                slopes=self._optional(f"{name}.conv0.1.1.weight"),
                scales=scales,
            ),
            body=tuple(self._body(f"{name}.convblock.{k}") for k in range(BODY_LAYERS)),
            outer_skip=self.layout.body == "prelu",
            last=self._last(index, scale),
        )

    def _last(self, index: int, scale: float) -> TransposedConv:
        """Drop unused outputs, and scale those of flow from the block's maps to pixels of the frame."""
        layout = self.layout
        name = f"block{index}.lastconv.0" if layout.shuffles else f"block{index}.lastconv"
        side = 4 if layout.shuffles else 1
        used = FLOW_CHANNELS + 1 + (layout.carried_channels if index < layout.blocks - 1 else 0)
        weight = self.tensors[f"{name}.weight"][:, : side * used].clone()
        bias = self.tensors[f"{name}.bias"][: side * used].clone()
        gain = scale if layout.shuffles else 2 * scale  # frame side / side of the maps
        weight[:, : side * FLOW_CHANNELS] *= gain
        bias[: side * FLOW_CHANNELS] *= gain
        exact = TransposedConv.of(weight, bias, layout.shuffles)
        coarse = scale >= COARSE_SCALE
        weight, scales = (self._place(exact.weight), None) if coarse else self._within(exact.weight)
        return TransposedConv(weight, self._place(exact.bias), exact.factor, scales)

    def _inputs(self, name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first convolution's weight, cut into what reads stack 0, stack 1, the timestep, and the rest."""
        weight = self.tensors[f"{name}.conv0.0.0.weight"]
        k, c = self.layout.feature_channels, IMAGE_CHANNELS
        sizes = [c, c, k, k, 1, weight.shape[1] - 2 * (c + k) - 1]
        frame0, frame1, head0, head1, time, rest = torch.split(weight, sizes, 1)
        return torch.cat((frame0, head0), 1), torch.cat((frame1, head1), 1), time, rest

    def _first_of_pair(self, name: str, _scale: float) -> tuple[Conv, Conv]:
        """Block 0: one weight for each role of a frame, and the timestep's part; the same for an ensemble."""
        stack0, stack1, time, _ = self._inputs(name)
        bias, slopes = self._place(self.tensors[f"{name}.conv0.0.0.bias"]), self._optional(f"{name}.conv0.0.1.weight")
        parts = Conv(self._place(torch.cat((stack0, stack1))), None, stride=2, activated=False)
        return parts, Conv(self._place(time), bias, stride=2, slopes=slopes, activated=False)

    def _first(self, name: str, scale: float) -> tuple[Conv, None]:
        """Reorder the published input channels, fold flow / scale, append an ensemble's second pass."""
        stack0, stack1, time, rest = self._inputs(name)
        mask, carried, flow = torch.split(rest, [1, self.layout.carried_channels, FLOW_CHANNELS], 1)
        none, flow = torch.zeros_like(time), flow / scale
        if self.ensemble:
            swapped = torch.cat((flow[:, 2:], flow[:, :2]), 1)
            weight = torch.cat((
                torch.cat((stack0, stack1, mask, carried, flow, time, none), 1),
                torch.cat((stack1, stack0, -mask, carried, swapped, none, time), 1),
            ))  # fmt: skip
        else:
            weight = torch.cat((stack0, stack1, mask, carried, flow, time), 1)
        if self.dtype.itemsize == 2:  # matrix units read eight numbers of two bytes at once
            weight = F.pad(weight, (0, 0, 0, 0, 0, -weight.shape[1] % 8))
        passes = 2 if self.ensemble else 1
        slopes = self._optional(f"{name}.conv0.0.1.weight")
        return Conv(
            self._place(weight),
            self._place(self.tensors[f"{name}.conv0.0.0.bias"]).repeat(passes),
            stride=2,
            slopes=None if slopes is None else slopes.repeat(passes),
        ), None

    def _body(self, name: str) -> Conv:
        groups = self.layout.groups
        if self.layout.body != "residual":
            weight, scales = self._within(self.tensors[f"{name}.0.weight"], groups)
            bias = self._place(self.tensors[f"{name}.0.bias"])
            return Conv(weight, bias, slopes=self._optional(f"{name}.1.weight"), scales=scales)
        beta = self.tensors[f"{name}.beta"].flatten()
        exact = self.tensors[f"{name}.conv.weight"] * beta[:, None, None, None]
        bias = self._place(self.tensors[f"{name}.conv.bias"] * beta)
        weight, scales = self._within(exact, groups)
        # An identity beside small weights would cost them digits in int8 and half precision.
        identity_folds = scales is None and self.dtype in (torch.float32, torch.float64)
        if identity_folds:
            outputs, inputs = exact.shape[:2]
            index = torch.arange(outputs)
            exact[index, index % inputs, 1, 1] += 1
            weight = self._place(exact)
        return Conv(weight, bias, groups=groups, residual=not identity_folds, scales=scales)
