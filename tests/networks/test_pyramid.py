"""The lazy forward on folded weights: the authors' outputs, and the published forward in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.golden import CASES, Case, authors_output, frame_pair, tensors
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.networks import pyramid
from vsrife.networks.catalogue import LAYOUTS, MODELS, Layout
from vsrife.networks.fold import FoldedNet, fold
from vsrife.networks.ifnet import IFNet
from vsrife.ops.reference import reference, resize

LARGEST_ERROR = 2e-4  # float32 on any CPU against float32 on the authors' code; values in 0..1
FULL_RANGE = Colorimetry(matrix=0, full_range=True, chroma_location=0)
VERSION_OF = {spec.layout.id: spec.name for spec in MODELS.values()}  # the last of each layout


def padded(frames: tuple[Tensor, Tensor], layout: Layout, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    height, width = frames[0].shape[-2:]
    full_width, full_height = layout.padded(width, height, scale)
    first, second = (F.pad(f, (0, full_width - width, 0, full_height - height)) for f in frames)
    return first, second


def lazy(net: FoldedNet, frames: tuple[Tensor, Tensor], timestep: float) -> tuple[Tensor, Tensor, Tensor]:
    """Image, flow and mask of the lazy forward at the size of the frames."""
    height, width = frames[0].shape[-2:]
    source0, source1 = (pyramid.encode(net, f) for f in padded(frames, net.layout, net.scale))
    field = pyramid.estimate(net, source0, source1, timestep)
    flow, mask = field.flow()[..., :height, :width], field.mask(*field.size)[..., :height, :width]
    image = reference.blend(source0.stack[:, :3], source1.stack[:, :3], flow, torch.sigmoid(mask))
    return image, flow, mask


def published(layout: Layout, weights: dict[str, Tensor]) -> IFNet:
    """The published forward in float64."""
    net = IFNet(layout).double()
    net.load_state_dict(weights)
    return net


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.key)
@torch.inference_mode()
def test_engine_equals_the_authors_output(case: Case, request: pytest.FixtureRequest) -> None:
    expected = authors_output(case, request)
    net = fold(case.layout, case.tensors, scale=case.scale, ensemble=case.ensemble)
    engine = Engine(net, PictureFormat("RGB", 32, True, width=case.width, height=case.height))
    left, right = (InputFrame(i, list(frame[0].numpy()), FULL_RANGE) for i, frame in enumerate(case.frames))
    planes = engine.interpolate(left, right, case.timestep, out="device")
    assert planes is not None
    assert (torch.stack(planes) - expected).abs().max() <= LARGEST_ERROR


@pytest.mark.parametrize("version", ["4.6", "4.25"])
@torch.inference_mode()
def test_flow_and_mask_after_every_block(version: str, golden_data: Path) -> None:
    layout = MODELS[version].layout
    net = fold(layout, tensors(version))
    source0, source1 = (pyramid.encode(net, f) for f in padded(frame_pair(64, 96), layout))
    field = pyramid.estimate(net, source0, source1, 0.5)
    with np.load(golden_data / "blocks.npz") as stored:
        for i in range(layout.blocks):
            flow = sum(resize(small, *field.size) for small in field.flows[: i + 1])
            assert isinstance(flow, Tensor)
            assert (flow[0] - torch.from_numpy(stored[f"v{version}_flow{i}"])).abs().max() <= 1e-3
        last = torch.from_numpy(stored[f"v{version}_mask{layout.blocks - 1}"])
        assert (field.mask(*field.size)[0] - last).abs().max() <= 1e-3
        if layout.mask_accumulates:
            first = torch.from_numpy(stored[f"v{version}_mask0"])
            assert (resize(field.masks[0], *field.size)[0] - first).abs().max() <= 1e-3


@pytest.mark.parametrize("version", ["4.9", "4.12", "4.13", "4.25"])
@torch.inference_mode()
def test_head_features(version: str, golden_data: Path) -> None:
    layout = MODELS[version].layout
    source = pyramid.encode(fold(layout, tensors(version)), padded(frame_pair(64, 96), layout)[0])
    with np.load(golden_data / "blocks.npz") as stored:
        expected = torch.from_numpy(stored[f"v{version}_head0"])
    assert (source.stack[0, 3:] - expected).abs().max() <= 1e-4


def _float64_rows() -> list[tuple[str, float, bool]]:
    """Every layout; every ensemble; every flow scale for one layout of each list of scales and kind of block."""
    rows = [(layout.id, 1.0, False) for layout in LAYOUTS.values()]
    rows += [(layout.id, 1.0, True) for layout in LAYOUTS.values() if layout.ensemble]
    rows += [(name, scale, False) for name in ("L07", "L13", "L14") for scale in (0.25, 0.5, 2.0, 4.0)]
    rows += [("L01", 2.0, False), ("L04", 0.5, True), ("L07", 2.0, True), ("L15", 0.5, False)]
    return sorted(rows)


@pytest.mark.parametrize(("layout_id", "scale", "ensemble"), _float64_rows())
@torch.inference_mode()
def test_lazy_forward_is_the_published_function(layout_id: str, scale: float, ensemble: bool) -> None:
    """In float64 every fold and every step that the lazy forward leaves out changes nothing."""
    layout = LAYOUTS[layout_id]
    weights = {name: tensor.double() for name, tensor in tensors(VERSION_OF.get(layout_id, layout_id)).items()}
    first, second = (f.double() for f in frame_pair(37, 53))
    net = fold(layout, weights, scale=scale, ensemble=ensemble, dtype=torch.float64)
    image, flow, mask = lazy(net, (first, second), 0.3)
    reference = published(layout, weights)(first, second, 0.3, scale=scale, ensemble=ensemble)
    assert (flow - reference.flows[-1]).abs().max() <= 1e-11
    assert (mask - reference.masks[-1]).abs().max() <= 1e-11
    assert (image - reference.image).abs().max() <= 1e-12
    assert (reference.flows[-1] - reference.flows[0]).abs().max() > 0.1  # the later blocks matter


@pytest.mark.parametrize(("ensemble", "timestep"), [(False, 0.5), (True, 0.3)], ids=["plain", "ensemble"])
@torch.inference_mode()
def test_second_try_is_the_published_function(ensemble: bool, timestep: float) -> None:
    """Motion beyond 32 pixels towards both frames makes 4.0 start again at half the resolution."""
    layout = MODELS["4.0"].layout
    weights = {name: tensor.double() for name, tensor in tensors("4.0", 9.0).items()}
    first, second = (f.double() for f in frame_pair(128, 192))
    net = fold(layout, weights, ensemble=ensemble, dtype=torch.float64)
    source0, source1 = pyramid.encode(net, first), pyramid.encode(net, second)
    assert pyramid.estimate(net, source0, source1, timestep).flows[0].shape[-2:] == (4, 6)  # 1/32: it was entered
    image, flow, _mask = lazy(net, (first, second), timestep)
    reference = published(layout, weights)(first, second, timestep, ensemble=ensemble)
    assert (flow - reference.flows[-1]).abs().max() <= 1e-9  # of flows up to thousands of pixels
    assert (image - reference.image).abs().max() <= 1e-10


@torch.inference_mode()
def test_second_try_of_a_size_that_the_original_rejects() -> None:
    """96 lines are a multiple of 32 as 4.0 needs, but not of 64 as its second try does."""
    net = fold(MODELS["4.0"].layout, tensors("4.0", 9.0))
    first, second = frame_pair(96, 160)
    field = pyramid.estimate(net, pyramid.encode(net, first), pyramid.encode(net, second), 0.5)
    assert field.flows[0].shape[-2:] == (4, 6)  # the first try has 6x10
    image, _flow, _mask = lazy(net, (first, second), 0.5)
    assert image.shape == first.shape
    assert image.isfinite().all()
    assert 0.1 < image.std() < 0.3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("version", ["4.6", "4.25"])
@pytest.mark.parametrize(("height", "width", "timestep"), [(96, 160, 0.5), (64, 96, 0.3), (45, 70, 0.5)])
@torch.inference_mode()
def test_half_precision_stays_near(version: str, dtype: torch.dtype, height: int, width: int, timestep: float) -> None:
    layout, frames = MODELS[version].layout, frame_pair(height, width)
    exact, _flow, _mask = lazy(fold(layout, tensors(version)), frames, timestep)
    image, flow, mask = lazy(fold(layout, tensors(version), dtype=dtype), frames, timestep)
    assert (image.dtype, flow.dtype, mask.dtype) == (torch.float32,) * 3
    assert not torch.equal(image, exact)
    assert -10 * (image - exact).square().mean().log10() >= 48  # dB


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)  # the fast ops of a CPU, and the plain ones
@pytest.mark.parametrize("version", ["4.6", "4.15.lite", "4.25"])
@torch.inference_mode()
def test_several_times_at_once(version: str, dtype: torch.dtype) -> None:
    """What each time alone gives: to the last bit in the precision of pictures."""
    net = fold(MODELS[version].layout, tensors(version), dtype=dtype)
    source0, source1 = (pyramid.encode(net, f.to(dtype)) for f in padded(frame_pair(50, 90), net.layout))
    times = torch.tensor([0.25, 0.5, 0.8], dtype=dtype).reshape(-1, 1, 1, 1)
    fields = [pyramid.estimate(net, source0, source1, time[None]) for time in times]
    together = pyramid.estimate(net, source0, source1, times)
    for one, other in (
        (torch.cat([field.flow() for field in fields]), together.flow()),
        (torch.cat([field.mask(*field.size) for field in fields]), together.mask(*together.size)),
    ):
        assert (one[0] - one[1]).abs().max() > 1e-4
        assert torch.equal(one, other) if dtype == torch.float32 else (one - other).abs().max() < 1e-12
