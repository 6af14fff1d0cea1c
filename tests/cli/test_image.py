"""`vsrife image`: what stands in the files that it writes, read by other programs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageSequence

import vsrife
from tests.clips import texture
from vsrife.cli import main
from vsrife.images.files import Picture, read_picture, write_picture
from vsrife.images.stitching import find_offset, stitch

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
WIDTH, HEIGHT = 64, 48


def view(x: int, dtype: type = np.uint8, alpha: bool = False, width: int = WIDTH) -> NDArray[Any]:
    """A texture that moves to the left as x grows."""
    peak = np.iinfo(dtype).max
    pixels: NDArray[Any] = (texture(128, HEIGHT, 3)[:, x : x + width] * peak).round().astype(dtype)
    if not alpha:
        return pixels
    ramp: NDArray[Any] = np.linspace(0, peak, HEIGHT).round().astype(dtype)[:, None, None].repeat(width, 1)
    return np.concatenate((pixels, ramp), axis=-1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a.png and b.png."""
    for name, x in (("a", 0), ("b", 4)):
        write_picture(tmp_path / f"{name}.png", Picture(view(x), ICC))
    return tmp_path


def run(folder: Path, *arguments: str, a: str = "a.png", b: str = "b.png") -> int:
    return main(["image", str(folder / a), str(folder / b), "--device", "cpu", "-q", *arguments])


def test_one_picture(folder: Path) -> None:
    assert run(folder, "-o", str(folder / "out.png")) == 0
    got = read_picture(folder / "out.png")
    assert np.array_equal(got.pixels, vsrife.interpolate(view(0), view(4), device="cpu"))
    assert got.icc == ICC
    assert np.abs(got.pixels.astype(int) - view(2))[4:-4, 4:-4].mean() < 4
    assert run(folder) == 0
    assert (folder / "a-b.png").read_bytes() == (folder / "out.png").read_bytes()
    assert run(folder, "--timestep", "1", "-o", str(folder / "end.png")) == 0
    assert np.array_equal(read_picture(folder / "end.png").pixels, view(4))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_with_alpha(folder: Path, suffix: str) -> None:
    for name, x in (("c", 0), ("d", 4)):
        write_picture(folder / f"{name}{suffix}", Picture(view(x, np.uint16, True), ICC))
    assert run(folder, a=f"c{suffix}", b=f"d{suffix}") == 0
    got = cv2.imread(str(folder / f"c-d{suffix}"), cv2.IMREAD_UNCHANGED)
    assert got is not None
    pair = view(0, np.uint16, True), view(4, np.uint16, True)
    assert np.array_equal(got[..., [2, 1, 0, 3]], vsrife.interpolate(*pair, device="cpu"))
    assert read_picture(folder / f"c-d{suffix}").icc == ICC


