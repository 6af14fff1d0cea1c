"""Middlebury flow files and their colour coding, against OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from vsrife.images.flow_files import flow_colours, write_flo


def test_flo_files(tmp_path: Path) -> None:
    flow = np.random.default_rng(1).normal(0, 30, (5, 7, 2)).astype(np.float32)
    write_flo(tmp_path / "a.flo", flow)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "a.flo")), flow)
    cv2.writeOpticalFlow(str(tmp_path / "b.flo"), flow)
    assert (tmp_path / "a.flo").read_bytes() == (tmp_path / "b.flo").read_bytes()


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
