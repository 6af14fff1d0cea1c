"""Pace of real-time playback: which new frames to compute, in which quality, and how long to wait for them.

A player shows each frame at a fixed time. If a filter is slow, the picture goes into slow motion while the sound runs
on. So the pace predicts when the player needs each frame from when it asked for the earlier ones, and lets the filter
show the nearest source frame instead of being late. Nothing here knows VapourSynth, and time is passed in by a clock.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

LATE_SECONDS = 0.025  # how late a frame may be delivered: little enough for players that hold no frames in a queue
MOST_LEAD_SECONDS = 0.2  # credit of a player that asks early; its queue is not longer for sure
MOST_DEBT_SECONDS = 1.0  # beyond it the player has dropped frames by itself, or jumped
PAUSE_SECONDS = 0.5  # longer gaps between requests are pauses
DRIFT = 0.01  # seconds per second by which the player's clock may differ from ours

SEEK_SPEED = 1.5  # times real time; faster requests are of frames that the player will not show
SPEED_FRAMES = 6  # output frames over which the speed is measured

WINDOW = 8  # attempts that a decision looks back on
MOST_MISSES = 3  # of them, before the quality is lowered
BUSY, IDLE = 1.1, 0.7  # share of the time between new frames that computing one takes: too much, room for more
RECOVER_SECONDS = 3.0  # without a miss before a higher quality is tried
MOST_RECOVER_SECONDS = 60.0  # it doubles with every failed try, up to this

REMEMBERED = 256  # decisions kept


@dataclass(frozen=True, slots=True)
class Rung:
    """A step of the ladder from best quality to none.

    Attributes:
        quality: index of the network; 0 is the best.
        every: compute every `every`th new frame; 0: none.
    """

    quality: int
    every: int


class _Mode(Enum):
    SEEKING = auto()  # requests come faster than real time: of frames that are never shown
    PLAYING = auto()


@dataclass(slots=True)
class PaceCounts:
    """Statistics of one playback."""

    interpolated: int = 0
    repeated: int = 0  # new frames for which the nearest source frame was shown, except while seeking
    seeking: int = 0
    changes: int = 0

    @property
    def share(self) -> float:
        return self.interpolated / max(1, self.interpolated + self.repeated)


@dataclass(slots=True)
class Pace:
    """Decides for every new frame, from requests in order. Thread-safe.

    The filter calls `admit` when the source frames of a new frame are there, `request` when the player asks for it,
    `deliver` when it is returned, and `computed` when a computation ends.

    Args:
        qualities: number of networks to choose from, best first.
        start: rung to start with, such as that of the playback before a seek.
        clock: seconds, monotonic.
    """

    qualities: int
    start: int = 0
    clock: Callable[[], float] = time.monotonic
    counts: PaceCounts = field(default_factory=PaceCounts)

    rungs: tuple[Rung, ...] = field(init=False)
    _rung: int = field(init=False)
    _mode: _Mode = _Mode.SEEKING
    _admitted: OrderedDict[int, int | None] = field(default_factory=OrderedDict)
    _requests: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=SPEED_FRAMES))
    _due: float = 0.0  # when the frame requested last must be delivered
    _excess: float = 0.0  # seconds by which requests came too early lately
    _period: float = 1 / 24  # seconds between two new frames
    _last_new: int | None = None
    _attempts: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))  # whether each came in time
    _cost: dict[int, float] = field(default_factory=dict)  # seconds of a computation, by quality
    _warm: set[int] = field(default_factory=set)  # qualities that have computed a frame
    _calm_since: float = 0.0  # last miss or move
    _moved: float = 0.0  # last move
    _tried_up: bool = False  # whether that was to a better rung
    _patience: float = RECOVER_SECONDS
    _counter: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        worst = self.qualities - 1
        self.rungs = (*(Rung(quality, 1) for quality in range(self.qualities)), Rung(worst, 2), Rung(worst, 0))
        self._rung = min(self.start, len(self.rungs) - 2)

    @property
    def rung(self) -> int:
        """Index of the current rung."""
        return self._rung

    def admit(self, n: int) -> int | None:
        """Decide once whether to compute new frame n: the index of the network, or None to show a source frame."""
        with self._lock:
            if n not in self._admitted:
                self._admitted[n] = self._choose()
                while len(self._admitted) > REMEMBERED:
                    self._admitted.popitem(last=False)
            return self._admitted[n]

    def _choose(self) -> int | None:
        rung = self.rungs[self._rung]
        self._counter += 1
        if self._mode is _Mode.SEEKING or rung.every == 0 or self._counter % rung.every:
            return None
        return rung.quality

    def request(self, n: int, seconds: float) -> float:
        """Register the player's request for new frame n.

        Args:
            n: output frame.
            seconds: how long an output frame is shown.

        Returns:
            Seconds to wait for its computation at most.
        """
        with self._lock:
            now = self.clock()
            before, self._last_new = self._last_new, n
            step = 0 if before is None else n - before
            gap = now - self._requests[-1][0] if self._requests else 0.0
            self._requests.append((now, n))
            if before is None or not 0 < step * seconds < 1:
                self._seek(now)
                return 0.0
            self._period += 0.1 * (step * seconds - self._period)
            if self._mode is _Mode.SEEKING:
                self._settle(now, seconds)
                return 0.0
            self._due += step * seconds
            if now > self._due:  # a pause, or clocks that differ a little; the rest is debt
                forgiven = now - self._due if gap > PAUSE_SECONDS + step * seconds else DRIFT * gap
                self._due = min(now, self._due + forgiven)
            if self._due - now < -MOST_DEBT_SECONDS:
                self._seek(now)
                return 0.0
            self._trim(now, seconds)
            return max(0.0, self._due + LATE_SECONDS - now)

    def _seek(self, now: float) -> None:
        self._mode, self._due, self._excess = _Mode.SEEKING, now, 0.0
        last = self._requests[-1]
        self._requests.clear()
        self._requests.append(last)

    def _settle(self, now: float, seconds: float) -> None:
        """Start to play once requests come in real time."""
        if len(self._requests) == SPEED_FRAMES and self._speed(seconds) < SEEK_SPEED:
            self._mode, self._due, self._calm_since = _Mode.PLAYING, now, now

    def _speed(self, seconds: float) -> float:
        (start, first), (end, last) = self._requests[0], self._requests[-1]
        return (last - first) * seconds / max(end - start, 1e-6)

    def _trim(self, now: float, seconds: float) -> None:
        """Limit the credit of early requests; many of them are a seek, or play faster than real time."""
        extra = self._due - now - MOST_LEAD_SECONDS
        if extra <= 0:
            self._excess = max(0.0, self._excess - seconds)
            return
        self._due -= extra
        self._excess += extra
        if self._excess > 1.0 and self._speed(seconds) > SEEK_SPEED:
            self._seek(now)

    def deliver(self, n: int, in_time: bool) -> None:
        """Register that new frame n was returned: as computed in time, or as a source frame."""
        with self._lock:
            quality = self._admitted.get(n)
            if self._mode is _Mode.SEEKING:
                self.counts.seeking += 1
                return
            self.counts.interpolated += in_time
            self.counts.repeated += not in_time
            if quality == self.rungs[self._rung].quality and (in_time or quality in self._warm):
                self._attempts.append(in_time)
                if not in_time:
                    self._calm_since = self.clock()
            self._adjust()

    def computed(self, quality: int, seconds: float, *, finished: bool = True) -> None:
        """Register a computation. The first of each network, which loads and compiles, does not count.

        Args:
            quality: index of the network.
            seconds: how long it took.
            finished: False if it was abandoned.
        """
        with self._lock:
            if quality not in self._warm:
                if finished:
                    self._warm.add(quality)
                    self._calm_since = self.clock()
                return
            known = self._cost.get(quality, seconds)
            self._cost[quality] = known + 0.3 * (seconds - known) if finished else max(known, seconds)

    def load(self) -> float:
        """Share of the time between new frames that computing one takes at the current rung; 0 if unknown."""
        rung = self.rungs[self._rung]
        return self._cost.get(rung.quality, 0.0) / (self._period * max(1, rung.every)) if rung.every else 0.0

    def _adjust(self) -> None:
        now, load, misses = self.clock(), self.load(), self._attempts.count(False)
        too_slow = misses >= MOST_MISSES or (misses and load > BUSY and len(self._attempts) >= MOST_MISSES)
        if too_slow and self._rung + 1 < len(self.rungs):
            if self._tried_up and now - self._moved < RECOVER_SECONDS:
                self._patience = min(2 * self._patience, MOST_RECOVER_SECONDS)
            self._move(self._rung + 1, now, up=False)
        elif self._rung and not misses and load < self._room() and now - self._calm_since > self._wait(load):
            self._move(self._rung - 1, now, up=True)
        elif now - self._moved > MOST_RECOVER_SECONDS:
            self._patience = RECOVER_SECONDS

    def _room(self) -> float:
        """The load below which the next better rung is worth a try."""
        here, above = self.rungs[self._rung], self.rungs[self._rung - 1]
        return IDLE * above.every / here.every if here.every and here.quality == above.quality else IDLE

    def _wait(self, load: float) -> float:
        """Seconds without a miss before a better rung is tried: fewer, the less there is to do."""
        if not self.rungs[self._rung].every:
            return self._patience
        return max(RECOVER_SECONDS, self._patience * load / IDLE)

    def _move(self, rung: int, now: float, *, up: bool) -> None:
        self._rung, self._calm_since, self._moved, self._tried_up = rung, now, now, up
        self._attempts.clear()
        self.counts.changes += 1
