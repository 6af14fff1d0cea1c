"""Where the pictures of an evaluation come from: triplets and frame sequences. Pictures are (H, W, 3) RGB of 8 bits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from vsrife.errors import RifeError
from vsrife.evaluation.metrics import Image8

IMAGE_SUFFIXES = (".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".jpg", ".jpeg")
VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".y4m")
TRIPLET_STEMS = (  # before, truth, after
    ("frame_00", "frame_01_gt", "frame_02"),
    ("frame10", "frame10i11", "frame11"),
    ("im1", "im2", "im3"),
    ("frame1", "frame2", "frame3"),
)
NUMBERED_STEMS = TRIPLET_STEMS[2:]  # more images than three make these a sequence
SEARCH_DEPTH = 3  # folders below the one that is given


class EvaluationError(RifeError, OSError):
    """Pictures to evaluate on are not there or cannot be read."""


@dataclass(frozen=True, slots=True)
class Item:
    """Two pictures and the truth at times between them."""

    name: str
    group: str  # a score is the mean of its groups' means; most sets have one group
    first: Image8
    last: Image8
    truths: Mapping[float, Image8]  # by time, 0..1


@dataclass(frozen=True, slots=True, kw_only=True)
class Feeding:
    """How the authors' script of a set shows pictures to the network."""

    bgr: bool = False
    rows: int = 0  # replicated above and below
    canvas: tuple[int, int] | None = None  # width and height, zeros to the right and below

    def apply(self, picture: Image8) -> Image8:
        """The picture as the network gets it."""
        fed = np.pad(picture, ((self.rows, self.rows), (0, 0), (0, 0)), mode="edge")
        if self.canvas:
            right, below = (room - side for room, side in zip(self.canvas, (fed.shape[1], fed.shape[0]), strict=True))
            fed = np.pad(fed, ((0, max(0, below)), (0, max(0, right)), (0, 0)))
        return fed[..., ::-1] if self.bgr else fed

    def undo(self, fed: Image8, like: Image8) -> Image8:
        """The part of the network's picture that is seen, of the size of `like`, RGB again."""
        height, width = like.shape[:2]
        picture = fed[self.rows : self.rows + height, :width]
        return picture[..., ::-1] if self.bgr else picture


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSet:
    """Pictures and what is measured on them."""

    name: str
    items: Callable[[], Iterator[Item]]  # reads them anew at each call, one at a time
    measures: tuple[str, ...] = ("psnr_db", "ssim", "ie", "ssimulacra2")
    feeding: Callable[[Image8], Feeding] = lambda _: Feeding()  # for a picture of this size
    published: str = ""  # the scores of the paper's model, where its authors name them

    def limited(self, count: int | None) -> EvalSet:
        """The same with its first `count` items."""
        return self if count is None else replace(self, items=lambda: islice(self.items(), count))


# --- reading ----------------------------------------------------------------------------------------------------------


def read_image(path: Path) -> Image8:
    """An image file as 8-bit RGB.

    Raises:
        EvaluationError: it is missing or no image.
    """
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise EvaluationError(
            f"{path} must be an image, got {'none' if path.exists() else 'no such file'}; get it anew"
        )
    return picture[..., ::-1].astype(np.uint8)


def find_image(folder: Path, stem: str) -> Path:
    """The image of this stem, whatever its suffix; lossless ones first. A missing one is given as PNG."""
    paths = (folder / f"{stem}{suffix}" for suffix in IMAGE_SUFFIXES)
    return next((path for path in paths if path.is_file()), folder / f"{stem}.png")


def read_triplet(name: str, paths: Sequence[Path]) -> Item:
    """Before, truth, after."""
    first, truth, last = (read_image(path) for path in paths)
    if not first.shape == truth.shape == last.shape:
        sizes = ", ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (first, truth, last))
        raise EvaluationError(f"pictures of {paths[0].parent} must have one size, got {sizes}; replace them")
    return Item(name, "", first, last, {0.5: truth})


