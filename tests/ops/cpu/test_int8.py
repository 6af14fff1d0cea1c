"""Convolutions in eight bits: the kernels of CPUs with VNNI against the reference, and the quality of whole networks.

Where the CPU has no dot products of bytes, the reference stands in for the kernels, with the same results.
"""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path
from typing import Any

import av
import pytest
import torch
import vapoursynth as vs
from safetensors.torch import save_file
from torch import Tensor

import vsrife
from tests.clips import equal, pan, planes_of, psnr_db
from tests.cpu_units import simulate_cpu
from vsrife.checkpoints.finding import find_weights
from vsrife.checkpoints.loading import read_ifnet
from vsrife.engine.devices import parse_precision
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.engine.sources import InputFrame
from vsrife.errors import DeviceError, OptionError
from vsrife.networks.catalogue import LEGACY_LAYOUTS, MODELS
from vsrife.networks.fold import fold
from vsrife.networks.legacy import tensor_shapes
from vsrife.ops.cases import unit
from vsrife.ops.cpu import int8
from vsrife.ops.cpu.kernels import cpu_ops
from vsrife.ops.protocol import Conv, TransposedConv
from vsrife.ops.reference import reference

CPU = torch.device("cpu")
SIZES = [(1, 1), (2, 3), (5, 31), (37, 64)]
KINDS: dict[str, dict[str, Any]] = {
    "residual": {"residual": True},
    "prelu": {"slopes": True},
    "linear": {"activated": False},
    "stride 2": {"stride": 2},
}
here = int8.vectors_here()
needs_vnni = pytest.mark.skipif(not here, reason="this CPU has no dot products of bytes")


def quantized_weights(
    generator: torch.Generator, outputs: int, inputs: int, taps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of a convolution, their scales, and a bias."""
    weight = torch.randint(-127, 128, (outputs, inputs, taps, taps), generator=generator).to(torch.int8)
    scales, bias = (unit(generator, 1, 1, 1, outputs).flatten().float() for _ in range(2))
    return weight, scales.abs() / (127 * 3 * inputs), bias


@needs_vnni
@pytest.mark.parametrize("lanes", here)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("outputs", "inputs"), [(32, 32), (96, 12), (24, 24), (80, 80), (112, 112)])
def test_convolution_matches_reference(
    outputs: int, inputs: int, kind: str, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sample and several, of any size, also a slice of a larger map; with both lengths of vectors."""
    monkeypatch.setattr(int8, "vectors_here", lambda: (lanes, 8))
    options = KINDS[kind]
    if options.get("residual") and outputs != inputs:
        return
    generator = torch.Generator().manual_seed(5)
    weight, scales, bias = quantized_weights(generator, outputs, inputs, 3)
    slopes = unit(generator, 1, 1, 1, outputs).flatten().float() if "slopes" in options else None
    conv = Conv(weight, bias, scales=scales, **options | {"slopes": slopes})
    for size in SIZES:
        x = unit(generator, 2, inputs + 4, *size).float()[:, 2:-2] * 5
        got, expected = cpu_ops.convolve(x, conv), reference.convolve(x, conv)
        torch.testing.assert_close(got, expected, rtol=0, atol=4e-6)
        torch.testing.assert_close(cpu_ops.convolve(x[:1], conv), expected[:1], rtol=0, atol=4e-6)


@needs_vnni
@pytest.mark.parametrize(("outputs", "inputs", "factor"), [(80, 64, 4), (208, 32, 4), (32, 16, 2)])
def test_transposed_convolution_matches_reference(outputs: int, inputs: int, factor: int) -> None:
    generator = torch.Generator().manual_seed(6)
    weight, scales, bias = quantized_weights(generator, outputs, inputs, 2)
    conv = TransposedConv(weight, bias, factor, scales)
    for size in SIZES:
        x = unit(generator, 2, inputs, *size).float()
        got = cpu_ops.conv_transpose(x, conv)
        torch.testing.assert_close(got, reference.conv_transpose(x, conv), rtol=0, atol=4e-6)


@needs_vnni
@pytest.mark.parametrize("x", [0.0, 1e-30, 3e38, math.inf, math.nan])
def test_extreme_values(x: float) -> None:
    """Constant, tiny, huge and non-finite maps: results as the reference's, and no access outside the map."""
    generator = torch.Generator().manual_seed(7)
    weight, scales, bias = quantized_weights(generator, 16, 16, 3)
    conv = Conv(weight, bias, scales=scales)
    image = torch.full((1, 16, 5, 7), x)
    got = cpu_ops.convolve(image, conv)
    if math.isfinite(x):
        torch.testing.assert_close(got, reference.convolve(image, conv))


@needs_vnni
def test_a_chain_is_its_layers_one_by_one() -> None:
    """The value range that a layer reports is that of its output, so that the next layer's codes are the same."""
    net = fold(*bundled(), dtype=torch.int8)
    x = unit(torch.Generator().manual_seed(8), 2, 64, 21, 33).float()
    one_by_one = x
    for conv in net.blocks[3].body:
        assert conv.scales is not None
        one_by_one = cpu_ops.convolve(one_by_one, conv)
    assert torch.equal(cpu_ops.convolve_chain(x, net.blocks[3].body), one_by_one)


def bundled() -> tuple[Any, Any]:
    weights = read_ifnet(find_weights(None))
    return weights.layout, weights.tensors


@torch.inference_mode()
@pytest.mark.parametrize("model", ["base", "lite", "fast"])
def test_bundled_models_stay_close_to_float32(model: str, sample: Path) -> None:
    """On real frames with motion: at least 48 dB."""
    with av.open(str(sample)) as container:
        frames = [frame.to_ndarray(format="gray") for frame in islice(container.decode(video=0), 10)]
    weights = read_ifnet(find_weights(model))
    a, b = (
        InputFrame(i, [frames[8 + i]], Colorimetry(matrix=1, full_range=False, chroma_location=0)) for i in range(2)
    )
    results = []
    for dtype in (torch.float32, torch.int8):
        engine = Engine(fold(weights.layout, weights.tensors, dtype=dtype), PictureFormat("GRAY", 8, False, 640, 360))
        planes = engine.interpolate(a, b, 0.5, out="device")
        assert planes is not None
        results.append(planes[0].numpy())
    assert not equal([results[0]], [results[1]])
    assert psnr_db(results[0], results[1], 255) > 48


@pytest.mark.parametrize("version", ["4.0", "4.6", "4.14.lite", "4.25.lite", "4.26.heavy"])
def test_quantized_layers(version: str) -> None:
    """All of a block but its first layer, if the shapes fit vectors: grouped layers and five outputs do not. The last
    layer of coarse blocks stays in float32."""
    layout = MODELS[version].layout
    generator = torch.Generator().manual_seed(9)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in layout.tensor_shapes().items()}
    coarse, *_, block = fold(layout, tensors, dtype=torch.int8).blocks
    assert coarse.last.scales is None
    assert block.first.scales is None
    assert (block.body[0].scales is None) == (version == "4.14.lite")
    assert (block.last.scales is None) == (version == "4.0")
    assert block.second.scales is not None


