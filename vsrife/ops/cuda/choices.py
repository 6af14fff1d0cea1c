"""The fastest of several ways to do the same on a device: measured at first use, remembered in a file.

A file belongs to one kind of device with one set of versions. Deleting it is safe at any time: what is not known is
measured again.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

Times = dict[str, dict[str, float]]  # milliseconds by way, by task; infinite for ways that do not work
BUDGET_SECONDS = 2.0  # of one process: the first frame waits for it


class Choices:
    """Which way is fastest for each task. Thread-safe; several processes may use one file.

    Args:
        path: where times are kept; None keeps them in memory alone.
        budget_seconds: for all but the first two ways of each task; what it does not suffice for is left to a later
            process.
    """

    def __init__(self, path: Path | None, budget_seconds: float = BUDGET_SECONDS) -> None:
        self._path, self._left = path, budget_seconds
        self._lock = threading.RLock()  # a way may consist of tasks of its own
        self._times = _read(path)

    def fastest(self, task: str, ways: Sequence[str], milliseconds: Callable[[str], float]) -> str:
        """The way that took least; measures those of `ways` that are not known, most likely ones first."""
        with self._lock:
            known = self._times.setdefault(task, {})
            new = [way for way in ways if way not in known]
            for way in new:
                in_any_case = way in ways[:2]
                if in_any_case or self._left > 0:
                    start = time.monotonic()
                    known[way] = milliseconds(way)
                    self._left -= 0 if in_any_case else time.monotonic() - start
            if new:
                self._keep()
            return min((way for way in ways if way in known), key=known.__getitem__)

    def needed(self, task: str, ways: Sequence[str]) -> list[str]:
        """Those of `ways` that `fastest` or what it chooses will run, whatever the budget."""
        with self._lock:
            known = self._times.get(task, {})
            seen = [way for way in ways if way in known]
            return [way for way in ways[:2] if way not in known] + sorted(seen, key=known.__getitem__)[:1]

    def _keep(self) -> None:
        """Write all times, with those that another process has written meanwhile."""
        if self._path is None:
            return
        for task, ways in _read(self._path).items():
            own = self._times.setdefault(task, {})
            own.update(ways | own)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(_text(self._times), encoding="utf-8")
            part.replace(self._path)
        except OSError as error:
            logger.debug("times of kernels are not kept: %s", error)


def _text(times: Times) -> str:
    """JSON, which knows no infinity: null stands for it."""
    finite = {
        task: {way: round(ms, 5) if math.isfinite(ms) else None for way, ms in ways.items()}
        for task, ways in times.items()
    }
    return json.dumps(finite, indent=1, sort_keys=True)


def _read(path: Path | None) -> Times:
    """What a file holds; nothing where it is missing or broken."""
    if path is None or not path.exists():
        return {}
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return {
            task: {way: math.inf if ms is None else float(ms) for way, ms in ways.items()}
            for task, ways in stored.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        logger.debug("times of kernels in %s are measured again: %s", path, error)
        return {}


def facts(device: torch.device) -> Mapping[str, str]:
    """What times on a CUDA device depend on."""
    import triton  # here, since PyTorch brings it along on Linux only

    major, minor = torch.cuda.get_device_capability(device)
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: "")()
    return {
        "": torch.cuda.get_device_name(device),
        "cc": f"{major}.{minor}",
        "torch": torch.__version__,
        "cudnn": str(cudnn),
        "triton": triton.__version__,
        "driver": str(driver),
    }


def versions(distribution: str) -> list[str]:
    """The version of an optional library that is installed, or none."""
    try:
        return [version(distribution)]
    except PackageNotFoundError:
        return []


def file_for(known: Mapping[str, str]) -> Path | None:
    """Where times for such a device are kept: in the user's cache directory."""
    try:
        import platformdirs  # here, so that a network can be measured where only PyTorch is installed
    except ImportError:
        return None
    name = "-".join(re.sub(r"[^\w.+]+", "_", name + value) for name, value in known.items())
    return platformdirs.user_cache_path("vsrife", appauthor=False) / "kernels" / f"{name}.json"


@lru_cache(maxsize=8)
def choices_on(device: torch.device) -> Choices:
    """The choices for a CUDA device."""
    return Choices(file_for(facts(device)))
