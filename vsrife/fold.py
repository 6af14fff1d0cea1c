"""Exact algebra on loaded weights: the same function with fewer operations.

What is folded, once, when weights are loaded:
- `conv(x) * beta + x`: beta goes into weight and bias; in float32 the identity goes into the centre tap as well, so
  that the residual is never read. In half precision that would double the weights' rounding error: the add stays.
- the timestep is a constant plane: its share of a block's first convolution is a bias, with other values in the first
  row and column, where the convolution reaches into the zero padding.
- flow divided by the block's scale: the division goes into the first convolution.
- block 0's first convolution is linear in the two frames: it is split into one part for each role of a frame.
- outputs of the last convolution that nobody reads are not computed.
- ensemble: the exchanged pass permutes input channels of the first convolution instead of data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vsrife.catalogue import BODY_LAYERS, FLOW_CHANNELS, IMAGE_CHANNELS, Layout
from vsrife.ops import Ops, choose
from vsrife.ops.reference import Conv


@dataclass(frozen=True, slots=True)
class TimeBias:
    """The share of a constant timestep plane in a stride 2 convolution with zero padding: t times these vectors.

    Sides are even where this is used, so that only the first row and column of the result see the padding.
    """

    inside: Tensor  # (out,)
    row: Tensor  # (out,) what the first row lacks
    column: Tensor  # (out,) what the first column lacks
    corner: Tensor  # (out,) what row and column take away twice

    @classmethod
    def of(cls, weight: Tensor) -> TimeBias:
        """From the timestep's slice of the weight, (out, 3, 3)."""
        return cls(weight.sum((1, 2)), weight[:, 0].sum(1), weight[:, :, 0].sum(1), weight[:, 0, 0])

    def add_to(self, x: Tensor, timestep: float, bias: Tensor) -> Tensor:
        """Add `bias` and the timestep's share to (1, out, H, W), in place."""
        x += (bias + timestep * self.inside)[:, None, None]
        x[..., 0, :] -= (timestep * self.row)[:, None]
        x[..., :, 0] -= (timestep * self.column)[:, None]
        x[..., 0, 0] += timestep * self.corner
        return x


@dataclass(frozen=True, slots=True)
class FoldedBlock:
    """One IFBlock, ready to run at one scale. Input channels: stack 0, stack 1, mask, carried features, flow.

    A stack is a frame followed by its head features, (3 + k) channels.
    """

    scale: float  # frame side / side the block works at
    gain: float  # frame side / side of the maps it yields, and what flow in them is multiplied by
    first: Tensor  # (passes * c/2, in, 3, 3); passes is 2 for an ensemble
    first_bias: Tensor  # (c/2,)
    first_slopes: Tensor | None
    time: TimeBias
    second: Conv
    body: tuple[Conv, ...]
    outer_skip: bool  # add the body's input to its result
    last: Tensor  # transposed convolution, (c, outputs used, 4, 4)
    last_bias: Tensor
    shuffles: bool


