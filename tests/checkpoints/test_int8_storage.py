"""Kernels stored in eight bits are read as the values that they stand for."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from vsrife.checkpoints.int8_storage import quantise, restore
from vsrife.checkpoints.loading import load_model
from vsrife.networks.catalogue import LAYOUTS

LAYOUT = LAYOUTS["L13"]


def made() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {name: torch.randn(shape, generator=generator) for name, shape in LAYOUT.tensor_shapes().items()}


def test_values_are_within_half_a_step() -> None:
    for name, tensor in made().items():
        stored = quantise({name: tensor})
        got = restore(stored)
        assert list(got) == [name]
        if stored[name].dtype == torch.int8:
            scale = stored[f"{name}.scale"]
            assert ((got[name] - tensor).abs() <= 0.501 * scale).all()
        else:
            assert torch.equal(got[name], tensor.half())


def test_eight_bits_survive_a_second_round() -> None:
    once = restore(quantise(made()))
    again = restore(quantise(once))
    assert all(torch.allclose(again[name].float(), tensor.float(), rtol=1e-5) for name, tensor in once.items())


def test_a_file_in_eight_bits_is_recognised_and_half_as_large(tmp_path: Path) -> None:
    tensors = made()
    save_file(quantise(tensors), tmp_path / "coded.safetensors")
    save_file({name: tensor.half() for name, tensor in tensors.items()}, tmp_path / "half.safetensors")
    coded, half = ((tmp_path / f"{name}.safetensors").stat().st_size for name in ("coded", "half"))
    assert coded < 0.53 * half
    weights = load_model(tmp_path / "coded.safetensors")
    assert weights.layout == LAYOUT
    assert all(tensor.dtype == torch.float32 for tensor in weights.tensors.values())


def test_int8_without_a_scale_is_left_alone() -> None:
    stored = {"a": torch.ones(2, dtype=torch.int8), "b.scale": torch.ones(1)}
    assert restore(stored) == stored
