"""What a farm costs besides the frames: tasks that wait instead of computing, on a real Ray cluster of this machine.

    python benchmarks/farm.py [--workers 1 2 4 ... 64] [--seconds 2] [--rounds 4] [--output FILE]

Segments are handed out, collected and stored by the code of `vsrife video --farm`; each worker sleeps and returns
bytes. Efficiency is the time that the waiting alone would take over the time that it took. Then, with tasks that do
not wait: segments/s that the head hands out; MB/s of large segments, which cross Ray's object store and are flushed to
disk; MB/s of the object store alone, there and back; MB/s of the muxer. All workers share the cores of this machine, so
that the head of a real cluster has more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import av
import ray

from benchmarks.measure import SAMPLE, Row
from vsrife.farm.cluster import Node
from vsrife.farm.dispatch import Dispatch, Farm
from vsrife.farm.worker import Needs, SharedJob
from vsrife.video.job import VideoJob, prepare
from vsrife.video.muxer import EncodeOptions, write_file
from vsrife.video.plan import VideoOptions
from vsrife.video.reporting import Reporter
from vsrife.video.resume import Segments, write_packets
from vsrife.video.source import open_source

WORKERS = (1, 2, 4, 8, 16, 32, 64)
SMALL, LARGE = 100_000, 50_000_000  # bytes of a segment
SHORT = 200  # segments where nothing waits
STORE_BYTES = 2 << 30


def reporter() -> Reporter:
    return Reporter(say=lambda _: None, warn=print, advance=lambda *_args, **_more: None, stop=lambda: False)


def video_job(output: Path) -> VideoJob:
    return VideoJob(
        source=lambda files, index: open_source(files[0], index), inputs=(SAMPLE,), output=output,
        video=VideoOptions(network={"model": "lite", "device": "cpu"}), encode=EncodeOptions(codec="mpeg4"),
    )  # fmt: skip


def segment(path: Path, start: int, frames: int, size: int) -> bytes:
    """A segment file of this size, its content at random."""
    packets = []
    for number in range(frames):
        packet: av.Packet[Any] = av.Packet(os.urandom(size // frames))
        packet.pts, packet.is_keyframe = number, number == 0
        packets.append(packet)
    write_packets(path, start, packets, lambda: (0, 0))
    return path.read_bytes()


def waiting_task() -> Any:
    """A Ray task that sleeps and returns bytes. It imports nothing, so that 64 processes fit into memory."""

    def wait(data: bytes, seconds: float) -> bytes:
        import time  # here: the function travels without its module

        time.sleep(seconds)
        return data

    return ray.remote(max_calls=0)(wait)


class Bench:
    """A farm whose workers wait."""

    def __init__(self, folder: Path, most: int) -> None:
        ray.init(
            num_cpus=most, num_gpus=most, include_dashboard=False, log_to_driver=False, configure_logging=False,
            object_store_memory=STORE_BYTES,
        )  # fmt: skip
        self.folder, self.task, self.runs = folder, waiting_task(), 0
        self.farm = Farm("auto")
        self.node = ray.nodes()[0]["NodeID"]  # type: ignore[no-untyped-call]

    def run(self, workers: int, segments: int, seconds: float, size: int) -> float:
        """Seconds that `segments` take."""
        self.runs += 1
        folder = self.folder / f"run-{self.runs}"
        folder.mkdir()
        data = ray.put(segment(folder / "one", 0, 1, size))
        shared = SharedJob("", Needs(run=""), video_job(folder / "out.mp4"), 1, segments)
        node = Node(self.node, "here", workers, workers)
        dispatch = Dispatch(self.farm, shared, Segments(folder, 1, segments), reporter(), [node])
        dispatch.start = lambda _node, start: self.task.options(
            name=f"wait {start}", num_cpus=1, num_gpus=1, max_retries=0
        ).remote(data, seconds)
        began = time.perf_counter()
        dispatch.finish()
        return time.perf_counter() - began

    def store(self, size: int) -> float:
        """Bytes/s to the object store and back to another process."""
        data, rounds = os.urandom(size), 10
        echo = self.task.options(num_cpus=1)
        ray.get(echo.remote(data, 0.0))
        began = time.perf_counter()
        for _ in range(rounds):
            ray.get(echo.remote(ray.put(data), 0.0))
        return 2 * rounds * size / (time.perf_counter() - began)


def muxing(folder: Path, size: int) -> float:
    """Bytes/s of large segments to a file, with the sound of the source."""
    job = video_job(folder / "muxed.mp4")
    encoding = prepare(job, folder, reporter())
    frames, length = encoding.rendered.times.frames, 24
    paths = []
    for start in range(0, frames, length):
        paths.append(folder / f"{start}.packets")
        segment(paths[-1], start, min(length, frames - start), size)
    began = time.perf_counter()
    with suppress(av.error.InvalidDataError):  # the finished file is looked at, and its content is random
        write_file(job.output, encoding, paths, frames, print)
    os.sync()
    return sum(path.stat().st_size for path in paths) / (time.perf_counter() - began)


def waiting_rows(bench: Bench, workers: Sequence[int], seconds: float, rounds: int) -> Iterator[Row]:
    for count in workers:
        bench.run(count, count, 1.0 + count / 3, SMALL)  # processes start, all of them while the first still wait
        took = bench.run(count, rounds * count, seconds, SMALL)
        over = took / rounds - seconds
        yield str(count), f"{took:.2f}", f"{1e3 * over:.0f}", f"{100 * rounds * seconds / took:.1f} %"


def head_rows(bench: Bench, folder: Path, most: int) -> Iterator[Row]:
    for count in (1, min(8, most), most):
        took = bench.run(count, SHORT, 0.0, SMALL)
        yield f"segments/s, {count} tasks at a time", f"{SHORT / took:.0f}"
    took = bench.run(most, 5 * SHORT, 0.0, SMALL)
    yield f"segments/s, {most} at a time, {5 * SHORT} segments", f"{5 * SHORT / took:.0f}"
    for count in (1, 4):
        took = bench.run(min(count, most), 20, 0.0, LARGE)
        yield f"MB/s of segments of {LARGE / 1e6:.0f} MB to disk, {count} at a time", f"{20 * LARGE / took / 1e6:.0f}"
    yield "MB/s of the object store, there and back", f"{bench.store(LARGE) / 1e6:.0f}"
    with scratch(folder, "mux") as inner:
        yield "MB/s of the muxer, MP4", f"{muxing(inner, LARGE) / 1e6:.0f}"


@contextmanager
def scratch(folder: Path, name: str) -> Iterator[Path]:
    inner = folder / name
    inner.mkdir()
    yield inner


def table(head: Row, rows: Iterator[Row]) -> Iterator[str]:
    """Lines of a table, each as soon as it is known."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def main(argv: Sequence[str] | None = None) -> int:
    options = argparse.ArgumentParser(description="the cost of a farm besides the frames")
    options.add_argument("--workers", nargs="+", type=int, default=WORKERS)
    options.add_argument("--seconds", type=float, default=2.0, help="that each task waits")
    options.add_argument("--rounds", type=int, default=4, help="segments for each worker")
    options.add_argument("--output", type=Path, help="also write the tables here")
    given = options.parse_args(argv)
    lines = []
    with tempfile.TemporaryDirectory() as name:
        folder, most = Path(name), max(given.workers)
        bench = Bench(folder, most)
        waits = waiting_rows(bench, given.workers, given.seconds, given.rounds)
        for part in (
            table(("workers", "s", "ms over the wait, each round", "efficiency"), waits),
            table(("head", "figure"), head_rows(bench, folder, most)),
        ):
            for line in part:
                print(line, flush=True)
                lines.append(line)
            lines.append("")
        ray.shutdown()
    if given.output:
        given.output.write_text("\n".join(lines), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
