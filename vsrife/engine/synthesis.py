"""Output planes from two source frames and the motion between them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vsrife.engine.cache import Cache
from vsrife.engine.color import chroma_in_luma, resized, rgb_transform, to_samples
from vsrife.engine.formats import PictureFormat
from vsrife.engine.overlays import mark_overlays
from vsrife.engine.sources import SourceFrame
from vsrife.engine.transfer import Planes
from vsrife.networks.ifnet import warp_by_flow
from vsrife.ops.protocol import Ops

CERTAIN_LOGIT = 100.0  # of a mask that takes one frame alone: its weight is 1 or 0 within rounding
REPROJECTION_STEPS = 8  # enough where neighbouring pixels move alike


class Motion(NamedTuple):
    """Flow and blend mask at the pixels of an output frame.

    Attributes:
        flow: (1, 4, H, W) in pixels, from an output pixel to its position in frame 0, x then y, then in frame 1.
        mask: (1, 1, H, W) logits of the weight of frame 0.
    """

    flow: Tensor
    mask: Tensor


class Device(Protocol):
    """What synthesis needs of a network: where and how precisely it computes."""

    @property
    def ops(self) -> Ops: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def exact(self) -> torch.dtype:
        """The dtype of coordinates, flow and blend."""
        ...


class Synthesis:
    """Warps and blends planes.

    Args:
        net: the network that the motion comes from.
        cache: of the engine, for the static radius of pairs.
    """

    def __init__(self, net: Device, cache: Cache) -> None:
        self.net, self.cache = net, cache

    def native(self, frame0: SourceFrame, frame1: SourceFrame, motion: Motion) -> Planes:
        """Warp and blend each plane at its own size and bit depth."""
        planes = zip(
            frame0.planes, frame1.planes, self.plane_motions(frame0, motion), self.static_radius(frame0, frame1),
            strict=True,
        )  # fmt: skip
        blend = self.net.ops.blend_plane
        return tuple(blend(a, b, *own, radius, frame0.fmt.peak) for a, b, own, radius in planes)

    def carried(self, frame0: SourceFrame, frame1: SourceFrame, motion: Motion) -> list[Planes]:
        """The planes of each carried frame."""
        return [
            self.native(a, b, self._resized(frame0.fmt, a.fmt, motion))
            for a, b in zip(frame0.carried, frame1.carried, strict=True)
        ]

    def published(self, image0: Tensor, image1: Tensor, motion: Motion, fmt: PictureFormat) -> Planes:
        """Planes of float RGB as the published forward makes them: of clamped frames, with zeros beyond the border.

        Args:
            image0: (1, 3, H, W) RGB of 0..1 at the padded size.
            image1: the same of frame 1.
            motion: at the pixels of the output frame.
            fmt: of the output frame.
        """
        image = self.net.ops.blend(image0, image1, motion.flow, torch.sigmoid(motion.mask))
        return tuple(to_samples(plane, fmt) for plane in torch.split(image, 1, dim=1))

    def static_radius(self, frame0: SourceFrame, frame1: SourceFrame) -> Planes:
        """Distance around each sample within which both frames are equal, per plane; the same for every time.

        On a CPU it is larger than any flow for overlays that stand still. On other devices they are not looked for: the
        many small kernels would move more than the network, and nobody has measured them there.
        """

        def measure() -> Planes:
            radii = tuple(map(self.net.ops.static_radius, frame0.planes, frame1.planes))
            if radii[0].device.type != "cpu":
                return radii
            return mark_overlays(frame0.planes, frame1.planes, radii, frame0.fmt, self.net.ops)

        return self.cache.get("static radius", (frame0.key, frame1.key), measure)

    def plane_motions(self, frame: SourceFrame, motion: Motion) -> Sequence[Motion]:
        """The motion at the samples of each plane, given that at the first plane's."""
        fmt = frame.fmt
        if not fmt.subsampled(1):
            return (motion,) * fmt.num_planes
        grid = chroma_in_luma(fmt, frame.color, self.net.device)
        flow, mask = (grid.read(maps, self.net.ops) for maps in motion)
        factors = _factors(1 << fmt.subsampling_w, 1 << fmt.subsampling_h, flow.device, flow.dtype)
        chroma = Motion(flow / factors, mask)
        return motion, chroma, chroma

    def _resized(self, fmt: PictureFormat, target: PictureFormat, motion: Motion) -> Motion:
        """The motion at the pixels of a frame of another size that shows the same."""
        if (target.width, target.height) == (fmt.width, fmt.height):
            return motion
        grid = resized(fmt, target, self.net.device)
        flow, mask = (grid.read(maps, self.net.ops) for maps in motion)
        factors = _factors(target.width / fmt.width, target.height / fmt.height, flow.device, flow.dtype)
        return Motion(flow * factors, mask)


