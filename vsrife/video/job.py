"""One video to one file, in pieces that a later run can go on from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path

import av

from vsrife.checkpoints.loading import files_of
from vsrife.checkpoints.weights import find_weights
from vsrife.errors import MediaError, OptionError
from vsrife.video import encoder, resume
from vsrife.video.encoder import Frames
from vsrife.video.muxer import EncodeOptions, Encoding, check_streams, plan_encoding, write_file
from vsrife.video.plan import VideoOptions
from vsrife.video.rendering import Seen, make_product
from vsrife.video.resume import Ending, Workspace
from vsrife.video.source import Source, explained
from vsrife.video.streams import Warn


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoJob:
    """One file to make.

    Attributes:
        source: opens the input; is given the folder to keep its index in, or None.
        inputs: the files that it is made of.
        output: a file.
        video: what becomes of the frames.
        encode: how they are stored.
        montage: put the source at the left of the result.
        resume: go on with an unfinished run.
        overwrite: replace what is there.
        piece_seconds: time of the result between points that a later run can go on from.
    """

    source: Callable[[Path | None], Source]
    inputs: Sequence[Path]
    output: Path
    video: VideoOptions
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    montage: bool = False
    resume: bool = False
    overwrite: bool = False
    piece_seconds: Fraction = Fraction(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a job.

    Attributes:
        output: the file.
        frames: in it.
        total: that were to be made; more than `frames` where the run was interrupted.
        seconds: it takes to play.
        cuts, repeats: scene changes, and source frames that equal the one before.
        resumable: whether a later run can make the rest.
    """

    output: Path
    frames: int
    total: int
    seconds: float
    cuts: int
    repeats: int
    resumable: bool = True

    @property
    def whole(self) -> bool:
        return self.frames == self.total


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """How a job talks to whoever runs it.

    Attributes:
        say: for something of interest.
        warn: for what a user should know although the work goes on.
        advance: frames done, frames in all, cuts and repeats so far.
        stop: asked before each frame; the result ends there.
    """

    say: Callable[[str], None]
    warn: Warn
    advance: Callable[[int, int, int, int], None]
    stop: Callable[[], bool]


def run(job: VideoJob, report: Reporter) -> Outcome:
    """Make a file. It gets its name when it is complete, or when the run is interrupted and it plays up to there.

    Raises:
        OptionError: the options cannot be met.
        MediaError: the source cannot be read, or the result not be written. What is done stays for `resume`.
        KeyboardInterrupt: interrupted before the first frame.
    """
    check_output(job)
    identity = identify(job)
    with explained(resume.folder_of(job.output), "cannot be written"):
        folder, continued = resume.begin(job.output, identity, resume=job.resume, overwrite=job.overwrite)
    try:
        encoding = _prepare(job, folder, report)
        rate, total = encoding.settings.rate, encoding.product.times.frames
        workspace = Workspace(folder, max(1, round(job.piece_seconds * rate)), total)
        if continued:
            report.say(f"{len(workspace.done())} of {len(workspace.starts())} pieces are done, going on")
        return _Run(job, workspace, encoding, report).finish()
    except MediaError as error:
        if not resume.has_pieces(folder):
            raise
        raise MediaError(f"{error}; what is done stays in {folder}, --resume goes on from there") from error
    finally:
        if not resume.has_pieces(folder):
            resume.remove(folder)


def check_output(job: VideoJob) -> None:
    """Whether the output can be given its name.

    Raises:
        OptionError: it is the input, or is there and to be kept.
        MediaError: its folder is not there.
    """
    output, folder = job.output, resume.folder_of(job.output)
    if output.exists() and any(path.exists() and output.samefile(path) for path in job.inputs):
        raise OptionError(f"the output would replace the input, got {output} for both; give another name")
    if output.is_dir():
        raise OptionError(f"the output must be a file, got the folder {output}; add a name, or use --output-dir")
    if output.exists() and not job.overwrite and not (job.resume and folder.is_dir()):
        what = "is complete, there is nothing to go on with" if job.resume else "exists"
        raise OptionError(f"{output} {what}; give --overwrite to replace it, or another name")
    if not output.parent.is_dir():
        raise MediaError(f"{output} cannot be written, got no folder {output.parent}; make it first")


