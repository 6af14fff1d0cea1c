"""A Ray cluster: joining it, its nodes, and questions to all of them at once."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from vsrife.errors import DeviceError

LOCAL = "local"  # the address that stands for all devices of this machine


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

    def beside(self, name: str) -> dict[str, Any]:
        """Ray's options for what takes no device: it runs beside the segments."""
        return {"name": name, "num_cpus": 0, "max_retries": 0, "scheduling_strategy": self.affinity}


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
            address=address, log_to_driver=False, configure_logging=False,
            include_dashboard=None if address == LOCAL else False,
        )  # fmt: skip
    except Exception as error:  # Ray raises bare ones, too
        raise DeviceError(
            f"no Ray cluster at {address!r}, got: {first_line(error)}; start one with `ray start --head`, or use "
            "--farm local"
        ) from error


def nodes() -> list[Node]:
    """The nodes that are alive and have cores for work.

    Raises:
        DeviceError: there is none.
    """
    found = alive()
    if not found:
        raise DeviceError("the Ray cluster has no node with cores for work; add one with `ray start --address=...`")
    return found


def alive() -> list[Node]:
    """As `nodes`; may be empty."""
    found = []
    rows: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for row in rows:
        resources = row["Resources"]
        if row["Alive"] and resources.get("CPU", 0) >= 1:
            name = f"{row['NodeManagerHostname']}/{row['NodeID'][:6]}"
            found.append(Node(row["NodeID"], name, int(resources["CPU"]), int(resources.get("GPU", 0))))
    return sorted(found, key=lambda node: (-node.gpus, node.name))


def ask(nodes: Sequence[Node], name: str, function: Callable[..., Any], *args: object, seconds: float) -> list[Any]:
    """Call a function on all nodes at once.

    Args:
        nodes: of the cluster.
        name: what Ray's dashboard shows.
        function: of a module that the nodes have.
        args: of the function.
        seconds: to wait for answers.

    Returns:
        For each node what the function returned, or the exception.
    """
    task = ray.remote(function)
    waiting = [task.options(**node.beside(name)).remote(*args) for node in nodes]
    ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=seconds) if waiting else ([], [])
    answers: list[Any] = []
    for reference in waiting:
        if reference not in ready:
            answers.append(TimeoutError(f"no answer in {seconds:.0f} s"))
            ray.cancel(reference, force=True)
            continue
        try:
            answers.append(ray.get(reference))
        except ray.exceptions.RayTaskError as error:
            answers.append(error.cause or error)
        except ray.exceptions.RayError as error:
            answers.append(error)
    return answers


def versions() -> dict[str, str]:
    """Versions that decide on the result."""
    python = ".".join(platform.python_version_tuple()[:2])
    vapoursynth = str(vs.__version__.release_major)
    plugin = getattr(vs.core, "bs", None)
    source = "none" if plugin is None else f"{plugin.version.major}.{plugin.version.minor}"
    return {
        "vsrife": __version__, "Python": python, "PyTorch": torch.__version__, "VapourSynth": vapoursynth,
        "PyAV": av.__version__, "BestSource": source,
    }  # fmt: skip


def first_line(error: BaseException) -> str:
    """The line of an error that says most: of Ray's, which hold tracebacks, the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
