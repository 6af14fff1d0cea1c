"""`vsrife models verify`, `import` and `remove`."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.checkpoints.test_ncnn import Writer
from vsrife.checkpoints import finding
from vsrife.checkpoints.loading import load_model
from vsrife.cli import main
from vsrife.networks.catalogue import BUNDLED_DEFAULT, BUNDLED_FILE, LAYOUTS, LEGACY_MODELS
from vsrife.networks.legacy import tensor_shapes

SMALL = LAYOUTS["L10"]  # 4.15.lite and two more
PUBLISHED = "flownet_v4.15.lite.pkl"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory of the user's, and a package with a copy of the bundled weights."""
    bundled = finding.package_directory()
    package = tmp_path / "package"
    package.mkdir()
    for name in (BUNDLED_FILE, "ATTRIBUTION.md"):
        shutil.copy(bundled / name, package)
    monkeypatch.setattr(finding, "package_directory", lambda: package)
    monkeypatch.setenv("VSRIFE_MODEL_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def tensors(value: float = 0.01) -> dict[str, Tensor]:
    return {name: torch.full(shape, value, dtype=torch.float16) for name, shape in SMALL.tensor_shapes().items()}


def saved(path: Path, value: float = 0.01) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors(value), path)
    else:
        torch.save(tensors(value), path)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock") if folder.is_dir() else []


