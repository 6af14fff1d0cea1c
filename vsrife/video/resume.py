"""The unfinished result of a run: a folder with encoded pieces that a later run can go on from.

A piece begins at a fixed frame with a fresh encoder, so that it is the same whoever makes it. It gets its name when it
is complete and on the disk: what is there under its name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av

from vsrife.errors import MediaError, OptionError

_MAGIC = b"vsrife packets 1\n"
_RECORD = struct.Struct("<qIII")  # frame number, flags, bytes, bytes beside them; the last has _END, _ENDING follows
_ENDING = struct.Struct("<IIII")  # an `Ending`
_KEY, _END = 1, 2
BESIDE: Literal["matroska_block_additional"] = "matroska_block_additional"  # side data that belongs to the picture
_HEAD_BYTES = 1 << 20
_STATE = "job.json"


@dataclass(frozen=True, slots=True)
class Piece:
    """One encoded packet.

    Attributes:
        frame: that it shows, counted in the whole result.
        key: whether decoding can begin there.
        data: of the packet.
        beside: what goes with it in a container: the transparency of VP9.
    """

    frame: int
    key: bool
    data: bytes
    beside: bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """What a piece says about itself.

    Attributes:
        packets: how many it has.
        delay: by how many frames the order of decoding runs ahead at most.
        cuts, repeats: seen in it.
    """

    packets: int
    delay: int
    cuts: int
    repeats: int


type Counts = Callable[[], tuple[int, int]]  # cuts and repeats so far


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder `OUT.part`.

    Attributes:
        folder: of the run.
        length: frames in a piece; the last one may be shorter.
        frames: of the whole result.
    """

    folder: Path
    length: int
    frames: int

    @property
    def index(self) -> Path:
        """Where bestsource keeps its index."""
        return self.folder / "index"

    def starts(self) -> range:
        """First frames of all pieces."""
        return range(0, self.frames, self.length)

    def done(self) -> list[int]:
        """First frames of the pieces that are complete."""
        return [start for start in self.starts() if self.path(start).is_file()]

    def write(
        self, start: int, packets: Iterable[av.Packet[Any]], seen: Counts, complete: Callable[[], bool]
    ) -> Path | None:
        """Write the piece whose first frame is `start`.

        Returns:
            Where it is: under its name where it is complete, else under another; None where it is empty.
        """
        path = self.path(start)
        unfinished = path.with_suffix(".unfinished")
        if not write_packets(unfinished, start, packets, seen):
            unfinished.unlink()
            return None
        if not complete():
            return unfinished
        unfinished.replace(path)
        sync_folder(self.folder)
        return path

    def path(self, start: int) -> Path:
        return self.folder / f"{start:010d}.packets"

    def remove(self) -> None:
        remove(self.folder)


def remove(folder: Path) -> None:
    """Delete the folder of a run."""
    shutil.rmtree(folder, ignore_errors=True)


def folder_of(output: Path) -> Path:
    """Where a run keeps its unfinished result."""
    return output.with_name(f"{output.name}.part")


def write_packets(path: Path, start: int, packets: Iterable[av.Packet[Any]], seen: Counts) -> int:
    """Write packets of which each `pts` is a frame counted from `start`; they are on the disk afterwards.

    Returns:
        How many there are.
    """
    count = delay = 0
    with path.open("wb") as file:
        file.write(_MAGIC)
        for packet in packets:
            assert packet.pts is not None
            data, beside = bytes(packet), bytes(packet.get_sidedata(BESIDE))
            file.write(_RECORD.pack(start + packet.pts, _KEY if packet.is_keyframe else 0, len(data), len(beside)))
            file.write(data + beside)
            delay = max(delay, count - packet.pts)
            count += 1
        file.write(_RECORD.pack(0, _END, 0, 0))
        file.write(_ENDING.pack(count, delay, *seen()))
        file.flush()
        os.fsync(file.fileno())
    return count


def read_ending(path: Path) -> Ending:
    with path.open("rb") as file:
        file.seek(-_ENDING.size, os.SEEK_END)
        return Ending(*_ENDING.unpack(file.read(_ENDING.size)))


def read_packets(path: Path) -> Iterator[Piece]:
    """Read what `write_packets` has written.

    Raises:
        MediaError: the file is damaged.
    """
    with path.open("rb") as file:
        whole = file.read(len(_MAGIC)) == _MAGIC
        while whole and len(record := file.read(_RECORD.size)) == _RECORD.size:
            number, flags, size, more = _RECORD.unpack(record)
            if flags & _END:
                return
            data, beside = file.read(size), file.read(more)
            whole = len(data) == size and len(beside) == more
            if whole:
                yield Piece(number, bool(flags & _KEY), data, beside)
    raise MediaError(f"{path} is damaged, got an end before its end; delete it and go on with --resume")


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system can."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_identity(kind: str, paths: Sequence[Path]) -> dict[str, str]:
    """What tells changed files from the same ones; the content of a long list is that of its first file."""
    stats = [path.stat() for path in paths]
    with paths[0].open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
    return {
        f"{kind} files": str(len(paths)), f"{kind} size": str(sum(stat.st_size for stat in stats)),
        f"{kind} time": str(max(stat.st_mtime_ns for stat in stats)), f"{kind} content": head[:16],
    }  # fmt: skip


def has_pieces(folder: Path) -> bool:
    """Whether there is something to go on from."""
    return any(folder.glob("*.packets"))


def begin(output: Path, identity: Mapping[str, str], *, resume: bool, overwrite: bool) -> tuple[Path, bool]:
    """Make or find the folder of a run.

    Args:
        output: the result's name.
        identity: all that decides on the result, by the names that a user knows it by.
        resume: go on with what is there.
        overwrite: throw away what is there.

    Returns:
        The folder, and whether it holds an earlier run that goes on.

    Raises:
        OptionError: there is an unfinished run, and neither is asked for, or it was made with other options.
    """
    folder = folder_of(output)
    state = folder / _STATE
    if folder.is_dir() and resume and state.is_file():
        _compare(folder, json.loads(state.read_text(encoding="utf-8")), identity)
        return folder, True
    if folder.exists() and not (resume or overwrite):
        raise OptionError(
            f"{folder} holds an unfinished run; give --resume to go on with it, or --overwrite to start anew"
        )
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_text(state, json.dumps(dict(identity), indent=1))
    return folder, False


def _compare(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    different = [
        f"{key} was {before.get(key, 'not given')}, is {now.get(key, 'not given')}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if different:
        raise OptionError(
            f"{folder} was begun differently: {'; '.join(different)}; give the same again, or --overwrite to start anew"
        )


def write_text(path: Path, text: str) -> None:
    """Write a small file at once."""
    unfinished = path.with_suffix(".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
