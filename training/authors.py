"""The evaluation of RIFE's authors: UCF101, Vimeo90K, Middlebury OTHER, HD and HD 4x.

Each set is looked for in the folders that their README names, from the folder that their scripts are started in. As in
the scripts are: the frames and how they are read, channel order and padding, what is measured and how it is averaged.

Source: `benchmark/` of the RIFE repository (Huang et al., "Real-Time Intermediate Flow Estimation for Video Frame
Interpolation", ECCV 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import numpy as np

from training.evalsets import (
    TRIPLET_STEMS,
    EvalSet,
    EvaluationError,
    Feeding,
    Item,
    dropped,
    find_image,
    natural,
    read_triplet,
)
from vsrife.evaluation.metrics import Image8

MIDDLEBURY = (
    "Beanbags", "Dimetrodon", "DogDance", "Grove2", "Grove3", "Hydrangea", "MiniCooper", "RubberWhale", "Urban2",
    "Urban3", "Venus", "Walking",
)  # fmt: skip
HD_FRAMES = 100  # a pair may begin before this one


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorsSet:
    """A set as the README of the RIFE repository names it."""

    title: str
    folders: tuple[str, ...]  # that must be there
    source: str  # where to get it
    published: str  # what the README or the paper gives for the paper's model
    build: Callable[[Path], list[EvalSet]]

    def open(self, root: Path) -> list[EvalSet]:
        """The set in the folder that the authors' scripts are started from.

        Raises:
            EvaluationError: it is not there.
        """
        absent = [folder for folder in self.folders if not (root / folder).exists()]
        if absent:
            raise EvaluationError(
                f"{self.title} must be in {', '.join(self.folders)} of {root}, got no {', '.join(absent)}; get it from "
                f"{self.source}"
            )
        return [replace(found, published=self.published) for found in self.build(root)]


def _ucf101(root: Path) -> list[EvalSet]:
    folder = root / "UCF101" / "ucf101_interp_ours"
    names = sorted((child for child in folder.iterdir() if child.is_dir()), key=natural)
    paths = {d.name: [find_image(d, stem) for stem in TRIPLET_STEMS[0]] for d in names}
    return [_authors_triplets("UCF101", paths, Feeding(bgr=True))]


def _vimeo90k(root: Path) -> list[EvalSet]:
    folder = root / "vimeo_interp_test"
    listed = (line.strip() for line in (folder / "tri_testlist.txt").read_text().splitlines())
    names = [name for name in listed if len(name) > 1]
    paths = {name: [find_image(folder / "target" / name, stem) for stem in ("im1", "im2", "im3")] for name in names}
    return [_authors_triplets("Vimeo90K", paths, Feeding(bgr=True))]


def _middlebury(root: Path) -> list[EvalSet]:
    def paths(name: str) -> list[Path]:
        data, truth = root / "other-data" / name, root / "other-gt-interp" / name
        return [find_image(data, "frame10"), find_image(truth, "frame10i11"), find_image(data, "frame11")]

    found = {name: paths(name) for name in MIDDLEBURY}
    return [_authors_triplets("Middlebury OTHER", found, Feeding(bgr=True, canvas=(640, 480)))]


def _authors_triplets(title: str, paths: Mapping[str, Sequence[Path]], feeding: Feeding) -> EvalSet:
    missing = [path for triplet in paths.values() for path in triplet if not path.is_file()]
    if missing or not paths:
        raise EvaluationError(f"{title} must be whole, got no {missing[0] if missing else 'triplet'}; get it anew")
    return EvalSet(
        name=title,
        items=lambda: (read_triplet(name, triplet) for name, triplet in paths.items()),
        feeding=lambda _: feeding,
    )


@dataclass(frozen=True, slots=True)
class RawVideo:
    """A file of planar 4:2:0 frames of 8 bits without any header."""

    path: str
    width: int
    height: int
    size: Literal["544p", "720p", "1080p"]


def _raw(size: Literal["544p", "720p", "1080p"], width: int, height: int, *names: str) -> list[RawVideo]:
    return [RawVideo(f"HD_dataset/HD{size}_GT/{name}.yuv", width, height, size) for name in names]


HD_FILES = (
    *_raw("720p", 1280, 720, "parkrun_1280x720_50", "shields_1280x720_60", "stockholm_1280x720_60"),
    *_raw("1080p", 1920, 1080, "BlueSky", "Kimono1_1920x1080_24", "ParkScene_1920x1080_24", "sunflower_1080p25"),
    *_raw("544p", 1280, 544, *(f"Sintel_{name}_1280x544" for name in ("Alley2", "Market5", "Temple1", "Temple2"))),
)
_HD_ROWS = {720: 24, 1080: 4}  # replicated above and below, by height
_HD_OTHER_ROWS = 16
_YUV_OF_RGB = np.array(
    [
        [0.299, 0.587, 0.114],
        [-0.14714119, -0.28886916, 0.43601035],
        [0.61497538, -0.51496512, -0.10001026],
    ]
)


def read_raw(root: Path, video: RawVideo, limit: int) -> Iterator[Image8]:
    """The first `limit` frames, in RGB as the scripts make it: chroma enlarged by Pillow's default (bicubic since its
    version 7), full range, results cut off, not rounded."""
    luma, chroma = video.width * video.height, video.width * video.height // 4
    with (root / video.path).open("rb") as file:
        for _ in range(limit):
            data = np.frombuffer(file.read(luma + 2 * chroma), np.uint8)
            if data.size < luma + 2 * chroma:
                return
            y = data[:luma].reshape(video.height, video.width)
            yield rgb_of_planes(y, *data[luma:].reshape(2, video.height // 2, video.width // 2))


def rgb_of_planes(y: Image8, u: Image8, v: Image8) -> Image8:
    """Planes (H, W), (H/2, W/2), (H/2, W/2) to (H, W, 3) RGB."""
    from PIL import Image

    full = (np.asarray(Image.fromarray(plane).resize(y.shape[::-1])) for plane in (u, v))
    yuv = np.stack([y / 255.0, *(plane / 255.0 - 0.5 for plane in full)], axis=-1)
    rgb: Image8 = (255.0 * np.clip(yuv @ np.linalg.inv(_YUV_OF_RGB).T, 0.0, 1.0)).astype(np.uint8)
    return rgb


def _hd_items(root: Path, videos: Sequence[RawVideo], step: int) -> Iterator[Item]:
    for video in videos:
        last = (HD_FRAMES - 1) // step * step + step  # of the last pair
        yield from dropped(read_raw(root, video, last + 1), step, Path(video.path).stem, group=video.path)


def hd_set(name: str, root: Path, videos: Sequence[RawVideo], step: int) -> EvalSet:
    """Luma PSNR on raw files: every `step`th frame is kept."""
    for video in videos:
        if not (root / video.path).is_file():
            raise EvaluationError(f"HD must be whole, got no {root / video.path}; get it anew")
    return EvalSet(
        name=name,
        items=partial(_hd_items, root, videos, step),
        measures=("luma_psnr_db", "ssim", "ssimulacra2"),
        feeding=lambda picture: Feeding(rows=_HD_ROWS.get(picture.shape[0], _HD_OTHER_ROWS)),
    )


def _hd(root: Path) -> list[EvalSet]:
    return [hd_set("HD", root, HD_FILES, 2)]


def _hd_4x(root: Path) -> list[EvalSet]:
    sizes = dict.fromkeys(video.size for video in HD_FILES)
    return [hd_set(f"HD 4x {size}", root, [video for video in HD_FILES if video.size == size], 4) for size in sizes]


_HD_SOURCE = "https://github.com/baowenbo/MEMC-Net"
AUTHORS_SETS: Mapping[str, AuthorsSet] = MappingProxyType(
    {
        "ucf101": AuthorsSet(
            title="UCF101",
            folders=("UCF101/ucf101_interp_ours",),
            source="https://liuziwei7.github.io/projects/VoxelFlow",
            published="35.282 dB, SSIM 0.9688",
            build=_ucf101,
        ),
        "vimeo90k": AuthorsSet(
            title="Vimeo90K test",
            folders=("vimeo_interp_test/tri_testlist.txt", "vimeo_interp_test/target"),
            source="http://toflow.csail.mit.edu",
            published="35.615 dB, SSIM 0.9779",
            build=_vimeo90k,
        ),
        "middlebury": AuthorsSet(
            title="Middlebury OTHER",
            folders=("other-data", "other-gt-interp"),
            source="https://vision.middlebury.edu/flow/data",
            published="IE 1.956",
            build=_middlebury,
        ),
        "hd": AuthorsSet(title="HD", folders=("HD_dataset",), source=_HD_SOURCE, published="32.14 dB", build=_hd),
        "hd4x": AuthorsSet(
            title="HD 4x",
            folders=("HD_dataset",),
            source=_HD_SOURCE,
            published="RIFE_m 22.96 (544p), 31.87 (720p), 34.25 dB (1080p)",
            build=_hd_4x,
        ),
    }
)
