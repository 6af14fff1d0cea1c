"""The public calls for VapourSynth: check, plan, build the output node; our errors to `vs.Error`."""

from __future__ import annotations

import functools
import logging
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import numpy as np
import torch
import vapoursynth as vs

from vsrife.checkpoints.download import download
from vsrife.checkpoints.weights import find_weights, named_version
from vsrife.engine.color import Colorimetry, PictureFormat
from vsrife.engine.engine import Engine, Picture, network
from vsrife.engine.transfer import Download
from vsrife.errors import RifeError, WeightsError
from vsrife.filters.arguments import Options, Ratio, Times, Timestamps, TimesUnit, check_options, parse_pair
from vsrife.filters.scenechange import (
    DURATION,
    NEXT,
    PREV,
    cut_clip,
    decision,
    duration,
    set_duration,
    set_marks,
    shifted,
    with_marks,
)
from vsrife.filters.worker import MAX_WAITING, Interrupt, Pipeline, Together
from vsrife.timing.schedule import Schedule

logger = logging.getLogger(__name__)

LOOKAHEAD = 1  # output frames computed before they are asked for, when access is sequential
PREPARED_FRAMES = LOOKAHEAD + 2  # source frames kept on each device
SEQUENTIAL_STEP = 4  # requests that advance by at most this many output frames count as sequential access
# A player's clip has no known end (mpv: 2**27 frames). There, nothing may depend on a later frame without need: the
# first frame that fails to arrive ends playback.
ENDLESS_FRAMES = 2**26
TABLE_PART = 4096  # frames selected by one node


class RifeKeywords(TypedDict, total=False):
    """The keywords of `RIFE` but `carry`."""

    fps: Ratio | None
    timestamps: Timestamps | None
    times: Times | None
    times_in: TimesUnit
    model: str | Path | None
    ensemble: bool
    tta: bool
    tta_temporal: bool
    device: str | torch.device | None
    precision: str | None


