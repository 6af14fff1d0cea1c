"""Runs pairs of pictures through the network on one device. Knows nothing of VapourSynth.

Networks are shared by all filters of a process and stay loaded for a while after the last one, because players make the
filter anew at every seek. Pictures are cached per engine.
"""

from __future__ import annotations

import copy
import functools
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vsrife import legacy, pyramid, replay, staging, tta
from vsrife.bisection import Bisection, reachable, tell_inexact
from vsrife.devices import full_precision
from vsrife.errors import OptionError
from vsrife.fold import FoldedNet, fold
from vsrife.generations import LegacyWeights, files_of, load_model, title_of
from vsrife.legacy import LegacyNet
from vsrife.memory import Thrift, give_back
from vsrife.network import warp_by_flow
from vsrife.ops.reference import still
from vsrife.planes import (
    Colorimetry,
    PictureFormat,
    chroma_in_luma,
    difference_in_planes,
    reading,
    resized,
    to_samples,
)
from vsrife.tiling import MOST_PARTS, Take, Tiling
from vsrife.tta import ALL_VIEWS, UPRIGHT, Averaging
from vsrife.tta import View as Orientation
from vsrife.weights import find_weights

Planes = tuple[Tensor, ...]
View = tuple[Tensor, Tensor]  # flow (1, 4, H, W) and mask logits (1, 1, H, W) at the samples of a picture
Network = FoldedNet | LegacyNet

NETWORKS_KEPT = 2
_networks: OrderedDict[tuple[Any, ...], Network] = OrderedDict()  # least recently asked for first
_networks_lock = threading.Lock()
# Filters share the cores: two engines that compute at once on the CPU only get in each other's way.
_cpu_lock = threading.Lock()
CERTAIN_LOGIT = 100.0  # of a mask that takes all from one picture: its share is exactly 1 or as good as 0
MOST_AT_ONCE = 4  # times between two frames that are computed together
ROWS_COMPARED = 64  # at once: most frames differ in the first of them
BRINGING_STEPS = 8  # enough where neighbouring pixels move alike
TURN_SECONDS = 0.05  # between two looks at whether waiting for it still makes sense


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """What a loaded network depends on."""

    model: str | Path | None  # version, path, or None for the bundled default
    scale: float
    ensemble: bool
    device: torch.device
    dtype: torch.dtype
    tta: bool = False  # eight orientations
    tta_temporal: bool = False  # both time directions, for any model

    @property
    def averaging(self) -> Averaging | None:
        """The passes that are averaged after each block; None: the network as it is, be it an ensemble."""
        if not (self.tta or self.tta_temporal):
            return None
        return Averaging(ALL_VIEWS if self.tta else (UPRIGHT,), self.tta_temporal or self.ensemble)


def network(options: NetworkOptions) -> Network:
    """The network for these options, loaded once per process; the `NETWORKS_KEPT` last ones of each device stay.

    Thread-safe. A weights file that changed on disk is loaded anew.

    Raises:
        WeightsError: the weights are missing or not usable.
        OptionError: an ensemble of a layout that cannot run as one.
    """
    path = find_weights(options.model)
    stats = [(file, stat.st_mtime_ns, stat.st_size) for file in files_of(path) for stat in [file.stat()]]
    key = (options, path, *stats)
    with _networks_lock:
        net = _networks.pop(key, None) or _load(options)
        _networks[key] = net
        of_device = [other for other in _networks if other[0].device == options.device]
        for oldest in of_device[:-NETWORKS_KEPT]:
            del _networks[oldest]
    return net


def release_networks() -> None:
    """Let go of loaded networks that nobody uses."""
    with _networks_lock:
        loaded = [(key, weakref.ref(net)) for key, net in _networks.items()]
        _networks.clear()
        _networks.update((key, net) for key, reference in loaded if (net := reference()) is not None)


