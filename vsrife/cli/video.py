"""`vsrife video`: videos, picture sequences and pipes, one or many."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import click

from vsrife.cli.completion import complete_codec
from vsrife.cli.console import DONE, FAILED, INTERRUPTED, Advance, Console, plural
from vsrife.cli.options import ClipArguments, SectionedCommand, clip_options, console_options, network_options, option
from vsrife.errors import MediaError, OptionError, RifeError, shown
from vsrife.files import is_special

if TYPE_CHECKING:
    from vsrife.engine.keywords import NetworkKeywords
    from vsrife.video.inputs import Input
    from vsrife.video.job import Outcome, VideoJob
    from vsrife.video.reporting import Reporter
    from vsrife.video.source import Source

_MISSING_SHOWN = 5
_KEPT_SUFFIXES = frozenset({".mp4", ".mkv", ".mov", ".m4v", ".webm"})  # others become .mkv

_source, _encoding, _output, _farm = (
    partial(option, section=section) for section in ("Source", "Encoding", "Output", "Farm")
)
_FILES_AT_ONCE = 4  # on a cluster: while one file is opened or written, the nodes work for the others


@click.command(
    cls=SectionedCommand,
    epilog="""\b
Examples:
  vsrife video in.mp4 out.mp4
  vsrife video in.mkv out.mkv --fps 60000/1001 --codec x265 --crf 18
  vsrife video in.mp4 slow.mp4 --slow-motion 4 --start 1:30 --end 1:40
  vsrife video *.mp4 --output-dir smooth --multi 2.5
  vsrife video frames/%04d.png out.mp4 --rate 12
  vsrife video in.mp4 out.webp --end 4
  vsrife video in.mp4 --y4m - | mpv -""",
)
@click.argument("files", nargs=-1, required=True, metavar="IN... [OUT]")
@clip_options
@_source(
    "--rate", metavar="FPS", help="Frame rate of pictures, or of a video whose times are wrong.  [24 for pictures]"
)
@_source("--video-track", type=click.IntRange(0), metavar="N", help="Index of the track to use.  [default or largest]")
@_source("--resize", is_flag=True, help="Scale all frames to the size of the first, for a video that changes it.")
@network_options
@_encoding(
    "--codec", metavar="CODEC", shell_complete=complete_codec,
    help="x264, x265, svt-av1, vp9, ffv1, prores, or an encoder of FFmpeg.  [x264]",
)  # fmt: skip
@_encoding("--crf", type=float, metavar="CRF", help="Quality, lower is better.  [of the codec]")
@_encoding("--preset", metavar="PRESET", help="Speed of the encoder.  [of the codec]")
@_encoding("--pix-fmt", metavar="FORMAT", help="Pixel format as FFmpeg names it.  [the source's]")
@_encoding("--stretch-audio", is_flag=True, help="Slow the audio down as well; without it slow motion is silent.")
@_output("--output-dir", metavar="DIR", help="Folder for the results, which keep the names of their inputs.")
@_output("--container", metavar="SUFFIX", help="Container of results in --output-dir, such as mkv.  [the source's]")
@_output("--images", metavar="PATTERN", help="Write pictures: a folder, or names such as out/%05d.webp.")
@_output("--png", metavar="DIR", help="Write PNG pictures to a folder.")
@_output("--y4m", metavar="FILE", help="Write raw frames as YUV4MPEG2 to a file, or to stdout with -.")
@_output("--montage", is_flag=True, help="Put the source at the left of the result, side by side.")
@_output("--overwrite", is_flag=True, help="Replace existing files.")
@_output("--skip-existing", is_flag=True, help="Skip inputs whose result is complete.")
@_output("--resume", is_flag=True, help="Continue a run that was interrupted or failed.")
@_output("--segment", default="10", show_default=True, metavar="SECONDS", help="Segment length for --resume.")
@_farm(
    "--farm",
    is_flag=False,
    flag_value="auto",
    metavar="[ADDRESS]",
    help="Make the segments on a Ray cluster: auto (this machine's), local or ray://HOST:10001.  [auto]",
)
@_farm("--ship", is_flag=True, help="Send the inputs to nodes that do not see them under the same path.")
@console_options
def video(files: tuple[str, ...], console: Console, **options: Any) -> int:
    """Raise the frame rate of videos, or slow them down.

    IN is a video, a folder or glob of videos, or pictures: a folder, a glob or frame_%04d.png. OUT is a video, or an
    animated .gif, .webp or .apng; its suffix chooses the container. Without OUT the result is written beside the input.
    Audio, subtitles, chapters, attachments, tags and colour description are kept; what the container cannot hold is
    reported.

    Ctrl-C finishes the current frame: OUT plays up to there, and --resume makes the rest. A run that failed or was
    killed leaves the folder OUT.part, from which --resume continues as well.
    """
    with _interruptible(console) as stop:
        farm, ship = options.pop("farm"), options.pop("ship")
        tasks = _tasks(files, **options)
        if farm is None and not ship:
            return _run_all(tasks, console, stop)
        return _run_on_farm(tasks, console, stop, farm, ship=ship)


# --- options to tasks -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Task:
    """One result to make.

    Attributes:
        name: of the input, for messages.
        job: describes the result.
        make: makes it.
        skip: it is complete already.
    """

    name: str
    job: VideoJob
    make: Callable[[VideoJob, Reporter], Outcome]
    skip: bool


def _tasks(
    files: tuple[str, ...], *, clip: ClipArguments, network: NetworkKeywords, rate: str | None,
    video_track: int | None, resize: bool, output_dir: str | None, container: str | None, images: str | None,
    png: str | None, y4m: str | None,
    montage: bool, overwrite: bool, skip_existing: bool, resume: bool, segment: str, **encode: Any,
) -> list[_Task]:  # fmt: skip
    from vsrife.images.animation import VIDEO_ANIMATION_SUFFIXES
    from vsrife.video.animated import write_animated
    from vsrife.video.inputs import find_inputs
    from vsrife.video.job import VideoJob
    from vsrife.video.muxer import EncodeOptions
    from vsrife.video.resume import folder_of

    kind = _kind(images, png, y4m)
    elsewhere = kind.path or output_dir
    names, out = (files[:-1], files[-1]) if len(files) == 2 and elsewhere is None else (files, None)
    if out is not None and Path(out).suffix.lower() in VIDEO_ANIMATION_SUFFIXES:
        kind = _Kind(write_animated, None, True)
    if len(files) > 2 and output_dir is None:
        raise OptionError(f"several inputs need --output-dir, got {len(files)} names; or give one IN and one OUT")
    inputs = find_inputs(names)
    outputs = _outputs(inputs, out, output_dir, container, kind, clip)
    video = clip.options(network)
    tasks = []
    for each, output in zip(inputs, outputs, strict=True):
        job = VideoJob(
            source=_opener(each, rate, video_track, upright=kind.upright, resize=resize),
            inputs=each.files, output=output, video=video,
            reading={"--rate": rate, "--video-track": video_track, "--resize": resize},
            encode=EncodeOptions(**encode), side_by_side=montage, resume=resume, overwrite=overwrite,
            segment_seconds=_above_zero("--segment", segment),
        )  # fmt: skip
        complete = output.exists() and not folder_of(output).exists()
        tasks.append(_Task(each.name, job, kind.make, skip_existing and complete))
    return tasks


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of result.

    Attributes:
        make: makes it.
        path: where to write it; None: OUT.
        upright: rotate frames, because the result has no tag for rotation.
    """

    make: Callable[[VideoJob, Reporter], Outcome]
    path: Path | None
    upright: bool


