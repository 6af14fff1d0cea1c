"""Numbered pictures as source and as result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.media_clips import HEIGHT, WIDTH, Programs, video

pytestmark = pytest.mark.usefixtures("mixed_frames", "empty_folder")


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


def test_a_picture_of_another_size_is_refused_before_any_work(capsys: pytest.CaptureFixture[str]) -> None:
    write_sequence("shots", (40, 50, 60, 70, 80, 90))
    Image.new("RGB", (WIDTH + 2, HEIGHT)).save("shots/shot_006.png")
    assert video("shots", "--png", "out") == 1
    assert "must have the same size, got 64x48 (shots/shot_001.png) and 66x48 (shots/shot_006.png)" in (
        capsys.readouterr().err
    )
    assert [path.name for path in Path().iterdir()] == ["shots"]


def test_a_damaged_picture_is_named_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    write_sequence("shots", (40, 50, 60, 70, 80, 90))
    damaged = Path("shots/shot_006.png")
    damaged.write_bytes(damaged.read_bytes()[:60])
    assert video("shots", "--png", "out") == 1
    said = capsys.readouterr().err
    assert "picture cannot be read, got shots/shot_006.png" in said
    assert "Traceback" not in said
    assert said.count("\n") == 1
    assert not list(Path().glob("out/*.png"))  # all headers are read before any work
    Image.new("RGB", (WIDTH, HEIGHT), (90, 0, 0)).save(damaged)
    assert video("shots", "--png", "out") == 0
    assert red("out/00000011.png") == 90
    assert sorted(path.name for path in Path().iterdir()) == ["out", "shots"]


def test_pictures_of_mixed_kinds_become_one_clip(capsys: pytest.CaptureFixture[str]) -> None:
    """Grey, RGB and RGB with alpha are widened to what holds all; a gap in the numbers is told."""
    folder = Path("shots")
    folder.mkdir()
    for number, mode, color in ((1, "L", 40), (2, "RGB", (40, 40, 40)), (4, "RGBA", (40, 40, 40, 255))):
        Image.new(mode, (WIDTH, HEIGHT), color).save(folder / f"f{number}.png")
    assert video("shots", "--png", "out") == 0
    assert "shots: pictures 3 are missing (1 in all)" in capsys.readouterr().err
    for n in range(6):
        assert pixels(f"out/{n:08d}.png")[0, 0].tolist() == [40, 40, 40, 255]


def test_rotated_video_gives_upright_pictures(shared_data: Path) -> None:
    source = shared_data / "clips" / "phone_vfr_rotated_hevc.mp4"
    assert video(source, "--images", "out/%d.jpg", "--end", "1f") == 0
    with Image.open("out/0.jpg") as picture:
        assert picture.size == (1080, 1440)
