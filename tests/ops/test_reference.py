"""The reference against definitions written out in NumPy, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vsrife.ops.protocol import STATIC_RADII_PX, Axis, Conv, RgbTransform
from vsrife.ops.reference import activate, is_static, reference, resize, warp

Floats = NDArray[np.float64]
SIZES = [(1, 1), (1, 9), (7, 1), (2, 3), (31, 65)]


def read(image: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear value of (H, W) at any positions; outside, the nearest border sample counts."""
    height, width = image.shape
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    u, v = x - left, y - top
    upper = image[top, left] * (1 - u) + image[top, right] * u
    lower = image[bottom, left] * (1 - u) + image[bottom, right] * u
    result: Floats = upper * (1 - v) + lower * v
    return result


def read_all(image: Tensor, x: Floats, y: Floats) -> Floats:
    """`read` for every channel of (N, C, H, W); `x` and `y` are (N, h, w) or broadcast to it."""
    data = image.double().numpy()
    count, channels = data.shape[:2]
    x, y = np.broadcast_to(x, (count, *x.shape[1:])), np.broadcast_to(y, (count, *y.shape[1:]))
    return np.stack([[read(data[n, c], x[n], y[n]) for c in range(channels)] for n in range(count)])


def random_image(height: int, width: int, dtype: torch.dtype, seed: int = 0, count: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand((count, 2, height, width), generator=generator, dtype=torch.float64).to(dtype)


def grid(height: int, width: int) -> tuple[Floats, Floats]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return x[None], y[None]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("new_height", "new_width"), [(1, 1), (5, 7), (64, 96), (17, 1)])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-4)], ids=str)
def test_resize(height: int, width: int, new_height: int, new_width: int, dtype: torch.dtype, error: float) -> None:
    image = random_image(height, width, dtype)
    x, y = grid(new_height, new_width)
    expected = read_all(image, (x + 0.5) * width / new_width - 0.5, (y + 0.5) * height / new_height - 0.5)
    got = resize(image, new_height, new_width)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=0, atol=error)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_resize_by_an_even_factor_reads_the_middle_of_each_cell(factor: int) -> None:
    image = random_image(3 * factor, 5 * factor, torch.float64)
    cells = image.unfold(2, factor, factor).unfold(3, factor, factor)
    middle = slice(factor // 2 - 1, factor // 2 + 1)
    torch.testing.assert_close(resize(image, 3, 5), cells[..., middle, middle].mean((-1, -2)), rtol=0, atol=1e-15)


def test_resize_of_nothing_and_to_the_same_size() -> None:
    image = random_image(5, 7, torch.float32)
    assert torch.equal(resize(image, 5, 7), image)
    assert resize(image[:, :0], 10, 14).shape == (1, 0, 10, 14)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_sample_on_a_grid(height: int, width: int) -> None:
    image = random_image(height, width, torch.float64)
    rng = np.random.default_rng(1)
    rows, columns = rng.uniform(-9, height + 9, 13), rng.uniform(-9, width + 9, 17)
    rows[:3], columns[:3] = (0, height - 1, height), (0, width - 1, -1)
    got = reference.sample(
        image, Axis.at(torch.from_numpy(rows), height), Axis.at(torch.from_numpy(columns), width)
    )  # fmt: skip
    expected = read_all(image, *np.broadcast_arrays(columns[None, None], rows[None, :, None]))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


def _subpixel(shape: tuple[int, ...]) -> Floats:
    return np.random.default_rng(2).uniform(-3, 3, shape)


def _leaves_frame(shape: tuple[int, ...]) -> Floats:
    return np.random.default_rng(3).uniform(-9000, 9000, shape)


def _mixed(shape: tuple[int, ...]) -> Floats:
    return np.where(np.random.default_rng(4).random(shape) < 0.3, _leaves_frame(shape), _subpixel(shape))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("displacement", [_subpixel, _leaves_frame, _mixed])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 2e-5)], ids=str)
def test_warp(
    height: int, width: int, displacement: Callable[[tuple[int, ...]], Floats], dtype: torch.dtype, error: float
) -> None:
    image = random_image(height, width, dtype, count=2)
    x, y = grid(height, width)
    flow = displacement((2, 2, height, width))
    x, y = x + flow[0], y + flow[1]
    got = warp(image, torch.from_numpy(x).to(dtype), torch.from_numpy(y).to(dtype))
    assert got.dtype == dtype
    np.testing.assert_allclose(got, read_all(image, x, y), rtol=0, atol=error)


