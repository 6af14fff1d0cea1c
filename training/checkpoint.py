"""Checkpoints that survive a kill at any moment, and the export of weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vsrife.errors import WeightsError

CHECKPOINT_FILE = "checkpoint.pt"
EMA_FILE = "ema.safetensors"


def replace_file(path: Path, write: Any) -> None:
    """Write a file under another name, then rename it: whoever opens `path` finds the old or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        write(name)
        with Path(name).open("rb") as stream:
            os.fsync(stream.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Store everything that a run needs to go on."""
    replace_file(folder / CHECKPOINT_FILE, lambda name: torch.save(dict(state), name))


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` stored, on the CPU; None where nothing was stored yet.

    Raises:
        WeightsError: the file is damaged.
    """
    path = folder / CHECKPOINT_FILE
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WeightsError(f"{path} cannot be read, got {error}; delete it to start again") from error
    return state


def read_initial_weights(path: Path) -> dict[str, Tensor]:
    """Tensors to start from: a weights file, or the EMA of a checkpoint.

    Raises:
        WeightsError: the file is missing or unreadable.
    """
    if path.suffix != ".safetensors":
        state = load_checkpoint(path.parent) if path.name == CHECKPOINT_FILE else None
        if state is None:
            raise WeightsError(f"no weights to start from in {path}; give a .safetensors file or a {CHECKPOINT_FILE}")
        return dict(state["ema"])
    from vsrife.weights import read_weights

    return dict(read_weights(path).tensors)


def export_weights(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as float16 safetensors, as the filter reads them."""
    from safetensors.torch import save_file

    half = {name: tensor.detach().cpu().half().contiguous() for name, tensor in tensors.items()}
    replace_file(path, lambda name: save_file(half, name))
