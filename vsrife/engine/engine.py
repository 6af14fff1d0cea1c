"""Interpolates between frames on one device. Knows nothing of VapourSynth."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, overload

import torch
from torch import Tensor

from vsrife.checkpoints.loading import Network
from vsrife.engine import transfer
from vsrife.engine.cache import Cache
from vsrife.engine.device_thread import run_on
from vsrife.engine.formats import PictureFormat
from vsrife.engine.loaded import forward_for, release_networks
from vsrife.engine.memory import OutOfMemoryFallback, give_back
from vsrife.engine.sources import InputFrame, SourceFrame
from vsrife.engine.synthesis import reproject_flow, zero_motion
from vsrife.engine.transfer import Download, Planes
from vsrife.engine.verification import verify
from vsrife.networks.cancellation import Cancellation, never
from vsrife.networks.tta import Averaging

# Engines that compute on the CPU at the same time slow each other down: all of them use all cores.
_cpu_lock = threading.Lock()
LOCK_SECONDS = 0.05  # between two cancellation checks while waiting for the lock


class Engine:
    """Interpolates between frames of one format.

    Not thread-safe: one thread at a time may call it. Engines of different filters may run at once.

    Args:
        net: the network.
        fmt: of the frames.
        capacity: source frames kept on the device with their features, least recently used dropped first; at least 2.
        carried: formats of the frames that are warped along with each, in their order; of any size.
        averaging: test-time augmentation; None: a single pass.
    """

    def __init__(
        self,
        net: Network,
        fmt: PictureFormat,
        capacity: int = 3,
        carried: Sequence[PictureFormat] = (),
        averaging: Averaging | None = None,
    ) -> None:
        self.net, self.fmt, self.carried = net, fmt, tuple(carried)
        self.cache = Cache(capacity)
        self.forward = forward_for(net, averaging, self.cache)
        self.transfer = transfer.transfer_for(net.device)
        self.oom = OutOfMemoryFallback(net.device, f"{fmt.width}x{fmt.height}", self.forward.most_tiles(fmt))
        if net.device.type == "cpu":  # on other devices the next engine reuses what the allocator keeps
            weakref.finalize(self, give_back, net.device).atexit = False

    @overload
    def interpolate(
        self,
        frame0: InputFrame,
        frame1: InputFrame,
        timestep: float | Tensor,
        cancellation: Cancellation = ...,
        *,
        out: Literal["host"] = ...,
    ) -> Download | None: ...
    @overload
    def interpolate(
        self,
        frame0: InputFrame,
        frame1: InputFrame,
        timestep: float | Tensor,
        cancellation: Cancellation = ...,
        *,
        out: Literal["device"],
    ) -> Planes | None: ...
    def interpolate(
        self,
        frame0: InputFrame,
        frame1: InputFrame,
        timestep: float | Tensor,
        cancellation: Cancellation = never,
        *,
        out: Literal["host", "device"] = "host",
    ) -> Download | Planes | None:
        """Interpolate the frame at a time between two.

        Args:
            frame0: the frame at time 0. Its planes may change once this returns.
            frame1: the frame at time 1.
            timestep: between 0 and 1; or a time 0..1 for every pixel, (H, W): at 0 the pixel of `frame0`, at 1 that of
                `frame1`.
            cancellation: called between steps; raises to abandon the frame.
            out: "device" returns planes on the network's device; "host" a download of them, which on CUDA runs while
                the next frame is computed.

        Returns:
            Per plane (h, w) in the samples of its format, those of carried frames after the frame's own. None: both
            frames and all that they carry are equal, nothing was computed, and the result is `frame0`.

        Raises:
            DeviceError: out of memory, also in tiles.
            OptionError: the model does not know this time.
        """

        def work() -> Download | Planes | None:
            planes = self._interpolate(frame0, frame1, timestep, cancellation)
            return planes if planes is None or out == "device" else self.transfer.download(planes)

        return self._run(work, frame0, frame1, cancellation)

    def motion(self, frame0: InputFrame, frame1: InputFrame, timestep: float | Tensor) -> tuple[Tensor, Tensor]:
        """Estimate the flow and the blend weight that `interpolate` would use.

        At 0 and 1 the network has no reason to follow the other frame, which is not shown. The result there is the
        motion at half time, reprojected to the pixels of `frame0` or `frame1`.

        Args:
            frame0, frame1, timestep: as for `interpolate`.

        Returns:
            On the network's device: the flow, (4, H, W) in pixels, from an output pixel to its position in `frame0`, x
            then y, then to that in `frame1`; and the weight of `frame0`, (H, W), 0..1.

        Raises:
            DeviceError, OptionError: as `interpolate`.
        """
        at_source = not isinstance(timestep, Tensor) and timestep in (0, 1)

        def work() -> tuple[Tensor, Tensor]:
            time = 0.5 if at_source else self._on_device(timestep)
            if frame0.equals(frame1):
                flow, mask = zero_motion(self.fmt, time, self.net)
            else:
                sources = self._source(frame0), self._source(frame1)
                flow, mask = self.forward.motion(*sources, time, never, self.oom.parts)
            weight0 = torch.sigmoid(mask)
            if at_source:
                flow, weight0 = reproject_flow(flow, weight0, to_frame1=bool(timestep))
            return flow[0].clone(), weight0[0, 0]  # a graph would overwrite its own result

        return self._run(work, frame0, frame1, never)

    def _interpolate(
        self, frame0: InputFrame, frame1: InputFrame, timestep: float | Tensor, cancellation: Cancellation
    ) -> Planes | None:
        equal = frame0.equals(frame1)
        if equal and all(a.equals(b) for a, b in zip(frame0.carried, frame1.carried, strict=True)):
            return None
        source0, source1, time = self._source(frame0), self._source(frame1), self._on_device(timestep)
        cancellation()
        if equal:
            motion = zero_motion(self.fmt, time, self.net)
            planes = sum(self.forward.synthesis.carried(source0, source1, motion), source0.planes)
        else:
            planes = self.forward.frame_at(source0, source1, time, cancellation, self.oom.parts)
        return tuple(plane[0, 0] for plane in planes)

    def _source(self, frame: InputFrame) -> SourceFrame:
        return self.cache.get(
            "frame", frame.key, lambda: SourceFrame.upload(frame, self.fmt, self.carried, self.transfer)
        )

    def _on_device(self, timestep: float | Tensor) -> float | Tensor:
        """A number as it is; a time for every pixel as (1, 1, H, W) on the device."""
        return timestep.to(self.net.device, self.net.exact)[None, None] if isinstance(timestep, Tensor) else timestep

    def _run[Result](
        self, work: Callable[[], Result], frame0: InputFrame, frame1: InputFrame, cancellation: Cancellation
    ) -> Result:
        def from_scratch() -> Planes | None:
            self.cache.clear()
            planes = self._interpolate(frame0, frame1, 0.5, cancellation)
            self.cache.clear()
            return None if planes is None else planes[: self.fmt.num_planes]

        def run() -> Result:
            with torch.inference_mode(), self._cpu_turn(cancellation):
                verify(self.net, self.fmt, from_scratch)
                return self.oom.run(work, self._free)

        return run_on(self.net.device, run, self.cache.clear)

    def _free(self) -> None:
        """Free all memory that only saves time, and use less from now on."""
        self.cache.clear()
        self.cache.capacity = 2
        self.forward.release()
        release_networks()
        give_back(self.net.device)

    @contextmanager
    def _cpu_turn(self, cancellation: Cancellation) -> Iterator[None]:
        """On the CPU, wait until no other engine computes."""
        if self.net.device.type != "cpu":
            yield
            return
        while not _cpu_lock.acquire(timeout=LOCK_SECONDS):
            cancellation()
        try:
            yield
        finally:
            _cpu_lock.release()
