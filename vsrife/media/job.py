"""One video file to one video file."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import vapoursynth as vs
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from vsrife.errors import MediaError, OptionError
from vsrife.media import codecs, encoder, segments
from vsrife.media.encoder import Frames, VideoSettings
from vsrife.media.plan import OutputTimes, Plan, VideoOptions, apply, make_plan, prepare
from vsrife.media.remux import Clock, Remuxer, Warn, container_of, container_spec, describe_video
from vsrife.media.segments import Piece, Workspace
from vsrife.media.source import Source, explained, open_source
from vsrife.scenechange import PREV
from vsrife.timing import Schedule

_GLOBAL_HEADER = 0x40  # flag of a container format
_LARGEST_UNITS = 2**31 - 1  # in a second, of a track's clock
_ROUND_UNITS = 1_000_000  # where exact times would need more


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """How the result is stored; None: what fits the source and the container."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    stretch_audio: bool = False
    montage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoJob:
    """One file to make.

    Attributes:
        source, output: files.
        video: what becomes of the frames.
        encode: how they are stored.
        resume: go on with an unfinished run.
        overwrite: replace what is there.
        piece_seconds: time of the result between points that a later run can go on from.
    """

    source: Path
    output: Path
    video: VideoOptions
    encode: EncodeOptions = field(default_factory=EncodeOptions)
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
    """

    output: Path
    frames: int
    total: int
    seconds: float
    cuts: int
    repeats: int


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


# --- the whole --------------------------------------------------------------------------------------------------------


def run(job: VideoJob, report: Reporter) -> Outcome:
    """Make a file. What is there under the output's name is replaced only by a complete result, or when interrupted.

    Raises:
        OptionError: the options cannot be met.
        MediaError: the source cannot be read, or the result not be written.
    """
    check_output(job)
    with explained(job.source):
        identity = _identity(job) | segments.file_identity(job.source)
    with explained(segments.folder_of(job.output), "cannot be written"):
        folder, continued = segments.begin(job.output, identity, resume=job.resume, overwrite=job.overwrite)
    workspace = None
    try:
        workspace, made = _prepare(job, folder, report)
        if continued:
            report.say(f"{len(workspace.done())} of {len(workspace.starts())} pieces are done, going on")
        return _Run(job, workspace, made, report).finish()
    finally:
        if (workspace is None and not continued) or (workspace is not None and not workspace.done()):
            segments.remove(folder)


def check_output(job: VideoJob) -> None:
    """Raises OptionError where the output is the input, or is there and to be kept."""
    output, folder = job.output, segments.folder_of(job.output)
    if output.exists() and job.source.exists() and output.samefile(job.source):
        raise OptionError(f"the output would replace the input, got {output} for both; give another name")
    if output.is_dir():
        raise OptionError(f"the output must be a file, got the folder {output}; add a name, or use --output-dir")
    if output.exists() and not job.overwrite and not (job.resume and folder.is_dir()):
        raise OptionError(f"{output} exists; give --overwrite to replace it, or another name")
    if not output.parent.is_dir():
        raise MediaError(f"{output.parent} is no folder, got it for {output.name}; make it first")


def _identity(job: VideoJob) -> dict[str, str]:
    """All options that decide on the result, by names that a user knows."""
    values: dict[str, object] = {
        "vsrife": _version(), "PyAV": av.__version__, "output": job.output.name, "--segment": job.piece_seconds
    }  # fmt: skip
    for options in (job.video, job.encode):
        for name in options.__slots__:
            if name != "network":
                values[f"--{name.replace('_', '-')}"] = getattr(options, name)
    values |= {f"--{name}": value for name, value in job.video.network.items()}
    return {name: str(value) for name, value in values.items()}


def _version() -> str:
    from vsrife import __version__

    return __version__


# --- what is made of the source ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Made:
    """The frames that are to be encoded, and all about them.

    Attributes:
        source: the opened file.
        plan: what becomes of it.
        clips: the output's colours, and alpha where there is one.
        settings: of the encoder.
        times: of the output, on the source's clock.
        clock: to the result's.
        container: format of the output.
    """

    source: Source
    plan: Plan
    clips: Sequence[vs.VideoNode]
    settings: VideoSettings
    times: OutputTimes
    clock: Clock
    container: str


def _prepare(job: VideoJob, folder: Path, report: Reporter) -> tuple[Workspace, Made]:
    report.say(f"reading {job.source} to find its frames")
    source = open_source(job.source, folder / "index")
    if source.cut_short and job.video.end is None:
        promised = source.promised if source.promised > source.readable + 1 else "more"
        raise MediaError(
            f"{job.source} is cut short, got {source.readable} of {promised} frames; copy it again, or give "
            f"--end {source.readable}f to use what is there"
        )
    made = make(job, source)
    workspace = Workspace(folder, max(1, round(job.piece_seconds * made.times.mean_rate)), made.times.frames)
    _check_streams(made, job, folder / "head", report.warn)
    return workspace, made


def make(job: VideoJob, source: Source) -> Made:
    """Plan the output of an opened source."""
    plan = make_plan(job.video, source.timeline, source.field_based)
    container = output_format(job.output)
    row = _codec(job.encode.codec, container)
    clips = output_clips(source, plan, montage=job.encode.montage)
    layout = codecs.clip_layout(clips[0].format, alpha=len(clips) > 1)
    pix_fmt = job.encode.pix_fmt or codecs.choose_format(row.encoder, layout)
    stored = codecs.check_format(row.encoder, pix_fmt)
    clips = _fit(clips, stored, source)
    light = codecs.light_of(source.props)
    times = plan.output_timeline()
    settings = VideoSettings(
        encoder=row.encoder, options=codecs.encoder_options(row, job.encode.crf, job.encode.preset, light),
        width=clips[0].width, height=clips[0].height, pix_fmt=pix_fmt, planar=stored.name, rate=times.mean_rate,
        sample_aspect=source.sample_aspect,
        colours=encoder.colours_of(source.props, stored, source.chroma_location),
        global_header=bool(av.ContainerFormat(container, "w").flags & _GLOBAL_HEADER),
    )  # fmt: skip
    return Made(source=source, plan=plan, clips=clips, settings=settings, times=times, clock=_clock(job, source, plan),
                container=container)  # fmt: skip


def output_format(output: Path) -> str:
    """FFmpeg's name of the container that a file name asks for."""
    known = container_of(output.suffix)
    if known is not None:
        return known
    try:
        with av.open(os.fspath(output), "w") as container:  # opens no file until something is written
            return container.format.name
    except ValueError as error:
        raise OptionError(
            f"no container is known for {output.name!r}, got {output.suffix!r}; use .mkv or .mp4"
        ) from error


