"""The lazy forward: the published function without its full-resolution round trips.

A block at scale s reads two by two samples of every s x s cell of the full-resolution stack. So warped frames are made
at those samples only (all pixels for s <= 2), and each block's output stays the small map that the block produced: the
flow at a sample is the sum over the earlier blocks of their maps, each enlarged once, at that point.

Equal to `network.IFNet` within rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor

from vsrife.networks.cancellation import Cancellation, never
from vsrife.networks.catalogue import FLOW_CHANNELS, IMAGE_CHANNELS
from vsrife.networks.fold import FoldedBlock, FoldedNet
from vsrife.networks.ifnet import LARGE_MOTION_PX, swap
from vsrife.ops.cpu.buffers import empty_channels_last
from vsrife.ops.protocol import Axis, Ops, RgbTransform, WarpInputs
from vsrife.ops.reference import activate, resize

ALIGNED = 4  # a pixel of a stack takes a multiple of so many numbers: then it never lies in two lines of a cache


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one source frame, independent of the frame that it is paired with.

    Attributes:
        stack: (1, 3 + k, H, W) at the padded size: the frame, clamped to 0..1, and its head features.
        parts: (1, 2 * c/2, h, w): block 0's first convolution of the frame as frame 0, then as frame 1.
    """

    stack: Tensor
    parts: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Padded height and width."""
        height, width = self.stack.shape[-2:]
        return height, width


@dataclass(slots=True)
class Field:
    """Flow and mask as the sum of the blocks' small maps.

    Attributes:
        size: padded height and width in pixels.
        ops: that evaluate it.
        flows: per block (N, 4, h, w), in pixels of the frame: x then y towards frame 0, then towards frame 1; one for
            each of N times.
        masks: (N, 1, h, w) logits to be summed: all blocks' where masks accumulate, else the last block's.
    """

    size: tuple[int, int]
    ops: Ops
    flows: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    _full: Tensor | None = None  # the sum of the first _summed flows, enlarged
    _summed: int = 0

    def add(self, flow: Tensor, mask: Tensor, accumulates: bool) -> None:
        """The maps of one more block; its mask comes in addition to the others' or replaces them."""
        self.flows.append(flow)
        self.masks = [*self.masks, mask] if accumulates else [mask]

    def flow(self) -> Tensor:
        """(N, 4, H, W) at every pixel. Each map is enlarged once; the sum so far is kept for the next block."""
        new = self.flows[self._summed :]
        if new:
            self._full = self.ops.upsample(new, *self.size, self._full)
            self._summed = len(self.flows)
        assert self._full is not None
        return self._full

    def flow_at(self, scale: float) -> Tensor:
        """(N, 4, 2h, 2w) at the samples that a block of this scale reads, h and w being the block's size."""
        if scale <= 2:
            return self.flow()
        height, width = self.size
        total: Tensor | None = None
        for small in self.flows:
            rows = _tap_axis(height, scale, small.shape[-2], small.device, small.dtype)
            columns = _tap_axis(width, scale, small.shape[-1], small.device, small.dtype)
            total = self.ops.sample(small, rows, columns, total)
        assert total is not None
        return total

    def extra(self, carried: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, 1 + C, h, w): mask and carried features, at the size of the last block's map or at `size`.

        A sum of masks is taken at `size`: enlarging it in two steps would not be the same.
        """
        return torch.cat((self.masks[0], carried), dim=1) if len(self.masks) == 1 else self.mask(*size)

    def mask(self, height: int, width: int) -> Tensor:
        """(N, 1, height, width): the mask logit at this size."""
        if len(self.masks) == 1:
            return resize(self.masks[0], height, width)
        return self.ops.upsample(self.masks, height, width)


def taps(size: int, scale: float) -> Tensor:
    """Pixels of an axis that a block of this scale reads: two per cell, or all for scales up to 2. (L,) float64."""
    if scale <= 2:
        return torch.arange(size, dtype=torch.float64)
    cells = torch.arange(0, size, scale, dtype=torch.float64) + scale / 2
    return torch.stack((cells - 1, cells), dim=1).flatten()


@cache  # never dropped: CUDA graphs read this memory
def _tap_axis(size: int, scale: float, map_size: int, device: torch.device, dtype: torch.dtype) -> Axis:
    """Positions of the taps of an axis of `size` pixels in a map of `map_size` samples; tens of KB for each size."""
    return Axis.at((taps(size, scale) + 0.5) * (map_size / size) - 0.5, map_size).to(device, dtype)


@cache  # likewise
def _cell_axis(size: int, scale: float, device: torch.device, dtype: torch.dtype) -> Axis:
    """Positions of the samples of a block of this scale on an axis of `size` pixels."""
    return Axis.resizing(int(size / scale), size).to(device, dtype)


@cache
def _tap_positions(size: int, scale: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    return taps(size, scale).to(device, dtype)


@dataclass(frozen=True, slots=True)
class PaddedPlanes:
    """The planes of a source frame, to be padded.

    Attributes:
        planes: per plane (1, 1, h, w) in the samples of its format, on the network's device.
        transform: what they mean.
        size: padded height and width.
    """

    planes: Sequence[Tensor]
    transform: RgbTransform
    size: tuple[int, int]

    @classmethod
    def of_rgb(cls, image: Tensor) -> PaddedPlanes:
        """From (1, 3, H, W) at the padded size."""
        height, width = image.shape[-2:]
        return cls(torch.split(image, 1, dim=1), _as_it_is(image.device, image.dtype), (height, width))


@cache
def _as_it_is(device: torch.device, dtype: torch.dtype) -> RgbTransform:
    return RgbTransform(torch.eye(3, dtype=dtype, device=device), torch.zeros(3, dtype=dtype, device=device))


def encode(net: FoldedNet, frame: PaddedPlanes | Tensor) -> Features:
    """Compute the features of one source frame.

    Args:
        net: the folded network.
        frame: padded to `net.layout.padded`; or (1, 3, H, W) RGB, nominally 0..1, of that size, in `net.exact`.

    Returns:
        Clamped frame, head features and block 0's partial sums.
    """
    if isinstance(frame, Tensor):
        frame = PaddedPlanes.of_rgb(frame)
    channels = IMAGE_CHANNELS + net.layout.feature_channels
    shape = (1, channels + -channels % ALIGNED, *frame.size)
    stack = empty_channels_last(shape, net.ops.stack_dtype(net.dtype), net.device)[:, :channels]
    net.ops.planes_to_rgb(frame.planes, frame.transform, True, stack[:, :IMAGE_CHANNELS])
    if net.head_last is not None and net.layout.head is not None:
        if net.layout.head.clamps and net.dtype == stack.dtype == net.exact:
            x = stack[:, :IMAGE_CHANNELS]
        else:
            x = empty_channels_last((1, IMAGE_CHANNELS, *frame.size), net.dtype, net.device)
            net.ops.planes_to_rgb(frame.planes, frame.transform, net.layout.head.clamps, x)
        net.ops.head(x, net.head, net.head_last, stack[:, IMAGE_CHANNELS:])
    return Features(stack, _first_parts(net, net.blocks[0], stack))


def _first_parts(net: FoldedNet, block: FoldedBlock, stack: Tensor) -> Tensor:
    rows, columns = (_cell_axis(side, block.scale, net.device, net.exact) for side in stack.shape[-2:])
    return net.ops.convolve(net.ops.sample(stack, rows, columns).to(net.dtype), block.first)


def estimate(
    net: FoldedNet,
    features0: Features,
    features1: Features,
    timestep: float | Tensor,
    cancellation: Cancellation = never,
) -> Field:
    """Estimate flow and mask between two frames.

    Args:
        net: the folded network.
        features0: of the frame at time 0.
        features1: of the frame at time 1, of the same size.
        timestep: 0..1; or a time for every pixel, (1, 1, H, W) at the padded size; or several times, (N, 1, 1, 1),
            which networks with an ensemble or a second try do not take.
        cancellation: called before each block.

    Returns:
        The field at `timestep`, of as many maps as there are times.

    Source: sections 1.4 to 1.8 of the 4.x forward (`network.IFNet`).
    """
    blocks = net.blocks
    result = Field(features0.size, net.ops)
    carried = _apply(
        net, blocks[0], result, first_of_pair(net, blocks[0], features0, features1, timestep), net.ensemble
    )
    index = 1
    while index < len(blocks):
        cancellation()
        x = first_of_block(net, blocks[index], features0, features1, result, carried, timestep)
        if index == 1 and net.retry and blocks is net.blocks and _moves_far(net.ops, blocks[index], x, result.size):
            # Second try of 4.0 and 4.1: from block 0 on once more with doubled scales, block 0 in one direction only.
            blocks = net.retry
            result = Field(features0.size, net.ops)
            coarse0, coarse1 = (
                Features(s.stack, _first_parts(net, blocks[0], s.stack)) for s in (features0, features1)
            )
            x = first_of_pair(net, blocks[0], coarse0, coarse1, timestep)[:1]
            carried = _apply(net, blocks[0], result, x, False)
            continue
        carried = _apply(net, blocks[index], result, x, net.ensemble)
        index += 1
    return result


def first_of_pair(
    net: FoldedNet, block: FoldedBlock, features0: Features, features1: Features, timestep: float | Tensor
) -> Tensor:
    """Block 0's first layer from the parts of both frames: (passes or times, c/2, h, w), activated."""
    left0, right0 = features0.parts.chunk(2, dim=1)
    left1, right1 = features1.parts.chunk(2, dim=1)
    height, width = left0.shape[-2:]
    times = _times(net, timestep, (2 * height, 2 * width)).expand(-1, -1, 2 * height, 2 * width)
    shares = [left0 + right1, left1 + right0][: times.shape[1]]
    assert block.time is not None
    x = net.ops.convolve(times.flatten(0, 1)[:, None].to(net.dtype), block.time)
    return activate(x.add_(torch.cat(shares)), block.time.slopes)


