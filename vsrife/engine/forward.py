"""Motion and frames by networks of 4.x, and the protocol that these share with the models before 4.x."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from vsrife.engine import cuda_graph
from vsrife.engine.cache import Cache
from vsrife.engine.color import rgb_transform
from vsrife.engine.formats import PictureFormat
from vsrife.engine.sources import SourceFrame
from vsrife.engine.synthesis import Motion, Synthesis, cropped, exact_at_sources, padded_rgb, padded_times, zero_motion
from vsrife.engine.tiling import MOST_TILES, Cut, Tiling
from vsrife.engine.transfer import Planes
from vsrife.networks import pyramid, tta
from vsrife.networks.cancellation import Cancellation
from vsrife.networks.fold import FoldedNet
from vsrife.networks.pyramid import Features
from vsrife.networks.tta import UPRIGHT, Averaging
from vsrife.ops.dispatch import uses_graphs


class Forward(Protocol):
    """What an engine asks of a network. One for each engine; frames differ in at least one sample.

    Attributes:
        synthesis: makes the output planes.
    """

    synthesis: Synthesis

    def motion(
        self,
        frame0: SourceFrame,
        frame1: SourceFrame,
        timestep: float | Tensor,
        cancellation: Cancellation,
        tiles: int = 1,
    ) -> Motion:
        """Estimate flow and mask at the pixels of a frame in between.

        Args:
            frame0: the frame at time 0.
            frame1: the frame at time 1.
            timestep: 0..1; or a time for every pixel, (1, 1, H, W) on the network's device.
            cancellation: called between steps.
            tiles: number of tiles to estimate the motion in, 1 or a power of two up to `most_tiles`.
        """
        ...

    def frame_at(
        self,
        frame0: SourceFrame,
        frame1: SourceFrame,
        timestep: float | Tensor,
        cancellation: Cancellation,
        tiles: int = 1,
    ) -> Planes:
        """Make the frame in between, its carried frames after it; arguments as for `motion`.

        Returns:
            Per plane (1, 1, h, w), in the samples of its format.
        """
        ...

    def most_tiles(self, fmt: PictureFormat) -> int:
        """Largest number of tiles that a frame may be divided into."""
        ...

    def release(self) -> None:
        """Free memory that only saves time, and use less from now on."""
        ...


class PyramidForward:
    """The forward of networks of 4.x.

    Args:
        net: the folded network.
        averaging: test-time augmentation; None: a single pass.
        cache: of the engine, for features of frames.
    """

    def __init__(self, net: FoldedNet, averaging: Averaging | None, cache: Cache) -> None:
        self.net, self.averaging, self.cache = net, averaging, cache
        self.orientations = tuple(averaging.orientations) if averaging else (UPRIGHT,)
        self.synthesis = Synthesis(net, cache)

    def motion(
        self,
        frame0: SourceFrame,
        frame1: SourceFrame,
        timestep: float | Tensor,
        cancellation: Cancellation,
        tiles: int = 1,
    ) -> Motion:
        tiling = self._tiling(frame0.fmt, tiles)
        if tiling is not None:
            return tiling.motion(timestep, partial(self._tile_motion, frame0, frame1, cancellation))
        features0, features1 = self._features(frame0), self._features(frame1)
        # Layouts that try again branch on values, which a graph cannot.
        graphs = self.averaging is None and not self.net.layout.rescales and uses_graphs(self.net.device)
        if graphs and not isinstance(timestep, Tensor):
            return Motion(*(cropped(maps, frame0.fmt) for maps in self._replay(features0[0], features1[0], timestep)))
        return self._estimate(features0, features1, frame0.fmt, timestep, cancellation)

    def frame_at(
        self,
        frame0: SourceFrame,
        frame1: SourceFrame,
        timestep: float | Tensor,
        cancellation: Cancellation,
        tiles: int = 1,
    ) -> Planes:
        motion = self.motion(frame0, frame1, timestep, cancellation, tiles)
        cancellation()
        if frame0.fmt.family == "RGB" and frame0.fmt.floating:
            image0, image1 = (self._clamped_rgb(frame, tiles) for frame in (frame0, frame1))
            planes = self.synthesis.published(image0, image1, motion, frame0.fmt)
        else:
            planes = self.synthesis.native(frame0, frame1, motion)
        return sum(self.synthesis.carried(frame0, frame1, motion), planes)

    def most_tiles(self, fmt: PictureFormat) -> int:
        tiles = 1
        while tiles < MOST_TILES and self._tiling(fmt, 2 * tiles):
            tiles *= 2
        return tiles

    def release(self) -> None:
        cuda_graph.release(self.net)

    def _features(self, frame: SourceFrame) -> Sequence[Features]:
        """What the network reads of a frame, in each orientation."""
        return self.cache.get("features", frame.key, lambda: self._encode(frame))

    def _encode(self, frame: SourceFrame) -> Sequence[Features]:
        width, height = self._padded_size(frame.fmt)
        if self.orientations == (UPRIGHT,):
            transform = rgb_transform(frame.fmt, frame.color, self.net.device, self.net.exact)
            return (pyramid.encode(self.net, pyramid.PaddedPlanes(frame.planes, transform, (height, width))),)
        image = padded_rgb(frame, width, height, self.net)
        return tuple(pyramid.encode(self.net, each.turn(image).contiguous()) for each in self.orientations)

    def _padded_size(self, fmt: PictureFormat) -> tuple[int, int]:
        return self.net.layout.padded(fmt.width, fmt.height, self.net.scale)

    def _clamped_rgb(self, frame: SourceFrame, tiles: int) -> Tensor:
        """(1, 3, H, W) RGB of 0..1 at the padded size. Features of a whole frame that is tiled are not computed."""
        if self._tiling(frame.fmt, tiles) is None:
            image = self._features(frame)[0].stack[:, :3]
            if image.dtype == self.net.exact:
                return image
        return padded_rgb(frame, *self._padded_size(frame.fmt), self.net).clamp(0, 1)

    def _estimate(
        self,
        features0: Sequence[Features],
        features1: Sequence[Features],
        fmt: PictureFormat,
        timestep: float | Tensor,
        cancellation: Cancellation,
    ) -> Motion:
        times = padded_times(timestep, fmt, features0[0].stack) if isinstance(timestep, Tensor) else timestep
        if self.averaging is None:
            field = pyramid.estimate(self.net, features0[0], features1[0], times, cancellation)
        else:
            field = tta.estimate(self.net, features0, features1, times, self.averaging, cancellation)
        motion = Motion(cropped(field.flow(), fmt), cropped(field.mask(*field.size), fmt))
        return exact_at_sources(motion, timestep) if isinstance(timestep, Tensor) else motion

    def _replay(self, features0: Features, features1: Features, timestep: float) -> cuda_graph.Tensors:
        """Flow and mask by a CUDA graph, overwritten by the next call."""
        time = torch.full((1, 1, 1, 1), timestep, dtype=self.net.exact, device=self.net.device)
        inputs = (features0.stack, features0.parts, features1.stack, features1.parts, time)
        return cuda_graph.call(self.net, partial(_flow_and_mask, self.net), inputs)

    def _tiling(self, fmt: PictureFormat, tiles: int) -> Tiling | None:
        """The frame in tiles; None: whole, or too small for so many."""
        return None if tiles == 1 else Tiling.of(fmt, self.net.layout, self.net.scale, tiles)

    def _tile_motion(
        self,
        frame0: SourceFrame,
        frame1: SourceFrame,
        cancellation: Cancellation,
        fmt: PictureFormat,
        cut: Cut,
        timestep: float | Tensor,
    ) -> Motion:
        """The motion of a smaller frame that is cut from both."""
        tile0, tile1 = (
            SourceFrame(frame.key, fmt, frame.color, tuple(plane.contiguous() for plane in cut(frame.planes)))
            for frame in (frame0, frame1)
        )
        if tile0.equals(tile1):
            return zero_motion(fmt, timestep, self.net)
        return self._estimate(self._encode(tile0), self._encode(tile1), fmt, timestep, cancellation)


def _flow_and_mask(
    net: FoldedNet, stack0: Tensor, parts0: Tensor, stack1: Tensor, parts1: Tensor, timestep: Tensor
) -> cuda_graph.Tensors:
    """Flow and mask at every pixel of the padded frames, of tensors alone: what a CUDA graph records."""
    field = pyramid.estimate(net, Features(stack0, parts0), Features(stack1, parts1), timestep)
    return field.flow(), field.mask(*field.size)
