"""Weights come out checked: of the version asked for, float32, finite, without what only training uses."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.checkpoints.weights_files import SMALL, changed, filled, save
from vsrife.checkpoints.finding import find_weights, sidecar_path
from vsrife.checkpoints.loading import load_model
from vsrife.errors import OptionError, WeightsError
from vsrife.networks.catalogue import BUNDLED_FILE, LAYOUTS, MODELS, Layout
from vsrife.networks.fold import FoldedNet

pytestmark = pytest.mark.usefixtures("directories")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.id)
def test_every_layout_loads_from_names_and_shapes_alone(
    layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored = {f"module.{name}": tensor for name, tensor in filled(layout).items()}
    extras = ("contextnet.conv1.0.weight", "unet.down0.bias", "block_tea.conv0.0.0.weight", "teacher.a", "caltime.b")
    stored |= {f"module.{name}": torch.ones(2) for name in extras}
    path = save(stored, tmp_path / "any name.pkl")

    with caplog.at_level(logging.DEBUG, logger="vsrife.checkpoints.recognition"):
        loaded = load_model(path)

    assert loaded.layout == layout
    assert loaded.name == "any name"
    assert {name: tuple(tensor.shape) for name, tensor in loaded.tensors.items()} == layout.tensor_shapes()
    assert all(tensor.dtype == torch.float32 and bool((tensor == 0.5).all()) for tensor in loaded.tensors.values())
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert "dropped 5 tensors that only training uses" in caplog.text


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.pkl", lambda tensors, path: save(tensors, path, zipped=False)),
        ("a.PTH", save),
        ("a.safetensors", safetensors.torch.save_file),
    ],
    ids=["legacy", "zip", "safetensors"],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_formats_and_precisions(
    name: str, write: Callable[[dict[str, Tensor], Path], object], dtype: torch.dtype, tmp_path: Path
) -> None:
    path = tmp_path / name
    write(filled(SMALL, 0.25, dtype), path)
    loaded = load_model(str(path))
    assert loaded.layout == SMALL
    assert all(tensor.dtype == torch.float32 and bool((tensor == 0.25).all()) for tensor in loaded.tensors.values())


def test_values_keep_their_names(tmp_path: Path) -> None:
    tensors = {name: torch.full(shape, i / 256) for i, (name, shape) in enumerate(SMALL.tensor_shapes().items())}
    loaded = load_model(save(tensors, tmp_path / "a.pkl"))
    for name, tensor in tensors.items():
        assert torch.equal(loaded.tensors[name], tensor)


def test_bundled_weights_load_and_are_what_nothing_and_default_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    loaded = load_model()
    assert loaded.path.name == BUNDLED_FILE
    assert loaded.layout is MODELS["4.25"].layout
    assert find_weights("default") == find_weights(None) == loaded.path


def test_a_version_with_the_layout_of_another(directories: tuple[Path, Path]) -> None:
    save(filled(SMALL), directories[1] / "flownet_v4.26.pkl")
    with pytest.raises(WeightsError, match=r"v4\.26\.pkl is not 4\.26, got .*4\.15\.lite.* download 4\.26 --force"):
        load_model("4.26")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_in_float32(value: float, tmp_path: Path) -> None:
    tensors = changed(block0__conv0__0__0__bias=torch.full((64,), value, dtype=torch.float64))
    with pytest.raises(WeightsError, match=r"a\.pkl is damaged, got NaN or infinity in block0\.conv0\.0\.0\.bias"):
        load_model(save(tensors, tmp_path / "a.pkl"))


def test_a_recorded_hash_is_checked(directories: tuple[Path, Path]) -> None:
    path = save(filled(SMALL, 1), directories[1] / "flownet_v4.15.lite.pkl")
    line = f"{load_model('4.15.lite').sha256}  {path.name}\n"
    sidecar_path(path).write_text(line)
    assert load_model("4.15.lite").sha256 == line[:64]

    save(filled(SMALL, 2), path)
    with pytest.raises(WeightsError, match=r"is damaged, got SHA-256 .* is recorded .* download 4.15.lite --force"):
        load_model("4.15.lite")

    sidecar_path(path).write_text("not a hash\n")
    with pytest.raises(WeightsError, match=r"lite\.pkl\.sha256 holds no SHA-256 .* got 'not a hash\\n'; remove it"):
        load_model("4.15.lite")
    sidecar_path(path).unlink()
    assert load_model("4.15.lite").tensors["block0.conv0.0.0.bias"][0] == 2


def test_weights_build_the_network_that_they_are_of(tmp_path: Path) -> None:
    """Of a model before 4.x in `tests/networks/test_legacy.py`."""
    weights = load_model(save(filled(SMALL), tmp_path / "a.pkl"))
    device = torch.device("cpu")
    net = weights.build(scale=0.5, ensemble=True, device=device, dtype=torch.float32)
    assert isinstance(net, FoldedNet)
    assert (net.layout, net.scale, net.ensemble, net.dtype) == (SMALL, 0.5, True, torch.float32)
    carried = load_model(save(filled(LAYOUTS["L13"]), tmp_path / "b.pkl"))
    with pytest.raises(OptionError, match="ensemble must be False for models with carried features, got True for b"):
        carried.build(scale=1.0, ensemble=True, device=device, dtype=torch.float32)
