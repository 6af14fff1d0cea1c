"""What is shown where source frames repeat others: pure arithmetic on letters."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise

import pytest

from vsrife.timing.duplicates import EVEN_REACH, Anchors, Link, Window, even, fill, fill_reach, find_rhythm
from vsrife.timing.schedule import Position


def links_of(source: str) -> list[Link]:
    """Equal letters repeat a frame; `|` is a cut, `*` a replaced frame."""
    links, before = [], ""
    cut = False
    for letter in source:
        if letter == "|":
            cut = True
            continue
        if not before:
            links.append(Link.END)
        elif letter == "*":
            links.append(Link.REPLACED)
        else:
            links.append(Link.CUT if cut else Link.REPEAT if letter == before else Link.MOTION)
        before, cut = before if letter == "*" else letter, False
    return links


def window(links: list[Link], center: int, reach: int) -> Window:
    around = range(center - reach + 1, center + reach + 1)
    return Window(center, [links[k] if 0 <= k < len(links) else Link.END for k in around])


def shown(source: str, mode: Callable[..., Anchors] = fill, most: int = 3, step: Fraction = Fraction(1)) -> list[str]:
    """Every output frame as letters: `A`, or `A1/2B` for halfway."""
    links = links_of(source)
    letters = source.replace("|", "")
    reach = max(fill_reach(most, letters.count("*")), EVEN_REACH if mode is even else 0)
    result, at = [], Fraction(0)
    while at < len(letters):
        left, t = int(at), at % 1
        anchors = mode(Position(left, t), window(links, left, reach), most)
        name, after = letters[anchors.left], letters[anchors.right]
        result.append(f"{name}{anchors.t}{after}" if anchors.t else name)
        at += step
    return result


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("AABBC", "A A1/2B B B1/2C C"),
        ("AAABBBC", "A A1/3B A2/3B B B1/3C B2/3C C"),
        ("AAAABC", "A A1/4B A1/2B A3/4B B C"),
        ("AAAAABC", "A A A A A B C"),  # a pause
        ("ABCCC", "A B C C C"),  # nothing follows
        ("AAA", "A A A"),
        ("A", "A"),
        ("AA|BBC", "A A B B1/2C C"),
        ("AAA|B", "A A A B"),
        ("AB*C", "A B B1/2C C"),
        ("AB***C", "A B B1/4C B1/2C B3/4C C"),
        ("AA**B", "A A1/4B A1/2B A3/4B B"),
        ("AB*|C", "A B * C"),
    ],
)
def test_fill(source: str, expected: str) -> None:
    assert shown(source) == [part.replace("/*", "") for part in expected.split()]


def test_fill_between_source_frames() -> None:
    half = Fraction(1, 2)
    assert shown("AABC", step=half) == ["A", "A1/4B", "A1/2B", "A3/4B", "B", "B1/2C", "C", "C"]
    assert shown("AB|CD", step=half) == ["A", "A1/2B", "B", "C", "C", "C1/2D", "D", "D"]
    assert shown("AA|BB", step=half) == ["A", "A", "A", "B", "B", "B", "B", "B"]


@pytest.mark.parametrize(("most", "expected"), [(1, "A A A B B1/2C C"), (2, "A A1/3B A2/3B B B1/2C C")])
def test_the_bound_on_repeats(most: int, expected: str) -> None:
    assert shown("AAABBC", most=most) == expected.split()


def test_fill_with_times() -> None:
    """Halfway in time, not in frames."""
    links = window(links_of("AABC"), 1, 4)
    lasts = [None, None, *(Fraction(n) for n in (1, 3, 1, 1)), None, None]
    anchors = fill(Position(1, Fraction(1, 2)), Window(1, links.links, lasts), 3)
    assert anchors == Anchors(0, 2, Fraction(5, 8))


def test_even_spreads_24_in_30() -> None:
    cycle = "A A4/5B B3/5C C2/5D D1/5E E E4/5F F3/5G G2/5H H1/5I I I4/5J J3/5K K2/5L L1/5M"
    assert shown("ABCCDEFGGHIJKKLMNOOPQRSSTUVWW", even)[:15] == cycle.split()


@pytest.mark.parametrize("source", ["AABBCCDDEEFF", "AAABBBCCCDDDEEE", "ABCDEFGHIJKLMN", "ABBCDEFGHIIJKLMNOPQQ"])
def test_even_is_fill_without_an_uneven_rhythm(source: str) -> None:
    assert shown(source, even) == shown(source, fill)


def test_even_of_three_and_two() -> None:
    """24 in 60."""
    parts = shown("AAABBCCCDDEEEFFGGGHHIIIJJKKKLL", even)[10:20]
    steps = [ord(part[0]) + (float(Fraction(part[1:-1])) if len(part) > 1 else 0) for part in parts]
    assert all(after - before == pytest.approx(0.4) for before, after in pairwise(steps))


def test_even_never_crosses_a_cut() -> None:
    source = "ABCCDEFGGHIJ|KKLMNOOPQRSSTUVWW"
    for part in shown(source, even, step=Fraction(1, 2)):
        assert len(part) == 1 or (part[0] <= "J") == (part[-1] <= "J")


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mode", [fill, even])
def test_time_never_runs_backwards(mode: Callable[..., Anchors], seed: int) -> None:
    """Whatever repeats, also where a rhythm begins and ends."""
    rng = random.Random(seed)
    links = [Link.END]
    while len(links) < 80:
        if rng.random() < 0.5:
            rhythm = [rng.choice((Link.MOTION, Link.REPEAT)) for _ in range(rng.randint(2, 6))]
            links += rhythm * rng.randint(1, 6)
        else:
            links.append(rng.choice((Link.MOTION, Link.REPEAT, Link.CUT)))
    distinct = [sum(not link.repeats for link in links[1 : n + 1]) for n in range(len(links))]
    last = Fraction(-1)
    for n in range(2 * len(links) - 2):
        position = Position(n // 2, Fraction(n % 2, 2))
        anchors = mode(position, window(links, position.left, EVEN_REACH), 3)
        at = distinct[anchors.left] + anchors.t * (distinct[anchors.right] - distinct[anchors.left])
        assert at >= last, f"position {n / 2}"
        last = at


def test_rhythm_needs_two_cycles() -> None:
    assert find_rhythm(window(links_of("ABCCDEFGGHIJKKL"), 7, EVEN_REACH), Fraction(7), 3) is not None
    assert find_rhythm(window(links_of("ABCCDEFGH"), 3, EVEN_REACH), Fraction(3), 3) is None
