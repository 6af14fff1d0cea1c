"""Reference outputs of the authors' networks, and the weights and frames that they belong to."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.golden.make_inputs import frames, weights
from vsrife.networks.catalogue import LAYOUTS, MODELS, Layout

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One evaluation of an original network."""

    key: str
    version: str
    height: int
    width: int
    timestep: float
    scale: float = 1.0
    ensemble: bool = False
    boost: float = 1.0

    @property
    def layout(self) -> Layout:
        return MODELS[self.version].layout

    @property
    def frames(self) -> tuple[Tensor, Tensor]:
        """Both frames, (1, 3, height, width)."""
        return frame_pair(self.height, self.width)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return tensors(self.version, self.boost)


def read_cases(folder: Path) -> tuple[Case, ...]:
    """All cases of a set, sorted by version, so that the last weights made can be used again."""
    rows = json.loads((folder / "cases.json").read_text(encoding="ascii"))
    return tuple(sorted((Case(**row) for row in rows), key=lambda case: (case.version, case.boost)))


@lru_cache(maxsize=2)
def outputs(folder: Path) -> dict[str, Tensor]:
    """Every output of a set by the case's key: (3, height, width) float32."""
    with np.load(folder / "outputs.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


@lru_cache(maxsize=4)
def tensors(version: str, boost: float = 1.0) -> dict[str, Tensor]:
    """The weights that the rule gives for a version, or for a layout that has none."""
    layout = MODELS[version].layout if version in MODELS else LAYOUTS[version]
    shapes = layout.tensor_shapes()
    return {name: torch.from_numpy(array) for name, array in weights(version, shapes, boost).items()}


@lru_cache(maxsize=8)
def frame_pair(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Both frames that the rule gives, (1, 3, height, width)."""
    first, second = frames(height, width)
    return torch.from_numpy(first)[None], torch.from_numpy(second)[None]


def authors_output(case: Case, request: pytest.FixtureRequest) -> Tensor:
    """The output of a case, (3, height, width): from this folder where it is here, else from the full set."""
    own = outputs(FOLDER)
    if case.key in own:
        return own[case.key]
    return outputs(request.getfixturevalue("golden_data"))[case.key]


CASES = read_cases(FOLDER)
