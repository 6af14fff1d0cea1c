"""`vsrife.interpolate` on arrays and tensors."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray

import vsrife
from vsrife.checkpoints.finding import find_weights
from vsrife.checkpoints.loading import read_ifnet
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.engine.sources import InputFrame
from vsrife.errors import DeviceError, OptionError
from vsrife.networks import pyramid
from vsrife.networks.catalogue import BUNDLED_FILE
from vsrife.networks.fold import FoldedNet
from vsrife.networks.ifnet import IFNet

HEIGHT, WIDTH = 61, 83
DTYPES = {"uint8": 255.0, "uint16": 65535.0, "float16": 1.0, "float32": 1.0}


def pair(dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """A part of a photograph, and the same 4 pixels to the side and 2 down."""
    photo = skimage.data.chelsea()[40:160, 100:260] / 255
    result = []
    for y, x in ((10, 20), (8, 16)):
        values = photo[y : y + HEIGHT, x : x + WIDTH] * DTYPES[dtype]
        result.append((values.round() if dtype.startswith("u") else values).astype(dtype))
    return result[0], result[1]


@pytest.mark.parametrize("dtype", DTYPES)
def test_result_is_that_of_the_engine(dtype: str) -> None:
    a, b = pair(dtype)
    before = a.copy(), b.copy()
    got = vsrife.interpolate(a, b, 0.4, device="cpu", precision="fp32")
    assert (got.shape, got.dtype) == (a.shape, a.dtype)
    assert np.array_equal(a, before[0])
    assert np.array_equal(b, before[1])

    bits = a.dtype.itemsize * 8
    fmt = PictureFormat("RGB", bits, dtype.startswith("f"), WIDTH, HEIGHT)
    net = network(NetworkOptions(None, 1.0, False, torch.device("cpu"), torch.float32))
    color = Colorimetry(matrix=1, full_range=True, chroma_location=0)
    left, right = (InputFrame(key, list(p.transpose(2, 0, 1)), color) for key, p in (("a", a), ("b", b)))
    planes = Engine(net, fmt).interpolate(left, right, 0.4, out="device")
    assert planes is not None
    assert np.array_equal(got, np.stack([p.numpy() for p in planes], -1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_motion_is_found(dtype: str) -> None:
    """Nearer to the picture halfway than a blend is; every dtype sees the same.

    The published blend of float pictures reaches into the black padding at the right and the bottom; others do not.
    """
    a, b = pair(dtype)
    got = vsrife.interpolate(a, b, device="cpu", precision="fp32") / DTYPES[dtype]
    photo = skimage.data.chelsea()[40:160, 100:260] / 255
    halfway = photo[9 : 9 + HEIGHT, 18 : 18 + WIDTH]
    inner = np.s_[8:-8, 8:-8]
    error = np.abs(got - halfway)[inner].mean()
    blend = np.abs((a / DTYPES[dtype] + b / DTYPES[dtype]) / 2 - halfway)[inner].mean()
    assert error < 0.7 * blend
    reference = vsrife.interpolate(*pair("float32"), device="cpu", precision="fp32")
    assert np.abs(got - reference)[inner].max() < 0.01


def test_float32_is_the_published_forward() -> None:
    a, b = pair("float32")
    weights = read_ifnet(find_weights(None))
    assert weights.path.name == BUNDLED_FILE
    net = IFNet(weights.layout)
    net.load_state_dict(weights.tensors)
    frames = (torch.from_numpy(p.transpose(2, 0, 1).copy())[None] for p in (a, b))
    with torch.inference_mode():
        expected = net(*frames, 0.4).image[0].permute(1, 2, 0).numpy()
    assert np.abs(vsrife.interpolate(a, b, 0.4, device="cpu", precision="fp32") - expected).max() <= 1e-5


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors(dtype: str) -> None:
    a, b = pair(dtype)
    got = vsrife.interpolate(torch.from_numpy(a), torch.from_numpy(b), 0.4, device="cpu", precision="fp32")
    assert isinstance(got, torch.Tensor)
    assert np.array_equal(got.numpy(), vsrife.interpolate(a, b, 0.4, device="cpu", precision="fp32"))


def test_views_and_gradients() -> None:
    """Slices, read-only arrays and tensors that ask for gradients are pictures like any other."""
    a, b = pair("float32")
    expected = vsrife.interpolate(a, b, device="cpu", precision="fp32")
    wide = np.zeros((HEIGHT, WIDTH * 2, 4), np.float32)
    wide[:, ::2, 2::-1] = a
    flipped = wide[:, ::2, 2::-1]
    flipped.flags.writeable = False
    assert np.array_equal(vsrife.interpolate(flipped, b, device="cpu", precision="fp32"), expected)
    got = vsrife.interpolate(torch.from_numpy(a).requires_grad_(), torch.from_numpy(b), device="cpu", precision="fp32")
    assert np.array_equal(got.detach().numpy(), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_to_compute(dtype: str) -> None:
    a, b = pair(dtype)
    assert vsrife.interpolate(a, b, 0) is a
    assert vsrife.interpolate(a, b, 1.0) is b
    assert vsrife.interpolate(a, a.copy(), 0.3, device="cpu", precision="fp32") is a


def test_time_runs_from_a_to_b() -> None:
    a, b = pair("float32")
    early, late = (vsrife.interpolate(a, b, t, device="cpu", precision="fp32") for t in (0.125, 0.875))
    assert np.abs(early - a).mean() < np.abs(early - b).mean()
    assert np.abs(late - b).mean() < np.abs(late - a).mean()
    assert np.abs(early - late).mean() > 0.005


def test_several_times_prepare_each_picture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pair("uint8")
    prepared = []
    real = pyramid.encode

    def encode(net: FoldedNet, frame: torch.Tensor) -> pyramid.Features:
        prepared.append(frame)
        return real(net, frame)

    monkeypatch.setattr(pyramid, "encode", encode)
    got = vsrife.interpolate(a, b, [0.25, 0, 0.75, 1.0], device="cpu", precision="fp32")
    assert len(prepared) == 2
    assert got[1] is a
    assert got[3] is b
    for i, timestep in ((0, 0.25), (2, 0.75)):
        assert np.array_equal(got[i], vsrife.interpolate(a, b, timestep, device="cpu", precision="fp32"))


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_grey(dtype: str) -> None:
    """Grey is what the network sees as RGB of three equal channels."""
    a, b = (np.ascontiguousarray(picture[..., 1]) for picture in pair(dtype))
    got = vsrife.interpolate(a, b, 0.4, device="cpu", precision="fp32")
    assert (got.shape, got.dtype) == (a.shape, a.dtype)
    one = vsrife.interpolate(a[..., None], b[..., None], 0.4, device="cpu", precision="fp32")
    assert np.array_equal(one, got[..., None])
    if dtype.startswith("u"):  # RGB float is blended as published
        three = vsrife.interpolate(
            a[..., None].repeat(3, -1), b[..., None].repeat(3, -1), 0.4, device="cpu", precision="fp32"
        )
        assert np.array_equal(three[..., 0], got)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [2, 4])
def test_opaque_alpha_changes_nothing(dtype: str, channels: int) -> None:
    a, b = (picture[..., : channels - 1] for picture in pair(dtype))
    opaque = np.full((HEIGHT, WIDTH, 1), DTYPES[dtype], dtype)
    got = vsrife.interpolate(
        np.concatenate((a, opaque), -1), np.concatenate((b, opaque), -1), 0.4, device="cpu", precision="fp32"
    )
    assert (got.shape, got.dtype) == ((HEIGHT, WIDTH, channels), a.dtype)
    assert np.array_equal(got[..., -1:], opaque)
    assert np.array_equal(got[..., :-1], vsrife.interpolate(a, b, 0.4, device="cpu", precision="fp32"))


def shape_at(x: int, dtype: str, hidden: float) -> NDArray[Any]:
    """A textured disc on nothing; where it is transparent the colours are `hidden`, 0..1."""
    photo = skimage.data.chelsea()[100:196, 150:246] / 255
    rows, columns = np.mgrid[:96, :96]
    alpha = np.clip(30.5 - np.hypot(rows - 48, columns - x), 0, 1)[..., None]
    colours = np.where(alpha > 0, np.roll(photo, x - 48, 1), hidden)
    values = np.concatenate((colours, alpha), -1) * DTYPES[dtype]
    return (values.round() if dtype.startswith("u") else values).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_alpha_moves_with_the_colours(dtype: str) -> None:
    """A shape that moves by 8 pixels: edge and colours are halfway, and nothing of what is hidden comes to light."""
    peak = DTYPES[dtype]
    truth = shape_at(48, dtype, 0) / peak
    results = []
    for hidden in (0.0, 1.0):
        a, b = shape_at(44, dtype, hidden), shape_at(52, dtype, hidden)
        got = vsrife.interpolate(a, b, device="cpu", precision="fp32") / peak
        seen = got[..., 3:] > 0.02
        assert np.abs(got - truth)[..., 3].mean() < 0.5 * np.abs((a / peak + b / peak) / 2 - truth)[..., 3].mean()
        assert np.abs((got - truth) * (seen & (truth[..., 3:] > 0.02)))[..., :3].mean() < 0.02
        results.append(np.where(seen, got, 0))
        assert np.abs(got[0, 0] - [hidden, hidden, hidden, 0]).max() < 1e-3  # what nobody sees stays as it was
    assert np.abs(results[0] - results[1]).max() <= max(1e-4, 1.01 / peak)


def test_still_pixels_keep_their_codes_under_alpha() -> None:
    a = shape_at(48, "uint8", 0.3)
    a[..., 3] = np.arange(96, dtype=np.uint8)[:, None] * 2
    b = a.copy()
    b[40:60, 70:90] = 255 - b[40:60, 70:90]
    got = vsrife.interpolate(a, b, device="cpu", precision="fp32")
    assert np.array_equal(got[:, :20], a[:, :20])
    assert not np.array_equal(got[40:60, 70:90], a[40:60, 70:90])


def test_only_alpha_differs() -> None:
    """Colours that nobody can tell from the ground fade; nothing tells how they move."""
    a = np.full((32, 32, 2), 0.5, np.float32)
    b = a.copy()
    a[..., 1], b[..., 1] = 0.2, 0.6
    assert np.abs(vsrife.interpolate(a, b, 0.25, device="cpu", precision="fp32") - [0.5, 0.3]).max() < 1e-6


@pytest.mark.needs_cuda
def test_tensors_of_the_device_stay_there() -> None:
    a, b = (torch.from_numpy(picture).cuda() for picture in pair("uint8"))
    got = vsrife.interpolate(a, b, 0.4, device="cuda")
    assert got.device == a.device
    expected = vsrife.interpolate(*pair("uint8"), 0.4, device="cuda")
    assert np.array_equal(got.cpu().numpy(), expected)


SHAPE = "must be an array (H, W), or (H, W, C) of 1 to 4 channels, and of dtype uint8, uint16, float16, float32, got"


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros(9, np.uint8), np.zeros(9, np.uint8), f"a {SHAPE} (9,) uint8; convert it"),
        (np.zeros((3, 9, 9), np.uint8), np.zeros((3, 9, 9), np.uint8), f"a {SHAPE} (3, 9, 9) uint8; convert it"),
        (np.zeros((9, 9, 5), np.uint8), np.zeros((9, 9, 5), np.uint8), f"a {SHAPE} (9, 9, 5) uint8; convert it"),
        (np.zeros((0, 9, 3), np.uint8), np.zeros((0, 9, 3), np.uint8), f"a {SHAPE} (0, 9, 3) uint8; convert it"),
        ([[1]], np.zeros((9, 9), np.uint8), f"a {SHAPE} list; convert it"),
        (np.zeros((9, 9, 3)), np.zeros((9, 9, 3)), f"a {SHAPE} (9, 9, 3) float64; convert it"),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.int16), f"b {SHAPE} (9, 9, 3) int16; convert it"),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((9, 8, 3), np.uint8),
         "pictures must have one shape and dtype, got (9, 9, 3) uint8 and (9, 8, 3) uint8; convert one of them"),
        (np.zeros((9, 9, 3), np.uint8), np.zeros((9, 9, 3), np.uint16),
         "pictures must have one shape and dtype, got (9, 9, 3) uint8 and (9, 9, 3) uint16; convert"),
    ],
)  # fmt: skip
def test_pictures_that_are_refused(a: NDArray[Any], b: NDArray[Any], message: str) -> None:
    with pytest.raises(OptionError, match=re.escape(message)):
        vsrife.interpolate(a, b)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"timestep": 1.001}, OptionError, "timestep must be between 0 and 1, got 1.001; 0.5 is halfway"),
        ({"timestep": -0.1}, OptionError, "timestep must be between 0 and 1, got -0.1"),
        ({"timestep": float("nan")}, OptionError, "timestep must be between 0 and 1, got nan"),
        ({"timestep": [0.5, 2]}, OptionError, "timestep must be between 0 and 1, got 2; 0.5 is halfway"),
        (
            {"timestep": np.zeros((9, 9))},
            OptionError,
            f"timestep must be a number or an array ({HEIGHT}, {WIDTH}) like the pictures, got one of (9, 9); for",
        ),
        (
            {"timestep": np.full((HEIGHT, WIDTH), 255)},
            OptionError,
            "between 0 and 1, got 255 to 255 in an array; scale",
        ),
        ({"timestep": np.full((HEIGHT, WIDTH), np.nan)}, OptionError, "between 0 and 1, got nan to nan in an array"),
        ({"scale": 3}, OptionError, "scale must be 0.25, 0.5, 1, 2 or 4, got 3"),
        ({"precision": "fp8"}, OptionError, "precision must be one of"),
        ({"device": "bogus"}, DeviceError, "device cannot be used, got 'bogus'"),
        ({"ensemble": True}, OptionError, "ensemble must be False for models with carried features, got True for"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        vsrife.interpolate(*pair("uint8"), **options)
