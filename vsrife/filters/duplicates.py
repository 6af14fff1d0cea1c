"""Finds source frames that repeat the one before, and says what to show in their place.

Frame props decide where an earlier filter has set them; without props, the filter compares blocks of luma.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import vapoursynth as vs
import vsutil

from vsrife.filters.frames import duration, integer, named_errors, props_only, shifted
from vsrife.filters.scenechange import decision
from vsrife.timing.duplicates import EVEN_REACH, Anchors, Duplicates, Link, Window, even, fill, fill_reach
from vsrife.timing.parsing import runs
from vsrife.timing.schedule import Schedule

DUPLICATE = "_Duplicate"  # prop of frames that repeat the one before: 1, or 0 for one that does not
# Props that VDecimate(dryrun=1) sets: whether it would drop a frame, which is one of every cycle; and the largest
# difference of a block from the frame before, known as DMetric, to which its default threshold is applied.
DROPPED, BLOCK_DIFFERENCE = "VDecimateDrop", "VDecimateMaxBlockDiff"
REPEAT_DIFFERENCE = 0.011 * 32 * 32  # the threshold for its default blocks, in shares of the range
DAMAGED = "_Damaged"
MAX_DAMAGED = 4  # frames in a row that the prop marks; listed ones may be any number
BLOCK_PX = 8
# A frame repeats the one before if no block changes by more than coding noise. The change of a block is the mean
# absolute one of its luma, in steps of 8 bits. The noise may be a share of the largest change around, where something
# moves, because coarse coding is noisy there; but never above the second bound: a moving mouth is no noise.
NOISE_SHARE = 0.12
MIN_NOISE, MAX_NOISE = 2.0, 12.0

_LINK, _LASTS, LINKS, _DURATIONS = (f"_vsrife_{name}" for name in ("link", "lasts", "links", "durations"))
_LEFT, _RIGHT, _T = (f"_vsrife_{name}" for name in ("left", "right", "t"))
_UNKNOWN = (0, 0)  # numerator and denominator of a duration


@dataclass(frozen=True, slots=True)
class Repair:
    """What to do about repeated and damaged source frames.

    Attributes:
        mode: what becomes of repeated frames.
        max_repeats: repeats in a row at most; a longer run is a pause and stays.
        prop: further prop that marks a repeated frame.
        replaced: numbers of the damaged frames, increasing; None: the prop `_Damaged` means nothing either.
        times: seconds of the source frames and of their end, where they are given; else frame props say how long each
            lasts.
    """

    mode: Duplicates
    max_repeats: int
    prop: str | None
    replaced: Sequence[int] | None
    times: Sequence[Fraction] | None

    @property
    def reach(self) -> int:
        """Source frames that the decision about one looks at, before and after it."""
        longest = max((last - first + 1 for first, last in runs(self.replaced or ())), default=0)
        reach = fill_reach(self.max_repeats, 0 if self.replaced is None else max(longest, MAX_DAMAGED))
        return max(reach, EVEN_REACH) if self.mode == "even" else reach

    def anchors(self, schedule: Schedule, n: int, links: Sequence[int], lasts: Sequence[int]) -> Anchors:
        """What output frame n shows.

        Args:
            schedule: of the output.
            n: output frame.
            links: around its source frame.
            lasts: numerators and denominators of the durations of the same frames, as their props say.
        """
        position = schedule[n]
        durations: list[Fraction | None]
        if self.times is None:
            pairs = zip(lasts[::2], lasts[1::2], strict=True)
            durations = [Fraction(numerator, denominator) if denominator else None for numerator, denominator in pairs]
        else:
            first = position.left - len(links) // 2 + 1
            durations = [self._lasts(k) for k in range(first, first + len(links))]
        window = Window(position.left, [Link(link) for link in links], durations)
        return (even if self.mode == "even" else fill)(position, window, self.max_repeats)

    def _lasts(self, k: int) -> Fraction | None:
        assert self.times is not None
        return self.times[k + 1] - self.times[k] if 0 <= k < len(self.times) - 1 else None


def frozen(clip: vs.VideoNode, replaced: Sequence[int]) -> vs.VideoNode:
    """The clip with the last good frame in place of listed ones, which are never requested."""
    spans = runs(replaced)
    if not spans:
        return clip
    good = [first - 1 if first else last + 1 for first, last in spans]
    return clip.std.FreezeFrames([first for first, _ in spans], [last for _, last in spans], good)


def undamaged(clip: vs.VideoNode, marks: vs.VideoNode) -> vs.VideoNode:
    """The clip with the last good frame in place of each frame whose prop `_Damaged` in `marks` is set."""
    result = clip
    for _ in range(MAX_DAMAGED):
        result = _unless_damaged(clip, shifted(result, -1), marks)
    return result


def _unless_damaged(clip: vs.VideoNode, instead: vs.VideoNode, marks: vs.VideoNode) -> vs.VideoNode:
    def choose(n: int, f: vs.VideoFrame) -> vs.VideoNode:  # noqa: ARG001
        return instead if f.props.get(DAMAGED) else clip

    return clip.std.FrameEval(choose, prop_src=marks, clip_src=[clip, instead])


def link_windows(props: vs.VideoNode, restored: vs.VideoNode, cuts: vs.VideoNode, repair: Repair) -> vs.VideoNode:
    """A tiny clip of which frame n carries the links around source frame n.

    A frame that cannot be read makes no other one's links fail: nothing is known there.

    Args:
        props: of the source, without listed frames.
        restored: the source without damage, which is compared.
        cuts: cut clip of `restored`.
        repair: what counts as a repeat, and how far to look.
    """
    measured = repair.mode != "keep"
    listed = frozenset(repair.replaced or ())
    first_good = _first_good(listed)
    marks = (DUPLICATE, repair.prop) if repair.prop else (DUPLICATE,)
    fmt = restored.format
    threshold = REPEAT_DIFFERENCE * ((1 << fmt.bits_per_sample) - 1) if fmt.sample_type == vs.INTEGER else None

    def find_link(n: int, f: list[vs.VideoFrame]) -> Link:
        here, cut, *changes = f
        if n == 0:
            return Link.END
        if n in listed or (repair.replaced is not None and here.props.get(DAMAGED)):
            return Link.REPLACED
        if n == first_good:
            return Link.MOTION
        if decision(cut):
            return Link.CUT
        if not measured:
            return Link.MOTION
        repeats = _marked(here.props, marks, threshold)
        if repeats is None:
            repeats = is_repeat(*(change_of(frame) for frame in changes))
        return Link.REPEAT if repeats else Link.MOTION

    def link(n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        result = f[0].copy()
        with named_errors(f"RIFE: source frame {n}"):
            result.props[_LINK] = int(find_link(n, f))
            seconds = duration(f[0])
            result.props[_LASTS] = _UNKNOWN if seconds is None else seconds.as_integer_ratio()
        return result

    inputs = [props, shifted(cuts, -1)]
    if measured:
        changes = _guarded(block_changes(restored))
        far = repair.max_repeats + 1  # as far as the next motion
        inputs += [changes, *(shifted(changes, by) for by in range(-far, far + 1) if by)]
    links = _guarded(props.std.ModifyFrame(inputs, link))

    def window(n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:  # noqa: ARG001
        result = f[0].copy()
        result.props[LINKS] = [int(frame.props.get(_LINK, Link.END)) for frame in f]
        result.props[_DURATIONS] = [part for frame in f for part in frame.props.get(_LASTS, _UNKNOWN)]
        return result

    reach = repair.reach
    # Beyond the end a shifted clip repeats its last frame.
    ended = links.std.BlankClip(length=reach, keep=True).std.SetFrameProps(**{_LINK: int(Link.END)})
    longer = ended + links + ended
    around = [longer[reach + by : reach + by + links.num_frames] for by in range(1 - reach, reach + 1)]
    return links.std.ModifyFrame(around, window)


def is_repeat(change: float | None, *around: float | None) -> bool:
    """Whether a change from the frame before is coding noise, given the changes of the frames around."""
    if change is None:
        return False
    largest = max((each for each in around if each is not None), default=0.0)
    return change <= min(MAX_NOISE, max(MIN_NOISE, NOISE_SHARE * largest))


def _first_good(replaced: Collection[int]) -> int | None:
    """The first frame after replaced ones that the clip begins with; it is their stand-in, not their repeat."""
    n = 0
    while n in replaced:
        n += 1
    return n or None


def _marked(props: Mapping[str, Any], marks: Sequence[str], threshold: float | None) -> bool | None:
    """What the props say: marks, else VDecimate's metric up to a threshold, else what it would drop."""
    values = [value for key in marks if (value := integer(props, key)) is not None]
    if values:
        return any(values)
    difference = integer(props, BLOCK_DIFFERENCE)
    if difference is not None and threshold is not None:
        return difference <= threshold
    dropped = integer(props, DROPPED)
    return None if dropped is None else bool(dropped)


