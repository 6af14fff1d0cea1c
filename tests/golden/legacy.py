"""Reference outputs of the networks before 4.x, and the rule behind the weights that they belong to.

`legacy_outputs.npz` holds those of every generation at 45x70, cut out of the full set by `make_golden.py`. Frames are
those of `make_inputs`; README.md states the rule for weights in words.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.golden import frame_pair
from vsrife.networks import legacy
from vsrife.networks.catalogue import LEGACY_LAYOUTS, LEGACY_MODELS, LegacyLayout, Refiner, Shape
from vsrife.networks.legacy import LegacyNet, tensor_shapes

OWN = Path(__file__).parent / "legacy_outputs.npz"
_MODES = ("uhd", "tta", "temporal", "flip")  # of other programs
_FLOW_GAINS = {"E01": 0.8, "E02": 0.8, "E03": 1.2, "E04": 0.25}  # of a block's last layer
_MASK_GAINS = {"E01": 0.8, "E02": 0.8, "E03": 0.7, "E04": 0.7}  # of the refinement's last layer


@dataclass(frozen=True, slots=True, kw_only=True)
class LegacyCase:
    """One evaluation of an original network, or of the published ncnn graph."""

    key: str
    version: str
    height: int
    width: int
    timestep: float
    source: str
    scale: float = 1.0
    tta: bool = False
    temporal: bool = False

    @property
    def layout(self) -> LegacyLayout:
        return LEGACY_MODELS[self.version].layout

    @property
    def frames(self) -> tuple[Tensor, Tensor]:
        return frame_pair(self.height, self.width)


def _norm_names(shapes: Mapping[str, Shape]) -> set[str]:
    return {name.removesuffix(".running_mean") for name in shapes if name.endswith(".running_mean")}


def weight(version: str, layout_id: str, name: str, shape: Shape, norms: set[str]) -> NDArray[np.float32]:
    """One tensor of one version, by the rule."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"{version}/{name}".encode("ascii"))))
    u = (2.0 * generator.random(shape) - 1.0) * math.sqrt(3.0)
    if name.endswith(".running_mean"):
        return (0.1 * u).astype(np.float32)
    if name.endswith(".running_var"):
        return (1.0 + 0.25 * u).astype(np.float32)
    if name.endswith(".bias"):
        return (0.05 * u).astype(np.float32)
    if len(shape) == 1:
        is_norm = name.removesuffix(".weight") in norms
        return (1.0 + 0.1 * u if is_norm else 0.25 + 0.05 * u).astype(np.float32)
    transposed = shape[2] == 4
    std = 1 / math.sqrt(4 * shape[0] if transposed else math.prod(shape[1:]))
    gain = _gain(name, layout_id, shape[1] if transposed else shape[0])
    if isinstance(gain, np.ndarray):
        gain = gain.reshape((1, -1, 1, 1) if transposed else (-1, 1, 1, 1))
    return (gain * std * u).astype(np.float32)


def _gain(name: str, layout_id: str, outputs: int) -> float | NDArray[np.float64]:
    """Gain of a convolution, for each of its outputs where they differ."""
    family, layer, *_ = name.split(".")
    if ".fc1." in name or ".fc2." in name:
        return 4.0
    if name == "unet.conv.weight":
        channel = np.arange(outputs) // (4 if layout_id == "E02" else 1)
        return np.where(channel < 3, 0.2, _MASK_GAINS.get(layout_id, 0.0))
    if family in ("contextnet", "unet"):
        return 1.4
    if layer == "conv0":
        return 1.5
    if layer.startswith("res"):
        return 1.2
    if layer.startswith("convblock"):
        return 0.8 if layout_id in ("E04", "E05") else 1.4
    if layer == "lastconv":
        return np.array([0.30] * 4 + [0.7])
    if layout_id == "E05":
        return {"conv1.2.weight": 1.0, "conv2.2.weight": 2.5}.get(name.partition(".")[2], 1.4)
    return _FLOW_GAINS[layout_id]


