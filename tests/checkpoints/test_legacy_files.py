"""Files of models before 4.x: recognised by their tensors, whatever their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vsrife.checkpoints import finding
from vsrife.checkpoints.loading import LegacyWeights, load_model, read_ifnet
from vsrife.errors import OptionError, WeightsError
from vsrife.networks.catalogue import LAYOUTS, LEGACY_LAYOUTS
from vsrife.networks.legacy import tensor_shapes


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's directory of models, empty; nothing else is looked into."""
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setattr(finding, "package_directory", lambda: tmp_path / "package")
    monkeypatch.setenv("VSRIFE_MODEL_DIR", str(folder))
    return folder


def filled(layout_id: str, value: float = 0.5) -> dict[str, Tensor]:
    """Cheap weights: every value the same, in memory once."""
    shapes = tensor_shapes(LEGACY_LAYOUTS[layout_id])
    return {name: torch.full((1,) * len(shape), value).expand(shape) for name, shape in shapes.items()}


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """What a release's contextnet.pkl or unet.pkl holds, or (block) its flownet.pkl."""
    cut = "" if part == "block" else f"{part}."
    return {name.removeprefix(cut): tensor for name, tensor in tensors.items() if name.startswith(part)}


def save(tensors: Mapping[str, Tensor], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, path)
    return path


def save_release(layout_id: str, folder: Path) -> Path:
    """A folder as the releases have it."""
    tensors = filled(layout_id)
    if LEGACY_LAYOUTS[layout_id].family == "full" or not LEGACY_LAYOUTS[layout_id].refiner:
        save(tensors, folder / "flownet.pkl")
        return folder
    for part, name in (("block", "flownet"), ("contextnet", "contextnet"), ("unet", "unet")):
        save(part_of(tensors, part), folder / f"{name}.pkl")
    return folder


@pytest.mark.parametrize("layout_id", LEGACY_LAYOUTS)
def test_a_folder_as_released_is_recognised_by_its_tensors(layout_id: str, tmp_path: Path) -> None:
    folder = save_release(layout_id, tmp_path / "train_log")
    (folder / "IFNet_HDv3.py").write_text("raise SystemExit('never run')\n")
    loaded = load_model(folder)
    assert isinstance(loaded, LegacyWeights)
    assert loaded.layout.id == {"E09": "E07"}.get(layout_id, layout_id)  # the same tensors: only the user can tell
    assert loaded.name == "train_log"
    assert {n: tuple(t.shape) for n, t in loaded.tensors.items()} == tensor_shapes(loaded.layout)
    assert load_model(folder / "flownet.pkl").sha256 == loaded.sha256


def test_what_a_file_may_hold_beside(tmp_path: Path) -> None:
    """Teachers, and counters of batch normalisation, are left out."""
    more = {"block_tea.conv0.0.0.weight": torch.ones(45, 8, 3, 3), "teacher.x": torch.ones(1)}
    loaded = load_model(save({**filled("E05"), **more}, tmp_path / "HDv3.pkl"))
    assert isinstance(loaded, LegacyWeights)
    assert (loaded.layout.id, loaded.name) == ("E05", "HDv3")
    counters = {f"block0.res{i}.conv1.1.num_batches_tracked": torch.tensor(5) for i in range(6)}
    whole = load_model(save({**filled("E01"), **counters}, tmp_path / "one file.pkl"))  # parts in one file
    assert isinstance(whole, LegacyWeights)
    assert whole.layout.id == "E01"


def test_4_0_with_its_refinement_is_4_0(tmp_path: Path) -> None:
    tensors = {name: torch.ones(shape) for name, shape in LAYOUTS["L01"].tensor_shapes().items()}
    paper = filled("E07")
    tensors |= {name: t for name, t in paper.items() if name.startswith(("contextnet.", "unet."))}
    assert load_model(save(tensors, tmp_path / "flownet.pkl")).layout is LAYOUTS["L01"]


def test_the_large_paper_model_is_named(tmp_path: Path, cache: Path) -> None:
    path = save(filled("E09"), tmp_path / "large.pkl")
    named = load_model(f"RIFE_2R:{path}")
    assert named.layout is LEGACY_LAYOUTS["E09"]
    assert named.name == "RIFE_2R"
    save_release("E09", cache / "RIFE_2R")
    assert load_model("rife_2r").layout is LEGACY_LAYOUTS["E09"]
    with pytest.raises(WeightsError, match=r"large\.pkl is not 3\.8, got the tensors of RIFE \(the paper's model\);"):
        load_model(f"3.8:{path}")


def test_a_version_that_is_not_here_says_where_to_put_it(cache: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"^the weights of 2\.3 are not in .*; it cannot be downloaded: get its release"
    ):
        load_model("v2.3")
    save_release("E03", cache / "2.3")
    assert load_model("v2.3").layout is LEGACY_LAYOUTS["E03"]
    with pytest.raises(OptionError, match=r"got '2\.9'; did you mean .*and before 4\.x 1\.2, 1\.5,"):
        load_model("2.9")


def without(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            lambda t: {"flownet": part_of(t, "block"), "unet": part_of(t, "unet")},
            r"flownet\.pkl is the flow network of 3\.0, 3\.1 \(HD v3\.0, v3\.1\), got no contextnet\.pkl beside it;",
        ),
        (
            lambda t: {"flownet": part_of(t, "block")},
            r"got no contextnet\.pkl and no unet\.pkl beside it; put all files of the release into one folder",
        ),
        (
            lambda t: {
                "flownet": part_of(t, "block"), "contextnet": part_of(t, "unet"), "unet": part_of(t, "contextnet")
            },
            r"fits no RIFE generation, nearest is that of 3\.0, 3\.1 .* \(E04\), but got .*missing: contextnet\.conv1",
        ),
        (
            lambda t: {"flownet": without(t, "block1.conv1.bias")},
            r"nearest is that of 3\.0, 3\.1 .* but got missing: block1\.conv1\.bias 4; get the files again",
        ),
        (
            lambda t: {"flownet": {**t, "block3.extra": torch.ones(2)}},
            r"but got unknown: block3\.extra 2; get the files again",
        ),
        (
            lambda t: {"flownet": part_of(t, "contextnet")},
            r"flownet\.pkl is a contextnet of 2\.0.* alone; give the flownet file, or the folder of all files$",
        ),
        (lambda _: {"contextnet": {}}, r"is a folder without a model, got none of flownet\.pkl, flownet\.pth"),
    ],
    ids=["no context", "flow alone", "exchanged", "damaged", "foreign", "context alone", "no flownet"],
)  # fmt: skip
def test_what_is_missing_or_foreign_is_named(
    files: Callable[[Mapping[str, Tensor]], dict[str, dict[str, Tensor]]], expected: str, tmp_path: Path
) -> None:
    for name, tensors in files(filled("E04")).items():
        save(tensors, tmp_path / f"{name}.pkl")
    with pytest.raises(WeightsError, match=expected):
        load_model(tmp_path)


def test_other_tools_say_that_a_model_is_older(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"is a model before 4\.x, 3\.8 \(HDv3 of June 2021\); only 4\.x can be used here"
    ):
        read_ifnet(save(filled("E05"), tmp_path / "a.pkl"))
