"""One video to one file, in segments that a later run can continue from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av

from vsrife._version import __version__
from vsrife.checkpoints.finding import files_of, find_weights
from vsrife.errors import MediaError, OptionError
from vsrife.files import is_special, replace_file
from vsrife.video import encoder, resume
from vsrife.video.encoder import Frames
from vsrife.video.muxer import EncodeOptions, Encoding, check_streams, plan_encoding, write_file
from vsrife.video.plan import VideoOptions
from vsrife.video.rendering import FrameStats, render
from vsrife.video.reporting import Reporter
from vsrife.video.resume import SegmentFooter, Segments
from vsrife.video.source import Source, media_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoJob:
    """One file to make.

    Attributes:
        source: opens the input; its arguments are the files and the folder for bestsource's index, or None.
        inputs: the files that the input consists of.
        output: a file.
        reading: options of `source`, by their names on the command line.
        video: what to do with the frames.
        encode: how to store them.
        side_by_side: show the source at the left of the result.
        resume: continue an unfinished run.
        overwrite: replace an existing file.
        segment_seconds: seconds of the result between points to continue from.
    """

    source: Callable[[Sequence[Path], Path | None], Source]
    inputs: Sequence[Path]
    output: Path
    video: VideoOptions
    reading: Mapping[str, object] = field(default_factory=dict)
    encode: EncodeOptions = field(default_factory=EncodeOptions)
    side_by_side: bool = False
    resume: bool = False
    overwrite: bool = False
    segment_seconds: Fraction = Fraction(10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result of a job.

    Attributes:
        output: the file.
        frames: written to it.
        total: frames of the whole result; more than `frames` if the run was interrupted.
        seconds: duration of the file.
        cuts, duplicates: scene cuts, and source frames that equal the one before.
        resumable: a later run can make the rest.
    """

    output: Path
    frames: int
    total: int
    seconds: float
    cuts: int
    duplicates: int
    resumable: bool = True

    @property
    def complete(self) -> bool:
        return self.frames == self.total


class Produce(Protocol):
    """Makes the missing segments of a job; yields all paths in order, up to the first that an interruption left out."""

    def __call__(self, job: VideoJob, segments: Segments, report: Reporter) -> Iterator[Path]: ...


def run(job: VideoJob, report: Reporter, produce: Produce | None = None) -> Outcome:
    """Make a file. It gets its name when it is complete, or when the run is interrupted and it plays up to there.

    Args:
        job: the file.
        report: callbacks.
        produce: makes the segments, None: this process.

    Raises:
        OptionError: the options cannot be met.
        MediaError: the source cannot be read, or the result not be written. Finished segments stay for `resume`.
        KeyboardInterrupt: interrupted before the first frame.
    """
    check_output(job)
    identity, folder = identify(job), resume.folder_of(job.output)
    with ExitStack() as stack:
        with media_errors(folder, "cannot be written"):
            continued = stack.enter_context(
                resume.run_folder(job.output, identity, resume=job.resume, overwrite=job.overwrite)
            )
        try:
            encoding = prepare(job, folder, report)
            rate, total = encoding.settings.rate, encoding.rendered.times.frames
            segments = Segments(folder, max(1, round(job.segment_seconds * rate)), total)
            if continued:
                for path in segments.discard_damaged():
                    report.warn(f"{path.name} in {folder} is damaged and is made anew")
                report.say(f"{len(segments.done())} of {len(segments.starts())} segments are done, continuing")
            elif job.resume:
                report.say("no unfinished run to continue, starting anew")
            paths = produce(job, segments, report) if produce else _encode_missing(encoding, segments, report)
            return _deliver(job, encoding, segments, list(paths), report)
        except MediaError as error:
            if not resume.has_segments(folder):
                raise
            raise MediaError(f"{error}; finished segments stay in {folder}, --resume continues from there") from error
        finally:
            if not resume.has_segments(folder):
                resume.remove(job.output)


def check_output(job: VideoJob) -> None:
    """Check that the output may get its name.

    Raises:
        OptionError: it is the input, a folder, or a file that must be kept.
        MediaError: its folder does not exist.
    """
    output = job.output
    if output.exists() and any(path.exists() and output.samefile(path) for path in job.inputs):
        raise OptionError(f"the output would replace the input, got {output} for both; give another name")
    if output.is_dir():
        raise OptionError(f"the output must be a file, got the folder {output}; add a name, or use --output-dir")
    if is_special(output):
        raise OptionError(f"the output must be a file, got {output}, a pipe or device; --y4m writes to these")
    if output.is_symlink() and not (output.exists() or job.overwrite):
        raise OptionError(f"{output} is a link to nothing; give --overwrite to replace it, or another name")
    if output.exists() and not job.overwrite and not (job.resume and resume.is_delivered(output)):
        unfinished = resume.has_segments(resume.folder_of(output))
        what = "is complete, there is nothing to continue" if job.resume and not unfinished else "exists"
        raise OptionError(f"{output} {what}; give --overwrite to replace it, or another name")
    if not output.parent.is_dir():
        raise MediaError(f"{output} cannot be written, got no folder {output.parent}; make it first")


