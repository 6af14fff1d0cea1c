"""`vsrife.flow` and `vsrife flow`: against motion that is known exactly, and what stands in the files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

import vsrife
from vsrife.cli import main
from vsrife.errors import MediaError, OptionError
from vsrife.media.flow_files import flow_colours, read_flo, write_flo
from vsrife.media.pictures import Picture, read_picture, write_picture

HEIGHT, WIDTH, MARGIN = 120, 160, 16
Vectors = NDArray[np.float64]
Motion = Callable[[Vectors], Vectors]  # from a place (H, W, 2) in picture a to its place in picture b


def places() -> Vectors:
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    return np.stack((x, y), axis=-1)


def shift(p: Vectors) -> Vectors:
    return np.add(p, [5.0, -3.0])


def zoom(p: Vectors) -> Vectors:
    """Away from the middle, up to 4 pixels at the sides."""
    return np.add(p, np.subtract(p, [WIDTH / 2, HEIGHT / 2]) * 0.05)


def turn(p: Vectors) -> Vectors:
    """Around the middle, by up to 5 pixels at the sides."""
    angle, middle = 0.0625, np.array([WIDTH / 2, HEIGHT / 2])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.add((p - middle) @ np.array([[cos, sin], [-sin, cos]]), middle)


def inverse(motion: Motion, p: Vectors) -> Vectors:
    """Where in picture a the places of picture b come from."""
    q = p
    for _ in range(20):
        q = q - (motion(q) - p)
    return q


def photo_at(p: Vectors) -> NDArray[np.uint8]:
    photo = skimage.data.astronaut()[20:220, 120:360].astype(float)
    channels = [map_coordinates(photo[..., c], [p[..., 1] + 40, p[..., 0] + 40], order=3) for c in range(3)]
    return np.stack(channels, -1).clip(0, 255).round().astype(np.uint8)


def pair(motion: Motion) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return photo_at(places()), photo_at(inverse(motion, places()))


def endpoint_error_px(flow: NDArray[Any], truth: Vectors) -> float:
    """Mean distance between the ends of the vectors, without the border, where things leave the picture."""
    distance = np.hypot(*np.moveaxis(flow - truth, -1, 0))
    return float(distance[MARGIN:-MARGIN, MARGIN:-MARGIN].mean())


@pytest.mark.parametrize("motion", [shift, zoom, turn], ids=lambda motion: motion.__name__)
def test_known_motion(motion: Motion, record_property: Callable[[str, object], None]) -> None:
    """Forward from time 0 and back from time 1, each at the pixels of its picture, as Middlebury has it."""
    a, b = pair(motion)
    rows = (
        ("to_b", 0.0, motion(places()) - places()),
        ("to_a", 1.0, inverse(motion, places()) - places()),
    )
    for name, timestep, truth in rows:
        found = vsrife.flow(a, b, timestep, device="cpu")
        other = "to_a" if name == "to_b" else "to_b"
        assert not getattr(found, other).any()
        error, length = endpoint_error_px(getattr(found, name), truth), endpoint_error_px(truth * 0, truth)
        record_property(f"end-point error of {motion.__name__}, {name}", f"{error:.2f} of {length:.2f} px")
        assert error < 0.5 * length, f"{motion.__name__} {name}: end-point error {error:.2f} of {length:.2f} px"


def test_seen_from_halfway() -> None:
    a, b = pair(shift)
    found = vsrife.flow(a, b, device="cpu")
    for flow, truth in ((found.to_a, [-2.5, 1.5]), (found.to_b, [2.5, -1.5])):
        assert flow.shape == (HEIGHT, WIDTH, 2)
        assert flow.dtype == np.float32
        assert endpoint_error_px(flow, np.broadcast_to(truth, flow.shape)) < 0.5 * 2.92


def test_warps_and_mask_make_the_picture() -> None:
    """With 16 bits and alpha too: each warp is what the flow says, and the picture is both by the mask."""
    a, b = (np.dstack((p, p[..., 1])).astype(np.uint16) * 257 for p in pair(zoom))
    found = vsrife.flow(a, b, 0.3, device="cpu")
    x, y = (places() + found.to_b)[..., 0], (places() + found.to_b)[..., 1]
    expected = map_coordinates(b[..., 3].astype(float), [y, x], order=1, mode="nearest")
    assert found.warp_b.dtype == np.uint16
    assert np.abs(found.warp_b[..., 3] - expected).max() <= 8  # of 65535: positions in float32
    mixed = found.warp_a[..., 3] * found.mask + found.warp_b[..., 3] * (1 - found.mask)
    between = vsrife.interpolate(a, b, 0.3, device="cpu")
    assert np.quantile(np.abs(between[..., 3] - mixed), 0.99) <= 8  # where nothing moves the picture is that of a


def test_tensors_and_equal_pictures() -> None:
    a = torch.from_numpy(pair(shift)[0])
    found = vsrife.flow(a, a.clone(), 0.25, device="cpu")
    assert isinstance(found.to_a, torch.Tensor)
    assert not found.to_a.any()
    assert not found.to_b.any()
    assert torch.allclose(found.mask, torch.tensor(0.75))
    assert torch.equal(found.warp_a, a)
    with pytest.raises(OptionError, match="timestep must be between 0 and 1, got -1"):
        vsrife.flow(a, a, -1, device="cpu")


def test_flo_files(tmp_path: Path) -> None:
    flow = np.random.default_rng(1).normal(0, 30, (5, 7, 2)).astype(np.float32)
    write_flo(tmp_path / "a.flo", flow)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "a.flo")), flow)
    assert np.array_equal(read_flo(tmp_path / "a.flo"), flow)
    cv2.writeOpticalFlow(str(tmp_path / "b.flo"), flow)
    assert (tmp_path / "a.flo").read_bytes() == (tmp_path / "b.flo").read_bytes()
    for damage in (b"", b"PIEH", (tmp_path / "a.flo").read_bytes()[:-1]):
        (tmp_path / "c.flo").write_bytes(damage)
        with pytest.raises(MediaError, match=r"c\.flo must be a Middlebury flow, got "):
            read_flo(tmp_path / "c.flo")


def test_colours() -> None:
    vectors = np.array([[[0, 0], [8, 0], [-8, 0], [0, 8], [4, 0], [16, 0]]], np.float32)
    still, right, left, down, half, far = flow_colours(vectors, 8)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert right.tolist() == [255, 0, 0]
    assert left[0] < 10
    assert left[1:].min() > 200
    assert down[:2].min() > 200
    assert down[2] < 10
    assert half.tolist() == [255, 127, 127]
    assert far.tolist() == [191, 0, 0]
    assert flow_colours(vectors)[0, 5].tolist() == [255, 0, 0]
    assert flow_colours(np.zeros((2, 2, 2))).min() == 255


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = pair(shift)
    for name, pixels in (("a.png", a), ("b.png", b)):
        write_picture(tmp_path / name, Picture(pixels))
    arguments = ["flow", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--device", "cpu", "-q"]
    assert main(arguments) == 0
    folder = tmp_path / "flow"
    found = vsrife.flow(a, b, device="cpu")
    assert np.array_equal(read_flo(folder / "to_a.flo"), found.to_a)
    assert np.array_equal(read_flo(folder / "to_b.flo"), found.to_b)
    assert np.array_equal(read_picture(folder / "warp_a.png").pixels, found.warp_a)
    assert np.array_equal(read_picture(folder / "warp_b.png").pixels, found.warp_b)
    assert np.array_equal(read_picture(folder / "between.png").pixels, vsrife.interpolate(a, b, device="cpu"))
    assert np.abs(read_picture(folder / "mask.png").pixels[..., 0] / 65535 - found.mask).max() < 1e-4
    assert np.array_equal(read_picture(folder / "to_b.png").pixels, flow_colours(found.to_b))
    assert len(list(folder.iterdir())) == 8

    assert main(arguments) == 2
    assert "to_a.flo is there already; give another name, or --overwrite" in capsys.readouterr().err
    only = ["--only", "to_b.flo", "--timestep", "0", "-o", str(tmp_path / "other")]
    assert main([*arguments, *only]) == 0
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["to_b.flo"]
    assert np.array_equal(read_flo(tmp_path / "other" / "to_b.flo"), vsrife.flow(a, b, 0.0, device="cpu").to_b)
    (tmp_path / "file").touch()
    assert main([*arguments, "-o", str(tmp_path / "file")]) == 2
    assert "file cannot be made a folder, got: File exists; give another --output" in capsys.readouterr().err
