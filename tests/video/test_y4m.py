"""Raw frames for other programs."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from tests.media_clips import HEIGHT, WIDTH, Programs, video, write_greys

pytestmark = pytest.mark.usefixtures("mixed_frames", "empty_folder")


def test_raw_frames_go_through_a_pipe(programs: Programs) -> None:
    """As the first half of a command line, in a process of its own, without the network: nothing moves."""
    write_greys(Path("in.mkv"), [90, 90, 90], range(4), Fraction(1, 10), pix_fmt="yuv422p")
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
    made_as = "yuva444p" if "a444" in pix_fmt else "yuv420p"
    write_greys(Path("in.mkv"), [40, 60], range(3), Fraction(1, 10), pix_fmt=made_as)
    programs.make("-i", "in.mkv", "-pix_fmt", pix_fmt, "-c:v", "ffv1", "same.mkv")
    assert video("same.mkv", "--y4m", "out.y4m") == 0
    assert Path("out.y4m").read_bytes().split(b"\n")[0].decode().split(" XCOLOR")[0].endswith(tag)
    stream = programs.stream(Path("out.y4m"))
    assert (stream["pix_fmt"], stream["avg_frame_rate"]) == (pix_fmt, "20/1")
    if "10" not in pix_fmt:
        dark, bright = programs.greys(Path("same.mkv"))
        middle = (dark + bright) / 2
        if made_as == "yuva444p":  # colours count by their alpha, which is as large as the grey here
            middle = (dark**2 + bright**2) / (dark + bright)
        assert programs.greys(Path("out.y4m")) == pytest.approx([dark, middle, bright, bright], abs=1)


def test_a_variable_rate_does_not_fit_a_pipe(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    write_greys(Path("in.mkv"), [40, 60, 80, 90], [0, 100, 250, 300, 420], Fraction(1, 1000))
    assert video("in.mkv", "--y4m", "out.y4m") == 2
    assert "y4m has one frame rate, got a source whose rate varies" in capsys.readouterr().err
    assert not Path("out.y4m").exists()
    assert video("in.mkv", "--y4m", "out.y4m", "--fps", "25") == 0
    assert programs.stream(Path("out.y4m"))["avg_frame_rate"] == "25/1"
