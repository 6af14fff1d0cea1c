"""Motion estimated in overlapping tiles, for a device without the memory for the whole frame at once.

Each tile goes through the network alone, as a smaller frame would. Flow and mask of neighbouring tiles are cross-faded
around their seam. Output planes are then made from the whole source planes, so flow may point into another tile.

A tile begins at a multiple of the padding, so that the network's cells are those of the whole frame. Far enough from a
tile's border the network then finds the motion that it finds in the whole frame. On six pairs of film the result was
above 51 dB PSNR of that of the whole frame from 96 pixels on, and above 54 dB from 128 on (4.25 layout, bundled
weights). Motion across a border is visible from one side only, so tiles overlap by as much more as the content moves at
the seam; an estimate at a quarter of the size measures that first.
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
CONTEXT_CELLS = 8  # of the coarsest block, read beyond the pixels that are used
LEAST_CONTEXT_PX = 128
LEAST_CONTEXTS = 3  # least side of a tile, in contexts; smaller tiles would hardly save memory
FADE_PX = 32  # on each side of a seam
REDUCTION = 4  # of the frame for the first estimate


@dataclass(frozen=True, slots=True)
class Span:
    """The extent of a tile along one axis.

    Attributes:
        start, stop: its pixels.
        weight: (stop - start,) weight of the tile at each, 0..1; the weights of all tiles add up to 1.
    """

    start: int
    stop: int
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Tiling:
    """A frame in tiles that are of equal size before they overlap.

    Attributes:
        fmt: of the frame.
        columns, rows: number of tiles side by side and one above the other.
        align: inner borders are multiples of this many pixels.
        context: overlap in pixels where nothing moves.
    """

    fmt: PictureFormat
    columns: int
    rows: int
    align: int
    context: int

    @classmethod
    def of(cls, fmt: PictureFormat, layout: Layout, scale: float, tiles: int) -> Tiling | None:
        """Halve the longer side until there are `tiles` tiles; None where they would be too small."""
        align = layout.align(scale)
        context = max(LEAST_CONTEXT_PX, int(CONTEXT_CELLS * max(layout.scale_list(scale)))) + FADE_PX
        columns = rows = 1
        while columns * rows < tiles:
            width, height = fmt.width / columns, fmt.height / rows
            if max(width, height) / 2 < LEAST_CONTEXTS * context:
                return None
            columns, rows = (2 * columns, rows) if width >= height else (columns, 2 * rows)
        return cls(fmt, columns, rows, align, context)

    def motion(self, timestep: float | Tensor, estimate: Estimate) -> Motion:
        """Estimate the motion of the whole frame.

        Args:
            timestep: 0..1; or a time for every pixel, (1, 1, H, W).
            estimate: gives the motion of a smaller frame: takes its format, a function that cuts its planes out of
                those of the whole frame, and its timestep.
        """
        displacement = self._displacement(estimate)
        columns = self._spans(displacement[:, :1], -1, self.fmt.width, self.columns)
        rows = self._spans(displacement[:, 1:], -2, self.fmt.height, self.rows)
        flow, mask = (displacement.new_zeros(1, channels, self.fmt.height, self.fmt.width) for channels in (4, 1))
        for row in rows:
            for column in columns:
                box = (..., slice(row.start, row.stop), slice(column.start, column.stop))
                time = timestep[box] if isinstance(timestep, Tensor) else timestep
                small = replace(self.fmt, width=column.stop - column.start, height=row.stop - row.start)
                tile = estimate(small, partial(self._cut, row, column), time)
                weight = (row.weight[:, None] * column.weight).to(flow)
                for whole, maps in zip((flow, mask), tile, strict=True):
                    whole[box].add_(maps * weight)
        return Motion(flow, mask)

    def _cut(self, row: Span, column: Span, planes: Planes) -> Planes:
        """Cut the tile out of each plane; `align` is a multiple of all subsampling."""
        return tuple(
            plane[..., row.start >> h : row.stop >> h, column.start >> w : column.stop >> w].contiguous()
            for plane, (w, h) in zip(planes, _shifts(self.fmt), strict=True)
        )

    def _displacement(self, estimate: Estimate) -> Tensor:
        """Distance that the content moves between both frames, (1, 2, h, w) in pixels of the frame, x then y."""
        fmt = self.fmt
        width, height = (
            max(side // REDUCTION >> shift, 1) << shift
            for side, shift in ((fmt.width, fmt.subsampling_w), (fmt.height, fmt.subsampling_h))
        )
        small = replace(fmt, width=width, height=height)
        flow, _ = estimate(small, partial(_reduced, small), 0.5)
        factors = flow.new_tensor((fmt.width / width, fmt.height / height))
        return (flow[:, :2] - flow[:, 2:]).abs() * factors[:, None, None]

    def _spans(self, displacement: Tensor, axis: int, size: int, count: int) -> list[Span]:
        """The extents of the tiles along an axis, given the displacement along it."""
        step = self.align
        cuts = [round(i * size / count / step) * step for i in range(1, count)]
        reach = _at_seams(displacement, axis, [cut / size for cut in cuts], self.context / size)
        overlap = min(self.context + reach, size / count / 2)  # more would save nothing
        margin = math.ceil(overlap / step) * step
        return [
            _span(max(0, low - margin), min(size, high + margin), low, high, size)
            for low, high in pairwise([0, *cuts, size])
        ]


def _span(start: int, stop: int, low: int, high: int, size: int) -> Span:
    """A tile of weight 1 from `low` to `high`, cross-faded where these are seams."""
    centres = torch.arange(start, stop) + 0.5
    rise, fall = (((distance / FADE_PX + 1) / 2).clamp(0, 1) for distance in (centres - low, high - centres))
    return Span(start, stop, (rise if low > 0 else 1) * (fall if high < size else torch.ones_like(fall)))


def _at_seams(displacement: Tensor, axis: int, seams: Sequence[float], width: float) -> float:
    """Largest displacement within `width` of a seam; seams and width are fractions of the axis."""
    size = displacement.shape[axis]
    strips = (
        displacement.narrow(axis, start, max(1, math.ceil(min(seam + width, 1) * size) - start))
        for seam in seams
        for start in [int(max(seam - width, 0) * size)]
    )
    return max((float(strip.max()) for strip in strips), default=0.0)


def _shifts(fmt: PictureFormat) -> Iterator[tuple[int, int]]:
    """Per plane, log2 of its horizontal and vertical subsampling."""
    return ((fmt.subsampling_w, fmt.subsampling_h) if plane else (0, 0) for plane in range(fmt.num_planes))


def _reduced(small: PictureFormat, planes: Planes) -> Planes:
    """Reduce each plane to the size of `small`; each sample is the mean of the area that it covers."""
    return tuple(
        to_samples(F.interpolate(plane.float(), size=(small.height >> h, small.width >> w), mode="area"), small)
        for plane, (w, h) in zip(planes, _shifts(small), strict=True)
    )
