"""The own scene change measure on real footage, and what it must not take for a cut."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vapoursynth as vs

from vsrife.filters.frames import NEXT
from vsrife.filters.scenechange import cut_clip, measure

LABELS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "cuts.json").read_text())
THRESHOLD = 0.15


@dataclass
class Score:
    right: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def precision(self) -> float:
        return self.right / max(1, self.right + self.wrong)

    @property
    def recall(self) -> float:
        return self.right / max(1, self.right + self.missed)


def found_cuts(clip: vs.VideoNode, *, reach: int) -> set[int]:
    """The first frames of new scenes."""
    cuts = cut_clip(clip, THRESHOLD, reach=reach)
    return {n + 1 for n, frame in enumerate(cuts.frames()) if frame.props[NEXT]}


def score(repo: Path, footage: Path, *, reach: int) -> Score:
    total = Score()
    for name, label in LABELS.items():
        path = repo / name if name.startswith("examples/") else footage / name
        found = found_cuts(vs.core.bs.VideoSource(path, cachemode=0), reach=reach) - set(label["mixed"])
        cuts = set(label["cuts"])
        total.right += len(found & cuts)
        total.wrong += len(found - cuts)
        total.missed += len(cuts - found)
    return total


def test_cuts_of_labelled_footage(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """15 real clips and the sample, cuts marked by eye: whole clips, and pair by pair as in a player.

    What is missed: a cut to black (nothing remains after gain and offset) and one between the fields of an interlaced
    frame.
    """
    repo = Path(__file__).parents[2]
    whole = score(repo, shared_data, reach=1)
    pairs = score(repo, shared_data, reach=0)
    with capsys.disabled():
        for name, result in (("with neighbours", whole), ("pair alone", pairs)):
            print(f"\nown measure, {name}: precision {result.precision:.2f}, recall {result.recall:.2f} ({result})")
    assert whole.precision == 1
    assert whole.recall >= 0.75
    assert pairs.recall >= 0.85


@pytest.fixture
def picture() -> np.ndarray[Any, np.dtype[np.float32]]:
    from skimage import color, data, transform

    small = transform.resize(color.rgb2gray(data.chelsea()), (90, 160), anti_aliasing=True)
    return np.asarray(small, dtype=np.float32)


@pytest.mark.parametrize(("gain", "offset"), [(0.5, 0), (0.0, 0.9), (1.0, 0.3), (1.6, 0)], ids=str)
def test_change_of_brightness_leaves_no_residual(
    picture: np.ndarray[Any, np.dtype[np.float32]], gain: float, offset: float
) -> None:
    """A fade, a cut to white within a flash, a lift, a gain; in either direction."""
    changed = (gain * picture + offset).astype(np.float32)
    assert measure(picture, changed).residual < 1e-5
    assert measure(changed, picture).residual < 1e-5


def test_other_picture_leaves_residual(picture: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    difference = measure(picture, picture[::-1, ::-1].copy())
    assert difference.residual > 0.5 * difference.mean > 0.02


@pytest.mark.parametrize(
    "fmt",
    [vs.YUV420P8, vs.YUV444P16, vs.YUV420P10, vs.GRAY8, vs.GRAYH, vs.RGB24, vs.RGB48, vs.RGBH, vs.RGBS, vs.YUV444PS],
    ids=lambda fmt: vs.core.get_video_format(fmt).name,
)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_measure_does_not_depend_on_format_or_range(sample: Path, fmt: int, full: bool) -> None:
    """The same film in every format: the same cut, and no other."""
    clip = vs.core.bs.VideoSource(sample, cachemode=0)[30:42]
    matrix = {} if vs.core.get_video_format(fmt).color_family == vs.RGB else {"matrix_s": "709"}
    converted = clip.resize.Bilinear(format=fmt, range_s="full" if full else "limited", **matrix)
    assert found_cuts(converted, reach=1) == {6}


@pytest.mark.parametrize(
    ("fmt", "props"),
    [(vs.RGB24, {"_Matrix": 1}), (vs.YUV420P8, {"_ChromaLocation": 9}), (vs.YUV420P8, {"_Matrix": 3, "_Transfer": 99})],
    ids=["RGB with a YUV matrix", "chroma location", "matrix and transfer"],
)
def test_odd_colour_tags_do_not_break_the_measure(sample: Path, fmt: int, props: dict[str, int]) -> None:
    clip = vs.core.bs.VideoSource(sample, cachemode=0)[30:42].resize.Bilinear(format=fmt)
    assert found_cuts(clip.std.SetFrameProps(**props), reach=1) == {6}
