"""Callbacks of the filter: submit pairs to the workers, collect frames."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import vapoursynth as vs

from vsrife.engine.engine import Engine
from vsrife.engine.formats import PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Download
from vsrife.errors import RifeError
from vsrife.filters.arguments import Options
from vsrife.filters.duplicates import read_plan
from vsrife.filters.frames import (
    ABSOLUTE_TIME,
    NEXT,
    PREV,
    absolute_time,
    duration,
    named_errors,
    picture_of,
    set_duration,
    set_marks,
    write_planes,
)
from vsrife.filters.realtime import QUALITY, Playback
from vsrife.filters.scenechange import decision
from vsrife.filters.worker import MAX_WAITING, Pipeline
from vsrife.networks.cancellation import Cancellation
from vsrife.timing.schedule import Schedule

logger = logging.getLogger(__name__)

LOOKAHEAD = 1  # output frames computed before they are requested, when access is sequential
PREPARED_FRAMES = LOOKAHEAD + 2  # source frames kept on each device
_UNKNOWN_DURATION = Fraction(1, 48)  # of an output frame, for real-time playback
SEQUENTIAL_STEP = 4  # requests that advance by at most this many output frames count as sequential access


class _Anchors(NamedTuple):
    """The source frames that an output frame is made from; t = 0: `left` itself."""

    left: int
    right: int
    t: float


@dataclass(frozen=True, slots=True)
class _Request:
    """The input of one new frame.

    Attributes:
        left, right: source frame numbers.
        timestep: share of the way between them, in (0, 1).
        lefts, rights: frames of the clip, then of the carried clips.
        quality: which of the networks of a real-time playback to run.
    """

    left: int
    right: int
    timestep: float
    lefts: Sequence[vs.VideoFrame]
    rights: Sequence[vs.VideoFrame]
    quality: int = 0


def carried_prop(i: int) -> str:
    """The prop in which the new frame of carried clip i travels with that of the clip."""
    return f"_vsrife_carried{i}"


class Producer:
    """The callbacks of one filter: submit pairs to the workers, collect the results.

    Each engine has a worker of its own, and source frames are dealt out to them by number, so that a frame is always
    computed by the same engine, however it is reached: devices may differ in the last bit.

    VapourSynth enters the callbacks of one node one at a time, on changing threads.
    """

    def __init__(
        self,
        name: str,
        schedule: Schedule,
        options: Options,
        engines: Sequence[Engine],
        playback: Playback | None = None,
        *,
        planned: bool = False,
    ) -> None:
        self.name = name
        self.schedule = schedule
        self.options = options
        self.planned = planned  # by a clip that knows of duplicates; else by the schedule and the cuts
        self._playback = playback
        self._last: int | None = None
        self._warned_interlaced = False
        self._count = 1 + len(engines[0].carried)
        self.pipelines = [_pipeline(engine, playback) for engine in engines]
        # With several devices, this many pairs of source frames are kept in work; for one the next frame is enough.
        self._pairs = len(engines) + 1 if len(engines) > 1 else 0

    def _pipeline(self, n: int) -> Pipeline[_Request, Download | _Still]:
        return self.pipelines[self.schedule[n].left % len(self.pipelines)]

    def push(self, n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        """Submit the pair of output frame n, without blocking. The gate's callback."""
        lefts, rights, (decided,) = self._split(f)
        left = lefts[0]
        if left.props.get("_FieldBased") and not self._warned_interlaced:
            self._warned_interlaced = True
            logger.warning(
                "%s: source frame %d is interlaced, motion between its fields will show as combs; deinterlace first",
                self.name, self.schedule[n].left,
            )  # fmt: skip
        anchors = self._anchors(n, decided)
        if anchors.t and (quality := self._quality(n)) is not None:
            self._pipeline(n).push(n, _Request(*anchors, lefts, rights, quality))
        return left

    def collect(self, n: int, f: list[vs.VideoFrame], gate: vs.VideoNode) -> vs.VideoFrame:
        """Output frame n, which is not a source frame.

        Raises:
            vs.Error: it cannot be computed, or a prop of its source frames is of a wrong type.
        """
        lefts, rights, (decided, *neighbours) = self._split(f)
        self._look_ahead(n, gate)
        timeout = self._timeout(n, lefts[0])
        anchors = self._anchors(n, decided)
        results = self._interpolated(n, anchors, lefts, rights, timeout) if anchors.t else None
        shown = None if results is None else self._quality(n)
        if results is None:
            results = [frame.copy() for frame in (rights if self._nearer_right(n, anchors) else lefts)]
        result, *carried = results
        for i, frame in enumerate(carried):
            result.props[carried_prop(i)] = frame
        if not self.planned:
            self._set_props(n, result, lefts[0], rights[0], decided, *neighbours)
        if self._playback is not None:
            result.props[QUALITY] = -1 if shown is None else shown
        return result

    def _nearer_right(self, n: int, anchors: _Anchors) -> bool:
        """Whether the right frames show what an output frame that is not interpolated shows."""
        if self.planned:
            return anchors.t >= 0.5
        position = self.schedule[n]
        return position.near > position.left

    def props_of_new(self, n: int, f: list[vs.VideoFrame]) -> vs.VideoFrame:
        """Times and scene change props alone of an output frame that is not a source frame, on its left frame."""
        left, right, *cuts = f
        result = left.copy()
        self._set_props(n, result, left, right, *cuts)
        return result

    def _set_props(
        self,
        n: int,
        result: vs.VideoFrame,
        left: vs.VideoFrame,
        right: vs.VideoFrame,
        cut: vs.VideoFrame,
        *neighbours: vs.VideoFrame,
    ) -> None:
        with named_errors(f"{self.name}: output frame {n} failed"):
            self._set_times(n, result, left, right)
        before, after = (decision(frame) for frame in neighbours) if neighbours else (None, None)
        set_marks(result, self._marks(n, {-1: before, 0: decision(cut), 1: after}))

    def original_marks(self, n: int, decisions: Sequence[bool | None]) -> dict[str, bool | None]:
        """Scene change props of an output frame that is a source frame."""
        before, here = decisions
        return self._marks(n, {-1: before, 0: here})

    def _marks(self, n: int, cuts: dict[int, bool | None]) -> dict[str, bool | None]:
        """Scene change props: only the last output frame before a cut and the first after it are marked.

        Args:
            n: output frame.
            cuts: decisions by the source frame before them, relative to the left source frame of n.
        """
        left = self.schedule[n].left
        if all(cut is None for cut in cuts.values()):
            return {PREV: None, NEXT: None}

        def cut_at(boundary: int | None) -> bool:
            return boundary is not None and bool(cuts.get(boundary - left))

        return {PREV: cut_at(self.schedule.boundary(n)), NEXT: cut_at(self.schedule.boundary(n + 1))}

    def _anchors(self, n: int, decided: vs.VideoFrame) -> _Anchors:
        """What output frame n shows, by its time and a cut, or by a plan."""
        if self.planned:
            return _Anchors(*read_plan(decided))
        position = self.schedule[n]
        if position.t == 0 or (self.options.cuts and decision(decided) is True):
            return _Anchors(position.near, position.near, 0.0)
        return _Anchors(position.left, position.left + 1, float(position.t))

    def _split(self, f: list[vs.VideoFrame]) -> tuple[list[vs.VideoFrame], list[vs.VideoFrame], list[vs.VideoFrame]]:
        """The left and the right frames of all clips, and the decision frames."""
        return f[: self._count], f[self._count : 2 * self._count], f[2 * self._count :]

    def _quality(self, n: int) -> int | None:
        """Which network computes output frame n; None: too slow, show a source frame."""
        return 0 if self._playback is None else self._playback.pace.admit(n)

    def _timeout(self, n: int, left: vs.VideoFrame) -> float | None:
        """Seconds to wait for output frame n, which the player asks for now; None: as long as it takes."""
        if self._playback is None:
            return None
        with named_errors(f"{self.name}: output frame {n} failed"):
            seconds = duration(left) or _UNKNOWN_DURATION
        if not self.schedule.repeats and self.schedule.step is not None:
            seconds *= self.schedule.step
        return self._playback.pace.request(n, float(seconds))

    def _look_ahead(self, n: int, gate: vs.VideoNode) -> None:
        """When access is sequential, start the gates of the next new frames without waiting for them."""
        last, self._last = self._last, n
        if last is None or not 0 < n - last <= SEQUENTIAL_STEP:
            return
        for m in self._following(n):
            if not self._pipeline(m).knows(m):
                gate.get_frame_async(m, _forget)

    def _following(self, n: int) -> Iterator[int]:
        """The new frames to submit when frame n is requested: the next one, and those of the next `_pairs` pairs."""
        last = self.schedule[n].left + self._pairs - 1
        for ahead in range(MAX_WAITING):
            following = self._next(n)
            if following is None or (ahead >= LOOKAHEAD and self.schedule[following].left > last):
                return
            yield following
            n = following

    def _next(self, n: int) -> int | None:
        """The first output frame after n that may be a new one."""
        if self.planned:
            return n + 1 if n + 1 < self.schedule.num_frames else None
        return self.schedule.next_computed(n)

    def _interpolated(
        self,
        n: int,
        anchors: _Anchors,
        lefts: Sequence[vs.VideoFrame],
        rights: Sequence[vs.VideoFrame],
        timeout: float | None,
    ) -> list[vs.VideoFrame] | None:
        """New frame n of each clip; None: a real-time playback would be late."""
        quality, download = self._quality(n), None
        if quality is not None:
            with self._located_errors(n, anchors), suppress(TimeoutError):
                download = self._pipeline(n).take(n, _Request(*anchors, lefts, rights, quality), timeout)
        results = [frame.copy() for frame in lefts]
        if download is not None and not isinstance(download, _Still):
            with self._located_errors(n, anchors):
                write_planes(results, download.planes())
        if self._playback is not None:
            self._playback.pace.deliver(n, download is not None)
        return None if download is None else results

    @contextmanager
    def _located_errors(self, n: int, anchors: _Anchors) -> Iterator[None]:
        """Name the output frame and its source frames in an error."""
        try:
            yield
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise vs.Error(
                f"{self.name}: output frame {n} failed, between source frames {anchors.left} and {anchors.right}: "
                f"{reason}"
            ) from (None if isinstance(error, RifeError) else error)  # an unforeseen error keeps its traceback

    def _set_times(self, n: int, result: vs.VideoFrame, left: vs.VideoFrame, right: vs.VideoFrame) -> None:
        """Set duration and absolute time, exact also where the output frame reaches into the next source frame."""
        step, t = self.schedule.step, self.schedule[n].t
        own, following = duration(left), duration(right)
        start, end = absolute_time(left), absolute_time(right)
        if step is None or own is None:  # a constant rate, set on the whole clip; or unknown durations
            if start is not None and end is not None:
                result.props[ABSOLUTE_TIME] = start + float(t) * (end - start)
            return
        scaled = step if self.schedule.repeats else 1  # `select` has scaled these durations already
        share, rest = self.schedule.shares(n)
        set_duration(result, (own * share + (own if following is None else following) * rest) / scaled)
        if start is not None:
            result.props[ABSOLUTE_TIME] = start + float(own / scaled * self.schedule.phase(n))