def _load(options: NetworkOptions) -> Network:
    weights = load_model(options.model)
    if options.ensemble and (isinstance(weights, LegacyWeights) or not weights.layout.ensemble):
        which = "before 4.x" if isinstance(weights, LegacyWeights) else "with carried features"
        raise OptionError(
            f"ensemble must be False for models {which}, got True for {weights.name}; leave it out, or take a model "
            "from 4.0 to 4.20, or 4.24"
        )
    if isinstance(weights, LegacyWeights):
        return legacy.load(
            weights.layout, weights.tensors, scale=options.scale, device=options.device, dtype=options.dtype
        )
    return fold(
        weights.layout,
        weights.tensors,
        scale=options.scale,
        ensemble=options.ensemble and options.averaging is None,
        device=options.device,
        dtype=options.dtype,
    )


@dataclass(frozen=True, slots=True)
class Picture:
    """One source frame as it comes.

    Attributes:
        key: the same for equal pictures of one engine only, e.g. the frame's number.
        planes: per plane (h, w) in the clip's own samples; only read. Tensors may lie on the network's device.
        color: how to read them.
    """

    key: Hashable
    planes: Sequence[NDArray[Any] | Tensor]
    color: Colorimetry
    carried: tuple[Picture, ...] = ()  # moved along with it; their keys do not matter

    def equals(self, other: Picture) -> bool:
        """Whether all samples are the same, those carried aside. On arrays no device is waited for."""
        return all(_equal(a, b) for a, b in zip(self.planes, other.planes, strict=True))


def _equal(a: NDArray[Any] | Tensor, b: NDArray[Any] | Tensor) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    starts = range(0, len(a), ROWS_COMPARED)
    return all(np.array_equal(a[i : i + ROWS_COMPARED], b[i : i + ROWS_COMPARED]) for i in starts)


