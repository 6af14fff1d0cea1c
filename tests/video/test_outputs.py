"""`vsrife video`: many inputs, pictures in and out, raw frames to a pipe, the source beside the result."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.clips import linear_engine
from tests.media_clips import HEIGHT, WIDTH, Programs, write_greys
from vsrife.cli import main

TENTH = Fraction(1, 10)


@pytest.fixture(scope="module")
def programs(ffmpeg: str, ffprobe: str) -> Programs:
    return Programs(ffmpeg, ffprobe)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder; new frames are mixed, which takes no time."""
    monkeypatch.chdir(tmp_path)
    with linear_engine():
        yield


def video(*arguments: str | Path) -> int:
    return main(["video", "--quiet", *map(str, arguments)])


def write_video(name: str, levels: tuple[int, ...] = (40, 60, 80)) -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    write_greys(path, levels, range(len(levels) + 1), TENTH)
    return path


def write_sequence(folder: str, levels: tuple[int, ...] = (40, 60, 80), *, deep: bool = False) -> Path:
    """Numbered PNG files of flat red with that much red, 16 bits if `deep`."""
    path = Path(folder)
    path.mkdir()
    for number, level in enumerate(levels, 1):
        if deep:
            Image.fromarray(np.full((HEIGHT, WIDTH), level * 257, np.uint16)).save(path / f"shot_{number:03d}.png")
        else:
            Image.new("RGB", (WIDTH, HEIGHT), (level, 0, 0)).save(path / f"shot_{number:03d}.png")
    return path


def pixels(path: str | Path) -> NDArray[Any]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def red(path: str | Path) -> int:
    return int(pixels(path)[0, 0, 0])


# --- many inputs ------------------------------------------------------------------------------------------------------