def _kind(images: str | None, png: str | None, y4m: str | None) -> _Kind:
    """The kind of result that the options choose; without any of them a video file."""
    from vsrife.video.image_sequence import pattern_of, write_pictures
    from vsrife.video.job import run

    kinds = [name for name, value in (("--images", images), ("--png", png), ("--y4m", y4m)) if value is not None]
    if len(kinds) > 1:
        raise OptionError(f"one kind of result at a time, got {' and '.join(kinds)}; leave one out")
    if y4m is not None:
        return _Kind(_write_y4m, Path(y4m), True)
    if images is not None:
        return _Kind(write_pictures, pattern_of(images), True)
    if png is not None:
        return _Kind(write_pictures, Path(png) / "%08d.png", True)
    return _Kind(run, None, False)


def _write_y4m(job: VideoJob, report: Reporter) -> Outcome:
    from vsrife.files import atomic_write
    from vsrife.video.job import check_output
    from vsrife.video.y4m import write_y4m

    if str(job.output) == "-":
        return write_y4m(job, sys.stdout.buffer, report)
    if is_special(job.output):
        with job.output.open("wb") as file:
            return write_y4m(job, file, report)
    check_output(job)
    with atomic_write(job.output, error=MediaError) as part, part.open("wb") as file:
        return write_y4m(job, file, report)


def _opener(
    each: Input, rate: str | None, track: int | None, *, upright: bool, resize: bool
) -> Callable[[Sequence[Path], Path | None], Source]:
    """A function that opens the files of an input; it also gets the folder for bestsource's index."""
    from vsrife.timing.parsing import parse_fps

    fps = None if rate is None else parse_fps(rate, "--rate")
    if each.sequence:
        return partial(_open_sequence, rate=fps)
    return partial(_open_video, rate=fps, upright=upright, track=track, resize=resize)


def _open_video(files: Sequence[Path], index: Path | None, **options: Any) -> Source:
    from vsrife.video.source import open_source

    return open_source(files[0], index, **options)


