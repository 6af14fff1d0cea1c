"""A video as an animation: every frame at its time, with alpha, and refused if it cannot fit into memory."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.media_clips import HEIGHT, WIDTH, failure, video, write_greys
from vsrife.errors import OptionError
from vsrife.images.animation import check_animation
from vsrife.images.files import PictureHeader

pytestmark = pytest.mark.usefixtures("mixed_frames", "empty_folder")


def frames_of(path: str) -> tuple[list[tuple[int, ...]], list[float]]:
    """The first pixel and the duration of each frame, ms."""
    with Image.open(path) as image:
        frames = [frame.copy() for frame in ImageSequence.Iterator(image)]
    pixels = [tuple(int(v) for v in np.asarray(frame.convert("RGBA"))[0, 0]) for frame in frames]
    return pixels, [float(frame.info["duration"]) for frame in frames]


@pytest.mark.parametrize("name", ["out.gif", "out.webp", "out.apng"])
def test_frames_and_durations(name: str) -> None:
    write_greys(Path("in.mkv"), [40, 60, 80], range(4), Fraction(1, 10))
    assert video("in.mkv", name) == 0
    pixels, durations = frames_of(name)
    reds = [pixel[0] for pixel in pixels]
    assert reds[::2] == sorted(reds[::2])
    assert len(set(reds[:5])) == 5
    assert durations[:4] == [50] * 4  # equal frames at the end may become one
    assert sum(durations) == 300
    assert video("in.mkv", name) == 2  # it exists


def test_variable_rate_keeps_its_times() -> None:
    write_greys(Path("in.mkv"), [40, 60, 80], [0, 100, 300, 400], Fraction(1, 1000))
    assert video("in.mkv", "out.webp") == 0
    assert frames_of("out.webp")[1][:4] == [50, 50, 100, 100]


def test_alpha_stays() -> None:
    folder = Path("shots")
    folder.mkdir()
    for n, level in enumerate((40, 60), 1):
        Image.new("RGBA", (WIDTH, HEIGHT), (level, 0, 0, 128)).save(folder / f"{n}.png")
    assert video("shots", "out.webp") == 0
    pixels, _ = frames_of("out.webp")
    assert [pixel[3] for pixel in pixels] == [128] * len(pixels)
    assert pixels[0][0] == 40


def test_frames_larger_than_a_format_allows_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """WebP's sides have at most 16383 pixels."""
    Path("wide.y4m").write_bytes(b"YUV4MPEG2 W16400 H2 F25:1 C444\n" + b"FRAME\n" + bytes(3 * 16400 * 2))
    assert "wide.webp cannot be written, got: " in failure(capsys, "wide.y4m", "wide.webp")


def test_too_much_for_memory_is_refused() -> None:
    with pytest.raises(OptionError, match=r"are made in memory, got 3000 frames of 1920x1080 \(17\.4 GiB, at most 4\)"):
        check_animation(Path("a.gif"), PictureHeader(1920, 1080, 3, 8), 3000)
    check_animation(Path("a.mp4"), PictureHeader(1920, 1080, 3, 8), 3000)
