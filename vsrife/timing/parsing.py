"""Ratios, rates, thresholds, timecodes and speed curves as users write them, to exact numbers."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from numbers import Rational, Real
from pathlib import Path
from typing import Any, Literal

from vsrife.errors import OptionError, decimal, shown
from vsrife.files import is_special
from vsrife.timing.schedule import Schedule, along_curve, by_positions, check_length, check_timestamps, source_position

Ratio = int | float | Fraction | str | tuple[int, int]
Timestamps = str | Path | Sequence[float | Fraction]
Times = str | Path | Sequence[float | Fraction] | Sequence[tuple[float | Fraction, float | Fraction]]
TimesUnit = Literal["seconds", "frames"]
_LARGEST_DENOMINATOR = 1001  # of a float that is taken for a rational
_LARGEST_PART = 2**31 - 1  # of a factor or a rate: containers and players hold both in 32 bits
_NTSC = Fraction(1000, 1001)
_MOST_BYTES = 2**28  # of a file of times: more than any table that is held in memory
_LONGEST_NUMBER, _LARGEST_EXPONENT = 60, 30  # of one that is written out; 1e999999999 would fill the memory


def parse_number(text: str) -> Fraction:
    """A number as written: 2, 2.5, 5/2 or 1e3.

    Raises:
        ValueError: it is none, or has more digits or a larger exponent than any time, rate or factor.
    """
    exponent = re.search(r"[eE]([+-]?\d+)", text)
    if len(text) > _LONGEST_NUMBER or (exponent and abs(int(exponent[1])) > _LARGEST_EXPONENT):
        raise ValueError(f"no number of a usual length: {shown(text)}")
    try:
        return Fraction(text)
    except ZeroDivisionError as error:
        raise ValueError("division by zero") from error


def parse_multi(multi: Ratio, name: str = "multi", lower: str = "to drop frames use std.SelectEvery") -> Fraction:
    """Output frames per source frame as an exact rational, at least 1.

    Args:
        multi: the value.
        name: of the argument, for errors.
        lower: what to do where a value below 1 is wanted.

    Raises:
        OptionError: not a number, below 1, beyond 32 bits, or a float that is no small rational.
    """
    value = _rational(name, multi)
    if _is_float(multi):
        small = value.limit_denominator(_LARGEST_DENOMINATOR)
        if abs(small - value) > Fraction(1, 10**6):
            near = value.limit_denominator(400)
            raise OptionError(
                f"{name} must be exact, got {multi!r}; write it as a fraction, such as '{near}', or a quotient of two "
                "rates as Fraction(quotient).limit_denominator(400)"
            )
        value = small
    if value < 1:
        raise OptionError(f"{name} must be at least 1, got {shown(multi)}; {lower}")
    return _fitting(name, value, multi)


def parse_fps(fps: Ratio, name: str = "fps") -> Fraction:
    """A frame rate as an exact rational.

    Decimals such as 59.94 and 23.976 mean the NTSC rates, 60000/1001 and 24000/1001.

    Args:
        fps: the value.
        name: of the argument, for errors.

    Raises:
        OptionError: not a positive number, or beyond 32 bits.
    """
    value = _rational(name, fps)
    if value <= 0:
        raise OptionError(f"{name} must be above 0, got {shown(fps)}; give frames per second, such as 60 or 60000/1001")
    if value.denominator != 1 and (_is_float(fps) or (isinstance(fps, str) and "/" not in fps)):
        ntsc = round(value / _NTSC) * _NTSC
        is_ntsc = ntsc > 0 and abs(ntsc - value) < Fraction(1, 200)
        value = ntsc if is_ntsc else value.limit_denominator(_LARGEST_DENOMINATOR) or value
    return _fitting(name, value, fps)


def _fitting(name: str, value: Fraction, given: object) -> Fraction:
    if max(value.numerator, value.denominator) > _LARGEST_PART:
        raise OptionError(
            f"{name} must be a fraction of integers below 2**31, got {shown(given)}; round it, such as to 5/2"
            if value <= _LARGEST_PART
            else f"{name} must be below 2**31, got {shown(given)}; give a smaller one"
        )
    return value


def _is_float(value: object) -> bool:
    """Whether a number may be rounded. NumPy's scalars count like Python's."""
    return isinstance(value, Real) and not isinstance(value, Rational)


def _rational(name: str, value: Any) -> Fraction:
    try:
        if isinstance(value, bool):
            raise TypeError("bool")
        if isinstance(value, tuple):
            numerator, denominator = value
            return Fraction(numerator, denominator)
        if isinstance(value, str):
            return parse_number(value)
        if isinstance(value, Rational):
            return Fraction(value)
        if isinstance(value, Real):  # NumPy's scalars too
            return Fraction(float(value))
        raise TypeError(type(value).__name__)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
        forms = "2, 2.5 or 5/2" if isinstance(value, str) else "2, 2.5, '5/2' or (5, 2)"
        raise OptionError(f"{name} must be a number, got {shown(value)}; write it as {forms}") from error


def parse_pair(name: str, numerator: int, denominator: int) -> Fraction:
    """A rational from two integers of at least 1, as vs-rife takes it."""
    for part, value in (("num", numerator), ("den", denominator)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name}_{part} must be an integer of at least 1, got {value!r}; 5 and 2 mean 5/2")
    return Fraction(numerator, denominator)


def parse_timestamps(timestamps: Timestamps) -> list[Fraction]:
    """The time of each source frame in seconds, from a sequence or a timecodes v2 file.

    Raises:
        OptionError: neither, or a value that is no number.
    """
    if isinstance(timestamps, (str, Path)):
        return read_timecodes(Path(timestamps))
    if not isinstance(timestamps, Iterable):
        raise OptionError(
            f"timestamps must be seconds or the path of a timecodes v2 file, got {shown(timestamps)}; give one a frame"
        )
    return [_rational("timestamps", t) for t in timestamps]


def parse_times(times: Times, fps: Fraction) -> Iterator[Fraction]:
    """Source times of the output frames, in the unit in which they are given.

    Args:
        times: one per output frame; or points (output seconds, source time) of a curve, or a CSV file of such points.
        fps: output rate, for a curve.

    Raises:
        OptionError: neither, a value that is no number, output times that do not increase, or too many frames.
    """
    if isinstance(times, (str, Path)):
        return _curve(read_curve(Path(times)), fps)
    if not isinstance(times, Iterable):
        raise OptionError(
            f"times must be source times, points of a curve or the path of a CSV file, got {shown(times)}; give a list"
        )
    listed = list(times)
    if listed and all(isinstance(point, Sequence) and len(point) == 2 for point in listed):
        return _curve([(_time(out), _time(source)) for out, source in listed], fps)  # type: ignore[misc]
    check_length("times", len(listed))
    return iter([_time(time) for time in listed])


def _time(value: Any) -> Fraction:
    """A time, decimals taken as written: 0.1 is one tenth."""
    return _rational("times", repr(float(value)) if _is_float(value) and math.isfinite(value) else value)


def _curve(points: Sequence[tuple[Fraction, Fraction]], fps: Fraction) -> Iterator[Fraction]:
    if len(points) < 2:
        raise OptionError(f"times must have at least two points for a curve, got {len(points)}; add the end")
    for (before, _), (after, _) in pairwise(points):
        if after <= before:
            raise OptionError(
                f"times must have output times that increase, got {decimal(after)} s after {decimal(before)} s; sort "
                "them"
            )
    check_length("times and fps", math.ceil((points[-1][0] - points[0][0]) * fps))
    return along_curve(points, fps)


def parse_frames(name: str, frames: str | Sequence[int], source_frames: int) -> tuple[int, ...]:
    """Frame numbers from a sequence or a list of numbers and ranges such as "120,455-456", in order.

    Raises:
        OptionError: no such numbers, not frames of the source, or all of them.
    """
    if isinstance(frames, str):
        numbers: set[int] = set()
        for part in filter(None, map(str.strip, frames.split(","))):
            match = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}))?", part)
            if match is None:
                raise OptionError(
                    f"{name} must list frames and ranges such as 120,455-456, got {shown(frames)}; check {shown(part)}"
                )
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise OptionError(f"{name} must have ranges that increase, got {shown(part)}; write {last}-{first}")
            _check_frame(name, last, source_frames)
            numbers.update(range(first, last + 1))
    elif isinstance(frames, Iterable):
        numbers = set()
        for n in frames:
            _check_frame(name, n, source_frames)
            numbers.add(n)
    else:
        raise OptionError(f"{name} must be frame numbers, got {shown(frames)}; give a list such as [120, 455]")
    if len(numbers) >= source_frames:
        raise OptionError(f"{name} must leave a frame, got all {source_frames} of the clip; list fewer")
    return tuple(sorted(numbers))


def runs(frames: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    result: list[tuple[int, int]] = []
    for n in frames:
        if result and n == result[-1][1] + 1:
            result[-1] = (result[-1][0], n)
        else:
            result.append((n, n))
    return result


def format_frames(frames: Sequence[int]) -> str:
    """Frame numbers in order as a list of numbers and ranges such as "120,455-456"."""
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs(frames))


def _check_frame(name: str, n: int, source_frames: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < source_frames:
        raise OptionError(f"{name} must be frames from 0 to {source_frames - 1}, got {shown(n)}; count from 0")


def parse_threshold(threshold: float | None) -> float | None:
    """The scene change threshold, 0..1 or None.

    Raises:
        OptionError: anything else.
    """
    if threshold is None:
        return None
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 <= threshold <= 1:
        raise OptionError(
            f"sc_threshold must be between 0 and 1, or None, got {shown(threshold)}; 0.15 is usual, None obeys frame "
            "props only, 1.0 ignores cuts"
        )
    return float(threshold)


def ramp(
    times: Times, unit: str, source_frames: int, rate: Fraction | None, starts: Sequence[Fraction] | None, fps: Fraction
) -> Schedule:
    """Output frames at any source times.

    Args:
        times: as in `RIFE`.
        unit: of the source times, "seconds" or "frames".
        source_frames: length of the source.
        rate: of the source, where it is constant.
        starts: seconds of the source frames, where it is not; possibly also the end.
        fps: of the output.

    Raises:
        OptionError: a time lies outside the source, or there are too many.
    """
    if starts is not None:
        check_timestamps(starts, source_frames)
    if unit == "frames":
        end = Fraction(source_frames)
    elif starts is not None:
        end = starts[-1] - starts[0]
    else:
        assert rate is not None
        end = source_frames / rate

    def position(time: Fraction) -> Fraction:
        if not 0 <= time <= end:
            raise OptionError(
                f"times must lie between 0 and {decimal(end)} {unit}, got {decimal(time)}; that is its length"
            )
        if unit == "frames":
            return time
        if starts is not None:
            return source_position(time, starts[:source_frames])
        assert rate is not None
        return time * rate

    return by_positions(map(position, parse_times(times, fps)), source_frames)


def read_timecodes(path: Path) -> list[Fraction]:
    """Read a timecodes v2 file: a comment line, then milliseconds, one frame a line.

    Returns:
        Seconds, exact.

    Raises:
        OptionError: the file is absent, of another version, or a line is no number; names file and line.
    """
    text = _read_text("timestamps", path)
    header = text.partition("\n")[0].strip().lower()
    if header.startswith("#") and "format" in header and "v2" not in header:
        raise OptionError(f"timestamps file must be timecodes v2, got {shown(header)} in {path.name}; convert it to v2")
    return list(_milliseconds(path, text))


def read_curve(path: Path) -> list[tuple[Fraction, Fraction]]:
    """Read the points of a speed ramp: a CSV file, output seconds and source time a line; # begins a comment.

    Raises:
        OptionError: the file is absent, or a line is not two numbers; names file and line.
    """
    try:
        rows = list(csv.reader(_read_text("times", path).splitlines()))
    except csv.Error as error:
        raise OptionError(f"times file cannot be read, got {str(path)!r} ({error}); check its quotes") from error
    points = []
    for number, row in enumerate(rows, 1):
        if not row or row[0].lstrip().startswith("#"):
            continue
        try:
            output, source = map(parse_number, map(str.strip, row))
        except ValueError as error:
            if number == 1:
                continue  # the columns' names
            line = ",".join(row)
            raise OptionError(
                f"times file must hold output and source time, got {shown(line)} in line {number} of {path.name}; "
                "write two numbers a line, such as 1.5,0.75"
            ) from error
        points.append((output, source))
    return points


def _read_text(name: str, path: Path) -> str:
    """The text of a file of times."""
    try:
        if is_special(path):
            raise OptionError(f"{name} must be a file, got {str(path)!r}, a pipe or device; save it to a file")
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise OptionError(f"{name} file must have at most {_MOST_BYTES} bytes, got {size} in {path.name}; check it")
        return path.read_text(encoding="utf-8-sig")
    except OptionError:
        raise
    except (OSError, ValueError) as error:  # not UTF-8, or null characters in the name
        raise OptionError(f"{name} file cannot be read, got {shown(str(path))} ({error}); check the path") from error


def _milliseconds(path: Path, text: str) -> Iterator[Fraction]:
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        try:
            yield parse_number(line) / 1000
        except ValueError as error:
            raise OptionError(
                f"timestamps file must hold milliseconds, got {shown(line)} in line {number} of {path.name}; "
                "write one number a line"
            ) from error
