"""Weights files are found, read and checked, or refused with a text that says what to do."""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from vsrife.checkpoints import finding, reading
from vsrife.checkpoints.finding import find_weights, sidecar_path
from vsrife.checkpoints.loading import load_model
from vsrife.checkpoints.reading import read_file
from vsrife.checkpoints.recognition import recognise
from vsrife.errors import OptionError, WeightsError
from vsrife.networks.catalogue import BUNDLED_FILE, LAYOUTS, MODELS, Layout

SMALL = LAYOUTS["L10"]  # 4.15.lite and two more


@pytest.fixture(autouse=True)
def directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Empty stand-ins for the package's directory and the user's, so that no test sees what this machine has."""
    package, cache = tmp_path / "package", tmp_path / "cache"
    package.mkdir()
    cache.mkdir()
    monkeypatch.setattr(finding, "package_directory", lambda: package)
    monkeypatch.setenv("VSRIFE_MODEL_DIR", str(cache))
    return package, cache


def filled(layout: Layout, value: float = 0.5, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    return {name: torch.full(shape, value, dtype=dtype) for name, shape in layout.tensor_shapes().items()}


def save(tensors: Any, path: Path, *, zipped: bool = True) -> Path:
    torch.save(tensors, path, _use_new_zipfile_serialization=zipped)
    return path


# --- what loads -------------------------------------------------------------------------------------------------------


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


# --- where it is looked for -------------------------------------------------------------------------------------------


def test_package_comes_before_the_users_directory(directories: tuple[Path, Path]) -> None:
    package, cache = directories
    second = save(filled(SMALL, 2), cache / "flownet_v4.17.lite.pkl")
    assert find_weights("4.17.lite") == second
    first = save(filled(SMALL, 1), package / "flownet_v4.17.lite.pkl")
    assert find_weights("4.17.lite") == first
    assert load_model(second).tensors["block0.conv0.0.0.bias"][0] == 2  # a path is that file


@pytest.mark.parametrize("model", ["4.15.lite", "v4.15.lite", " V4.15.Lite "])
def test_spellings_of_a_version(model: str, directories: tuple[Path, Path]) -> None:
    path = save(filled(SMALL), directories[1] / "flownet_v4.15.lite.pkl")
    assert find_weights(model) == path
    assert load_model(model).name == "4.15.lite"


def test_a_missing_version_names_the_places_and_the_command(directories: tuple[Path, Path]) -> None:
    with pytest.raises(WeightsError) as caught:
        load_model("4.25.lite")
    text = str(caught.value)
    assert all(str(directory) in text for directory in directories)
    assert text.endswith("run: python -m vsrife models download 4.25.lite")


def test_an_empty_placeholder_is_passed_over_or_named(directories: tuple[Path, Path]) -> None:
    package, cache = directories
    (package / "flownet_v4.15.lite.pkl").touch()
    with pytest.raises(WeightsError, match=r"package/flownet_v4.15.lite.pkl is an empty placeholder.*download 4.15"):
        load_model("4.15.lite")
    real = save(filled(SMALL), cache / "flownet_v4.15.lite.pkl")
    assert find_weights("4.15.lite") == real


def test_an_installed_package_has_its_weights_inside(tmp_path: Path) -> None:
    package = tmp_path / "site" / "vsrife"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(finding.__file__).parents[1], package, ignore=ignore)
    (package / "models").mkdir(exist_ok=True)
    (package / "models" / BUNDLED_FILE).touch()
    command = [sys.executable, "-c", "import vsrife.checkpoints.finding as w; print(w.find_weights())"]
    found = subprocess.run(command, cwd=package.parent, check=True, capture_output=True, text=True).stdout
    assert Path(found.strip()) == package / "models" / BUNDLED_FILE


def test_the_users_directory_is_the_cache_unless_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert finding.model_directory() == tmp_path / "cache"
    monkeypatch.setenv("VSRIFE_MODEL_DIR", "")
    assert finding.model_directory().parts[-2:] == ("vsrife", "models")


@pytest.mark.parametrize("model", [4.1, 4, True, b"4.6"])
def test_numbers_are_refused_because_4_1_is_not_4_10(model: Any) -> None:
    with pytest.raises(OptionError, match=r"version in quotes or a path, got .* 4\.1 and 4\.10 would be the same"):
        load_model(model)


@pytest.mark.parametrize(("model", "guess"), [("4.25-lite", "4.25.lite"), ("4.26.hevy", "4.26.heavy"), ("4.2x", "4.2")])
def test_an_unknown_version_gets_a_guess_and_the_list(model: str, guess: str) -> None:
    with pytest.raises(OptionError) as caught:
        load_model(model)
    assert f"got {model!r}; did you mean {guess}" in str(caught.value)
    assert ", ".join(MODELS) in str(caught.value)


def test_wrong_paths(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pkl does not exist"):
        load_model("none.pkl")
    with pytest.raises(WeightsError, match=r"has no suffix of a weights file, got '.onnx'"):
        load_model(tmp_path / "model.onnx")
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(WeightsError, match=r"folder\.pth is not a file"):
        load_model(tmp_path / "folder.pth")


# --- what is refused --------------------------------------------------------------------------------------------------


def changed(**changes: Tensor | None) -> dict[str, Tensor]:
    """The small layout with tensors replaced, added, or (None) left out."""
    tensors: dict[str, Tensor | None] = {**filled(SMALL), **{name.replace("__", "."): t for name, t in changes.items()}}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        (changed(block3__lastconv__0__bias=None), "4.17.lite (L10), but got missing: block3.lastconv.0.bias 24;"),
        (changed(encode__cnn3__bias=torch.ones(8)), "(L10), but got other shapes: encode.cnn3.bias 8 instead of 4;"),
        (changed(block4__extra=torch.ones(2, 3)), "(L10) and 1 that no known version has, block4.extra; it may be of"),
        ({"model.0.weight": torch.ones(1)}, "got 1 tensors (model.0.weight); expected names such as block0."),
        ({}, "got 0 tensors (none); expected names"),
    ],
    ids=["missing", "other shape", "unknown", "foreign", "nothing"],
)
def test_a_layout_that_does_not_fit_is_compared_with_the_nearest(
    tensors: dict[str, Tensor], expected: str, tmp_path: Path
) -> None:
    path = save(tensors, tmp_path / "a.pkl")
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    assert f"{path} fits no RIFE 4.x layout" in str(caught.value)
    assert expected in str(caught.value)


def test_a_version_with_the_layout_of_another(directories: tuple[Path, Path]) -> None:
    save(filled(SMALL), directories[1] / "flownet_v4.26.pkl")
    with pytest.raises(WeightsError, match=r"v4\.26\.pkl is not 4\.26, got .*4\.15\.lite.* download 4\.26 --force"):
        load_model("4.26")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_in_float32(value: float, tmp_path: Path) -> None:
    tensors = changed(block0__conv0__0__0__bias=torch.full((64,), value, dtype=torch.float64))
    with pytest.raises(WeightsError, match=r"a\.pkl is damaged, got NaN or infinity in block0\.conv0\.0\.0\.bias"):
        load_model(save(tensors, tmp_path / "a.pkl"))


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([torch.ones(1)], "is no state dict, got list"),
        ({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, "is no flat state dict, got dict under 'state_dict'"),
        ({0: torch.ones(1)}, "is no flat state dict, got Tensor under 0"),
        ({"a": torch.ones(1, dtype=torch.int64)}, "tensor a of no use, got torch.int64"),
        ({"a": torch.ones(2, 2).to_sparse()}, "tensor a of no use, got torch.float32, torch.sparse_coo"),
        ({"a": torch.ones(1), "module.a": torch.ones(1)}, "holds a twice"),
    ],
    ids=["list", "nested", "number as name", "integers", "sparse", "twice"],
)
def test_other_contents(stored: Any, expected: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        read_file(save(stored, tmp_path / "a.pkl"))
    assert str(caught.value).startswith(f"{tmp_path / 'a.pkl'} ")
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["a.pkl", "a.safetensors"])
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty, got 0 bytes"),
        (b"\n<!DOCTYPE html><html>", "is a web page, not a weights file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"\x80\x02nonsense" * 40, "is damaged or"),
        (b"hello, this is a note", "is damaged or"),
        ("epoch 1, Verlust 0,3 für\n".encode(), "is damaged or"),
    ],
    ids=["empty", "web page", "lfs", "noise", "text", "other text"],
)
def test_files_that_are_something_else(name: str, data: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    assert str(caught.value).startswith(f"{path} {expected}")
    assert str(caught.value).endswith("get the file again")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"hello, this is a note", "got text ('hello, this is a note'…)"),
        (b"epoch 1 loss 0.3\n", "got text ('epoch 1 loss 0.3\\n'…)"),
        (b"PK\x03\x04" + bytes(80), "got a part of a file, as of a broken copy"),
        (bytes(range(3)) * 30, "got bytes that are no such file"),
    ],
    ids=["text", "log", "zip", "noise"],
)
def test_what_is_no_state_dict_is_told_in_plain_words(data: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    assert f"{path} is damaged or holds more than tensors, {expected}; expected a state dict" in str(caught.value)


def test_a_model_put_there_under_another_name_is_found_by_it(directories: tuple[Path, Path]) -> None:
    package, cache = directories
    save(filled(SMALL, 1), cache / "my-run.pkl")
    safetensors.torch.save_file(filled(SMALL, 2), package / "base.safetensors")
    assert find_weights("my-run") == cache / "my-run.pkl"
    assert load_model("base").name == "base"
    assert finding.installed_names() == ["base", "my-run"]
    with pytest.raises(OptionError, match=r"got 'my-rum'; did you mean my-run\? .*other models here are base, my-run$"):
        load_model("my-rum")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_truncated_files(kind: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{'safetensors' if kind == 'safetensors' else 'pkl'}"
    if kind == "safetensors":
        safetensors.torch.save_file(filled(SMALL), path)
    else:
        save(filled(SMALL), path, zipped=kind == "zip")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(WeightsError, match=r"a\.\w+ is damaged or .*; get the file again"):
        load_model(path)


class Hostile:
    """Unpickled, this makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "bare pickle", "inside a state dict"])
