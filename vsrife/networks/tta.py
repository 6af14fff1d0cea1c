"""Test-time augmentation: the same pair seen mirrored, turned and in reverse, the answers averaged.

As rife-ncnn-vulkan does. 4.x models: after every block the flow and the mask of all views are put back in place
and averaged, and every view goes on from the mean. The temporal mode is the published `ensemble`, which here also
works for layouts with carried features: each view keeps its own. Models before 4.x: the flow is averaged once, and the
pictures that the views make of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from vsrife.networks import legacy, pyramid
from vsrife.networks.fold import FoldedNet
from vsrife.networks.legacy import LegacyNet
from vsrife.networks.pyramid import Field, Source


@dataclass(frozen=True, slots=True)
class View:
    """One of the eight orientations of a picture: transposed first, then mirrored."""

    transposed: bool
    mirrored_x: bool
    mirrored_y: bool

    @property
    def axes(self) -> list[int]:
        """That are mirrored."""
        return [-1] * self.mirrored_x + [-2] * self.mirrored_y

    def turn(self, image: Tensor) -> Tensor:
        """(..., H, W) as this view shows it."""
        image = image.mT if self.transposed else image
        return image.flip(self.axes) if self.axes else image

    def turn_back(self, image: Tensor) -> Tensor:
        """What `turn` was given."""
        image = image.flip(self.axes) if self.axes else image
        return image.mT if self.transposed else image

    def turn_flow(self, flow: Tensor) -> Tensor:
        """(N, 4, H, W): moved as `turn` does, and the vectors with it."""
        flow = self.turn(flow)
        flow = flow[:, [1, 0, 3, 2]] if self.transposed else flow
        return flow * self._signs(flow)

    def turn_flow_back(self, flow: Tensor) -> Tensor:
        """What `turn_flow` was given."""
        flow = flow * self._signs(flow)
        flow = flow[:, [1, 0, 3, 2]] if self.transposed else flow
        return self.turn_back(flow)

    def _signs(self, flow: Tensor) -> Tensor:
        return flow.new_tensor([-1 if self.mirrored_x else 1, -1 if self.mirrored_y else 1] * 2)[:, None, None]


UPRIGHT = View(False, False, False)
ALL_VIEWS = tuple(View(*flags) for flags in product((False, True), repeat=3))


@dataclass(frozen=True, slots=True)
class Averaging:
    """Which passes are averaged.

    Attributes:
        views: orientations of the pictures, the first `UPRIGHT`.
        temporal: whether each is also seen with the frames exchanged.
    """

    views: Sequence[View]
    temporal: bool


def _never() -> None:
    """The interrupt of those who have none."""


def estimate(
    net: FoldedNet,
    sources0: Sequence[Source],
    sources1: Sequence[Source],
    timestep: float | Tensor,
    averaging: Averaging,
    interrupt: Callable[[], None] = _never,
) -> Field:
    """Flow and mask between two frames, averaged over views.

    Args:
        net: the folded network, without ensemble.
        sources0: the frame at time 0, prepared in every view.
        sources1: the frame at time 1, likewise.
        timestep: 0..1; or a time for every pixel, (1, 1, H, W) at the padded size.
        averaging: its views are those of the sources.
        interrupt: called before each block of each view; may raise to give up.

    Returns:
        The field at `timestep`. The second try of 4.0 and 4.1 is left out, as in rife-ncnn-vulkan.
    """
    passes = [_Pass(net, *one) for one in _passes(sources0, sources1, timestep, averaging)]
    for index in range(len(net.blocks)):
        answers = []
        for one in passes:
            interrupt()
            answers.append(one.run(index))
        flow, mask = (torch.stack(maps).mean(0) for maps in zip(*answers, strict=True))
        for one in passes:
            one.go_on(flow, mask)
    return passes[0].field


def estimate_legacy(
    net: LegacyNet,
    sources0: Sequence[legacy.Source],
    sources1: Sequence[legacy.Source],
    timestep: float | Tensor,
    averaging: Averaging,
    interrupt: Callable[[], None] = _never,
) -> legacy.Estimate:
    """The same for models before 4.x, whose mean picture comes with the estimate; arguments as for `estimate`."""
    passes = list(_passes(sources0, sources1, timestep, averaging))
    flows: list[Tensor] = []
    masks: list[Tensor] = []
    for view, reverse, a, b, time in passes:
        flow, mask = net.flow(a, b, time, interrupt)
        flow = view.turn_flow_back(flow)
        flows.append(pyramid.exchanged(flow) if reverse else flow)
        if mask is not None:
            mask = view.turn_back(mask)
            masks.append(-mask if reverse else mask)
    mean_flow, mean_mask = torch.stack(flows).mean(0), torch.stack(masks).mean(0) if masks else None
    if net.layout.refiner is None:  # all views would make the same picture of it
        return net.refine(sources0[0], sources1[0], mean_flow, mean_mask)
    found = []
    for view, reverse, a, b, _ in passes:
        interrupt()
        flow = view.turn_flow(pyramid.exchanged(mean_flow) if reverse else mean_flow)
        mask = None if mean_mask is None else view.turn(-mean_mask if reverse else mean_mask)
        one = net.refine(a, b, flow, mask)
        assert one.residual is not None
        share = view.turn_back(torch.sigmoid(-one.mask if reverse else one.mask))
        maps = share, view.turn_back(one.residual), view.turn_back(legacy.blended(a.image, b.image, one))
        found.append((view.turn_flow_back(pyramid.exchanged(one.flow) if reverse else one.flow), *maps))
    full_flow, share, residual, image = (torch.stack(maps).mean(0) for maps in zip(*found, strict=True))
    return legacy.Estimate(full_flow, torch.logit(share), residual, image)


def _passes[S](
    sources0: Sequence[S], sources1: Sequence[S], timestep: float | Tensor, averaging: Averaging
) -> Iterator[tuple[View, bool, S, S, float | Tensor]]:
    """View, whether the frames are exchanged, the two sources in the pass's own order, and its timestep."""
    for reverse in (False, True) if averaging.temporal else (False,):
        for view, a, b in zip(averaging.views, sources0, sources1, strict=True):
            time = view.turn(timestep) if isinstance(timestep, Tensor) else timestep
            yield (view, True, b, a, 1 - time) if reverse else (view, False, a, b, time)


