"""The pace of real-time playback, with a simulated player, worker and clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from vsrife.timing.pace import LATE_SECONDS, Pace

FRAME = 1 / 48  # seconds of an output frame; every second one is new
QUEUE = 4  # output frames that the player holds

Cost = Callable[[float, int], float]  # time and quality to the seconds that a new frame takes


@dataclass
class Playback:
    """A player that asks for the next frame when its queue has room, and a worker that computes one frame ahead.

    Attributes:
        lags: how late each frame came, in seconds after the sound.
        shown: whether each new frame was interpolated.
        rungs: the rung at each new frame.
    """

    cost: Cost
    qualities: int = 3
    queue: int = QUEUE
    loading: float = 0.0
    now: float = 100.0
    lags: list[float] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    rungs: list[int] = field(default_factory=list)
    attempts: int = 0

    def __post_init__(self) -> None:
        self.pace = Pace(self.qualities, clock=lambda: self.now)
        self._free = self._pushed = self.now
        self._n = 0
        self._loaded: set[int] = set()
        self._results: list[tuple[float, tuple[int, float], bool]] = []  # of the worker, at the time they are there

    def play(self, seconds: float, *, decode: float = 0.001, fast: bool = False) -> Playback:
        """Play on. `fast` asks for frames as quickly as they come, as an exact seek does."""
        start, first = self.now, self._n
        for n in range(first, first + round(seconds / FRAME)):
            if not fast:
                self.now = max(self.now, start + (n - first - self.queue) * FRAME)
            self.now += decode
            if n % 2:
                self._new(n)
            if not fast:
                self.lags.append(self.now - (start + (n - first) * FRAME))
        self._n = first + round(seconds / FRAME)
        return self

    def pause(self, seconds: float) -> Playback:
        self.now += seconds
        return self

    def _new(self, n: int) -> None:
        while self._results and self._results[0][0] <= self.now:
            _, arguments, finished = self._results.pop(0)
            self.pace.computed(*arguments, finished=finished)
        quality = self.pace.admit(n)
        begin = max(self._free, self._pushed)
        self._pushed = self.now  # the next new frame is handed over when this one is asked for
        deadline = self.now + self.pace.request(n, FRAME)
        in_time = False
        if quality is not None:
            self.attempts += 1
            cold = quality not in self._loaded
            end = begin + (self.loading if cold else self.cost(self.now, quality))
            self._loaded.add(quality)
            in_time = end <= deadline
            self.now = max(self.now, min(end, deadline))
            self._free = end if in_time or cold else max(begin, deadline)  # the first is not abandoned
            if cold or self._free > begin:
                self._results.append((self._free, (quality, self._free - begin), in_time or cold))
        self.pace.deliver(n, in_time)
        self.shown.append(in_time)
        self.rungs.append(self.pace.rung)

    def share(self, last: int) -> float:
        """Share of the last new frames that was interpolated."""
        return sum(self.shown[-last:]) / last


def constant(*costs: float) -> Cost:
    return lambda _, quality: costs[quality]


def test_fast_machine_interpolates_everything() -> None:
    playback = Playback(constant(0.02, 0.01, 0.005)).play(60)
    assert all(playback.shown[8:])
    assert set(playback.rungs) == {0}
    assert max(playback.lags) < LATE_SECONDS


@pytest.mark.parametrize("cost", [0.05, 0.1, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("queue", [0, 1, QUEUE])
def test_slow_machine_never_falls_behind(cost: float, queue: int) -> None:
    """Whatever a new frame costs, that is at any size, and with a decoder that takes a third of the time."""
    playback = Playback(constant(cost, cost, cost), queue=queue).play(60, decode=0.007)
    assert max(playback.lags) <= 0.05
    if cost < 2 * 2 * FRAME:
        assert playback.share(400) == pytest.approx(0.5, abs=0.1)  # every second new frame
    else:
        assert playback.share(400) < 0.1


def test_lowers_quality_until_it_keeps_up() -> None:
    playback = Playback(constant(0.15, 0.07, 0.025)).play(60)
    assert playback.share(400) > 0.95
    assert playback.rungs[200] == 2
    assert max(playback.lags) <= 0.05


def test_recovers_when_the_machine_is_free_again() -> None:
    def cost(now: float, quality: int) -> float:
        return (0.02, 0.015, 0.01)[quality] * (10 if 110 < now < 130 else 1)

    playback = Playback(cost).play(60)
    assert max(playback.rungs) >= 2
    assert playback.rungs[-1] == 0
    assert all(playback.shown[-100:])
    assert max(playback.lags) <= 0.05


def test_rungs_do_not_oscillate() -> None:
    """At a load between two rungs, tries of the better one become rare."""
    playback = Playback(constant(0.06, 0.025, 0.01)).play(300)
    assert playback.share(2000) > 0.97
    assert playback.pace.counts.changes <= 24


def test_exact_seek_computes_nothing() -> None:
    playback = Playback(constant(0.02, 0.01, 0.005)).play(5, fast=True)
    assert playback.attempts == 0
    playback.play(5)
    assert playback.share(100) > 0.98


def test_jump_in_mid_play_is_a_seek() -> None:
    playback = Playback(constant(0.02, 0.01, 0.005)).play(10)
    playback._n += 48 * 60
    before = playback.attempts
    playback.play(5, fast=True)
    assert playback.attempts - before <= 1  # handed over before the jump was seen
    assert playback.play(5).share(100) > 0.98


def test_pause_is_no_lag() -> None:
    playback = Playback(constant(0.02, 0.01, 0.005)).play(10).pause(30).play(10)
    assert playback.share(200) > 0.98
    assert set(playback.rungs) == {0}


def test_slow_decoder_is_not_made_slower() -> None:
    """The player falls behind by itself: nothing is interpolated that would take more of its time."""
    playback = Playback(constant(0.02, 0.01, 0.005)).play(20, decode=0.03)
    added = playback.lags[-1] - 20 * (0.03 / FRAME - 1)
    assert added < 1


def test_loading_a_network_lowers_no_quality() -> None:
    playback = Playback(constant(0.02, 0.01, 0.005), loading=4.0).play(20)
    assert max(playback.lags) <= 0.05
    assert set(playback.rungs) == {0}
    assert playback.share(200) > 0.98


def test_decision_is_the_same_however_often_it_is_asked() -> None:
    playback = Playback(constant(0.02, 0.02, 0.02)).play(1)
    assert len({playback.pace.admit(47) for _ in range(5)}) == 1


def test_counts_and_start() -> None:
    playback = Playback(constant(0.02, 0.01, 0.005)).play(10)
    counts = playback.pace.counts
    assert counts.interpolated == sum(playback.shown)
    assert counts.interpolated + counts.repeated + counts.seeking == len(playback.shown)
    assert counts.share > 0.98
    assert Pace(3, start=1).rung == 1
    assert Pace(3, start=99).rung == 3