def _times(net: FoldedNet, timestep: float | Tensor, size: tuple[int, int]) -> Tensor:
    """(N, passes, 1, 1), or of this size where the timestep is a plane: t, and 1 - t for an ensemble."""
    if not isinstance(timestep, Tensor):
        timestep = torch.full((1, 1, 1, 1), timestep, dtype=net.exact, device=net.device)
    elif timestep.shape[-2:] != (1, 1):
        timestep = resize(timestep, *size)
    return torch.cat((timestep, 1 - timestep), dim=1) if net.ensemble else timestep


def first_of_block(
    net: FoldedNet,
    block: FoldedBlock,
    features0: Features,
    features1: Features,
    result: Field,
    carried: Tensor,
    timestep: float | Tensor,
) -> Tensor:
    """A later block's first layer: (passes or times, c/2, h, w), activated.

    Args:
        result: of the blocks before.
        carried: features that the block before hands on.
    """
    height, width = result.size
    columns = _tap_positions(width, block.scale, net.device, net.exact)
    rows = _tap_positions(height, block.scale, net.device, net.exact)[:, None]
    taps = 2 if block.scale >= 2 else 1
    size = len(rows) // taps, len(columns) // taps
    extra, times = result.extra(carried, size), _times(net, timestep, size)
    stacks, flow = (features0.stack, features1.stack), partial(result.flow_at, block.scale)
    inputs = WarpInputs(*stacks, result.flows, flow, rows, columns, taps, extra, times)
    if block.scale < 1:
        # Enlarging goes through full resolution as the published forward does: bilinear steps do not compose.
        stack = net.ops.warp_stacks(inputs, block.first.weight.shape[1], block.first.weight.dtype)
        stack = resize(stack, int(height / block.scale), int(width / block.scale))
        x = net.ops.convolve(stack, block.first)
    else:
        x = net.ops.warp_convolve(inputs, block.first)
    return torch.cat(x.chunk(2, dim=1)) if net.ensemble else x


