"""One video to one file, in segments that a later run can continue from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path

import av

from vsrife._version import __version__
from vsrife.checkpoints.finding import files_of, find_weights
from vsrife.errors import MediaError, OptionError
from vsrife.files import replace_file
from vsrife.video import encoder, resume
from vsrife.video.encoder import Frames
from vsrife.video.muxer import EncodeOptions, Encoding, check_streams, plan_encoding, write_file
from vsrife.video.plan import VideoOptions
from vsrife.video.rendering import FrameStats, render
from vsrife.video.resume import SegmentFooter, Segments
from vsrife.video.source import Source, media_errors
from vsrife.video.streams import Warn


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoJob:
    """One file to make.

    Attributes:
        source: opens the input; its argument is the folder for bestsource's index, or None.
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

    source: Callable[[Path | None], Source]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Callbacks of a job.

    Attributes:
        say: takes a message.
        warn: takes a message about something that the result lacks.
        advance: takes frames done, frames in all, scene cuts and duplicates so far.
        stop: asked before each frame; True ends the result there.
    """

    say: Callable[[str], None]
    warn: Warn
    advance: Callable[[int, int, int, int], None]
    stop: Callable[[], bool]


def run(job: VideoJob, report: Reporter) -> Outcome:
    """Make a file. It gets its name when it is complete, or when the run is interrupted and it plays up to there.

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
            encoding = _prepare(job, folder, report)
            rate, total = encoding.settings.rate, encoding.rendered.times.frames
            segments = Segments(folder, max(1, round(job.segment_seconds * rate)), total)
            if continued:
                for path in segments.discard_damaged():
                    report.warn(f"{path.name} in {folder} is damaged and is made anew")
                report.say(f"{len(segments.done())} of {len(segments.starts())} segments are done, continuing")
            elif job.resume:
                report.say("no unfinished run to continue, starting anew")
            return _Run(job, segments, encoding, report).finish()
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


def _prepare(job: VideoJob, folder: Path, report: Reporter) -> Encoding:
    report.say(f"reading {job.inputs[0]} to find its frames")
    rendered = render(job.source(resume.index_folder(folder)), job.video, side_by_side=job.side_by_side)
    encoding = plan_encoding(rendered, job.output, job.encode, report.warn)
    check_streams(encoding, folder / f"head{job.output.suffix}", report.warn)
    return encoding


@dataclass(frozen=True, slots=True)
class _Run:
    job: VideoJob
    segments: Segments
    encoding: Encoding
    report: Reporter

    def finish(self) -> Outcome:
        """Encode the missing segments and write the file."""
        paths: list[Path] = []
        for start in self.segments.starts():
            path: Path | None = self.segments.path(start)
            if not self.segments.path(start).is_file():
                path = self._encode(start, paths)
            if path is not None:
                paths.append(path)
            if path != self.segments.path(start):
                break  # interrupted
        return self._deliver(paths)

    def _encode(self, start: int, before: Sequence[Path]) -> Path | None:
        """Encode a segment; its path, or as `Segments.write` returns it after an interruption."""
        end = min(start + self.segments.length, self.segments.frames)
        earlier = _sum(before)
        stats = FrameStats(self.encoding.rendered.times.schedule)
        done = start

        def frames() -> Iterator[Frames]:
            nonlocal done
            self._advance(done, earlier, stats)
            for planes in self.encoding.rendered.frames(start, end):
                if self.report.stop():
                    return
                stats.add(done, planes)
                yield planes
                done += 1
                self._advance(done, earlier, stats)

        packets = encoder.encode(self.encoding.settings, frames())
        with media_errors(self.segments.folder, "cannot be written"):
            return self.segments.write(start, packets, stats.counts, lambda: done == end)

    def _advance(self, done: int, earlier: SegmentFooter, stats: FrameStats) -> None:
        cuts, duplicates = earlier.cuts + stats.cuts, earlier.duplicates + stats.duplicates
        self.report.advance(done, self.segments.frames, cuts, duplicates)

    def _deliver(self, paths: Sequence[Path]) -> Outcome:
        total, times, output = _sum(paths), self.encoding.rendered.times, self.job.output
        if not total.packets:
            raise KeyboardInterrupt
        unfinished = self.segments.folder / f"unfinished{output.suffix}"
        with media_errors(output, "cannot be written"):
            write_file(unfinished, self.encoding, paths, total.packets, self.report.warn)
            self._name(unfinished)
        outcome = Outcome(
            output=output, frames=total.packets, total=times.frames, seconds=float(times[total.packets] - times[0]),
            cuts=total.cuts, duplicates=total.duplicates,
        )  # fmt: skip
        if outcome.complete:
            resume.remove(output)
        else:
            resume.mark_delivered(output)
        return outcome

    def _name(self, unfinished: Path) -> None:
        """Give the file its final name, unless another file got it during the run."""
        output = self.job.output
        try:
            replace_file(unfinished, output, overwrite=self.job.overwrite or resume.is_delivered(output), durable=True)
        except FileExistsError as error:
            raise MediaError(
                f"{output} was made by another program during the run and is kept; give --resume --overwrite to "
                "replace it"
            ) from error


def _sum(paths: Sequence[Path]) -> SegmentFooter:
    footers = [resume.read_footer(path) for path in paths]
    return SegmentFooter(
        sum(footer.packets for footer in footers), 0, sum(footer.cuts for footer in footers),
        sum(footer.duplicates for footer in footers),
    )  # fmt: skip
