"""`vsrife video`: many inputs, names of results, messages for machines."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from tests.media_clips import HEIGHT, WIDTH, Programs, video, write_greys
from vsrife.cli import main

pytestmark = pytest.mark.usefixtures("mixed_frames", "empty_folder")


def write_video(name: str, levels: tuple[int, ...] = (40, 60, 80)) -> Path:
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    write_greys(path, levels, range(len(levels) + 1), Fraction(1, 10))
    return path


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


def test_json_lines_tell_progress_and_result(
    tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.mkv", tmp_path / "out.mkv"
    programs.make(
        "-f", "lavfi", "-i", f"testsrc=size={WIDTH}x{HEIGHT}:rate=10:duration=0.1,loop=2:1:0,setpts=N/10/TB",
        "-f", "lavfi", "-i", f"mandelbrot=size={WIDTH}x{HEIGHT}:rate=10", "-filter_complex",
        "[1]trim=end_frame=2,format=yuv420p[b];[0]format=yuv420p[a];[a][b]concat", "-c:v", "ffv1", source,
    )  # fmt: skip
    assert main(["video", "--json", str(source), str(output)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = [json.loads(line) for line in said.out.splitlines()]
    assert lines[-1] == {
        "event": "done", "output": str(output), "frames": 10, "total": 10, "seconds": 0.5, "cuts": 1, "duplicates": 2
    }  # fmt: skip
    progress = [line for line in lines if line["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"] == 10
    assert progress[0]["eta"] is None  # nothing is done yet
    assert progress[-1]["eta"] == 0


def test_a_folder_that_cannot_be_made_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_video("in.mkv")
    Path("file").touch()
    assert video("in.mkv", "--output-dir", "file") == 1
    said = capsys.readouterr().err
    assert said == "vsrife: --output-dir file cannot be made, got: File exists; give another folder\n"


@pytest.mark.parametrize("arguments", [["in.mkv", "--y4m", "-", "-q"], ["script"], ["models"]], ids=" ".join)
def test_a_full_stdout_is_one_line(arguments: list[str]) -> None:
    write_greys(Path("in.mkv"), [40, 40], range(3), Fraction(1, 10))
    rest = {"script": ["script", "--mpv"], "models": ["models", "list"]}.get(arguments[0], ["video", *arguments])
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "vsrife", *rest], stdout=full, stderr=subprocess.PIPE, text=True, timeout=300
        )
    assert result.returncode == 1
    assert "cannot be written, got: No space left on device" in result.stderr
    assert "Traceback" not in result.stderr
