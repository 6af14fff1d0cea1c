"""Hands the segments of a run to the nodes of a cluster until all are there."""

from __future__ import annotations

import hashlib
import socket
import statistics
import threading
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from vsrife.checkpoints.finding import bundled_name, files_of, find_weights, spec_of
from vsrife.errors import DeviceError, MediaError, OptionError
from vsrife.farm import cluster, shipping
from vsrife.farm.cluster import Node
from vsrife.farm.worker import Needs, SharedJob, State, join, make_segment
from vsrife.files import atomic_write
from vsrife.networks.catalogue import LegacySpec
from vsrife.video import job as single
from vsrife.video.job import Outcome, VideoJob
from vsrife.video.reporting import Reporter
from vsrife.video.resume import SegmentFooter, Segments, read_footer
from vsrife.video.source import media_errors

_ANSWER_SECONDS = 120.0  # a node has to import vsrife in this time


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When to try again.

    Attributes:
        attempts: of a segment before it is given up.
        first_seconds: for a segment while the pace of the cluster is unknown.
        least_seconds: for a segment afterwards; opening a source takes its time.
        slowdown: times its expected duration after which a segment is taken for hanging; twice that at its second
            attempt, and so on.
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
        self._lock, self._admitting = threading.Lock(), threading.Lock()

    def run(self, job: VideoJob, report: Reporter) -> Outcome:
        """Make a file as `video.job.run` does, its segments on the cluster. The result is the same to the byte.

        Raises:
            OptionError: a node has other versions, or does not see the input.
            MediaError: a segment failed on every attempt; the others are kept for `resume`.
            DeviceError: all nodes are lost.
        """
        needs = _needs(job, ship=self.ship)
        ready, problems = self.admit(cluster.nodes(), needs, report)
        if problems:
            raise OptionError(problems[0])
        devices = sum(node.slots for node in ready)
        names = ", ".join(node.name for node in ready)
        report.say(f"nodes: {len(ready)}, devices: {devices}: {names}")
        return single.run(job, report, produce=partial(self._produce, ready, needs))

    def _produce(
        self, ready: Sequence[Node], needs: Needs, job: VideoJob, segments: Segments, report: Reporter
    ) -> Iterator[Path]:
        """Make the missing segments, then yield the paths up to the first that is missing after an interruption."""
        if len(segments.done()) < len(segments.starts()):
            needs = _with_content(needs, job, ship=self.ship)
            admitted, problems = self.admit(ready, needs, report)
            for problem in problems:
                report.warn(f"a node is left out: {problem}")
            shared = SharedJob(
                id=uuid.uuid4().hex, needs=needs, job=_with_absolute_paths(job), length=segments.length,
                frames=segments.frames,
            )  # fmt: skip
            refused = {node.id for node in ready} - {node.id for node in admitted}
            dispatch = Dispatch(self, shared, segments, report, admitted, refused=refused)
            try:
                dispatch.finish()
            finally:
                dispatch.clean_up()
        for start in segments.starts():
            if not segments.path(start).is_file():
                return
            yield segments.path(start)

    def admit(self, nodes: Sequence[Node], needs: Needs, report: Reporter) -> tuple[list[Node], list[str]]:
        """Ask nodes what they have, all at once, and send what they need.

        Returns:
            The nodes that can work, and what keeps the others from it, with the remedy.
        """
        with self._admitting:  # of several runs, one sends what they share
            problems = dict[Node, str]()
            lacking: defaultdict[str, list[Node]] = defaultdict(list)
            answers = cluster.ask(nodes, "join", join, needs, seconds=_ANSWER_SECONDS)
            for node, answer in zip(nodes, answers, strict=True):
                if problem := _problem(node, answer, needs):
                    problems[node] = problem
                    continue
                for key in answer.lacking:
                    lacking[key].append(node)
            for key, without in lacking.items():
                bundle = needs.bundles[key]
                name = bundle.names[0] if len(bundle.names) == 1 else f"{len(bundle.names)} files"
                report.say(f"sending {name}, {bundle.size() / 1e6:,.1f} MB, to {len(without)} of the nodes")
                for node, reason in shipping.deliver(bundle, without, report.stop).items():
                    problems[node] = f"{node.name} did not take {name}: {reason}"
            return [node for node in nodes if node not in problems], list(problems.values())

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


