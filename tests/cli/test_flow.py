"""`vsrife flow`: the files that it writes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

import vsrife
from benchmarks.endpoint_error import MOTIONS, make_pair
from vsrife.cli import main
from vsrife.images.files import Picture, read_picture, write_picture
from vsrife.images.flow_files import flow_colours


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = make_pair(MOTIONS["shift"])
    for name, pixels in (("a.png", a), ("b.png", b)):
        write_picture(tmp_path / name, Picture(pixels))
    arguments = ["flow", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--device", "cpu", "-q"]
    assert main(arguments) == 0
    folder = tmp_path / "flow"
    found = vsrife.flow(a, b, device="cpu")
    assert np.array_equal(cv2.readOpticalFlow(str(folder / "to_a.flo")), found.to_a)
    assert np.array_equal(cv2.readOpticalFlow(str(folder / "to_b.flo")), found.to_b)
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
    assert np.array_equal(
        cv2.readOpticalFlow(str(tmp_path / "other" / "to_b.flo")), vsrife.flow(a, b, 0.0, device="cpu").to_b
    )
    (tmp_path / "file").touch()
    assert main([*arguments, "-o", str(tmp_path / "file")]) == 1
    assert "file cannot be created, got: File exists; give another --output" in capsys.readouterr().err