def test_a_hostile_pickle_does_not_run(kind: str, tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    path = tmp_path / "a.pkl"
    bare = pickle.dumps(Hostile(harm), protocol=2)
    if kind == "bare pickle":
        path.write_bytes(bare)
    elif kind == "inside a state dict":
        save({**filled(SMALL), "block0.x": Hostile(harm)}, path)
    else:
        save(Hostile(harm), path, zipped=kind == "zip")
    with pytest.raises(WeightsError, match=r"more than tensors, got .*mkdir;.*nothing else .* is ever run") as caught:
        load_model(path)
    assert not harm.exists()
    assert "weights_only" not in str(caught.value)  # torch's own advice, to switch the protection off, is not passed on
    assert caught.value.__cause__ is None
    pickle.loads(bare)
    assert harm.exists()  # the file was a threat


def test_huge_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 1000)
    path = tmp_path / "a.pkl"
    path.write_bytes(bytes(1001))
    with pytest.raises(WeightsError, match=r"is no RIFE weights file, got 1001 bytes"):
        load_model(path)


# --- the recorded hash ------------------------------------------------------------------------------------------------


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


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_recognise_layout_tells_all_17_apart() -> None:
    for layout in LAYOUTS.values():
        tensors = {name: torch.empty(shape, device="meta") for name, shape in layout.tensor_shapes().items()}
        assert recognise(tensors, Path("a.pkl")) == layout


def test_looking_for_files_needs_no_torch() -> None:
    code = "import sys, vsrife.checkpoints.finding as w; w.find_weights(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
