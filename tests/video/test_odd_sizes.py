"""Pictures of odd width and height with halved chroma keep their last column and row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media_clips import Programs, failure, turn, video
from vsrife.cli import main

pytestmark = pytest.mark.usefixtures("mixed_frames", "empty_folder")
BORDER = "if(eq(X,84)+eq(Y,46),200,50+N*10)"  # in the last column and row, else a grey that tells the frame


@pytest.fixture
def odd(programs: Programs) -> Path:
    """Five frames of 85x47."""
    filters = f"format=yuv444p,crop=85:47:0:0:exact=1,geq=lum='{BORDER}':cb=128:cr=128,format=yuv420p"
    programs.make("-f", "lavfi", "-i", "color=gray:s=86x48:r=25:d=0.2", "-vf", filters, "-c:v", "ffv1", "odd.mkv")
    return Path("odd.mkv")


@pytest.mark.parametrize(
    ("name", "options", "pix_fmt"),
    [("out.mkv", ["--codec", "ffv1"], "yuv420p"), ("out.webm", [], "yuv420p"), ("out.mp4", [], "yuv444p"),
     ("out.y4m", ["--y4m", "out.y4m"], "yuv420p"), ("out.mkv", ["--codec", "ffv1", "--start", "2f"], "yuv420p")],
)  # fmt: skip
def test_size_stays(name: str, options: list[str], pix_fmt: str, odd: Path, programs: Programs) -> None:
    out = [] if "--y4m" in options else [name]
    codec = ["--codec", "vp9", "--preset", "8"] if name.endswith("webm") else []
    assert video(odd, *out, *options, *codec, "--sc-threshold", "1") == 0
    stream = programs.stream(Path(name))
    assert (stream["width"], stream["height"], stream["pix_fmt"]) == (85, 47, pix_fmt)
    programs.make("-i", name, "-pix_fmt", "yuv444p", "-f", "rawvideo", "raw")
    frames = np.fromfile("raw", np.uint8).reshape(-1, 3, 47, 85)[:, 0].astype(int)
    assert frames[:, :, -1] == pytest.approx(200, abs=12)
    assert frames[:, -1] == pytest.approx(200, abs=12)
    first = 70 if "--start" in options else 50
    assert frames[1, 10, 10] == pytest.approx(first + 5, abs=3)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_pictures_have_the_whole_size(degrees: int, programs: Programs) -> None:
    """The last column and row, which are bright, are the first ones after a rotation."""
    filters = f"format=yuv444p,crop=85:47:0:0:exact=1,geq=lum='{BORDER}':cb=128:cr=128,format=yuv420p"
    programs.make(
        "-f", "lavfi", "-i", "color=gray:s=86x48:r=25:d=0.2", "-vf", filters, "-c:v", "libvpx-vp9", "-lossless", "1",
        "-cpu-used", "8", "in.mp4",
    )  # fmt: skip
    source = turn(Path("in.mp4"), Path("turned.mp4"), degrees)
    assert video(source, "--png", "out", "--sc-threshold", "1") == 0
    programs.make("-i", source, "-frames:v", "1", "expected.png")
    with Image.open("out/00000000.png") as made, Image.open("expected.png") as expected:
        assert made.size == expected.size == ((47, 85) if degrees % 180 else (85, 47))
        difference = np.asarray(made, np.int16) - np.asarray(expected.convert("RGB"), np.int16)
    assert abs(difference).max() < 12


def test_a_script_says_what_its_source_filter_drops(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["script", str(odd)]) == 0
    said = capsys.readouterr()
    assert "odd.mkv is 85x47, of which the script reads 84x46; `vsrife video` keeps all" in said.err
    assert "VideoSource" in said.out


def test_what_cannot_be_encoded_says_why(odd: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = failure(capsys, odd, "out.mkv", "--pix-fmt", "yuv420p")
    assert "cannot encode 85x47 yuv420p" in said
    assert "; the size is odd: leave --pix-fmt out, or give --codec vp9 or ffv1" in said


def test_one_pixel_comes_with_advice(programs: Programs, capsys: pytest.CaptureFixture[str]) -> None:
    filters = "format=yuv444p,crop=1:1:0:0:exact=1,format=yuv420p"
    programs.make("-f", "lavfi", "-i", "color=s=16x16:d=0.1", "-vf", filters, "-c:v", "ffv1", "in.mkv")
    assert "too small for this pixel format, convert it with: ffmpeg" in failure(capsys, "in.mkv", "out.mkv")


def test_pictures_have_the_whole_size(odd: Path) -> None:
    assert video(odd, "--png", "out") == 0
    with Image.open("out/00000000.png") as picture:
        assert picture.size == (85, 47)
