"""Numbers, rates and time codes as users write them, to exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vsrife.errors import OptionError
from vsrife.timing.parsing import parse_fps, parse_multi, parse_timestamps, read_timecodes

NO_NUMBER = "must be a number, got"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1, Fraction(1)),
        (2, Fraction(2)),
        (2.5, Fraction(5, 2)),
        ("5/2", Fraction(5, 2)),
        ("2.5", Fraction(5, 2)),
        ((5, 2), Fraction(5, 2)),
        (Fraction(7, 3), Fraction(7, 3)),
        (np.int64(3), Fraction(3)),
        (4 / 3, Fraction(4, 3)),  # floats of small rationals
        (10 / 3, Fraction(10, 3)),
        (59.94 / 23.976, Fraction(5, 2)),
        (2.333333, Fraction(7, 3)),
        ("60000/1001", Fraction(60000, 1001)),
    ],
)
def test_multi(value: Any, expected: Fraction) -> None:
    assert parse_multi(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.999, "multi must be at least 1, got 0.999; to drop frames use std.SelectEvery"),
        (0, "multi must be at least 1, got 0; to drop"),
        (-2, "multi must be at least 1, got -2; to drop"),
        ((1, 2), "multi must be at least 1, got (1, 2); to drop"),
        (2.3333, "multi must be exact, got 2.3333; write it as a fraction, such as "),
        *((v, f"multi {NO_NUMBER} {v!r}") for v in (float("nan"), float("inf"), True, "x", None, (1, 0))),
        ((1, 2, 3), f"multi {NO_NUMBER} (1, 2, 3)"),
        ((2.5, 1), f"multi {NO_NUMBER} (2.5, 1)"),
    ],
    ids=repr,
)
def test_multi_that_is_refused(value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        parse_multi(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (59.94, Fraction(60000, 1001)),
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (47.952, Fraction(48000, 1001)),
        (119.88, Fraction(120000, 1001)),
        (24000 / 1001, Fraction(24000, 1001)),
        (24.0, Fraction(24)),
        (60, Fraction(60)),
        (12.5, Fraction(25, 2)),
        (59.9, Fraction(599, 10)),
        (1 / 3, Fraction(1, 3)),
        ("60000/1001", Fraction(60000, 1001)),
        ((60000, 1001), Fraction(60000, 1001)),
        (Fraction(30), Fraction(30)),
    ],
)
def test_fps(value: Any, expected: Fraction) -> None:
    assert parse_fps(value) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0, "fps must be above 0, got 0; give frames per second, such as 60 or 60000/1001"),
        (-5.0, "fps must be above 0, got -5.0; give"),
        *((v, f"fps {NO_NUMBER} {v!r}") for v in (float("nan"), float("inf"), False, "x", (60, 0))),
    ],
    ids=repr,
)
def test_fps_that_is_refused(value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        parse_fps(value)


def test_timestamps_from_wherever(tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_text("# timecode format v2\n0\n500\n", encoding="ascii")
    halves = [Fraction(0), Fraction(1, 2)]
    given: tuple[Any, ...] = ([0, 0.5], (Fraction(0), Fraction(1, 2)), np.array([0, 0.5], np.float32), path, str(path))
    assert all(parse_timestamps(times) == halves for times in given)


@pytest.mark.parametrize(
    "content",
    [
        b"# timecode format v2\n0\n41.708333\n83.5\n",
        b"\xef\xbb\xbf# timestamp format v2\r\n0\r\n41.708333\r\n\r\n83.5\r\n",
        b"0.000000\n# comment\n 41.708333 \n\n83.5",
    ],
    ids=["plain", "BOM and CRLF", "comments"],
)
def test_timecodes_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_bytes(content)
    assert read_timecodes(path) == [0, Fraction("0.041708333"), Fraction("0.0835")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# timecode format v2\n0\n41,7\n", r"must hold milliseconds, got '41,7' in line 3 of times\.txt; write one"),
        (b"0\n1/0\n", r"got '1/0' in line 2 of times\.txt"),
        (b"0\nnan\n", r"got 'nan' in line 2 of times\.txt"),
        (b"# timecode format v1\nAssume 30\n", r"must be timecodes v2, got '# timecode format v1' in times\.txt"),
        (b"\xff\xfe0\x00\n\x00", r"cannot be read, got '.*times\.txt' \(.*\); check the path"),
    ],
)
def test_timecodes_files_that_are_wrong(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "times.txt"
    path.write_bytes(content)
    with pytest.raises(OptionError, match=message):
        read_timecodes(path)


def test_timecodes_file_that_is_absent(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"timestamps file cannot be read, got '.*none\.txt'"):
        read_timecodes(tmp_path / "none.txt")
