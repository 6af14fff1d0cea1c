"""`RIFE()`: check the arguments, load the networks, connect the nodes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Hashable, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Unpack, overload

import torch
import vapoursynth as vs

from vsrife.checkpoints.finding import find_weights
from vsrife.engine.engine import Engine
from vsrife.engine.keywords import ModelKeywords
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.errors import ClipError, RifeError, shown
from vsrife.filters.arguments import OldKeywords, Options, Realtime, check_options, translated
from vsrife.filters.duplicates import Repair, anchored, frozen, link_windows, planned, undamaged, unless_new
from vsrife.filters.frames import ABSOLUTE_TIME, DURATION, NEXT, PREV, props_only, shifted
from vsrife.filters.nodes import interleave, select, short_durations, with_marks
from vsrife.filters.producer import PREPARED_FRAMES, Producer, carried_prop
from vsrife.filters.realtime import Playback, ladder, prepare
from vsrife.filters.scenechange import cut_clip
from vsrife.timing.duplicates import Duplicates
from vsrife.timing.parsing import Ratio, Times, Timestamps, TimesUnit
from vsrife.timing.schedule import ENDLESS_FRAMES, Schedule

logger = logging.getLogger(__name__)

_LINES = 540  # of a picture for each pixel of a letter's strokes
_SMALL = 128  # width and height of pictures that only load code
_prepared: set[Hashable] = set()  # what playbacks have loaded code for


class RifeKeywords(OldKeywords, ModelKeywords, total=False):
    """The keywords of `RIFE` except `carry`."""

    fps: Ratio | None
    timestamps: Timestamps | None
    times: Times | None
    times_in: TimesUnit
    realtime: Realtime
    duplicates: Duplicates
    max_repeats: int
    duplicate_prop: str | None
    replace: str | Sequence[int] | None


@overload
def RIFE(
    clip: vs.VideoNode,
    multi: Ratio | None = None,
    scale: float = 1.0,
    sc_threshold: float | None = 0.15,
    *,
    carry: None = None,
    **keywords: Unpack[RifeKeywords],
) -> vs.VideoNode: ...
@overload
def RIFE(
    clip: vs.VideoNode,
    multi: Ratio | None = None,
    scale: float = 1.0,
    sc_threshold: float | None = 0.15,
    *,
    carry: Sequence[vs.VideoNode],
    **keywords: Unpack[RifeKeywords],
) -> list[vs.VideoNode]: ...
def RIFE(
    clip: vs.VideoNode,
    multi: Ratio | None = None,
    scale: float = 1.0,
    sc_threshold: float | None = 0.15,
    *,
    fps: Ratio | None = None,
    timestamps: Timestamps | None = None,
    times: Times | None = None,
    times_in: TimesUnit = "seconds",
    carry: Sequence[vs.VideoNode] | None = None,
    realtime: Realtime = False,
    duplicates: Duplicates = "keep",
    max_repeats: int = 3,
    duplicate_prop: str | None = None,
    replace: str | Sequence[int] | None = None,
    model: str | Path | None = None,
    ensemble: bool = False,
    tta: bool = False,
    tta_temporal: bool = False,
    device: str | torch.device | None = None,
    precision: str | None = None,
    **old: Unpack[OldKeywords],
) -> vs.VideoNode | list[vs.VideoNode]:
    """Raise the frame rate of a clip with RIFE.

    Args:
        clip: any constant format with 8 to 16 bit or float samples (YUV of any subsampling, GRAY, RGB), any size.
        multi: output frames per source frame, any rational of at least 1: 2, 2.5, "5/2", (5, 2), Fraction(5, 2).
            1 returns the clip itself. Default 2, unless `fps` or `times` is given.
        scale: flow scale, 0.25, 0.5, 1, 2 or 4; 0.5 finds larger motion at half the cost, for 4K. Default 1.
        sc_threshold: scene change threshold, 0..1. `_SceneChangePrev` and `_SceneChangeNext` set by an earlier filter
            always decide; without them this is the mean luma difference that counts as a cut. None: frame props only.
            1.0: ignore cuts. Default 0.15.
        fps: output rate instead of `multi`: 60, "60000/1001", (60000, 1001), 59.94.
        timestamps: times of the source frames for a source of variable rate, as a sequence of seconds or the path of
            a timecodes v2 file. Together with `fps` the output has a truly constant rate.
        times: a speed ramp instead of `multi`: the source time of every output frame, in any order; or a curve as
            points (output seconds, source time), straight in between; or the path of a CSV file of such points. The
            output has the rate `fps`, by default that of the clip.
        times_in: unit of the source times, "seconds" from the first frame's or "frames". Default "seconds".
        carry: further clips, such as alpha or depth, of any format and size, as long as the clip; they are moved by
            the same flow.
        realtime: for players: show the nearest source frame where a new one would be late, and lower flow scale, model
            and number of new frames until the machine keeps up. Frames then depend on the machine's speed, and new
            ones carry the prop `RifeQuality`: 0 for the best network, -1 for a source frame. "overlay" writes
            statistics into the picture. Default False: every frame is interpolated, and the same in every run.
        duplicates: "keep" (default) shows frames that repeat the one before as they are. "fill" replaces them by motion
            between the distinct frames around them: A A B B becomes A, halfway, B, halfway. "even" besides spreads the
            distinct frames of a regular rhythm evenly in time: the four of A B C C D over five frames. The prop
            `_Duplicate` and those of `VDecimate` decide where they are set; otherwise a frame repeats the one before if
            no block of 8x8 pixels changes by more than coding noise. Never across a cut. Also with `multi` = 1, and
            with variable rates, where new frames follow the durations of the source frames.
        max_repeats: repeats in a row that `duplicates` replaces, at least 1; a longer run is a pause and stays.
            Default 3. The filter looks 2 * `max_repeats` + 3 source frames ahead, with "even" `max_repeats` + 14.
        duplicate_prop: name of a further frame prop that marks a repeated frame with 1 and others with 0.
        replace: numbers of damaged source frames, as a sequence or as in "120,455-456", to be made from their
            neighbours; they are never read. With `replace`, also an empty one, up to four frames in a row with the
            prop `_Damaged` are replaced as well.
        model: a published version such as "4.26", or the path of a weights file or of a model's folder, of any
            generation, also of rife-ncnn-vulkan. None, the default: the bundled weights.
        ensemble: average both time directions, for models that support it (up to 4.20, and 4.24); twice the time.
            Default False.
        tta: average eight orientations of the pictures (rife-ncnn-vulkan's spatial TTA); eight times the time.
            Default False.
        tta_temporal: average both time directions, for any model; twice the time. Default False.
        device: "cpu", "cuda", "cuda:1", "xpu", "mps". Several, such as "cuda:0,1", take turns with the source frames.
            None, the default, or "auto": the best one present.
        precision: "fp32", "fp16" or "bf16" of the convolutions, or "int8" on a CPU with VNNI. None, the default: the
            fastest of full quality on the device, which is "int8" for bundled models alone.
        old: `device_type`, `device_index`, `fp16` and `model_ver` mean what they meant in vs-rife 1.x and 2.x.

    Returns:
        A clip of the same format and size; with `carry` a list of it and the carried clips. Frame n of `multi` = p/q
        shows source time n * q / p; there are ceil(frames * p / q) of them, those after the last source frame repeat
        it. Output frames that coincide with a source frame are that frame, unmodified. Durations are exact: those of
        the source times q / p.

    Raises:
        vs.Error: an argument is out of range or contradicts another one, the format cannot be used, or the weights or
            the device are missing. Raised here, not at the first frame.
    """
    try:
        carried = () if carry is None else carry
        if not (isinstance(carried, Sequence) and all(isinstance(each, vs.VideoNode) for each in carried)):
            raise ClipError(f"carry must be a list of clips, got {shown(carry)}; write it like carry=[alpha]")
        if old:
            warn_once(f"RIFE: {', '.join(old)}: keywords of vs-rife 1.x and 2.x; use device=, precision= and model=")
            model, device, precision = translated(old, model, device, precision)
    except RifeError as error:
        raise vs.Error(f"RIFE: {error}") from error
    clips = build(
        "RIFE", [clip, *carried], multi, sc_threshold, fps=fps, timestamps=timestamps, times=times,
        times_in=times_in, realtime=realtime, duplicates=duplicates, max_repeats=max_repeats,
        duplicate_prop=duplicate_prop, replace=replace, scale=scale, model=model, ensemble=ensemble, tta=tta,
        tta_temporal=tta_temporal, device=device, precision=precision,
    )  # fmt: skip
    return clips[0] if carry is None else clips


@functools.cache
def warn_once(text: str) -> None:
    """Warn through logging, once per process. Standard output belongs to the video."""
    logger.warning(text)


def build(name: str, clips: list[vs.VideoNode], *args: Any, **kwargs: Any) -> list[vs.VideoNode]:
    """The output clips of a call.

    Args:
        name: of the public function, for errors.
        clips: the clip, then the carried clips.
        args, kwargs: as for `check_options`.

    Raises:
        vs.Error: as `RIFE`.
    """
    try:
        options = check_options(clips[0], *args, carry=clips[1:], **kwargs)
        if options.schedule is None:
            find_weights(options.networks[0].model)  # a wrong name is an error even when nothing is interpolated
            return clips
        engines = [_engine(options, each) for each in options.networks]
        if options.repair is not None:
            return _repaired_nodes(name, clips, options, options.schedule, engines, options.repair)
        return _nodes(name, clips, options, options.schedule, engines)
    except RifeError as error:
        raise vs.Error(f"{name}: {error}") from error


def _engine(options: Options, chosen: NetworkOptions) -> Engine:
    return Engine(network(chosen), options.picture, PREPARED_FRAMES, options.carried, chosen.averaging)


def _playback(options: Options, best: Engine) -> Playback:
    networks = ladder(options.networks[0])
    best_network = networks[0]
    kind = (best_network.device, best_network.dtype, replace(options.picture, width=0, height=0))
    if kind not in _prepared:
        small = replace(options.picture, width=_SMALL, height=_SMALL)
        prepare(_engine(replace(options, picture=small, carried=()), best_network))
        _prepared.add(kind)
    return Playback(networks, functools.partial(_engine, options), best, (networks, options.picture))


def _with_overlay(clip: vs.VideoNode, playback: Playback) -> vs.VideoNode:
    """Write statistics into the picture, in letters that grow with it."""
    scale = max(1, round(clip.height / _LINES))
    return clip.std.FrameEval(lambda n: clip.text.Text(playback.status(), scale=scale))  # noqa: ARG005


def _nodes(
    name: str, clips: Sequence[vs.VideoNode], options: Options, schedule: Schedule, engines: Sequence[Engine]
) -> list[vs.VideoNode]:
    """Connect the nodes. New frames come from a callback; originals stay out of Python."""
    clip, *carried = (clip[: schedule.source_frames] for clip in clips)
    # In a player's clip nothing may depend on a later frame without need: the first frame that fails ends playback.
    endless = clip.num_frames >= ENDLESS_FRAMES
    cuts = cut_clip(clip, options.threshold, reach=0 if endless else 1)

    at_output_rate = functools.partial(select, schedule=schedule)
    lefts = [at_output_rate(each) for each in (clip, *carried)]
    rights = [at_output_rate(shifted(each, 1)) for each in (clip, *carried)]
    left = lefts[0]
    cut_here = at_output_rate(cuts)
    playback = _playback(options, engines[0]) if options.realtime else None
    producer = Producer(name, schedule, options, engines, playback)
    gate = left.std.ModifyFrame([*lefts, *rights, cut_here], producer.push)
    before = at_output_rate(shifted(cuts, -1))
    # With at least two output frames per source frame, only the cut within its own pair concerns a new frame.
    alone = endless or (schedule.step is not None and schedule.step <= Fraction(1, 2))
    neighbours = [] if alone else [before, at_output_rate(shifted(cuts, 1))]
    # The gate's callback must not refer to the gate: cycles through nodes are never collected.
    collect = functools.partial(producer.collect, gate=gate)
    # The carried clips' new frames travel as props of the clip's own: one estimation makes them all.
    bundle = left.std.ModifyFrame([gate, *lefts[1:], *rights, cut_here, *neighbours], collect)
    new = bundle.std.RemoveFrameProps([carried_prop(i) for i in range(len(carried))]) if carried else bundle
    if endless:
        originals = left.std.RemoveFrameProps(NEXT)
    else:
        originals = with_marks(
            left, [before, cut_here], producer.original_marks, None if schedule.repeats else schedule.step
        )
    output = interleave(originals, new, schedule, options.fps)
    if endless:
        output = short_durations(output, schedule)
    if playback is not None and options.realtime == "overlay":
        output = _with_overlay(output, playback)
    return [output, *(_carried(i, extra, bundle, output, schedule) for i, extra in enumerate(lefts[1:]))]


def _repaired_nodes(
    name: str,
    clips: Sequence[vs.VideoNode],
    options: Options,
    schedule: Schedule,
    engines: Sequence[Engine],
    repair: Repair,
) -> list[vs.VideoNode]:
    """Connect the nodes where repeated or damaged frames give way to new ones.

    A plan says which source frames an output frame lies between; they are chosen frame by frame. Times and scene change
    props are made apart, on one pixel, as if nothing were repaired.
    """
    readable = [frozen(clip[: schedule.source_frames], repair.replaced or ()) for clip in clips]
    endless = readable[0].num_frames >= ENDLESS_FRAMES
    marks = props_only(readable[0])
    restored = readable if repair.replaced is None else [undamaged(clip, marks) for clip in readable]
    cuts = cut_clip(restored[0], options.threshold, reach=0 if endless else repair.max_repeats + 1)
    at_output_rate = functools.partial(select, schedule=schedule)
    windows = link_windows(marks, restored[0], cuts if options.cuts else marks.std.RemoveFrameProps(NEXT), repair)
    plan = planned(at_output_rate(windows), schedule, repair)
    pairs = [anchored(clip, plan, schedule, at_output_rate) for clip in restored]
    lefts, rights = [left for left, _ in pairs], [right for _, right in pairs]
    playback = _playback(options, engines[0]) if options.realtime else None
    producer = Producer(name, schedule, options, engines, playback, planned=True)
    gate = lefts[0].std.ModifyFrame([*lefts, *rights, plan], producer.push)
    collect = functools.partial(producer.collect, gate=gate)  # the gate's callback must not refer to the gate
    bundle = lefts[0].std.ModifyFrame([gate, *lefts[1:], *rights, plan], collect)

    props = props_only(restored[0])
    left, right = at_output_rate(props), at_output_rate(shifted(props, 1))
    around = [at_output_rate(shifted(cuts, by)) for by in ((0, -1) if endless else (0, -1, 1))]
    step = None if schedule.repeats else schedule.step
    originals = with_marks(left, [around[1], around[0]], producer.original_marks, step)
    news = left.std.ModifyFrame([left, right, *(around[:1] if endless else around)], producer.props_of_new)
    times = interleave(originals, news, schedule, options.fps)
    if endless:
        times = short_durations(times, schedule)
    rate = {"length": times.num_frames, "fpsnum": times.fps_num, "fpsden": times.fps_den or 1}
    carried_props = [carried_prop(i) for i in range(len(clips) - 1)]
    outputs = []
    for kept, prop in zip(lefts, (None, *carried_props), strict=True):
        new = kept.std.ModifyFrame([kept, bundle], functools.partial(_take, prop=prop)) if prop else bundle
        chosen = unless_new(kept.std.BlankClip(**rate, keep=True), kept, new, plan)
        if carried_props:
            chosen = chosen.std.RemoveFrameProps(carried_props)
        outputs.append(chosen.std.CopyFrameProps(times, props=[PREV, NEXT, *DURATION, ABSOLUTE_TIME]))
    if playback is not None and options.realtime == "overlay":
        outputs[0] = _with_overlay(outputs[0], playback)
    return outputs


def _carried(
    i: int, left: vs.VideoNode, bundle: vs.VideoNode, output: vs.VideoNode, schedule: Schedule
) -> vs.VideoNode:
    """The output of carried clip i, with the times of the clip's own output."""

    new = left.std.ModifyFrame([left, bundle], functools.partial(_take, prop=carried_prop(i)))
    merged = interleave(left, new, schedule, Fraction(output.fps) or None)
    return merged.std.CopyFrameProps(output, props=[*DURATION, ABSOLUTE_TIME])


def _take(n: int, f: list[vs.VideoFrame], prop: str) -> vs.VideoFrame:  # noqa: ARG001
    """The frame that the second clip's frame carries."""
    frame = f[1].props[prop]
    assert isinstance(frame, vs.VideoFrame)
    return frame
