"""Film out of pulldown: which frames go and when the others are shown, from changes and durations alone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import pytest

from vsrife.timing.pulldown import Film, find_film
from vsrife.timing.timeline import Timeline, constant

NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)


def found(changes: str, timeline: Timeline | None = None) -> Film:
    """`.` is a repeat, anything else motion; by default at 29.97 frames a second."""
    values = [0.0 if change == "." else 50.0 for change in changes]
    return find_film(timeline or constant(len(changes), NTSC), values, lambda change, _: change == 0)


def times(timeline: Timeline) -> list[Fraction]:
    return [timeline[n] for n in range(timeline.frames + 1)]


@pytest.mark.parametrize("phase", range(5))
def test_film_has_its_own_rate(phase: int) -> None:
    changes = "".join("." if n % 5 == phase and n else "x" for n in range(50))
    film = found(changes)
    assert list(film.dropped) == list(range(phase, 50, 5))
    assert (film.timeline.rate, film.timeline.frames) == (FILM, 40)


def test_video_stays() -> None:
    film = found("x" * 23)
    assert (film.dropped, film.timeline.rate, film.timeline.frames) == ([], NTSC, 23)


def test_an_edit_costs_a_frame_and_not_the_rate() -> None:
    film = found("xx.xx" * 4 + "xxxxx" + "xxx.x" * 4)
    assert list(film.dropped) == [2, 7, 12, 17, 22, 28, 33, 38, 43]
    assert film.timeline.rate == FILM


def test_stills_belong_to_what_was_before() -> None:
    film = found("xx.xx" * 3 + "....." * 4 + "x.xxx" * 3)
    assert film.timeline.rate == FILM
    assert found("xxxxx" * 3 + "....." * 4 + "xxxxx" * 3).dropped == []
    assert found("." * 20).dropped == []


@pytest.mark.parametrize("start", [Fraction(0), Fraction(7, 90)])
def test_mixed_material_keeps_exact_times(start: Fraction) -> None:
    """Each frame of video at its own time; four of film over the time of five; the end where it was."""
    film = found("xx.xx" * 4 + "xxxxx" * 4 + "x.xxx" * 4, constant(60, NTSC, start))
    assert film.timeline.rate is None
    frame, spread = 1 / NTSC, 1 / FILM
    first = [start + n * spread for n in range(16)]
    video = [start + n * frame for n in range(20, 40)]
    last = [start + 40 * frame + n * spread for n in range(16)]
    assert times(film.timeline) == [*first, *video, *last, start + 60 * frame]


@pytest.mark.parametrize("rest", range(1, 5))
def test_the_rest_of_a_cycle(rest: int) -> None:
    film = found("xx.xx" * 4 + "xx.xx"[:rest])
    assert film.timeline.rate == FILM
    assert film.timeline.frames == 16 + rest - (rest > 2)


def soft(fields: Sequence[int], tick: Fraction) -> Timeline:
    ends = [sum(fields[:n]) for n in range(len(fields) + 1)]
    ticks = [round(end * Fraction(1001, 60000) / tick) for end in ends]
    return Timeline(Fraction(0), len(fields), None, ticks, tick)


@pytest.mark.parametrize("tick", [Fraction(1001, 60000), Fraction(1, 90000), Fraction(1, 1000)])
@pytest.mark.parametrize("rest", range(4))
def test_soft_pulldown_is_evened_out(tick: Fraction, rest: int) -> None:
    film = found("x" * (40 + rest), soft([3, 2] * 20 + [3, 2, 3][:rest], tick))
    assert (film.dropped, film.timeline.rate, film.timeline.frames) == ([], FILM, 40 + rest)


def test_soft_pulldown_beside_video_and_hard_pulldown() -> None:
    film = found("x" * 8 + "xxxxx" * 3 + "xx.xx" * 3, soft([2, 3] * 4 + [2] * 30, Fraction(1001, 60000)))
    assert list(film.dropped) == [25, 30, 35]
    lasts = [after - now for now, after in pairwise(times(film.timeline))]
    assert lasts == [1 / FILM] * 8 + [1 / NTSC] * 15 + [1 / FILM] * 12
