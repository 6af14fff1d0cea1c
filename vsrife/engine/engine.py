"""Runs pairs of pictures through the network on one device. Knows nothing of VapourSynth.

Networks are shared by all filters of a process and stay loaded for a while after the last one, because players make the
filter anew at every seek. Pictures are cached per engine.
"""

from __future__ import annotations

import functools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from vsrife.engine import cuda_graph, transfer
from vsrife.engine.devices import full_precision
from vsrife.engine.formats import PictureFormat
from vsrife.engine.legacy import LegacyFrames, samples_of
from vsrife.engine.loaded import Network, release_networks
from vsrife.engine.memory import Thrift, give_back
from vsrife.engine.sources import (
    CERTAIN_LOGIT,
    InputFrame,
    Prepared,
    View,
    cropped,
    native,
    padded_times,
    resized_view,
    shown,
)
from vsrife.engine.tiling import MOST_PARTS, Take, Tiling
from vsrife.engine.transfer import Planes
from vsrife.networks import pyramid, tta
from vsrife.networks.fold import FoldedNet
from vsrife.networks.ifnet import warp_by_flow
from vsrife.networks.legacy import LegacyNet
from vsrife.networks.tta import UPRIGHT, Averaging

# Filters share the cores: two engines that compute at once on the CPU only get in each other's way.
_cpu_lock = threading.Lock()
BRINGING_STEPS = 8  # enough where neighbouring pixels move alike
TURN_SECONDS = 0.05  # between two looks at whether waiting for it still makes sense


