"""The forward that training differentiates: the published one, evaluated only where something reads it.

The reference network (`vsrife.networks.ifnet`) keeps every map at full resolution. A block at 1/s of the frame reads
two by two pixels of each s x s cell, so its flow, its warped frames and its losses are computed at those pixels alone.
Parameters stay in an `IFNet`; the result equals its forward within float rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import islice, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vsrife.networks.catalogue import FLOW_CHANNELS, IMAGE_CHANNELS, Layout
from vsrife.networks.ifnet import IFBlock, IFNet, ResidualConv
from vsrife.ops.protocol import LEAKY_SLOPE
from vsrife.ops.reference import resize

MASK_CHANNEL = FLOW_CHANNELS


@dataclass(frozen=True, slots=True)
class Stage:
    """What is known after one block, at 1/`scale` of the frame (the scale of its reader; 1 after the last block)."""

    scale: int
    flow: Tensor  # (N, 4, H / scale, W / scale), pixels of the frame, x before y, frame 0 before frame 1
    mask: Tensor  # (N, 1, H / scale, W / scale), logit, large where frame 0 is taken
    warped: tuple[Tensor, Tensor]  # (N, 3, H / scale, W / scale), both frames warped by `flow`
    blend: Tensor  # (N, 3, H / scale, W / scale)


@dataclass(frozen=True, slots=True)
class Estimate:
    """The network's answer for a batch of pairs: one stage for each block that ran, the last of all at full size."""

    stages: tuple[Stage, ...]
    reads: tuple[Tensor, Tensor, Tensor]  # frame 0, frame 1 and timestep, as given

    @property
    def image(self) -> Tensor:
        """(N, 3, H / scale, W / scale), 0..1, at the scale of the last stage: 1 if all blocks ran."""
        return self.stages[-1].blend


@dataclass(frozen=True, slots=True)
class BlockMap:
    """What a block puts out before it is enlarged."""

    values: Tensor  # (N, outputs, h, w)
    step: int  # side of the frame / side of the map
    gain: float  # from the flow channels to pixels


def interpolation_matrix(size: int, step: int, positions: Tensor) -> Tensor:
    """Bilinear enlargement by `step`, evaluated at some pixels, as a matrix.

    Args:
        size: samples of the small axis.
        step: pixels for each of them.
        positions: (L,) float64, indices of the wanted pixels on the enlarged axis.

    Returns:
        (L, size) float64; half-pixel centres, the border sample counts outside.
    """
    where = ((positions + 0.5) / step - 0.5).clamp(0, size - 1)
    low = where.floor().long()
    high = (low + 1).clamp_max(size - 1)
    weight = (where - low)[:, None]
    rows = torch.arange(len(where))
    matrix = torch.zeros(len(where), size, dtype=torch.float64)
    matrix[rows, low] += 1 - weight[:, 0]
    matrix[rows, high] += weight[:, 0]
    return matrix


