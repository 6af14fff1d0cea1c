"""Checkpoints that survive a kill at any moment, and the export of weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vsrife.errors import WeightsError
from vsrife.files import atomic_write
from vsrife.networks.ifnet import IFNet

CHECKPOINT_FILE = "checkpoint.pt"
CARRIED_FILE = "carried.pt"


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Create the folder of `path`, and write the file so that it is whole under its name even after a power failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, durable=True) as part:
        write(part)


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Store everything that a run needs to go on."""
    replace_file(folder / CHECKPOINT_FILE, lambda part: torch.save(dict(state), part))


def save_carried(folder: Path, state: Mapping[str, Any]) -> None:
    """Store a run for another machine: weights in half precision, without the optimiser, a quarter of the bytes."""

    def half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().half() for name, tensor in tensors.items()}

    small = {key: state[key] for key in ("step", "plan")} | {key: half(state[key]) for key in ("net", "ema")}
    replace_file(folder / CARRIED_FILE, lambda part: torch.save(small, part))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` or `save_carried` stored, on the CPU.

    Raises:
        WeightsError: the file is missing or damaged.
    """
    if not path.is_file():
        raise WeightsError(f"no checkpoint at {path}; give the file that a run left")
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
    if path.name in (CHECKPOINT_FILE, CARRIED_FILE):
        return {name: tensor.float() for name, tensor in load_checkpoint(path)["ema"].items()}
    from vsrife.checkpoints.loading import read_ifnet

    return dict(read_ifnet(path).tensors)


def read_network(path: Path) -> IFNet:
    """Return the network that a weights file, or the average of a checkpoint, describes by names and shapes.

    Raises:
        WeightsError: The file is missing or unreadable, or fits no layout.
    """
    from vsrife.checkpoints.recognition import recognise

    state = read_initial_weights(path)
    net = IFNet(recognise({name: tuple(tensor.shape) for name, tensor in state.items()}, path))
    net.load_state_dict(state)
    return net


def export_weights(tensors: Mapping[str, Tensor], path: Path, *, eight_bits: bool = False) -> None:
    """Write weights as safetensors in float16, or with kernels in eight bits, as the filter reads them."""
    from safetensors.torch import save_file  # not on every machine that trains

    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if eight_bits:
        from vsrife.checkpoints.int8_storage import quantise

        stored = quantise(kept)
    else:
        stored = {name: tensor.half() for name, tensor in kept.items()}
    replace_file(path, lambda part: save_file(stored, part))
