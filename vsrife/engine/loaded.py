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

from vsrife.checkpoints.finding import files_of, find_weights
from vsrife.checkpoints.loading import Network as Network
from vsrife.checkpoints.loading import load_model
from vsrife.engine.devices import parse_device, parse_devices, parse_precision, parse_scale
from vsrife.engine.keywords import NetworkKeywords
from vsrife.networks.tta import ALL_VIEWS, UPRIGHT, Averaging

NETWORKS_KEPT = 2
_networks: OrderedDict[tuple[Any, ...], Network] = OrderedDict()  # least recently asked for first
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
        (options,) = cls.for_devices(**{**keywords, "device": parse_device(keywords.get("device"))})
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
            dtype=parse_precision(keywords.get("precision"), *devices),
            tta=bool(keywords.get("tta")),
            tta_temporal=bool(keywords.get("tta_temporal")),
        )
        return tuple(replace(first, device=device) for device in devices)

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
    if options.ensemble:
        weights.check_ensemble()
    return weights.build(
        scale=options.scale,
        ensemble=options.ensemble and options.averaging is None,
        device=options.device,
        dtype=options.dtype,
    )
