"""Metrics against independent formulas."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage.color import rgb2yuv

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
