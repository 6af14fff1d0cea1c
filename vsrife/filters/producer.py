"""Callbacks of the filter: submit pairs to the workers, collect frames."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import vapoursynth as vs

from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Download
from vsrife.errors import RifeError
from vsrife.filters.arguments import Options
from vsrife.filters.frames import NEXT, PREV, duration, set_duration, set_marks
from vsrife.filters.scenechange import decision
from vsrife.filters.worker import MAX_WAITING, Interrupt, Pipeline
from vsrife.timing.schedule import Schedule

logger = logging.getLogger(__name__)

LOOKAHEAD = 1  # output frames computed before they are asked for, when access is sequential
PREPARED_FRAMES = LOOKAHEAD + 2  # source frames kept on each device
SEQUENTIAL_STEP = 4  # requests that advance by at most this many output frames count as sequential access


@dataclass(frozen=True, slots=True)
class _Request:
    """What the worker needs for one output frame."""

    left: int
    timestep: float
    lefts: Sequence[vs.VideoFrame]  # of the clip, then of the carried clips
    rights: Sequence[vs.VideoFrame]


def carried_prop(i: int) -> str:
    return f"_vsrife_carried{i}"


class Producer:
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
        # Pairs to have in hand, with this one. For one device the next frame is enough.
        self._pairs = len(engines) + 1 if len(engines) > 1 else 0

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
            result.props[carried_prop(i)] = frame
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

    def compute(request: _Request, interrupt: Interrupt) -> Download | _Still:
        left, right = (
            _pictures(request.left + i, frames, formats) for i, frames in enumerate((request.lefts, request.rights))
        )
        return engine.start(left, right, request.timestep, interrupt) or _STILL

    pipeline: Pipeline[_Request, Download | _Still] = Pipeline(compute)
    close_on_destroy(pipeline)
    return pipeline


def _pictures(key: int, frames: Sequence[vs.VideoFrame], formats: Sequence[PictureFormat]) -> InputFrame:
    """A frame of the clip and those of the carried clips for the engine."""
    picture, *carried = (
        InputFrame(key, [np.asarray(frame[p]) for p in range(fmt.num_planes)], Colorimetry.from_props(frame.props, fmt))
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
