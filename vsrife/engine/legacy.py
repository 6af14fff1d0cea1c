"""Motion and frames by models before 4.x.

Most of them know the middle between two frames alone, and all but the oldest correct their blend by a refinement, which
belongs to the network's RGB. So frames are made here, where for models from 4.0 on the motion is enough.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from vsrife.checkpoints.recognition import title_of
from vsrife.engine.cache import Cache
from vsrife.engine.color import difference_in_planes, to_samples
from vsrife.engine.formats import PictureFormat
from vsrife.engine.sources import SourceFrame
from vsrife.engine.synthesis import CERTAIN_LOGIT, Motion, Synthesis, cropped, padded_rgb, padded_times
from vsrife.engine.transfer import Planes
from vsrife.errors import OptionError
from vsrife.networks import legacy, tta
from vsrife.networks.cancellation import Cancellation
from vsrife.networks.legacy import Features, LegacyNet
from vsrife.networks.tta import UPRIGHT, Averaging
from vsrife.ops.reference import is_static

logger = logging.getLogger(__name__)

GRID = 64  # other times are rounded to a multiple of 1/64
LARGEST_DENOMINATOR = 1024  # of times that recursive midpoints reach exactly
MIDPOINTS_KEPT = 12  # more than one time needs


class LegacyForward:
    """The forward of models before 4.x.

    Args:
        net: the network.
        averaging: test-time augmentation; None: a single pass.
        cache: of the engine, for features of frames and for midpoints.
    """

    def __init__(self, net: LegacyNet, averaging: Averaging | None, cache: Cache) -> None:
        self.net, self.averaging, self.cache = net, averaging, cache
        self.orientations = tuple(averaging.orientations) if averaging else (UPRIGHT,)
        self.synthesis = Synthesis(net, cache)

    def motion(
        self,
        frame0: SourceFrame,
        frame1: SourceFrame,
        timestep: float | Tensor,
        cancellation: Cancellation,
        tiles: int = 1,  # noqa: ARG002
    ) -> Motion:
        """As `Forward.motion`; in one piece.

        Raises:
            OptionError: a time other than 0.5, of a model that knows no other.
        """
        if not self.net.layout.takes_time and (isinstance(timestep, Tensor) or timestep != 0.5):
            got = "a time for every pixel" if isinstance(timestep, Tensor) else f"{timestep:g}"
            raise OptionError(
                f"timestep must be 0.5 for the motion of {title_of(self.net.layout)}, got {got}; models from 4.0 on "
                "know it at any time"
            )
        return _motion(self._estimate(frame0, frame1, timestep, cancellation), frame0.fmt)

    def frame_at(
        self,
        frame0: SourceFrame,
        frame1: SourceFrame,
        timestep: float | Tensor,
        cancellation: Cancellation,
        tiles: int = 1,  # noqa: ARG002
    ) -> Planes:
        """As `Forward.frame_at`; models that know the middle alone give the nearest time that midpoints reach.

        Raises:
            OptionError: a time for every pixel, of a model that knows the middle alone.
        """
        if self.net.layout.takes_time:
            return samples_of(self._between(frame0, frame1, timestep, cancellation))
        if isinstance(timestep, Tensor):
            raise OptionError(
                f"timestep must be one number for {title_of(self.net.layout)}, got one for every pixel; models from "
                "4.0 on take that"
            )
        time = reachable(timestep)
        if time != timestep:
            warn_inexact(title_of(self.net.layout))

        def midpoint(before: SourceFrame, after: SourceFrame, key: Hashable, read_again: bool) -> SourceFrame:
            cancellation()
            return self._between(before, after, 0.5, cancellation, key=key, read_again=read_again)

        return samples_of(frame_at(self.cache, frame0, frame1, (frame0.key, frame1.key), time, midpoint))

    def most_tiles(self, fmt: PictureFormat) -> int:  # noqa: ARG002
        """1: these models are never tiled."""
        return 1

    def release(self) -> None:
        """Nothing beyond the cache is kept."""

    def _between(
        self,
        frame0: SourceFrame,
        frame1: SourceFrame,
        timestep: float | Tensor,
        cancellation: Cancellation,
        *,
        key: Hashable = None,
        read_again: bool = False,
    ) -> SourceFrame:
        """The frame between two in float planes: not rounded, so that further midpoints lose nothing.

        The published frame is the blend plus the refinement, in RGB. Native planes are warped themselves, and the
        refinement is converted to their colour space.

        Args:
            frame0, frame1, timestep, cancellation: as for `motion`.
            key: of the result.
            read_again: whether the network will read the result, which then has the published frame with its padding.
        """
        estimate = self._estimate(frame0, frame1, timestep, cancellation)
        motion, fmt = _motion(estimate, frame0.fmt), frame0.fmt
        published = fmt.family == "RGB" and fmt.floating
        image = None
        if read_again or published:
            image = estimate.image
            if image is None:
                image0, image1 = (self._features(frame)[0].image for frame in (frame0, frame1))
                image = legacy.blended(image0, image1, estimate)
        frame0, frame1 = (self._exact(frame) for frame in (frame0, frame1))
        if published and image is not None:
            planes: Planes = torch.split(cropped(image, fmt), 1, dim=1)
        else:
            planes = self.synthesis.native(frame0, frame1, motion)
            if estimate.residual is not None:
                planes = self._corrected(planes, frame0, frame1, motion, cropped(estimate.residual, fmt))
        extras = zip(frame0.carried, self.synthesis.carried(frame0, frame1, motion), strict=True)
        carried = tuple(replace(extra, key=(key, extra.key), planes=own) for extra, own in extras)
        return SourceFrame(key, fmt, frame0.color, planes, carried, image if read_again else None)

    def _corrected(
        self, planes: Planes, frame0: SourceFrame, frame1: SourceFrame, motion: Motion, residual: Tensor
    ) -> Planes:
        """The planes plus the refinement, except where nothing can have moved."""
        more = difference_in_planes(residual, frame0.fmt, frame0.color, self.net.ops)
        radii, motions = self.synthesis.static_radius(frame0, frame1), self.synthesis.plane_motions(frame0, motion)
        return tuple(
            plane + extra.masked_fill(is_static(radius, flow), 0)
            for plane, extra, radius, (flow, _) in zip(planes, more, radii, motions, strict=True)
        )

    def _estimate(
        self, frame0: SourceFrame, frame1: SourceFrame, timestep: float | Tensor, cancellation: Cancellation
    ) -> legacy.Estimate:
        features0, features1 = self._features(frame0), self._features(frame1)
        times = padded_times(timestep, frame0.fmt, features0[0].image) if isinstance(timestep, Tensor) else timestep
        if self.averaging is None:
            estimate = self.net.estimate(features0[0], features1[0], times, cancellation)
        else:
            estimate = tta.estimate_legacy(self.net, features0, features1, times, self.averaging, cancellation)
        if not isinstance(times, Tensor):
            return estimate
        source = (times == 0) | (times == 1)
        residual = None if estimate.residual is None else estimate.residual.masked_fill(source, 0)
        mask = torch.where(source, CERTAIN_LOGIT * (1 - 2 * times), estimate.mask)
        return legacy.Estimate(estimate.flow.masked_fill(source, 0), mask, residual)

    def _features(self, frame: SourceFrame) -> Sequence[Features]:
        """What the network reads of a frame, in each orientation."""
        return self.cache.get("features", frame.key, lambda: self._encode(frame), MIDPOINTS_KEPT + 2)

    def _encode(self, frame: SourceFrame) -> Sequence[Features]:
        width, height = self.net.layout.padded(frame.fmt.width, frame.fmt.height, self.net.scale)
        image = padded_rgb(frame, width, height, self.net)
        return tuple(self.net.encode(each.turn(image).contiguous()) for each in self.orientations)

    def _exact(self, frame: SourceFrame) -> SourceFrame:
        """The frame with planes of the dtype of flow and blend."""
        planes = tuple(plane.to(self.net.exact) for plane in frame.planes)
        return replace(frame, planes=planes, carried=tuple(map(self._exact, frame.carried)))


def _motion(estimate: legacy.Estimate, fmt: PictureFormat) -> Motion:
    return Motion(cropped(estimate.flow, fmt), cropped(estimate.mask, fmt))


def samples_of(frame: SourceFrame) -> Planes:
    """The planes of a frame and of its carried frames, each in the samples of its format."""
    return tuple(
        plane if plane.dtype == one.fmt.dtype else to_samples(plane, one.fmt)
        for one in (frame, *frame.carried)
        for plane in one.planes
    )


def reachable(timestep: float) -> Fraction:
    """The time that recursive midpoints reach in place of `timestep`.

    Args:
        timestep: between 0 and 1.

    Returns:
        `timestep` itself where its denominator is a power of two up to `LARGEST_DENOMINATOR`, otherwise the nearest
        64th, which may be 0 or 1.
    """
    exact = Fraction(timestep)  # a float's denominator is always a power of two
    return exact if exact.denominator <= LARGEST_DENOMINATOR else Fraction(round(timestep * GRID), GRID)


@functools.cache
def warn_inexact(model: str) -> None:
    """Warn once per process and model that times are rounded."""
    logger.warning(
        "%s knows the middle between two frames alone: other times are reached by recursive midpoints, exactly for "
        "powers of two and otherwise to the nearest 1/%d of a frame; models from 4.0 on take any time",
        model, GRID,
    )  # fmt: skip


def frame_at[Frame](
    cache: Cache,
    frame0: Frame,
    frame1: Frame,
    pair: Hashable,
    time: Fraction,
    midpoint: Callable[[Frame, Frame, Hashable, bool], Frame],
) -> Frame:
    """The frame at a time that recursive midpoints reach.

    Args:
        cache: keeps the midpoints on the way; what is computed does not depend on it.
        frame0: at time 0.
        frame1: at time 1.
        pair: the key of both frames.
        time: of `reachable`, 0 and 1 included.
        midpoint: makes the frame halfway between two, given its key and whether midpoints will be made from it.
    """
    if time in (0, 1):
        return frame1 if time else frame0
    low, high = Fraction(0), Fraction(1)
    while True:
        half = (low + high) / 2
        key, last = (pair, half), half == time
        make = functools.partial(midpoint, frame0, frame1, key, not last)
        if last and key not in cache.keys("midpoint"):
            return make()
        frame = cache.get("midpoint", key, make, MIDPOINTS_KEPT)
        if last:
            return frame
        if half < time:
            low, frame0 = half, frame
        else:
            high, frame1 = half, frame
