"""Numbered picture files are found in the order of their numbers, and gaps in a pattern are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from vsrife.errors import MediaError
from vsrife.images.numbering import find_sequence, missing_numbers, numbered


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("f_%04d.png", "f_0012.png"), ("f_%d.png", "f_12.png"), ("f_%5d.x.png", "f_00012.x.png"), ("f.png", None)],
)
def test_numbers_in_names(pattern: str, name: str | None) -> None:
    assert numbered(Path("out") / pattern, 12) == (None if name is None else Path("out") / name)


def test_sequences(tmp_path: Path) -> None:
    names = [f"f{n}.png" for n in (1, 2, 9, 10, 11)] + ["notes.txt", ".f3.png.1.part"]
    for name in names:
        (tmp_path / name).touch()
    expected = [tmp_path / f"f{n}.png" for n in (1, 2, 9, 10, 11)]
    assert find_sequence(str(tmp_path)) == expected
    assert find_sequence(str(tmp_path / "f*.png")) == expected
    assert find_sequence(str(tmp_path / "f2.png")) == [tmp_path / "f2.png"]
    with pytest.raises(MediaError, match=r"must follow one another, got .*f%d.png without 3 and 5 more; to leave"):
        find_sequence(str(tmp_path / "f%d.png"))
    for n in range(7, 12):
        (tmp_path / f"shot[1]_{n:03}.png").touch()
    found = find_sequence(str(tmp_path / "shot[1]_%03d.png"))
    assert [p.name[-7:-4] for p in found] == ["007", "008", "009", "010", "011"]
    for text in ("none*.png", "none_%04d.png", "none", "none/%d.png"):
        with pytest.raises(MediaError, match="no pictures found, got "):
            find_sequence(str(tmp_path / text))


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (["f1.png", "f2.png", "f4.png", "f7.png"], [3, 5, 6]),
        (["f1.png", "f2.png", "f3.png"], []),
        (["f000.png", "f010.png", "f020.png"], []),  # every tenth on purpose
        (["take2_001.png", "take2_003.png", "take2_004.png"], [2]),
        (["f1.png", "g3.png", "g4.png"], []),
        (["20260101-120000.png", "20260101-120001.png", "20260101-181500.png"], []),
        (["a.png", "b.png"], []),
        (["f1.png"], []),
    ],
    ids=lambda value: ",".join(map(str, value)),
)
def test_missing_numbers(names: list[str], missing: list[int]) -> None:
    assert missing_numbers([Path("shots") / name for name in names]) == missing