def _guarded(clip: vs.VideoNode) -> vs.VideoNode:
    """Tiny frames, empty where they depend on an unreadable source frame."""

    def read(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        try:
            return clip.get_frame(n)
        except vs.Error as error:
            if "RIFE: source frame" in str(error):
                raise
            return f

    blank = clip.std.BlankClip(keep=True)
    return blank.std.ModifyFrame([blank], read)


def block_changes(clip: vs.VideoNode) -> vs.VideoNode:
    """A tiny clip of which frame n carries the largest change of a block from the frame before; read by `change_of`."""
    clip = clip.std.SetFieldBased(0).std.RemoveFrameProps(["_Matrix", "_Primaries", "_Transfer", "_ChromaLocation"])
    if clip.format.color_family == vs.RGB:
        luma = clip.resize.Point(format=vs.GRAYS, matrix_s="709")
    else:
        luma = vsutil.get_y(clip).resize.Point(format=vs.GRAYS)
    size = (max(1, clip.width // BLOCK_PX), max(1, clip.height // BLOCK_PX))
    change = vs.core.std.Expr([luma, shifted(luma, -1)], "x y - abs").resize.Bilinear(*size)
    return props_only(change.std.PlaneStats())


def change_of(frame: vs.VideoFrame) -> float | None:
    """The largest change of a block, in steps of 8 bits; None where it is unknown."""
    value = frame.props.get("PlaneStatsMax")
    return 255 * value if isinstance(value, float) else None


def planned(windows: vs.VideoNode, schedule: Schedule, repair: Repair) -> vs.VideoNode:
    """At output rate: what each output frame shows, as props.

    Args:
        windows: link windows at output rate.
        schedule: of the output.
        repair: what to do about repeats.
    """

    def plan(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        links, lasts = f.props[LINKS], f.props[_DURATIONS]
        assert isinstance(links, list)
        assert isinstance(lasts, list)
        anchors = repair.anchors(schedule, n, links, lasts)
        result = f.copy()
        result.props[_LEFT], result.props[_RIGHT], result.props[_T] = anchors.left, anchors.right, float(anchors.t)
        return result

    return windows.std.ModifyFrame([windows], plan)


def read_plan(frame: vs.VideoFrame) -> tuple[int, int, float]:
    """Left and right source frame and the share of the way between them."""
    return frame.props[_LEFT], frame.props[_RIGHT], frame.props[_T]


def anchored(
    clip: vs.VideoNode, plan: vs.VideoNode, schedule: Schedule, at_output_rate: Callable[[vs.VideoNode], vs.VideoNode]
) -> tuple[vs.VideoNode, vs.VideoNode]:
    """The clip at output rate, twice: the left and the right frame of what the plan says."""
    nodes: dict[int, vs.VideoNode] = {}

    def choose(n: int, f: vs.VideoFrame, side: int) -> vs.VideoNode:
        left, right, _ = read_plan(f)
        by = (right if side else left) - schedule[n].left
        if by not in nodes:
            nodes[by] = at_output_rate(shifted(clip, by))
        return nodes[by]

    template = at_output_rate(clip)

    def side(which: int) -> vs.VideoNode:
        return template.std.FrameEval(lambda n, f: choose(n, f, which), prop_src=plan, clip_src=[clip])

    return side(0), side(1)


def unless_new(template: vs.VideoNode, kept: vs.VideoNode, new: vs.VideoNode, plan: vs.VideoNode) -> vs.VideoNode:
    """New frames where the plan says so, kept ones elsewhere; rate and length are those of `template`."""

    def choose(n: int, f: vs.VideoFrame) -> vs.VideoNode:  # noqa: ARG001
        return new if read_plan(f)[2] else kept

    return template.std.FrameEval(choose, prop_src=plan, clip_src=[kept, new])