def test_pictures_that_differ_in_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A grey JPEG and RGB of 16 bits with alpha meet in what holds both."""
    Image.fromarray(view(0)[..., 1]).save(folder / "grey.jpg")
    write_picture(folder / "deep.png", Picture(view(4, np.uint16, True), ICC))
    assert run(folder, a="grey.jpg", b="deep.png") == 0
    assert read_picture(folder / "grey-deep.png").pixels.shape == (HEIGHT, WIDTH, 4)
    assert "have different ICC profiles; the result keeps that of" in capsys.readouterr().err


def test_several_pictures(folder: Path) -> None:
    (folder / "out").mkdir()
    assert run(folder, "--multi", "4", "-o", str(folder / "out")) == 0
    assert run(folder, "--timestep", "0.75", "--timestep", "0.25", "-o", str(folder / "x%03d.webp")) == 0
    assert sorted(p.name for p in (folder / "out").iterdir()) == ["a-b_1.png", "a-b_2.png", "a-b_3.png"]
    expected = vsrife.interpolate(view(0), view(4), [0.25, 0.5, 0.75], device="cpu")
    for n in range(3):
        assert np.array_equal(read_picture(folder / "out" / f"a-b_{n + 1}.png").pixels, expected[n])
    assert np.array_equal(read_picture(folder / "x001.webp").pixels, expected[2])
    assert np.array_equal(read_picture(folder / "x002.webp").pixels, expected[0])


@pytest.mark.parametrize("name", ["moving.gif", "moving.webp", "moving.apng", "moving.png"])
@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
def test_animations(folder: Path, name: str, alpha: bool) -> None:
    for letter, x in (("a", 0), ("b", 4)):
        write_picture(folder / f"{letter}.png", Picture(view(x, alpha=alpha), ICC))
    assert run(folder, "--multi", "4", "--rate", "30", "-o", str(folder / name)) == 0
    times = [0.25, 0.5, 0.75]
    between = vsrife.interpolate(view(0, alpha=alpha), view(4, alpha=alpha), times, device="cpu")
    expected = [view(0, alpha=alpha), *between, view(4, alpha=alpha)]
    with Image.open(folder / name) as image:
        frames, lasts = [], []
        for frame in ImageSequence.Iterator(image):
            frames.append(frame.copy())  # which loads it; a WebP knows its duration only then
            lasts.append(frame.info["duration"])
    assert lasts == ([30, 40, 30, 30, 40] if name.endswith("gif") else [33, 34, 33, 33, 34])
    for frame, pixels in zip(frames, expected, strict=True):
        got = np.asarray(frame.convert("RGBA" if alpha else "RGB")).astype(int)
        if not name.endswith("gif"):
            seen = pixels[..., -1:] > 0 if alpha else True  # WebP drops the colours that nobody sees
            assert np.array_equal(got * seen, pixels * seen)
        elif not alpha:
            assert np.abs(got - pixels).mean() < 12  # 256 colours, and noise instead of steps


@pytest.mark.parametrize("name", ["moving.mp4", "moving.webm", "moving.mkv"])
@pytest.mark.parametrize("width", [64, 63], ids=["even", "odd"])
def test_videos(folder: Path, name: str, width: int, ffprobe: str, ffmpeg: str) -> None:
    deep = name.endswith("mkv")
    dtype = np.uint16 if deep else np.uint8
    for letter, x in (("a", 0), ("b", 4)):
        write_picture(folder / f"{letter}.png", Picture(view(x, dtype, width=width), ICC))
    assert run(folder, "--multi", "4", "--rate", "30000/1001", "-o", str(folder / name)) == 0
    entries = "stream=width,height,pix_fmt,color_space,color_range,avg_frame_rate,nb_read_frames"
    command = [ffprobe, "-v", "error", "-count_frames", "-show_entries", entries, "-of", "json", str(folder / name)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["streams"][0]
    expected = {
        "width": width, "height": HEIGHT, "avg_frame_rate": "30000/1001", "nb_read_frames": "5", "color_space": "bt709",
        "color_range": "tv", "pix_fmt": f"yuv{'420' if width == 64 else '444'}p{'10le' if deep else ''}",
    }  # fmt: skip
    assert {key: found.get(key) for key in expected} == expected
    command = [ffmpeg, "-v", "error", "-i", str(folder / name), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    frames = np.frombuffer(raw, np.uint8).reshape(5, HEIGHT, width, 3)
    for frame, x in zip(frames, range(5), strict=True):
        assert np.abs(frame.astype(int) - view(x, width=width))[4:-4, 4:-4].mean() < 6


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "b.png"], 2, "would replace the input, got "),
        (["-o", "b.png", "--overwrite"], 2, "would replace the input, got "),
        (["-o", "there.png"], 2, "there.png exists; give another name, or --overwrite to replace it"),
        (["-o", "out.bmp"], 2, "picture file must end in .png, .jpg, .jpeg, .webp, .tif, .tiff, got out.bmp; give one"),
        (["-o", "out.avi", "--rate", "5"], 2, "an animation or video must end in .gif, .webp, .apng, .png, .mp4"),
        (["-o", "none/out.png"], 1, "out.png cannot be written, got No such file or directory"),
        (["--multi", "3", "--timestep", "0.5"], 2, "--multi and --timestep exclude each other"),
        (["--timestep", "1.5"], 2, "1.5 is not in the range 0<=x<=1"),
        (["--timestep", "nan"], 2, "nan is no finite number"),
        (["--multi", "1000000000"], 2, "1000000000 is not in the range 2<=x<=100000"),
        (["--multi", "9" * 5000], 2, "999… (5002 characters) is not a valid integer"),
        (["--stitch", "--offset", "9" * 5000], 2, "999… (5002 characters); write it like 640,-3"),
        (["-o", "out.png", "--model", "no such"], 2, "no such"),
        (["-o", "out.gif", "--rate", "fast"], 2, "fast"),
    ],
)
def test_what_cannot_be(
    folder: Path, arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    write_picture(folder / "there.png", Picture(view(0)))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run(folder, *arguments) == code
    assert message in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_inputs_that_cannot_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_picture(folder / "small.png", Picture(view(0, width=32)))
    (folder / "bad.png").write_bytes((folder / "a.png").read_bytes()[:500])
    for b, code, message in (
        ("small.png", 2, "must have the same size, got 64x48"),
        ("bad.png", 1, "picture cannot be read, got "),
        ("missing.png", 1, "which does not exist; check the name"),
    ):
        assert run(folder, b=b) == code
        assert message in capsys.readouterr().err
    write_picture(folder / "deep.png", Picture(view(0, np.uint16)))
    assert run(folder, "-o", str(folder / "out.gif"), b="deep.png") == 2
    assert "GIF animations hold 8 bits a sample, got pictures of 16; use .mkv" in capsys.readouterr().err
    write_picture(folder / "alpha.png", Picture(view(0, alpha=True)))
    assert run(folder, "-o", str(folder / "out.mp4"), b="alpha.png") == 2
    assert ".mp4 cannot hold alpha here, got pictures with alpha; use .webp or .apng" in capsys.readouterr().err


def test_overwrite_and_lines_for_machines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder / "out.png"
    out.write_bytes(b"old")
    arguments = ["image", str(folder / "a.png"), str(folder / "b.png"), "--device", "cpu", "-o", str(out)]
    assert main([*arguments, "--overwrite", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1] == {"event": "written", "path": str(out)}
    assert read_picture(out).pixels.shape == (HEIGHT, WIDTH, 3)


def views() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two views that overlap, of which the right one is bent by up to 2 pixels."""
    scene = (texture(192, 96, 5) * 255).round().astype(np.uint8)
    rows, columns = np.mgrid[:92, :112].astype(np.float32)
    bent = np.sin(rows / 15) * 2 * (columns < 96)
    right = cv2.remap(np.ascontiguousarray(scene[4:, 80:]), columns + bent, rows, cv2.INTER_LINEAR)
    return scene[:90, :128], right.astype(np.uint8)


