"""Too little memory: what is tried, what the pictures look like then, and what is said in the end."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import vapoursynth as vs
from numpy.typing import NDArray
from torch import Tensor

from tests.clips import clip_of, converted, core, equal, panned, planes_of, psnr_db
from tests.golden import tensors
from vsrife import RIFE, interpolate
from vsrife.engine import loaded
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.engine.memory import out_of_memory
from vsrife.engine.sources import InputFrame
from vsrife.engine.synthesis import Motion
from vsrife.engine.tiling import LEAST_CONTEXT_PX, Cut, Tiling
from vsrife.errors import DeviceError
from vsrife.networks import pyramid
from vsrife.networks.catalogue import LEGACY_LAYOUTS, MODELS
from vsrife.networks.fold import FoldedNet, fold
from vsrife.networks.legacy import LegacyNet

CPU = torch.device("cpu")
LEAST_PSNR_DB = 48.0
DIVIDED = "cpu has too little memory for the motion of a whole frame of .* in {} overlapping tiles"
Size = tuple[int, int]


@contextmanager
def memory_for(width: int, height: int, failures: int = 10**9) -> Iterator[list[Size]]:
    """A device whose memory ends where a larger padded picture is prepared; the sizes that were tried."""
    tried: list[Size] = []
    real = pyramid.encode

    def encode(*arguments: Any) -> pyramid.Features:
        nonlocal failures
        source = real(*arguments)
        tried.append((source.size[1], source.size[0]))
        if source.size[0] * source.size[1] > width * height and failures > 0:
            failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return source

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyramid, "encode", encode)
        yield tried
        gc.collect()  # ends what filters still work on ahead


def peak_of(plane: NDArray[Any]) -> float:
    return 1.0 if plane.dtype.kind == "f" else float(np.iinfo(plane.dtype).max)


def assert_like(got: Sequence[NDArray[Any]], expected: Sequence[NDArray[Any]], near: slice = slice(None)) -> None:
    for a, b in zip(got, expected, strict=True):
        assert psnr_db(a[..., near], b[..., near], peak_of(b)) > LEAST_PSNR_DB


# --- what a user sees -------------------------------------------------------------------------------------------------


def test_film_in_halves_shows_no_seam(sample: Path) -> None:
    film = core.bs.VideoSource(str(sample), cachemode=0).std.SelectEvery(72, [40, 42, 44], modify_duration=False)
    clip = film.resize.Spline36(1280, 720).std.CropAbs(1280, 128, 0, 280)
    whole = [planes_of(RIFE(clip, device="cpu", sc_threshold=1.0), n) for n in (1, 3)]
    with memory_for(832, 128) as tried:
        output = RIFE(clip, device="cpu", sc_threshold=1.0)
        with pytest.warns(RuntimeWarning, match=DIVIDED.format(2)) as told:
            halves = [planes_of(output, n) for n in (1, 3)]
        assert tried.count((1280, 128)) == 2  # as it was, and once more with nothing kept; later pairs begin in halves
        assert {*tried} == {(1280, 128), (320, 64), (832, 128)}
        again = [planes_of(output, n) for n in (3, 1)]
    assert len(told) == 1
    assert equal(again[1], halves[0])
    assert equal(again[0], halves[1])
    for got, expected in zip(halves, whole, strict=True):
        assert not equal(got, expected)
        assert_like(got, expected)
        luma, true = got[0], expected[0]
        assert psnr_db(luma[:, 608:672], true[:, 608:672], 255) > LEAST_PSNR_DB
        assert np.abs(luma[:, 608:672].astype(int) - true[:, 608:672]).max() <= 4


@pytest.mark.parametrize("fmt", ["YUV410P8", "RGB30", "RGBS", "GRAYH"])
def test_every_format_and_what_is_carried(fmt: str) -> None:
    clip = clip_of([panned(n, 1000, 60, 4) for n in range(2)], fmt)
    carried = converted(clip_of([panned(n, 500, 30, 2) for n in range(2)]), "GRAY16")

    def frames() -> list[list[NDArray[Any]]]:
        return [planes_of(node, 1) for node in RIFE(clip, device="cpu", sc_threshold=1.0, carry=[carried])]

    whole = frames()
    with memory_for(704, 64), pytest.warns(RuntimeWarning, match=DIVIDED.format(2)):
        halves = frames()
    for got, expected in zip(halves, whole, strict=True):
        scale = [1023 / 65535 if fmt == "RGB30" and plane.shape[1] == 1000 else 1 for plane in expected]
        assert_like([g / (s * peak_of(g)) for g, s in zip(got, scale, strict=True)],
                    [e / (s * peak_of(e)) for e, s in zip(expected, scale, strict=True)])  # fmt: skip


def test_quarters_where_halves_are_too_large_and_a_time_for_every_pixel() -> None:
    a, b = ((255 * panned(n, 1930, 50, 6)).astype(np.uint8) for n in (0, 1))
    times = np.linspace(0, 1, a.shape[1], dtype=np.float32) * np.ones((a.shape[0], 1), np.float32)
    whole = interpolate(a, b, times, device="cpu", tta_temporal=True)
    with memory_for(1024, 64) as tried, pytest.warns(RuntimeWarning, match=DIVIDED.format(4)):
        quarters = interpolate(a, b, times, device="cpu", tta_temporal=True)
    assert [size for i, size in enumerate(tried) if size not in tried[:i]][:3] == [(1984, 64), (512, 64), (1152, 64)]
    assert not np.array_equal(quarters, whole)
    assert_like([quarters], [whole])
    assert np.array_equal(quarters[:, 0], a[:, 0])
    assert np.array_equal(quarters[:, -1], b[:, -1])


def test_what_is_kept_goes_first_and_the_picture_is_the_same() -> None:
    clip = clip_of([panned(n, 64, 64) for n in range(3)], "YUV420P8")
    expected = [planes_of(RIFE(clip, device="cpu"), n) for n in range(6)]
    with memory_for(32, 32, failures=1):  # another program's need, that passes
        output = RIFE(clip, device="cpu")
        unused = network(NetworkOptions(None, 0.5, False, CPU, torch.float32))
        assert unused in loaded._networks.values()
        del unused
        assert all(equal(planes_of(output, n), expected[n]) for n in range(6))
    assert [options.scale for options, *_ in loaded._networks] == [1.0]  # the one in use stays


def test_error_names_what_was_tried_and_later_frames_work() -> None:
    clip = clip_of([panned(n, 960, 64) for n in range(3)], "YUV420P8")
    output = RIFE(clip, device="cpu")
    with memory_for(64, 64):
        for n, left in ((1, 0), (3, 1)):  # both pairs, of which the second is begun with the first
            told = (
                rf"RIFE: output frame {n} failed, between source frames {left} and {left + 1}: cpu is out of memory, "
                r"got a frame of 960x64, even with nothing else kept and in 2 parts; try scale=0\.5, a \.lite model, "
                r"or cpu"
            )
            with pytest.raises(vs.Error, match=told):
                output.get_frame(n)
    # Nearly: the pair may have been begun ahead while memory was still short, and then is in tiles.
    assert_like(planes_of(output, 3), planes_of(RIFE(clip, device="cpu"), 3))


def test_models_before_4_are_not_divided() -> None:
    net = LegacyNet(LEGACY_LAYOUTS["E05"])
    assert Engine(net, PictureFormat("GRAY", 8, False, 4096, 4096)).oom.most_parts == 1


@pytest.mark.parametrize("allocate", [lambda: torch.empty(2**50), lambda: np.empty(2**50)], ids=["torch", "numpy"])
def test_a_computer_without_memory_counts_like_a_device(allocate: Any) -> None:
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate()
    assert out_of_memory(caught.value)
    assert not out_of_memory(RuntimeError("shapes differ"))


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_net() -> FoldedNet:
    return fold(MODELS["4.15.lite"].layout, tensors("4.15.lite"))


@pytest.mark.parametrize(("parts", "grid"), [(8, (4, 2)), (16, (4, 4))])
def test_parts_of_a_field_join_to_the_field(parts: int, grid: tuple[int, int], small_net: FoldedNet) -> None:
    """What looks at a part is told by the planes themselves here: the result must be the field that they hold."""
    fmt = PictureFormat("YUV", 16, True, 1924, 1922, 2, 1)
    tiling = Tiling.of(fmt, small_net.layout, 1.0, parts)
    assert tiling is not None
    assert (tiling.columns, tiling.rows) == grid
    rows, columns = torch.arange(1922.0)[:, None], torch.arange(1924.0)
    planes = [(rows - 2 * columns)[None, None]]
    planes += [(2 * rows[: 1922 // 2] - 8 * columns[: 1924 // 4])[None, None]] * 2
    seen: list[PictureFormat] = []

    def estimate(part: PictureFormat, cut: Cut, timestep: float | Tensor) -> Motion:
        luma, chroma, _ = cut(tuple(planes))
        if not seen:  # the look at the whole: nothing moves
            flow = torch.zeros(1, 4, part.height, part.width)
        else:
            assert isinstance(timestep, Tensor)
            assert torch.equal(timestep, luma)
            assert torch.equal(luma[..., ::2, ::4], chroma)
            flow = torch.cat((luma, -luma, 2 * luma, luma), dim=1)
        seen.append(part)
        assert luma.shape[-2:] == (part.height, part.width)
        return Motion(flow, flow[:, :1])

    flow, mask = tiling.motion(planes[0], estimate)
    assert len(seen) == 1 + parts
    assert torch.allclose(flow, torch.cat((planes[0], -planes[0], 2 * planes[0], planes[0]), dim=1), atol=1e-2)
    assert torch.allclose(mask, planes[0], atol=1e-2)
    assert all(part.width * part.height < 0.7 * 1924 * 1922 for part in seen)


@pytest.mark.parametrize(("moves_px", "overlap_px"), [(0, 160), (60, 224), (-200, 384), (5000, 512)])
def test_parts_overlap_by_more_where_more_moves_at_the_seam(
    moves_px: int, overlap_px: int, small_net: FoldedNet
) -> None:
    tiling = Tiling.of(PictureFormat("GRAY", 8, False, 2048, 512), small_net.layout, 1.0, 2)
    assert tiling is not None
    widths: list[int] = []

    def estimate(part: PictureFormat, _cut: Cut, _timestep: float | Tensor) -> Motion:
        flow = torch.zeros(1, 4, part.height, part.width)
        if not widths:
            assert part.width == 512
            flow[:, 0, 100, 256 + 30] = moves_px / 2 / 4  # in pixels of the small picture, half of it to each frame
            flow[:, 2, 100, 256 + 30] = -moves_px / 2 / 4
            flow[:, :, :, 30] = 1000  # far from the seam
            flow[:, 1] = 300  # along the seam
        widths.append(part.width)
        return Motion(flow, flow[:, :1])

    tiling.motion(0.5, estimate)
    assert widths[1:] == [1024 + overlap_px] * 2
    assert overlap_px >= min(LEAST_CONTEXT_PX + abs(moves_px), 512)


def test_parts_are_not_too_small_to_be_worth_it(small_net: FoldedNet) -> None:
    def most(width: int, height: int, scale: float = 1.0) -> int:
        net = fold(small_net.layout, tensors("4.15.lite"), scale=scale)
        return Engine(net, PictureFormat("GRAY", 8, False, width, height)).oom.most_parts

    assert [most(800, 800), most(1280, 720), most(1920, 1080), most(3840, 2160)] == [1, 2, 8, 16]
    assert most(1280, 720, scale=0.25) == 1


def test_a_part_that_stands_still_is_not_blurred(small_net: FoldedNet) -> None:
    """Where both pictures are equal the result is that picture, also where the other half moves."""
    left, right = (np.ascontiguousarray((255 * panned(n, 960, 64, 6)[..., 0]).astype(np.uint8)) for n in (0, 1))
    right[:, :600] = left[:, :600]
    first, second = (InputFrame(n, [plane], Colorimetry(1, True, 0)) for n, plane in enumerate((left, right)))
    divided = Engine(small_net, PictureFormat("GRAY", 8, False, 960, 64))
    with memory_for(736, 64), pytest.warns(RuntimeWarning, match=DIVIDED.format(2)):
        result = divided.interpolate(first, second, 0.5, out="device")
    assert result is not None
    assert np.array_equal(result[0][:, :480], left[:, :480])
    with memory_for(64, 64), pytest.raises(DeviceError, match="in 2 parts"):
        divided.interpolate(first, second, 0.5, out="device")
