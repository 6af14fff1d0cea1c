"""`rife()`: the keywords of vs-rife 5.7."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import vapoursynth as vs

from vsrife.checkpoints.download import download_missing
from vsrife.errors import RifeError
from vsrife.filters.rife import build
from vsrife.timing.parsing import parse_pair

logger = logging.getLogger(__name__)


def rife(
    clip: vs.VideoNode,
    device_index: int = 0,
    model: str | Path | None = None,
    auto_download: bool = False,
    factor_num: int = 2,
    factor_den: int = 1,
    fps_num: int | None = None,
    fps_den: int | None = None,
    scale: float = 1.0,
    ensemble: bool = False,
    sc: bool = False,
    sc_threshold: float | None = 0.15,
    trt: bool = False,
    trt_static_shape: bool = True,  # noqa: ARG001 - this and what follows is accepted for older scripts
    trt_min_shape: Sequence[int] = (128, 128),  # noqa: ARG001
    trt_opt_shape: Sequence[int] = (1920, 1080),  # noqa: ARG001
    trt_max_shape: Sequence[int] = (1920, 1080),  # noqa: ARG001
    trt_workspace_size: int = 0,  # noqa: ARG001
    trt_max_aux_streams: int | None = None,  # noqa: ARG001
    trt_optimization_level: int | None = None,  # noqa: ARG001
    trt_cache_dir: str | Path | None = None,  # noqa: ARG001
) -> vs.VideoNode:
    """`RIFE` with the keywords of the published vs-rife 5.7, so that older scripts run as they are.

    Args:
        clip: as in `RIFE`; older scripts pass RGBH or RGBS.
        device_index: number of the CUDA device; without CUDA the best device present is used.
        model: a published version or a path. None, the default here: the bundled weights.
        auto_download: fetch the model's weights when they are not here.
        factor_num, factor_den: output frames per source frame.
        fps_num, fps_den: output rate instead of the factor, when both are given.
        scale, ensemble: as in `RIFE`.
        sc: do not interpolate across scene changes.
        sc_threshold: with `sc`, as in `RIFE`.
        trt and all that begins with it: accepted and without effect; there are no engines to build.

    Raises:
        vs.Error: as `RIFE`.
    """
    if trt:
        _say_once("rife: trt and its options have no effect, the network runs as fast without engine files")
    try:
        if auto_download and model is not None:
            download_missing(model)
        factor = parse_pair("factor", factor_num, factor_den)
        fps = None if fps_num is None or fps_den is None else parse_pair("fps", fps_num, fps_den)
    except RifeError as error:
        raise vs.Error(f"rife: {error}") from error
    (output,) = build(
        "rife", [clip], 2 if fps else factor, scale, sc_threshold if sc else 1.0, fps=fps, timestamps=None, times=None,
        times_in="seconds", model=model, ensemble=ensemble, tta=False, tta_temporal=False,
        device=f"cuda:{device_index}" if torch.cuda.is_available() else None, precision=None,
    )  # fmt: skip
    return output


@functools.cache
def _say_once(text: str) -> None:
    """Warn on stderr through logging, once per process. Standard output belongs to the video."""
    logger.warning(text)