def _codec(name: str | None, container: str) -> codecs.CodecSpec:
    with av.open(io.BytesIO(), "w", format=container) as target:
        supported = target.supported_codecs
    if name is None:
        fitting = codecs.codecs_for(supported) if supported else [codecs.CODECS[0]]
        if not fitting:
            raise OptionError(f"{container} holds none of the usual codecs; give --codec, or use .mkv")
        return fitting[0]
    row = codecs.find_codec(name)
    if supported and row.encoder not in supported:
        usable = ", ".join(each.name for each in codecs.codecs_for(supported))
        raise OptionError(f"{container} cannot hold {row.name}; it holds {usable or 'other codecs'}, and .mkv most")
    return row


def output_clips(source: Source, plan: Plan, *, montage: bool) -> list[vs.VideoNode]:
    """The output's colours, and alpha where the source has it."""
    with explained(source.path, "cannot be interpolated"):
        result = apply(source.clip, plan) if source.alpha is None else apply(source.clip, plan, [source.alpha])
    clips = list(result) if isinstance(result, list) else [result]
    if not montage:
        return clips
    clock_clips = [source.clip] if source.alpha is None else [source.clip, source.alpha]
    before = [shown(prepare(clip, plan), plan.schedule) for clip in clock_clips]
    return [vs.core.std.StackHorizontal([left, right]) for left, right in zip(before, clips, strict=True)]


def shown(clip: vs.VideoNode, schedule: Schedule) -> vs.VideoNode:
    """The source frame that is shown at each output frame, without interpolation."""
    blank = clip.std.BlankClip(length=schedule.num_frames, keep=True)
    return blank.std.FrameEval(lambda n: clip[schedule[n].left], clip_src=[clip])


def _fit(clips: Sequence[vs.VideoNode], layout: codecs.Layout, source: Source) -> list[vs.VideoNode]:
    """The clips in the format that is encoded."""
    fitted = [encoder.converted(clips[0], layout, source.props)]
    if layout.alpha:
        grey = replace(layout, family="GRAY", subsampling_w=0, subsampling_h=0, alpha=False)
        alpha = clips[1] if len(clips) > 1 else _opaque(clips[0], grey)
        fitted.append(encoder.converted(alpha, grey, {}))
    return fitted


def _opaque(clip: vs.VideoNode, grey: codecs.Layout) -> vs.VideoNode:
    return clip.std.BlankClip(format=grey.vapoursynth_id, color=1 if grey.floating else 2**grey.bits - 1, keep=True)


