"""Test-time augmentation: the pair in several orientations and in reverse, the results averaged.

As rife-ncnn-vulkan does. 4.x models: flow and mask of all passes are averaged after every block, and every pass
continues from the mean. The temporal mode is the published `ensemble`, which here also works for layouts with carried
features: each pass keeps its own. Models before 4.x: the flow is averaged once, then the frames made with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from vsrife.networks import legacy, pyramid
from vsrife.networks.cancellation import Cancellation, never
from vsrife.networks.fold import FoldedNet
from vsrife.networks.ifnet import swap
from vsrife.networks.legacy import LegacyNet
from vsrife.networks.pyramid import Features, Field


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight orientations of a frame: transposed first, then mirrored."""

    transposed: bool
    mirrored_x: bool
    mirrored_y: bool

    @property
    def axes(self) -> list[int]:
        """The mirrored axes."""
        return [-1] * self.mirrored_x + [-2] * self.mirrored_y

    def turn(self, image: Tensor) -> Tensor:
        """Turn (..., H, W) into this orientation."""
        image = image.mT if self.transposed else image
        return image.flip(self.axes) if self.axes else image

    def turn_back(self, image: Tensor) -> Tensor:
        """Undo `turn`."""
        image = image.flip(self.axes) if self.axes else image
        return image.mT if self.transposed else image

    def turn_flow(self, flow: Tensor) -> Tensor:
        """Turn a flow (N, 4, H, W) and its vectors into this orientation."""
        flow = self.turn(flow)
        flow = flow[:, [1, 0, 3, 2]] if self.transposed else flow
        return flow * self._signs(flow)

    def turn_flow_back(self, flow: Tensor) -> Tensor:
        """Undo `turn_flow`."""
        flow = flow * self._signs(flow)
        flow = flow[:, [1, 0, 3, 2]] if self.transposed else flow
        return self.turn_back(flow)

    def _signs(self, flow: Tensor) -> Tensor:
        return flow.new_tensor([-1 if self.mirrored_x else 1, -1 if self.mirrored_y else 1] * 2)[:, None, None]


UPRIGHT = Orientation(False, False, False)
ORIENTATIONS = tuple(Orientation(*flags) for flags in product((False, True), repeat=3))


@dataclass(frozen=True, slots=True)
class Averaging:
    """The passes to average.

    Attributes:
        orientations: of the frames, the first `UPRIGHT`.
        temporal: whether each also runs with the frames exchanged.
    """

    orientations: Sequence[Orientation]
    temporal: bool


def estimate(
    net: FoldedNet,
    features0: Sequence[Features],
    features1: Sequence[Features],
    timestep: float | Tensor,
    averaging: Averaging,
    cancellation: Cancellation = never,
) -> Field:
    """Estimate flow and mask between two frames, averaged over all passes.

    Args:
        net: the folded network, without ensemble.
        features0: of the frame at time 0, in every orientation.
        features1: of the frame at time 1, likewise.
        timestep: 0..1; or a time for every pixel, (1, 1, H, W) at the padded size.
        averaging: the passes, in the orientations of the features.
        cancellation: called before each block of each orientation.

    Returns:
        The field at `timestep`. The second try of 4.0 and 4.1 is left out, as in rife-ncnn-vulkan.
    """
    passes = [_Pass(net, *one) for one in _passes(features0, features1, timestep, averaging)]
    for index in range(len(net.blocks)):
        answers = []
        for one in passes:
            cancellation()
            answers.append(one.run(index))
        flow, mask = (torch.stack(maps).mean(0) for maps in zip(*answers, strict=True))
        for one in passes:
            one.go_on(flow, mask)
    return passes[0].field