def test_stitching(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left, right = views()
    for name, pixels in (("left.png", left), ("right.png", right)):
        write_picture(folder / name, Picture(pixels, ICC))
    arguments = ["image", str(folder / "left.png"), str(folder / "right.png"), "--stitch", "--device", "cpu"]
    assert main(arguments) == 0
    assert re.search(r"offset of .*right\.png in .*: (79|80|81),4", capsys.readouterr().err)
    assert main([*arguments, "--offset", "80,4", "-q", "-o", str(folder / "wide.png")]) == 0
    got = read_picture(folder / "wide.png")
    assert got.icc == ICC
    assert got.pixels.shape == (86, 192, 3)
    assert np.array_equal(got.pixels[:, :81], left[4:, :81])
    assert np.array_equal(got.pixels[:, 127:], right[:86, 47:])
    ramp = np.linspace(0, 1, 48, dtype=np.float32)[None].repeat(86, 0)
    overlap = vsrife.interpolate(left[4:, 80:], right[:86, :48], ramp, device="cpu")
    assert np.array_equal(got.pixels[:, 80:128], overlap)


def test_stitching_finds_any_side() -> None:
    scene = (texture(192, 160, 6) * 255).round().astype(np.uint8)
    a, b = scene[:100], scene[64:]
    assert find_offset(a, b) == (0, 64)
    assert find_offset(b, a) == (0, -64)
    assert np.array_equal(stitch(b, a, device="cpu"), scene)
    assert np.array_equal(stitch(a, b, (0, 64), device="cpu"), scene)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stitch"], "pictures must overlap, got no match at any offset"),
        (["--stitch", "--offset", "60,0"], "must overlap by 16 pixels or more and neither hold the other, got 64x48"),
        (["--stitch", "--offset", "0,0"], "must overlap by 16 pixels or more and neither hold the other, got 64x48"),
        (["--stitch", "--offset", "left"], "--offset must be two whole numbers X,Y, got 'left'"),
        (["--offset", "1,2"], "--offset needs --stitch, got '1,2' without it"),
        (["--stitch", "--multi", "3"], "--stitch makes one picture, got --multi, --timestep or --rate as well"),
    ],
)
def test_what_cannot_be_stitched(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
    for name, pixels in zip(("a.png", "b.png"), noise, strict=True):
        write_picture(folder / name, Picture(pixels))
    assert run(folder, *arguments) == 2
    assert message in capsys.readouterr().err
    assert len(list(folder.iterdir())) == 2
