"""The CPU's operations against the reference. Float64 decides how far off each may be."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import av
import pytest
import torch

from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.engine.sources import InputFrame
from vsrife.ops.cases import CASES, FLOWS, Case, arguments_of, excess, unit, warp_inputs
from vsrife.ops.cpu import blending, llvm, to_rgb
from vsrife.ops.cpu.kernels import cpu_ops
from vsrife.ops.protocol import Conv
from vsrife.ops.reference import reference

SIZES = [(1, 1), (2, 3), (31, 65), (96, 128)]
BT709 = Colorimetry(matrix=1, full_range=False, chroma_location=0)
LUMA = PictureFormat("GRAY", 8, False, 640, 360)
FLOW_DEPENDENT = ("warp_stacks", "warp_convolve", "blend", "blend_plane")


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: f"{s[1]}x{s[0]}")
def test_operation_matches_reference(case: Case, size: tuple[int, int]) -> None:
    """At most twice the error of the reference in float32, plus the case's floor; both against float64."""
    for name, move in FLOWS.items():
        if case.op in FLOW_DEPENDENT or name == "subpixel":
            assert excess(getattr(cpu_ops, case.op), case, arguments_of(case, size, move, torch.float32)) <= 0, name


@pytest.mark.parametrize("lanes", [4, 8])
def test_vectors_of_smaller_cpus(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without AVX-512, and without AVX."""
    for module in (blending, llvm, to_rgb):
        monkeypatch.setattr(module, "lanes_here", lambda: lanes)
    for case in CASES:
        if case.op in ("planes_to_rgb", "warp_convolve", "blend_plane", "head"):
            arguments = arguments_of(case, (31, 65), FLOWS["subpixel"], torch.float32)
            assert excess(getattr(cpu_ops, case.op), case, arguments) <= 0, case


@pytest.mark.parametrize("case", [case for case in CASES if case.half], ids=str)
def test_half_precision(case: Case) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        arguments = arguments_of(case, (13, 37), FLOWS["subpixel"], dtype)
        assert excess(getattr(cpu_ops, case.op), case, arguments) <= 0, dtype


@torch.inference_mode()
def test_bfloat16_stays_close_to_float32(sample: Path) -> None:
    """The default on CPUs with units for it, the bundled model on real frames: at least 48 dB."""
    with av.open(str(sample)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in islice(container.decode(video=0), 10)]
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        engine = Engine(network(NetworkOptions(None, 1.0, False, torch.device("cpu"), dtype)), LUMA)
        planes = engine.interpolate(
            InputFrame(0, [frames[8]], BT709), InputFrame(1, [frames[9]], BT709), 0.5, out="device"
        )
        assert planes is not None
        results.append(planes[0].double())
    error = (results[0] - results[1]).square().mean()
    assert 10 * math.log10(255**2 / error) > 48


def test_half_precision_planes() -> None:
    """Numba has no float16."""
    generator = torch.Generator().manual_seed(3)
    a, b = (unit(generator, 1, 1, 12, 20).half() for _ in range(2))
    b[..., 10:] = a[..., 10:]
    assert torch.equal(cpu_ops.static_radius(a, b), reference.static_radius(a, b))
    rest = unit(generator, 1, 4, 12, 20).float(), unit(generator, 1, 1, 12, 20).float(), cpu_ops.static_radius(a, b), 1
    got, expected = cpu_ops.blend_plane(a, b, *rest), reference.blend_plane(a, b, *rest)
    assert got.dtype == torch.float16
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (24, 40)], ids=lambda s: f"{s[1]}x{s[0]}")
@pytest.mark.parametrize("kind", ["leaky", "prelu", "residual", "linear"])
def test_convolution_matches_reference(kind: str, size: tuple[int, int], groups: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight = unit(generator, 2, 16, *size), unit(generator, 16, 16 // groups, 3, 3)
    bias, slopes = (unit(generator, 1, 1, 1, 16).flatten() for _ in range(2))
    make = partial(
        Conv, stride=stride, groups=groups, residual=kind == "residual" and stride == 1, activated=kind != "linear"
    )

    def conv(dtype: torch.dtype) -> Conv:
        return make(weight.to(dtype), bias.to(dtype), slopes=slopes.to(dtype) if kind == "prelu" else None)

    exact = reference.convolve(x, conv(torch.float64))
    single = conv(torch.float32)
    for _ in range(2):  # the second time with the weights that the first has packed
        got = cpu_ops.convolve(x.float(), single)
        assert (got - exact).abs().max() < 1e-4


def test_flow_that_is_not_finite_reads_inside_the_picture() -> None:
    """A broken weights file may yield any flow; no memory outside the picture may be touched."""
    picture = torch.ones(1, 1, 8, 8)
    flow = torch.full((1, 4, 8, 8), float("nan"))
    flow[..., ::2] = float("inf")
    weight0 = torch.full((1, 1, 8, 8), 0.5)
    assert torch.equal(cpu_ops.blend(picture, picture, flow, weight0), picture)


@pytest.mark.parametrize("channels", [3, 7])
@pytest.mark.parametrize("size", [(1, 9), (2, 2), (23, 41)], ids=lambda s: f"{s[1]}x{s[0]}")
def test_padding_between_pixels_changes_no_bit(channels: int, size: tuple[int, int]) -> None:
    """Neighbouring pixels are read at once where their memory allows it, else one by one."""
    generator = torch.Generator().manual_seed(4)
    height, width = size
    roomy = [
        torch.full((1, channels + 1, height, width), math.nan).contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    ]
    stacks = [unit(generator, 1, channels, height, width).float() for _ in range(2)]
    for room, stack in zip(roomy, stacks, strict=True):
        room[:, :channels] = stack
    flow = 3 * unit(generator, 1, 4, height, width).float()
    grid = torch.arange(height).float()[:, None], torch.arange(width).float()
    extra, time = unit(generator, 1, 2, height, width).float(), torch.full((1, 1, 1, 1), 0.5)
    inputs = warp_inputs(stacks, [flow], *grid, 1, extra, time)
    filled = 2 * channels + 2 + 4 + 1
    expected = cpu_ops.warp_stacks(inputs, filled, torch.float32)
    first, second = (room[:, :channels] for room in roomy)
    assert torch.equal(
        cpu_ops.warp_stacks(replace(inputs, stack0=first, stack1=second), filled, torch.float32), expected
    )
    assert expected.isfinite().all()


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.op in ("blend", "blend_plane") and "batch" not in c.label], ids=str
)
def test_a_batch_is_its_samples_one_by_one(case: Case) -> None:
    """Several flows between the same two pictures: at once and one by one give the same bits."""
    per_flow = [arguments_of(case, (31, 65), move, torch.float32) for move in FLOWS.values()]
    flows = torch.cat([arguments[2] for arguments in per_flow])
    for ops in (cpu_ops, reference):
        op = getattr(ops, case.op)
        masks = per_flow[0][3].expand(len(flows), -1, -1, -1)
        together = op(*per_flow[0][:2], flows, masks, *per_flow[0][4:])
        alone = [op(*per_flow[0][:2], flow[None], *per_flow[0][3:]) for flow in flows]
        assert torch.equal(together, torch.cat(alone))
        assert not torch.equal(alone[0], alone[1])
