"""Weights and frames to measure with. Needs PyTorch and NumPy only, except for the bundled weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.measure import ROOT, Size
from vsrife.checkpoints.finding import find_weights
from vsrife.checkpoints.loading import read_ifnet
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.networks.catalogue import MODELS, Layout
from vsrife.networks.fold import FoldedNet, fold
from vsrife.networks.ifnet import IFNet

GOLDEN = ROOT / "tests" / "golden"
BT709 = Colorimetry(matrix=1, full_range=False, chroma_location=0)
BUNDLED = "default"  # the name under which the bundled model is measured

Weights = tuple[Layout, Mapping[str, Tensor]]


@lru_cache(maxsize=1)
def golden() -> ModuleType:
    """The module that generates synthetic weights and frames for the golden tests."""
    spec = importlib.util.spec_from_file_location("make_inputs", GOLDEN / "make_inputs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@lru_cache(maxsize=2)
def made_weights(version: str, boost: float = 1.0) -> dict[str, Tensor]:
    """Synthetic weights of a published version, as in the golden tests; as fast as real ones."""
    made: Mapping[str, np.ndarray] = golden().weights(version, MODELS[version].layout.tensor_shapes(), boost)
    return {name: torch.from_numpy(array) for name, array in made.items()}


def weights_of(model: str) -> Weights:
    """Synthetic weights of a published version, or those of `BUNDLED` or another installed model."""
    if model in MODELS:
        return MODELS[model].layout, made_weights(model)
    weights = read_ifnet(find_weights(None if model == BUNDLED else model))
    return weights.layout, weights.tensors


def folded(model: str, device: torch.device, dtype: torch.dtype) -> FoldedNet:
    layout, tensors = weights_of(model)
    return fold(layout, tensors, device=device, dtype=dtype)


def published(model: str, device: torch.device, dtype: torch.dtype) -> IFNet:
    """The published network with the same weights; in float32 for int8."""
    layout, tensors = weights_of(model)
    net = IFNet(layout).eval()
    net.load_state_dict(dict(tensors))
    return net.to(device, torch.float32 if dtype == torch.int8 else dtype)


def pictures(size: Size, device: torch.device, count: int) -> list[InputFrame]:
    """YUV420P8 frames of a pattern that moves by a few pixels, with planes on the device."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((1, 3, size.height // 16 + 9, size.width // 16 + 9), generator=generator)
    large = F.interpolate(coarse, scale_factor=16, mode="bicubic", align_corners=False).clamp(0, 1) * 219 + 16
    planes = []
    for i in range(count):
        moved = large[0, :, 2 * i : 2 * i + size.height, 6 * i : 6 * i + size.width].to(torch.uint8)
        planes.append([moved[0].contiguous(), *(moved[p, ::2, ::2].contiguous() for p in (1, 2))])
    return [InputFrame(i, [p.to(device) for p in three], BT709) for i, three in enumerate(planes)]


def format_of(size: Size) -> PictureFormat:
    return PictureFormat("YUV", 8, False, size.width, size.height, 1, 1)