def _needs(job: VideoJob, *, ship: bool) -> Needs:
    """What can be told before the run begins."""
    place = f"{socket.gethostname()}:{job.output.absolute()}"
    run = hashlib.sha256(place.encode(errors="surrogateescape")).hexdigest()[:16]
    seen = [] if ship else [*job.inputs, *_ramp(job)]
    with media_errors(job.inputs[0]):
        return Needs(run=run, seen=tuple((path.absolute(), path.stat().st_size) for path in seen))


def _with_content(needs: Needs, job: VideoJob, *, ship: bool) -> Needs:
    """The same with the hashes of what is sent to nodes that lack it."""
    model = job.video.network.get("model")
    spec, ramp = spec_of(model), _ramp(job) if ship else []
    with media_errors(job.inputs[0]):
        return replace(
            needs, model=shipping.bundle(files_of(find_weights(model))), model_name=bundled_name(model) or model,
            model_spec=spec.name if isinstance(spec, LegacySpec) else None,
            inputs=shipping.bundle(job.inputs) if ship else None, ramp=shipping.bundle(ramp) if ramp else None,
        )  # fmt: skip


def _ramp(job: VideoJob) -> list[Path]:
    return [] if job.video.retime is None else [Path(job.video.retime)]


def _with_absolute_paths(job: VideoJob) -> VideoJob:
    """The job for nodes, which have their own working directory."""
    retime = None if job.video.retime is None else str(Path(job.video.retime).absolute())
    return replace(
        job, inputs=[path.absolute() for path in job.inputs], output=job.output.absolute(),
        video=replace(job.video, retime=retime),
    )  # fmt: skip


def _problem(node: Node, answer: State | Exception, needs: Needs) -> str | None:
    """What keeps a node from working, with the remedy; None if nothing does."""
    if isinstance(answer, Exception):
        return f"{node.name} cannot run vsrife, got: {cluster.first_line(answer)}; install the same packages there"
    for name, ours in cluster.versions().items():
        if answer.versions.get(name) != ours:
            theirs = answer.versions.get(name)
            return f"{node.name} has {name} {theirs}, this machine {ours}; install the same version on both"
    if answer.unseen is None:
        return None
    path, size = answer.unseen
    remedy = "give --ship to send it, or a path on a shared disk"
    if size is None:
        return f"{node.name} does not see {path}; {remedy}"
    return f"{node.name} has another file at {path}, got {size} bytes, not {dict(needs.seen)[path]}; {remedy}"


