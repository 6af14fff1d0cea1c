"""Clips of which every frame is computed from frames that are at hand: what `merge` and `Flow` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import numpy as np
import torch
import vapoursynth as vs
from torch import Tensor

from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.keywords import NetworkKeywords
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.engine.sources import InputFrame
from vsrife.errors import RifeError
from vsrife.filters.producer import close_on_destroy
from vsrife.filters.worker import Interrupt, Pipeline

Frames = Sequence[vs.VideoFrame]
Compute = Callable[[int, Frames, Interrupt], Sequence[Tensor]]


def engine_for(fmt: PictureFormat, **options: Unpack[NetworkKeywords]) -> Engine:
    """An engine for pictures of this format.

    Raises:
        RifeError: an option is out of range, or the model is not here.
    """
    chosen = NetworkOptions.of(**options)
    return Engine(network(chosen), fmt, capacity=2, averaging=chosen.averaging)


def picture_of(key: int, frame: vs.VideoFrame, fmt: PictureFormat) -> InputFrame:
    """A frame for the engine, which only reads it."""
    planes = [np.asarray(frame[p]) for p in range(fmt.num_planes)]
    return InputFrame(key, planes, Colorimetry.from_props(frame.props, fmt))


def computed(name: str, clips: Sequence[vs.VideoNode], compute: Compute) -> vs.VideoNode:
    """The first clip with planes that `compute` makes of a frame of every clip.

    Args:
        name: of the public call, for errors.
        clips: of one length.
        compute: given the frame's number, the frames of all clips, and what to call between steps; gives the planes,
            or none to leave the first clip's frame as it is. Runs on one thread of its own, one frame at a time.
    """

    def work(request: tuple[int, Frames], interrupt: Interrupt) -> Sequence[Tensor]:
        return compute(*request, interrupt)

    pipeline: Pipeline[tuple[int, Frames], Sequence[Tensor]] = Pipeline(work)
    close_on_destroy(pipeline)

    def fill(n: int, f: list[vs.VideoFrame] | vs.VideoFrame) -> vs.VideoFrame:
        frames = f if isinstance(f, list) else [f]
        try:
            planes = pipeline.take(n, (n, frames))
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise vs.Error(f"{name}: frame {n} failed: {reason}") from (None if isinstance(error, RifeError) else error)
        if not planes:
            return frames[0]
        result = frames[0].copy()
        for p, plane in enumerate(planes):
            torch.from_numpy(np.asarray(result[p])).copy_(plane)
        return result

    return clips[0].std.ModifyFrame(list(clips), fill)