def estimate_legacy(
    net: LegacyNet,
    features0: Sequence[legacy.Features],
    features1: Sequence[legacy.Features],
    timestep: float | Tensor,
    averaging: Averaging,
    cancellation: Cancellation = never,
) -> legacy.Estimate:
    """The same for models before 4.x, whose mean picture comes with the estimate; arguments as for `estimate`."""
    passes = list(_passes(features0, features1, timestep, averaging))
    flows: list[Tensor] = []
    masks: list[Tensor] = []
    for orientation, reverse, a, b, time in passes:
        flow, mask = net.flow(a, b, time, cancellation)
        flow = orientation.turn_flow_back(flow)
        flows.append(swap(flow) if reverse else flow)
        if mask is not None:
            mask = orientation.turn_back(mask)
            masks.append(-mask if reverse else mask)
    mean_flow, mean_mask = torch.stack(flows).mean(0), torch.stack(masks).mean(0) if masks else None
    if net.layout.refiner is None:  # all orientations would make the same picture of it
        return net.refine(features0[0], features1[0], mean_flow, mean_mask)
    results = []
    for orientation, reverse, a, b, _ in passes:
        cancellation()
        flow = orientation.turn_flow(swap(mean_flow) if reverse else mean_flow)
        mask = None if mean_mask is None else orientation.turn(-mean_mask if reverse else mean_mask)
        one = net.refine(a, b, flow, mask)
        assert one.residual is not None
        weight0 = orientation.turn_back(torch.sigmoid(-one.mask if reverse else one.mask))
        maps = (
            weight0,
            orientation.turn_back(one.residual),
            orientation.turn_back(legacy.blended(a.image, b.image, one)),
        )
        results.append((orientation.turn_flow_back(swap(one.flow) if reverse else one.flow), *maps))
    full_flow, weight0, residual, image = (torch.stack(maps).mean(0) for maps in zip(*results, strict=True))
    return legacy.Estimate(full_flow, torch.logit(weight0), residual, image)


def _passes[S](
    features0: Sequence[S], features1: Sequence[S], timestep: float | Tensor, averaging: Averaging
) -> Iterator[tuple[Orientation, bool, S, S, float | Tensor]]:
    """Orientation, whether the frames are exchanged, the two sources in the pass's own order, and its timestep."""
    for reverse in (False, True) if averaging.temporal else (False,):
        for orientation, a, b in zip(averaging.orientations, features0, features1, strict=True):
            time = orientation.turn(timestep) if isinstance(timestep, Tensor) else timestep
            yield (orientation, True, b, a, 1 - time) if reverse else (orientation, False, a, b, time)


class _Pass:
    """The pyramid in one orientation and order of the frames, whose maps come back from outside after each block."""

    def __init__(
        self,
        net: FoldedNet,
        orientation: Orientation,
        reverse: bool,
        features0: Features,
        features1: Features,
        timestep: float | Tensor,
    ) -> None:
        self.net, self.orientation, self.reverse = net, orientation, reverse
        self.features0, self.features1, self.timestep = features0, features1, timestep
        self.field = Field(features0.size, net.ops)
        self.carried: Tensor | None = None

    def run(self, index: int) -> tuple[Tensor, Tensor]:
        """The maps of a block: flow and mask as the upright orientation in the true order would have them."""
        net, block = self.net, self.net.blocks[index]
        if self.carried is None:
            x = pyramid.first_of_pair(net, block, self.features0, self.features1, self.timestep)
        else:
            x = pyramid.first_of_block(
                net, block, self.features0, self.features1, self.field, self.carried, self.timestep
            )
        flow, mask, self.carried = pyramid.outputs(net, block, x)
        flow, mask = self.orientation.turn_flow_back(flow), self.orientation.turn_back(mask)
        return (swap(flow), -mask) if self.reverse else (flow, mask)

    def go_on(self, flow: Tensor, mask: Tensor) -> None:
        """Take the mean of all passes as the result of the block."""
        if self.reverse:
            flow, mask = swap(flow), -mask
        self.field.add(
            self.orientation.turn_flow(flow).contiguous(),
            self.orientation.turn(mask).contiguous(),
            self.net.layout.mask_accumulates,
        )