def _clock(job: VideoJob, source: Source, plan: Plan) -> Clock:
    timeline = plan.timeline
    begins, ends = job.video.start is not None, job.video.end is not None
    return Clock(
        zero=timeline.start if begins else source.origin, pivot=timeline.start, factor=plan.slow_motion,
        first=timeline.start if begins else None, last=timeline.end if ends else None,
    )  # fmt: skip


# --- encoding ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Seen:
    """Counts cuts, and source frames that equal the one before, from the output of one piece."""

    schedule: Schedule
    cuts: int = 0
    repeats: int = 0
    _before: Frames | None = None
    _pair: int = -1  # the pair of source frames that the last steps belong to
    _still: bool = False

    def see(self, n: int, frames: Frames) -> None:
        self.cuts += bool(frames[0].props.get(PREV))
        if self._before is not None:
            pair, same = self.schedule[n - 1].left, _equal(self._before, frames)
            if pair != self._pair:
                self.repeats += self._still
                self._still = same and pair < self.schedule.source_frames - 1
            else:
                self._still = self._still and same
            self._pair = pair
        self._before = frames

    def counts(self) -> tuple[int, int]:
        return self.cuts, self.repeats + self._still


def _equal(a: Frames, b: Frames) -> bool:
    return all(
        np.array_equal(np.asarray(one[plane]), np.asarray(other[plane]))
        for one, other in zip(a, b, strict=True)
        for plane in range(one.format.num_planes)
    )


@dataclass(frozen=True, slots=True)
class _Run:
    job: VideoJob
    workspace: Workspace
    made: Made
    report: Reporter

    def finish(self) -> Outcome:
        """Encode what is missing and put the file together."""
        paths = []
        for start in self.workspace.starts():
            path = self.workspace.path(start)
            if not path.is_file():
                piece = self._encode(start, paths)
                if piece is not None:
                    paths.append(piece)
                if piece != path:
                    break  # interrupted
            else:
                paths.append(path)
        return self._deliver(paths)

    def _encode(self, start: int, before: Sequence[Path]) -> Path | None:
        """Encode a piece; gives a path of another name where it was interrupted."""
        end = min(start + self.workspace.length, self.workspace.frames)
        endings = [segments.read_ending(path) for path in before]
        cuts, repeats = sum(ending.cuts for ending in endings), sum(ending.repeats for ending in endings)
        seen = Seen(self.made.times.schedule)
        done = start

        def frames() -> Iterator[Frames]:
            nonlocal done
            self.report.advance(done, self.workspace.frames, cuts, repeats)
            for planes in _frames(self.made.clips, start, end):
                if self.report.stop():
                    return
                seen.see(done, planes)
                yield planes
                done += 1
                counted = seen.counts()
                self.report.advance(done, self.workspace.frames, cuts + counted[0], repeats + counted[1])

        packets = encoder.encode(self.made.settings, frames())
        with explained(self.job.source, "cannot be interpolated"):
            return self.workspace.write(start, packets, seen.counts, lambda: done == end)

    def _deliver(self, paths: Sequence[Path]) -> Outcome:
        endings = [segments.read_ending(path) for path in paths]
        frames = sum(ending.packets for ending in endings)
        whole = frames == self.workspace.frames
        if not frames:
            raise KeyboardInterrupt
        unfinished = self.workspace.folder / f"unfinished{self.job.output.suffix}"
        with explained(self.job.output, "cannot be written"):
            _write(unfinished, self.made, self.job, paths, frames)
            unfinished.replace(self.job.output)
            segments.sync_folder(self.job.output.parent)
        if whole:
            self.workspace.remove()
        times = self.made.times
        return Outcome(
            output=self.job.output, frames=frames, total=self.workspace.frames,
            seconds=float(times[frames] - times[0]), cuts=sum(ending.cuts for ending in endings),
            repeats=sum(ending.repeats for ending in endings),
        )  # fmt: skip


def _frames(clips: Sequence[vs.VideoNode], start: int, end: int) -> Iterator[Frames]:
    """Frames of all clips together, requested ahead by the frameserver."""
    parts = [clip[start:end].frames(close=False) for clip in clips]
    yield from zip(*parts, strict=True)


# --- the file ---------------------------------------------------------------------------------------------------------


