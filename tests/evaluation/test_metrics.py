"""Measures against independent formulas, baselines against the figures that come with the evaluation data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2yuv

from vsrife.evaluation.baselines import BASELINES
from vsrife.evaluation.metrics import EQUAL_DB, Image8, interpolation_error, luma_psnr_db, psnr_db, ssim, ssimulacra2


def picture(height: int, width: int, seed: int) -> Image8:
    """Blurred noise with full contrast."""
    noise = np.random.default_rng(seed).random((height, width, 3))
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return np.round(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)


def noisy(image: Image8, seed: int, deviation: float) -> Image8:
    noise = np.random.default_rng(seed).normal(0, deviation, image.shape)
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


def volume_ssim(a: Image8, b: Image8) -> float:
    """SSIM by its definition: one dense 11x11x11 window over the picture as a volume."""
    x = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-(x**2) / 4.5)
    window = torch.einsum("i,j,k->ijk", line, line, line)
    window = (window / window.sum())[None, None]

    def mean(volume: torch.Tensor) -> torch.Tensor:
        return F.conv3d(F.pad(volume[None, None], (5,) * 6, mode="replicate"), window)[0, 0]

    p, q = (torch.from_numpy(image).permute(2, 0, 1).double() / 255 for image in (a, b))
    mp, mq = mean(p), mean(q)
    vp, vq, cov = mean(p * p) - mp * mp, mean(q * q) - mq * mq, mean(p * q) - mp * mq
    c1, c2 = 1e-4, 9e-4
    return float((((2 * mp * mq + c1) * (2 * cov + c2)) / ((mp * mp + mq * mq + c1) * (vp + vq + c2))).mean())


@pytest.mark.parametrize(("height", "width"), [(24, 37), (11, 8), (6, 6)])
def test_ssim_is_the_gaussian_volume_of_its_definition(height: int, width: int) -> None:
    truth = picture(height, width, seed=1)
    for seed, deviation in ((2, 4.0), (3, 40.0)):
        shown = noisy(truth, seed, deviation)
        assert ssim(shown, truth) == pytest.approx(volume_ssim(shown, truth), abs=1e-9)
    assert ssim(truth, truth) == pytest.approx(1, abs=1e-12)


def test_errors_of_known_size() -> None:
    truth = np.full((4, 6, 3), 100, np.uint8)
    off_by_two = truth + np.uint8(2)
    assert psnr_db(off_by_two, truth) == pytest.approx(20 * np.log10(255 / 2))
    assert interpolation_error(truth - np.uint8(3), truth) == 3
    one_channel = truth.copy()
    one_channel[..., 1] = 110
    assert psnr_db(one_channel, truth) == pytest.approx(10 * np.log10(255**2 / (100 / 3)))
    assert luma_psnr_db(one_channel, truth) == pytest.approx(20 * np.log10(255 / 5.87))
    assert psnr_db(truth, truth) == luma_psnr_db(truth, truth) == EQUAL_DB


def test_luma_is_that_of_the_benchmark_scripts() -> None:
    """They take it from scikit-image, unrounded."""
    truth, shown = picture(20, 30, seed=4), picture(20, 30, seed=5)
    difference = (rgb2yuv(truth / 255.0) - rgb2yuv(shown / 255.0))[..., 0] * 255
    assert luma_psnr_db(shown, truth) == pytest.approx(20 * np.log10(255 / np.sqrt((difference**2).mean())), abs=1e-9)


def test_the_perceptual_score_punishes_blur_that_psnr_flatters() -> None:
    """A picture slightly brighter looks right, a blurred one does not; PSNR sees it the other way."""
    truth = picture(128, 192, seed=6) // 2 + 40
    blurred = cv2.GaussianBlur(truth, (0, 0), 1.5).astype(np.uint8)
    brighter = truth + np.uint8(9)
    assert psnr_db(blurred, truth) > psnr_db(brighter, truth)
    assert ssimulacra2(truth, truth) > 99.9 > ssimulacra2(brighter, truth) > ssimulacra2(blurred, truth) + 10


# --- baselines --------------------------------------------------------------------------------------------------------


def read(path: Path) -> Image8:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture[..., ::-1].astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "figures"),
    [  # PSNR and SSIM of repeat, blend and DIS, as the data's README states them
        ("middlebury_other", {"repeat": (22.712, 0.8262), "blend": (25.465, 0.8612), "dis": (31.988, 0.9625)}),
        ("davis", {"repeat": (18.375, 0.6297), "blend": (20.225, 0.6656), "dis": (24.196, 0.8384)}),
    ],
)
def test_baselines_reproduce_the_figures_of_the_data(
    shared_data: Path, name: str, figures: dict[str, tuple[float, float]]
) -> None:
    scores: dict[str, list[tuple[float, float]]] = {method: [] for method in figures}
    for folder in sorted((shared_data / "eval" / name).iterdir()):
        first, truth, last = (read(folder / f"{stem}.webp") for stem in ("frame_00", "frame_01_gt", "frame_02"))
        for method, scored in scores.items():
            (shown,) = BASELINES[method](first, last, [0.5])
            scored.append((psnr_db(shown, truth), ssim(shown, truth)))
    for method, (decibels, similarity) in figures.items():
        mean = np.mean(scores[method], axis=0)
        assert mean[0] == pytest.approx(decibels, abs=0.01), method
        assert mean[1] == pytest.approx(similarity, abs=1e-4), method


def moved(width: int, height: int, shift: float) -> Image8:
    """A texture moved to the right by `shift` pixels."""
    x, y = np.meshgrid(np.arange(width) - shift, np.arange(height))
    waves = [np.sin(x / 5 + y / 7), np.sin(x / 3 - y / 9), np.cos(x / 8) * np.sin(y / 4)]
    return np.round(127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("t", [0.25, 0.5, 0.75])
def test_dis_arrives_where_the_motion_is_at_the_time(t: float) -> None:
    first, last = moved(96, 64, 0), moved(96, 64, 4)
    (shown,) = BASELINES["dis"](first, last, [t])
    inside = (slice(8, -8), slice(8, -8))
    errors = {at: psnr_db(shown[inside], moved(96, 64, 4 * at)[inside]) for at in (0.25, 0.5, 0.75)}
    assert max(errors, key=errors.__getitem__) == t
    assert errors[t] > 35


def at(name: str) -> Callable[[float], float]:
    """The value that a baseline gives between 10 and 21 at a time."""

    def value(t: float) -> float:
        a, b = np.full((16, 16, 3), 10, np.uint8), np.full((16, 16, 3), 21, np.uint8)
        return float(next(BASELINES[name](a, b, [t])).mean())

    return value


def test_repeat_and_blend_by_time() -> None:
    assert [at("repeat")(t) for t in (0.25, 0.75)] == [10, 10]
    assert [at("blend")(t) for t in (0.25, 0.5, 0.75)] == [13, 16, 18]  # 12.75, 15.5 (to even), 18.25
