"""Files that players play: clocks, missing times, tracks and names that are out of the ordinary."""

from __future__ import annotations

import os
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from tests.conftest import VSPipe
from tests.media_clips import HEIGHT, WIDTH, Programs, failure, video, write_greys
from vsrife.cli import main

pytestmark = pytest.mark.usefixtures("mixed_frames", "empty_folder")
PICTURE = ("-f", "lavfi", "-i", f"testsrc2=s={WIDTH}x{HEIGHT}:r=25:d=0.4")
SOUND = ("-f", "lavfi", "-i", "sine=440:d=0.4")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def audio_times(programs: Programs, path: Path) -> list[float]:
    return [float(time) for time in programs.times(path, "a:0")]


def test_first_frame_of_a_transport_stream_is_shown(programs: Programs) -> None:
    programs.make("-f", "lavfi", "-i", "testsrc2=r=30:s=64x48:d=0.4", "-c:v", "libx264", "-pix_fmt", "yuv420p", "v.ts")
    for name in ("out.mp4", "out.mov", "out.mkv"):
        assert video("v.ts", name, "--preset", "ultrafast") == 0
        times = programs.times(Path(name))
        assert times[0] == 0
        assert len(programs.frame_hashes(Path(name))) == len(times) == 24


def test_a_clock_that_restarts_goes_on(programs: Programs) -> None:
    programs.make(*PICTURE, *SOUND, *X264, "-c:a", "aac", "a.ts")
    Path("joined.ts").write_bytes(Path("a.ts").read_bytes() * 3)
    assert video("joined.ts", "out.mp4", "--preset", "ultrafast") == 0
    times = [float(time) for time in programs.times(Path("out.mp4"))]
    assert times == pytest.approx([times[0] + n / 50 for n in range(60)], abs=0.02)
    sound = audio_times(programs, Path("out.mp4"))
    assert sound == sorted(sound)
    assert sound[-1] == pytest.approx(times[-1], abs=0.1)


def test_late_and_repeating_files_are_complete(programs: Programs) -> None:
    """A Matroska file that starts at 5 s; an AVI whose index counts a chunk without data, which repeats a frame."""
    programs.make(*PICTURE, *SOUND, *X264, "-c:a", "aac", "in.mp4")
    programs.make("-i", "in.mp4", "-c", "copy", "-output_ts_offset", "5", "late.mkv")
    programs.make(*PICTURE, *SOUND, "-c:v", "mpeg4", "-vtag", "XVID", "-c:a", "libmp3lame", "repeat.avi")
    for name in ("late.mkv", "repeat.avi"):
        assert video(name, "out.mkv", "--overwrite", "--preset", "ultrafast") == 0
        assert len(programs.times(Path("out.mkv"))) == 20


def test_sound_before_an_edit_list_stays_hidden(programs: Programs) -> None:
    programs.make(*PICTURE, *SOUND, *X264, "-g", "50", "-c:a", "aac", "in.mp4")
    programs.make("-ss", "0.2", "-i", "in.mp4", "-c", "copy", "edit.mp4")
    for name in ("out.mkv", "out.mp4"):
        assert video("edit.mp4", name, "--preset", "ultrafast") == 0
        shown = programs.probe(Path(name), "-select_streams", "a", "-show_entries", "packet=pts_time,flags")["packets"]
        heard = [float(packet["pts_time"]) for packet in shown if "D" not in packet["flags"]]
        assert heard[0] > programs.times(Path(name))[0] - 0.06