class Engine:
    """Interpolates between pictures of one format.

    Not thread-safe: one thread at a time may call it. Engines of different filters may run at once.

    Args:
        net: the network.
        fmt: the pictures' format.
        capacity: source pictures kept prepared, least recently used out first; at least 2.
        carried: formats of the pictures that are moved along with each, in their order; of any size.
        averaging: test-time augmentation; None: the network as it is.
    """

    def __init__(
        self,
        net: Network,
        fmt: PictureFormat,
        capacity: int = 3,
        carried: Sequence[PictureFormat] = (),
        averaging: Averaging | None = None,
    ) -> None:
        self.net = net
        self.fmt = fmt
        self.carried = tuple(carried)
        self.averaging = averaging
        self.capacity = max(2, capacity)
        self.prepared: OrderedDict[Hashable, Prepared] = OrderedDict()
        self.older = LegacyFrames(net, averaging) if isinstance(net, LegacyNet) else None
        self.recording: cuda_graph.Recording | None = None  # of the estimation
        self.records = True  # until the device is found to have no such thing
        self.transfer = transfer.transfer_for(net.device)
        self.thrift = Thrift(net.device, f"{fmt.width}x{fmt.height}", self._most_parts())
        if net.device.type == "cpu":  # elsewhere the next engine is quicker with what this one leaves
            weakref.finalize(self, give_back, net.device).atexit = False

    def interpolate(
        self,
        left: InputFrame,
        right: InputFrame,
        timestep: float | Tensor,
        interrupt: Callable[[], None] = lambda: None,
    ) -> Planes | None:
        """The picture at `timestep` between two.

        Args:
            left: the picture at time 0.
            right: the picture at time 1.
            timestep: between 0 and 1; or a time 0..1 for every pixel, (H, W). Pixels at 0 are those of `left`, and at 1
                those of `right`.
            interrupt: called between steps; may raise to give up.

        Returns:
            Per plane (h, w) on the CPU in the format's own samples, those of the carried pictures after the picture's
            own. None: the pictures are equal, nothing was computed and `left` is the answer.

        Raises:
            DeviceError: out of memory, also in parts.
        """
        found = self.start(left, right, timestep, interrupt)
        return None if found is None else found.planes()

    def start(
        self,
        left: InputFrame,
        right: InputFrame,
        timestep: float | Tensor,
        interrupt: Callable[[], None] = lambda: None,
    ) -> transfer.Download | None:
        """What `interpolate` gives; on CUDA without waiting for it. The planes may change once this returns."""

        def work() -> transfer.Download | None:
            planes = self._interpolate(left, right, timestep, interrupt)
            return None if planes is None else self.transfer.download(planes)

        return self._run(work, interrupt)

    def compute(
        self,
        left: InputFrame,
        right: InputFrame,
        timestep: float | Tensor,
        interrupt: Callable[[], None] = lambda: None,
    ) -> Planes | None:
        """What `interpolate` gives, on the network's device."""
        return self._run(lambda: self._interpolate(left, right, timestep, interrupt), interrupt)

    def motion(self, left: InputFrame, right: InputFrame, timestep: float | Tensor) -> tuple[Tensor, Tensor]:
        """What the picture at `timestep` is made with; arguments as for `interpolate`.

        At 0 and 1 the network has no reason to look for the other picture, which is not shown. There the result is the
        motion at half time, brought to the pixels of the left or the right picture.

        Returns:
            On the network's device: the flow, (4, H, W) in pixels, from a pixel of the picture in between to where it
            is in the left picture, x then y, then to where it is in the right one; and how much of it comes from the
            left picture, (H, W), 0..1.
        """
        source = not isinstance(timestep, Tensor) and timestep in (0, 1)

        def work() -> tuple[Tensor, Tensor]:
            a, b = self._prepare(left), self._prepare(right)
            time = 0.5 if source else timestep
            flow, mask = self._standing(time) if left.equals(right) else self._between(a, b, time, lambda: None)
            share = torch.sigmoid(mask)
            if source:
                flow, share = brought(flow, share, to_right=bool(timestep))
            return flow[0].clone(), share[0, 0]  # a recording would write over its own

        return self._run(work, lambda: None)

    def _run[Result](self, work: Callable[[], Result], interrupt: Callable[[], None]) -> Result:
        with torch.inference_mode(), full_precision(self.net.device), self._turn(interrupt):
            return self.thrift.run(work, self._free)

    def _free(self) -> None:
        """Give back all memory that can be had again, and live on less from here on."""
        self.prepared.clear()
        if self.older is not None:
            self.older.halves.kept.clear()
        self.recording = None
        self.capacity, self.records = 2, False
        release_networks()
        give_back(self.net.device)

    @contextmanager
    def _turn(self, interrupt: Callable[[], None]) -> Iterator[None]:
        """On the CPU, wait for other engines to finish their pair, or for a reason to give up."""
        if self.net.device.type != "cpu":
            yield
            return
        while not _cpu_lock.acquire(timeout=TURN_SECONDS):
            interrupt()
        try:
            yield
        finally:
            _cpu_lock.release()

    def _interpolate(
        self, left: InputFrame, right: InputFrame, timestep: float | Tensor, interrupt: Callable[[], None]
    ) -> Planes | None:
        equal = left.equals(right)
        if equal and all(x.equals(y) for x, y in zip(left.carried, right.carried, strict=True)):
            return None
        a, b = self._prepare(left), self._prepare(right)
        interrupt()
        if self.older is not None and not equal:
            made = self.older.reached((left.key, right.key), a, b, self._on_device(timestep), interrupt)
            return tuple(plane[0, 0] for one in (made, *made.carried) for plane in samples_of(one))
        view = self._standing(timestep) if equal else self._between(a, b, timestep, interrupt)
        interrupt()
        planes = list(a.planes) if equal else [*shown(a, b, view)]
        for x, y in zip(a.carried, b.carried, strict=True):
            planes += native(x, y, resized_view(a, x.fmt, view))
        return tuple(plane[0, 0] for plane in planes)

    def _standing(self, timestep: float | Tensor) -> View:
        """Between equal pictures: nothing tells how what is carried moves."""
        flow = torch.zeros(1, 4, self.fmt.height, self.fmt.width, dtype=self.net.exact, device=self.net.device)
        return flow, torch.logit(flow[:, :1] + (1 - self._on_device(timestep))).clamp_(-CERTAIN_LOGIT, CERTAIN_LOGIT)

    def _on_device(self, timestep: float | Tensor) -> float | Tensor:
        """A number, or a time for every pixel as (1, 1, H, W)."""
        return timestep.to(self.net.device, self.net.exact)[None, None] if isinstance(timestep, Tensor) else timestep

    def _between(self, a: Prepared, b: Prepared, timestep: float | Tensor, interrupt: Callable[[], None]) -> View:
        """Flow and mask at the pixels of the picture, between pictures that differ."""
        timestep = self._on_device(timestep)
        if self.older is not None:
            return self.older.view(a, b, timestep, interrupt)
        assert isinstance(self.net, FoldedNet)
        tiling = self._tiling(self.thrift.parts)
        if tiling is not None:
            return tiling.view(timestep, functools.partial(self._look, a, b, interrupt))
        if not isinstance(timestep, Tensor):
            return self._replayed(self.net, a, b, timestep) or self._view(
                self._estimate(self.net, a, b, timestep, interrupt)
            )
        padded = padded_times(timestep, self.fmt, a.source.stack)
        flow, mask = self._view(self._estimate(self.net, a, b, padded, interrupt))
        source = (timestep == 0) | (timestep == 1)
        return flow.masked_fill(source, 0), torch.where(source, CERTAIN_LOGIT * (1 - 2 * timestep), mask)

    def _tiling(self, parts: int) -> Tiling | None:
        """The picture in parts; None: whole, or too small for so many."""
        if parts == 1 or isinstance(self.net, LegacyNet):
            return None
        return Tiling.of(self.fmt, self.net.layout, self.net.scale, parts)

    def _most_parts(self) -> int:
        parts = 1
        while parts < MOST_PARTS and self._tiling(2 * parts):
            parts *= 2
        return parts

    def _look(
        self,
        a: Prepared,
        b: Prepared,
        interrupt: Callable[[], None],
        fmt: PictureFormat,
        take: Take,
        timestep: float | Tensor,
    ) -> View:
        """Flow and mask of a smaller picture that is taken from both."""
        engine = Engine(self.net, fmt, averaging=self.averaging)
        engine.records = False
        left, right = (
            engine._prepare(InputFrame(key, [plane[0, 0] for plane in take(frame.planes)], frame.color))
            for key, frame in enumerate((a, b))
        )
        time = timestep[0, 0] if isinstance(timestep, Tensor) else timestep
        return engine._standing(time) if left.equals(right) else engine._between(left, right, time, interrupt)

    def _replayed(self, net: FoldedNet, a: Prepared, b: Prepared, timestep: float) -> View | None:
        """By a recording; None where the device knows no such thing, or values decide what is done."""
        if self.averaging is not None or net.layout.rescales or not self.records:
            return None
        time = torch.full((1, 1, 1, 1), timestep, dtype=net.exact, device=net.device)
        inputs = (a.source.stack, a.source.parts, b.source.stack, b.source.parts, time)
        if self.recording is None:
            self.recording = cuda_graph.recorded(functools.partial(_flow_and_mask, net), inputs, net.device)
            if self.recording is None:
                self.records = False
                return None
        flow, mask = self.recording(*inputs)
        return cropped(flow, self.fmt), cropped(mask, self.fmt)

    def _estimate(
        self, net: FoldedNet, a: Prepared, b: Prepared, timestep: float | Tensor, interrupt: Callable[[], None]
    ) -> pyramid.Field:
        if self.averaging is None:
            return pyramid.estimate(net, a.source, b.source, timestep, interrupt)
        return tta.estimate(net, a.sources, b.sources, timestep, self.averaging, interrupt)

    def _prepare(self, picture: InputFrame) -> Prepared:
        prepared = self.prepared.pop(picture.key, None) or Prepared(
            self.net, self.fmt, picture, self.transfer, self.carried,
            self.averaging.views if self.averaging else (UPRIGHT,),
        )  # fmt: skip
        self.prepared[picture.key] = prepared
        while len(self.prepared) > self.capacity:
            self.prepared.popitem(last=False)
        return prepared

    def _view(self, field: pyramid.Field) -> View:
        """Flow and mask at the pixels of the picture, without the padding."""
        return cropped(field.flow(), self.fmt), cropped(field.mask(*field.size), self.fmt)


def _flow_and_mask(
    net: FoldedNet, stack0: Tensor, parts0: Tensor, stack1: Tensor, parts1: Tensor, timestep: Tensor
) -> View:
    """At every pixel of the padded pictures."""
    field = pyramid.estimate(net, pyramid.Source(stack0, parts0), pyramid.Source(stack1, parts1), timestep)
    return field.flow(), field.mask(*field.size)


def brought(flow: Tensor, share: Tensor, *, to_right: bool) -> View:
    """Flow and share of a time in between at the pixels of one of the two pictures."""
    own, other = (flow[:, 2:], flow[:, :2]) if to_right else (flow[:, :2], flow[:, 2:])
    offset = -own  # from a pixel of the picture to where it is at the time in between
    for _ in range(BRINGING_STEPS):
        offset = -warp_by_flow(own, offset)
    other = warp_by_flow(other, offset) + offset
    still = torch.zeros_like(other)
    return torch.cat((other, still) if to_right else (still, other), dim=1), warp_by_flow(share, offset)
