"""Files to nodes that do not see them: once to each, from node to node, in bounded memory.

On a node they lie by content under `farm_folder()`, beside a folder for each run. A run that ends takes away what no
other run uses; one that was interrupted leaves it for `--resume`.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from vsrife.errors import MediaError
from vsrife.farm import cluster
from vsrife.farm.cluster import Node
from vsrife.files import file_lock

CHUNK_BYTES = 16 << 20
WINDOW = 4  # chunks on their way at a time
CHUNK_SECONDS = 600.0  # a node that has not written a chunk by then is left out
KEPT_SECONDS = 30 * 24 * 3600.0  # what an interrupted run has left on a node, counted from its last use

type Piece = tuple[str, int, bytes]  # name of a file, offset, content


@dataclass(frozen=True, slots=True)
class Bundle:
    """Files that come to lie in one folder.

    Attributes:
        paths: on the head.
        names: on the nodes, in the same order.
        digests: SHA-256 of each.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    digests: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of the folder: equal for equal names and content."""
        return hashlib.sha256("\n".join((*self.names, *self.digests)).encode()).hexdigest()[:32]

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.paths)

    def there(self) -> list[Path]:
        """The paths on this node."""
        return [farm_folder() / self.key / name for name in self.names]

    def is_here(self) -> bool:
        """Whether this node has it."""
        return (farm_folder() / self.key).is_dir()

    def chunks(self) -> Iterator[list[Piece]]:
        """The content in parts of at most `CHUNK_BYTES`, so that many small files are sent together.

        Raises:
            MediaError: a file has changed since it was hashed.
        """
        chunk, room = list[Piece](), CHUNK_BYTES
        for path, name, digest in zip(self.paths, self.names, self.digests, strict=True):
            sent, offset = hashlib.sha256(), 0
            with path.open("rb") as file:
                while (data := file.read(room)) or not offset:  # also of an empty file
                    chunk.append((name, offset, data))
                    sent.update(data)
                    offset, room = offset + len(data), room - len(data)
                    if not room:
                        yield chunk
                        chunk, room = [], CHUNK_BYTES
                    if not data:
                        break
            if sent.hexdigest() != digest:
                raise MediaError(f"{path} was changed while it was being sent; run it again once it stays as it is")
        if chunk:
            yield chunk


def bundle(paths: Sequence[Path]) -> Bundle:
    """Files of different folders may have the same name; then they are numbered."""
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = [f"{number:08d}-{name}" for number, name in enumerate(names)]
    return Bundle(tuple(paths), tuple(names), tuple(map(digest, paths)))


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- on the head ------------------------------------------------------------------------------------------------------


def deliver(bundle: Bundle, nodes: Sequence[Node], stop: Callable[[], bool]) -> dict[Node, str]:
    """Send a bundle to nodes. Each chunk goes to the first, from there to the second and so on, so that the line of
    the head, which may be a home's, carries it once.

    Args:
        bundle: what to send.
        nodes: that lack it.
        stop: asked between chunks; True ends it early.

    Returns:
        What kept nodes from taking it.
    """
    chain = _Chain(bundle.key, list(nodes))
    for chunk in bundle.chunks():
        if stop() or not chain.nodes:
            return chain.problems
        chain.send(chunk)
    chain.settle()
    for node, answer in zip(
        chain.nodes, cluster.ask(chain.nodes, "keep", _keep, bundle.key, seconds=CHUNK_SECONDS), strict=True
    ):
        if isinstance(answer, Exception):
            chain.problems[node] = cluster.first_line(answer)
    return chain.problems


def _two_results(function: Callable[..., Any]) -> Any:
    """A Ray task with two results; its types know of one."""
    return ray.remote(num_returns=2)(function)


class _Chain:
    """Chunks on their way through nodes, a few at a time."""

    def __init__(self, key: str, nodes: list[Node]) -> None:
        self.nodes, self.problems = nodes, dict[Node, str]()
        self._key, self._write = key, _two_results(_write)
        self._sent: deque[tuple[list[Piece], list[tuple[Node, Any]]]] = deque()

    def send(self, chunk: list[Piece]) -> None:
        """Start a chunk; wait for the oldest if there are many."""
        self._sent.append((chunk, self._start(chunk, self.nodes)))
        if len(self._sent) >= WINDOW:
            self._await_oldest()

    def settle(self) -> None:
        """Wait for all chunks."""
        while self._sent:
            self._await_oldest()

    def _start(self, chunk: list[Piece], nodes: Sequence[Node]) -> list[tuple[Node, Any]]:
        written, content = [], ray.put(chunk)
        for node in nodes:
            # The second result is the chunk again, in that node's memory, where the next one gets it.
            done, content = self._write.options(**node.beside("receive")).remote(self._key, content)
            written.append((node, done))
        return written

    def _await_oldest(self) -> None:
        chunk, written = self._sent.popleft()
        while failed := self._await(written):
            # Whoever is to blame stands before the rest of the chain, or is its first node.
            alive = {node.id for node in cluster.alive()}
            first, reason = failed
            behind = [node for node, _ in written[first:]]
            for node in [node for node in self.nodes if node.id not in alive]:
                self._leave_out(node, "it is lost")
            if first == 0 and behind[0] in self.nodes:
                self._leave_out(behind[0], reason)
            written = self._start(chunk, [node for node in behind if node in self.nodes])

    def _await(self, written: Sequence[tuple[Node, Any]]) -> tuple[int, str] | None:
        """The first node that has not written a chunk, by its place, and why."""
        for place, (_, done) in enumerate(written):
            try:
                ray.get(done, timeout=CHUNK_SECONDS)
            except ray.exceptions.RayTaskError as error:
                return place, str(error.cause or cluster.first_line(error))
            except ray.exceptions.RayError as error:
                return place, cluster.first_line(error)
        return None

    def _leave_out(self, node: Node, reason: str) -> None:
        self.nodes.remove(node)
        self.problems[node] = reason


# --- on a node --------------------------------------------------------------------------------------------------------


def farm_folder() -> Path:
    """Where a node keeps files."""
    user = getattr(os, "getuid", getpass.getuser)()
    return Path(tempfile.gettempdir()) / f"vsrife-farm-{user}"


def run_folder(run: str) -> Path:
    """Where a run keeps its own on a node: the index of the source, and marks of the bundles that it uses."""
    return farm_folder() / f"run-{run}"


def use(run: str, keys: Sequence[str]) -> None:
    """Make the folder of a run on this node, and keep others from taking bundles away."""
    root = farm_folder()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file_lock(root / "lock", "another run"):
        folder = run_folder(run)
        folder.mkdir(exist_ok=True)
        os.utime(folder)
        for key in keys:
            (folder / f"uses-{key}").touch()
        for old in [each for each in root.iterdir() if each.stat().st_mtime < time.time() - KEPT_SECONDS]:
            if old.name.startswith("run-"):
                _forget(old.name.removeprefix("run-"))


def forget(run: str, complete: bool) -> None:
    """Delete the segments of a run from this node; if it is complete, also the rest, and the bundles that no other run
    uses."""
    if not farm_folder().is_dir():
        return
    with file_lock(farm_folder() / "lock", "another run"):
        if complete:
            _forget(run)
        for own in run_folder(run).glob("segments-*"):
            shutil.rmtree(own, ignore_errors=True)


def _forget(run: str) -> None:
    root, folder = farm_folder(), run_folder(run)
    keys = [mark.name.removeprefix("uses-") for mark in folder.glob("uses-*")]
    shutil.rmtree(folder, ignore_errors=True)
    for key in keys:
        if not any(root.glob(f"run-*/uses-{key}")):
            shutil.rmtree(root / key, ignore_errors=True)
            shutil.rmtree(_arriving(key), ignore_errors=True)


def _arriving(key: str) -> Path:
    return farm_folder() / f"{key}.part"


def _write(key: str, chunk: list[Piece]) -> tuple[bool, list[Piece]]:
    """Write a chunk to this node's disk, and return it for the next node. Twice is as good as once."""
    try:
        for name, offset, data in chunk:
            path = _arriving(key) / name
            path.parent.mkdir(exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
                file.seek(offset)
                file.write(data)
    except OSError as error:
        if (farm_folder() / key).is_dir():  # another node on this machine, or another run, was faster
            return True, chunk
        raise MediaError(
            f"{farm_folder()} on {socket.gethostname()} cannot be written, got: {error.strerror}; make room there, or "
            "set TMPDIR before `ray start`"
        ) from error
    return True, chunk


def _keep(key: str) -> None:
    """Give a bundle its final name."""
    with suppress(FileNotFoundError), file_lock(farm_folder() / "lock", "another run"):
        if not (farm_folder() / key).is_dir():
            _arriving(key).rename(farm_folder() / key)
