"""Whole runs of `vsrife video`, and inputs and options that it must refuse."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from tests.media_clips import Programs, failure, video, write_greys

pytestmark = pytest.mark.usefixtures("mixed_frames")


def test_sample_becomes_48_fps_with_its_sound(sample: Path, tmp_path: Path, programs: Programs) -> None:
    """With the network, as a program of its own, cut short to two frames."""
    output = tmp_path / "sample-48fps.mp4"
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "vsrife",
        "video",
        sample,
        output,
        "--start",
        "34f",
        "--end",
        "37f",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "wrote" in result.stderr
    assert "6 frames, 1 scene cut," in result.stderr
    assert "100%" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["sample-48fps.mp4"]
    kept = (
        "codec_name",
        "pix_fmt",
        "color_range",
        "color_space",
        "color_transfer",
        "color_primaries",
        "width",
        "height",
    )
    before, after = programs.stream(sample), programs.stream(output)
    assert [after.get(key) for key in kept] == [before.get(key) for key in kept]
    assert after["avg_frame_rate"] == "48/1"
    assert programs.times(output) == [Fraction(n, 48) for n in range(6)]
    assert programs.stream(output, "audio")["codec_name"] == programs.stream(sample, "audio")["codec_name"]


def test_whole_sample_keeps_its_sound_bit_for_bit(sample: Path, tmp_path: Path, programs: Programs) -> None:
    output = tmp_path / "out.mp4"
    assert video(sample, output, "--preset", "ultrafast") == 0
    assert programs.times(output) == [Fraction(n, 48) for n in range(144)]
    entries = ("-select_streams", "a", "-show_entries", "packet=pts,size,data_hash", "-show_data_hash", "md5")
    assert programs.probe(output, *entries)["packets"] == programs.probe(sample, *entries)["packets"]
    assert programs.stream(output, "audio") == programs.stream(sample, "audio")


def test_one_frame(tmp_path: Path, programs: Programs) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_greys(source, [90], [0, 100], Fraction(1, 1000), codec="libx264", qp="0")
    assert video(source, output) == 0
    assert programs.times(output) == [0, Fraction(1, 20)]
    assert programs.end(output) == Fraction(1, 10)
    assert programs.greys(output) == pytest.approx([90, 90], abs=1)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["out.webm", "--codec", "x265"], "webm cannot hold x265; it holds svt-av1, vp9; .mkv holds most"),
        (["out.mkv", "--codec", "nonsense"], "--codec must be x264, x265,"),
        (
            ["out.mkv", "--pix-fmt", "yuv411p"],
            "--pix-fmt must be a format of libx264, got 'yuv411p'; give one of yuv420p",
        ),
        (["out.mkv", "--codec", "ffv1", "--crf", "20"], "ffv1 has no crf, got --crf 20; leave --crf out"),
        (["out.mkv", "--preset", "warp"], "libx264 cannot encode 64x48 yuv420p with crf=18, preset=warp"),
        (["out.m3u8"], "a playlist with its segments is no single file, got 'out.m3u8'"),
        (["out.xyz"], "no container has the suffix of 'out.xyz'"),
        (["absent/out.mkv"], "cannot be written, got no folder absent"),
        (["out.mkv", "--start", "5", "--end", "1"], "no frame lies between --start and --end"),
        (["out.mkv", "--start", "9" * 5000], "--start must be a time like 90, 1:30"),
        (["out.mkv", "--end", "9" * 5000 + "f"], "--end must be a time like 90, 1:30"),
        (["out.mkv", "--multi", "1e999999999"], "multi must be a number, got '1e999999999'"),
        (["out.mkv", "--fps", "1e-999999999"], "fps must be a number, got '1e-999999999'"),
        (["out.mkv", "--segment", "1e999999999"], "--segment must be a number above 0, got '1e999999999'"),
        (["out.mkv", "--multi", "1" * 6000], "… (6002 characters); write it as 2, 2.5"),
        (["out.mkv", "--rate", "1/1000000"], "a frame must last at most a day, got 500000 s; give a higher --rate"),
        (["out.mkv", "--start", "abc"], "--start must be a time like 90, 1:30"),
        (["out.mkv", "--multi", "0.5"], "--multi must be at least 1, got '0.5'; for a lower rate give --fps"),
        (["out.mkv", "--multi", "zero"], "--multi must be a number, got 'zero'; write it as 2, 2.5 or 5/2\n"),
        (["out.mkv", "--multi", ""], "an argument must not be empty, got ''"),
        (
            ["out.mkv", "--rate", "2000000000"],
            "there must be at most 1000000 frames per second, got 4e+09; give --rate",
        ),
        (["out.mkv", "--multi", "9999999"], "multi must be a smaller or simpler number for a clip of this length"),
        (["out.mkv", "--slow-motion", "0.5"], "--slow-motion must be at least 1, got '0.5'; --retime speeds up"),
        (["out.mkv", "--rate", "x"], "--rate must be a number, got 'x'"),
        (["out.mkv", "--device", "abacus"], "--device cannot be used, got 'abacus'"),
        (["out.mkv", "--precision", "fp8"], "--precision must be one of fp32, fp16, bf16, int8, got 'fp8'"),
        (["out.mkv", "--sc-threshold", "nan"], "nan is no finite number"),
        (["--png", "there.mkv"], "pictures go into a folder, got the file there.mkv; give another name"),
        (["--images", "o/%099999999d.png"], "pictures need a number in their name, got '%099999999d.png'"),
        (["a\0b.mkv"], "an argument must be without null characters"),
        (["out.mkv", "--multi", "3", "--fps", "60"], "give one of them"),
        (["out.mkv", "--model", "4.99"], "4.99"),
        (["in.mkv"], "the output would replace the input"),
        (["there.mkv"], "there.mkv exists; give --overwrite to replace it, or another name"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_greys(Path("in.mkv"), [40, 60], range(3), Fraction(1, 10))
    Path("there.mkv").write_text("an earlier result")
    source = Path("in.mkv").read_bytes()
    assert expected in failure(capsys, "in.mkv", *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mkv", "there.mkv"]
    assert Path("there.mkv").read_text() == "an earlier result"
    assert Path("in.mkv").read_bytes() == source


@pytest.mark.parametrize("content", ["absent", "empty", "text", "sound", "cut short", "cut short mkv"])
def test_what_cannot_be_read_is_one_line_and_leaves_nothing(
    content: str, sample: Path, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.mp4", tmp_path / "out.mkv"
    if content == "empty":
        source.touch()
    elif content == "text":
        source.write_text("no video at all")
    elif content == "sound":
        programs.make("-f", "lavfi", "-i", "sine=440:duration=1", source)
    elif content == "cut short":
        source.write_bytes(sample.read_bytes()[:100_000])
    elif content == "cut short mkv":
        source = tmp_path / "in.mkv"
        programs.make("-i", sample, "-c", "copy", source)
        source.write_bytes(source.read_bytes()[:100_000])
    expected = {
        "absent": "cannot be read, got: No such file", "empty": "is empty, got 0 bytes",
        "text": "cannot be read, got: Invalid",
        "sound": "holds no video, got audio", "cut short": "of 72 frames; copy it again, or give --end",
        "cut short mkv": "of more frames; copy it again, or give --end",
    }[content]  # fmt: skip
    said = failure(capsys, source, output)
    assert str(source) in said
    assert expected in said
    assert {path.name for path in tmp_path.iterdir()} <= {source.name}