@dataclass(slots=True)
class Dispatch:
    """One run of `Farm`."""

    farm: Farm
    shared: SharedJob
    segments: Segments
    report: Reporter
    nodes: list[Node]
    pending: deque[int] = field(default_factory=deque)
    running: dict[Any, Attempt] = field(default_factory=dict)  # by the reference to the result
    attempts: Counter[int] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    failed_on: defaultdict[int, list[Node]] = field(default_factory=lambda: defaultdict(list))
    pace: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # s/frame, by node
    refused: set[str] = field(default_factory=set)  # nodes that cannot do the work, or are being asked
    admission: ThreadPoolExecutor = field(init=False)
    joining: Future[tuple[list[Node], list[str]]] | None = None
    made: SegmentFooter = field(default_factory=lambda: SegmentFooter(0, 0, 0, 0))  # sum of the segments so far
    looked: float = 0.0
    retried: int = 0
    ended: bool = False
    start: Callable[[Node, int], Any] = field(init=False)  # starts a segment; a reference to its result

    def __post_init__(self) -> None:
        # max_calls: a process stays for the next segment, with its network loaded and its source open.
        task, shared, name = ray.remote(max_calls=0)(make_segment), ray.put(self.shared), self.shared.job.output.name
        self.start = lambda node, first: task.options(**node.options(f"{name} {self._frames(first)}")).remote(
            shared, first
        )

    def finish(self) -> None:
        """Make every segment that is missing; return early if the run is to stop.

        Raises:
            MediaError: a segment failed on every attempt, or cannot be stored.
            DeviceError: no node is left.
        """
        done = set(self.segments.done())
        self.made = single.sum_footers(read_footer(self.segments.path(start)) for start in done)
        self.pending.extend(start for start in self.segments.starts() if start not in done)
        self.looked = time.monotonic()
        self._show()
        with ThreadPoolExecutor(1) as self.admission:
            try:
                while (self.pending or self.running) and not self.report.stop():
                    self._look_for_nodes()
                    self._submit()
                    self._collect()
                    self._cancel_hanging()
            finally:
                self.ended = True
                for reference in list(self.running):
                    self._drop(reference, cancel=True)
        if self.failures:
            reason = self.failures[min(self.failures)]
            frames = ", ".join(self._frames(start) for start in sorted(self.failures))
            raise MediaError(f"frames {frames} could not be made in {self.farm.limits.attempts} attempts: {reason}")

    def clean_up(self) -> None:
        """Delete what a complete run has left on the nodes; nodes that are gone or busy keep it. What was sent to them
        for an incomplete one stays for the next."""
        complete = len(self.segments.done()) == len(self.segments.starts())
        with suppress(ray.exceptions.RayError):
            cluster.ask(self.nodes, "clean up", shipping.forget, self.shared.needs.run, complete, seconds=10.0)

    # --- steps of the loop ---

    def _look_for_nodes(self) -> None:
        if self.joining is not None and self.joining.done():
            self._let_join(*self.joining.result())
            self.joining = None
        if time.monotonic() - self.looked < self.farm.limits.nodes_seconds and self.nodes:
            return
        self.looked = time.monotonic()
        known = {node.id: node for node in self.nodes}
        alive = {node.id: node for node in cluster.alive()}
        for lost in known.keys() - alive.keys():
            self.report.warn(f"node {known[lost].name} is lost; its segments are made elsewhere")
            for reference in [ref for ref, attempt in self.running.items() if attempt.node.id == lost]:
                self._again(self._drop(reference, cancel=False), counts=False)
        self.nodes = [node for node in self.nodes if node.id in alive]
        new = alive.keys() - known.keys() - self.refused
        if new and self.joining is None:
            stop = replace(self.report, stop=lambda: self.ended or self.report.stop())
            self.joining = self.admission.submit(
                self.farm.admit, [alive[each] for each in sorted(new)], self.shared.needs, stop
            )
            self.refused |= new  # until they are admitted
        if not self.nodes and self.joining is None:
            raise DeviceError("all nodes are lost; start Ray again, and continue with --resume")

    def _let_join(self, admitted: Sequence[Node], problems: Sequence[str]) -> None:
        for problem in problems:
            self.report.warn(f"a new node is left out: {problem}")
        for node in admitted:
            self.refused.discard(node.id)
            self.nodes.append(node)
            self.report.say(f"node {node.name} joins")

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
            self.running[self.start(node, start)] = Attempt(start, node, time.monotonic())

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
        waiting = list(self.running)
        ready, rest = ray.wait(waiting, num_returns=1, timeout=self.farm.limits.poll_seconds)
        if ready and rest:
            ready += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        for reference in ready:
            if reference not in self.running:  # a copy of a segment that has just been stored
                continue
            attempt = self._drop(reference, cancel=False)
            try:
                self._store(attempt, ray.get(reference))
            except ray.exceptions.RayTaskError as error:  # the segment itself failed
                self._again(attempt, str(error.cause or error))
            except ray.exceptions.TaskCancelledError:
                pass
            except ray.exceptions.RayError as error:  # the process or the node died
                alive = attempt.node.id in {node.id for node in cluster.alive()}
                self._again(attempt, f"{type(error).__name__} on {attempt.node.name}", counts=alive)

    def _store(self, attempt: Attempt, data: bytes) -> None:
        start = attempt.start
        self.pace[attempt.node.id].append((time.monotonic() - attempt.began) / self._length(start))
        self.failures.pop(start, None)
        if not self.segments.path(start).is_file():
            with atomic_write(self.segments.path(start), durable=True, error=MediaError) as part:
                part.write_bytes(data)
            self.made = single.sum_footers([self.made, read_footer(self.segments.path(start))])
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
        limit = limits.first_seconds
        if known:
            limit = max(limits.least_seconds, limits.slowdown * max(known) * self._length(attempt.start))
        return limit * float(2 ** self.attempts[attempt.start])  # more patience at each attempt

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
        devices = sum(node.slots for node in self.nodes)
        self.report.advance(
            self.made.packets, self.segments.frames, cuts=self.made.cuts, duplicates=self.made.duplicates,
            nodes=len(self.nodes), devices=devices, retries=self.retried,
        )  # fmt: skip
