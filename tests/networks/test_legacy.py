"""Networks before 4.x: equal to the authors' outputs, in every generation."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.golden.legacy import (
    SMALL,
    LegacyCase,
    checksum,
    full_cases,
    legacy_output,
    legacy_tensors,
    own_cases,
    small_net,
)
from vsrife.networks import legacy
from vsrife.networks.catalogue import LEGACY_LAYOUTS, LEGACY_MODELS
from vsrife.networks.legacy import tensor_shapes

LARGEST_ERROR = 2e-4  # float32 on any CPU against float32 on the authors' code; values in 0..1
SCALED = {  # of the full set
    "1.5_64x96_t0.5_s0.5", "2.0_64x96_t0.5_s2.0", "3.8_64x96_t0.5_s0.5", "3.8_64x96_t0.5_s2.0", "3.9_64x96_t0.5_s0.5",
    "RIFE_64x96_t0.5_s2.0", "RIFE_m_64x96_t0.5_s0.5", "RIFE_2R_64x96_t0.5_s0.5",
}  # fmt: skip


@pytest.mark.parametrize("case", own_cases(), ids=lambda case: case.key)
@torch.inference_mode()
def test_published_forward_equals_the_authors_output(case: LegacyCase, request: pytest.FixtureRequest) -> None:
    assert_equals_output(case, request)


@torch.inference_mode()
def test_published_forward_at_other_flow_scales(golden_data: Path, request: pytest.FixtureRequest) -> None:
    cases = sorted(full_cases(golden_data / "legacy"), key=lambda case: case.version)
    assert len(cases) == 32
    for case in cases:
        if case.key in SCALED:
            assert_equals_output(case, request)


def assert_equals_output(case: LegacyCase, request: pytest.FixtureRequest) -> None:
    net = legacy.load(case.layout, legacy_tensors(case.version), scale=case.scale)
    got = net(*case.frames, case.timestep)[0]
    expected = legacy_output(case, request)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= LARGEST_ERROR, case.key


def test_tensors_of_every_generation(golden_data: Path) -> None:
    """Names and shapes are those in the published checkpoints."""
    table = json.loads((golden_data / "legacy" / "tensors.json").read_text(encoding="ascii"))
    assert set(table["layouts"]) == set(LEGACY_LAYOUTS)
    for layout_id, shapes in table["layouts"].items():
        expected = {name: tuple(shape) for name, shape in shapes.items() if not name.endswith(legacy.COUNTER)}
        assert tensor_shapes(LEGACY_LAYOUTS[layout_id]) == expected
    assert {version: LEGACY_MODELS[version].layout.id for version in table["versions"]} == table["versions"]
    assert checksum(legacy_tensors("3.8")) == 0x430E444D  # so the rule gives the weights of the reference outputs
    assert checksum(legacy_tensors("1.2")) == 0x9C908F8C


def test_the_documentation_lists_them() -> None:
    text = (Path(__file__).parents[2] / "docs" / "guide" / "models.md").read_text(encoding="utf-8")
    table = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    rows = {name.strip(): row for row in table for name in row[0].split(",")}
    for spec in LEGACY_MODELS.values():
        values = sum(math.prod(shape) for shape in tensor_shapes(spec.layout).values())
        _, _, files, count, times, refinement = (cell.strip() for cell in rows[spec.name])
        assert count == f"{values:,}"
        assert (times == "any") == spec.layout.takes_time
        assert (refinement == "yes") == (spec.layout.refiner is not None)
        assert ("contextnet" in files) == (spec.layout.id in ("E01", "E02", "E03", "E04"))


@pytest.mark.parametrize("layout_id", SMALL)
@torch.inference_mode()
def test_half_precision_stays_near(layout_id: str) -> None:
    """Coordinates, flow and blend are float32 whatever the convolutions are."""
    frames = own_cases()[0].frames
    net = small_net(layout_id)
    exact = net(*frames)
    half = legacy.load(net.layout, legacy_tensors("small", net.layout), dtype=torch.bfloat16)(*frames)
    assert half.dtype == torch.float32
    assert 0 < (half - exact).abs().mean() < 0.02
