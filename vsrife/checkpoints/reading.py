"""From a weights file to tensors. No pickle is ever run, and the size of what is read is bounded beforehand.

A file is a PyTorch state dict (.pkl, .pth) or a .safetensors file, whose kernels may be in eight bits (`int8_storage`).
`torch.load` runs with `weights_only=True`, and a file that it refuses is refused here. What would take more memory or
time than any RIFE model needs is refused before it is parsed: special files, compressed zip entries, headers of
megabytes.
"""

from __future__ import annotations

import hashlib
import io
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from vsrife.checkpoints import int8_storage
from vsrife.checkpoints.finding import remedy, sidecar_path
from vsrife.errors import WeightsError

MAX_BYTES = 512 * 2**20  # of a file; the largest published one has 87 MB
MAX_HEADER_BYTES = 2**20  # of names and shapes; those of the published models take at most 100 kB
MAX_TENSORS = 5_000  # in a file; published ones have at most 600

COUNTER_SUFFIX = ".num_batches_tracked"  # of batch normalisation before 4.x: used in training alone
PARALLEL_PREFIX = "module."  # put before every name by torch's DataParallel

# First bytes of what a browser, a captive portal or a bare git clone leaves in place of the file.
_FOREIGN = ((b"<", "a web page"), (b"version https://git-lfs", "a Git LFS pointer"))
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True, slots=True, eq=False)
class StoredFile:
    """The tensors of one weights file of any layout.

    Attributes:
        path: Of the file.
        tensors: As stored, under names without the prefix `module.`; counters of training are left out.
        sha256: Of the file, in lower-case hex.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    sha256: str


def read_file(path: Path) -> StoredFile:
    """Read the tensors of one file. If its SHA-256 is recorded beside it (`sidecar_path`), it must match.

    The file is read once, so that the hash is that of the bytes the tensors come from.

    Raises:
        WeightsError: The file is missing, damaged, too large, or holds anything but named floating-point tensors.
    """
    data = read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    _check_recorded_hash(path, sha256)
    return StoredFile(path, _parse(data, path), sha256)


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most `MAX_BYTES`.

    Raises:
        WeightsError: The file is missing, empty, too large, or a device or pipe.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError(f"{path} is no regular file, got a device, pipe or folder; give a weights file")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read, got {error.strerror or error}; {remedy(path)}") from error
    if len(data) > MAX_BYTES:
        raise WeightsError(
            f"{path} is no RIFE weights file, got more than {MAX_BYTES} bytes where the largest has 87 MB; "
            f"{remedy(path)}"
        )
    if not data:
        raise WeightsError(f"{path} is empty, got 0 bytes; {remedy(path)}")
    return data


def _check_recorded_hash(path: Path, sha256: str) -> None:
    sidecar = sidecar_path(path)
    try:
        with sidecar.open("rb") as file:
            text = file.read(4096).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise WeightsError(f"{sidecar} cannot be read, got {error.strerror or error}; remove it") from error
    recorded = re.match(r"([0-9a-fA-F]{64})\s", f"{text}\n")
    if not recorded:
        raise WeightsError(f"{sidecar} holds no SHA-256 as sha256sum writes it, got {text[:80]!r}; remove it")
    if recorded[1].lower() != sha256:
        raise WeightsError(
            f"{path} is damaged, got SHA-256 {sha256[:12]}… where {recorded[1][:12].lower()}… is recorded in "
            f"{sidecar.name}; {remedy(path)}"
        )


def _parse(data: bytes, path: Path) -> dict[str, Tensor]:
    head = data[:64].lstrip()
    for start, description in _FOREIGN:
        if head.startswith(start):
            raise WeightsError(f"{path} is {description}, not a weights file, got {head[:24]!r}; {remedy(path)}")
    stored = _parse_safetensors(data, path) if path.suffix.lower() == ".safetensors" else _parse_torch(data, path)
    return _without_prefix(_checked_tensors(stored, path), path)


def _parse_safetensors(data: bytes, path: Path) -> dict[str, Tensor]:
    size = int.from_bytes(data[:8], "little")  # of the header
    if size > MAX_HEADER_BYTES:
        raise WeightsError(
            f"{path} is damaged or no RIFE weights file, got a header of {size} bytes where at most "
            f"{MAX_HEADER_BYTES} are read; {remedy(path)}"
        )
    try:
        return int8_storage.restore(safetensors.torch.load(data))
    except Exception as error:  # whatever damaged bytes make the parser raise, the file is to blame
        raise WeightsError(f"{path} is damaged or no safetensors file, got {error}; {remedy(path)}") from error


def _parse_torch(data: bytes, path: Path) -> Any:
    """Return the object in a zip or legacy file of `torch.save`; only tensors and plain containers get through."""
    if data.startswith(_ZIP):
        _check_zip(data, path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols: they load or raise below
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # as above; there is no second try that unpickles
        # The cause is left out: its text advises to switch the protection off.
        raise WeightsError(
            f"{path} is damaged or holds more than tensors, got {_reason(error, data)}; expected a state dict as "
            f"torch.save writes it (nothing else in a pickle is ever run); {remedy(path)}"
        ) from None


def _check_zip(data: bytes, path: Path) -> None:
    """Refuse an archive that unpacks to more than it holds; `torch.save` stores every entry once, uncompressed."""
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # torch.load tells what is wrong
    _check_count(len(entries), path)
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > len(data) or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise WeightsError(
            f"{path} is no file of torch.save, got compressed entries of {unpacked} bytes in {len(data)}; "
            f"save it again with torch.save, or {remedy(path)}"
        )
    for entry in entries:
        if entry.filename.endswith("data.pkl") and entry.file_size > MAX_HEADER_BYTES:
            raise WeightsError(
                f"{path} is no RIFE weights file, got {entry.file_size} bytes of names where at most "
                f"{MAX_HEADER_BYTES} are read; {remedy(path)}"
            )


def _reason(error: Exception, data: bytes) -> str:
    """Return what torch.load stumbled over, in a few words."""
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        return f"a reference to {refused[1]}"
    start = data[:24].decode("utf-8", errors="ignore")
    if start and all(letter.isprintable() or letter.isspace() for letter in start):
        return f"text ({start!r}…)"
    if data.startswith(_ZIP):
        return "a part of a file, as of a broken copy"
    return "bytes in no known format"


# --- tensors ----------------------------------------------------------------------------------------------------------


def _check_count(count: int, path: Path) -> None:
    if count > MAX_TENSORS:
        raise WeightsError(
            f"{path} is no RIFE weights file, got {count} tensors where at most {MAX_TENSORS} are read; {remedy(path)}"
        )


def _checked_tensors(stored: Any, path: Path) -> dict[str, Tensor]:
    """Return `stored`, if it maps names to dense floating-point tensors, without training's counters."""
    expected = f"expected names and their tensors, as state_dict() gives them; {remedy(path)}"
    if not isinstance(stored, Mapping):
        raise WeightsError(f"{path} is no state dict, got {type(stored).__name__}; {expected}")
    _check_count(len(stored), path)
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise WeightsError(f"{path} is no flat state dict, got {type(tensor).__name__} under {name!r}; {expected}")
        if name.endswith(COUNTER_SUFFIX):
            continue
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise WeightsError(
                f"{path} has a tensor {name} that no network uses, got {tensor.dtype}, {tensor.layout}; expected dense "
                f"floating-point values; {remedy(path)}"
            )
        tensors[name] = tensor
    return tensors


def _without_prefix(stored: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return `stored` under names without `module.`."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        bare = name.removeprefix(PARALLEL_PREFIX)
        if bare in tensors:
            raise WeightsError(
                f"{path} holds {bare} twice, got it with and without {PARALLEL_PREFIX!r}; {remedy(path)}"
            )
        tensors[bare] = tensor
    return tensors
