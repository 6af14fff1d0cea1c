"""Nodes whose every frame is computed from the frames of several clips; for `merge` and `Flow`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

import vapoursynth as vs
from torch import Tensor

from vsrife.engine.engine import Engine
from vsrife.engine.formats import PictureFormat
from vsrife.engine.keywords import NetworkKeywords
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.errors import RifeError
from vsrife.filters.frames import write_planes
from vsrife.filters.producer import close_on_destroy
from vsrife.filters.worker import Pipeline
from vsrife.networks.cancellation import Cancellation

Frames = Sequence[vs.VideoFrame]
Compute = Callable[[int, Frames, Cancellation], Sequence[Tensor]]


def engine_for(fmt: PictureFormat, **options: Unpack[NetworkKeywords]) -> Engine:
    """An engine for pictures of this format.

    Raises:
        RifeError: an option is out of range, or the model is missing.
    """
    chosen = NetworkOptions.of(**options)
    return Engine(network(chosen), fmt, capacity=2, averaging=chosen.averaging)


def computed(name: str, clips: Sequence[vs.VideoNode], compute: Compute) -> vs.VideoNode:
    """The first clip with the planes that `compute` returns.

    Args:
        name: of the public call, for errors.
        clips: of one length.
        compute: takes the frame number, that frame of every clip, and a cancellation check to call between steps.
            Returns the planes, or none to keep the first clip's. Runs on a worker thread, one frame at a time.
    """

    def work(request: tuple[int, Frames], cancellation: Cancellation) -> Sequence[Tensor]:
        return compute(*request, cancellation)

    pipeline: Pipeline[tuple[int, Frames], Sequence[Tensor]] = Pipeline(work)
    close_on_destroy(pipeline)

    def collect(n: int, f: list[vs.VideoFrame] | vs.VideoFrame) -> vs.VideoFrame:
        frames = f if isinstance(f, list) else [f]
        try:
            planes = pipeline.take(n, (n, frames))
        except Exception as error:
            reason = str(error) or type(error).__name__
            raise vs.Error(f"{name}: frame {n} failed: {reason}") from (None if isinstance(error, RifeError) else error)
        if not planes:
            return frames[0]
        result = frames[0].copy()
        write_planes([result], planes)
        return result

    return clips[0].std.ModifyFrame(list(clips), collect)
