"""Real-time playback, `RIFE(..., realtime=True)`: networks from best to cheapest, and the pace that chooses among them.

Frames are no longer a function of the clip and the arguments alone: which of them are interpolated, and in which
quality, depends on how fast the machine is at that moment.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch
import vapoursynth as vs

from vsrife.checkpoints.finding import default_model, find_weights
from vsrife.engine.devices import parse_precision
from vsrife.engine.engine import Engine
from vsrife.engine.formats import Colorimetry
from vsrife.engine.loaded import NetworkOptions
from vsrife.engine.sources import InputFrame
from vsrife.errors import OptionError, WeightsError
from vsrife.networks.cancellation import Cancellation, never
from vsrife.timing.pace import Pace

QUALITY = "RifeQuality"  # frame prop of new frames: index of the network, 0 the best; -1: a source frame is shown
LIGHTER = ("lite", "fast")  # bundled models, from slow to fast
_LEAST_SCALE = 0.5  # a lower one saves little
_REPORTED_FRAMES = 48  # shorter playbacks, such as between two seeks, are not reported

_rungs: dict[Hashable, int] = {}  # where the last playback of the same kind ended: players reload the script at a seek


def ladder(best: NetworkOptions) -> tuple[NetworkOptions, ...]:
    """Networks for real-time playback, from slow to fast: the given one, at half the flow scale, then smaller models.

    Small models take about as long as each other, and much less at half the flow scale: that comes after them. They
    run in the fastest precision that keeps their quality, unless the given one is faster.
    """
    name = str(best.model or default_model().name)
    plain = replace(best, ensemble=False, tta=False, tta_temporal=False)
    scales = [best.scale] + [best.scale / 2] * (best.scale > _LEAST_SCALE)
    if name in LIGHTER:
        own, small = [], [best.model, *LIGHTER[LIGHTER.index(name) + 1 :]]
    else:
        own, small = [replace(plain, scale=scale) for scale in scales], [*LIGHTER]
    small = [model for model in small if model == best.model or _is_installed(str(model))]
    cheaper = [
        replace(plain, model=model, scale=scale, dtype=best.dtype if model == best.model else _dtype(best, str(model)))
        for scale in scales
        for model in small
    ]
    return tuple(dict.fromkeys([best, *own, *cheaper]))


def _dtype(best: NetworkOptions, bundled: str) -> torch.dtype:
    return best.dtype if best.dtype is torch.int8 else parse_precision(None, best.device, bundled=bundled)


def _is_installed(model: str) -> bool:
    try:
        find_weights(model)
    except (OptionError, WeightsError):
        return False
    return True


def prepare(engine: Engine) -> None:
    """Interpolate noise, so that code is imported and compiled before the player's clock starts.

    It holds up every thread, and with it frames that need no computing, for a quarter of a second.
    """
    random = np.random.default_rng(0)
    fmt = engine.fmt
    pictures = []
    for key in range(2):
        planes = []
        for plane in range(fmt.num_planes):
            down = (fmt.subsampling_h, fmt.subsampling_w) if plane else (0, 0)
            samples = random.random((fmt.height >> down[0], fmt.width >> down[1]))
            planes.append(((1 if fmt.floating else fmt.peak) * samples).astype(str(fmt.dtype).removeprefix("torch.")))
        pictures.append(InputFrame(key, planes, Colorimetry.from_props({}, fmt)))
    engine.interpolate(pictures[0], pictures[1], 0.5, never)


class Playback:
    """One playback: its pace, and an engine for each network that was needed so far.

    Args:
        networks: best first.
        make_engine: loads a network; called on the worker thread, except for `first`.
        first: the engine of the best network.
        kind: playbacks of equal kind start where the last one ended.
    """

    def __init__(
        self,
        networks: Sequence[NetworkOptions],
        make_engine: Callable[[NetworkOptions], Engine],
        first: Engine,
        kind: Hashable,
    ) -> None:
        self.networks = networks
        self.pace = Pace(len(networks), start=_rungs.get(kind, 0))
        self._make_engine = make_engine
        self._engines = {0: first}
        self._warm: set[int] = set()
        finalizer = weakref.finalize(self, _report, self.pace, networks, kind)
        vs.register_on_destroy(finalizer)

    def run[Result](
        self, quality: int, work: Callable[[Engine, Cancellation], Result], cancellation: Cancellation
    ) -> Result:
        """Compute a frame in a quality and measure it. On the worker thread alone.

        The first frame of a network, which loads and compiles it, is never abandoned.
        """
        if quality not in self._engines:
            self._engines[quality] = self._make_engine(self.networks[quality])
        start, finished = time.monotonic(), False
        try:
            result = work(self._engines[quality], cancellation if quality in self._warm else never)
            self._warm.add(quality)
            finished = True
            return result
        finally:
            self.pace.computed(quality, time.monotonic() - start, finished=finished)

    def status(self) -> str:
        """Two lines about the playback so far."""
        return _status(self.pace, self.networks)


def _status(pace: Pace, networks: Sequence[NetworkOptions]) -> str:
    counts, rung = pace.counts, pace.rungs[pace.rung]
    total = counts.interpolated + counts.repeated
    if not rung.every:
        now = "too slow: source frames only"
    else:
        chosen = networks[rung.quality]
        every = "" if rung.every == 1 else ", every second new frame"
        now = f"{chosen.model or 'default model'} at scale {chosen.scale:g}{every}"
    return f"{counts.interpolated} of {total} new frames interpolated ({100 * counts.share:.0f} %)\n{now}"


def _report(pace: Pace, networks: Sequence[NetworkOptions], kind: Hashable) -> None:
    """Print the statistics of a playback, and remember where it ended."""
    _rungs[kind] = pace.rung
    if pace.counts.interpolated + pace.counts.repeated >= _REPORTED_FRAMES and sys.stderr is not None:
        sys.stderr.write(f"RIFE: {_status(pace, networks).replace(chr(10), '; last: ')}\n")
