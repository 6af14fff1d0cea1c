"""A Ray cluster: joining it, its nodes, and whether they can do the work."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"
)  # tasks without a GPU see none; what Ray will default to

import av
import ray
import torch
import vapoursynth as vs
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vsrife._version import __version__
from vsrife.errors import DeviceError, OptionError

LOCAL = "local"  # the address that stands for all devices of this machine
PROBE_SECONDS = 120.0  # a node has to import vsrife in this time


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster.

    Attributes:
        id: Ray's.
        name: host name and the beginning of the id.
        cpus: cores that Ray may use.
        gpus: GPUs that Ray may use.
    """

    id: str
    name: str
    cpus: int
    gpus: int

    @property
    def slots(self) -> int:
        """Segments at a time: one for each GPU; without a GPU one, which uses all cores."""
        return self.gpus or 1

    @property
    def affinity(self) -> NodeAffinitySchedulingStrategy:
        """Ray's strategy that runs a task on this node or not at all."""
        return NodeAffinitySchedulingStrategy(self.id, soft=False)

    def options(self, name: str) -> dict[str, Any]:
        """Ray's options for a segment on this node; `name` is what its dashboard shows."""
        cpus = max(1, self.cpus // self.slots)
        return {
            "name": name, "num_cpus": cpus, "num_gpus": 1 if self.gpus else 0, "max_retries": 0,
            "scheduling_strategy": self.affinity,
        }  # fmt: skip


def connect(address: str) -> None:
    """Join a cluster, unless this process already belongs to one.

    Args:
        address: "local" starts one of this machine's devices, "auto" finds one that runs on this machine,
            "ray://host:10001" is another's.

    Raises:
        DeviceError: nothing answers there.
    """
    if ray.is_initialized():
        return
    try:
        ray.init(
            address=None if address == LOCAL else address, log_to_driver=False, configure_logging=False,
            include_dashboard=None if address == LOCAL else False,
        )  # fmt: skip
    except Exception as error:  # Ray raises bare ones, too
        raise DeviceError(
            f"no Ray cluster at {address!r}, got: {_first_line(error)}; start one with `ray start --head`, or use "
            "--farm local"
        ) from error


def nodes() -> list[Node]:
    """The nodes that are alive and have cores for work."""
    found = []
    rows: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for row in rows:
        resources = row["Resources"]
        if row["Alive"] and resources.get("CPU", 0) >= 1:
            name = f"{row['NodeManagerHostname']}/{row['NodeID'][:6]}"
            found.append(Node(row["NodeID"], name, int(resources["CPU"]), int(resources.get("GPU", 0))))
    return sorted(found, key=lambda node: (-node.gpus, node.name))


def check(node: Node, inputs: Sequence[Path]) -> str | None:
    """What keeps a node from working, with the remedy; None if nothing does.

    Args:
        node: a node of the cluster.
        inputs: files that it must see.
    """
    task = ray.remote(num_cpus=0, max_retries=0)(_probe)
    probe = task.options(name="check versions", scheduling_strategy=node.affinity)
    try:
        theirs, unseen = ray.get(probe.remote([str(path) for path in inputs]), timeout=PROBE_SECONDS)
    except ray.exceptions.RayError as error:
        return f"{node.name} cannot run vsrife, got: {_first_line(error)}; install the same packages there"
    for name, ours in versions().items():
        if theirs[name] != ours:
            return f"{node.name} has {name} {theirs[name]}, this machine {ours}; install the same version on both"
    if unseen:
        return f"{node.name} does not see {unseen[0]}; give --ship to send it, or a path on a shared disk"
    return None


def versions() -> dict[str, str]:
    """Versions that decide on the result."""
    python = ".".join(platform.python_version_tuple()[:2])
    vapoursynth = str(vs.__version__.release_major)
    return {
        "vsrife": __version__, "Python": python, "PyTorch": torch.__version__, "VapourSynth": vapoursynth,
        "PyAV": av.__version__,
    }  # fmt: skip


def _probe(paths: Sequence[str]) -> tuple[Mapping[str, str], list[str]]:
    return versions(), [path for path in paths if not Path(path).exists()]


def require_ready(inputs: Sequence[Path]) -> list[Node]:
    """All nodes, checked.

    Raises:
        OptionError: a node has other versions, or does not see an input.
        DeviceError: there is no node with cores.
    """
    found = nodes()
    if not found:
        raise DeviceError("the Ray cluster has no node with cores for work; add one with `ray start --address=...`")
    for node in found:
        if problem := check(node, inputs):
            raise OptionError(problem)
    return found


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