@lru_cache(maxsize=2)
def legacy_tensors(version: str, layout: LegacyLayout | None = None) -> dict[str, Tensor]:
    """The weights that the rule gives for a version, or for a variant of its layout."""
    layout = layout or LEGACY_MODELS[version].layout
    shapes = tensor_shapes(layout)
    norms = _norm_names(shapes)
    return {n: torch.from_numpy(weight(version, layout.id, n, shapes[n], norms)) for n in sorted(shapes)}


def checksum(tensors: Mapping[str, Tensor]) -> int:
    """CRC-32 over all values in the order of the names."""
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].numpy().astype("<f4").tobytes(), total)
    return total


@lru_cache(maxsize=2)
def legacy_outputs(path: Path) -> dict[str, Tensor]:
    with np.load(path) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def own_cases() -> tuple[LegacyCase, ...]:
    """Every generation at 45x70 in the middle, and at another time where it takes one."""
    first = {spec.layout.id: spec.name for spec in reversed(list(LEGACY_MODELS.values()))}
    times = {name: (0.5, 0.3) if LEGACY_LAYOUTS[id_].takes_time else (0.5,) for id_, name in first.items()}
    return tuple(
        LegacyCase(key=f"{name}_45x70_t{t}", version=name, height=45, width=70, timestep=t, source="")
        for name in sorted(times)
        for t in times[name]
    )


def full_cases(folder: Path) -> list[LegacyCase]:
    """The cases of the full set that are about the published forward."""
    rows = json.loads((folder / "cases.json").read_text(encoding="ascii"))
    return [LegacyCase(**row) for row in rows if not any(mode in row for mode in _MODES)]


def averaged_cases(folder: Path) -> list[LegacyCase]:
    """The cases of the full set with test-time augmentation as in rife-ncnn-vulkan."""
    rows = json.loads((folder / "cases.json").read_text(encoding="ascii"))
    return [LegacyCase(**row) for row in rows if row.get("tta") or row.get("temporal")]


def own_averaged_cases() -> tuple[LegacyCase, ...]:
    """Both modes at once, for one flow of both frames and for a flow of each."""
    return tuple(
        LegacyCase(
            key=f"{version}_45x70_t0.5_tta_temporal", version=version, height=45, width=70, timestep=0.5,
            source="graph", tta=True, temporal=True,
        )
        for version in ("1.5", "2.0")
    )  # fmt: skip


def legacy_output(case: LegacyCase, request: pytest.FixtureRequest) -> Tensor:
    """The output of a case, (3, height, width): from this folder where it is here, else from the full set."""
    own = legacy_outputs(OWN)
    if case.key in own:
        return own[case.key]
    return legacy_outputs(request.getfixturevalue("golden_data") / "legacy" / "outputs.npz")[case.key]


# Narrow variants of the generations: as quick as tests need, through every way of the forward pass.
SMALL: dict[str, LegacyLayout] = {
    "E01": replace(LEGACY_LAYOUTS["E01"], widths=(12, 8, 8), refiner=Refiner(width=4, attention=True)),
    "E04": replace(LEGACY_LAYOUTS["E04"], widths=(12, 8, 8), refiner=Refiner(width=4, stem=True)),
    "E05": replace(LEGACY_LAYOUTS["E05"], widths=(12, 8, 8)),
    "E07": replace(LEGACY_LAYOUTS["E07"], widths=(12, 8, 8), refiner=Refiner(width=4, masks=False)),
    "E08": replace(LEGACY_LAYOUTS["E08"], widths=(12, 8, 8), refiner=Refiner(width=4, masks=False)),
}  # fmt: skip


def small_net(layout_id: str, scale: float = 1.0) -> LegacyNet:
    """A narrow variant with the weights of the rule."""
    return legacy.load(SMALL[layout_id], legacy_tensors("small", SMALL[layout_id]), scale=scale)