def test_one_flow_warps_a_batch() -> None:
    image = random_image(9, 11, torch.float64, count=3)
    x, y = (a + 0.3 for a in grid(9, 11))
    got = warp(image, torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_allclose(got, read_all(image, x, y), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(31, 65), (270, 480)])
@pytest.mark.parametrize(("dx", "dy"), [(0, 0), (5, -3), (-17, 30)])
def test_flow_of_whole_pixels(height: int, width: int, dx: int, dy: int) -> None:
    """8-bit codes moved by whole pixels are unchanged."""
    image = torch.randint(0, 256, (1, 1, height, width), generator=torch.Generator().manual_seed(5)).float()
    x, y = grid(height, width)
    got = warp(image, torch.from_numpy(x + dx).float(), torch.from_numpy(y + dy).float())
    rows, columns = (np.arange(height) + dy).clip(0, height - 1), (np.arange(width) + dx).clip(0, width - 1)
    assert torch.equal(got.round()[0, 0], image[0, 0][rows][:, columns])
    np.testing.assert_allclose(got[0, 0], image[0, 0][rows][:, columns], rtol=0, atol=0.05)


def test_strided_inputs() -> None:
    """Views with gaps between rows and samples give what their copies give."""
    image = random_image(40, 60, torch.float32)[..., 3:34:2, 5:50:3]
    assert not image.is_contiguous()
    copy = image.clone(memory_format=torch.contiguous_format)
    x, y = (torch.from_numpy(a).float() + 0.25 for a in grid(32, 30))
    x, y = x[:, ::2, ::2], y[:, ::2, ::2]
    assert torch.equal(warp(image, x, y), warp(copy, x.contiguous(), y.contiguous()))
    assert torch.equal(resize(image, 7, 9), resize(copy, 7, 9))
    axes = Axis.at(torch.linspace(-2, 20, 11, dtype=torch.float64), 16), Axis.at(torch.arange(15.0).double(), 15)
    assert torch.equal(reference.sample(image, *axes), reference.sample(copy, *axes))
    flow = random_image(16, 15, torch.float32, count=2).reshape(1, 4, 16, 15)
    weight0 = torch.full((1, 1, 16, 15), 0.25)
    assert torch.equal(reference.blend(image, image, flow, weight0), reference.blend(copy, copy, flow, weight0))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 1), (31, 65)])
