"""The folder OUT.part of a run: finished segments that a later run continues from, and a lock against a second run.

A segment starts at a fixed frame with a fresh encoder, so it does not matter which run makes it. It gets its name only
when it is complete and on the disk, and its checksum is verified before it is used again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av

from vsrife.errors import MediaError, OptionError
from vsrife.files import atomic_write, file_lock, replace_file

_MAGIC = b"vsrife packets 2\n"
_RECORD = struct.Struct("<qIII")  # frame number, flags, bytes, bytes of side data; the footer follows the last, an _END
_FOOTER = struct.Struct("<IIIII")  # a `SegmentFooter`, then the CRC-32 of all before it
_KEY, _END = 1, 2
SIDE_DATA: Literal["matroska_block_additional"] = "matroska_block_additional"  # the kind that belongs to the picture
_HEAD_BYTES = 1 << 20
_STATE, _DELIVERED, _LOCK, _INDEX = "job.json", "delivered.json", "lock", "index"
_OUR_NAMES = ("job.*", "delivered.*", _LOCK, _INDEX, "*.packets", "*.unfinished", "unfinished.*", "head.*", ".*.part")


@dataclass(frozen=True, slots=True)
class SegmentPacket:
    """One encoded packet.

    Attributes:
        frame: number of its frame in the whole result.
        key: decoding can start here.
        data: the packet.
        side_data: `SIDE_DATA` of the packet: the alpha of VP9.
    """

    frame: int
    key: bool
    data: bytes
    side_data: bytes


@dataclass(frozen=True, slots=True)
class SegmentFooter:
    """Summary at the end of a segment.

    Attributes:
        packets: number of packets.
        delay: largest number of frames that decoding order runs ahead of display order.
        cuts, duplicates: scene cuts, and source frames that equal the one before.
    """

    packets: int
    delay: int
    cuts: int
    duplicates: int


type Counts = Callable[[], tuple[int, int]]  # cuts and duplicates so far


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments in the folder of a run.

    Attributes:
        folder: of the run.
        length: frames of a segment; the last one may be shorter.
        frames: of the whole result.
    """

    folder: Path
    length: int
    frames: int

    def starts(self) -> range:
        """First frames of all segments."""
        return range(0, self.frames, self.length)

    def path(self, start: int) -> Path:
        return self.folder / f"{start:010d}.packets"

    def discard_damaged(self) -> list[Path]:
        """Delete the segments whose checksum is wrong, and return their paths."""
        damaged = [path for path in map(self.path, self.starts()) if path.exists() and not _is_intact(path)]
        for path in damaged:
            path.unlink()
        return damaged

    def done(self) -> list[int]:
        """First frames of the complete segments."""
        return [start for start in self.starts() if self.path(start).is_file()]

    def write(
        self, start: int, packets: Iterable[av.Packet[Any]], counts: Counts, complete: Callable[[], bool]
    ) -> Path | None:
        """Write the segment whose first frame is `start`.

        Returns:
            Its path; another one if it is incomplete because the run was interrupted, and None if it is empty.
        """
        path = self.path(start)
        unfinished = path.with_suffix(".unfinished")
        if not write_packets(unfinished, start, packets, counts):
            unfinished.unlink()
            return None
        if not complete():
            return unfinished
        replace_file(unfinished, path, durable=True)
        return path


# --- segment files ----------------------------------------------------------------------------------------------------


def write_packets(path: Path, start: int, packets: Iterable[av.Packet[Any]], counts: Counts) -> int:
    """Write packets whose `pts` counts frames from `start`; returns how many."""
    count = delay = crc = 0
    with path.open("wb") as file:

        def write(data: bytes) -> None:
            nonlocal crc
            crc = zlib.crc32(data, crc)
            file.write(data)

        write(_MAGIC)
        for packet in packets:
            assert packet.pts is not None
            data, side_data = bytes(packet), bytes(packet.get_sidedata(SIDE_DATA))
            key = _KEY if packet.is_keyframe else 0
            write(_RECORD.pack(start + packet.pts, key, len(data), len(side_data)) + data + side_data)
            delay = max(delay, count - packet.pts)
            count += 1
        write(_RECORD.pack(0, _END, 0, 0))
        file.write(_FOOTER.pack(count, delay, *counts(), crc))
    return count


def read_footer(path: Path) -> SegmentFooter:
    """The footer of a segment."""
    with path.open("rb") as file:
        file.seek(-_FOOTER.size, os.SEEK_END)
        return SegmentFooter(*_FOOTER.unpack(file.read(_FOOTER.size))[:-1])


def _is_intact(path: Path) -> bool:
    try:
        size, crc = path.stat().st_size - _FOOTER.size, 0
        with path.open("rb") as file:
            if size < len(_MAGIC) or file.read(len(_MAGIC)) != _MAGIC:
                return False
            file.seek(0)
            while size and (block := file.read(min(size, _HEAD_BYTES))):
                crc, size = zlib.crc32(block, crc), size - len(block)
            return bool(crc == _FOOTER.unpack(file.read(_FOOTER.size))[-1])
    except OSError:  # e.g. a folder of this name
        return False


