"""Hands the segments of a run to the nodes of a cluster until all are there."""

from __future__ import annotations

import statistics
import threading
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray

from vsrife.checkpoints.finding import files_of, find_weights
from vsrife.errors import DeviceError, MediaError
from vsrife.farm import cluster, shipping
from vsrife.farm.cluster import Node
from vsrife.farm.worker import SharedJob, make_segment
from vsrife.files import atomic_write
from vsrife.video import job as single
from vsrife.video.job import Outcome, VideoJob
from vsrife.video.reporting import Reporter
from vsrife.video.resume import Segments, read_footer


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When to try again.

    Attributes:
        attempts: of a segment before it is given up.
        first_seconds: for a segment while the pace of the cluster is unknown.
        least_seconds: for a segment afterwards; opening a source takes its time.
        slowdown: times its expected duration after which a segment is taken for hanging.
        nodes_seconds: between two looks for new and lost nodes.
        poll_seconds: between two looks at whether the run is to stop.
    """

    attempts: int = 3
    first_seconds: float = 3600.0
    least_seconds: float = 120.0
    slowdown: float = 10.0
    nodes_seconds: float = 5.0
    poll_seconds: float = 0.2


@dataclass(frozen=True, slots=True)
class Attempt:
    """A segment on its way.

    Attributes:
        start: first frame of the segment.
        node: where it is made.
        began: seconds of the monotonic clock.
    """

    start: int
    node: Node
    began: float


class Farm:
    """Runs jobs on a Ray cluster. Thread-safe: several jobs share the nodes.

    Args:
        address: as for `cluster.connect`.
        ship: send inputs to the nodes, instead of relying on paths that all of them see.
        limits: when to try again.

    Raises:
        DeviceError: no cluster answers.
    """

    def __init__(self, address: str, *, ship: bool = False, limits: Limits | None = None) -> None:
        cluster.connect(address)
        self.ship, self.limits = ship, limits or Limits()
        self._busy: Counter[str] = Counter()  # segments on each node, of all runs
        self._lock = threading.Lock()

    def run(self, job: VideoJob, report: Reporter) -> Outcome:
        """Make a file as `video.job.run` does, its segments on the cluster. The result is the same to the byte.

        Raises:
            OptionError: a node has other versions, or does not see the input.
            MediaError: a segment failed on every attempt; the others are kept for `resume`.
            DeviceError: all nodes are lost.
        """
        ready = cluster.require_ready(() if self.ship else job.inputs)
        devices = sum(node.slots for node in ready)
        names = ", ".join(node.name for node in ready)
        report.say(f"nodes: {len(ready)}, devices: {devices}: {names}")
        return single.run(job, report, produce=partial(self._produce, ready))

    def _produce(self, ready: Sequence[Node], job: VideoJob, segments: Segments, report: Reporter) -> Iterator[Path]:
        """Make the missing segments, then yield the paths up to the first that is missing after an interruption."""
        if len(segments.done()) < len(segments.starts()):
            run = uuid.uuid4().hex[:12]
            shared = SharedJob(
                run=run, job=job, inputs=tuple(map(shipping.ship, job.inputs)) if self.ship else (),
                model=tuple(map(shipping.ship, files_of(find_weights(job.video.network.get("model"))))),
                length=segments.length, frames=segments.frames,
            )  # fmt: skip
            dispatch = _Dispatch(self, ray.put(shared), job, segments, report, list(ready))
            try:
                dispatch.finish()
            finally:
                dispatch.clean_up(run)
        for start in segments.starts():
            if not segments.path(start).is_file():
                return
            yield segments.path(start)

    def take_slot(self, nodes: Sequence[Node], avoid: Sequence[Node] = ()) -> Node | None:
        """Reserve a free device, preferably of a node that is not to be avoided; None if all are busy."""
        with self._lock:
            free = [node for node in nodes if self._busy[node.id] < node.slots]
            chosen = next((node for node in free if node not in avoid), free[0] if free else None)
            if chosen is not None:
                self._busy[chosen.id] += 1
            return chosen

    def give_back(self, node: Node) -> None:
        with self._lock:
            self._busy[node.id] -= 1


@dataclass(slots=True)
class _Dispatch:
    """One run of `Farm`."""

    farm: Farm
    shared: Any  # a reference to the `SharedJob`
    job: VideoJob
    segments: Segments
    report: Reporter
    nodes: list[Node]
    pending: deque[int] = field(default_factory=deque)
    running: dict[Any, Attempt] = field(default_factory=dict)  # by the reference to the result
    attempts: Counter[int] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    failed_on: defaultdict[int, list[Node]] = field(default_factory=lambda: defaultdict(list))
    pace: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # s/frame, by node
    refused: set[str] = field(default_factory=set)  # nodes that joined and cannot do the work
    looked: float = 0.0
    retried: int = 0

    def finish(self) -> None:
        """Make every segment that is missing; return early if the run is to stop.

        Raises:
            MediaError: a segment failed on every attempt, or cannot be stored.
            DeviceError: no node is left.
        """
        done = set(self.segments.done())
        self.pending.extend(start for start in self.segments.starts() if start not in done)
        self.looked = time.monotonic()
        self._show()
        try:
            while (self.pending or self.running) and not self.report.stop():
                self._look_for_nodes()
                self._submit()
                self._collect()
                self._cancel_hanging()
        finally:
            for reference in list(self.running):
                self._drop(reference, cancel=True)
        if self.failures:
            reason = self.failures[min(self.failures)]
            frames = ", ".join(self._frames(start) for start in sorted(self.failures))
            raise MediaError(f"frames {frames} could not be made in {self.farm.limits.attempts} attempts: {reason}")

    def clean_up(self, run: str) -> None:
        """Delete what the run has left on the nodes; nodes that are gone or busy keep it."""
        remove = ray.remote(num_cpus=0, max_retries=0)(shipping.forget)
        waiting = [
            remove.options(name="clean up", scheduling_strategy=node.affinity).remote(run) for node in self.nodes
        ]
        ray.wait(waiting, num_returns=len(waiting), timeout=10.0)

    # --- steps of the loop ---

    def _look_for_nodes(self) -> None:
        if time.monotonic() - self.looked < self.farm.limits.nodes_seconds and self.nodes:
            return
        self.looked = time.monotonic()
        known = {node.id: node for node in self.nodes}
        alive = {node.id: node for node in cluster.nodes()}
        for lost in known.keys() - alive.keys():
            self.report.warn(f"node {known[lost].name} is lost; its segments are made elsewhere")
            for reference in [ref for ref, attempt in self.running.items() if attempt.node.id == lost]:
                self._again(self._drop(reference, cancel=False), counts=False)
        self.nodes = [node for node in self.nodes if node.id in alive]
        for new in alive.keys() - known.keys() - self.refused:
            if problem := cluster.check(alive[new], () if self.farm.ship else self.job.inputs):
                self.refused.add(new)
                self.report.warn(f"a new node is left out: {problem}")
            else:
                self.nodes.append(alive[new])
                self.report.say(f"node {alive[new].name} joins")
        if not self.nodes:
            raise DeviceError("all nodes are lost; start Ray again, and continue with --resume")

    def _submit(self) -> None:
        while self.pending or self.running:
            start = self.pending[0] if self.pending else None
            node = self.farm.take_slot(self.nodes, self.failed_on[start] if start is not None else ())
            if node is None:
                return
            if start is None:
                start = self._late_segment(node)
            elif self.pending:
                self.pending.popleft()
            if start is None:
                self.farm.give_back(node)
                return
            # max_calls: a process stays for the next segment, with its network loaded and its source open.
            task = ray.remote(max_calls=0)(make_segment).options(
                **node.options(f"{self.job.output.name} {self._frames(start)}")
            )
            self.running[task.remote(self.shared, start)] = Attempt(start, node, time.monotonic())

    def _late_segment(self, node: Node) -> int | None:
        """A segment that is made elsewhere once, and that this node would finish earlier: the end of a run does not
        wait for its slowest node."""
        mine = self.pace.get(node.id)
        if not mine:
            return None
        copies = Counter(attempt.start for attempt in self.running.values())
        now, late = time.monotonic(), []
        for attempt in self.running.values():
            need = statistics.median(mine) * self._length(attempt.start)
            theirs = self.pace.get(attempt.node.id)
            elapsed = now - attempt.began
            rest = statistics.median(theirs) * self._length(attempt.start) - elapsed if theirs else elapsed
            if copies[attempt.start] == 1 and attempt.node.id != node.id and (rest > need or rest < -need):
                late.append((attempt.began, attempt.start))
        return min(late)[1] if late else None

    def _collect(self) -> None:
        if not self.running:
            time.sleep(self.farm.limits.poll_seconds)
            return
        ready, _ = ray.wait(list(self.running), num_returns=1, timeout=self.farm.limits.poll_seconds)
        for reference in ready:
            attempt = self._drop(reference, cancel=False)
            try:
                self._store(attempt, ray.get(reference))
            except ray.exceptions.RayTaskError as error:  # the segment itself failed
                self._again(attempt, str(error.cause or error))
            except ray.exceptions.TaskCancelledError:
                pass
            except ray.exceptions.RayError as error:  # the process or the node died
                alive = attempt.node.id in {node.id for node in cluster.nodes()}
                self._again(attempt, f"{type(error).__name__} on {attempt.node.name}", counts=alive)

    def _store(self, attempt: Attempt, data: bytes) -> None:
        start = attempt.start
        self.pace[attempt.node.id].append((time.monotonic() - attempt.began) / self._length(start))
        self.failures.pop(start, None)
        if not self.segments.path(start).is_file():
            with atomic_write(self.segments.path(start), durable=True, error=MediaError) as part:
                part.write_bytes(data)
        for other in [ref for ref, running in self.running.items() if running.start == start]:
            self._drop(other, cancel=True)
        self._show()

    def _again(self, attempt: Attempt, reason: str = "", *, counts: bool = True) -> None:
        start = attempt.start
        if any(other.start == start for other in self.running.values()) or self.segments.path(start).is_file():
            return  # a copy of it is still made, or was
        if counts:
            self.attempts[start] += 1
            self.failed_on[start].append(attempt.node)
        if self.attempts[start] >= self.farm.limits.attempts:
            self.failures[start] = reason
            self.report.warn(f"frames {self._frames(start)} are given up: {reason}")
            return
        if reason:
            self.report.say(f"frames {self._frames(start)} are made again: {reason}")
        self.retried += 1
        self.pending.appendleft(start)
        self._show()

    def _cancel_hanging(self) -> None:
        now = time.monotonic()
        for reference, attempt in list(self.running.items()):
            limit = self._seconds_allowed(attempt)
            if now - attempt.began > limit:
                self._again(self._drop(reference, cancel=True), f"no result after {limit:.0f} s on {attempt.node.name}")

    def _seconds_allowed(self, attempt: Attempt) -> float:
        limits = self.farm.limits
        known = self.pace.get(attempt.node.id) or [pace for paces in self.pace.values() for pace in paces]
        if not known:
            return limits.first_seconds
        return max(limits.least_seconds, limits.slowdown * max(known) * self._length(attempt.start))

    def _drop(self, reference: Any, *, cancel: bool) -> Attempt:
        attempt = self.running.pop(reference)
        self.farm.give_back(attempt.node)
        if cancel:
            ray.cancel(reference, force=True)
        return attempt

    # --- for people ---

    def _length(self, start: int) -> int:
        return min(self.segments.length, self.segments.frames - start)

    def _frames(self, start: int) -> str:
        return f"{start}-{start + self._length(start) - 1}"

    def _show(self) -> None:
        done = self.segments.done()
        counts = single.sum_footers(read_footer(self.segments.path(start)) for start in done)
        devices = sum(node.slots for node in self.nodes)
        self.report.advance(
            counts.packets, self.segments.frames, cuts=counts.cuts, duplicates=counts.duplicates,
            nodes=len(self.nodes), devices=devices, retries=self.retried,
        )  # fmt: skip