@overload
def RIFE(
    clip: vs.VideoNode,
    multi: Ratio = 2,
    scale: float = 1.0,
    sc_threshold: float | None = 0.15,
    *,
    carry: None = None,
    **keywords: Unpack[RifeKeywords],
) -> vs.VideoNode: ...
@overload
def RIFE(
    clip: vs.VideoNode,
    multi: Ratio = 2,
    scale: float = 1.0,
    sc_threshold: float | None = 0.15,
    *,
    carry: Sequence[vs.VideoNode],
    **keywords: Unpack[RifeKeywords],
) -> list[vs.VideoNode]: ...
def RIFE(
    clip: vs.VideoNode,
    multi: Ratio = 2,
    scale: float = 1.0,
    sc_threshold: float | None = 0.15,
    *,
    fps: Ratio | None = None,
    timestamps: Timestamps | None = None,
    times: Times | None = None,
    times_in: TimesUnit = "seconds",
    carry: Sequence[vs.VideoNode] | None = None,
    model: str | Path | None = None,
    ensemble: bool = False,
    tta: bool = False,
    tta_temporal: bool = False,
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> vs.VideoNode | list[vs.VideoNode]:
    """Raise the frame rate of a clip with RIFE.

    Args:
        clip: any constant format with 8 to 16 bit or float samples (YUV of any subsampling, GRAY, RGB), any size.
        multi: output frames per source frame, any rational of at least 1: 2, 2.5, "5/2", (5, 2), Fraction(5, 2).
            1 returns the clip itself.
        scale: flow scale, 0.25, 0.5, 1, 2 or 4; 0.5 finds larger motion at half the cost, for 4K.
        sc_threshold: scene change threshold, 0..1. `_SceneChangePrev` and `_SceneChangeNext` set by an earlier filter
            always decide; without them this is the mean luma difference that counts as a cut. None: frame props only.
            1.0: never a cut.
        fps: output rate instead of `multi`: 60, "60000/1001", (60000, 1001), 59.94.
        timestamps: times of the source frames for a source of variable rate, as a sequence of seconds or the path of
            a timecodes v2 file. Together with `fps` the output has a truly constant rate.
        times: a speed ramp instead of `multi`: the source time of every output frame, in any order; or a curve as
            points (output seconds, source time), straight in between; or the path of a CSV file of such points. The
            output has the rate `fps`, or that of the clip.
        times_in: unit of the source times, "seconds" from the first frame's or "frames".
        carry: further clips, such as alpha or depth, of any format and size, as long as the clip; they are moved by
            the same flow.
        model: a published version such as "4.26", the path of a weights file or of a model's folder, of any generation
            and of rife-ncnn-vulkan too, or None for the bundled weights.
        ensemble: average both time directions, for models that support it (up to 4.20, and 4.24); twice the time.
        tta: average eight orientations of the pictures (rife-ncnn-vulkan's spatial TTA); eight times the time.
        tta_temporal: average both time directions, for any model; twice the time.
        device: "cpu", "cuda", "cuda:1", "xpu", "mps"; None: the best present. Several, such as "cuda:0,1", take turns
            with the source frames.
        precision: "fp32", "fp16" or "bf16" of the convolutions, or "int8" on a CPU with VNNI; None: the best
            that is safe on the device.

    Returns:
        A clip of the same format and size; with `carry` a list of it and the carried clips. Frame n of `multi` = p/q
        shows source time n * q / p; there are ceil(frames * p / q) of them, those after the last source frame repeat
        it. Frames that fall on a source frame are that frame. Durations are exact: those of the source times q / p.

    Raises:
        vs.Error: an argument is wrong, with what came and what to do. Raised here, not at the first frame.
    """
    clips = _build(
        "RIFE", [clip, *(carry or [])], multi, scale, sc_threshold, fps=fps, timestamps=timestamps, times=times,
        times_in=times_in, model=model, ensemble=ensemble, tta=tta, tta_temporal=tta_temporal, device=device,
        precision=precision,
    )  # fmt: skip
    return clips[0] if carry is None else clips


def _build(name: str, clips: list[vs.VideoNode], *args: Any, **kwargs: Any) -> list[vs.VideoNode]:
    try:
        options = check_options(clips[0], *args, carry=clips[1:], **kwargs)
        if options.schedule is None:
            find_weights(options.network.model)  # a name that is wrong is wrong here as well
            return clips
        return _output(name, clips, options, options.schedule, [_engine(options, device) for device in options.devices])
    except RifeError as error:
        raise vs.Error(f"{name}: {error}") from error


def _engine(options: Options, device: torch.device) -> Engine:
    net = network(replace(options.network, device=device))
    return Engine(net, options.picture, PREPARED_FRAMES, options.carried, options.network.averaging)


def rife(
    clip: vs.VideoNode,
    device_index: int = 0,
    model: str | Path | None = None,
    auto_download: bool = False,
    factor_num: int = 2,
    factor_den: int = 1,
    fps_num: int | None = None,
    fps_den: int | None = None,
    scale: float = 1.0,
    ensemble: bool = False,
    sc: bool = False,
    sc_threshold: float | None = 0.15,
    trt: bool = False,
    trt_static_shape: bool = True,  # noqa: ARG001 - this and what follows is accepted for older scripts
    trt_min_shape: Sequence[int] = (128, 128),  # noqa: ARG001
    trt_opt_shape: Sequence[int] = (1920, 1080),  # noqa: ARG001
    trt_max_shape: Sequence[int] = (1920, 1080),  # noqa: ARG001
    trt_workspace_size: int = 0,  # noqa: ARG001
    trt_max_aux_streams: int | None = None,  # noqa: ARG001
    trt_optimization_level: int | None = None,  # noqa: ARG001
    trt_cache_dir: str | Path | None = None,  # noqa: ARG001
) -> vs.VideoNode:
    """`RIFE` with the keywords of the published vs-rife 5.7, so that older scripts run as they are.

    Args:
        clip: as in `RIFE`; older scripts pass RGBH or RGBS.
        device_index: number of the CUDA device; without CUDA the best device present is used.
        model: a published version or a path. None, the default here: the bundled weights.
        auto_download: fetch the model's weights when they are not here.
        factor_num, factor_den: output frames per source frame.
        fps_num, fps_den: output rate instead of the factor, when both are given.
        scale, ensemble: as in `RIFE`.
        sc: do not interpolate across scene changes.
        sc_threshold: with `sc`, as in `RIFE`.
        trt and all that begins with it: accepted and without effect; there are no engines to build.

    Raises:
        vs.Error: as `RIFE`.
    """
    if trt:
        _say_once("rife: trt and its options have no effect, the network runs as fast without engine files")
    try:
        if auto_download and model is not None:
            _fetch_missing(model)
        factor = parse_pair("factor", factor_num, factor_den)
        fps = None if fps_num is None or fps_den is None else parse_pair("fps", fps_num, fps_den)
    except RifeError as error:
        raise vs.Error(f"rife: {error}") from error
    (output,) = _build(
        "rife", [clip], 2 if fps else factor, scale, sc_threshold if sc else 1.0, fps=fps, timestamps=None, times=None,
        times_in="seconds", model=model, ensemble=ensemble, tta=False, tta_temporal=False,
        device=f"cuda:{device_index}" if torch.cuda.is_available() else None, precision=None,
    )  # fmt: skip
    return output


@functools.cache
def _say_once(text: str) -> None:
    """Warn on stderr through logging, once per process. Standard output belongs to the video."""
    logger.warning(text)


def _fetch_missing(model: str | Path) -> None:
    spec = named_version(model)
    if spec is None:
        return
    try:
        find_weights(model)
    except WeightsError:
        download(spec)


@dataclass(frozen=True, slots=True)
class _Request:
    """What the worker needs for one output frame."""

    left: int
    timestep: float
    lefts: Sequence[vs.VideoFrame]  # of the clip, then of the carried clips
    rights: Sequence[vs.VideoFrame]


def _output(
    name: str, clips: Sequence[vs.VideoNode], options: Options, schedule: Schedule, engines: Sequence[Engine]
) -> list[vs.VideoNode]:
    """Assemble the nodes. New frames come from a callback; originals stay out of Python."""
    clip, *carried = (clip[: schedule.source_frames] for clip in clips)
    endless = clip.num_frames >= ENDLESS_FRAMES
    cuts = cut_clip(clip, options.threshold, neighbours=not endless)

    select = functools.partial(_select, schedule=schedule)
    lefts, rights = [select(c) for c in (clip, *carried)], [select(shifted(c, 1)) for c in (clip, *carried)]
    left = lefts[0]
    cut_here = select(cuts)
    producer = _Producer(name, schedule, options, engines)
    gate = left.std.ModifyFrame([*lefts, *rights, cut_here], producer.push)
    before = select(shifted(cuts, -1))
    # With at least two output frames for each source frame, only the cut inside its own pair concerns a new frame.
    alone = endless or (schedule.step is not None and schedule.step <= Fraction(1, 2))
    neighbours = [] if alone else [before, select(shifted(cuts, 1))]
    # The gate's callback must not lead to the gate: nobody collects cycles that go through nodes.
    collect = functools.partial(producer.collect, gate=gate)
    # The carried clips' new frames travel as props of the clip's own: one estimation makes them all.
    bundle = left.std.ModifyFrame([gate, *lefts[1:], *rights, cut_here, *neighbours], collect)
    new = bundle.std.RemoveFrameProps([_carried_prop(i) for i in range(len(carried))]) if carried else bundle
    if endless:
        originals = left.std.RemoveFrameProps(NEXT)
    else:
        step = None if schedule.repeats else schedule.step
        originals = with_marks(left, [before, cut_here], producer.original_marks, step)
    output = _merge(originals, new, schedule, options.fps)
    return [output, *(_carried(i, extra, bundle, output, schedule) for i, extra in enumerate(lefts[1:]))]


def _carried(
    i: int, left: vs.VideoNode, bundle: vs.VideoNode, output: vs.VideoNode, schedule: Schedule
) -> vs.VideoNode:
    """The output of carried clip i, with the times of the clip's own output."""

    def take(n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:  # noqa: ARG001
        frame = f[1].props[_carried_prop(i)]
        assert isinstance(frame, vs.VideoFrame)
        return frame

    new = left.std.ModifyFrame([left, bundle], take)
    merged = _merge(left, new, schedule, Fraction(output.fps) or None)
    return merged.std.CopyFrameProps(output, props=[*DURATION, "_AbsoluteTime"])


def _carried_prop(i: int) -> str:
    return f"_vsrife_carried{i}"


def _select(clip: vs.VideoNode, schedule: Schedule) -> vs.VideoNode:
    """The clip at output rate: frame n is the source frame at or before output frame n. Native.

    Where the schedule repeats, durations are scaled by its step; else they are the source's.
    """
    cycle, lefts = schedule.cycle, [position.left for position in schedule.positions]
    if not schedule.repeats:
        return _by_table(clip, lefts)
    if cycle == 1:  # SelectEvery wants at least 2
        cycle, lefts = 2, lefts + [left + 1 for left in lefts]
    return clip.std.SelectEvery(cycle, lefts)


def _by_table(clip: vs.VideoNode, frames: Sequence[int]) -> vs.VideoNode:
    """The given frames of a clip in the given order, with their own durations. In parts: a list of all takes
    SelectEvery minutes for a film."""
    if clip.num_frames == 1:  # SelectEvery wants at least 2
        return vs.core.std.Loop(clip, len(frames))
    parts = [
        clip.std.SelectEvery(clip.num_frames, frames[i : i + TABLE_PART], modify_duration=False)
        for i in range(0, len(frames), TABLE_PART)
    ]
    return vs.core.std.Splice(parts)


def _merge(originals: vs.VideoNode, new: vs.VideoNode, schedule: Schedule, fps: Fraction | None) -> vs.VideoNode:
    """Take originals where an output frame is a source frame, new frames elsewhere. Native."""
    both = vs.core.std.Interleave([originals, new], modify_duration=False)
    picks = [2 * i + (position.t > 0) for i, position in enumerate(schedule.positions)]
    if schedule.repeats:
        return both.std.SelectEvery(2 * len(picks), picks, modify_duration=False)[: schedule.num_frames]
    output = _by_table(both, picks)
    if fps is None:
        return output
    rated = output.std.AssumeFPS(fpsnum=fps.numerator, fpsden=fps.denominator)
    # With a step each frame knows how long it lasts, which need not be what the rate says.
    return rated if schedule.step is None else rated.std.CopyFrameProps(output, props=list(DURATION))


class _Producer:
    """The callbacks of one filter: hand pairs to the workers, collect what they made.

    Each engine has a worker of its own. They take turns with the source frames, so that a frame is always made by the
    same engine, whichever way it is reached: not all devices compute the same to the last bit.

    VapourSynth enters the callbacks of one node one at a time, on changing threads.
    """

    def __init__(self, name: str, schedule: Schedule, options: Options, engines: Sequence[Engine]) -> None:
        self.name = name
        self.schedule = schedule
        self.options = options
        self._last: int | None = None
        self._interlaced_told = False
        self._formats = (engines[0].fmt, *engines[0].carried)
        self.pipelines = [_pipeline(engine) for engine in engines]
        # Pairs to have in hand, with this one. For one device that computes frame by frame the next frame is enough.
        self._pairs = len(engines) + 1 if max(len(engines), engines[0].at_once) > 1 else 0

    def _pipeline(self, n: int) -> Pipeline[_Request, Download | _Still]:
        """Of output frame n."""
        return self.pipelines[self.schedule[n].left % len(self.pipelines)]

    def push(self, n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        """The gate: never blocks."""
        lefts, rights, (cut,) = self._split(f)
        left = lefts[0]
        if left.props.get("_FieldBased") and not self._interlaced_told:
            self._interlaced_told = True
            logger.warning(
                "%s: source frame %d is interlaced, motion between its fields will show as combs; deinterlace first",
                self.name, self.schedule[n].left,
            )  # fmt: skip
        if not self._repeats(n, cut):
            self._pipeline(n).push(n, self._request(n, lefts, rights))
        return left

    def collect(self, n: int, f: list[vs.VideoFrame], gate: vs.VideoNode) -> vs.VideoFrame:
        """Deliver output frame n, which is not a source frame."""
        lefts, rights, (cut, *neighbours) = self._split(f)
        self._look_ahead(n, gate)
        if self._repeats(n, cut):
            position = self.schedule[n]
            results = [frame.copy() for frame in (rights if position.near > position.left else lefts)]
        else:
            results = [frame.copy() for frame in lefts]
            self._fill(n, results, lefts, rights)
        result, *carried = results
        self._set_times(n, result, lefts[0], rights[0])
        for i, frame in enumerate(carried):
            result.props[_carried_prop(i)] = frame
        before, after = (decision(frame) for frame in neighbours) if neighbours else (None, None)
        set_marks(result, self._marks(n, {-1: before, 0: decision(cut), 1: after}))
        return result

    def original_marks(self, n: int, decisions: Sequence[bool | None]) -> dict[str, bool | None]:
        """Scene change props of an output frame that is a source frame."""
        before, here = decisions
        return self._marks(n, {-1: before, 0: here})

    def _marks(self, n: int, cuts: dict[int, bool | None]) -> dict[str, bool | None]:
        """Only the last output frame before a cut and the first after it are marked.

        Args:
            n: output frame.
            cuts: decisions by the source frame they follow, relative to the left source frame of n.
        """
        left = self.schedule[n].left
        if all(cut is None for cut in cuts.values()):
            return {PREV: None, NEXT: None}

        def cut_at(boundary: int | None) -> bool:
            return boundary is not None and bool(cuts.get(boundary - left))

        return {PREV: cut_at(self.schedule.boundary(n)), NEXT: cut_at(self.schedule.boundary(n + 1))}

    def _repeats(self, n: int, cut: vs.VideoFrame) -> bool:
        """Whether output frame n is a source frame, by its time or because of a cut."""
        return self.schedule[n].t == 0 or (self.options.cuts and decision(cut) is True)

    def _split(self, f: list[vs.VideoFrame]) -> tuple[list[vs.VideoFrame], list[vs.VideoFrame], list[vs.VideoFrame]]:
        """The left and the right frames of all clips, and the rest."""
        count = len(self._formats)
        return f[:count], f[count : 2 * count], f[2 * count :]

    def _request(self, n: int, lefts: Sequence[vs.VideoFrame], rights: Sequence[vs.VideoFrame]) -> _Request:
        position = self.schedule[n]
        return _Request(position.left, float(position.t), lefts, rights)

    def _look_ahead(self, n: int, gate: vs.VideoNode) -> None:
        """Have the gate of the next new frame run, without waiting for it, when access is sequential."""
        last, self._last = self._last, n
        if last is None or not 0 < n - last <= SEQUENTIAL_STEP:
            return
        for m in self._following(n):
            if not self._pipeline(m).knows(m):
                gate.get_frame_async(m, _forget)

    def _following(self, n: int) -> Iterator[int]:
        """The new frames that are worth having in hand when frame n is asked for: the next, and those of `_pairs`."""
        last = self.schedule[n].left + self._pairs - 1
        for ahead in range(MAX_WAITING):
            following = self.schedule.next_computed(n)
            if following is None or (ahead >= LOOKAHEAD and self.schedule[following].left > last):
                return
            yield following
            n = following

    def _fill(
        self, n: int, results: Sequence[vs.VideoFrame], lefts: Sequence[vs.VideoFrame], rights: Sequence[vs.VideoFrame]
    ) -> None:
        position = self.schedule[n]
        try:
            found = self._pipeline(n).take(n, self._request(n, lefts, rights))
            planes = None if isinstance(found, _Still) else found.planes()
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise vs.Error(
                f"{self.name}: output frame {n} failed, between source frames {position.left} and "
                f"{position.left + 1}: {reason}"
            ) from (None if isinstance(error, RifeError) else error)  # the way to an unforeseen error is worth showing
        if planes is None:
            return
        targets = (frame[p] for frame, fmt in zip(results, self._formats, strict=True) for p in range(fmt.num_planes))
        for target, plane in zip(targets, planes, strict=True):
            torch.from_numpy(np.asarray(target)).copy_(plane)

    def _set_times(self, n: int, result: vs.VideoFrame, left: vs.VideoFrame, right: vs.VideoFrame) -> None:
        """Duration and absolute time, exact also where the output frame reaches into the next source frame."""
        step, t = self.schedule.step, self.schedule[n].t
        own, following = duration(left), duration(right)
        start, end = (frame.props.get("_AbsoluteTime") for frame in (left, right))
        if step is None or own is None:  # a constant rate, set on the whole clip; or nobody knows
            if start is not None and end is not None:
                result.props["_AbsoluteTime"] = start + float(t) * (end - start)
            return
        scaled = step if self.schedule.repeats else 1  # by the selection that the frames at hand come from
        share, rest = self.schedule.shares(n)
        set_duration(result, (own * share + (own if following is None else following) * rest) / scaled)
        if start is not None:
            result.props["_AbsoluteTime"] = start + float(own / scaled * self.schedule.phase(n))


def _pipeline(engine: Engine) -> Pipeline[_Request, Download | _Still]:
    """A worker for this engine. What it holds must not refer to the producer, which could then never be collected."""
    formats = (engine.fmt, *engine.carried)

    def together(requests: Sequence[_Request], interrupt: Interrupt) -> Sequence[Download | _Still]:
        """All of one pair."""
        first = requests[0]
        left, right = (
            _pictures(first.left + i, frames, formats) for i, frames in enumerate((first.lefts, first.rights))
        )
        found = engine.start(left, right, [request.timestep for request in requests], interrupt)
        return [_STILL] * len(requests) if found is None else found

    def alone(request: _Request, interrupt: Interrupt) -> Download | _Still:
        return together([request], interrupt)[0]

    group = Together(_left_of, together, engine.at_once) if engine.at_once > 1 else None
    pipeline: Pipeline[_Request, Download | _Still] = Pipeline(alone, group)
    close_on_destroy(pipeline)
    return pipeline


def _left_of(request: _Request) -> int:
    return request.left


def _pictures(key: int, frames: Sequence[vs.VideoFrame], formats: Sequence[PictureFormat]) -> Picture:
    """A frame of the clip and those of the carried clips for the engine."""
    picture, *carried = (
        Picture(key, [np.asarray(frame[p]) for p in range(fmt.num_planes)], Colorimetry.from_props(frame.props, fmt))
        for frame, fmt in zip(frames, formats, strict=True)
    )
    return replace(picture, carried=tuple(carried))


class _Still:
    """In place of planes: the pair is equal."""


_STILL = _Still()


def _forget(frame: vs.VideoFrame | None, _error: Exception | None) -> None:
    """Drop a frame that was asked for only to have its gate run. If it failed, whoever needs it will see the error."""
    if frame is not None:
        frame.close()


def close_on_destroy(pipeline: Pipeline[Any, Any]) -> None:
    """Stop the worker before VapourSynth takes its frames away, without keeping the pipeline alive until then."""
    reference = weakref.ref(pipeline)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    vs.register_on_destroy(close)  # for good: to take it back needs this environment, and what stays is tiny