class _Prepared:
    """Everything that depends on one frame alone: its planes on the device and, once needed, the network's view.

    Not thread-safe: belongs to one engine's thread.
    """

    def __init__(
        self,
        net: Network,
        fmt: PictureFormat,
        picture: Picture,
        transfer: staging.Transfer,
        carried: Sequence[PictureFormat] = (),
        views: Sequence[Orientation] = (UPRIGHT,),
    ) -> None:
        self.net, self.fmt, self.color = net, fmt, picture.color
        self.planes: Planes = tuple(transfer.upload(plane)[None, None] for plane in picture.planes)
        extras = zip(carried, picture.carried, strict=True)
        self.carried = tuple(_Prepared(net, fmt, extra, transfer) for fmt, extra in extras)
        self.views = views
        self._sources: tuple[Any, ...] = ()
        self._calm: tuple[Callable[[], _Prepared | None], Planes] = (lambda: None, ())

    @property
    def source(self) -> Any:
        """What the network sees: a `pyramid.Source` or a `legacy.Source`."""
        return self.sources[0]

    @property
    def sources(self) -> tuple[Any, ...]:
        """The same in every view."""
        if not self._sources:
            if isinstance(self.net, LegacyNet) or tuple(self.views) != (UPRIGHT,):
                self.see(self._padded())
            else:
                frame = pyramid.Frame(self.planes, reading(self.fmt, self.color, *self._kind), self._padded_size)
                self._sources = (pyramid.encode(self.net, frame),)
        return self._sources

    @property
    def _kind(self) -> tuple[torch.device, torch.dtype]:
        return self.net.device, self.net.exact

    @property
    def _padded_size(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        width, height = self.net.layout.padded(self.fmt.width, self.fmt.height, self.net.scale)
        return height, width

    @property
    def shown(self) -> Tensor:
        """(1, 3, H, W) RGB of 0..1 at the padded size; nothing is prepared for it."""
        return self.source.stack[:, :3] if self._sources else self._padded().clamp(0, 1)

    def _padded(self) -> Tensor:
        device, dtype = self._kind
        image = torch.empty((1, 3, *self._padded_size), device=device, dtype=dtype)
        return self.net.ops.see(self.planes, reading(self.fmt, self.color, device, dtype), False, image)

    def see(self, image: Tensor) -> None:
        """Take (1, 3, H, W) at the padded size for what the network sees."""
        encode = self.net.encode if isinstance(self.net, LegacyNet) else functools.partial(pyramid.encode, self.net)
        self._sources = tuple(encode(view.turn(image).contiguous()) for view in self.views)

    def made(self, planes: Planes, carried: Sequence[Planes]) -> _Prepared:
        """A frame of the same kind with other planes, which may be of another dtype."""
        frame = copy.copy(self)
        frame.planes, frame._sources, frame._calm = planes, (), (lambda: None, ())
        frame.carried = tuple(own.made(new, ()) for own, new in zip(self.carried, carried, strict=False))
        return frame

    def calm_towards(self, other: _Prepared) -> Planes:
        """How far around each sample both are equal, per plane; the same for every time between the two."""
        if self._calm[0]() is not other:
            planes = zip(self.planes, other.planes, strict=True)
            self._calm = weakref.ref(other), tuple(self.net.ops.calm(a, b) for a, b in planes)
        return self._calm[1]

    def equals(self, other: _Prepared) -> bool:
        return all(torch.equal(a, b) for a, b in zip(self.planes, other.planes, strict=True))


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
        self.prepared: OrderedDict[Hashable, _Prepared] = OrderedDict()
        self.halves: Bisection[_Prepared] = Bisection()
        self.recordings: dict[int, replay.Recording] = {}  # of the estimation, by how many times at once
        self.records = True  # until the device is found to have no such thing
        self.at_once = most_at_once(net, averaging)
        self._proven: set[int] = set()  # numbers of times at once that give what each alone gives
        self.transfer = staging.transfer_for(net.device)
        self.thrift = Thrift(net.device, f"{fmt.width}x{fmt.height}", self._most_parts())

    def interpolate(
        self, left: Picture, right: Picture, timestep: float | Tensor, interrupt: Callable[[], None] = lambda: None
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
        found = self.start(left, right, [timestep], interrupt)
        return None if found is None else found[0].planes()

    def start(
        self,
        left: Picture,
        right: Picture,
        timesteps: Sequence[float | Tensor],
        interrupt: Callable[[], None] = lambda: None,
    ) -> list[staging.Download] | None:
        """What `interpolate` gives for each of several times; on CUDA without waiting for it.

        Up to `at_once` times are computed together. The planes may change once this returns.
        """

        def work() -> list[staging.Download] | None:
            found = self._interpolate(left, right, timesteps, interrupt)
            return None if found is None else [self.transfer.download(planes) for planes in found]

        return self._run(work, interrupt)

    def compute(
        self, left: Picture, right: Picture, timestep: float | Tensor, interrupt: Callable[[], None] = lambda: None
    ) -> Planes | None:
        """What `interpolate` gives, on the network's device."""
        found = self._run(lambda: self._interpolate(left, right, [timestep], interrupt), interrupt)
        return None if found is None else found[0]

    def motion(self, left: Picture, right: Picture, timestep: float | Tensor) -> tuple[Tensor, Tensor]:
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
        self.halves.kept.clear()
        self.recordings.clear()
        self.capacity, self.records, self.at_once = 2, False, 1
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
        self, left: Picture, right: Picture, timesteps: Sequence[float | Tensor], interrupt: Callable[[], None]
    ) -> list[Planes] | None:
        equal = left.equals(right)
        if equal and all(x.equals(y) for x, y in zip(left.carried, right.carried, strict=True)):
            return None
        a, b = self._prepare(left), self._prepare(right)
        interrupt()
        if isinstance(self.net, LegacyNet) and not equal:
            frames = (self._reached(self.net, (left.key, right.key), a, b, time, interrupt) for time in timesteps)
            return [tuple(p[0, 0] for one in (made, *made.carried) for p in _samples(one)) for made in frames]
        views = map(self._standing, timesteps) if equal else self._views(a, b, timesteps, interrupt)
        return [self._shown(a, b, equal, view, interrupt) for view in views]

    def _shown(self, a: _Prepared, b: _Prepared, equal: bool, view: View, interrupt: Callable[[], None]) -> Planes:
        interrupt()
        planes = list(a.planes) if equal else [*self._picture(a, b, view)]
        for x, y in zip(a.carried, b.carried, strict=True):
            planes += self._native(x, y, self._resized(view, x.fmt))
        return tuple(plane[0, 0] for plane in planes)

    def _views(
        self, a: _Prepared, b: _Prepared, timesteps: Sequence[float | Tensor], interrupt: Callable[[], None]
    ) -> Iterator[View]:
        """Flow and mask for each time. Each is to be used before the next: a recording writes over its own."""
        numbers = [time for time in timesteps if not isinstance(time, Tensor)]
        if isinstance(self.net, FoldedNet) and 1 < len(numbers) == len(timesteps) <= self.at_once:
            flow, mask = self._together(self.net, a, b, numbers, interrupt)
            if self._proves(a, b, numbers, (flow, mask), interrupt):
                yield from zip(flow.split(1), mask.split(1), strict=True)
                return
        for time in timesteps:
            yield self._between(a, b, time, interrupt)

    def _together(
        self, net: FoldedNet, a: _Prepared, b: _Prepared, timesteps: Sequence[float], interrupt: Callable[[], None]
    ) -> View:
        """Flow (N, 4, H, W) and mask at several times."""
        times = _times(net, timesteps)
        return self._replayed(net, a, b, times) or self._view(self._estimate(net, a, b, times, interrupt))

    def _proves(
        self,
        a: _Prepared,
        b: _Prepared,
        timesteps: Sequence[float],
        together: View,
        interrupt: Callable[[], None],
    ) -> bool:
        """Whether several times at once give to the last bit what each alone gives; else that is not done again.

        Libraries choose how to compute by the shape of what they are given. A frame must not depend on what was asked
        for with it. It is looked at once for each number of times.
        """
        if len(timesteps) not in self._proven:
            for i, time in enumerate(timesteps):
                alone = self._between(a, b, time, interrupt)
                if not all(torch.equal(one, other[i : i + 1]) for one, other in zip(alone, together, strict=True)):
                    self.at_once = 1
                    return False
            self._proven.add(len(timesteps))
        return True

    def _standing(self, timestep: float | Tensor) -> View:
        """Between equal pictures: nothing tells how what is carried moves."""
        flow = torch.zeros(1, 4, self.fmt.height, self.fmt.width, dtype=self.net.exact, device=self.net.device)
        return flow, torch.logit(flow[:, :1] + (1 - self._on_device(timestep))).clamp_(-CERTAIN_LOGIT, CERTAIN_LOGIT)

    def _on_device(self, timestep: float | Tensor) -> float | Tensor:
        """A number, or a time for every pixel as (1, 1, H, W)."""
        return timestep.to(self.net.device, self.net.exact)[None, None] if isinstance(timestep, Tensor) else timestep

    def _between(self, a: _Prepared, b: _Prepared, timestep: float | Tensor, interrupt: Callable[[], None]) -> View:
        """Flow and mask at the pixels of the picture, between pictures that differ."""
        timestep = self._on_device(timestep)
        if isinstance(self.net, LegacyNet):
            if not self.net.layout.takes_time and (isinstance(timestep, Tensor) or timestep != 0.5):
                got = "a time for every pixel" if isinstance(timestep, Tensor) else f"{timestep:g}"
                raise OptionError(
                    f"timestep must be 0.5 for the motion of {title_of(self.net.layout)}, got {got}; models from 4.0 "
                    "on know it at any time"
                )
            found = self._estimate_legacy(self.net, a, b, timestep, interrupt)
            return self._cropped(found.flow), self._cropped(found.mask)
        tiling = self._tiling(self.thrift.parts)
        if tiling is not None:
            return tiling.view(timestep, functools.partial(self._look, a, b, interrupt))
        if not isinstance(timestep, Tensor):
            return self._replayed(self.net, a, b, _times(self.net, [timestep])) or self._view(
                self._estimate(self.net, a, b, timestep, interrupt)
            )
        padded = self._padded_times(timestep, a.source.stack)
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
        a: _Prepared,
        b: _Prepared,
        interrupt: Callable[[], None],
        fmt: PictureFormat,
        take: Take,
        timestep: float | Tensor,
    ) -> View:
        """Flow and mask of a smaller picture that is taken from both."""
        engine = Engine(self.net, fmt, averaging=self.averaging)
        engine.records = False
        left, right = (
            engine._prepare(Picture(key, [plane[0, 0] for plane in take(frame.planes)], frame.color))
            for key, frame in enumerate((a, b))
        )
        time = timestep[0, 0] if isinstance(timestep, Tensor) else timestep
        return engine._standing(time) if left.equals(right) else engine._between(left, right, time, interrupt)

    def _replayed(self, net: FoldedNet, a: _Prepared, b: _Prepared, times: Tensor) -> View | None:
        """By a recording; None where the device knows no such thing, or values decide what is done."""
        if self.averaging is not None or net.layout.rescales or not self.records:
            return None
        inputs = (a.source.stack, a.source.parts, b.source.stack, b.source.parts, times)
        recording = self.recordings.get(len(times))
        if recording is None:
            kept = next(iter(self.recordings.values()), None)
            recording = replay.recorded(functools.partial(_flow_and_mask, net), inputs, net.device, kept)
            if recording is None:
                self.records = False
                return None
            self.recordings[len(times)] = recording
        flow, mask = recording(*inputs)
        return self._cropped(flow), self._cropped(mask)

    def _estimate(
        self, net: FoldedNet, a: _Prepared, b: _Prepared, timestep: float | Tensor, interrupt: Callable[[], None]
    ) -> pyramid.Field:
        if self.averaging is None:
            return pyramid.estimate(net, a.source, b.source, timestep, interrupt)
        return tta.estimate(net, a.sources, b.sources, timestep, self.averaging, interrupt)

    def _padded_times(self, timestep: Tensor, padded: Tensor) -> Tensor:
        """A time for every pixel, (1, 1, H, W), at the size of a padded picture."""
        height, width = padded.shape[-2:]
        return F.pad(timestep, (0, width - self.fmt.width, 0, height - self.fmt.height), mode="replicate")

    def _prepare(self, picture: Picture) -> _Prepared:
        prepared = self.prepared.pop(picture.key, None) or _Prepared(
            self.net, self.fmt, picture, self.transfer, self.carried,
            self.averaging.views if self.averaging else (UPRIGHT,),
        )  # fmt: skip
        self.prepared[picture.key] = prepared
        while len(self.prepared) > self.capacity:
            self.prepared.popitem(last=False)
        return prepared

    def _picture(self, a: _Prepared, b: _Prepared, view: View) -> Planes:
        return (self._published if self.fmt.family == "RGB" and self.fmt.floating else self._native)(a, b, view)

    def _published(self, a: _Prepared, b: _Prepared, view: View) -> Planes:
        """The network's own blend of its clamped, zero padded frames, as the published forward shows it."""
        flow, mask = view
        image = self.net.ops.blend(a.shown, b.shown, flow, torch.sigmoid(mask))
        return tuple(to_samples(plane, self.fmt) for plane in torch.split(image, 1, dim=1))

    def _native(self, a: _Prepared, b: _Prepared, view: View) -> Planes:
        """The planes as they are, each warped at its own size and depth."""
        views = self._plane_views(a.fmt, a.color, view)
        rest = zip(a.planes, b.planes, views, a.calm_towards(b), strict=True)
        return tuple(self.net.ops.blend_plane(x, y, *own, calm, a.fmt.peak) for x, y, own, calm in rest)

    def _plane_views(self, fmt: PictureFormat, color: Colorimetry, view: View) -> Sequence[View]:
        """Flow and mask for each plane of a format, given those of its first."""
        if not fmt.subsampled(1):
            return (view,) * fmt.num_planes
        grid = chroma_in_luma(fmt, color, self.net.device)
        flow, mask = (grid.read(image, self.net.ops) for image in view)
        chroma = flow / _factors(1 << fmt.subsampling_w, 1 << fmt.subsampling_h, flow.device, flow.dtype), mask
        return view, chroma, chroma

    def _view(self, field: pyramid.Field) -> View:
        """Flow and mask at the pixels of the picture, without the padding."""
        return self._cropped(field.flow()), self._cropped(field.mask(*field.size))

    def _cropped(self, image: Tensor) -> Tensor:
        return image[..., : self.fmt.height, : self.fmt.width]

    def _resized(self, view: View, fmt: PictureFormat) -> View:
        """Flow and mask for a carried picture of another size that shows the same as the picture."""
        if (fmt.width, fmt.height) == (self.fmt.width, self.fmt.height):
            return view
        flow, mask = (resized(self.fmt, fmt, self.net.device).read(image, self.net.ops) for image in view)
        factors = fmt.width / self.fmt.width, fmt.height / self.fmt.height
        return flow * _factors(*factors, flow.device, flow.dtype), mask

    # --- models before 4.x ---

    def _reached(
        self,
        net: LegacyNet,
        pair: Hashable,
        a: _Prepared,
        b: _Prepared,
        timestep: float | Tensor,
        interrupt: Callable[[], None],
    ) -> _Prepared:
        """The frame at `timestep` or, for models that know the middle alone, at the nearest time that is reached."""

        def middle(left: _Prepared, right: _Prepared, seen: bool) -> _Prepared:
            interrupt()
            return self._legacy_between(net, left, right, 0.5, interrupt, seen=seen)

        if net.layout.takes_time:
            if isinstance(timestep, Tensor):
                timestep = timestep.to(net.device, net.exact)[None, None]
            return self._legacy_between(net, a, b, timestep, interrupt)
        if isinstance(timestep, Tensor):
            raise OptionError(
                f"timestep must be one number for {title_of(net.layout)}, got one for every pixel; models from 4.0 on "
                "take that"
            )
        time = reachable(timestep)
        if time != timestep:
            tell_inexact(title_of(net.layout))
        return self.halves.reach(pair, a, b, time, middle)

    def _legacy_between(
        self,
        net: LegacyNet,
        a: _Prepared,
        b: _Prepared,
        timestep: float | Tensor,
        interrupt: Callable[[], None],
        *,
        seen: bool = False,
    ) -> _Prepared:
        """A frame between two in exact planes: not rounded, so that nothing is lost where it is halved again.

        The network's picture is its own blend with what its refinement adds. Native planes are warped themselves, and
        what the refinement adds is converted to their colour space.

        Args:
            seen: whether the network will see the frame, which is then its picture with the padding.
        """
        found = self._estimate_legacy(net, a, b, timestep, interrupt)
        view = self._cropped(found.flow), self._cropped(found.mask)
        left, right = _exact(a), _exact(b)
        shown = self.fmt.family == "RGB" and self.fmt.floating
        image = None
        if seen or shown:
            image = legacy.blended(a.source.stack, b.source.stack, found) if found.image is None else found.image
        if shown and image is not None:
            planes: Planes = torch.split(self._cropped(image), 1, dim=1)
        else:
            planes = self._native(left, right, view)
            if found.residual is not None:
                planes = self._corrected(planes, left, right, view, self._cropped(found.residual))
        carried = [
            self._native(x, y, self._resized(view, x.fmt)) for x, y in zip(left.carried, right.carried, strict=True)
        ]
        frame = left.made(planes, carried)
        if seen and image is not None:
            frame.see(image)
        return frame

    def _corrected(self, planes: Planes, a: _Prepared, b: _Prepared, view: View, residual: Tensor) -> Planes:
        """The planes with what a refinement adds, but for what cannot have moved."""
        more = difference_in_planes(residual, self.fmt, a.color, self.net.ops)
        views = self._plane_views(self.fmt, a.color, view)
        return tuple(
            plane + extra.masked_fill(still(self.net.ops.calm(x, y), flow), 0)
            for plane, extra, x, y, (flow, _) in zip(planes, more, a.planes, b.planes, views, strict=True)
        )

    def _estimate_legacy(
        self, net: LegacyNet, a: _Prepared, b: _Prepared, timestep: float | Tensor, interrupt: Callable[[], None]
    ) -> legacy.Estimate:
        times = self._padded_times(timestep, a.source.image) if isinstance(timestep, Tensor) else timestep
        if self.averaging is None:
            found = net.estimate(a.source, b.source, times, interrupt)
        else:
            found = tta.estimate_legacy(net, a.sources, b.sources, times, self.averaging, interrupt)
        if not isinstance(times, Tensor):
            return found
        source = (times == 0) | (times == 1)
        residual = None if found.residual is None else found.residual.masked_fill(source, 0)
        mask = torch.where(source, CERTAIN_LOGIT * (1 - 2 * times), found.mask)
        return legacy.Estimate(found.flow.masked_fill(source, 0), mask, residual)


