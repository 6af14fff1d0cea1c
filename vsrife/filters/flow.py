"""`Flow`: the motion of a clip as clips."""

from __future__ import annotations

from typing import NamedTuple, Unpack

import torch
import vapoursynth as vs
from torch import Tensor

from vsrife.engine.keywords import NetworkKeywords
from vsrife.engine.synthesis import reproject_flow
from vsrife.errors import RifeError
from vsrife.filters.computed import Frames, computed, engine_for
from vsrife.filters.frames import ABSOLUTE_TIME, DURATION, NEXT, PREV, picture_format, picture_of, shifted
from vsrife.networks.cancellation import Cancellation

_KEPT_PROPS = [*DURATION, ABSOLUTE_TIME, PREV, NEXT]


class FlowClips(NamedTuple):
    """The motion between neighbouring frames.

    VapourSynth has no format of two planes. RGBS holds three of one size that no filter takes for luma and chroma:
    R is x, to the right, and G is y, down, in pixels; B is how much of the picture halfway comes from the frame itself,
    0..1: about 0.5 where both frames show the pixel, near 1 where the other frame hides it.

    Attributes:
        forward: frame n: from each pixel of source frame n to its place in n + 1.
        backward: frame n: from each pixel of source frame n + 1 to its place in n.
    """

    forward: vs.VideoNode
    backward: vs.VideoNode


def Flow(clip: vs.VideoNode, **options: Unpack[NetworkKeywords]) -> FlowClips:
    """Estimate the flow between each frame and the next.

    Args:
        clip: any format that `vsrife.RIFE` takes.
        options: `scale`, `model`, `ensemble`, `tta`, `tta_temporal`, `device`, `precision`, with the defaults of
            `vsrife.RIFE`.

    Returns:
        Two RGBS clips of the size, length and rate of the clip, made in one estimation. The last frame has no next one
        and its flow is zero. Scene changes are not detected: flow across a cut is meaningless.

    Raises:
        vs.Error: an argument is wrong, with what came and what to do.
    """
    try:
        fmt = picture_format(clip)
        engine = engine_for(fmt, **options)
    except RifeError as error:
        raise vs.Error(f"Flow: {error}") from error

    def compute(n: int, frames: Frames, _cancellation: Cancellation) -> tuple[Tensor, ...]:
        left, right = (picture_of(n + i, frame, fmt) for i, frame in enumerate(frames[1:]))
        flow, weight0 = (part[None] for part in engine.motion(left, right, 0.5))
        forward, own = reproject_flow(flow, weight0[None], to_frame1=False)
        backward, foreign = reproject_flow(flow, weight0[None], to_frame1=True)
        pairs = zip((*forward[0, 2:], own[0, 0]), (*backward[0, :2], 1 - foreign[0, 0]), strict=True)
        return tuple(torch.cat(pair).float().cpu() for pair in pairs)

    # A frame with the forward motion above the backward one: each pair is estimated once.
    tall = clip.std.BlankClip(format=vs.RGBS, height=2 * clip.height, keep=True)
    both = computed("Flow", (tall, clip, shifted(clip, 1)), compute).std.CopyFrameProps(clip, props=_KEPT_PROPS)
    return FlowClips(both.std.Crop(bottom=clip.height), both.std.Crop(top=clip.height))
