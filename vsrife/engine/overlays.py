"""Overlays that stand still over a moving picture, such as logos, subtitles and the displays of games.

Their samples are equal in both frames, but so near to others that move that the reach of the flow does not tell. They
are told by what is around: where nearly the whole picture moves, detail that is equal in both frames is none of it.
Where much of the picture stands still, as in front of a fixed camera, nothing is marked: there, what is equal in both
frames may be what a fast object passes in between.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vsrife.engine.formats import PictureFormat
from vsrife.engine.transfer import Planes

MOST_EQUAL = 0.5  # share of equal samples in a picture that moves as a whole
CONTRAST = 40 / 255  # of two neighbours, in shares of the range
BOX_PX = 2  # to each side of a sample: where detail of its kind is looked for
LEAST_EDGES = 12  # equal neighbours of that contrast in the box, each counted from both sides
REACH_PX = 24  # from such detail into what is even beside it
STILL = 127  # a radius that no flow exceeds


def mark_overlays(planes: Planes, radii: Planes, fmt: PictureFormat) -> Planes:
    """Raise the static radius of overlays to `STILL`.

    Luma or green tells where overlays are, and the other planes follow.

    Args:
        planes: of one of the frames, (1, 1, H, W) each.
        radii: their static radius, (1, 1, H, W) int8; negative where the frames differ.
        fmt: of the planes.
    """
    lead = 1 if fmt.family == "RGB" else 0
    overlay = _overlay(planes[lead], radii[lead] >= 0, CONTRAST * (1.0 if fmt.floating else fmt.peak))
    return radii if overlay is None else tuple(_raised(radius, overlay) for radius in radii)


def _raised(radius: Tensor, overlay: Tensor) -> Tensor:
    """The static radius of a plane that may be smaller than the one that told of the overlay."""
    if overlay.shape != radius.shape:
        rows, columns = (-(-a // b) for a, b in zip(overlay.shape[-2:], radius.shape[-2:], strict=True))
        overlay = _pooled(overlay, rows, columns, radius.shape)
    return radius.masked_fill((radius >= 0) & overlay, STILL)


def _pooled(overlay: Tensor, rows: int, columns: int, shape: torch.Size) -> Tensor:
    """Whether any of the samples that a sample of a smaller plane lies among is marked."""
    result = torch.zeros(shape, dtype=torch.bool, device=overlay.device)
    for y in range(rows):
        for x in range(columns):
            part = overlay[..., y::rows, x::columns]
            result[..., : part.shape[-2], : part.shape[-1]] |= part
    return result


def _overlay(plane: Tensor, equal: Tensor, contrast: float) -> Tensor | None:
    """The samples of an overlay; None if there are none."""
    if equal.float().mean() >= MOST_EQUAL:
        return None
    edges = _edges(plane, equal, contrast)
    found = (edges > 0) & (_box_sum(edges) >= LEAST_EDGES)
    return _dilated(found) & equal if found.any() else None


def _edges(plane: Tensor, equal: Tensor, contrast: float) -> Tensor:
    """How many of its four neighbours each equal sample has strong contrast with, counting equal ones alone."""
    wider = torch.int16 if plane.dtype == torch.uint8 else torch.int32
    values = plane.float() if plane.is_floating_point() else plane.to(wider)
    edges = torch.zeros_like(equal, dtype=torch.uint8)
    for axis in (2, 3):
        length = values.shape[axis] - 1
        a, b = (values.narrow(axis, start, length) for start in (0, 1))
        both = equal.narrow(axis, 0, length) & equal.narrow(axis, 1, length)
        edge = ((a - b).abs() >= contrast) & both
        edges.narrow(axis, 0, length).add_(edge)
        edges.narrow(axis, 1, length).add_(edge)
    return edges


def _box_sum(values: Tensor) -> Tensor:
    """Sums in boxes of `BOX_PX` to each side; at most 100, which eight bits hold."""
    for axis in (2, 3):
        length, total = values.shape[axis], values.clone()
        for by in range(1, min(BOX_PX, length - 1) + 1):
            total.narrow(axis, by, length - by).add_(values.narrow(axis, 0, length - by))
            total.narrow(axis, 0, length - by).add_(values.narrow(axis, by, length - by))
        values = total
    return values


def _dilated(mask: Tensor) -> Tensor:
    """Whether any sample of the box of `REACH_PX` to each side is marked."""
    for axis in (2, 3):
        length, reached = mask.shape[axis], 0
        while reached < REACH_PX:
            by = min(2 * reached + 1, REACH_PX - reached)  # boxes of `reached` that touch or overlap
            reached += by
            if by < length:
                wider = mask.clone()
                wider.narrow(axis, by, length - by).logical_or_(mask.narrow(axis, 0, length - by))
                wider.narrow(axis, 0, length - by).logical_or_(mask.narrow(axis, by, length - by))
                mask = wider
    return mask