class _Pass:
    """The pyramid in one view and order of the frames, whose maps come back from outside after each block."""

    def __init__(
        self, net: FoldedNet, view: View, reverse: bool, source0: Source, source1: Source, timestep: float | Tensor
    ) -> None:
        self.net, self.view, self.reverse = net, view, reverse
        self.source0, self.source1, self.timestep = source0, source1, timestep
        self.field = Field(source0.size, net.ops)
        self.carried: Tensor | None = None

    def run(self, index: int) -> tuple[Tensor, Tensor]:
        """The maps of a block: flow and mask as the upright view in the true order would have them."""
        net, block = self.net, self.net.blocks[index]
        if self.carried is None:
            x = pyramid.first_of_pair(net, block, self.source0, self.source1, self.timestep)
        else:
            x = pyramid.first_of_block(net, block, self.source0, self.source1, self.field, self.carried, self.timestep)
        flow, mask, self.carried = pyramid.outputs(net, block, x)
        flow, mask = self.view.turn_flow_back(flow), self.view.turn_back(mask)
        return (pyramid.exchanged(flow), -mask) if self.reverse else (flow, mask)

    def go_on(self, flow: Tensor, mask: Tensor) -> None:
        """Take the mean of all passes as the result of the block."""
        if self.reverse:
            flow, mask = pyramid.exchanged(flow), -mask
        self.field.add(
            self.view.turn_flow(flow).contiguous(), self.view.turn(mask).contiguous(), self.net.layout.mask_accumulates
        )