@functools.lru_cache(maxsize=32)
def _factors(x: float, y: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, 1, 1), for the components of a flow. Cached, because making it waits for the device."""
    return torch.tensor((x, y) * 2, device=device, dtype=dtype)[:, None, None]


def zero_motion(fmt: PictureFormat, timestep: float | Tensor, net: Device) -> Motion:
    """Zero motion between identical frames; carried frames that differ are cross-faded.

    Args:
        fmt: of the frames.
        timestep: 0..1; or a time for every pixel, (1, 1, H, W) on the network's device.
        net: that computes.
    """
    flow = torch.zeros(1, 4, fmt.height, fmt.width, dtype=net.exact, device=net.device)
    return Motion(flow, torch.logit(flow[:, :1] + (1 - timestep)).clamp_(-CERTAIN_LOGIT, CERTAIN_LOGIT))


def exact_at_sources(motion: Motion, timestep: Tensor) -> Motion:
    """The motion with each pixel whose time is 0 or 1 taken from frame 0 or frame 1, unmoved.

    Args:
        motion: flow and mask.
        timestep: (1, 1, H, W), a time for each of their pixels.
    """
    source = (timestep == 0) | (timestep == 1)
    mask = torch.where(source, CERTAIN_LOGIT * (1 - 2 * timestep), motion.mask)
    return Motion(motion.flow.masked_fill(source, 0), mask)


def reproject_flow(flow: Tensor, weight0: Tensor, *, to_frame1: bool) -> tuple[Tensor, Tensor]:
    """Flow and weight of frame 0 at the pixels of a source frame, given those at a time in between.

    Args:
        flow: (1, 4, H, W), as in `Motion`.
        weight0: (1, 1, H, W), 0..1.
        to_frame1: whether to the pixels of frame 1; otherwise of frame 0.
    """
    own, other = (flow[:, 2:], flow[:, :2]) if to_frame1 else (flow[:, :2], flow[:, 2:])
    offset = -own  # from a pixel of the source frame to its position at the time in between
    for _ in range(REPROJECTION_STEPS):
        offset = -warp_by_flow(own, offset)
    other = warp_by_flow(other, offset) + offset
    zero = torch.zeros_like(other)
    return torch.cat((other, zero) if to_frame1 else (zero, other), dim=1), warp_by_flow(weight0, offset)


def cropped(image: Tensor, fmt: PictureFormat) -> Tensor:
    """(..., H, W) without the padding."""
    return image[..., : fmt.height, : fmt.width]


def padded_times(timestep: Tensor, fmt: PictureFormat, padded: Tensor) -> Tensor:
    """A time for every pixel, (1, 1, H, W), whose border is repeated into the padding of a padded image."""
    height, width = padded.shape[-2:]
    return F.pad(timestep, (0, width - fmt.width, 0, height - fmt.height), mode="replicate")


def padded_rgb(frame: SourceFrame, width: int, height: int, net: Device) -> Tensor:
    """(1, 3, height, width) RGB, nominally 0..1, not clamped, with zeros to the right and below; in `net.exact`."""
    if frame.image is not None:
        return frame.image
    image = torch.empty((1, 3, height, width), device=net.device, dtype=net.exact)
    transform = rgb_transform(frame.fmt, frame.color, net.device, net.exact)
    return net.ops.planes_to_rgb(frame.planes, transform, False, image)
