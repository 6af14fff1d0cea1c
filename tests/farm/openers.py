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

    def first(self) -> bool:
        """Whether this is the first process of all that asks."""
        try:
            (self.notes / "first").open("x").close()
        except FileExistsError:
            return False
        return True


class Killed(Opener):
    """The first process dies."""

    def fault(self) -> None:
        if self.first():
            os.kill(os.getpid(), signal.SIGKILL)


class Hanging(Opener):
    """The first process never returns, and says on which node it is."""

    def fault(self) -> None:
        if self.first():
            (self.notes / "node").write_text(ray.get_runtime_context().get_node_id())
            time.sleep(600)


class Slow(Opener):
    """The first process takes two seconds for a frame, and leaves a file for each."""

    def changed(self, source: Source) -> Source:
        if os.getpid() == self.head or not self.first():
            return source
        clip = source.clip

        def wait(n: int) -> vs.VideoNode:
            time.sleep(2)
            (self.notes / f"slow-{n}").touch()
            return clip

        return replace(source, clip=clip.std.FrameEval(wait))


class Broken(Opener):
    """Frame 30 of the source cannot be read, on any node."""

    def changed(self, source: Source) -> Source:
        clip = source.clip

        def fail(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
            if n == 30:
                raise ValueError("the disk has a scratch here")
            return f

        return source if os.getpid() == self.head else replace(source, clip=clip.std.ModifyFrame([clip], fail))
