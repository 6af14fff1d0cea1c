"""`vsrife.flow`: against exactly known motion, and against the picture that it explains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

import vsrife
from benchmarks.endpoint_error import HEIGHT, MOTIONS, WIDTH, back, endpoint_error_px, make_pair, places
from vsrife.errors import OptionError


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
