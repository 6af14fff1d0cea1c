"""Sources that fail on a node in the ways that real ones do; on the head they open as usual."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ray
import vapoursynth as vs

from vsrife.video.source import Source, open_source


@dataclass(frozen=True, slots=True)
class Opener:
    """Opens a video, and leaves a file in `notes` for each process that did.

    Attributes:
        notes: folder that head and nodes share.
        head: process id of the head.
    """

    notes: Path
    head: int

    def __call__(self, files: Sequence[Path], index: Path | None) -> Source:
        if os.getpid() != self.head:
            (self.notes / f"opened-{os.getpid()}").write_text(str(files[0]))
            self.fault()
        return self.changed(open_source(files[0], index))

    def fault(self) -> None:
        """What happens on a node before the source is opened."""

    def changed(self, source: Source) -> Source:
        return source

    def is_among(self, count: int) -> bool:
        """Whether this process is one of the first `count` that ask."""
        for number in range(count):
            try:
                (self.notes / f"process-{number}").open("x").close()
            except FileExistsError:
                continue
            return True
        return False


class Hanging(Opener):
    """The first process never returns, and says on which node it is."""

    def fault(self) -> None:
        if self.is_among(1):
            self.hang()

    def hang(self) -> None:
        (self.notes / "node").write_text(ray.get_runtime_context().get_node_id())
        time.sleep(600)


class KilledThenHanging(Hanging):
    """The first process dies, and the second never returns."""

    def fault(self) -> None:
        if self.is_among(1):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.is_among(2):
            self.hang()


class Slow(Opener):
    """The first process takes two seconds for a frame, and leaves a file for each."""

    def changed(self, source: Source) -> Source:
        if os.getpid() == self.head or not self.is_among(1):
            return source
        clip = source.clip

        def wait(n: int) -> vs.VideoNode:
            time.sleep(2)
            (self.notes / f"slow-{n}").touch()
            return clip

        return replace(source, clip=clip.std.FrameEval(wait))


class Broken(Opener):
    """Frame 15 of the source cannot be read, on any node."""

    def changed(self, source: Source) -> Source:
        clip = source.clip

        def fail(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
            if n == 15:
                raise ValueError("the disk has a scratch here")
            return f

        return source if os.getpid() == self.head else replace(source, clip=clip.std.ModifyFrame([clip], fail))


def meet(notes: Path, count: int) -> int:
    """Wait until `count` processes are here at once; returns how many are."""
    (notes / f"met-{os.getpid()}").touch()
    while len(found := list(notes.glob("met-*"))) < count:
        time.sleep(0.05)
    return len(found)