def test_blend(height: int, width: int) -> None:
    a, b = random_image(height, width, torch.float64, 6), random_image(height + 2, width + 1, torch.float64, 7)
    b = b[..., :height, :width]
    flow = _mixed((1, 4, height, width))
    weight0 = np.random.default_rng(8).random((1, 1, height, width))
    x, y = grid(height, width)
    from_a, from_b = read_all(a, x + flow[:, 0], y + flow[:, 1]), read_all(b, x + flow[:, 2], y + flow[:, 3])
    got = reference.blend(a, b, torch.from_numpy(flow), torch.from_numpy(weight0))
    np.testing.assert_allclose(got, from_a * weight0 + from_b * (1 - weight0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("value", [0.0, 0.4, 0.73, 1.0])
def test_equal_flat_pictures_are_unchanged(dtype: torch.dtype, value: float) -> None:
    """Whatever the flow, a flat plane in both neighbours comes out with the same code, floats within rounding."""
    peak = {torch.uint8: 255, torch.uint16: 65535}.get(dtype, 1)
    plane = torch.full((1, 1, 12, 17), value * peak).round() if peak > 1 else torch.full((1, 1, 12, 17), value)
    plane = plane.to(dtype)
    flow, weight0 = torch.from_numpy(_mixed((1, 4, 12, 17))).float(), random_image(12, 17, torch.float32)[:, :1]
    got = reference.blend(plane.float(), plane.float(), flow, weight0)
    if dtype == torch.float32:
        torch.testing.assert_close(got, plane, rtol=3e-7, atol=0)
    else:
        assert torch.equal((got.round() if peak > 1 else got).to(dtype), plane)


@pytest.mark.parametrize("clamps", [False, True])
@pytest.mark.parametrize(("height", "width"), [(2, 2), (6, 10)])
def test_planes_to_rgb(height: int, width: int, clamps: bool) -> None:
    """4:2:0 with chroma to the left; RGB into a part of a larger tensor, with zeros around it."""
    rng = np.random.default_rng(9)
    sizes = [(height, width), *[(height // 2, width // 2)] * 2]
    planes = [rng.integers(0, 1024, size).astype(np.uint16) for size in sizes]
    weight, bias = rng.uniform(-3, 3, (3, 3)) / 1023, rng.uniform(-0.5, 1, 3)
    x, y = grid(height, width)
    larger = [read(plane.astype(np.float64), x[0] / 2, y[0] / 2 - 0.25) for plane in planes[1:]]
    expected = np.einsum("cp,phw->chw", weight, np.stack([planes[0], *larger])) + bias[:, None, None]
    axes = (Axis.at(torch.arange(n) / 2.0 - shift, n // 2) for n, shift in ((height, 0.25), (width, 0)))
    transform = RgbTransform(torch.from_numpy(weight), torch.from_numpy(bias), *axes)
    stack = torch.full((1, 5, height + 3, width + 1), 7.0, dtype=torch.float64)
    reference.planes_to_rgb([torch.from_numpy(plane)[None, None] for plane in planes], transform, clamps, stack[:, :3])
    got = stack[0, :3, :height, :width].numpy()
    np.testing.assert_allclose(got, expected.clip(0, 1) if clamps else expected, rtol=0, atol=1e-12)
    assert (expected < 0).any()
    assert not stack[:, :3, height:].any()
    assert not stack[:, :3, :, width:].any()
    assert (stack[:, 3:] == 7).all()


def test_convolve_chain() -> None:
    generator = torch.Generator().manual_seed(10)
    weights = torch.rand((3, 4, 4, 3, 3), generator=generator, dtype=torch.float64) - 0.5
    convs = [Conv(weight, weight[:, 0, 0, 0], residual=True) for weight in weights]
    x = random_image(5, 6, torch.float64, count=4).reshape(2, 4, 5, 6)
    before = x.clone()
    expected = x
    for conv in convs:
        expected = activate(
            reference.convolve(expected, Conv(conv.weight, conv.bias, activated=False)) + expected, None
        )
    torch.testing.assert_close(reference.convolve_chain(x, convs), expected, rtol=0, atol=1e-12)
    assert torch.equal(x, before)


# --- static samples ---------------------------------------------------------------------------------------------------


def brute_force_static(a: NDArray[Any], b: NDArray[Any], flow: NDArray[Any]) -> NDArray[np.bool_]:
    """For each sample, whether the box that its flow reaches, rounded up to the next radius, holds no difference."""
    height, width = a.shape
    result = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            reach = np.abs(flow[:, y, x]).max()
            radius = next((r for r in (0, *STATIC_RADII_PX) if reach <= r), None)
            if radius is not None:
                box = np.s_[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
                result[y, x] = bool((a[box] == b[box]).all())
    return result


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("changes", [0, 1, 3, 20])
@pytest.mark.parametrize("seed", range(3))
def test_static_samples(dtype: torch.dtype, changes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(1, 75, 2))
    a = torch.from_numpy(rng.integers(0, 200, (height, width))).to(dtype)
    b = a.clone()
    for _ in range(changes):
        y, x = rng.integers(height), rng.integers(width)
        b[y, x] = torch.from_numpy(np.array(220)).to(dtype)
    size = np.exp2(rng.uniform(-3, 6.5, (1, height, width)))
    flow = rng.uniform(-1, 1, (4, height, width)) * size
    flow[:, rng.random((height, width)) < 0.2] = 0
    whole = rng.random((height, width)) < 0.3
    flow[:, whole] = flow[:, whole].round()  # radii themselves
    got = is_static(reference.static_radius(a[None, None], b[None, None]), torch.from_numpy(flow)[None])
    assert got.shape == (1, 1, height, width)
    assert got.dtype == torch.bool
    np.testing.assert_array_equal(got[0, 0], brute_force_static(a.numpy(), b.numpy(), flow))
