"""Networks loaded in this process, shared by its filters and calls.

They stay loaded for a while after the last use, because players create the filter anew at every seek.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Unpack

import torch

from vsrife.checkpoints.finding import bundled_name, files_of, find_weights
from vsrife.checkpoints.loading import Network, load_model
from vsrife.engine.cache import Cache
from vsrife.engine.devices import parse_device, parse_devices, parse_precision, parse_scale
from vsrife.engine.forward import Forward, PyramidForward
from vsrife.engine.keywords import NetworkKeywords
from vsrife.engine.legacy import LegacyForward
from vsrife.networks.legacy import LegacyNet
from vsrife.networks.tta import ORIENTATIONS, UPRIGHT, Averaging

NETWORKS_KEPT = 2
_networks: OrderedDict[tuple[Any, ...], Network] = OrderedDict()  # least recently used first
_networks_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """Checked `NetworkKeywords`: which network to load, for which device, and which passes to average.

    Attributes:
        dtype: of the convolutions.
    """

    model: str | Path | None
    scale: float
    ensemble: bool
    device: torch.device
    dtype: torch.dtype
    tta: bool = False
    tta_temporal: bool = False

    @classmethod
    def of(cls, **keywords: Unpack[NetworkKeywords]) -> NetworkOptions:
        """Check the keywords of a call that runs on one device.

        Raises:
            OptionError, DeviceError: a keyword is out of range, or the device is absent.
        """
        on_one: NetworkKeywords = {**keywords, "device": parse_device(keywords.get("device"))}
        (options,) = cls.for_devices(**on_one)
        return options

    @classmethod
    def for_devices(cls, **keywords: Unpack[NetworkKeywords]) -> tuple[NetworkOptions, ...]:
        """Check the keywords of a call whose `device` may name several devices; one result for each.

        Raises:
            OptionError, DeviceError: a keyword is out of range, or a device is absent.
        """
        devices = parse_devices(keywords.get("device"))
        first = cls(
            model=keywords.get("model"),
            scale=parse_scale(keywords.get("scale", 1.0)),
            ensemble=bool(keywords.get("ensemble")),
            device=devices[0],
            dtype=parse_precision(keywords.get("precision"), *devices, bundled=bundled_name(keywords.get("model"))),
            tta=bool(keywords.get("tta")),
            tta_temporal=bool(keywords.get("tta_temporal")),
        )
        return tuple(replace(first, device=device) for device in devices)

    @property
    def averaging(self) -> Averaging | None:
        """The passes to average after each block; None: a single pass, or the network's own ensemble."""
        if not (self.tta or self.tta_temporal):
            return None
        return Averaging(ORIENTATIONS if self.tta else (UPRIGHT,), self.tta_temporal or self.ensemble)


def network(options: NetworkOptions) -> Network:
    """Return the network for these options, loaded once per process.

    The `NETWORKS_KEPT` most recently used of each device stay loaded. Thread-safe. A file that has changed on disk is
    loaded again.

    Raises:
        WeightsError: the weights are missing or not usable.
        OptionError: the model supports no ensemble, or not this precision.
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
    """Unload networks that are not in use."""
    with _networks_lock:
        loaded = [(key, weakref.ref(net)) for key, net in _networks.items()]
        _networks.clear()
        _networks.update((key, net) for key, reference in loaded if (net := reference()) is not None)


def forward_for(net: Network, averaging: Averaging | None, cache: Cache) -> Forward:
    """Make the forward of a network for one engine."""
    if isinstance(net, LegacyNet):
        return LegacyForward(net, averaging, cache)
    return PyramidForward(net, averaging, cache)


def _load(options: NetworkOptions) -> Network:
    weights = load_model(options.model)
    if options.ensemble:
        weights.check_ensemble()
    return weights.build(
        scale=options.scale,
        ensemble=options.ensemble and options.averaging is None,
        device=options.device,
        dtype=options.dtype,
    )