@dataclass(frozen=True, slots=True)
class FoldedNet:
    """Everything that a layout's forward needs at one flow scale, on one device, in one precision.

    Attributes:
        layout: the row it came from.
        scale: the flow scale.
        ensemble: whether both time directions run.
        dtype: of the convolutions; coordinates, flow and blend are float32 (float64 when this is float64).
        head: convolutions of the encoder but the last.
        head_last: weight (c, k, 4, 4) and bias of its transposed convolution.
        blocks: coarse to fine.
        retry: the blocks at doubled scales for layouts that try again, else empty.
    """

    layout: Layout
    scale: float
    ensemble: bool
    dtype: torch.dtype
    head: tuple[Conv, ...]
    head_last: tuple[Tensor, Tensor] | None
    blocks: tuple[FoldedBlock, ...]
    retry: tuple[FoldedBlock, ...]

    @property
    def device(self) -> torch.device:
        return self.blocks[0].first.device

    @property
    def ops(self) -> Ops:
        """The fastest twins of the ops that are right for this network."""
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
        dtype: of the convolutions.

    Returns:
        The network for `pyramid`. The algebra is done in float64 and rounded once.
    """
    exact = {name: tensor.to(torch.float64) for name, tensor in tensors.items()}
    folder = _Folder(layout, exact, ensemble, device or torch.device("cpu"), dtype)
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
    ) -> None:
        self.layout, self.tensors, self.ensemble, self.device, self.dtype = layout, tensors, ensemble, device, dtype

    def _place(self, tensor: Tensor) -> Tensor:
        placed = tensor.to(self.device, self.dtype).contiguous()
        return placed.contiguous(memory_format=torch.channels_last) if placed.ndim == 4 else placed

    def _optional(self, name: str) -> Tensor | None:
        return self._place(self.tensors[name]) if name in self.tensors else None

    def head(self) -> tuple[tuple[Conv, ...], tuple[Tensor, Tensor] | None]:
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
        return convs, (self._place(self.tensors[f"{last}.weight"]), self._place(self.tensors[f"{last}.bias"]))

    def block(self, index: int, scale: float) -> FoldedBlock:
        layout, name = self.layout, f"block{index}"
        first = self.tensors[f"{name}.conv0.0.0.weight"]
        time_channel = 2 * (IMAGE_CHANNELS + layout.feature_channels)
        last = f"{name}.lastconv.0" if layout.shuffles else f"{name}.lastconv"
        used = FLOW_CHANNELS + 1 + (layout.carried_channels if index < layout.blocks - 1 else 0)
        used *= 4 if layout.shuffles else 1
        return FoldedBlock(
            scale=scale,
            gain=scale if layout.shuffles else 2 * scale,
            first=self._place(self._first(index, first, scale)),
            first_bias=self._place(self.tensors[f"{name}.conv0.0.0.bias"]),
            first_slopes=self._optional(f"{name}.conv0.0.1.weight"),
            time=TimeBias.of(self._place(first[:, time_channel])),
            second=Conv(
                self._place(self.tensors[f"{name}.conv0.1.0.weight"]),
                self._place(self.tensors[f"{name}.conv0.1.0.bias"]),
                stride=2,
                slopes=self._optional(f"{name}.conv0.1.1.weight"),
            ),
            body=tuple(self._body(f"{name}.convblock.{k}") for k in range(BODY_LAYERS)),
            outer_skip=layout.body == "prelu",
            last=self._place(self.tensors[f"{last}.weight"][:, :used]),
            last_bias=self._place(self.tensors[f"{last}.bias"][:used]),
            shuffles=layout.shuffles,
        )

    def _first(self, index: int, weight: Tensor, scale: float) -> Tensor:
        """Reorder the published input channels, drop the timestep, fold flow / scale, append the exchanged pass.

        Block 0 gets one weight per role of a frame instead: (roles * c/2, 3 + k, 3, 3), the left frame's role first;
        an ensemble needs nothing more there.
        """
        k, c = self.layout.feature_channels, IMAGE_CHANNELS
        sizes = [c, c, k, k, 1, weight.shape[1] - 2 * (c + k) - 1]
        frame0, frame1, head0, head1, _time, rest = torch.split(weight, sizes, 1)
        stack0, stack1 = torch.cat((frame0, head0), 1), torch.cat((frame1, head1), 1)
        if index == 0:
            return torch.cat((stack0, stack1), 0)
        mask, carried, flow = torch.split(rest, [1, self.layout.carried_channels, FLOW_CHANNELS], 1)
        normal = torch.cat((stack0, stack1, mask, carried, flow / scale), 1)
        if not self.ensemble:
            return normal
        swapped = torch.cat((flow[:, 2:], flow[:, :2]), 1)
        return torch.cat((normal, torch.cat((stack1, stack0, -mask, carried, swapped / scale), 1)), 0)

    def _body(self, name: str) -> Conv:
        if self.layout.body != "residual":
            return Conv(
                self._place(self.tensors[f"{name}.0.weight"]),
                self._place(self.tensors[f"{name}.0.bias"]),
                slopes=self._optional(f"{name}.1.weight"),
            )
        beta = self.tensors[f"{name}.beta"].flatten()
        weight = self.tensors[f"{name}.conv.weight"] * beta[:, None, None, None]
        identity_folds = self.dtype in (torch.float32, torch.float64)
        if identity_folds:
            outputs, inputs = weight.shape[:2]
            index = torch.arange(outputs)
            weight[index, index % inputs, 1, 1] += 1
        return Conv(
            self._place(weight),
            self._place(self.tensors[f"{name}.conv.bias"] * beta),
            groups=self.layout.groups,
            residual=not identity_folds,
        )
