"""The work of a node: joining a run, and one segment of a video, encoded."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vsrife.checkpoints.finding import files_of, find_weights
from vsrife.errors import MediaError, RifeError
from vsrife.farm import cluster, shipping
from vsrife.farm.shipping import Bundle
from vsrife.files import file_lock
from vsrife.video.job import VideoJob, encode_segment, prepare
from vsrife.video.muxer import Encoding
from vsrife.video.reporting import Reporter
from vsrife.video.resume import Segments


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a node must have for a run.

    Attributes:
        run: identifies the output; the same for a run that continues another.
        seen: paths that the node must see, with their sizes.
        inputs, ramp: files that are sent instead.
        model: the weights; sent to nodes that have others under their name, or none.
        model_name: as the user gave it.
        model_spec: name of the version, where the weights do not tell it.
    """

    run: str
    seen: tuple[tuple[Path, int], ...] = ()
    inputs: Bundle | None = None
    ramp: Bundle | None = None
    model: Bundle | None = None
    model_name: str | None = None
    model_spec: str | None = None

    @property
    def bundles(self) -> dict[str, Bundle]:
        """By their keys."""
        return {each.key: each for each in (self.inputs, self.ramp, self.model) if each is not None}


@dataclass(frozen=True, slots=True)
class State:
    """What a node answers.

    Attributes:
        versions: of the packages that decide on the result.
        unseen: the first path that is not there, or has another size, and that size.
        lacking: keys of the bundles that it needs.
    """

    versions: Mapping[str, str]
    unseen: tuple[Path, int | None] | None
    lacking: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SharedJob:
    """A job as its segments are handed to nodes.

    Attributes:
        id: of this start of the run.
        needs: what the nodes have got.
        job: its paths are absolute: a node has its own working directory.
        length: frames of a segment.
        frames: of the whole result.
    """

    id: str
    needs: Needs
    job: VideoJob
    length: int
    frames: int


_opened: tuple[str, Encoding] | None = None  # the run that this process worked on last; tasks run one at a time


def join(needs: Needs) -> State:
    """Look at what this node has for a run, and keep it for the run."""
    bundles = needs.bundles
    if bundles:
        shipping.use(needs.run, list(bundles))
    unseen = next(((path, size) for path, size in needs.seen if _size(path) != size), None)
    lacking = {key for key, bundle in bundles.items() if not bundle.is_here()}
    if needs.model is not None and _own_model(needs, needs.model) is not None:
        lacking.discard(needs.model.key)
    found = None if unseen is None else (unseen[0], _size(unseen[0]))
    return State(cluster.versions(), found, tuple(sorted(lacking)))


def make_segment(shared: SharedJob, start: int) -> bytes:
    """Encode the segment whose first frame is `start`; the bytes of its file, equal to those of a single machine.

    Raises:
        MediaError: the source cannot be read here, or has another number of frames.
    """
    folder = shipping.run_folder(shared.needs.run)
    folder.mkdir(parents=True, exist_ok=True)
    encoding = _open(shared, folder)
    own = folder / f"segments-{os.getpid()}"  # another copy of the segment may be made beside this one
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
    if _opened is None or _opened[0] != shared.id:
        _opened = None  # the source of another run is closed before this one is opened
        _opened = shared.id, _prepare(shared, folder)
    return _opened[1]


def _prepare(shared: SharedJob, folder: Path) -> Encoding:
    job, needs = shared.job, shared.needs
    if needs.inputs is not None:
        job = replace(job, inputs=needs.inputs.there())
    video = replace(job.video, network=dict(job.video.network) | {"model": _model(needs)})
    if needs.ramp is not None:
        video = replace(video, retime=str(needs.ramp.there()[0]))
    job = replace(job, video=video)
    with file_lock(folder / "index.lock", "another worker"):  # the first process of a node indexes the source
        encoding = prepare(job, folder, _silent())
    if encoding.rendered.times.frames != shared.frames:
        raise MediaError(
            f"{job.inputs[0]} on {socket.gethostname()} gives {encoding.rendered.times.frames} frames, the head has "
            f"{shared.frames}; is it another file of the same name?"
        )
    return encoding


def _model(needs: Needs) -> str:
    """The weights, as `model=` takes them: this node's own if they are the same, else the shipped ones."""
    assert needs.model is not None
    path = _own_model(needs, needs.model)
    if path is None:
        paths = needs.model.there()
        path = paths[0] if len(paths) == 1 else paths[0].parent
    return str(path) if needs.model_spec is None else f"{needs.model_spec}:{path}"


def _own_model(needs: Needs, model: Bundle) -> Path | None:
    try:
        own = find_weights(needs.model_name)
        return own if [*map(shipping.digest, files_of(own))] == [*model.digests] else None
    except (RifeError, OSError):
        return None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _silent() -> Reporter:
    """What a user should know has been said on the head."""
    return Reporter(say=lambda _: None, warn=lambda _: None, advance=lambda *_args, **_more: None, stop=lambda: False)
