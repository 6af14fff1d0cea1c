"""Weights files to read in tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vsrife.networks.catalogue import LAYOUTS, Layout

SMALL = LAYOUTS["L10"]  # 4.15.lite and two more


def filled(layout: Layout, value: float = 0.5, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    return {name: torch.full(shape, value, dtype=dtype) for name, shape in layout.tensor_shapes().items()}


def save(tensors: Any, path: Path, *, zipped: bool = True) -> Path:
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    return path


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    """The small layout with tensors replaced, added, or (None) left out."""
    tensors: dict[str, Tensor | None] = {**filled(SMALL), **{name.replace("__", "."): t for name, t in changes.items()}}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