# --- import -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "options", "stored", "model"),
    [
        ("flownet_v4.15.lite.pkl", (), PUBLISHED, "4.15.lite"),
        ("RIFE-v4.16-lite.pth", (), "flownet_v4.16.lite.pth", "v4.16.lite"),
        ("RIFE_v4.17.lite/train_log/flownet.pkl", (), "flownet_v4.17.lite.pkl", "4.17.lite"),
        ("flownet.safetensors", ("--name", "4.15.lite"), "flownet_v4.15.lite.safetensors", "4.15.lite"),
        ("my run.safetensors", (), "my run.safetensors", "my run"),
        ("x/train_log/flownet.pkl", ("--name", "anime-1"), "anime-1.pkl", "anime-1"),
    ],
)
def test_what_is_imported_is_accepted_as_a_model(
    source: str,
    options: tuple[str, ...],
    stored: str,
    model: str,
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = saved(tmp_path / "from" / source)
    assert main(["models", "import", str(file), *options]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{store / stored}\n"
    assert f"--model {model.removeprefix('v')}\n" in captured.err
    assert files(store) == [stored, f"{stored}.sha256"]
    assert (store / stored).read_bytes() == file.read_bytes()
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (store / f"{stored}.sha256").read_text() == f"{sha256}  {stored}\n"
    assert load_model(model).path == store / stored


def test_a_folder_is_taken_by_its_network(tmp_path: Path) -> None:
    folder = tmp_path / "Practical-RIFE" / "train_log"
    saved(folder / "flownet.pkl")
    (folder / "RIFE_HDv3.py").write_text("a script of the release")
    assert main(["models", "import", str(folder.parent), "--name", "mine"]) == 0
    assert load_model("mine").sha256 == hashlib.sha256((folder / "flownet.pkl").read_bytes()).hexdigest()


def test_a_model_of_several_files_becomes_one(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "train_log"
    folder.mkdir()
    parts: dict[str, dict[str, Tensor]] = {"flownet": {}, "contextnet": {}, "unet": {}}
    for name, shape in tensor_shapes(LEGACY_MODELS["3.1"].layout).items():
        first, _, rest = name.partition(".")
        part, bare = (first, rest) if first in parts else ("flownet", name)
        parts[part][bare] = torch.full(shape, 0.01)
    for part, values in parts.items():
        torch.save(values, folder / f"{part}.pkl")
    before = load_model(folder)
    assert main(["models", "import", str(folder), "--name", "3.1"]) == 0
    assert files(store) == ["3.1.safetensors", "3.1.safetensors.sha256"]
    after = load_model("3.1")
    assert after.layout.id == before.layout.id == "E04"
    assert all(torch.equal(after.tensors[name], tensor) for name, tensor in before.tensors.items())
    capsys.readouterr()
    assert main(["models", "verify", "3.1"]) == 0
    assert capsys.readouterr().out.startswith("3.1: good, E04")
    assert main(["models", "export", "3.1", str(tmp_path / "out.onnx")]) == 1
    assert "is a model before 4.x, 3.0, 3.1 (HD v3.0, v3.1); only 4.x can be used here" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["", "flownet.param", "flownet.bin"], ids=["folder", "param", "bin"])
def test_a_pair_of_ncnn_becomes_a_version(given: str, store: Path, tmp_path: Path) -> None:
    values = {name: tensor.to(torch.float32) for name, tensor in tensors().items()}
    folder = Writer(SMALL, values).write(tmp_path / "rife-v4.15-lite")
    assert main(["models", "import", str(folder / given)]) == 0
    assert files(store) == ["flownet_v4.15.lite.safetensors", "flownet_v4.15.lite.safetensors.sha256"]
    loaded = load_model("4.15.lite")
    assert all(torch.equal(loaded.tensors[name], tensor) for name, tensor in values.items())


def test_a_pair_of_ncnn_that_is_cut_short_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Writer(SMALL, {name: tensor.to(torch.float32) for name, tensor in tensors().items()}).write(tmp_path / "x")
    data = (folder / "flownet.bin").read_bytes()
    (folder / "flownet.bin").write_bytes(data[: len(data) // 2])
    assert main(["models", "import", str(folder), "--name", "mine"]) == 1
    assert "flownet.bin" in capsys.readouterr().err
    assert files(store) == []


def test_replacing_needs_force_and_leaves_one_file(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = saved(tmp_path / "mine.pkl", 0.01), saved(tmp_path / "mine.safetensors", 0.02)
    assert main(["models", "import", str(first)]) == main(["models", "import", str(first)]) == 0
    assert main(["models", "import", str(second)]) == 1
    assert f"{store / 'mine.pkl'} is here already, got another file; replace it with --force" in capsys.readouterr().err
    assert load_model("mine").path == store / "mine.pkl"

    assert main(["models", "import", str(second), "--force"]) == 0
    assert files(store) == ["mine.safetensors", "mine.safetensors.sha256"]
    assert load_model("mine").sha256 == hashlib.sha256(second.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "options", "code", "expected"),
    [
        ("flownet.pkl", (), 2, r"which model .*flownet\.pkl holds cannot be known.* add --name NAME"),
        ("mine.pkl", ("--name", "../mine"), 2, r"the name must be a version or letters.* got '\.\./mine'"),
        ("mine.pkl", ("--name", "mine.pkl"), 2, r"the name must be .* got 'mine\.pkl'"),
        ("mine.pkl", ("--name", "default"), 2, r"the name must be .* got 'default'"),
        ("mine.pkl", ("--name", BUNDLED_DEFAULT), 2, r"the name of a bundled model cannot be taken"),
        ("flownet_v4.26.pkl", (), 1, r"is not 4\.26, got the layout of 4\.15\.lite"),
        ("nothing here.pkl", (), 1, r"nothing here\.pkl does not exist"),
        ("folder", (), 1, r"folder must hold one model, got no weights file"),
        ("broken.pkl", (), 1, r"broken\.pkl is damaged or holds more than tensors, got text"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_imported_leaves_nothing(
    name: str,
    options: tuple[str, ...],
    code: int,
    expected: str,
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / name
    if name == "folder":
        source.mkdir()
    elif name == "broken.pkl":
        source.write_text("this is no model")
    elif "nothing" not in name:
        saved(source)
    assert main(["models", "import", str(source), *options]) == code
    assert re.search(expected, capsys.readouterr().err)
    assert files(store) == []


def test_a_full_disk_leaves_nothing(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = saved(tmp_path / "mine.pkl")

    def write_half(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_half)
    assert main(["models", "import", str(source)]) == 1
    assert "mine.pkl cannot be written, got No space left on device; make room or choose" in capsys.readouterr().err
    assert files(store) == []


def test_a_folder_of_several_models_is_asked_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "runs" / "a.pkl")
    saved(tmp_path / "runs" / "b.pkl")
    assert main(["models", "import", str(tmp_path / "runs")]) == 1
    assert "must hold one model, got a.pkl, b.pkl; give the path of the file" in capsys.readouterr().err


def test_a_misspelt_name_gets_a_guess(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["models", "import", str(saved(tmp_path / "anime-1.pkl"))])
    assert main(["models", "verify", "anime1"]) == 2
    assert "got 'anime1'; did you mean anime-1?" in capsys.readouterr().err


# --- verify -----------------------------------------------------------------------------------------------------------


def test_everything_here_is_verified(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(store / PUBLISHED)
    main(["models", "import", str(saved(tmp_path / "mine.safetensors"))])
    capsys.readouterr()
    assert main(["models", "verify"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [BUNDLED_DEFAULT, "4.15.lite", "mine"]
    assert lines[2].endswith(f"good, L10, SHA-256 {load_model('mine').sha256}")


def test_what_does_not_verify_is_named_and_fails(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(store / PUBLISHED)
    main(["models", "import", str(saved(tmp_path / "mine.safetensors", 0.01))])
    saved(store / "mine.safetensors", 0.02)
    capsys.readouterr()
    assert main(["models", "verify", "mine", "4.15.lite", "4.26"]) == 1
    captured = capsys.readouterr()
    assert captured.out.startswith("4.15.lite: good, L10")
    assert "mine.safetensors is damaged, got SHA-256" in captured.err
    assert "the weights of 4.26 are not in" in captured.err

    assert main(["models", "verify", "--json"]) == 1
    results = {result["name"]: result for result in json.loads(capsys.readouterr().out)}
    assert [name for name, result in results.items() if result["ok"]] == [BUNDLED_DEFAULT, "4.15.lite"]
    assert "is damaged" in results["mine"]["error"]


def test_a_bundled_model_must_be_the_released_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "package" / BUNDLED_FILE
    values = safetensors.torch.load_file(path)
    values["block0.conv0.0.0.bias"][0] += 1
    safetensors.torch.save_file(values, path)
    assert main(["models", "verify", "default"]) == 1
    assert re.search(r"is not the file that was released, got SHA-256 .* reinstall vsrife", capsys.readouterr().err)


# --- remove -----------------------------------------------------------------------------------------------------------


def test_remove_deletes_file_and_record(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(store / PUBLISHED)
    main(["models", "import", str(saved(tmp_path / "mine.pkl"))])
    capsys.readouterr()
    assert main(["models", "remove", "mine", "4.15.lite"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(store / "mine.pkl"), str(store / PUBLISHED)]
    assert files(store) == []
    assert main(["models", "remove", "4.15.lite"]) == 1
    assert "4.15.lite is not here" in capsys.readouterr().err


def test_bundled_models_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "remove", "default"]) == 2
    assert "only downloaded and imported models can be removed" in capsys.readouterr().err
    assert (tmp_path / "package" / BUNDLED_FILE).is_file()