def test_the_first_track_need_not_be_the_film(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    programs.make(
        "-f", "lavfi", "-i", f"color=red:s={WIDTH}x{HEIGHT}:d=0.04", *PICTURE, "-map", "0", "-map", "1",
        "-c:v:0", "mjpeg", "-c:v:1", "libx264", "-pix_fmt", "yuv420p", "two.mkv",
    )  # fmt: skip
    assert video("two.mkv", "out.mkv", "--preset", "ultrafast") == 0
    assert len(programs.times(Path("out.mkv"))) == 20
    assert "track 0 (video, mjpeg) left out" in capsys.readouterr().err
    assert video("two.mkv", "first.mkv", "--video-track", "0", "--preset", "ultrafast") == 0
    assert len(programs.times(Path("first.mkv"))) == 2
    capsys.readouterr()
    expected = f"two.mkv: 0 (mjpeg {WIDTH}x{HEIGHT}), 1 (h264 {WIDTH}x{HEIGHT}); got 5"
    assert expected in failure(capsys, "two.mkv", "none.mkv", "--video-track", "5")


def test_a_size_that_changes_can_be_scaled(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    programs.make(*PICTURE, *X264, "large.ts")
    programs.make("-f", "lavfi", "-i", "testsrc2=s=32x24:r=25:d=0.4", *X264, "small.ts")
    Path("both.ts").write_bytes(Path("large.ts").read_bytes() + Path("small.ts").read_bytes())
    assert f"got {WIDTH}x{HEIGHT} at first; give --resize" in failure(capsys, "both.ts", "out.mkv")
    assert video("both.ts", "out.mkv", "--resize", "--preset", "ultrafast") == 0
    stream = programs.stream(Path("out.mkv"))
    assert (stream["width"], stream["height"], len(programs.times(Path("out.mkv")))) == (WIDTH, HEIGHT, 40)


def test_a_format_that_changes_can_be_converted(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    programs.make(*PICTURE, *X264, "a.ts")
    programs.make(*PICTURE, *X264[:-1], "yuv422p10le", "b.ts")
    Path("both.ts").write_bytes(Path("a.ts").read_bytes() + Path("b.ts").read_bytes())
    assert "changes its picture size or format" in failure(capsys, "both.ts", "out.mkv")
    assert video("both.ts", "out.mkv", "--resize", "--preset", "ultrafast") == 0
    assert (programs.stream(Path("out.mkv"))["pix_fmt"], len(programs.times(Path("out.mkv")))) == ("yuv420p", 40)


@pytest.mark.parametrize("name", ["Movie: Part 2.mkv", "concat:a|b.mkv", "-100%d.mkv", "film 映画 'x'.mkv"])
def test_names_are_no_protocols(name: str, programs: Programs) -> None:
    write_greys(Path("in.mkv"), [40, 60], range(3), Fraction(1, 10))
    Path("in.mkv").rename(Path(name))
    Path("sub").mkdir()
    assert video("--codec", "ffv1", "--", name, f"sub/{name}") == 0
    assert len(programs.times(Path("sub", name).absolute())) == 4


def test_protocols_are_no_names(capsys: pytest.CaptureFixture[str]) -> None:
    write_greys(Path("a.mkv"), [40, 60], range(3), Fraction(1, 10))
    for name in ("concat:a.mkv|a.mkv", "data:video/x-matroska;base64,AAAA", "subfile,,start,0,end,0,,:a.mkv"):
        assert "cannot be read, got: No such file" in failure(capsys, name, "out.mkv")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_need_not_be_utf_8(programs: Programs, capfd: pytest.CaptureFixture[str], vspipe: VSPipe) -> None:
    """As names of files and folders, in and out; in a script, which is text, as bytes."""
    folder, name = Path(os.fsdecode(b"f\xfcr")), os.fsdecode(b"Gr\xfc\xdfe.mkv")
    folder.mkdir()
    write_greys(Path("in.mkv"), [40, 60], range(3), Fraction(1, 10))
    Path("in.mkv").rename(folder / name)
    assert video(folder / name, os.fsdecode(b"o\xff.mkv"), "--codec", "ffv1") == 0
    assert video(folder, "--output-dir", os.fsdecode(b"\xe9t\xe9"), "--codec", "ffv1") == 0
    for output in (Path(os.fsdecode(b"o\xff.mkv")), Path(os.fsdecode(b"\xe9t\xe9"), name)):
        assert len(programs.times(output)) == 4
    capfd.readouterr()
    assert main(["script", str(folder / name)]) == 0
    Path("printed.vpy").write_text(capfd.readouterr().out, encoding="utf-8")
    shown = vspipe(Path("printed.vpy"), "--info")
    assert b"Frames: 4" in shown.stdout, shown.stderr.decode()
    assert main(["video", os.fsdecode(b"absent\xff.mkv"), "out.mkv"]) == 1
    assert ".mkv cannot be read, got: No such file" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["a.y4m", "a.mkv"])
def test_a_video_without_frames_comes_with_advice(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.y4m").write_bytes(b"YUV4MPEG2 W64 H48 F25:1\n")
    with av.open("a.mkv", "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        container.start_encoding()
    said = failure(capsys, name, "out.mkv")
    assert "convert it with: ffmpeg -i FILE" in said
    assert f"{name} cannot be read, got: " in said


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".apng", ".avif"])
def test_animated_pictures_are_videos(suffix: str, programs: Programs) -> None:
    path = Path(f"in{suffix}")
    frames = [Image.new("RGBA", (WIDTH, HEIGHT), (level, level, level, 255)) for level in (40, 80, 120)]
    every: dict[str, dict[str, Any]] = {".webp": {"lossless": True}, ".apng": {"format": "PNG"}}
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[100, 200, 100], **every.get(suffix, {}))
    assert video(path, "out.mkv", "--codec", "ffv1", "--sc-threshold", "1") == 0
    times = programs.times(Path("out.mkv"))
    assert [float(time) for time in times] == pytest.approx([0, 0.05, 0.1, 0.2, 0.3, 0.35], abs=0.001)
    programs.make("-i", "out.mkv", "-pix_fmt", "gray", "-color_range", "pc", "-c:v", "ffv1", "grey.mkv")
    assert programs.greys(Path("grey.mkv"))[1] == pytest.approx(60, abs=8)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes among files")
def test_a_pipe_is_refused_instead_of_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("in.mkv")
    assert "got in.mkv, a pipe or device; save it to a file" in failure(capsys, "in.mkv", "out.mkv")