def read_packets(path: Path) -> Iterator[SegmentPacket]:
    """Read what `write_packets` wrote.

    Raises:
        MediaError: the file is damaged.
    """
    with path.open("rb") as file:
        room = path.stat().st_size  # a damaged record may claim 4 GiB, for which memory would be taken
        intact = file.read(len(_MAGIC)) == _MAGIC
        while intact and len(record := file.read(_RECORD.size)) == _RECORD.size:
            number, flags, size, side_size = _RECORD.unpack(record)
            if flags & _END:
                return
            intact = file.tell() + size + side_size <= room
            if intact:
                yield SegmentPacket(number, bool(flags & _KEY), file.read(size), file.read(side_size))
    raise MediaError(f"{path} is damaged, got no footer; run again with --resume to make it anew")


# --- the folder -------------------------------------------------------------------------------------------------------


def folder_of(output: Path) -> Path:
    """The folder of the run that makes `output`."""
    return output.parent / f"{output.name}.part"  # also beside the pictures where `output` is the current folder


def index_folder(folder: Path) -> Path:
    """Where bestsource keeps its index during the run."""
    return folder / _INDEX


def started_ns(folder: Path) -> int:
    """When the run was started, as modification times count: nanoseconds since 1970."""
    return (folder / _STATE).stat().st_mtime_ns


def has_segments(folder: Path) -> bool:
    """Whether there is anything to continue from."""
    return any(folder.glob("*.packets"))


@contextmanager
def run_folder(output: Path, identity: Mapping[str, str], *, resume: bool, overwrite: bool) -> Iterator[bool]:
    """Make or reopen the folder of a run and lock it until the block ends.

    Args:
        output: the file or folder that the run makes.
        identity: everything that decides on the result, by names that the user knows.
        resume: continue an earlier run.
        overwrite: discard an earlier run.

    Yields:
        Whether an earlier run is continued.

    Raises:
        OptionError: an earlier run is there and neither `resume` nor `overwrite` is given, or it was started with
            other options, or the folder holds foreign files.
        MediaError: another process holds the lock.
    """
    folder = folder_of(output)
    _refuse_foreign(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder / _LOCK, "another run", wait=False))
        except TimeoutError as error:
            raise MediaError(f"another run is making {output}, got its lock in {folder}; wait for it to end") from error
        before = _read_state(folder)
        if before is not None and not (resume or overwrite):
            raise OptionError(
                f"{folder} holds an unfinished run; give --resume to continue it, or --overwrite to start anew"
            )
        continued = bool(resume and before)
        if continued:
            _compare(folder, before or {}, identity)
        else:
            _clear(folder)
            with atomic_write(folder / _STATE, durable=True) as part:
                part.write_text(json.dumps(dict(identity), indent=1), encoding="utf-8")
        yield continued


def remove(output: Path) -> None:
    """Delete the folder of a run, apart from files that are not its own."""
    folder = folder_of(output)
    _clear(folder)
    with suppress(OSError):
        (folder / _LOCK).unlink()
    with suppress(OSError):
        folder.rmdir()


def _our_files(folder: Path) -> set[Path]:
    return {path for pattern in _OUR_NAMES for path in folder.glob(pattern)}


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder that no run has made: nothing in it may be deleted."""
    if folder.is_dir():
        foreign = sorted(path.name for path in set(folder.iterdir()) - _our_files(folder))
        if not foreign:
            return
        what = f"the foreign file {foreign[0]}"
    elif folder.exists():
        what = "a file"
    else:
        return
    raise OptionError(f"{folder} must be free for the unfinished result, got {what}; move it, or give another OUT")


def _clear(folder: Path) -> None:
    """Delete all files of a run but its lock."""
    for path in _our_files(folder) - {folder / _LOCK}:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _read_state(folder: Path) -> dict[str, str] | None:
    """The identity of the run that made the folder; empty if it is damaged, None if there is none."""
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _compare(folder: Path, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    different = [
        f"{key} was {before.get(key, 'not given')}, is {now.get(key, 'not given')}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]
    if different:
        raise OptionError(
            f"{folder} was started with other options: {'; '.join(different)}; give the same again, or --overwrite to "
            "start anew"
        )


def file_identity(kind: str, paths: Sequence[Path]) -> dict[str, str]:
    """Number, size, time and first MiB of input files, to recognise changed ones; content of the first file only."""
    stats = [path.stat() for path in paths]
    with paths[0].open("rb") as file:
        head = hashlib.sha256(file.read(_HEAD_BYTES)).hexdigest()
    return {
        f"{kind} files": str(len(paths)), f"{kind} size": str(sum(stat.st_size for stat in stats)),
        f"{kind} time": str(max(stat.st_mtime_ns for stat in stats)), f"{kind} content": head[:16],
    }  # fmt: skip


# --- the interrupted result -------------------------------------------------------------------------------------------


def mark_delivered(output: Path) -> None:
    """Remember the incomplete file that an interrupted run leaves under its final name."""
    with atomic_write(folder_of(output) / _DELIVERED) as part:
        part.write_text(json.dumps(_fingerprint(output)))


def is_delivered(output: Path) -> bool:
    """Whether the file at `output` is what an interrupted run has left there, unchanged."""
    try:
        return bool(json.loads((folder_of(output) / _DELIVERED).read_text()) == _fingerprint(output))
    except (OSError, ValueError):
        return False


def _fingerprint(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]