def identify(job: VideoJob) -> dict[str, str]:
    """Everything that decides on the result, by names that the user knows."""
    values: dict[str, object] = {"vsrife": __version__, "PyAV": av.__version__, "--segment": job.segment_seconds}
    for options in (job.video, job.encode):
        for each in fields(options):
            values[f"--{each.name.replace('_', '-')}"] = getattr(options, each.name)
    values |= {**job.reading, "--montage": job.side_by_side, "output": job.output.name}
    values |= {f"--{name}": value for name, value in values.pop("--network").items()}  # type: ignore[attr-defined]
    files = {"input": job.inputs, "weights": files_of(find_weights(job.video.network.get("model")))}
    if job.video.retime is not None:
        files["ramp"] = [Path(job.video.retime)]
    identity = {name: str(value) for name, value in values.items()}
    for kind, paths in files.items():
        with media_errors(paths[0]):
            identity |= resume.file_identity(kind, paths)
    return identity


def prepare(job: VideoJob, folder: Path, report: Reporter) -> Encoding:
    """Open the source of a job and choose encoder and container.

    Args:
        job: the file to make.
        folder: for the index of the source, and for a trial of the container.
        report: callbacks.

    Raises:
        OptionError: the options cannot be met.
        MediaError: the source cannot be read, or the container rejects a stream.
    """
    report.say(f"reading {job.inputs[0]} to find its frames")
    rendered = render(
        job.source(job.inputs, resume.index_folder(folder)), job.video, report, side_by_side=job.side_by_side
    )
    encoding = plan_encoding(rendered, job.output, job.encode, report.warn)
    check_streams(encoding, folder / f"head{job.output.suffix}", report.warn)
    return encoding


def _encode_missing(encoding: Encoding, segments: Segments, report: Reporter) -> Iterator[Path]:
    """The segments in order, encoded where they are missing; an interruption ends with the incomplete one."""
    earlier = SegmentFooter(0, 0, 0, 0)
    for start in segments.starts():
        path: Path | None = segments.path(start)
        if not segments.path(start).is_file():
            path = encode_segment(encoding, segments, start, report, earlier)
        if path is not None:
            yield path
        if path != segments.path(start):
            return  # interrupted
        earlier = sum_footers([earlier, resume.read_footer(path)])


def encode_segment(
    encoding: Encoding,
    segments: Segments,
    start: int,
    report: Reporter,
    earlier: SegmentFooter = SegmentFooter(0, 0, 0, 0),  # noqa: B008 - it is frozen
) -> Path | None:
    """Encode a segment.

    Args:
        encoding: of the job.
        segments: of the run; the segment is written to their folder.
        start: first frame of the segment.
        report: callbacks.
        earlier: sum of the segments before, for the progress.

    Returns:
        Its path; another one if `report.stop` ended it early, and None if that left it empty.
    """
    end = min(start + segments.length, segments.frames)
    stats = FrameStats(encoding.rendered.times.schedule)
    done = start

    def advance() -> None:
        cuts, duplicates = earlier.cuts + stats.cuts, earlier.duplicates + stats.duplicates
        report.advance(done, segments.frames, cuts=cuts, duplicates=duplicates)

    def frames() -> Iterator[Frames]:
        nonlocal done
        advance()
        for planes in encoding.rendered.frames(start, end):
            if report.stop():
                return
            stats.add(done, planes)
            yield planes
            done += 1
            advance()

    packets = encoder.encode(encoding.settings, frames())
    with media_errors(segments.folder, "cannot be written"):
        return segments.write(start, packets, stats.counts, lambda: done == end)


def _deliver(job: VideoJob, encoding: Encoding, segments: Segments, paths: Sequence[Path], report: Reporter) -> Outcome:
    """Write the file from its segments and the other streams of the source."""
    total, times, output = sum_footers(map(resume.read_footer, paths)), encoding.rendered.times, job.output
    if not total.packets:
        raise KeyboardInterrupt
    unfinished = segments.folder / f"unfinished{output.suffix}"
    with media_errors(output, "cannot be written"):
        write_file(unfinished, encoding, paths, total.packets, report.warn)
        _name(job, unfinished)
    outcome = Outcome(
        output=output, frames=total.packets, total=times.frames, seconds=float(times[total.packets] - times[0]),
        cuts=total.cuts, duplicates=total.duplicates,
    )  # fmt: skip
    if outcome.complete:
        resume.remove(output)
    else:
        resume.mark_delivered(output)
    return outcome


def _name(job: VideoJob, unfinished: Path) -> None:
    """Give the file its final name, unless another file got it during the run."""
    try:
        overwrite = job.overwrite or resume.is_delivered(job.output)
        replace_file(unfinished, job.output, overwrite=overwrite, durable=True)
    except FileExistsError as error:
        raise MediaError(
            f"{job.output} was made by another program during the run and is kept; give --resume --overwrite to "
            "replace it"
        ) from error


def sum_footers(footers: Iterable[SegmentFooter]) -> SegmentFooter:
    """Packets, cuts and duplicates of several segments; the largest delay."""
    result = SegmentFooter(0, 0, 0, 0)
    for footer in footers:
        result = SegmentFooter(
            result.packets + footer.packets, max(result.delay, footer.delay), result.cuts + footer.cuts,
            result.duplicates + footer.duplicates,
        )  # fmt: skip
    return result
