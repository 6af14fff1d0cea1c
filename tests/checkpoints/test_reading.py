"""Nothing but tensors comes out of a weights file, and nothing else is run, unpacked or held in memory."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.checkpoints.weights_files import SMALL, filled, save
from vsrife.checkpoints import reading
from vsrife.checkpoints.loading import load_model
from vsrife.checkpoints.reading import read_file
from vsrife.errors import WeightsError

pytestmark = pytest.mark.usefixtures("directories")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([torch.ones(1)], "is no state dict, got list"),
        ({"state_dict": {"a": torch.ones(1)}, "epoch": 3}, "is no flat state dict, got dict under 'state_dict'"),
        ({0: torch.ones(1)}, "is no flat state dict, got Tensor under 0"),
        ({"a": torch.ones(1, dtype=torch.int64)}, "tensor a that no network uses, got torch.int64"),
        ({"a": torch.ones(2, 2).to_sparse()}, "tensor a that no network uses, got torch.float32, torch.sparse_coo"),
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
        (bytes(range(3)) * 30, "got bytes in no known format"),
    ],
    ids=["text", "log", "zip", "noise"],
)
def test_what_is_no_state_dict_is_told_in_plain_words(data: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(data)
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    assert f"{path} is damaged or holds more than tensors, {expected}; expected a state dict" in str(caught.value)


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
    with pytest.raises(WeightsError, match=r"is no RIFE weights file, got more than 1000 bytes"):
        load_model(path)


# --- files that would exhaust memory or time --------------------------------------------------------------------------


def test_compressed_entries_are_refused_before_they_are_unpacked(tmp_path: Path) -> None:
    """A file of 4 MB can unpack to gigabytes; torch.save compresses nothing."""
    stored, packed = save(filled(SMALL), tmp_path / "stored.pkl"), tmp_path / "packed.pkl"
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(WeightsError, match=r"packed\.pkl is no file of torch\.save, got compressed entries"):
        read_file(packed)
    assert read_file(stored)


def test_entries_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Stored once and listed many times, a tensor would fill memory as well."""
    path = tmp_path / "a.pkl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data/0", bytes(100_000))
        for number in range(1, 50):
            entry = zipfile.ZipInfo(f"archive/data/{number}")
            entry.file_size = entry.compress_size = 100_000
            entry.header_offset = entry.CRC = 0
            archive.filelist.append(entry)
    with pytest.raises(WeightsError, match=r"a\.pkl is no file of torch\.save"):
        read_file(path)


def test_too_many_names_in_a_pickle_are_refused(tmp_path: Path) -> None:
    one = torch.zeros(1)
    for zipped in (True, False):
        path = save({f"block0.{i}": one for i in range(40_000)}, tmp_path / "a.pkl", zipped=zipped)
        with pytest.raises(WeightsError, match=r"is no RIFE weights file, got \d+ (bytes of names|tensors) where"):
            read_file(path)


def test_a_header_of_megabytes_is_refused(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"block0.{i}": entry for i in range(20_000)}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match=r"is damaged or no RIFE weights file, got a header of \d+ bytes"):
        read_file(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device on this system")
@pytest.mark.parametrize("name", ["a.pkl", "a.safetensors"])
def test_devices_and_pipes_are_not_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.symlink_to("/dev/zero")
    with pytest.raises(WeightsError, match=r"is no regular file, got a device, pipe or folder"):
        read_file(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(WeightsError, match=r"is no regular file"):
        read_file(path)
