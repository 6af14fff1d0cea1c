"""`examples/encode.py`, run as a user runs it."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

ROOT = Path(__file__).parents[1]


def encode(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [sys.executable, ROOT / "examples" / "encode.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def probe(ffprobe: str, path: Path, entries: str) -> Any:
    command: list[str | Path] = [ffprobe, "-v", "error", "-count_frames", "-show_entries", entries, "-of", "json", path]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def write_clip(path: Path, durations: list[int], unit: Fraction, start: int = 0) -> None:
    """A small clip in which a bar moves, whose frames last `durations` units."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = unit
        time = start
        for number, duration in enumerate(durations):
            picture = av.VideoFrame(64, 48, "gray")
            picture.planes[0].update(bytes(200 if x // 8 == number % 8 else 60 for _ in range(48) for x in range(64)))
            picture = picture.reformat(format="yuv420p")
            picture.pts, picture.time_base = time, unit
            time += duration
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def shown(path: Path) -> list[Fraction]:
    """When the frames of a file are shown, in seconds."""
    with av.open(str(path)) as container:
        return [
            frame.pts * Fraction(str(frame.time_base)) for frame in container.decode(video=0) if frame.pts is not None
        ]


def test_sample_becomes_48_fps_with_its_sound(sample: Path, tmp_path: Path, ffprobe: str) -> None:
    output = tmp_path / "smooth.mp4"
    result = encode(sample, output)
    assert result.returncode == 0, result.stderr
    assert "144 of 144 frames" in result.stderr
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["smooth.mp4"]

    entries = "stream=codec_name,nb_read_frames,r_frame_rate,avg_frame_rate,pix_fmt,color_range,color_space,"
    entries += "color_transfer,color_primaries,width,height,start_time,duration"
    picture, sound = probe(ffprobe, output, entries)["streams"]
    source_picture, source_sound = probe(ffprobe, sample, entries)["streams"]
    assert picture == source_picture | {"nb_read_frames": "144", "r_frame_rate": "48/1", "avg_frame_rate": "48/1"}
    assert sound == source_sound
    assert shown(output) == [Fraction(n, 48) for n in range(144)]
    with av.open(str(sample)) as before, av.open(str(output)) as after:
        packets = [[bytes(packet) for packet in container.demux(audio=0)] for container in (before, after)]
    assert packets[0] == packets[1]


def test_variable_rate_stays_in_sync(tmp_path: Path) -> None:
    source, output = tmp_path / "vfr.mp4", tmp_path / "smooth.mp4"
    durations = [1001, 1001, 3003, 2002, 1001, 4004, 1001, 1001]
    write_clip(source, durations, Fraction(1, 24000), start=12000)
    result = encode(source, output, "--multi", "5/2")
    assert result.returncode == 0, result.stderr
    starts = [Fraction(12000 + sum(durations[:n]), 24000) for n in range(8)]
    expected = [
        starts[left] + t * Fraction(durations[left], 24000)
        for left, t in ((n * 2 // 5, Fraction(n * 2 % 5, 5)) for n in range(20))
    ]
    # The reader does not know how long the last source frame lasts, which 19 begins in the middle of.
    assert shown(output)[:19] == expected[:19]
    assert len(shown(output)) == 20


def test_variable_rate_becomes_constant(tmp_path: Path) -> None:
    source, output = tmp_path / "vfr.mp4", tmp_path / "smooth.mp4"
    durations = [1001, 1001, 3003, 2002, 1001, 4004, 1001, 1001]
    write_clip(source, durations, Fraction(1, 24000))
    result = encode(source, output, "--fps", "60")
    assert result.returncode == 0, result.stderr
    # The last frame lasts as long as the one before.
    assert shown(output) == [Fraction(n, 60) for n in range(math.ceil(sum(durations) * Fraction(60, 24000)))]


def test_a_file_cut_short_is_told(sample: Path, tmp_path: Path) -> None:
    source = tmp_path / "short.mp4"
    source.write_bytes(sample.read_bytes()[:100_000])
    result = encode(source, tmp_path / "smooth.mp4")
    assert re.match(r"only \d+ of 72 frames can be read; is the file whole\?\n", result.stderr)


def test_the_input_is_never_replaced(tmp_path: Path) -> None:
    source = tmp_path / "same.mp4"
    write_clip(source, [1000] * 4, Fraction(1, 24000))
    before = source.read_bytes()
    result = encode(source, tmp_path / "." / "same.mp4")
    assert result.returncode == 2
    assert "the output would replace the input" in result.stderr
    assert source.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["absent.mp4", "out.mp4"], "No such file or directory: 'absent.mp4'"),
        (["text.mp4", "out.mp4"], "Invalid data found when processing input: 'text.mp4'"),
        (["SAMPLE", "out.mp4", "--multi", "0.5"], "RIFE: multi must be at least 1, got '0.5'"),
        (["SAMPLE", "out.mp4", "--model", "4.26.absent"], "got '4.26.absent'"),
        (["SAMPLE", "out.unknown"], "Could not determine output format"),
        (["SAMPLE", "absent/out.mp4"], "No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_fails_is_one_line_and_leaves_nothing(
    arguments: list[str], expected: str, sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "out.mp4").write_text("the result of an earlier run")
    result = encode(*(str(sample) if argument == "SAMPLE" else argument for argument in arguments))
    assert result.returncode == 1
    assert result.stderr.startswith(f"encode.py: cannot make {arguments[1]}: ")
    assert expected in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mp4", "text.mp4"]
    assert (tmp_path / "out.mp4").read_text() == "the result of an earlier run"
