"""Test-time augmentation: the same pair seen mirrored, turned and in reverse, the answers averaged.

As rife-ncnn-vulkan does for its 4.x models: after every block the flow and the mask of all views are put back in place
and averaged, and every view goes on from the mean. The temporal mode is the published `ensemble`, which here also
works for layouts with carried features: each view keeps its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from vsrife import pyramid
from vsrife.fold import FoldedNet
from vsrife.pyramid import Field, Source


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


def estimate(
    net: FoldedNet,
    sources0: Sequence[Source],
    sources1: Sequence[Source],
    timestep: float,
    views: Sequence[View],
    *,
    temporal: bool,
    interrupt: Callable[[], None] = lambda: None,
) -> Field:
    """Flow and mask between two frames, averaged over views.

    Args:
        net: the folded network, without ensemble.
        sources0: the frame at time 0, prepared in every view.
        sources1: the frame at time 1, likewise.
        timestep: 0..1.
        views: what the sources show; the first is `UPRIGHT`.
        temporal: whether each view is also seen with the frames exchanged.
        interrupt: called before each block of each view; may raise to give up.

    Returns:
        The field at `timestep`. The second try of 4.0 and 4.1 is left out, as in rife-ncnn-vulkan.
    """
    passes = [_Pass(net, view, False, a, b, timestep) for view, a, b in zip(views, sources0, sources1, strict=True)]
    if temporal:
        passes += [_Pass(net, one.view, True, one.source1, one.source0, 1 - timestep) for one in passes]
    for index in range(len(net.blocks)):
        answers = []
        for one in passes:
            interrupt()
            answers.append(one.run(index))
        flow, mask = (torch.stack(maps).mean(0) for maps in zip(*answers, strict=True))
        for one in passes:
            one.go_on(flow, mask)
    return passes[0].field


class _Pass:
    """The pyramid in one view and order of the frames, whose maps come back from outside after each block."""

    def __init__(
        self, net: FoldedNet, view: View, reverse: bool, source0: Source, source1: Source, timestep: float
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
