"""Frames between two by models before 4.x.

Most of them know the middle alone, and all but the oldest correct their blend by a refinement, which belongs to the
network's picture: so frames are made here, where models from 4.0 on only tell the motion.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from vsrife.checkpoints.recognition import title_of
from vsrife.engine.color import difference_in_planes, to_samples
from vsrife.engine.midpoint import Bisection, reachable, tell_inexact
from vsrife.engine.sources import (
    CERTAIN_LOGIT,
    Prepared,
    View,
    cropped,
    native,
    padded_times,
    plane_views,
    resized_view,
)
from vsrife.engine.transfer import Planes
from vsrife.errors import OptionError
from vsrife.networks import legacy, tta
from vsrife.networks.legacy import LegacyNet
from vsrife.networks.tta import Averaging
from vsrife.ops.reference import is_static


class LegacyFrames:
    """Not thread-safe: belongs to one engine's thread.

    Args:
        net: the network.
        averaging: test-time augmentation; None: the network as it is.

    Attributes:
        halves: frames on the way to others.
    """

    def __init__(self, net: LegacyNet, averaging: Averaging | None) -> None:
        self.net, self.averaging = net, averaging
        self.halves: Bisection[Prepared] = Bisection()

    def view(self, a: Prepared, b: Prepared, timestep: float | Tensor, interrupt: Callable[[], None]) -> View:
        """Flow and mask at the pixels of the picture; a time for every pixel is (1, 1, H, W).

        Raises:
            OptionError: a time other than the middle, of a model that knows no other.
        """
        if not self.net.layout.takes_time and (isinstance(timestep, Tensor) or timestep != 0.5):
            got = "a time for every pixel" if isinstance(timestep, Tensor) else f"{timestep:g}"
            raise OptionError(
                f"timestep must be 0.5 for the motion of {title_of(self.net.layout)}, got {got}; models from 4.0 on "
                "know it at any time"
            )
        found = self._estimate(a, b, timestep, interrupt)
        return cropped(found.flow, a.fmt), cropped(found.mask, a.fmt)

    def reached(
        self,
        pair: Hashable,
        a: Prepared,
        b: Prepared,
        timestep: float | Tensor,
        interrupt: Callable[[], None],
    ) -> Prepared:
        """The frame at `timestep` or, for models that know the middle alone, at the nearest time that is reached."""

        def middle(left: Prepared, right: Prepared, seen: bool) -> Prepared:
            interrupt()
            return self._between(left, right, 0.5, interrupt, seen=seen)

        if self.net.layout.takes_time:
            return self._between(a, b, timestep, interrupt)
        if isinstance(timestep, Tensor):
            raise OptionError(
                f"timestep must be one number for {title_of(self.net.layout)}, got one for every pixel; models from "
                "4.0 on take that"
            )
        time = reachable(timestep)
        if time != timestep:
            tell_inexact(title_of(self.net.layout))
        return self.halves.reach(pair, a, b, time, middle)

    def _between(
        self,
        a: Prepared,
        b: Prepared,
        timestep: float | Tensor,
        interrupt: Callable[[], None],
        *,
        seen: bool = False,
    ) -> Prepared:
        """A frame between two in exact planes: not rounded, so that nothing is lost where it is halved again.

        The network's picture is its own blend with what its refinement adds. Native planes are warped themselves, and
        what the refinement adds is converted to their colour space.

        Args:
            seen: whether the network will see the frame, which is then its picture with the padding.
        """
        found = self._estimate(a, b, timestep, interrupt)
        view = cropped(found.flow, a.fmt), cropped(found.mask, a.fmt)
        left, right = _exact(a), _exact(b)
        shown = a.fmt.family == "RGB" and a.fmt.floating
        image = None
        if seen or shown:
            image = legacy.blended(a.source.stack, b.source.stack, found) if found.image is None else found.image
        if shown and image is not None:
            planes: Planes = torch.split(cropped(image, a.fmt), 1, dim=1)
        else:
            planes = native(left, right, view)
            if found.residual is not None:
                planes = self._corrected(planes, left, right, view, cropped(found.residual, a.fmt))
        carried = [native(x, y, resized_view(a, x.fmt, view)) for x, y in zip(left.carried, right.carried, strict=True)]
        frame = left.made(planes, carried)
        if seen and image is not None:
            frame.see(image)
        return frame

    def _corrected(self, planes: Planes, a: Prepared, b: Prepared, view: View, residual: Tensor) -> Planes:
        """The planes with what a refinement adds, but for what cannot have moved."""
        more = difference_in_planes(residual, a.fmt, a.color, self.net.ops)
        views = plane_views(a, view)
        return tuple(
            plane + extra.masked_fill(is_static(self.net.ops.static_radius(x, y), flow), 0)
            for plane, extra, x, y, (flow, _) in zip(planes, more, a.planes, b.planes, views, strict=True)
        )

    def _estimate(
        self, a: Prepared, b: Prepared, timestep: float | Tensor, interrupt: Callable[[], None]
    ) -> legacy.Estimate:
        times = padded_times(timestep, a.fmt, a.source.image) if isinstance(timestep, Tensor) else timestep
        if self.averaging is None:
            found = self.net.estimate(a.source, b.source, times, interrupt)
        else:
            found = tta.estimate_legacy(self.net, a.sources, b.sources, times, self.averaging, interrupt)
        if not isinstance(times, Tensor):
            return found
        source = (times == 0) | (times == 1)
        residual = None if found.residual is None else found.residual.masked_fill(source, 0)
        mask = torch.where(source, CERTAIN_LOGIT * (1 - 2 * times), found.mask)
        return legacy.Estimate(found.flow.masked_fill(source, 0), mask, residual)


def _exact(frame: Prepared) -> Prepared:
    """The frame with planes of the dtype that is computed in; it shares what the network sees."""
    return frame.made(
        tuple(plane.to(frame.net.exact) for plane in frame.planes),
        [tuple(plane.to(frame.net.exact) for plane in extra.planes) for extra in frame.carried],
    )


def samples_of(frame: Prepared) -> Planes:
    """The planes of a frame in its format's own samples."""
    return tuple(plane if plane.dtype == frame.fmt.dtype else to_samples(plane, frame.fmt) for plane in frame.planes)