def test_the_filter_in_eight_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random access gives what a linear run gives, to the last bit; close to float32."""
    simulate_cpu(monkeypatch, "vnni")
    clip = pan(5, 160, 96)
    quantized, exact = (vsrife.RIFE(clip, device="cpu", precision=precision) for precision in ("int8", "fp32"))
    linear = [planes_of(quantized, n) for n in range(quantized.num_frames)]
    again = vsrife.RIFE(clip, device="cpu", precision="int8")
    for n in (7, 1, 4, 3):
        assert equal(planes_of(again, n), linear[n])
    assert psnr_db(linear[3][0], planes_of(exact, 3)[0], 255) > 48


# --- where it is refused ----------------------------------------------------------------------------------------------


def test_other_devices_and_cpus_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="precision 'int8' is for CPUs, got device 'cuda'; leave precision out"):
        parse_precision("int8", torch.device("cuda"))
    monkeypatch.setattr(int8, "vectors_here", lambda: ())
    with pytest.raises(
        vs.Error, match="RIFE: precision 'int8' needs a CPU with AVX-512 VNNI or AVX-VNNI, got one with"
    ):
        vsrife.RIFE(pan(2, 64, 64), device="cpu", precision="int8")


@needs_vnni
def test_models_before_4_refuse(tmp_path: Path) -> None:
    layout = LEGACY_LAYOUTS["E05"]
    save_file({name: torch.zeros(shape) for name, shape in tensor_shapes(layout).items()}, tmp_path / "old.safetensors")
    with pytest.raises(OptionError, match=r"precision must not be 'int8' for models before 4.x, got it for old; leave"):
        network(NetworkOptions(tmp_path / "old.safetensors", 1.0, False, CPU, torch.int8))
