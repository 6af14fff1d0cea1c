"""What comes out of the engine, whatever the format, the order of requests and what is in its cache."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
import vapoursynth as vs
from numpy.typing import NDArray
from torch import Tensor

from tests.golden import tensors
from vsrife.engine.color import to_rgb
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.engine.sources import InputFrame
from vsrife.errors import DeviceError
from vsrife.networks import pyramid
from vsrife.networks.catalogue import MODELS
from vsrife.networks.fold import FoldedNet, fold
from vsrife.ops.reference import reference

core = vs.core
CPU = torch.device("cpu")
RGB = NDArray[np.float32]
Planes = list[NDArray[Any]]


@pytest.fixture(scope="module")
def net() -> FoldedNet:
    """The bundled weights."""
    bundled = network(NetworkOptions(None, 1.0, False, CPU, torch.float32))
    assert isinstance(bundled, FoldedNet)
    return bundled


@pytest.fixture(scope="module")
def small_net() -> FoldedNet:
    """Weights of the least layout; their flow is of the size of real motion, and shows nothing sensible."""
    return fold(MODELS["4.15.lite"].layout, tensors("4.15.lite"))


def photo(y: int, x: int, height: int, width: int) -> RGB:
    result: RGB = (skimage.data.chelsea()[y : y + height, x : x + width] / 255).astype(np.float32)
    return result


def encoded(
    picture: RGB, name: str, matrix: int = 1, full_range: bool | None = None
) -> tuple[Planes, PictureFormat, Colorimetry]:
    """An RGB picture (H, W, 3) in another format, by VapourSynth."""
    height, width = picture.shape[:2]
    blank = core.std.BlankClip(width=width, height=height, format=vs.RGBS, length=1)

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:  # noqa: ARG001 - passed by name
        result = f.copy()
        for p in range(3):
            np.asarray(result[p])[:] = picture[..., p]
        return result

    options: dict[str, Any] = {} if name.startswith("RGB") else {"matrix": matrix}
    if full_range is not None:
        options["range"] = vs.RANGE_FULL if full_range else vs.RANGE_LIMITED
    clip = blank.std.ModifyFrame([blank], fill).resize.Bicubic(format=getattr(vs, name), **options)
    with clip.get_frame(0) as frame:
        known = frame.format
        family: Any = known.color_family.name
        floating = known.sample_type == vs.FLOAT
        fmt = PictureFormat(
            family, known.bits_per_sample, floating, width, height, known.subsampling_w, known.subsampling_h
        )
        planes = [np.asarray(frame[p]).copy() for p in range(known.num_planes)]
        return planes, fmt, Colorimetry.from_props(frame.props, fmt)


def picture(key: Any, content: tuple[Planes, PictureFormat, Colorimetry]) -> InputFrame:
    planes, _fmt, color = content
    return InputFrame(key, planes, color)


def arrays(planes: tuple[Tensor, ...] | None) -> Planes:
    assert planes is not None
    return [plane.numpy() for plane in planes]


FORMATS = ["YUV420P8", "YUV422P10", "YUV444P8", "YUV420P16", "YUV410P8", "YUV420PS", "YUV444PH", "GRAY8", "GRAY16",
           "GRAYS", "RGB24", "RGB30", "RGB48", "RGBH", "RGBS"]  # fmt: skip


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_same_format_out_and_sources_untouched(name: str, small_net: FoldedNet) -> None:
    contents = [encoded(photo(y, 100, 36, 68), name) for y in (60, 62)]
    fmt = contents[0][1]
    before = [[plane.copy() for plane in planes] for planes, *_ in contents]
    left, right = (picture(i, content) for i, content in enumerate(contents))
    got = arrays(Engine(small_net, fmt).interpolate(left, right, 0.5, out="device"))
    assert [(plane.shape, plane.dtype) for plane in got] == [(plane.shape, plane.dtype) for plane in before[0]]
    assert all(np.isfinite(plane.astype(np.float64)).all() for plane in got)
    if not fmt.floating:
        assert max(int(plane.max()) for plane in got) <= fmt.peak
    for (planes, *_), old in zip(contents, before, strict=True):
        assert all(np.array_equal(*pair) for pair in zip(planes, old, strict=True))


@pytest.mark.parametrize(
    ("name", "width", "height"),
    [("YUV444P8", 35, 17), ("RGB24", 35, 17), ("GRAY8", 35, 17), ("YUV420P8", 34, 18), ("YUV422P8", 34, 17),
     ("YUV420P8", 16, 16), ("RGBS", 16, 16), ("GRAY8", 130, 16)],
)  # fmt: skip
def test_odd_and_small_sizes(name: str, width: int, height: int, net: FoldedNet) -> None:
    """The result lies between the neighbours of a slow pan, also at the borders and in chroma."""
    contents = [encoded(photo(80 + y, 120, height, width), name) for y in (0, 2)]
    fmt = contents[0][1]
    left, right = (picture(i, content) for i, content in enumerate(contents))
    got = arrays(Engine(net, fmt).interpolate(left, right, 0.5, out="device"))
    for p, (a, b, plane) in enumerate(zip(contents[0][0], contents[1][0], got, strict=True)):
        assert plane.shape == a.shape, p
        a, b, plane = (np.asarray(x, np.float64) / (fmt.peak if not fmt.floating else 1) for x in (a, b, plane))
        assert np.abs(plane - (a + b) / 2).mean() <= np.abs(a - b).mean() + 0.01
        assert min(a.min(), b.min()) - 0.01 <= plane.min() <= plane.max() <= max(a.max(), b.max()) + 0.01


@torch.inference_mode()
def test_rgb_float_is_the_blend_of_the_network(net: FoldedNet) -> None:
    contents = [encoded(photo(y, 100, 45, 70) * 1.2 - 0.1, "RGBS") for y in (60, 63)]
    got = arrays(
        Engine(net, contents[0][1]).interpolate(picture(0, contents[0]), picture(1, contents[1]), 0.3, out="device")
    )
    frames = [torch.from_numpy(np.stack(planes))[None] for planes, *_ in contents]
    source0, source1 = (pyramid.encode(net, torch.nn.functional.pad(f, (0, 58, 0, 19))) for f in frames)
    field = pyramid.estimate(net, source0, source1, 0.3)
    share = torch.sigmoid(field.mask(*field.size))
    expected = reference.blend(source0.stack[:, :3], source1.stack[:, :3], field.flow(), share)[0, :, :45, :70]
    assert np.abs(np.stack(got) - expected.numpy()).max() <= 1e-5


@pytest.mark.parametrize("name", FORMATS)
def test_equal_pictures_need_no_network(name: str, small_net: FoldedNet, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_args: Any) -> Any:
        raise AssertionError("the network ran")

    monkeypatch.setattr(pyramid, "encode", never)
    content = encoded(photo(60, 100, 36, 68), name)
    other = ([plane.copy() for plane in content[0]], *content[1:])
    assert Engine(small_net, content[1]).interpolate(picture(0, content), picture(1, other), 0.5, out="device") is None


# --- still parts ------------------------------------------------------------------------------------------------------

REACH_PX = 40  # a flow of 32 pixels at most is overruled, and chroma's neighbours lie a little farther


@pytest.mark.parametrize("name", [name for name in FORMATS if name[-1] not in "HS"])
def test_still_part_keeps_its_codes(name: str, net: FoldedNet) -> None:
    """A square moves over a photograph; farther than `REACH_PX` from it every code is that of the source."""
    background, square = photo(20, 40, 128, 192), photo(200, 200, 24, 24)
    shown = []
    for x in (20, 28):
        shown.append(background.copy())
        shown[-1][20:44, x : x + 24] = square
    contents = [encoded(frame, name) for frame in shown]
    fmt = contents[0][1]
    got = arrays(Engine(net, fmt).interpolate(picture(0, contents[0]), picture(1, contents[1]), 0.4, out="device"))
    for p, plane in enumerate(got):
        a, b = contents[0][0][p], contents[1][0][p]
        step_x, step_y = ((1 << fmt.subsampling_w), (1 << fmt.subsampling_h)) if p and fmt.family == "YUV" else (1, 1)
        rows, columns = np.nonzero(a != b)
        far = np.ones(a.shape, bool)
        near_y, near_x = REACH_PX // step_y + 1, REACH_PX // step_x + 1
        far[
            max(0, rows.min() - near_y) : rows.max() + near_y + 1,
            max(0, columns.min() - near_x) : columns.max() + near_x,
        ] = False
        assert far.mean() > 0.25
        assert np.array_equal(plane[far], a[far])
        assert not np.array_equal(plane, a)


# --- colour -----------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def flow(net: FoldedNet, name: str, matrix: int = 1, full_range: bool | None = None) -> Tensor:
    """Flow between two parts of a photograph in some encoding, (1, 4, H, W)."""
    sources = []
    for y, x in ((30, 60), (28, 54)):
        planes, fmt, color = encoded(photo(y, x, 96, 128), name, matrix, full_range)
        rgb = to_rgb([torch.from_numpy(plane)[None, None] for plane in planes], fmt, color)
        sources.append(pyramid.encode(net, torch.nn.functional.pad(rgb, (0, 0, 0, 32))))
    return pyramid.estimate(net, sources[0], sources[1], 0.5).flow()[..., :96, :]


@pytest.fixture(scope="module")
def reference_flow(net: FoldedNet) -> Tensor:
    result = flow(net, "RGBS")
    assert result.abs().mean() > 0.5
    return result


@pytest.mark.parametrize("full_range", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", [1, 6, 9], ids=["709", "601", "2020"])
@pytest.mark.parametrize(
    ("name", "mean_px"),
    [("YUV444PS", 1e-5), ("YUV444P8", 0.02), ("YUV420P8", 0.05), ("YUV420P16", 0.05), ("RGB24", 0.02)],
)
@torch.inference_mode()
def test_same_motion_in_every_encoding(
    name: str, mean_px: float, matrix: int, full_range: bool, net: FoldedNet, reference_flow: Tensor
) -> None:
    """Seen: 3e-7 px without rounding, up to 0.007 px for 8 bit codes, 0.015 px for halved chroma; motion is 2 px."""

    assert (flow(net, name, matrix, full_range) - reference_flow).abs().mean() <= mean_px


# --- cache ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capacity", [0, 2, 3, 5])
def test_prepared_pictures_are_bounded(capacity: int, small_net: FoldedNet) -> None:
    contents = [encoded(photo(60 + 2 * n, 100, 16, 32), "GRAY8") for n in range(8)]
    engine = Engine(small_net, contents[0][1], capacity)
    for n in range(7):
        engine.interpolate(picture(n, contents[n]), picture(n + 1, contents[n + 1]), 0.5, out="device")
        assert len(engine.cache.keys("frame")) <= max(2, capacity)
        assert engine.cache.keys("frame")[-2:] == [n, n + 1]


def test_result_does_not_depend_on_what_was_asked_before(small_net: FoldedNet) -> None:
    """Random order equals linear order bit for bit, for any capacity."""
    contents = [encoded(photo(60 + 2 * n, 100, 18, 34), "YUV420P8") for n in range(6)]
    fmt = contents[0][1]

    def ask(engine: Engine, left: int, timestep: float) -> Planes:
        return arrays(
            engine.interpolate(
                picture(left, contents[left]), picture(left + 1, contents[left + 1]), timestep, out="device"
            )
        )

    requests = [(left, t) for left in range(5) for t in (0.25, 0.5, 0.75)]
    linear = Engine(small_net, fmt)
    expected = {request: ask(linear, *request) for request in requests}
    rng = random.Random(0)
    engines = [Engine(small_net, fmt, capacity) for capacity in (2, 3, 6)]
    for _ in range(200):
        request = rng.choice(requests)
        got = ask(rng.choice(engines), *request)
        assert all(np.array_equal(*pair) for pair in zip(got, expected[request], strict=True))


def test_interrupted_request_leaves_nothing_behind(small_net: FoldedNet) -> None:
    contents = [encoded(photo(60 + 2 * n, 100, 18, 34), "YUV420P8") for n in range(2)]
    left, right = (picture(n, content) for n, content in enumerate(contents))
    expected = arrays(Engine(small_net, contents[0][1]).interpolate(left, right, 0.5, out="device"))
    engine = Engine(small_net, contents[0][1])
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    engine.interpolate(left, right, 0.25, count, out="device")
    assert steps >= small_net.layout.blocks
    for stop in range(1, steps + 1):
        left_to_go = stop

        def interrupt() -> None:
            nonlocal left_to_go
            left_to_go -= 1
            if not left_to_go:
                raise InterruptedError

        engine = Engine(small_net, contents[0][1])
        with pytest.raises(InterruptedError):
            engine.interpolate(left, right, 0.5, interrupt, out="device")
        got = arrays(engine.interpolate(left, right, 0.5, out="device"))
        assert all(np.array_equal(*pair) for pair in zip(got, expected, strict=True))


def test_out_of_memory_says_what_to_do(small_net: FoldedNet, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [encoded(photo(60 + 2 * n, 100, 18, 34), "YUV420P8") for n in range(2)]
    left, right = (picture(n, content) for n, content in enumerate(contents))
    engine = Engine(small_net, contents[0][1])

    def fails(*_args: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(pyramid, "estimate", fails)
        told = r"cpu is out of memory, got a frame of 34x18, even with nothing else kept; try scale=0\.5"
        with pytest.raises(DeviceError, match=told):
            engine.interpolate(left, right, 0.5, out="device")
    assert not engine.cache.keys("frame")
    assert arrays(engine.interpolate(left, right, 0.5, out="device"))