def _open_sequence(files: Sequence[Path], _index: Path | None, *, rate: Fraction | None) -> Source:
    from vsrife.video.image_sequence import DEFAULT_RATE, open_pictures

    return open_pictures(files, DEFAULT_RATE if rate is None else rate)


def _outputs(
    inputs: Sequence[Input], out: str | None, output_dir: str | None, container: str | None, kind: _Kind,
    clip: ClipArguments,
) -> list[Path]:  # fmt: skip
    """A name for each result."""
    if container is not None and output_dir is None:
        raise OptionError(f"--container goes with --output-dir, got {container}; the suffix of OUT chooses it")
    if output_dir is not None:
        if kind.path is not None:
            raise OptionError("--output-dir is for videos; pictures and y4m have their own paths; leave it out")
        try:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(
                f"--output-dir {output_dir} cannot be made, got: {error.strerror}; give another folder"
            ) from error
        outputs = [Path(output_dir) / f"{_stem(each)}{_suffix(each, container)}" for each in inputs]
        twice = next((output for output in outputs if outputs.count(output) > 1), None)
        if twice is not None:
            raise OptionError(f"two inputs would become {twice}; give them different names")
        return outputs
    if len(inputs) > 1:
        raise OptionError(f"{len(inputs)} videos found, got no --output-dir to put the results in; give one")
    return [kind.path or Path(out or _default_output(inputs[0], clip))]


def _default_output(each: Input, clip: ClipArguments) -> Path:
    """A name beside the input that says what was done, such as in-2x.mp4."""
    done = f"{clip.fps.replace('/', '-')}fps" if clip.fps else f"{2**clip.exp if clip.exp else clip.multi or 2}x"
    if clip.retime:
        done = "retimed"
    if clip.slow_motion:
        done = f"slow{clip.slow_motion}x"
    first = each.files[0]
    folder = first.parent.parent if each.sequence else first.parent
    return folder / f"{_stem(each)}-{done.replace('/', '-')}{_suffix(each, None)}"


def _stem(each: Input) -> str:
    return each.files[0].parent.name if each.sequence else each.files[0].stem


def _suffix(each: Input, container: str | None) -> str:
    if container is not None:
        return f".{container.lstrip('.')}"
    suffix = each.files[0].suffix
    return suffix if suffix.lower() in _KEPT_SUFFIXES else ".mkv"


def _above_zero(name: str, text: str) -> Fraction:
    from vsrife.timing.parsing import parse_number

    try:
        value = parse_number(text)
    except ValueError:
        value = Fraction(0)
    if value <= 0:
        raise OptionError(f"{name} must be a number above 0, got {shown(text)}")
    return value


# --- running ----------------------------------------------------------------------------------------------------------


def _run_all(tasks: Sequence[_Task], console: Console, stop: threading.Event) -> int:
    """Make all results, also after one has failed. Returns the exit code."""
    if len(tasks) == 1 and not tasks[0].skip:
        return _report(_run(tasks[0], console, stop), console)
    return _report_all(tasks, (partial(_run, task, console, stop) for task in _wanted(tasks, console)), console)


def _wanted(tasks: Sequence[_Task], console: Console) -> list[_Task]:
    """The tasks whose results are not complete."""
    for task in tasks:
        if task.skip:
            console.say(f"{task.job.output} is complete, skipped")
            console.event("skipped", output=task.job.output)
    return [task for task in tasks if not task.skip]


def _report_all(tasks: Sequence[_Task], runs: Iterable[Callable[[], Outcome]], console: Console) -> int:
    """Report the results of several runs in turn. Returns the exit code."""
    wanted = [task for task in tasks if not task.skip]
    failed: list[str] = []
    for task, run in zip(wanted, runs, strict=True):
        try:
            code = _report(run(), console)
        except (RifeError, OSError) as error:
            failed.append(f"{task.name}: {error}")
            console.warn(failed[-1])
            continue
        if code == INTERRUPTED:
            return code
    if failed:
        console.warn(f"{len(failed)} of {len(tasks)} failed:\n  " + "\n  ".join(failed))
    return FAILED if failed else DONE


def _run(task: _Task, console: Console, stop: threading.Event) -> Outcome:
    from vsrife.images.numbering import missing_numbers
    from vsrife.video.reporting import Reporter

    if missing := missing_numbers(task.job.inputs):
        numbers = ", ".join(map(str, missing[:_MISSING_SHOWN])) + (", …" if len(missing) > _MISSING_SHOWN else "")
        console.warn(f"{task.name}: pictures {numbers} are missing ({len(missing)} in all); the motion will jump there")
    with console.progress(Path(task.name).name, None) as advance:
        report = Reporter(say=console.say, warn=console.warn, advance=advance, stop=stop.is_set)
        return task.make(task.job, report)