def _maps(ops: Ops, block: FoldedBlock, x: Tensor) -> Tensor:
    """From the first layer's output to the block's small map, (passes or times, outputs, h, w), in `net.exact`."""
    x = ops.convolve(x, block.second)
    y = ops.convolve_chain(x, block.body)
    if block.outer_skip:
        y = y + x
    return ops.conv_transpose(y, block.last)


def _apply(net: FoldedNet, block: FoldedBlock, result: Field, x: Tensor, ensemble: bool) -> Tensor:
    """Evaluate the rest of a block, add its maps to the field and return the carried features."""
    flow, mask, carried = outputs(net, block, x)
    if ensemble:
        flow, mask, carried = (flow[:1] + swap(flow[1:])) / 2, (mask[:1] - mask[1:]) / 2, carried[:1]
    result.add(flow, mask, net.layout.mask_accumulates)
    return carried


def outputs(net: FoldedNet, block: FoldedBlock, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The rest of a block: small maps of flow in pixels of the frame, of the mask, and of the carried features."""
    y = _maps(net.ops, block, x)
    return y[:, :FLOW_CHANNELS], y[:, FLOW_CHANNELS : FLOW_CHANNELS + 1], y[:, FLOW_CHANNELS + 1 :]


def _moves_far(ops: Ops, block: FoldedBlock, x: Tensor, size: tuple[int, int]) -> bool:
    """Whether block 1, in the normal direction, finds motion beyond the limit towards both frames, at full size."""
    flow = _maps(ops, block, x[:1])[:, :FLOW_CHANNELS]
    if not _both_exceed(flow):  # enlarging cannot make the largest value larger
        return False
    return _both_exceed(resize(flow, *size))


def _both_exceed(flow: Tensor) -> bool:
    far = flow.abs().amax((0, 2, 3)) > LARGE_MOTION_PX
    return bool(far[:2].any() and far[2:].any())
