"""Inverse telecine: fields of a clip matched to film frames, and a look for combs that no flag tells of."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from statistics import median
from typing import Literal

import vapoursynth as vs

from vsrife.errors import OptionError
from vsrife.filters.duplicates import block_changes, change_of, is_repeat
from vsrife.timing.pulldown import Film, find_film
from vsrife.timing.timeline import Timeline

# Combs are looked for where interlaced video is to be expected, in so many groups of frames spread over the clip.
MAX_HEIGHT_PX, RATES = 1088, (24.5, 30.5)
GROUPS, GROUP = 6, 5
BLOCK_PX = 64
COMBED_PX = 100  # of a block's 4096 pixels, from which on it is combed
FARTHER = 1.2  # times more combed pixels with fields three apart than with neighbours, or nothing moves: fine stripes
CLEAN = 3  # times fewer combed pixels in a frame whose fields belong together


def match_fields(clip: vs.VideoNode, order: int) -> vs.VideoNode:
    """Progressive frames from a telecined clip, as many as before: of five one repeats another.

    Args:
        clip: constant format.
        order: 1 if the top field is first, else 0, for frames without a prop that says so.

    Raises:
        OptionError: the plugin is missing.
    """
    _require("vivtc")
    return clip.vivtc.VFM(order) if takes(clip) else _grey(clip).vivtc.VFM(order, clip2=clip)


def take_film(clip: vs.VideoNode, order: int, film: Film) -> vs.VideoNode:
    """The film frames of a telecined clip; frames of video between are deinterlaced where they are combed.

    Args:
        clip, order: as for `match_fields`.
        film: what `find_film_in` has found in it.

    Raises:
        OptionError: a plugin is missing.
    """
    matched = result = match_fields(clip, order)
    if film.video:
        _require("bwdif")
        progressive, starts = matched.bwdif.Bwdif(field=order), [first for first, _ in film.video]

        def choose(n: int, f: vs.VideoFrame) -> vs.VideoNode:
            part = bisect_right(starts, n) - 1
            return progressive if part >= 0 and n < film.video[part][1] and f.props["_Combed"] else matched

        result = matched.std.FrameEval(choose, prop_src=matched, clip_src=[matched, progressive])
    result = result.std.SetFieldBased(0)
    return result.std.DeleteFrames(film.dropped) if film.dropped else result


def _require(plugin: str) -> None:
    if not hasattr(vs.core, plugin):
        raise OptionError(f"--inverse-telecine needs the plugin {plugin}, got none; pip install vapoursynth-{plugin}")


def find_film_in(
    clip: vs.VideoNode, order: int, timeline: Timeline, advance: Callable[[int], None] = lambda _: None
) -> Film:
    """Read a telecined clip, and find the frames that repeat others once its fields are matched.

    Args:
        clip, order: as for `match_fields`.
        timeline: of the clip.
        advance: called with the number of frames read.

    Raises:
        OptionError: the plugin is missing.
        vs.Error: a frame cannot be read.
    """
    changes = []
    for frame in block_changes(match_fields(clip, order)).frames(close=True):
        change = change_of(frame)
        changes.append(math.inf if change is None else change)
        advance(len(changes))
    return find_film(timeline, changes, lambda change, around: is_repeat(change, median(around)))


def find_combs(clip: vs.VideoNode, timeline: Timeline) -> Literal["film", "video"] | None:
    """Look for combs in a few frames of a clip that no flag calls interlaced.

    Where the fields of a frame belong together, nothing is combed less. In video, the field before or after fits as
    well as the frame's own; in film with pulldown, it fits much better in two frames of five, and worse in the others.

    Returns:
        "film" with pulldown, "video" with two moments in a frame; None: no combs, or nothing can be said.
    """
    expected = clip.height <= MAX_HEIGHT_PX and RATES[0] < timeline.mean_rate < RATES[1]
    if not expected or not hasattr(vs.core, "vivtc") or clip.num_frames < GROUP:
        return None
    size = {"blockx": BLOCK_PX, "blocky": BLOCK_PX, "mi": COMBED_PX}
    matched = _grey(clip).std.SetFieldBased(0).vivtc.VFM(1, mode=0, micout=1, **size)
    found = []
    for i in range(GROUPS):
        first = min(clip.num_frames - GROUP, (2 * i + 1) * clip.num_frames // (2 * GROUPS))
        try:
            found.append(_kind([_mics(matched, n) for n in range(first, first + GROUP)]))
        except vs.Error:  # an unreadable frame is an error where it is needed
            continue
    kinds = {kind: found.count(kind) for kind in ("film", "video")}
    most = max(kinds, key=kinds.__getitem__)
    return most if kinds[most] > 1 else None  # type: ignore[return-value]


def _mics(matched: vs.VideoNode, n: int) -> tuple[int, int, int]:
    """The largest number of combed pixels of a block with the field before, the frame's own and the one after."""
    with matched.get_frame(n) as frame:
        before, here, after = frame.props["VFMMics"][:3]
        return before, here, after


def _kind(mics: list[tuple[int, int, int]]) -> str | None:
    """The kind of a group of frames."""
    others = [min(before, after) for before, _, after in mics]
    own = [here for _, here, _ in mics]
    combed = [here > COMBED_PX and here > CLEAN * other for here, other in zip(own, others, strict=True)]
    clean = [other > COMBED_PX and other > CLEAN * here for here, other in zip(own, others, strict=True)]
    if 1 <= sum(combed) <= 3 and sum(clean) >= 2:
        return "film"
    both = [min(here, other) > COMBED_PX and other < 2 * here for here, other in zip(own, others, strict=True)]
    moving = sum(max(before, after) for before, _, after in mics) > FARTHER * sum(own)
    return "video" if moving and sum(both) >= GROUP - 1 else None


def takes(clip: vs.VideoNode) -> bool:
    """Whether the plugin takes the format."""
    fmt = clip.format
    return bool(fmt.bits_per_sample == 8 and fmt.color_family in (vs.YUV, vs.GRAY) and fmt.subsampling_w < 2)


def _grey(clip: vs.VideoNode) -> vs.VideoNode:
    """Luma, 8 bits."""
    if clip.format.color_family == vs.RGB:
        return clip.resize.Point(format=vs.GRAY8, matrix_s="709")
    return clip.std.ShufflePlanes(0, vs.GRAY).resize.Point(format=vs.GRAY8)
