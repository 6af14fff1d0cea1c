"""Clips decoded once into one flat file of uint8 RGB pixels, which training maps into memory or copies to the GPU.

A pack is a folder with `pixels.u8` (frames one after another, rows from the top, three bytes for each pixel) and
`pack.json`, written last, so that a pack without it is not finished. What each frame may be used for (cuts, still
stretches, where in the picture something moves) is found while decoding.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vsrife.errors import ClipError, MediaError

CLIP_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v")
LEAST_FRAMES = 3
LEAST_SIDE_PX = 96  # a crop of 64 pixels that can still be placed in more than one way
CELL_PX = 32  # motion is known for each cell of this side
STILL_DIFFERENCE = 0.0012  # mean absolute difference of luma, 0..1, below which two frames count as the same
CUT_DIFFERENCE = 0.08  # a cut differs by at least this, and by `CUT_RATIO` times the pairs around it
CUT_RATIO = 4.0
PIXELS_FILE = "pixels.u8"
INDEX_FILE = "pack.json"
FORMAT = 1

Frame = NDArray[np.uint8]
Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ClipEntry:
    """One clip inside a pack."""

    name: str
    frames: int
    height: int
    width: int
    first_pixel: int  # of its first frame, in pixels from the start of the file
    differences: tuple[float, ...]  # of each frame to the next, mean absolute luma difference, 0..1
    motion: tuple[tuple[float, ...], ...]  # the same for each cell, row by row


@dataclass(frozen=True, slots=True, eq=False)
class Pack:
    """All clips: `pixels` is (P, 3) uint8, P pixels of all frames."""

    entries: tuple[ClipEntry, ...]
    pixels: Tensor

    def to(self, device: torch.device) -> Pack:
        """The pack in a device's memory; on the CPU it stays mapped from the file."""
        return self if device.type == "cpu" else Pack(self.entries, self.pixels.to(device))


def find_clips(folder: Path) -> list[Path]:
    """Video files in a folder, sorted by name.

    Raises:
        MediaError: the folder is missing or holds none.
    """
    if not folder.is_dir():
        raise MediaError(f"{folder} is no folder of clips; give the folder that holds the training videos")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in CLIP_SUFFIXES)
    if not found:
        raise MediaError(f"{folder} holds no clips, got no file ending in {', '.join(CLIP_SUFFIXES)}")
    return found


def read_frames(path: Path) -> Iterator[Frame]:
    """The frames of a clip as (H, W, 3) uint8 RGB.

    Raises:
        MediaError: the file cannot be decoded.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise MediaError(f"{path} cannot be decoded; convert it, or take it out of the folder")
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()


def check_clip(path: Path, frames: int, height: int, width: int) -> None:
    """Refuse what no crop can be cut from.

    Raises:
        MediaError: no frame could be decoded.
        ClipError: the clip is too short or too small.
    """
    if frames == 0:
        raise MediaError(f"{path} cannot be decoded, got no frame; convert it, or take it out of the folder")
    if frames < LEAST_FRAMES:
        raise ClipError(f"{path} is too short, got {frames} frames; a triplet needs {LEAST_FRAMES}")
    if min(height, width) < LEAST_SIDE_PX:
        raise ClipError(f"{path} is too small, got {width}x{height}; sides must have {LEAST_SIDE_PX} pixels or more")


def cell_means(values: Map) -> Map:
    """The mean over each full cell of (H, W), (H // CELL_PX, W // CELL_PX)."""
    rows, columns = (side // CELL_PX for side in values.shape)
    cells = values[: rows * CELL_PX, : columns * CELL_PX].reshape(rows, CELL_PX, columns, CELL_PX)
    means: Map = cells.mean(axis=(1, 3), dtype=np.float32)
    return means


def _luma(frame: Frame) -> Map:
    luma: Map = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
    return luma


def build_pack(clips: Sequence[Path], folder: Path) -> Pack:
    """Decode clips into a pack, unless `folder` already holds the pack of just these files.

    Args:
        clips: Video files.
        folder: Where the pack goes; replaced as a whole, so that it is never half one and half another.

    Raises:
        MediaError: a clip cannot be decoded.
        ClipError: a clip is too short or too small.
    """
    sources = [[path.name, path.stat().st_size] for path in clips]
    if _is_pack_of(folder, sources):
        return open_pack(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        entries = _write_pixels(clips, work / PIXELS_FILE)
        index = {"format": FORMAT, "sources": sources, "clips": [asdict(entry) for entry in entries]}
        (work / INDEX_FILE).write_text(json.dumps(index))
        if folder.exists():
            shutil.rmtree(folder)
        work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return open_pack(folder)


def _is_pack_of(folder: Path, sources: list[list[object]]) -> bool:
    index = folder / INDEX_FILE
    if not index.is_file():
        return False
    stored = json.loads(index.read_text())
    return bool(stored.get("format") == FORMAT and stored.get("sources") == sources)


def _write_pixels(clips: Sequence[Path], path: Path) -> list[ClipEntry]:
    entries: list[ClipEntry] = []
    first = 0
    with path.open("wb") as stream:
        for clip in clips:
            entry = _append_clip(clip, first, stream)
            entries.append(entry)
            first += entry.frames * entry.height * entry.width
        stream.flush()
        os.fsync(stream.fileno())
    return entries


def _append_clip(path: Path, first_pixel: int, stream: BinaryIO) -> ClipEntry:
    differences: list[float] = []
    motion: list[tuple[float, ...]] = []
    height = width = count = 0
    before: Map | None = None
    for frame in read_frames(path):
        height, width = frame.shape[:2]
        count += 1
        stream.write(frame.tobytes())
        luma = _luma(frame)
        if before is not None:
            change = np.abs(luma - before)
            differences.append(round(float(change.mean()), 6))
            motion.append(tuple(round(float(v), 4) for v in cell_means(change).ravel()))
        before = luma
    check_clip(path, count, height, width)
    return ClipEntry(path.name, count, height, width, first_pixel, tuple(differences), tuple(motion))


def open_pack(folder: Path) -> Pack:
    """Map a finished pack into memory.

    Raises:
        MediaError: there is none, or its pixels are cut short.
    """
    index = folder / INDEX_FILE
    if not index.is_file():
        raise MediaError(f"{folder} holds no finished pack, {INDEX_FILE} is missing; build it from the clips again")
    stored = json.loads(index.read_text())
    entries = tuple(
        ClipEntry(**{**c, "differences": tuple(c["differences"]), "motion": tuple(map(tuple, c["motion"]))})
        for c in stored["clips"]
    )
    size = 3 * sum(e.frames * e.height * e.width for e in entries)
    pixels = folder / PIXELS_FILE
    if not pixels.is_file() or pixels.stat().st_size != size:
        raise MediaError(f"{pixels} is cut short, expected {size:,} bytes; build the pack from the clips again")
    mapped = torch.from_file(str(pixels), shared=False, size=size, dtype=torch.uint8)
    return Pack(entries, mapped.view(-1, 3))


def find_cuts(differences: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which steps from one frame to the next are cuts: much larger than the steps around them."""
    cuts = np.zeros(len(differences), bool)
    for i, value in enumerate(differences):
        around = np.delete(differences[max(0, i - 3) : i + 4], min(i, 3))
        cuts[i] = value > CUT_DIFFERENCE and (len(around) == 0 or value > CUT_RATIO * float(np.median(around)))
    return cuts