def _check_streams(made: Made, job: VideoJob, path: Path, warn: Warn) -> None:
    """Write the head of the file: what a container or an encoder refuses shows before the first frame."""
    with av.open(os.fspath(made.source.path)) as source:
        target = _target(path, made)
        try:
            _open_streams(source, target, made, job, made.clock, Fraction(1), warn)
        except (av.error.FFmpegError, ValueError) as error:
            raise encoder.encoder_error(made.settings, error) from error
        finally:
            with suppress(av.error.FFmpegError):  # a file without packets is no file to some
                target.close()
            path.unlink(missing_ok=True)


def _open_streams(
    source: InputContainer, target: OutputContainer, made: Made, job: VideoJob, clock: Clock, unit: Fraction, warn: Warn
) -> tuple[VideoStream, Iterator[av.Packet[Any]]]:
    """Write the head of the file; gives the video stream, and the packets of all others."""
    video = _video_stream(target, source.streams[made.source.track], made, unit)
    remuxer = Remuxer(source, target, made.source.track, clock, job.encode.stretch_audio, warn)
    tracks = remuxer.add_tracks()
    remuxer.add_tags()
    target.start_encoding()
    return video, remuxer.packets(tracks)


def _target(path: Path, made: Made) -> OutputContainer:
    options = dict(container_spec(made.container).options)
    return av.open(os.fspath(path), "w", format=made.container, container_options=options)


def _write(path: Path, made: Made, job: VideoJob, pieces: Sequence[Path], frames: int) -> None:
    """Put pieces and the other streams together."""
    clock = made.clock
    if frames < made.times.frames:  # the source time where the result ends
        clock = replace(clock, last=clock.pivot + (made.times[frames] - clock.pivot) / clock.factor)
    with av.open(os.fspath(made.source.path)) as source, _target(path, made) as target:
        units = _units(made)
        video, others = _open_streams(source, target, made, job, clock, Fraction(1, units), lambda _: None)
        for packet in _interleaved(_video_packets(video, made, pieces, units), others):
            target.mux(packet)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _video_stream(target: OutputContainer, source: Any, made: Made, unit: Fraction) -> VideoStream:
    """A stream whose head is that of the pieces: the same encoder with the same settings."""
    stream = target.add_stream(made.settings.encoder, rate=made.settings.rate)
    assert isinstance(stream, VideoStream)
    encoder.configure(stream.codec_context, made.settings)
    stream.time_base = unit
    if made.source.display_matrix is not None:
        stream.set_display_matrix(made.source.display_matrix)
    describe_video(stream, source)
    return stream


def _units(made: Made) -> int:
    """Ticks in a second in which all times of the output are whole, if there are not too many."""
    times, plan, zero = made.times, made.plan, made.clock.zero
    if times.rate is not None:
        units = math.lcm((plan.timeline.start - zero).denominator, times.rate.numerator)
    else:
        multi, slow = Fraction(plan.rife["multi"]), plan.slow_motion
        tick = plan.timeline.tick / multi.numerator * slow
        units = math.lcm(tick.denominator, (plan.timeline.start * slow).denominator, zero.denominator,
                         (plan.timeline.start).denominator)  # fmt: skip
    return units if units <= _LARGEST_UNITS else _ROUND_UNITS


def _video_packets(stream: VideoStream, made: Made, pieces: Sequence[Path], units: int) -> Iterator[av.Packet[Any]]:
    """Packets with their times. They are decoded in the order they come; each at the time of a frame some way back."""
    times, offset = made.times, made.clock.zero
    delay = max(segments.read_ending(path).delay for path in pieces)

    def ticks(n: int) -> int:
        if n < 0:  # before the first frame
            return ticks(0) + n * max(1, round(units / made.settings.rate))
        return round((times[n] - offset) * units)

    for number, piece in enumerate(_pieces(pieces)):
        packet: av.Packet[Any] = av.Packet(piece.data)
        packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, units), piece.key
        packet.pts, packet.dts = ticks(piece.frame), ticks(number - delay)
        packet.duration = ticks(piece.frame + 1) - packet.pts
        yield packet


def _pieces(paths: Sequence[Path]) -> Iterator[Piece]:
    for path in paths:
        yield from segments.read_packets(path)


def _interleaved(video: Iterator[av.Packet[Any]], others: Iterator[av.Packet[Any]]) -> Iterator[av.Packet[Any]]:
    """In the order of decoding times, as far as each side is in order."""
    waiting = next(video, None)
    for packet in others:
        while waiting is not None and _time(waiting) <= _time(packet):
            yield waiting
            waiting = next(video, None)
        yield packet
    while waiting is not None:
        yield waiting
        waiting = next(video, None)


def _time(packet: av.Packet[Any]) -> Fraction:
    stamp = packet.pts if packet.dts is None else packet.dts
    return (stamp or 0) * Fraction(packet.time_base)