def test_one_failure_does_not_stop_the_others(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("in/a.mkv", "in/b.mkv", "in/d.avi"):
        write_video(name)
    Path("in/c.mkv").write_text("no video")
    Path("in/notes.txt").write_text("nor is this")
    assert video("in", "--output-dir", "out") == 1
    assert sorted(path.name for path in Path("out").iterdir()) == ["a.mkv", "b.mkv", "d.mkv"]
    said = capsys.readouterr().err
    assert "vsrife: in/c.mkv: in/c.mkv cannot be read, got: Invalid data" in said
    assert "1 of 4 failed:" in said
    assert programs.greys(Path("out/b.mkv")) == pytest.approx([40, 50, 60, 70, 80, 80], abs=1)

    write_video("in/c.mkv")
    made = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    assert video("in/*.mkv", "--output-dir", "out", "--skip-existing") == 0
    assert {path: path.stat().st_mtime_ns for path in made} == made
    assert Path("out/c.mkv").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["in"], "2 videos found, got no --output-dir"),
        (["in/a.mkv", "in/b.mkv", "in/c.mkv"], "several inputs need --output-dir, got 3 names"),
        (["in/a.mkv", "other/a.mkv", "--output-dir", "out"], "two inputs would become out/a.mkv"),
        (["*.mov", "out.mkv"], "no videos and no pictures found, got *.mov"),
        (["in/a.mkv", "out.mkv", "--container", "mp4"], "--container goes with --output-dir"),
        (["in/a.mkv", "--png", "p", "--y4m", "-"], "one kind of result at a time, got --png and --y4m"),
        (["in/a.mkv", "--images", "p/frame.png"], "pictures need a number in their name, got 'frame.png'"),
        (["in/a.mkv", "--png", "p", "--pix-fmt", "yuv420p"], "pictures are RGB or grey"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_unclear_places_are_refused(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("in/a.mkv", "in/b.mkv", "other/a.mkv"):
        write_video(name, (40, 60))
    assert video(*arguments) in (1, 2)
    assert expected in capsys.readouterr().err
    assert {path.name for path in Path().iterdir()} - {"out"} == {"in", "other"}


def test_without_a_name_the_result_stands_beside_its_source(programs: Programs) -> None:
    write_video("clip.avi")
    assert video("clip.avi") == 0
    assert video("clip.avi", "--fps", "60000/1001", "--codec", "ffv1") == 0
    assert {path.name for path in Path().iterdir()} == {"clip.avi", "clip-2x.mkv", "clip-60000-1001fps.mkv"}
    assert programs.stream(Path("clip-60000-1001fps.mkv"))["codec_name"] == "ffv1"


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_pictures_become_a_video(programs: Programs) -> None:
    write_sequence("shots")
    for name, source in (("a.mp4", "shots"), ("b.mp4", "shots/shot_%03d.png"), ("c.mp4", "shots/*.png")):
        assert video(source, name, "--rate", "30000/1001") == 0
        stream = programs.stream(Path(name))
        assert (stream["avg_frame_rate"], stream["nb_frames"]) == ("60000/1001", "6")
        assert (stream["pix_fmt"], stream["color_range"], stream["color_space"]) == ("yuv420p", "tv", "smpte170m")
    reds = Path("reds")
    reds.mkdir()
    programs.make("-i", "b.mp4", "reds/%d.png")
    levels = [red(reds / f"{n}.png") for n in range(1, 7)]
    assert levels == pytest.approx([40, 50, 60, 70, 80, 80], abs=4)


def test_pictures_become_pictures() -> None:
    write_sequence("shots")
    assert video("shots", "--png", "out") == 0
    assert sorted(path.name for path in Path().iterdir()) == ["out", "shots"]
    names = [f"{n:08d}.png" for n in range(6)]
    assert sorted(path.name for path in Path("out").iterdir()) == names
    reds = [pixels(Path("out") / name) for name in names]
    assert [picture[0, 0].tolist() for picture in reds] == [[level, 0, 0] for level in (40, 50, 60, 70, 80, 80)]
    for n in range(3):
        assert np.array_equal(reds[2 * n], pixels(f"shots/shot_{n + 1:03d}.png"))


def test_sixteen_bits_stay(programs: Programs) -> None:
    write_sequence("deep", deep=True)
    assert video("deep", "--images", "out/f_%02d.tiff") == 0
    values = [pixels(f"out/f_{n:02d}.tiff")[0, 0] for n in range(6)]
    assert values == [257 * level for level in (40, 50, 60, 70, 80, 80)]
    assert video("deep", "deep.mkv", "--codec", "ffv1") == 0
    assert programs.stream(Path("deep.mkv"))["pix_fmt"] == "gray16le"


def test_a_picture_unlike_the_others_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    write_sequence("shots", (40, 50, 60, 70, 80, 90))
    Image.new("RGB", (WIDTH + 2, HEIGHT)).save("shots/shot_006.png")
    assert video("shots", "--png", "out") == 1
    said = capsys.readouterr().err
    assert "shot_006.png is unlike the first picture, got 66x48" in said
    assert said.count("\n") == 1
    assert red("out/00000000.png") == 40  # what came before is kept
    assert video("shots", "--png", "out") == 2
    assert "00000000.png exists; give --overwrite" in capsys.readouterr().err
    Image.new("RGB", (WIDTH, HEIGHT), (90, 0, 0)).save("shots/shot_006.png")
    assert video("shots", "--png", "out", "--overwrite") == 0
    assert red("out/00000011.png") == 90
    assert sorted(path.name for path in Path().iterdir()) == ["out", "shots"]


def test_rotated_video_gives_upright_pictures(shared_data: Path) -> None:
    source = shared_data / "clips" / "phone_vfr_rotated_hevc.mp4"
    assert video(source, "--images", "out/%d.jpg", "--end", "1f") == 0
    with Image.open("out/0.jpg") as picture:
        assert picture.size == (1080, 1440)


# --- pipe -------------------------------------------------------------------------------------------------------------


def test_raw_frames_go_through_a_pipe(programs: Programs) -> None:
    """As the first half of a command line, in a process of its own, without the network: nothing moves."""
    write_greys(Path("in.mkv"), [90, 90, 90], range(4), TENTH, pix_fmt="yuv422p")
    command = [sys.executable, "-m", "vsrife", "video", "in.mkv", "--y4m", "-"]
    result = subprocess.run(command, capture_output=True, timeout=300)
    assert [path.name for path in Path().iterdir()] == ["in.mkv"]
    assert result.returncode == 0, result.stderr
    header, _, frames = result.stdout.partition(b"\n")
    assert header == b"YUV4MPEG2 W64 H48 F20:1 Ip A1:1 C422 XCOLORRANGE=LIMITED" or header.endswith(b"C422")
    assert len(frames) == 6 * (len(b"FRAME\n") + WIDTH * HEIGHT * 2)
    Path("out.y4m").write_bytes(result.stdout)
    assert programs.greys(Path("out.y4m")) == [90] * 6


@pytest.mark.parametrize(
    ("pix_fmt", "tag"),
    [
        ("yuv420p", "C420mpeg2"), ("yuv444p", "C444"), ("yuva444p", "C444alpha"), ("gray", "Cmono"),
        ("yuv420p10le", "C420p10 XYSCSS=420P10"),
    ],
)  # fmt: skip
def test_other_programs_read_raw_frames(pix_fmt: str, tag: str, programs: Programs) -> None:
    write_greys(Path("in.mkv"), [40, 60], range(3), TENTH, pix_fmt="yuva444p" if "a444" in pix_fmt else "yuv420p")
    programs.make("-i", "in.mkv", "-pix_fmt", pix_fmt, "-c:v", "ffv1", "same.mkv")
    assert video("same.mkv", "--y4m", "out.y4m") == 0
    assert Path("out.y4m").read_bytes().split(b"\n")[0].decode().split(" XCOLOR")[0].endswith(tag)
    stream = programs.stream(Path("out.y4m"))
    assert (stream["pix_fmt"], stream["avg_frame_rate"]) == (pix_fmt, "20/1")
    if "10" not in pix_fmt:
        dark, bright = programs.greys(Path("same.mkv"))
        assert programs.greys(Path("out.y4m")) == pytest.approx([dark, (dark + bright) / 2, bright, bright], abs=1)


def test_a_variable_rate_does_not_fit_a_pipe(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    write_greys(Path("in.mkv"), [40, 60, 80, 90], [0, 100, 250, 300, 420], Fraction(1, 1000))
    assert video("in.mkv", "--y4m", "out.y4m") == 2
    assert "y4m has one frame rate, got a source whose rate varies" in capsys.readouterr().err
    assert not Path("out.y4m").exists()
    assert video("in.mkv", "--y4m", "out.y4m", "--fps", "25") == 0
    assert programs.stream(Path("out.y4m"))["avg_frame_rate"] == "25/1"


# --- montage ----------------------------------------------------------------------------------------------------------


def test_montage_shows_the_source_at_the_left(programs: Programs) -> None:
    write_video("in.mkv")
    assert video("in.mkv", "out.mkv", "--montage", "--codec", "ffv1") == 0
    stream = programs.stream(Path("out.mkv"))
    assert (stream["width"], stream["height"]) == (2 * WIDTH, HEIGHT)
    for side, levels in (("0", [40, 40, 60, 60, 80, 80]), (str(WIDTH), [40, 50, 60, 70, 80, 80])):
        programs.make("-i", "out.mkv", "-vf", f"crop={WIDTH}:{HEIGHT}:{side}:0", "-c:v", "ffv1", f"{side}.mkv")
        assert programs.greys(Path(f"{side}.mkv")) == levels
