"""Source frames on the device, and what is shown of two once their motion is known."""

from __future__ import annotations

import copy
import functools
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from vsrife.engine.color import chroma_in_luma, resized, rgb_transform, to_samples
from vsrife.engine.formats import Colorimetry, PictureFormat
from vsrife.engine.loaded import Network
from vsrife.engine.transfer import Planes, Transfer
from vsrife.networks import pyramid
from vsrife.networks.fold import FoldedNet
from vsrife.networks.legacy import LegacyNet
from vsrife.networks.tta import UPRIGHT
from vsrife.networks.tta import View as Orientation

View = tuple[Tensor, Tensor]  # flow (1, 4, H, W) and mask logits (1, 1, H, W) at the samples of a picture

CERTAIN_LOGIT = 100.0  # of a mask that takes all from one picture: its share is exactly 1 or as good as 0
ROWS_COMPARED = 64  # at once: most frames differ in the first of them


@dataclass(frozen=True, slots=True)
class InputFrame:
    """One source frame as it comes.

    Attributes:
        key: the same for equal pictures of one engine only, e.g. the frame's number.
        planes: per plane (h, w) in the clip's own samples; only read. Tensors may lie on the network's device.
        color: how to read them.
    """

    key: Hashable
    planes: Sequence[NDArray[Any] | Tensor]
    color: Colorimetry
    carried: tuple[InputFrame, ...] = ()  # moved along with it; their keys do not matter

    def equals(self, other: InputFrame) -> bool:
        """Whether all samples are the same, those carried aside. On arrays no device is waited for."""
        return all(_equal(a, b) for a, b in zip(self.planes, other.planes, strict=True))


def _equal(a: NDArray[Any] | Tensor, b: NDArray[Any] | Tensor) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    starts = range(0, len(a), ROWS_COMPARED)
    return all(np.array_equal(a[i : i + ROWS_COMPARED], b[i : i + ROWS_COMPARED]) for i in starts)


class Prepared:
    """Everything that depends on one frame alone: its planes on the device and, once needed, the network's view.

    Not thread-safe: belongs to one engine's thread.
    """

    def __init__(
        self,
        net: Network,
        fmt: PictureFormat,
        picture: InputFrame,
        transfer: Transfer,
        carried: Sequence[PictureFormat] = (),
        views: Sequence[Orientation] = (UPRIGHT,),
    ) -> None:
        self.net, self.fmt, self.color = net, fmt, picture.color
        self.planes: Planes = tuple(transfer.upload(plane)[None, None] for plane in picture.planes)
        extras = zip(carried, picture.carried, strict=True)
        self.carried = tuple(Prepared(net, fmt, extra, transfer) for fmt, extra in extras)
        self.views = views
        self._sources: tuple[Any, ...] = ()
        self._static_radius: tuple[Callable[[], Prepared | None], Planes] = (lambda: None, ())

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
                self._sources = (self._encoded(self.net),)
        return self._sources

    def _encoded(self, net: FoldedNet) -> pyramid.Source:
        frame = pyramid.Frame(self.planes, rgb_transform(self.fmt, self.color, *self._kind), self._padded_size)
        return pyramid.encode(net, frame)

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
        return self.net.ops.planes_to_rgb(self.planes, rgb_transform(self.fmt, self.color, device, dtype), False, image)

    def see(self, image: Tensor) -> None:
        """Take (1, 3, H, W) at the padded size for what the network sees."""
        encode = self.net.encode if isinstance(self.net, LegacyNet) else functools.partial(pyramid.encode, self.net)
        self._sources = tuple(encode(view.turn(image).contiguous()) for view in self.views)

    def made(self, planes: Planes, carried: Sequence[Planes]) -> Prepared:
        """A frame of the same kind with other planes, which may be of another dtype."""
        frame = copy.copy(self)
        frame.planes, frame._sources, frame._static_radius = planes, (), (lambda: None, ())
        frame.carried = tuple(own.made(new, ()) for own, new in zip(self.carried, carried, strict=False))
        return frame

    def static_radius_towards(self, other: Prepared) -> Planes:
        """How far around each sample both are equal, per plane; the same for every time between the two."""
        if self._static_radius[0]() is not other:
            planes = zip(self.planes, other.planes, strict=True)
            self._static_radius = weakref.ref(other), tuple(self.net.ops.static_radius(a, b) for a, b in planes)
        return self._static_radius[1]

    def equals(self, other: Prepared) -> bool:
        return all(torch.equal(a, b) for a, b in zip(self.planes, other.planes, strict=True))


def cropped(image: Tensor, fmt: PictureFormat) -> Tensor:
    """Without the padding."""
    return image[..., : fmt.height, : fmt.width]


def padded_times(timestep: Tensor, fmt: PictureFormat, padded: Tensor) -> Tensor:
    """A time for every pixel, (1, 1, H, W), at the size of a padded picture."""
    height, width = padded.shape[-2:]
    return F.pad(timestep, (0, width - fmt.width, 0, height - fmt.height), mode="replicate")


def shown(a: Prepared, b: Prepared, view: View) -> Planes:
    """The planes between two frames."""
    return (published if a.fmt.family == "RGB" and a.fmt.floating else native)(a, b, view)


def published(a: Prepared, b: Prepared, view: View) -> Planes:
    """The network's own blend of its clamped, zero padded frames, as the published forward shows it."""
    flow, mask = view
    image = a.net.ops.blend(a.shown, b.shown, flow, torch.sigmoid(mask))
    return tuple(to_samples(plane, a.fmt) for plane in torch.split(image, 1, dim=1))


def native(a: Prepared, b: Prepared, view: View) -> Planes:
    """The planes as they are, each warped at its own size and depth."""
    rest = zip(a.planes, b.planes, plane_views(a, view), a.static_radius_towards(b), strict=True)
    return tuple(a.net.ops.blend_plane(x, y, *own, radius, a.fmt.peak) for x, y, own, radius in rest)


def plane_views(frame: Prepared, view: View) -> Sequence[View]:
    """Flow and mask for each plane of a frame, given those of its first."""
    fmt, net = frame.fmt, frame.net
    if not fmt.subsampled(1):
        return (view,) * fmt.num_planes
    grid = chroma_in_luma(fmt, frame.color, net.device)
    flow, mask = (grid.read(image, net.ops) for image in view)
    chroma = flow / _factors(1 << fmt.subsampling_w, 1 << fmt.subsampling_h, flow.device, flow.dtype), mask
    return view, chroma, chroma


def resized_view(frame: Prepared, fmt: PictureFormat, view: View) -> View:
    """Flow and mask for a carried picture of another size that shows the same as the frame."""
    own = frame.fmt
    if (fmt.width, fmt.height) == (own.width, own.height):
        return view
    flow, mask = (resized(own, fmt, frame.net.device).read(image, frame.net.ops) for image in view)
    return flow * _factors(fmt.width / own.width, fmt.height / own.height, flow.device, flow.dtype), mask


@functools.lru_cache(maxsize=32)
def _factors(x: float, y: float, device: torch.device, dtype: torch.dtype) -> Tensor:
    """(4, 1, 1), for the components of a flow. Kept, because making it waits for the device."""
    return torch.tensor((x, y) * 2, device=device, dtype=dtype)[:, None, None]
