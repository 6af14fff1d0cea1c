"""`vsrife.flow` and `vsrife flow`: against motion that is known exactly, and what stands in the files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

import vsrife
from benchmarks.endpoint_error import HEIGHT, MOTIONS, WIDTH, back, endpoint_error_px, make_pair, places
from vsrife.cli import main
from vsrife.errors import MediaError, OptionError
from vsrife.images.files import Picture, read_picture, write_picture
from vsrife.images.flow_files import flow_colours, read_flo, write_flo


@pytest.mark.parametrize("name", ["shift", "zoom", "turn"])
def test_known_motion(name: str) -> None:
    """Forward from time 0 and back from time 1, each at the pixels of its picture, as Middlebury has it."""
    motion = MOTIONS[name]
    a, b = make_pair(motion)
    rows = (("to_b", 0.0, motion(places()) - places()), ("to_a", 1.0, back(motion) - places()))
    for direction, timestep, truth in rows:
        found = vsrife.flow(a, b, timestep, device="cpu")
        assert not getattr(found, "to_a" if direction == "to_b" else "to_b").any()
        error, length = endpoint_error_px(getattr(found, direction), truth), endpoint_error_px(truth * 0, truth)
        assert error < 0.5 * length, f"{name} {direction}: end-point error {error:.2f} of {length:.2f} px"


def test_seen_from_halfway() -> None:
    a, b = make_pair(MOTIONS["shift"])
    found = vsrife.flow(a, b, device="cpu")
    for flow, truth in ((found.to_a, [-2.5, 1.5]), (found.to_b, [2.5, -1.5])):
        assert flow.shape == (HEIGHT, WIDTH, 2)
        assert flow.dtype == np.float32
        assert endpoint_error_px(flow, np.broadcast_to(truth, flow.shape)) < 0.5 * 2.92


def test_warps_and_mask_make_the_picture() -> None:
    """With 16 bits and alpha too: each warp is what the flow says, and the picture is both by the mask."""
    a, b = (np.dstack((p, p[..., 1])).astype(np.uint16) * 257 for p in make_pair(MOTIONS["zoom"]))
    found = vsrife.flow(a, b, 0.3, device="cpu")
    x, y = (places() + found.to_b)[..., 0], (places() + found.to_b)[..., 1]
    expected = map_coordinates(b[..., 3].astype(float), [y, x], order=1, mode="nearest")
    assert found.warp_b.dtype == np.uint16
    assert np.abs(found.warp_b[..., 3] - expected).max() <= 8  # of 65535: positions in float32
    mixed = found.warp_a[..., 3] * found.mask + found.warp_b[..., 3] * (1 - found.mask)
    between = vsrife.interpolate(a, b, 0.3, device="cpu")
    assert np.quantile(np.abs(between[..., 3] - mixed), 0.99) <= 8  # where nothing moves the picture is that of a


def test_tensors_and_equal_pictures() -> None:
    a = torch.from_numpy(make_pair(MOTIONS["shift"])[0])
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
    a, b = make_pair(MOTIONS["shift"])
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
    assert "to_a.flo exists; give another name, or --overwrite" in capsys.readouterr().err
    only = ["--only", "to_b.flo", "--timestep", "0", "-o", str(tmp_path / "other")]
    assert main([*arguments, *only]) == 0
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["to_b.flo"]
    assert np.array_equal(read_flo(tmp_path / "other" / "to_b.flo"), vsrife.flow(a, b, 0.0, device="cpu").to_b)
    (tmp_path / "file").touch()
    assert main([*arguments, "-o", str(tmp_path / "file")]) == 1
    assert "file cannot be created, got: File exists; give another --output" in capsys.readouterr().err
