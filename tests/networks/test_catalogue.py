"""The rows of the catalogue: 36 models, 17 layouts and three of our own, and the tensors that each has."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest

from tests.golden.make_inputs import frames, weights
from vsrife.engine.keywords import FLOW_SCALES
from vsrife.networks.catalogue import LAYOUTS, MODELS, Layout


def test_tensors_of_every_version(golden_data: Path) -> None:
    """Names and shapes are those in the published checkpoints, and equal layouts share one row."""
    table = json.loads((golden_data / "tensors.json").read_text(encoding="ascii"))
    assert set(table["versions"]) == set(MODELS)
    for version, layout in table["versions"].items():
        expected = {name: tuple(shape) for name, shape in table["layouts"][layout].items()}
        assert MODELS[version].layout.tensor_shapes() == expected
    rows = {(layout, MODELS[version].layout.id) for version, layout in table["versions"].items()}
    assert len(rows) == len(table["layouts"]) == len(LAYOUTS) - 3 == 17  # the others are our own


def test_layouts_are_told_apart_by_their_tensors() -> None:
    """A weights file alone decides the forward rule."""
    assert len({tuple(sorted(layout.tensor_shapes().items())) for layout in LAYOUTS.values()}) == len(LAYOUTS)


@pytest.mark.parametrize(
    ("version", "crc", "first"),
    [
        ("4.0", 0xB044E355, (0.0234673135, -0.0182201583, 0.316522598)),
        ("4.6", 0xB7465137, (0.213799134, 0.116362818, -0.265518278)),
        ("4.13", 0x93FDA72B, (0.037333291, -0.0172438379, -0.0817516893)),
        ("4.14.lite", 0x0807E96E, (0.0729869679, 0.148708627, -0.17746301)),
        ("4.25", 0x15DFC3AE, (-0.0405991226, -0.216733083, 0.0664298534)),
        ("4.26.heavy", 0x684FC2DD, (-0.0841076449, 0.13594, -0.0595514514)),
    ],
)
def test_rule_for_weights(version: str, crc: int, first: tuple[float, ...]) -> None:
    """Check values of the reference set: names, shapes and rule give the very weights of the reference outputs."""
    made = weights(version, MODELS[version].layout.tensor_shapes())
    total = 0
    for name in sorted(made):
        total = zlib.crc32(made[name].astype("<f4").tobytes(), total)
    assert total == crc
    assert made["block0.conv0.0.0.weight"].ravel()[:3] == pytest.approx(first, rel=1e-8)


def test_rule_for_frames() -> None:
    a, b = frames(96, 160)
    got = [a[0, 0, 0], a[1, 47, 80], a[2, 95, 159], b[0, 0, 0], b[1, 47, 80], b[2, 95, 159]]
    assert got == pytest.approx([0.8647808, 0.4444138, 0.8090169, 0.6458292, 0.4074201, 0.746271], abs=1e-6)
    assert np.mean((a < 0) | (a > 1)) > 0.005


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.id)
@pytest.mark.parametrize("scale", FLOW_SCALES)
def test_padding_suits_every_block(layout: Layout, scale: float) -> None:
    """Whole cells at every block and even sides for its two strided convolutions, with the least padding."""
    for width, height in ((16, 16), (45, 70), (1920, 1080), (7680, 4321)):
        for side, full in zip((width, height), layout.padded(width, height, scale), strict=True):
            assert side <= full < side + layout.align(scale)
            assert all((full / factor) % 4 == 0 for factor in layout.scale_list(scale))


def test_padding_that_is_published() -> None:
    """The multiples of the released inference scripts."""
    assert [MODELS[v].layout.align(1.0) for v in ("4.6", "4.25", "4.25.lite", "4.26.heavy")] == [32, 64, 128, 64]
    assert [MODELS["4.6"].layout.align(s) for s in FLOW_SCALES] == [128, 64, 32, 32, 32]