def identify(job: VideoJob) -> dict[str, str]:
    """All that decides on the result, by names that a user knows."""
    from vsrife._version import __version__

    values: dict[str, object] = {"vsrife": __version__, "PyAV": av.__version__, "--segment": job.piece_seconds}
    for options in (job.video, job.encode):
        for each in fields(options):
            values[f"--{each.name.replace('_', '-')}"] = getattr(options, each.name)
    values |= {"--montage": job.montage, "output": job.output.name}
    values |= {f"--{name}": value for name, value in values.pop("--network").items()}  # type: ignore[attr-defined]
    files = {"input": job.inputs, "weights": files_of(find_weights(job.video.network.get("model")))}
    if job.video.retime is not None:
        files["ramp"] = [Path(job.video.retime)]
    identity = {name: str(value) for name, value in values.items()}
    for kind, paths in files.items():
        with explained(paths[0]):
            identity |= resume.file_identity(kind, paths)
    return identity


def _prepare(job: VideoJob, folder: Path, report: Reporter) -> Encoding:
    report.say(f"reading {job.inputs[0]} to find its frames")
    product = make_product(job.source(folder / "index"), job.video, montage=job.montage)
    encoding = plan_encoding(product, job.output, job.encode, report.warn)
    check_streams(encoding, folder / f"head{job.output.suffix}", report.warn)
    return encoding


@dataclass(frozen=True, slots=True)
class _Run:
    job: VideoJob
    workspace: Workspace
    encoding: Encoding
    report: Reporter

    def finish(self) -> Outcome:
        """Encode what is missing and put the file together."""
        paths: list[Path] = []
        for start in self.workspace.starts():
            path: Path | None = self.workspace.path(start)
            if not self.workspace.path(start).is_file():
                path = self._encode(start, paths)
            if path is not None:
                paths.append(path)
            if path != self.workspace.path(start):
                break  # interrupted
        return self._deliver(paths)

    def _encode(self, start: int, before: Sequence[Path]) -> Path | None:
        """Encode a piece; gives a path of another name, or none, where it was interrupted."""
        end = min(start + self.workspace.length, self.workspace.frames)
        earlier = _sum(before)
        seen = Seen(self.encoding.product.times.schedule)
        done = start

        def frames() -> Iterator[Frames]:
            nonlocal done
            self._advance(done, earlier, seen)
            for planes in self.encoding.product.frames(start, end):
                if self.report.stop():
                    return
                seen.see(done, planes)
                yield planes
                done += 1
                self._advance(done, earlier, seen)

        packets = encoder.encode(self.encoding.settings, frames())
        with explained(self.workspace.folder, "cannot be written"):
            return self.workspace.write(start, packets, seen.counts, lambda: done == end)

    def _advance(self, done: int, earlier: Ending, seen: Seen) -> None:
        self.report.advance(done, self.workspace.frames, earlier.cuts + seen.cuts, earlier.repeats + seen.repeats)

    def _deliver(self, paths: Sequence[Path]) -> Outcome:
        made, times, output = _sum(paths), self.encoding.product.times, self.job.output
        if not made.packets:
            raise KeyboardInterrupt
        unfinished = self.workspace.folder / f"unfinished{output.suffix}"
        with explained(output, "cannot be written"):
            write_file(unfinished, self.encoding, paths, made.packets, self.report.warn)
            unfinished.replace(output)
            resume.sync_folder(output.parent)
        outcome = Outcome(
            output=output, frames=made.packets, total=times.frames, seconds=float(times[made.packets] - times[0]),
            cuts=made.cuts, repeats=made.repeats,
        )  # fmt: skip
        if outcome.whole:
            self.workspace.remove()
        return outcome


def _sum(paths: Sequence[Path]) -> Ending:
    endings = [resume.read_ending(path) for path in paths]
    return Ending(
        sum(ending.packets for ending in endings), 0, sum(ending.cuts for ending in endings),
        sum(ending.repeats for ending in endings),
    )  # fmt: skip
