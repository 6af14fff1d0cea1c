"""`vsrife video`: whole videos, many of them, picture sequences and pipes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from vsrife.cli.console import Advance, Console
from vsrife.cli.options import NetworkArguments, console_options, network_options
from vsrife.errors import OptionError, RifeError

if TYPE_CHECKING:
    from vsrife.media.job import EncodeOptions, Outcome, VideoJob
    from vsrife.media.plan import VideoOptions

_DONE, _FAILED, _INTERRUPTED = 0, 1, 130


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="IN... [OUT]")
@click.option("--multi", metavar="MULTI", help="Output frames per source frame, such as 2, 2.5 or 5/2.  [2]")
@click.option("--exp", type=click.IntRange(1, 8), metavar="N", help="The same as --multi 2^N.")
@click.option("--fps", metavar="FPS", help="Constant output rate instead, such as 60 or 60000/1001.")
@click.option("--slow-motion", metavar="K", help="K times as long at the source's rate, without sound.")
@click.option("--stretch-audio", is_flag=True, help="With --slow-motion: slow the sound down as well.")
@click.option("--start", metavar="TIME", help="Begin there: 90, 1:30, 00:01:30.5, or a frame as 100f.")
@click.option("--end", metavar="TIME", help="End there, without the frame at that time.")
@click.option("--deinterlace", is_flag=True, help="Make a frame of each field of an interlaced source first.")
@click.option(
    "--sc-threshold", type=click.FloatRange(0, 1), default=0.15, show_default=True, metavar="X",
    help="Difference of two frames that counts as a scene change; 1: never.",
)  # fmt: skip
@network_options
@click.option("--codec", metavar="CODEC", help="x264, x265, svt-av1, vp9, ffv1, prores, or an encoder of FFmpeg.  [x264]")
@click.option("--crf", type=float, metavar="CRF", help="Quality, lower is better.  [of the codec]")
@click.option("--preset", metavar="PRESET", help="Speed of the encoder.  [of the codec]")
@click.option("--pix-fmt", metavar="FORMAT", help="Pixel format as FFmpeg names it.  [the source's]")
@click.option("--montage", is_flag=True, help="Show the source at the left of the result.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@click.option("--resume", is_flag=True, help="Go on with a run that was interrupted or failed.")
@click.option("--segment", default="10", show_default=True, metavar="SECONDS", help="Between points to resume from.")
@console_options
def video(files: tuple[str, ...], console: Console, **options: Any) -> int:
    """Raise the frame rate of videos, or slow them down.

    OUT is a video; its suffix chooses the container. All tracks, chapters, files, tags and colours are kept.
    """
    job = _job(files, **options)
    with _interruptible(console) as stop:
        outcome = _run(job, console, stop)
    return _report(outcome, console)


def _job(
    files: tuple[str, ...], *, network: NetworkArguments, sc_threshold: float, start: str | None, end: str | None,
    deinterlace: bool, overwrite: bool, resume: bool, segment: str, **options: Any,
) -> VideoJob:  # fmt: skip
    from vsrife.media.job import EncodeOptions, VideoJob

    rates = {name: options.pop(name) for name in ("multi", "exp", "fps", "slow_motion")}
    if len(files) != 2:
        raise OptionError(f"give IN and OUT, got {len(files)} names")
    source, output = map(Path, files)
    return VideoJob(
        source=source, output=output, video=_video_options(rates, network, sc_threshold, start, end, deinterlace),
        encode=EncodeOptions(**options), resume=resume, overwrite=overwrite, piece_seconds=_above_zero("--segment", segment),
    )  # fmt: skip


def _video_options(
    rates: dict[str, Any], network: NetworkArguments, sc_threshold: float, start: str | None, end: str | None,
    deinterlace: bool,
) -> VideoOptions:  # fmt: skip
    from vsrife.media.plan import VideoOptions, parse_mark
    from vsrife.options import parse_fps, parse_multi

    multi, exp, fps, slow_motion = rates["multi"], rates["exp"], rates["fps"], rates["slow_motion"]
    if sum(value is not None for value in (multi, exp, fps)) > 1:
        raise OptionError("--multi, --exp and --fps say the same in different ways; give one of them")
    return VideoOptions(
        multi=Fraction(2**exp) if exp else parse_multi(multi) if multi else None,
        fps=parse_fps(fps) if fps else None,
        slow_motion=parse_multi(slow_motion) if slow_motion else Fraction(1),
        start=parse_mark("--start", start) if start else None,
        end=parse_mark("--end", end) if end else None,
        deinterlace=deinterlace, sc_threshold=sc_threshold, network=network.keywords(),
    )  # fmt: skip


def _above_zero(name: str, text: str) -> Fraction:
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(0)
    if value <= 0:
        raise OptionError(f"{name} must be a number above 0, got {text!r}; correct it")
    return value


def _run(job: VideoJob, console: Console, stop: threading.Event) -> Outcome:
    from vsrife.media.job import Reporter, run

    with console.progress(job.source.name, None) as advance:
        return run(job, _reporter(console, advance, stop))


def _reporter(console: Console, advance: Advance, stop: threading.Event) -> Any:
    from vsrife.media.job import Reporter

    def progress(done: int, total: int, cuts: int, repeats: int) -> None:
        advance(done, total, cuts=cuts, repeats=repeats)

    return Reporter(say=console.say, warn=console.warn, advance=progress, stop=stop.is_set)


def _report(outcome: Outcome, console: Console) -> int:
    """Say what was made; gives the exit code."""
    whole = outcome.frames == outcome.total
    console.event("done" if whole else "interrupted", output=outcome.output, frames=outcome.frames,
                  total=outcome.total, seconds=outcome.seconds, cuts=outcome.cuts, repeats=outcome.repeats)  # fmt: skip
    seen = f"{outcome.frames} frames, {outcome.cuts} scene cuts, {outcome.repeats} repeated source frames"
    if whole:
        console.say(f"wrote {outcome.output}: {seen}")
        return _DONE
    console.say(
        f"interrupted: {outcome.output} holds the first {outcome.frames} of {outcome.total} frames "
        f"({outcome.seconds:.3f} s); the same command with --resume makes the rest"
    )
    return _INTERRUPTED


@contextmanager
def _interruptible(console: Console) -> Iterator[threading.Event]:
    """The first Ctrl-C asks for an end after the current frame, a second one ends at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        console.say("finishing the file so far; press Ctrl-C again to leave at once")

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
