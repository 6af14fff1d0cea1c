"""The published forward against outputs of the authors' networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden import CASES, FOLDER, Case, authors_output, frame_pair, outputs, read_cases, tensors
from vsrife.networks.catalogue import LAYOUTS, MODELS, Layout
from vsrife.networks.ifnet import Encoder, IFNet

LARGEST_ERROR = 2e-4  # float32 on any CPU against float32 on the authors' code; values in 0..1
LARGEST_SET_BYTES = 3_000_000


def loaded(version: str, boost: float = 1.0) -> IFNet:
    net = IFNet(MODELS[version].layout)
    net.load_state_dict(tensors(version, boost))
    return net.eval()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
@torch.inference_mode()
def test_published_forward_equals_the_authors_output(case: Case, request: pytest.FixtureRequest) -> None:
    expected = authors_output(case, request)
    net = loaded(case.version, case.boost)
    got = net(*case.frames, case.timestep, scale=case.scale, ensemble=case.ensemble).image[0]
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= LARGEST_ERROR


def test_own_reference_set_checks_every_model() -> None:
    own = [case for case in CASES if case.key in outputs(FOLDER)]
    assert {case.version for case in own} == set(MODELS)
    assert any(case.boost != 1 for case in own)
    assert {case.scale for case in own} == {0.25, 0.5, 1.0, 2.0, 4.0}
    assert any(case.ensemble and case.layout.head for case in own)
    assert any(case.ensemble and not case.layout.head for case in own)
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= LARGEST_SET_BYTES


def test_own_reference_set_is_part_of_the_full_one(golden_data: Path) -> None:
    full = outputs(golden_data)
    assert set(read_cases(golden_data)) == set(CASES)
    assert len(full) == len(CASES) == 127
    assert all(torch.equal(value, full[key]) for key, value in outputs(FOLDER).items())


@pytest.mark.parametrize("version", ["4.6", "4.25"])
@torch.inference_mode()
def test_flow_and_mask_after_every_block(version: str, golden_data: Path) -> None:
    layout = MODELS[version].layout
    with np.load(golden_data / "blocks.npz") as stored:
        width, height = layout.padded(96, 64, 1.0)
        frames = [torch.nn.functional.pad(f, (0, width - 96, 0, height - 64)) for f in frame_pair(64, 96)]
        result = loaded(version)(*frames, 0.5)
        for i in range(layout.blocks):
            flow, mask = (torch.from_numpy(stored[f"v{version}_{what}{i}"]) for what in ("flow", "mask"))
            assert result.flows[i][0].shape == flow.shape
            assert (result.flows[i][0] - flow).abs().max() <= 1e-3
            assert (result.masks[i][0] - mask).abs().max() <= 1e-3


@pytest.mark.parametrize("version", ["4.9", "4.12", "4.13", "4.25"])
@torch.inference_mode()
def test_head_features(version: str, golden_data: Path) -> None:
    encoder = loaded(version).encode
    assert isinstance(encoder, Encoder)
    with np.load(golden_data / "blocks.npz") as stored:
        expected = torch.from_numpy(stored[f"v{version}_head0"])
    height, width = expected.shape[-2:]
    frame = torch.nn.functional.pad(frame_pair(64, 96)[0], (0, width - 96, 0, height - 64))
    assert (encoder(frame)[0] - expected).abs().max() <= 1e-4


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.id)
def test_parameters_are_those_of_the_checkpoints(layout: Layout) -> None:
    with torch.device("meta"):
        net = IFNet(layout)
    assert {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()} == layout.tensor_shapes()
    assert sum(p.numel() for p in net.parameters()) == layout.parameters()


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.id)
def test_ensemble_runs_or_is_refused(layout: Layout) -> None:
    with torch.device("meta"):
        net, frame = IFNet(layout), torch.zeros(1, 3, 64, 64)
    if layout.rescales:
        return  # branches on data, which meta tensors lack
    if layout.ensemble:
        assert net(frame, frame, ensemble=True).image.shape == frame.shape
    else:
        with pytest.raises(ValueError, match=f"{layout.id} cannot run as an ensemble"):
            net(frame, frame, ensemble=True)