def read_frames(path: Path) -> Iterator[Image8]:
    """The frames of a video file, or of a folder of numbered images.

    Raises:
        EvaluationError: there are none.
    """
    frames = _image_frames(path) if path.is_dir() else _video_frames(path)
    empty = True
    for frame in frames:
        empty = False
        yield frame
    if empty:
        raise EvaluationError(f"{path} must be a video or a folder of images, got no frames; give another one")


def _image_frames(folder: Path) -> Iterator[Image8]:
    return map(read_image, sorted(_images(folder), key=natural))


def _video_frames(path: Path) -> Iterator[Image8]:
    video = cv2.VideoCapture(str(path))
    try:
        while (read := video.read())[0]:
            yield read[1][..., ::-1].astype(np.uint8)
    finally:
        video.release()


def _images(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def dropped(frames: Iterable[Image8], step: int, name: str, group: str = "") -> Iterator[Item]:
    """Every `step`th frame is kept, those between are the truth. A rest that no kept frame follows is left out."""
    window: list[Image8] = []
    for n, frame in enumerate(frames):
        window.append(frame)
        if len(window) == step + 1:
            truths = {k / step: window[k] for k in range(1, step)}
            yield Item(f"{name} {n - step}", group, window[0], window[-1], truths)
            window = window[-1:]


# --- any folder -------------------------------------------------------------------------------------------------------


def find_sets(path: Path, steps: Sequence[int]) -> list[EvalSet]:
    """What can be evaluated at `path`.

    Args:
        path: a folder of triplet folders, a video file, a folder of numbered images, or a folder of any of these.
        steps: for sequences, how many times the frames are to be multiplied: 2 drops every other one.

    Raises:
        EvaluationError: there is nothing.
    """
    found = _search(path, steps, SEARCH_DEPTH)
    if not found:
        names = "; ".join(", ".join(stems) for stems in TRIPLET_STEMS)
        raise EvaluationError(
            f"{path} must hold triplets ({names}), videos or folders of numbered images, got none; give another folder"
        )
    return found


def _search(path: Path, steps: Sequence[int], depth: int) -> list[EvalSet]:
    """What is at the path, or else in the folders below it."""
    found = _sets_at(path, steps)
    if found or depth == 0 or not path.is_dir():
        return found
    return [s for child in sorted(path.iterdir(), key=natural) for s in _search(child, steps, depth - 1)]


def _sets_at(path: Path, steps: Sequence[int]) -> list[EvalSet]:
    if path.is_dir():
        triplets = _triplets(path)
        if triplets:
            return [EvalSet(name=path.name, items=lambda: (read_triplet(p[0].parent.name, p) for p in triplets))]
        if len(_images(path)) <= min(steps):
            return []
    elif path.suffix.lower() not in VIDEO_SUFFIXES:
        return []
    return [EvalSet(name=f"{path.stem} {step}x", items=partial(_sequence_items, path, step)) for step in steps]


def _sequence_items(path: Path, step: int) -> Iterator[Item]:
    return dropped(read_frames(path), step, path.stem)


def _triplets(folder: Path) -> list[list[Path]]:
    """The paths of the triplet that the folder holds, or of those in its subfolders."""
    children = sorted((child for child in folder.iterdir() if child.is_dir()), key=natural)
    return [paths for child in (folder, *children) if (paths := _stems_in(child))]


def _stems_in(folder: Path) -> list[Path]:
    """Before, truth and after, when the folder holds them; else nothing."""
    usable = TRIPLET_STEMS if len(_images(folder)) == 3 else tuple(set(TRIPLET_STEMS) - set(NUMBERED_STEMS))
    rows = ([find_image(folder, stem) for stem in stems] for stems in usable)
    return next((paths for paths in rows if all(path.is_file() for path in paths)), [])