def tap_positions(pixels: int, scale: int) -> Tensor:
    """Indices of the pixels that a reduction by `scale` reads, (taps * pixels / scale,) float64."""
    if scale == 1:
        return torch.arange(pixels, dtype=torch.float64)
    first = torch.arange(pixels // scale, dtype=torch.float64) * scale + scale // 2 - 1
    return torch.stack((first, first + 1), dim=1).flatten()


def average_taps(image: Tensor, scale: int) -> Tensor:
    """The mean of each cell's two by two taps; at scale 1 a pixel is its own tap."""
    return image if scale == 1 else halve(image)


def halve(image: Tensor) -> Tensor:
    """The mean of each two by two pixels of (..., 2H, 2W); on CPUs faster than pooling, in both directions."""
    rows = image[..., ::2, :] + image[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


@cache
def _doubling(size: int, device: torch.device) -> Tensor:
    """Bilinear upsampling of one axis to twice the size as a matrix, (2 * size, size)."""
    return interpolation_matrix(size, 2, tap_positions(2 * size, 1)).to(device, torch.float32)


def double(image: Tensor) -> Tensor:
    """Bilinear upsampling of (..., H, W) to twice the sides; on CPUs matrix products are faster than a resize."""
    rows, columns = (_doubling(side, image.device) for side in image.shape[-2:])
    return rows @ image @ columns.T


class Grid:
    """Positions and matrices for one frame size, made once.

    Args:
        height: of the frames in pixels, a multiple of every scale in use.
        width: the same along x.
        device: where the matrices live.
    """

    def __init__(self, height: int, width: int, device: torch.device) -> None:
        self.height, self.width, self.device = height, width, device
        self._matrices: dict[tuple[int, int, int, bool], Tensor] = {}

    def positions(self, scale: int) -> tuple[Tensor, Tensor]:
        """Columns (w,) and rows (h, 1) of the taps, in pixels."""
        x, y = (tap_positions(n, scale).to(self.device, torch.float32) for n in (self.width, self.height))
        return x, y[:, None]

    def enlarge(self, values: Tensor, step: int, scale: int, *, averaged: bool) -> Tensor:
        """Maps at 1/`step`, read at the taps of `scale`, or their mean over each cell's taps where `averaged`."""
        rows = self._matrix(self.height, step, scale, averaged)
        columns = self._matrix(self.width, step, scale, averaged)
        return rows @ values @ columns.T

    def _matrix(self, pixels: int, step: int, scale: int, averaged: bool) -> Tensor:
        key = (pixels, step, scale, averaged)
        if key not in self._matrices:
            matrix = interpolation_matrix(pixels // step, step, tap_positions(pixels, scale))
            if averaged and scale > 1:
                matrix = (matrix[::2] + matrix[1::2]) / 2
            self._matrices[key] = matrix.to(self.device, torch.float32)
        return self._matrices[key]


def residual(layer: ResidualConv, x: Tensor) -> Tensor:
    """A residual layer with its gain taken into the kernel first: the same values, half the passes over memory."""
    conv, gain = layer.conv, layer.beta.flatten()
    assert conv.bias is not None
    y = F.conv2d(x, conv.weight * gain[:, None, None, None], conv.bias * gain, padding=1, groups=conv.groups)
    return F.leaky_relu_(y.add_(x), LEAKY_SLOPE)


def warp(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """`vsrife.ops.reference.warp` without its guard against endless flows, which training never lets grow."""
    height, width = image.shape[-2:]
    grid = torch.stack((x * (2 / (width - 1)) - 1, y * (2 / (height - 1)) - 1), dim=-1)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="border", align_corners=True)


def evaluate_block(block: IFBlock, x: Tensor) -> Tensor:
    """The convolutions of a block: (N, inputs, h, w) to its small output map."""
    features = block.conv0(x)
    body = features
    for layer in block.convblock:
        body = residual(layer, body) if isinstance(layer, ResidualConv) else layer(body)
    out: Tensor = block.lastconv(body + features if block.layout.body == "prelu" else body)
    return out


class TrainingForward(nn.Module):
    """Runs an `IFNet` the economical way; 4.0 and 4.1 without their second try, which branches on data.

    Args:
        net: the network whose parameters are trained.
        precision: of the convolutions; coordinates, flows and blends are always float32.
        blocks: how many run, from the coarsest; all of them if None. The others get no gradients.
    """

    def __init__(self, net: IFNet, precision: torch.dtype = torch.float32, blocks: int | None = None) -> None:
        super().__init__()
        self.net, self.precision = net, precision
        self.blocks = net.layout.blocks if blocks is None else blocks
        for index in range(self.blocks, net.layout.blocks):
            net.get_submodule(f"block{index}").requires_grad_(False)
        self._grids: dict[tuple[int, int, torch.device], Grid] = {}

    @property
    def layout(self) -> Layout:
        return self.net.layout

    def grid(self, frame: Tensor) -> Grid:
        """The positions and matrices for frames like this one."""
        key = (frame.shape[-2], frame.shape[-1], frame.device)
        if key not in self._grids:
            self._grids[key] = Grid(*key)
        return self._grids[key]

    def forward(self, frame0: Tensor, frame1: Tensor, timestep: Tensor) -> Estimate:
        """Interpolate a batch.

        Args:
            frame0: (N, 3, H, W), 0..1, sides multiples of the layout's alignment.
            frame1: the next frames.
            timestep: (N,), 0..1, 0 is the time of `frame0`.
        """
        grid, layout = self.grid(frame0), self.layout
        stacks = self.stacks(frame0, frame1)
        time = timestep.float()[:, None, None, None]
        maps: list[BlockMap] = []
        stages: list[Stage] = []
        x = self._first_input(stacks, time, layout.scales[0])
        for index, (scale, reader) in enumerate(islice(pairwise((*layout.scales, 1)), self.blocks)):
            block = self.net.get_submodule(f"block{index}")
            assert isinstance(block, IFBlock)
            maps.append(self._evaluate(block, x, scale))
            last = index + 1 == self.blocks
            stage, heads = self._stage(grid, stacks, maps, reader, with_heads=not last)
            stages.append(stage)
            if not last:
                x = self._next_input(grid, stage, heads, maps[-1], time)
        return Estimate(tuple(stages), (frame0, frame1, timestep))

    def _mixed(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32)

    def stacks(self, frame0: Tensor, frame1: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both clamped frames and both encoded frames."""
        if not self.layout.head:
            none = frame0[:, :0]
            return frame0.clamp(0, 1), frame1.clamp(0, 1), none, none
        with self._mixed(frame0.device):
            heads = self.net.encode(torch.cat((frame0, frame1)))
        head0, head1 = heads.float().chunk(2)
        return frame0.clamp(0, 1), frame1.clamp(0, 1), head0, head1

    def _first_input(self, stacks: tuple[Tensor, ...], time: Tensor, scale: int) -> Tensor:
        height, width = (side // scale for side in stacks[0].shape[-2:])
        small = [resize(part, height, width) for part in stacks]
        return torch.cat((*small, time.expand(-1, 1, height, width)), dim=1)

    def _evaluate(self, block: IFBlock, x: Tensor, scale: int) -> BlockMap:
        with self._mixed(x.device):
            out = evaluate_block(block, x).float()
        step = scale if self.layout.shuffles else 2 * scale
        return BlockMap(out, step, gain=float(step))

    def _stage(
        self, grid: Grid, stacks: tuple[Tensor, ...], maps: list[BlockMap], scale: int, *, with_heads: bool
    ) -> tuple[Stage, tuple[Tensor, Tensor]]:
        flow = sum_flows(grid, maps, scale)
        masks = maps if self.layout.mask_accumulates else maps[-1:]
        mask = torch.stack(
            [grid.enlarge(m.values[:, MASK_CHANNEL : MASK_CHANNEL + 1], m.step, scale, averaged=True) for m in masks]
        ).sum(0)
        warped = warp_at_taps(grid, stacks[:2], flow, scale)
        heads = warp_at_taps(grid, stacks[2:], flow, scale) if with_heads and self.layout.head else stacks[2:]
        share = torch.sigmoid(mask)
        blend = warped[0] * share + warped[1] * (1 - share)
        if not self.layout.head:
            heads = (warped[0][:, :0],) * 2
        return Stage(scale, average_taps(flow, scale), mask, warped, blend), (heads[0], heads[1])

    def _next_input(
        self, grid: Grid, stage: Stage, heads: tuple[Tensor, Tensor], previous: BlockMap, time: Tensor
    ) -> Tensor:
        height, width = stage.mask.shape[-2:]
        parts = [*stage.warped, *heads, time.expand(-1, 1, height, width), stage.mask]
        if self.layout.carried_channels:
            carried = previous.values[:, MASK_CHANNEL + 1 : MASK_CHANNEL + 1 + self.layout.carried_channels]
            parts.append(grid.enlarge(carried, previous.step, stage.scale, averaged=True))
        return torch.cat((*parts, stage.flow / stage.scale), dim=1)


def sum_flows(grid: Grid, maps: list[BlockMap], scale: int) -> Tensor:
    """The accumulated flow (N, 4, taps * h, taps * w) in pixels at the taps of `scale`."""
    parts = [grid.enlarge(m.values[:, :FLOW_CHANNELS], m.step, scale, averaged=False) * m.gain for m in maps]
    return torch.stack(parts).sum(0)


def warp_at_taps(grid: Grid, images: tuple[Tensor, ...], flow: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Both images, (N, C, H, W), warped by a flow given at the taps of `scale` and averaged over each cell."""
    x, y = grid.positions(scale)
    first, second = images
    return (
        average_taps(warp(first, x + flow[:, 0], y + flow[:, 1]), scale),
        average_taps(warp(second, x + flow[:, 2], y + flow[:, 3]), scale),
    )


__all__ = ["IMAGE_CHANNELS", "Estimate", "Grid", "Stage", "TrainingForward"]
