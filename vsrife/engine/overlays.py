"""Overlays that stand still over a moving picture, such as logos, subtitles and the displays of games.

Their samples are equal in both frames, but so near to others that move that the reach of the flow does not tell. They
are told by their edges, which have strong contrast at the same place in both frames, whatever moves behind: an edge
that moves farther than the contrast is looked for has it in one of them alone. Detail that moves by less is found as
well where it is equal by chance, and would hardly change in between.

Where the surroundings of much of the picture stand still, as in front of a fixed camera, nothing is marked: there, what
is equal in both frames may be what a fast object passes in between.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vsrife.engine.formats import PictureFormat
from vsrife.engine.transfer import Planes
from vsrife.ops.protocol import Ops

SURROUNDINGS_PX = 4  # to each side of a sample, all equal: it stands still, and not by chance
MOST_STILL = 0.5  # share of such samples in a picture that moves as a whole
CONTRAST = 40 / 255  # of an edge, in shares of the range
BLOCK_PX = 8  # width and height of the blocks of luma in which edges are counted
LEAST_EDGES = 10  # of a block's samples, each to up to four sides: those of a line that is a sample wide are sixteen
LEAST_EQUAL = 6  # of nine samples: inside an overlay or at its border; others are equal by chance
REACH = 3  # blocks from such edges into what is even beside them
STILL = 127  # a radius that no flow exceeds; all bits but the sign


def mark_overlays(planes0: Planes, planes1: Planes, radii: Planes, fmt: PictureFormat, ops: Ops) -> Planes:
    """Raise the static radius of overlays to `STILL`.

    Luma or green tells where overlays are, and the other planes follow.

    Args:
        planes0, planes1: of both frames, (1, 1, H, W) each.
        radii: their static radius, (1, 1, H, W) int8; negative where the frames differ.
        fmt: of the planes.
        ops: of their device.
    """
    lead = 1 if fmt.family == "RGB" else 0
    if torch.count_nonzero(radii[lead] >= SURROUNDINGS_PX) >= MOST_STILL * radii[lead].numel():
        return radii
    contrast = CONTRAST * (1 if fmt.floating else fmt.peak)
    edges = ops.static_edges(planes0[lead], planes1[lead], radii[lead], contrast)
    found = F.avg_pool2d(edges.float(), BLOCK_PX, ceil_mode=True, divisor_override=1) >= LEAST_EDGES
    if not found.any():
        return radii
    blocks = F.max_pool2d(found.float(), 2 * REACH + 1, stride=1, padding=REACH) > 0
    equal = radii[lead] >= 0
    for axis in (2, 3):
        blocks = blocks.index_select(axis, torch.arange(equal.shape[axis], device=equal.device) // BLOCK_PX)
    core = blocks & equal & (_around(equal).add_(edges, alpha=LEAST_EQUAL) >= LEAST_EQUAL)
    overlay = _around(core).clamp_(max=1)
    return tuple(_raised(radius, overlay) for radius in radii)


def _raised(radius: Tensor, overlay: Tensor) -> Tensor:
    """The static radius of a plane that may be smaller than the one that told of the overlay."""
    if overlay.shape != radius.shape:
        factors = [-(-a // b) for a, b in zip(overlay.shape[-2:], radius.shape[-2:], strict=True)]
        overlay = F.max_pool2d(overlay.float(), factors, ceil_mode=True)
    return radius | overlay.to(torch.int8) * STILL  # -1, of samples that differ, stays


def _around(mask: Tensor) -> Tensor:
    """How many samples of the box of three by three around each are marked."""
    total = mask.view(torch.uint8)
    for axis in (2, 3):
        part, total = total, total.clone()
        length = total.shape[axis] - 1
        for to, start in ((1, 0), (0, 1)):
            total.narrow(axis, to, length).add_(part.narrow(axis, start, length))
    return total
