"""Motion from overlapping parts of the picture, for a device without the memory for all of it at once.

Each part goes through the network on its own, as a smaller picture would. Flow and mask of neighbouring parts fade into
each other around their seam. What is shown is then made of the whole planes, so that flow may lead into another part.

A part begins at a multiple of what sides are padded to, so that the network's cells are those of the whole picture. Far
enough from a part's border the network then finds what it finds in the whole. On six pairs of film the picture was
above 51 dB PSNR of the whole picture's from 96 pixels on, and above 54 dB from 128 on (4.25 layout, bundled weights).
What moves across a border is seen from one side only: so parts overlap by as much more as things move at the seam. That
is told by a look at the picture in quarter size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from vsrife.engine.color import to_samples
from vsrife.engine.formats import PictureFormat
from vsrife.engine.synthesis import Motion
from vsrife.engine.transfer import Planes
from vsrife.networks.catalogue import Layout

Cut = Callable[[Planes], Planes]  # planes of a frame to those of a smaller one
Estimate = Callable[[PictureFormat, Cut, float | Tensor], Motion]  # the motion of a smaller frame at a time

MOST_TILES = 16
CONTEXT_CELLS = 8  # of the coarsest block, that are seen beside what is used
LEAST_CONTEXT_PX = 128
LEAST_CONTEXTS = 3  # that a part decides about along a divided side; smaller ones would hardly save memory
FADE_PX = 32  # on each side of a seam
REDUCTION = 4  # of the picture that tells how far things move


@dataclass(frozen=True, slots=True)
class Span:
    """What a part sees of one axis.

    Attributes:
        start, stop: the pixels.
        share: (stop - start,) the part's weight for each, 0..1; those of all parts add up to 1.
    """

    start: int
    stop: int
    share: Tensor


@dataclass(frozen=True, slots=True)
class Tiling:
    """A picture in parts of equal size, before they overlap.

    Attributes:
        fmt: of the picture.
        columns, rows: how many parts lie beside and above each other.
        align: inner borders are multiples of this many pixels.
        context: pixels that a part sees beyond those that it decides alone about, where nothing moves.
    """

    fmt: PictureFormat
    columns: int
    rows: int
    align: int
    context: int

    @classmethod
    def of(cls, fmt: PictureFormat, layout: Layout, scale: float, parts: int) -> Tiling | None:
        """The picture's longer side halved, again and again, down to `parts`; None where that makes parts too small."""
        align = layout.align(scale)
        context = max(LEAST_CONTEXT_PX, int(CONTEXT_CELLS * max(layout.scale_list(scale)))) + FADE_PX
        columns = rows = 1
        while columns * rows < parts:
            width, height = fmt.width / columns, fmt.height / rows
            if max(width, height) / 2 < LEAST_CONTEXTS * context:
                return None
            columns, rows = (2 * columns, rows) if width >= height else (columns, 2 * rows)
        return cls(fmt, columns, rows, align, context)

    def motion(self, timestep: float | Tensor, estimate: Estimate) -> Motion:
        """Flow (1, 4, H, W) and mask logits (1, 1, H, W) of the whole picture.

        Args:
            timestep: 0..1; or a time for every pixel, (1, 1, H, W).
            look: given a smaller format, what makes such planes of a frame's, and the timestep of that picture,
                gives its flow and mask.
        """
        motion = self._displacement(estimate)
        columns = self._spans(motion[:, :1], -1, self.fmt.width, self.columns)
        rows = self._spans(motion[:, 1:], -2, self.fmt.height, self.rows)
        flow, mask = (motion.new_zeros(1, channels, self.fmt.height, self.fmt.width) for channels in (4, 1))
        for row in rows:
            for column in columns:
                box = (..., slice(row.start, row.stop), slice(column.start, column.stop))
                time = timestep[box] if isinstance(timestep, Tensor) else timestep
                small = replace(self.fmt, width=column.stop - column.start, height=row.stop - row.start)
                part = estimate(small, partial(self._cut, row, column), time)
                share = (row.share[:, None] * column.share).to(flow)
                for total, own in zip((flow, mask), part, strict=True):
                    total[box].add_(own * share)
        return Motion(flow, mask)

    def _cut(self, row: Span, column: Span, planes: Planes) -> Planes:
        """The part of each plane; `align` is a multiple of all subsampling."""
        return tuple(
            plane[..., row.start >> h : row.stop >> h, column.start >> w : column.stop >> w].contiguous()
            for plane, (w, h) in zip(planes, _shifts(self.fmt), strict=True)
        )

    def _displacement(self, estimate: Estimate) -> Tensor:
        """How far things move between the two frames, (1, 2, h, w) in pixels of the picture, x then y."""
        fmt = self.fmt
        width, height = (
            max(side // REDUCTION >> shift, 1) << shift
            for side, shift in ((fmt.width, fmt.subsampling_w), (fmt.height, fmt.subsampling_h))
        )
        small = replace(fmt, width=width, height=height)
        flow, _ = estimate(small, partial(_reduced, small), 0.5)
        factors = flow.new_tensor((fmt.width / width, fmt.height / height))
        return (flow[:, :2] - flow[:, 2:]).abs() * factors[:, None, None]

    def _spans(self, motion: Tensor, axis: int, size: int, count: int) -> list[Span]:
        """The parts' shares of an axis, given how far things move along it."""
        step = self.align
        cuts = [round(i * size / count / step) * step for i in range(1, count)]
        reach = _at_seams(motion, axis, [cut / size for cut in cuts], self.context / size)
        overlap = min(self.context + reach, size / count / 2)  # more would save nothing
        margin = math.ceil(overlap / step) * step
        return [
            _span(max(0, low - margin), min(size, high + margin), low, high, size)
            for low, high in pairwise([0, *cuts, size])
        ]


def _span(start: int, stop: int, low: int, high: int, size: int) -> Span:
    """A part that decides from `low` to `high`, but for the fading at those that are seams."""
    centres = torch.arange(start, stop) + 0.5
    rise, fall = (((distance / FADE_PX + 1) / 2).clamp(0, 1) for distance in (centres - low, high - centres))
    return Span(start, stop, (rise if low > 0 else 1) * (fall if high < size else torch.ones_like(fall)))


def _at_seams(motion: Tensor, axis: int, seams: Sequence[float], width: float) -> float:
    """The largest motion within `width` of a seam, all in parts of the axis."""
    size = motion.shape[axis]
    strips = (
        motion.narrow(axis, start, max(1, math.ceil(min(seam + width, 1) * size) - start))
        for seam in seams
        for start in [int(max(seam - width, 0) * size)]
    )
    return max((float(strip.max()) for strip in strips), default=0.0)


def _shifts(fmt: PictureFormat) -> Iterator[tuple[int, int]]:
    """Per plane, log2 of how much narrower and lower it is than the picture."""
    return ((fmt.subsampling_w, fmt.subsampling_h) if plane else (0, 0) for plane in range(fmt.num_planes))


def _reduced(small: PictureFormat, planes: Planes) -> Planes:
    """All of a picture in another size, each sample the mean of what it covers."""
    return tuple(
        to_samples(F.interpolate(plane.float(), size=(small.height >> h, small.width >> w), mode="area"), small)
        for plane, (w, h) in zip(planes, _shifts(small), strict=True)
    )