def _pipeline(engine: Engine, playback: Playback | None) -> Pipeline[_Request, Download | _Still]:
    """A worker for this engine, or for all of a playback.

    It must not refer to the producer, which could then never be collected.
    """
    formats = (engine.fmt, *engine.carried)

    def compute(request: _Request, cancellation: Cancellation) -> Download | _Still:
        left = _picture(request.left, request.lefts, formats)
        right = _picture(request.right, request.rights, formats)

        def interpolate(engine: Engine, cancellation: Cancellation) -> Download | _Still:
            return engine.interpolate(left, right, request.timestep, cancellation) or _STILL

        if playback is None:
            return interpolate(engine, cancellation)
        return playback.run(request.quality, interpolate, cancellation)

    pipeline: Pipeline[_Request, Download | _Still] = Pipeline(compute)
    close_on_destroy(pipeline)
    return pipeline


def _picture(key: int, frames: Sequence[vs.VideoFrame], formats: Sequence[PictureFormat]) -> InputFrame:
    """A frame of the clip and those of the carried clips for the engine."""
    first, *others = zip(frames, formats, strict=True)
    return picture_of(key, *first, carried=tuple(picture_of(key, *other) for other in others))


class _Still:
    """Instead of planes: both source frames are equal."""


_STILL = _Still()


def _forget(frame: vs.VideoFrame | None, _error: Exception | None) -> None:
    """Drop a frame that was requested only to run its gate. Whoever needs it will see the error, if any."""
    if frame is not None:
        frame.close()


def close_on_destroy(pipeline: Pipeline[Any, Any]) -> None:
    """Stop the worker before VapourSynth invalidates its frames, without keeping the pipeline alive until then."""
    reference = weakref.ref(pipeline)

    def close() -> None:
        alive = reference()
        if alive is not None:
            alive.close()

    vs.register_on_destroy(close)  # never unregistered: that would need this environment, and little stays behind