def _run_on_farm(
    tasks: Sequence[_Task], console: Console, stop: threading.Event, address: str | None, *, ship: bool
) -> int:
    """Make all results on a cluster, several at a time. Returns the exit code."""
    from vsrife.video.job import run
    from vsrife.video.reporting import Reporter

    if address is None:
        raise OptionError("--ship goes with --farm; add it, or leave --ship out")
    if address not in ("auto", "local") and ":" not in address:
        raise OptionError(
            f"--farm must be auto, local or ray://HOST:10001, got {shown(address)}; give it after IN and OUT"
        )
    if any(task.make is not run for task in tasks):
        raise OptionError("--farm makes videos; leave out --images, --png or --y4m")
    try:
        from vsrife.farm.dispatch import Farm
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise OptionError("--farm needs Ray, which is not installed; run: pip install 'vsrife[farm]'") from error
    wanted = _wanted(tasks, console)
    pool = ThreadPoolExecutor(_FILES_AT_ONCE)
    with console.progress("farm", None) as advance:
        farm, total = Farm(address, ship=ship), _Total(advance)

        def run_unless_stopped(task: _Task) -> Outcome | None:
            """None if the run was interrupted before the first frame of this file."""
            report = Reporter(
                say=console.say, warn=console.warn, advance=partial(total.advance, task.name), stop=stop.is_set
            )
            try:
                return None if stop.is_set() else farm.run(task.job, report)
            except KeyboardInterrupt:
                return None

        futures = [pool.submit(run_unless_stopped, task) for task in wanted]
        try:
            wait(futures)
        except KeyboardInterrupt:  # the second one; segments are as safe as when a process is killed
            console.warn("interrupted; --resume continues")
            sys.stdout.flush()
            os._exit(INTERRUPTED)  # the threads may be indexing a film, which nothing can stop
    if stop.is_set():
        return _report_interrupted(wanted, [future.result for future in futures], console)
    results = [cast("Callable[[], Outcome]", future.result) for future in futures]  # without a stop there is one
    if len(tasks) == len(results) == 1:
        return _report(results[0](), console)
    return _report_all(tasks, results, console)


def _report_interrupted(
    tasks: Sequence[_Task], results: Sequence[Callable[[], Outcome | None]], console: Console
) -> int:
    """Report what an interruption has left of each file. Returns the exit code."""
    codes = []
    for task, result in zip(tasks, results, strict=True):
        try:
            outcome = result()
        except (RifeError, OSError) as error:
            console.warn(f"{task.name}: {error}")
            codes.append(FAILED)
            continue
        if outcome is None:
            console.warn(f"interrupted: nothing of {task.job.output} is made yet; the same command makes it")
        codes.append(INTERRUPTED if outcome is None else _report(outcome, console))
    return INTERRUPTED if INTERRUPTED in codes else max(codes)


class _Total:
    """The progress of several files as one. Thread-safe."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._lock = advance, threading.Lock()
        self._files: dict[str, tuple[int, int, int, int, int]] = {}  # frames done, in all, cuts, duplicates, retries

    def advance(self, name: str, done: int, total: int, *, nodes: int, devices: int, **counts: int) -> None:
        """Take the progress of one file; nodes and devices are those of the cluster."""
        with self._lock:
            self._files[name] = done, total, counts["cuts"], counts["duplicates"], counts["retries"]
            done, total, cuts, duplicates, retries = map(sum, zip(*self._files.values(), strict=True))
            self._advance(done, total, cuts=cuts, duplicates=duplicates, nodes=nodes, devices=devices, retries=retries)


def _report(outcome: Outcome, console: Console) -> int:
    """Report what was made. Returns the exit code."""
    console.event(
        "done" if outcome.complete else "interrupted", output=outcome.output, frames=outcome.frames,
        total=outcome.total, seconds=outcome.seconds, cuts=outcome.cuts, duplicates=outcome.duplicates,
    )  # fmt: skip
    counts = ", ".join(
        (plural(outcome.frames, "frame"), plural(outcome.cuts, "scene cut"), plural(outcome.duplicates, "duplicate"))
    )
    if outcome.complete:
        console.say(f"wrote {outcome.output}: {counts}")
        return DONE
    rest = "the same command with --resume makes the rest" if outcome.resumable else "run it again for the rest"
    console.warn(
        f"interrupted: {outcome.output} holds the first {outcome.frames} of {outcome.total} frames "
        f"({outcome.seconds:.3f} s); {rest}"
    )
    return INTERRUPTED


@contextmanager
def _interruptible(console: Console) -> Iterator[threading.Event]:
    """On the first Ctrl-C set the event, which ends the run after the current frame; on the second one end at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        console.say("finishing the file so far; press Ctrl-C again to quit at once")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
