"""The benchmark of repeated frames knows what repeats, and that the filter finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import duplicates
from tests.media_clips import Programs


def test_patterns_repeat_what_they_say() -> None:
    assert duplicates.held(6, duplicates.TWOS) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert duplicates.held(6, duplicates.IN_30) == [0, 1, 2, 2, 3, 4, 5]
    shown = duplicates.patterns(40)["at random"]
    assert sorted(set(shown)) == list(range(40))
    assert 1 < max(map(shown.count, shown)) <= 1 + duplicates.MOST


def test_repeats_of_the_sample_are_found(
    tmp_path: Path, sample: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "eval" / "sequences"
    folder.mkdir(parents=True)
    programs.make(
        "-i",
        sample,
        "-vf",
        "trim=start_frame=37,setpts=PTS-STARTPTS,scale=160:90",
        "-frames:v",
        "12",
        folder / "part.mp4",
    )
    output = tmp_path / "table.md"
    assert duplicates.main(["--data", str(tmp_path), "--part", "detection", "--output", str(output)]) == 0
    rows = [line.strip("| ").split(" | ") for line in output.read_text().splitlines() if "sequences," in line]
    assert len(rows) == 9
    for _, _, repeats, _, precision, recall in rows:
        assert int(repeats) > 0
        assert float(precision) > 0.8
        assert float(recall) > 0.8
    assert capsys.readouterr().out.count("| 1 sequences") == 9

    assert duplicates.main(["--data", str(tmp_path), "--part", "vdecimate"]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[4:-1]]
    assert len(rows) == 6
    for *_, dropped, near in rows:
        assert float(near.split(", ")[1]) >= float(dropped.split(", ")[1])  # recall
