"""Frames and features in half precision, as the CUDA kernels hold them: frames stay far above 48 dB of float32."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from benchmarks.half_stacks import between, nets_of
from benchmarks.measure import LEAST_PSNR_DB
from training.evalsets import Item


@pytest.mark.parametrize("model", ["base", "lite"])
def test_stacks_in_half_precision(model: str, sample: Path) -> None:
    """On real frames with motion; alone, and with convolutions in half precision as well."""
    with av.open(str(sample)) as container:
        frames = [frame.to_ndarray(format="rgb24").astype(np.uint8) for frame in islice(container.decode(video=0), 10)]
    item = Item("sample", "", frames[8][:192, :320], frames[9][:192, :320], {})
    with torch.inference_mode():
        exact, stacks, _, both = (between(net, item) for net in nets_of(model))
    assert not torch.equal(stacks, exact)
    for picture in (stacks, both):
        assert -10 * torch.log10((picture - exact).square().mean()) > LEAST_PSNR_DB