def most_at_once(net: Network, averaging: Averaging | None) -> int:
    """How many times between two frames are worth computing together.

    On CPUs that was seen to save nothing. Ensembles fill the batch with their passes, and the second try of 4.0 and 4.1
    is decided for one time.
    """
    if isinstance(net, LegacyNet) or averaging is not None or net.ensemble or net.layout.rescales:
        return 1
    return MOST_AT_ONCE if net.device.type == "cuda" else 1


def _times(net: FoldedNet, timesteps: Sequence[float]) -> Tensor:
    """(N, 1, 1, 1). By filling: a copy of numbers would wait for the device."""
    filled = [torch.full((1, 1, 1, 1), time, dtype=net.exact, device=net.device) for time in timesteps]
    return torch.cat(filled)


@functools.lru_cache(maxsize=32)
def _factors(x: float, y: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, 1, 1), for the components of a flow. Kept, because making it waits for the device."""
    return torch.tensor((x, y) * 2, device=device, dtype=dtype)[:, None, None]


def _flow_and_mask(
    net: FoldedNet, stack0: Tensor, parts0: Tensor, stack1: Tensor, parts1: Tensor, timestep: Tensor
) -> View:
    """At every pixel of the padded pictures."""
    field = pyramid.estimate(net, pyramid.Source(stack0, parts0), pyramid.Source(stack1, parts1), timestep)
    return field.flow(), field.mask(*field.size)


def _exact(frame: _Prepared) -> _Prepared:
    """The frame with planes of the dtype that is computed in; it shares what the network sees."""
    return frame.made(
        tuple(plane.to(frame.net.exact) for plane in frame.planes),
        [tuple(plane.to(frame.net.exact) for plane in extra.planes) for extra in frame.carried],
    )


def _samples(frame: _Prepared) -> Planes:
    """The planes of a frame in its format's own samples."""
    return tuple(plane if plane.dtype == frame.fmt.dtype else to_samples(plane, frame.fmt) for plane in frame.planes)


def brought(flow: Tensor, share: Tensor, *, to_right: bool) -> View:
    """Flow and share of a time in between at the pixels of one of the two pictures."""
    own, other = (flow[:, 2:], flow[:, :2]) if to_right else (flow[:, :2], flow[:, 2:])
    offset = -own  # from a pixel of the picture to where it is at the time in between
    for _ in range(BRINGING_STEPS):
        offset = -warp_by_flow(own, offset)
    other = warp_by_flow(other, offset) + offset
    still = torch.zeros_like(other)
    return torch.cat((other, still) if to_right else (still, other), dim=1), warp_by_flow(share, offset)
