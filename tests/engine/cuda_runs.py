"""Pairs of a small moving clip through engines on the CPU and on a fake CUDA device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tests.golden import tensors
from vsrife.checkpoints.loading import Network
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.sources import InputFrame
from vsrife.engine.transfer import Planes
from vsrife.networks.catalogue import MODELS
from vsrife.networks.fold import fold

CPU, GPU, GPU1 = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
YUV420P8 = PictureFormat("YUV", 8, False, 60, 64, 1, 1)
BT709 = Colorimetry(matrix=1, full_range=False, chroma_location=0)
PAIRS = ((0, 1), (1, 2), (0, 1))  # on, and back


def clip(fmt: PictureFormat, count: int = 3) -> list[InputFrame]:
    """A smooth pattern that moves by two pixels a frame."""
    return [InputFrame(i, _planes(fmt, i), BT709) for i in range(count)]


@lru_cache(maxsize=1)
def _pattern() -> Tensor:
    coarse = torch.rand((1, 3, 20, 20), generator=torch.Generator().manual_seed(0))
    return F.interpolate(coarse, scale_factor=8, mode="bicubic")[0].clamp(0, 1)


def _planes(fmt: PictureFormat, frame: int) -> list[NDArray[np.generic]]:
    planes = list[NDArray[np.generic]]()
    for p in range(fmt.num_planes):
        right, down = (fmt.subsampling_w, fmt.subsampling_h) if p and fmt.subsampled(1) else (0, 0)
        values = _pattern()[p, : fmt.height : 1 << down, 2 * frame : 2 * frame + fmt.width : 1 << right].numpy()
        if fmt.floating:
            planes.append(values.astype(np.float16 if fmt.bits == 16 else np.float32))
        else:
            planes.append(((16 + 219 * values) * 2 ** (fmt.bits - 8)).astype(np.uint8 if fmt.bits == 8 else np.uint16))
    return planes


@lru_cache(maxsize=4)
def _cpu_network(version: str, dtype: torch.dtype) -> Network:
    return network(version, CPU, dtype)


def network(version: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Network:
    return fold(MODELS[version].layout, tensors(version), device=device, dtype=dtype)


def run(engine: Engine, pairs: Sequence[tuple[int, int]] = PAIRS) -> list[Planes]:
    """The middle frames of pairs of the clip."""
    pictures = clip(engine.fmt)
    started = [engine.interpolate(pictures[a], pictures[b], 0.5) for a, b in pairs]
    return [download.planes() for download in started if download is not None]


@lru_cache(maxsize=16)
def expected(version: str, fmt: PictureFormat, dtype: torch.dtype = torch.float32) -> list[Planes]:
    """What the CPU computes with plain PyTorch; called within `plain_operations`."""
    return run(Engine(_cpu_network(version, dtype), fmt))


def largest_difference(result: Sequence[Planes], other: Sequence[Planes]) -> float:
    """Of all samples, in codes or in values."""
    pairs = [(a, b) for one, two in zip(result, other, strict=True) for a, b in zip(one, two, strict=True)]
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
