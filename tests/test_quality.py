"""The bundled weights on real footage with known truth: wrong wiring shows here, and only here."""

from __future__ import annotations

from pathlib import Path

from benchmarks.quality import evaluate, mean, middle_frame

CARD_MARGIN_DB = 0.4  # over blending on these 95 triplets, as models/bootstrap-4.25.md states


def test_bundled_weights_beat_blending_and_repeating(shared_data: Path) -> None:
    """All 95 triplets of UCF101 that are kept, through the filter itself."""
    rows = list(evaluate(shared_data / "eval" / "ucf101", middle_frame))
    assert len(rows) == 95
    scores = mean(rows).scores
    assert scores["vsrife"].psnr_db >= scores["blend"].psnr_db + CARD_MARGIN_DB
    assert scores["vsrife"].psnr_db >= scores["repeat"].psnr_db + CARD_MARGIN_DB
    assert scores["vsrife"].ssim > max(scores["blend"].ssim, scores["repeat"].ssim)
