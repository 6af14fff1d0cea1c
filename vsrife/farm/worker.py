"""The work of a node: one segment of a video, encoded."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vsrife.checkpoints.finding import files_of, find_weights
from vsrife.errors import MediaError, RifeError
from vsrife.farm.shipping import ShippedFile, node_folder, receive
from vsrife.files import file_lock
from vsrife.video.job import VideoJob, encode_segment, prepare
from vsrife.video.muxer import Encoding
from vsrife.video.reporting import Reporter
from vsrife.video.resume import Segments


@dataclass(frozen=True, slots=True)
class SharedJob:
    """A job as its segments are handed to nodes.

    Attributes:
        run: identifies the run.
        job: as on the head.
        inputs: the inputs' content; empty if every node sees their paths.
        model: the weights' content.
        length: frames of a segment.
        frames: of the whole result.
    """

    run: str
    job: VideoJob
    inputs: tuple[ShippedFile, ...]
    model: tuple[ShippedFile, ...]
    length: int
    frames: int


_opened: tuple[str, Encoding] | None = None  # the run that this process worked on last; tasks run one at a time


def make_segment(shared: SharedJob, start: int) -> bytes:
    """Encode the segment whose first frame is `start`; the bytes of its file, equal to those of a single machine.

    Raises:
        MediaError: the source cannot be read here, or has another number of frames.
    """
    folder = node_folder(shared.run)
    folder.mkdir(parents=True, exist_ok=True)
    encoding = _open(shared, folder)
    own = folder / f"{os.getpid()}"  # another copy of the segment may be made beside this one
    own.mkdir(exist_ok=True)
    segments = Segments(own, shared.length, shared.frames)
    path = encode_segment(encoding, segments, start, _silent())
    if path is None:
        raise MediaError(f"no frames from {start} on were made on {socket.gethostname()}")
    try:
        return path.read_bytes()
    finally:
        path.unlink()


def _open(shared: SharedJob, folder: Path) -> Encoding:
    global _opened
    if _opened is None or _opened[0] != shared.run:
        _opened = None  # the source of another run is closed before this one is opened
        _opened = shared.run, _prepare(shared, folder)
    return _opened[1]


def _prepare(shared: SharedJob, folder: Path) -> Encoding:
    job = shared.job
    if shared.inputs:
        job = replace(job, inputs=receive(shared.inputs, shared.run))
    network = dict(job.video.network) | {"model": str(_model(shared))}
    job = replace(job, video=replace(job.video, network=network))
    with file_lock(folder / "index.lock", "another worker"):  # the first process of a node indexes the source
        encoding = prepare(job, folder, _silent())
    if encoding.rendered.times.frames != shared.frames:
        raise MediaError(
            f"{job.inputs[0]} on {socket.gethostname()} gives {encoding.rendered.times.frames} frames, the head has "
            f"{shared.frames}; is it another file of the same name?"
        )
    return encoding


def _model(shared: SharedJob) -> Path:
    """The weights: this node's own if they are the same, else the shipped ones."""
    try:
        own = find_weights(shared.job.video.network.get("model"))
        if _hashes(files_of(own)) == [file.sha256 for file in shared.model]:
            return own
    except (RifeError, OSError):
        pass
    paths = receive(shared.model, shared.run)
    return paths[0] if len(paths) == 1 else paths[0].parent


def _hashes(files: Sequence[Path]) -> list[str]:
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]


def _silent() -> Reporter:
    """What a user should know has been said on the head."""
    return Reporter(say=lambda _: None, warn=lambda _: None, advance=lambda *_args, **_more: None, stop=lambda: False)
