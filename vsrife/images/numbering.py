"""Numbered picture files: patterns such as frame_%04d.png, folders and globs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from glob import glob
from itertools import pairwise
from pathlib import Path

from vsrife.errors import MediaError
from vsrife.images.files import PICTURE_SUFFIXES

_NUMBER = re.compile(r"%0?(\d{0,2})d")
_LAST_DIGITS = re.compile(r"(.*?)(\d+)(\D*)")


def numbered(pattern: Path, number: int) -> Path | None:
    """The name of picture `number` of a pattern such as "frame_%04d.png"; None if the name holds no number."""
    match = _NUMBER.search(pattern.name)
    if match is None:
        return None
    return pattern.with_name(f"{pattern.name[: match.start()]}{number:0{match[1] or 1}}{pattern.name[match.end() :]}")


def find_sequence(text: str) -> list[Path]:
    """Find the picture files that a text names, in order.

    Args:
        text: a folder (all pictures in it), a numbered pattern such as "frame_%04d.png", a glob such as
            "shots/*.png", or one file. Folders and globs are sorted by the numbers in the names: 2 before 10.

    Raises:
        MediaError: there are none, or a numbered sequence has gaps.
    """
    path = Path(text)
    if path.is_file():
        return [path]
    if path.is_dir():
        pictures = [p for p in path.iterdir() if p.suffix.lower() in (*PICTURE_SUFFIXES, ".bmp") and p.name[0] != "."]
    elif _NUMBER.search(path.name):
        return _matching(path)
    else:
        pictures = [p for p in map(Path, glob(text)) if p.is_file()]  # noqa: PTH207 - the folder may be a pattern, too
    if not pictures:
        raise MediaError(f"no pictures found, got {text}; give a folder, a pattern like frame_%04d.png or a glob")
    return sorted(pictures, key=_numeric_order)


def missing_numbers(paths: Sequence[Path]) -> list[int]:
    """Numbers left out in a sequence, such as 3 in f1.png, f2.png, f4.png.

    Empty if the names differ in more than their last number, if the numbers rise in even steps (f000, f010, f020), or
    if they are so far apart that they are no count, such as times of day.
    """
    matches = [_LAST_DIGITS.fullmatch(path.name) for path in paths]
    if len({match and (match[1], match[3]) for match in matches}) != 1:
        return []
    numbers = sorted(int(match[2]) for match in matches if match)
    steps = {after - before for before, after in pairwise(numbers)}
    if len(steps) < 2 or numbers[-1] - numbers[0] > 10 * len(numbers):
        return []
    return sorted(set(range(numbers[0], numbers[-1])) - set(numbers))


def _numeric_order(path: Path) -> list[tuple[int, str]]:
    """A key that sorts digits within names by their value."""
    return [(int(part), part) if part.isdigit() else (-1, part.lower()) for part in re.split(r"(\d+)", str(path))]


def _matching(pattern: Path) -> list[Path]:
    before, digits, after = _NUMBER.split(pattern.name, maxsplit=1)
    name = re.compile(f"{re.escape(before)}(\\d{{{digits or 1},}}){re.escape(after)}")
    folder = pattern.parent
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    files = {int(match[1]): folder / match[0] for match in map(name.fullmatch, names) if match}
    if not files:
        raise MediaError(f"no pictures found, got {pattern}; check folder and name")
    missing = sorted(set(range(min(files), max(files))) - set(files))
    if missing:
        raise MediaError(
            f"numbers must follow one another, got {pattern} without {missing[0]}"
            f"{f' and {len(missing) - 1} more' if missing[1:] else ''}; to leave them out give a glob with *"
        )
    return [files[number] for number in sorted(files)]
