"""Names and shapes of tensors tell the layout; what fits none is compared with the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.checkpoints.weights_files import changed, save
from vsrife.checkpoints.loading import load_model
from vsrife.checkpoints.recognition import recognise
from vsrife.errors import WeightsError
from vsrife.networks.catalogue import LAYOUTS


def test_every_layout_is_told_from_the_others() -> None:
    for layout in LAYOUTS.values():
        assert recognise(layout.tensor_shapes(), Path("a.pkl")) == layout


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (changed(block3__lastconv__0__bias=None), "4.17.lite (L10), but got missing: block3.lastconv.0.bias 24;"),
        (changed(encode__cnn3__bias=torch.ones(8)), "(L10), but got other shapes: encode.cnn3.bias 8 instead of 4;"),
        (changed(block4__extra=torch.ones(2, 3)), "(L10) and 1 that no known version has, block4.extra; it may be of"),
        ({"model.0.weight": torch.ones(1)}, "got 1 tensors (model.0.weight); expected names such as block0."),
        ({}, "got 0 tensors (none); expected names"),
    ],
    ids=["missing", "other shape", "unknown", "foreign", "nothing"],
)
def test_a_layout_that_does_not_fit_is_compared_with_the_nearest(
    tensors: dict[str, Tensor], expected: str, tmp_path: Path
) -> None:
    path = save(tensors, tmp_path / "a.pkl")
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    assert f"{path} fits no RIFE 4.x layout" in str(caught.value)
    assert expected in str(caught.value)
