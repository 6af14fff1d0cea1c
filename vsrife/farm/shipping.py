"""Files to nodes that do not see them: in chunks through Ray's object store, once for each node."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from vsrife.errors import MediaError
from vsrife.files import atomic_write, file_lock

CHUNK_BYTES = 32 << 20  # the most that a sender or receiver holds in memory


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """A file whose content is in the object store.

    Attributes:
        name: without folders.
        sha256: of the content.
        chunks: references to its parts, in order.
    """

    name: str
    sha256: str
    chunks: tuple[Any, ...]


def ship(path: Path) -> ShippedFile:
    """Put a file into the object store. What does not fit into its memory, Ray writes to disk."""
    digest, chunks = hashlib.sha256(), []
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            chunks.append(ray.put(chunk))
    return ShippedFile(path.name, digest.hexdigest(), tuple(chunks))


def receive(files: Sequence[ShippedFile], run: str) -> list[Path]:
    """Write files to this node's disk, unless another process has done so, and return their paths.

    Args:
        files: of one input or model; they come to lie in one folder.
        run: identifies the run; `forget` deletes by it.

    Raises:
        MediaError: the disk is full, or the content has changed on its way.
    """
    key = hashlib.sha256("".join(file.sha256 for file in files).encode()).hexdigest()[:16]
    folder = node_folder(run) / key
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "lock", "another worker"):
        return [_receive(file, folder / file.name) for file in files]


def _receive(file: ShippedFile, path: Path) -> Path:
    if path.exists():
        return path
    digest = hashlib.sha256()
    with atomic_write(path, error=MediaError) as part, part.open("wb") as target:
        for reference in file.chunks:
            chunk = ray.get(reference)
            digest.update(chunk)
            target.write(chunk)
        if digest.hexdigest() != file.sha256:
            raise MediaError(f"{file.name} arrived damaged on {path.parent}; run it again with --resume")
    return path


def node_folder(run: str) -> Path:
    """Where a run keeps files on a node."""
    return Path(tempfile.gettempdir()) / f"vsrife-farm-{run}"


def forget(run: str) -> None:
    """Delete the files of a run from this node."""
    shutil.rmtree(node_folder(run), ignore_errors=True)
