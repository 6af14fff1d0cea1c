"""Picture files: round trips, agreement with other programs, and refusals."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vsrife.errors import MediaError, OptionError
from vsrife.images.files import Picture, PictureHeader, alike, read_header, read_picture, write_picture

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LOSSLESS = [
    (suffix, dtype, channels)
    for suffix in (".png", ".tiff")
    for dtype in (np.uint8, np.uint16)
    for channels in (1, 2, 3, 4)
] + [(".webp", np.uint8, 3), (".webp", np.uint8, 4)]


def noise(dtype: type, channels: int, size: tuple[int, int] = (13, 17)) -> NDArray[np.uint8 | np.uint16]:
    """Noise over the whole range, in both bytes and under transparent pixels too."""
    random = np.random.default_rng(channels)
    pixels: NDArray[np.uint8 | np.uint16] = random.integers(0, int(np.iinfo(dtype).max) + 1, (*size, channels)).astype(
        dtype
    )
    if channels in (2, 4):
        pixels[:3, :, -1] = 0
    return pixels


@pytest.mark.parametrize(("suffix", "dtype", "channels"), LOSSLESS)
def test_written_pictures_are_read_again(suffix: str, dtype: type, channels: int, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    pixels = noise(dtype, channels)
    write_picture(path, Picture(pixels, ICC))
    got = read_picture(path)
    assert got.pixels.dtype == dtype
    assert np.array_equal(got.pixels, pixels)
    assert got.icc == ICC
    assert read_header(path) == got.header
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_programs_read_16_bits(suffix: str, channels: int, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    pixels = noise(np.uint16, channels)
    write_picture(path, Picture(pixels, ICC))
    theirs = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert theirs is not None
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[channels]
    assert np.array_equal(theirs.reshape(pixels.shape)[..., order], pixels)
    with Image.open(path) as image:
        assert image.info["icc_profile"] == ICC


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_of_other_programs_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture{suffix}"
    pixels = noise(np.uint16, 3)
    cv2.imwrite(str(path), pixels[..., ::-1])
    assert np.array_equal(read_picture(path).pixels, pixels)


def test_jpeg(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8)
    sizes = []
    for quality in (None, 30):
        write_picture(tmp_path / "a.jpg", Picture(ramp, ICC), quality=quality)
        got = read_picture(tmp_path / "a.jpg")
        assert np.abs(got.pixels.astype(int) - ramp).mean() < 3
        assert got.icc == ICC
        sizes.append((tmp_path / "a.jpg").stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff", "-lzw.tiff"])
def test_exif_orientation(orientation: int, suffix: str, tmp_path: Path) -> None:
    """Four corners of different brightness end up where they were in front of the camera."""
    corners = np.zeros((32, 48), np.uint8)
    corners[:16, 24:], corners[16:, :24], corners[16:, 24:] = 80, 160, 240
    stored = {  # EXIF: where row 0 and column 0 of what is stored lie in the upright picture
        1: corners, 2: corners[:, ::-1], 3: corners[::-1, ::-1], 4: corners[::-1], 5: corners.T,
        6: np.rot90(corners), 7: corners.T[::-1, ::-1], 8: np.rot90(corners, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if "lzw" in suffix else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / f"a{suffix}", exif=exif, **options)
    got = read_picture(tmp_path / f"a{suffix}").pixels
    assert got.shape == (32, 48, 1)
    assert read_header(tmp_path / f"a{suffix}") == PictureHeader(48, 32, 1, 8)
    assert np.abs(got[4::24, 4::40, 0].astype(int) - [[0, 80], [160, 240]]).max() < 8


def test_exif_orientation_of_16_bits(tmp_path: Path) -> None:
    pixels = noise(np.uint16, 3)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(0x0112, 3, 1, 6, True)])
    assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, np.rot90(pixels, -1))


def test_palettes_and_transparent_colours(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([255, 0, 0, 0, 128, 255])
    image.putpixel((2, 3), 0)
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=0)
    image.save(tmp_path / "still.gif")
    assert read_picture(tmp_path / "plain.png").pixels[3, 2].tolist() == [255, 0, 0]
    assert read_picture(tmp_path / "clear.png").pixels[3, 2].tolist() == [255, 0, 0, 0]
    assert read_picture(tmp_path / "clear.png").pixels[0, 0].tolist() == [0, 128, 255, 255]
    assert read_picture(tmp_path / "still.gif").pixels[0, 0].tolist() == [0, 128, 255]
    for compression in ("raw", "tiff_lzw"):
        image.save(tmp_path / "plain.tif", compression=compression)
        assert read_picture(tmp_path / "plain.tif").pixels[3, 2].tolist() == [255, 0, 0]


TIFF_COMPRESSIONS = ("raw", "packbits", "tiff_lzw", "zlib", "tiff_adobe_deflate", "lzma", "zstd", "jpeg")
TIFF_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "YCbCr")


@pytest.mark.parametrize("compression", TIFF_COMPRESSIONS)
@pytest.mark.parametrize("mode", TIFF_MODES)
def test_tiffs_of_every_compression(mode: str, compression: str, tmp_path: Path) -> None:
    """A file is read as it was saved, or refused; never as something else, such as black."""
    ramp = np.linspace(0, 255, 32 * 48, dtype=np.uint8).reshape(32, 48)
    rgba = Image.merge("RGBA", [Image.fromarray(channel) for channel in (ramp, ramp[::-1], ramp[:, ::-1], ramp)])
    image = rgba.quantize(64).convert("PA") if mode == "PA" else rgba.convert("RGB").quantize(64) if mode == "P" \
        else rgba.convert(mode)  # fmt: skip
    try:
        image.save(tmp_path / "a.tif", compression=compression)
    except OSError:
        pytest.skip("Pillow cannot write this combination")
    expected = {"1": "L", "P": "RGB", "PA": "RGBA", "YCbCr": "RGB"}.get(mode, mode)
    got = read_picture(tmp_path / "a.tif")
    assert read_header(tmp_path / "a.tif") == got.header
    difference = np.abs(np.squeeze(got.pixels).astype(int) - np.asarray(image.convert(expected)))
    assert difference.max() <= (40 if compression == "jpeg" else mode == "YCbCr")  # whose decoders round differently
    assert difference.mean() < 2


@pytest.mark.parametrize("compression", ["none", "zlib"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_tiffs_of_16_bits(channels: int, compression: str, tmp_path: Path) -> None:
    pixels = noise(np.uint16, channels)
    kinds: dict[str, Any] = {"photometric": "minisblack" if channels < 3 else "rgb", "planarconfig": "contig"}
    kinds["extrasamples"] = ["unassalpha"][channels % 2 :]
    for order in ("<", ">"):
        kinds["byteorder"] = order
        tifffile.imwrite(tmp_path / "a.tif", np.squeeze(pixels), compression=compression, **kinds)
        assert np.array_equal(read_picture(tmp_path / "a.tif").pixels, pixels)
    tifffile.imwrite(tmp_path / "white.tif", pixels[..., 0], photometric="miniswhite")
    assert np.array_equal(read_picture(tmp_path / "white.tif").pixels, ~pixels[..., :1])


def test_associated_alpha_becomes_straight(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint16)
    pixels[...] = 30000, 20000, 10000, 32768
    for name, extra in (("premultiplied.tif", "assocalpha"), ("other.tif", "unspecified")):
        tifffile.imwrite(tmp_path / name, pixels, photometric="rgb", extrasamples=[extra])
    assert read_picture(tmp_path / "premultiplied.tif").pixels[1, 1].tolist() == [59999, 39999, 20000, 32768]
    assert read_picture(tmp_path / "other.tif").pixels[1, 1].tolist() == [30000, 20000, 10000]


def test_pictures_are_made_alike() -> None:
    grey = Picture(np.array([[[1], [255]]], np.uint8), ICC)
    colours = Picture(np.array([[[1, 2, 3, 4], [5, 6, 7, 8]]], np.uint16))
    a, b = alike(grey, colours)
    assert a.pixels.tolist() == [[[257, 257, 257, 65535], [65535] * 4]]
    assert b.pixels.tolist() == colours.pixels.tolist()
    assert a.icc == ICC
    tall = Picture(np.zeros((2, 1, 3), np.uint8))
    with pytest.raises(OptionError, match=re.escape("must have the same size, got 2x1 (x.png) and 1x2 (y.png)")):
        alike(grey, tall, ("x.png", "y.png"))


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("a.gif", noise(np.uint8, 3), "must end in .png, .jpg, .jpeg, .webp, .tif, .tiff, got a.gif; give"),
        ("a", noise(np.uint8, 3), "must end in .png, .jpg"),
        ("a.jpg", noise(np.uint16, 3), "JPEG holds 8 bits a sample, got a picture of 16; use .png or .tiff"),
        ("a.webp", noise(np.uint16, 4), "WebP holds 8 bits a sample, got a picture of 16"),
        ("a.jpg", noise(np.uint8, 4), "JPEG holds no alpha, got a picture with alpha (a.jpg); use .png or .webp"),
        ("a.webp", np.zeros((1, 16384, 3), np.uint8), "WebP holds at most 16383 pixels a side, got 16384x1; use"),
    ],
)
def test_what_a_format_cannot_hold(name: str, picture: NDArray[np.uint8], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        write_picture(tmp_path / name, Picture(picture))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=re.escape("a.png cannot be written, got No such file or directory; make")):
        write_picture(tmp_path / "missing" / "a.png", Picture(noise(np.uint8, 3)))
    write_picture(tmp_path / "a.webp", Picture(noise(np.uint8, 3)))
    before = (tmp_path / "a.webp").read_bytes()
    with pytest.raises(OptionError):
        write_picture(tmp_path / "a.webp", Picture(noise(np.uint16, 3)))
    assert (tmp_path / "a.webp").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp", ".jpg"])
def test_damaged_files(suffix: str, dtype: type, tmp_path: Path) -> None:
    if dtype is np.uint16 and suffix in (".webp", ".jpg"):
        dtype = np.uint8
    path = tmp_path / f"a{suffix}"
    write_picture(path, Picture(noise(dtype, 3, (80, 90)), ICC))
    whole = path.read_bytes()
    for kept in (len(whole) - len(whole) // 3, 200, 9):
        path.write_bytes(whole[:kept])
        with pytest.raises(MediaError, match=re.escape(str(path))):
            read_picture(path)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".webp", ".jpg", ".gif"])
def test_flipped_bits_raise_media_errors_alone(suffix: str, tmp_path: Path) -> None:
    path, random = tmp_path / f"a{suffix}", np.random.default_rng(7)
    Image.fromarray(noise(np.uint8, 3, (12, 9))).save(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(150):
        damaged = whole.copy()
        at = random.integers(0, len(damaged), 3)
        damaged[at] ^= random.integers(1, 256, 3).astype(np.uint8)
        path.write_bytes(damaged.tobytes())
        try:
            with warnings.catch_warnings(action="ignore"):
                read_picture(path)
        except MediaError as error:
            assert str(path) in str(error)  # noqa: PT017 - damage in pixels may go unnoticed


def test_a_tiff_that_claims_more_than_memory_holds(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    tifffile.imwrite(path, noise(np.uint8, 3), photometric="rgb")
    with tifffile.TiffFile(path, mode="r+") as file:
        for name in ("ImageWidth", "ImageLength"):
            file.pages.first.tags[name].overwrite(65535)
    with pytest.raises(MediaError, match=r"at most 268435456 pixels, got .*huge\.tif of 65535x65535; its header"):
        read_picture(path)


def test_files_that_are_no_usable_picture(tmp_path: Path) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises(MediaError, match=message):
            read_picture(tmp_path / name)

    refused("missing.png", r"got .*missing\.png, which does not exist; check the name")
    (tmp_path / "text.png").write_text("hello")
    refused("text.png", "must be PNG, JPEG, WebP, TIFF, BMP or GIF, got .*text.png, which is not; convert it")
    refused("", "does not exist|cannot be read|must be a file")
    Image.new("CMYK", (8, 8)).save(tmp_path / "print.jpg")
    refused("print.jpg", "must be grey or RGB, got .*print.jpg of CMYK; convert it")
    frames = [Image.new("L", (8, 8), v) for v in (0, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    refused("moving.gif", "must be a single image, got .*moving.gif with 2 frames; read it with `vsrife video`")
    tifffile.imwrite(tmp_path / "float.tif", np.zeros((8, 8, 3), np.float32), photometric="rgb")
    refused("float.tif", "must have 8 or 16 bit grey or RGB, got .*float.tif of 32 bit RGB float32 .NONE.; convert it")
