"""What the network sees of a frame is what zimg, VapourSynth's resizer, makes of it; and where chroma lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray
from torch import Tensor

from vsrife.engine.color import chroma_in_luma, luma_in_chroma, luma_range, to_rgb, to_samples
from vsrife.engine.formats import Colorimetry, PictureFormat

core = vs.core
CPU = torch.device("cpu")
LOCATIONS = ["left", "center", "top left", "top", "bottom left", "bottom"]
# zimg computes in float32 as we do; nothing else differs.
ZIMG_ERROR = 1e-6


def random_planes(fmt: PictureFormat, seed: int = 0) -> list[NDArray[Any]]:
    """Noise in every plane, with codes outside of the nominal range."""
    rng = np.random.default_rng(seed)
    planes: list[NDArray[Any]] = []
    for p in range(fmt.num_planes):
        shift_w, shift_h = (fmt.subsampling_w, fmt.subsampling_h) if p else (0, 0)
        size = (fmt.height >> shift_h, fmt.width >> shift_w)
        if fmt.floating:
            values = rng.random(size) * 1.2 - (0.6 if p and fmt.family == "YUV" else 0.1)
            planes.append(values.astype(np.float16 if fmt.bits == 16 else np.float32))
        else:
            planes.append(rng.integers(0, fmt.peak + 1, size).astype(np.uint8 if fmt.bits == 8 else np.uint16))
    return planes


def zimg_rgb(planes: list[NDArray[Any]], fmt: PictureFormat, **colour: int) -> NDArray[np.float32]:
    family = {"YUV": vs.YUV, "GRAY": vs.GRAY, "RGB": vs.RGB}[fmt.family]
    sample = vs.FLOAT if fmt.floating else vs.INTEGER
    target = core.query_video_format(family, sample, fmt.bits, fmt.subsampling_w, fmt.subsampling_h)
    blank = core.std.BlankClip(width=fmt.width, height=fmt.height, format=target.id, length=1)

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:  # noqa: ARG001 - passed by name
        result = f.copy()
        for p, plane in enumerate(planes):
            np.asarray(result[p])[:] = plane
        return result

    clip = blank.std.ModifyFrame([blank], fill).resize.Bilinear(format=vs.RGBS, **colour)
    with clip.get_frame(0) as frame:
        return np.stack([np.asarray(frame[p]).copy() for p in range(3)])


def our_rgb(planes: list[NDArray[Any]], fmt: PictureFormat, color: Colorimetry) -> NDArray[np.float32]:
    rgb: NDArray[np.float32] = to_rgb([torch.from_numpy(p)[None, None] for p in planes], fmt, color)[0].numpy()
    return rgb


SAMPLES = [(8, False), (10, False), (12, False), (16, False), (16, True), (32, True)]


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [1, 4, 5, 6, 7, 8, 9])
@pytest.mark.parametrize(("bits", "floating"), SAMPLES)
@pytest.mark.parametrize("subsampling", [(0, 0), (1, 1)], ids=["444", "420"])
def test_yuv_is_read_as_zimg_reads_it(
    bits: int, floating: bool, matrix: int, full_range: bool, subsampling: tuple[int, int]
) -> None:
    fmt = PictureFormat("YUV", bits, floating, 34, 18, *subsampling)
    planes = random_planes(fmt)
    expected = zimg_rgb(planes, fmt, matrix_in=matrix, range_in=int(full_range), chromaloc_in=0)
    got = our_rgb(planes, fmt, Colorimetry(matrix, full_range, 0))
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=ZIMG_ERROR)


@pytest.mark.parametrize("location", range(6), ids=LOCATIONS)
@pytest.mark.parametrize("subsampling", [(1, 1), (1, 0), (0, 1), (2, 2), (2, 0)], ids=str)
def test_chroma_location_is_that_of_zimg(location: int, subsampling: tuple[int, int]) -> None:
    fmt = PictureFormat("YUV", 8, False, 36, 20, *subsampling)
    planes = random_planes(fmt)
    expected = zimg_rgb(planes, fmt, matrix_in=1, range_in=0, chromaloc_in=location)
    got = our_rgb(planes, fmt, Colorimetry(1, False, location))
    np.testing.assert_allclose(got, expected, rtol=0, atol=ZIMG_ERROR)


@pytest.mark.parametrize(("bits", "floating"), SAMPLES)
@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("family", ["GRAY", "RGB"])
def test_gray_and_rgb_of_any_range(family: Any, bits: int, floating: bool, full_range: bool) -> None:
    fmt = PictureFormat(family, bits, floating, 35, 17)
    planes = random_planes(fmt)
    colour = {"range_in": int(full_range)} | ({"matrix_in": 1} if family == "GRAY" else {})
    expected = zimg_rgb(planes, fmt, **colour)
    np.testing.assert_allclose(our_rgb(planes, fmt, Colorimetry(1, full_range, 0)), expected, rtol=0, atol=ZIMG_ERROR)


@pytest.mark.parametrize("size", [(35, 17), (1, 1), (16, 1)], ids=str)
def test_odd_sizes_without_subsampling(size: tuple[int, int]) -> None:
    fmt = PictureFormat("YUV", 8, False, *size)
    planes = random_planes(fmt)
    got = our_rgb(planes, fmt, Colorimetry(6, False, 0))
    np.testing.assert_allclose(got, zimg_rgb(planes, fmt, matrix_in=6, range_in=0), rtol=0, atol=ZIMG_ERROR)


# --- props ------------------------------------------------------------------------------------------------------------

SD = PictureFormat("YUV", 8, False, 720, 576, 1, 1)
HD = PictureFormat("YUV", 8, False, 1280, 720, 1, 1)
RGB = PictureFormat("RGB", 8, False, 1280, 720)


@pytest.mark.parametrize(
    ("props", "fmt", "expected"),
    [
        ({}, SD, Colorimetry(6, False, 0)),
        ({}, HD, Colorimetry(1, False, 0)),
        ({}, RGB, Colorimetry(1, True, 0)),
        ({}, PictureFormat("GRAY", 8, False, 1280, 719), Colorimetry(6, False, 0)),
        ({"_Matrix": 9}, SD, Colorimetry(9, False, 0)),
        ({"_Matrix": 2}, HD, Colorimetry(1, False, 0)),  # "unspecified" leaves the guess
        ({"_Matrix": 2}, SD, Colorimetry(6, False, 0)),
        ({"_Matrix": 99}, SD, Colorimetry(6, False, 0)),
        ({"_ColorSpace": 9}, SD, Colorimetry(9, False, 0)),
        ({"_Matrix": 1, "_ColorSpace": 9}, SD, Colorimetry(1, False, 0)),
        ({"_Matrix": 2, "_ColorSpace": 9}, SD, Colorimetry(9, False, 0)),
        ({"_ColorRange": 0}, HD, Colorimetry(1, True, 0)),  # the older prop counts the other way
        ({"_ColorRange": 1}, HD, Colorimetry(1, False, 0)),
        ({"_ColorRange": 1}, RGB, Colorimetry(1, False, 0)),
        ({"_Range": 1}, HD, Colorimetry(1, True, 0)),
        ({"_Range": 0}, HD, Colorimetry(1, False, 0)),
        ({"_Range": 0}, RGB, Colorimetry(1, False, 0)),
        ({"_Range": 1, "_ColorRange": 1}, HD, Colorimetry(1, True, 0)),
        ({"_Range": 0, "_ColorRange": 0}, HD, Colorimetry(1, False, 0)),
        ({"_ChromaLocation": 2}, HD, Colorimetry(1, False, 2)),
        ({"_ChromaLocation": 5}, HD, Colorimetry(1, False, 5)),
        ({"_ChromaLocation": 6}, HD, Colorimetry(1, False, 0)),
        ({"_ChromaLocation": -1}, HD, Colorimetry(1, False, 0)),
    ],
)
def test_props(props: dict[str, int], fmt: PictureFormat, expected: Colorimetry) -> None:
    assert Colorimetry.from_props(props, fmt) == expected


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
def test_props_that_vapoursynth_writes(full_range: bool) -> None:
    """Whichever of the two range props this VapourSynth uses."""
    colour = vs.RANGE_FULL if full_range else vs.RANGE_LIMITED
    clip = core.std.BlankClip(format=vs.RGB24, width=64, height=64, length=1)
    clip = clip.resize.Bilinear(format=vs.YUV420P8, matrix_s="2020ncl", range=colour, chromaloc_s="top_left")
    with clip.get_frame(0) as frame:
        assert Colorimetry.from_props(frame.props, SD) == Colorimetry(9, full_range, 2)


# --- where samples lie ------------------------------------------------------------------------------------------------


def positions(axis: Any) -> Tensor:
    result: Tensor = axis.low + axis.weight
    return result


@pytest.mark.parametrize(
    ("location", "x", "y"),
    [(0, 0.0, 0.5), (1, 0.5, 0.5), (2, 0.0, 0.0), (3, 0.5, 0.0), (4, 0.0, 1.0), (5, 0.5, 1.0)],
    ids=LOCATIONS,
)
def test_chroma_in_luma_and_back(location: int, x: float, y: float) -> None:
    """H.273: each chroma sample's place in the luma grid; and the luma grid's in chroma is the inverse."""
    fmt, color = PictureFormat("YUV", 8, False, 12, 8, 1, 1), Colorimetry(1, False, location)
    there = chroma_in_luma(fmt, color, CPU)
    assert positions(there.columns).tolist() == [2 * i + x for i in range(6)]
    assert positions(there.rows).tolist() == [min(2 * i + y, 7) for i in range(4)]
    back = luma_in_chroma(fmt, color, CPU)
    assert positions(back.columns).tolist() == [min(max((i - x) / 2, 0), 5) for i in range(12)]
    assert positions(back.rows).tolist() == [min(max((i - y) / 2, 0), 3) for i in range(8)]


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "dtype"), [(8, torch.uint8), (10, torch.uint16), (16, torch.uint16)])
def test_integer_samples_are_rounded_and_kept_in_range(bits: int, dtype: torch.dtype) -> None:
    fmt = PictureFormat("YUV", bits, False, 4, 4)
    peak = 2**bits - 1
    got = to_samples(torch.tensor([-3.0, -0.4, 0.6, 100.4, 100.6, peak - 0.6, peak + 0.4, peak + 9.0]), fmt)
    assert got.dtype == dtype
    assert got.tolist() == [0, 0, 1, 100, 101, peak - 1, peak, peak]


def test_every_code_survives() -> None:
    for bits in (8, 9, 10, 12, 14, 16):
        fmt = PictureFormat("YUV", bits, False, 4, 4)
        codes = torch.arange(2**bits)
        assert torch.equal(to_samples(codes.float(), fmt).long(), codes)


def test_float_samples_are_not_clamped() -> None:
    values = torch.tensor([-0.25, 0.5, 1.25])
    for bits, dtype in ((16, torch.float16), (32, torch.float32)):
        got = to_samples(values, PictureFormat("RGB", bits, True, 4, 4))
        assert got.dtype == dtype
        assert torch.equal(got.float(), values)


@pytest.mark.parametrize(
    ("bits", "full_range", "expected"),
    [
        (8, False, (219, 16)),
        (10, False, (876, 64)),
        (16, False, (56064, 4096)),
        (8, True, (255, 0)),
        (10, True, (1023, 0)),
    ],
)
def test_black_and_white(bits: int, full_range: bool, expected: tuple[int, int]) -> None:
    assert luma_range(PictureFormat("RGB", bits, False, 4, 4), Colorimetry(1, full_range, 0)) == expected
