"""`rife()`: the keywords of vs-rife 5.7."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import vapoursynth as vs

from vsrife.checkpoints.download import download_missing
from vsrife.errors import RifeError
from vsrife.filters.rife import build, warn_once
from vsrife.timing.parsing import parse_pair


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
    trt_static_shape: bool = True,  # noqa: ARG001 - these are accepted for older scripts
    trt_min_shape: Sequence[int] = (128, 128),  # noqa: ARG001
    trt_opt_shape: Sequence[int] = (1920, 1080),  # noqa: ARG001
    trt_max_shape: Sequence[int] = (1920, 1080),  # noqa: ARG001
    trt_workspace_size: int = 0,  # noqa: ARG001
    trt_max_aux_streams: int | None = None,  # noqa: ARG001
    trt_optimization_level: int | None = None,  # noqa: ARG001
    trt_cache_dir: str | Path | None = None,  # noqa: ARG001
) -> vs.VideoNode:
    """`RIFE` with the keywords of the published vs-rife 5.7, so that older scripts run unchanged.

    Args:
        clip: as in `RIFE`; older scripts pass RGBH or RGBS.
        device_index: number of the CUDA device; without CUDA the best device present is used. Default 0.
        model: a published version or a path. None, the default here: the bundled weights.
        auto_download: download the model's weights if they are not installed. Default False.
        factor_num, factor_den: output frames per source frame. Default 2 and 1.
        fps_num, fps_den: output rate instead of the factor, if both are given.
        scale, ensemble: as in `RIFE`. Default 1 and False.
        sc: do not interpolate across scene changes. Default False.
        sc_threshold: with `sc`, as in `RIFE`. Default 0.15.
        trt and all that begins with it: accepted without effect; there are no engines to build.

    Raises:
        vs.Error: as `RIFE`.
    """
    if trt:
        warn_once("rife: trt and its options have no effect: there are no engines to build")
    try:
        if auto_download and model is not None:
            download_missing(model)
        factor = parse_pair("factor", factor_num, factor_den)
        fps = None if fps_num is None or fps_den is None else parse_pair("fps", fps_num, fps_den)
    except RifeError as error:
        raise vs.Error(f"rife: {error}") from error
    (output,) = build(
        "rife", [clip], None if fps else factor, sc_threshold if sc else 1.0, fps=fps, scale=scale, model=model,
        ensemble=ensemble, device=f"cuda:{device_index}" if torch.cuda.is_available() else None,
    )  # fmt: skip
    return output
