"""`vsrife compare`: which model is best on one's own footage."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vsrife.cli.console import Console
from vsrife.cli.options import (
    NetworkArguments,
    SectionedCommand,
    console_options,
    network_options,
    option,
    part_options,
    reading_options,
)
from vsrife.errors import ClipError, MediaError, OptionError, RifeError

if TYPE_CHECKING:
    import vapoursynth as vs

    from vsrife.evaluation.comparison import Result
    from vsrife.timing.timeline import Timeline
    from vsrife.video.source import Source

_BASELINES = ("repeat", "blend", "dis")  # as in `vsrife.evaluation.baselines`, which is slow to import
_MEASURES = ("psnr_db", "ssim", "ssimulacra2")
_CUTS_SHOWN = 5

Seconds = Callable[[int], float]  # the time of a frame


_rebuild, _source, _output = (functools.partial(option, section=name) for name in ("Comparison", "Source", "Output"))


@click.command(
    cls=SectionedCommand,
    epilog="""\b
Examples:
  vsrife compare in.mp4
  vsrife compare in.mkv --model 4.6 --model 4.26 --start 1:30 --frames 200 --html
  vsrife compare in.mp4 --drop 4 --baseline none -o slow-motion-test""",
)
@click.argument("file", metavar="IN", type=click.Path(path_type=Path))
@_rebuild(
    "--drop",
    type=click.IntRange(2, 16),
    default=2,
    show_default=True,
    metavar="N",
    help="Keep every Nth frame and rebuild the others.",
)
@_rebuild(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice([*_BASELINES, "none"]),
    help="May be repeated: the frame before again, a blend of both, OpenCV's DIS flow.  [all]",
)
@part_options
@_source("--frames", type=click.IntRange(min=3), metavar="COUNT", help="End after this many frames.")
@reading_options
@_output(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder for what is written.  [the name of IN and -compare]",
)
@_output(
    "--worst",
    type=click.IntRange(0, 50),
    default=4,
    show_default=True,
    metavar="COUNT",
    help="Strips and pictures of this many of the worst frames.",
)
@_output("--html", is_flag=True, help="Also write a page that opens without a network.")
@_output("--overwrite", is_flag=True, help="Write into a folder that is not empty.")
@functools.partial(network_options, several=True)
@console_options
def compare(file: Path, console: Console, html: bool, output: Path | None, overwrite: bool, **options: Any) -> int:
    """Find out which model is best on your own video.

    Drops frames of IN, rebuilds them with each --model and with simple baselines, and says how near each comes to the
    dropped frames: PSNR, SSIM, and SSIMULACRA2 as a perceptual score. Frames across a scene change and repeated
    frames are left out. Writes a plot over time, strips of the worst frames and the scores of every frame.
    """
    with _output_folder(output or Path(f"{file.stem}-compare"), overwrite) as folder:
        result, seconds = _run(file, console, **options)
        means = result.means()
        if not means:
            raise ClipError(
                f"{file} has no frame that can be rebuilt, got {_left_out(result)}; give a longer part, or "
                "--sc-threshold 1 where cuts are seen that are none"
            )
        _say(console, means, result)
        _write(folder, f"{file.name}, every {_ordinal(result.dropping.step)} frame kept", seconds, result, html=html)
    console.event("done", output=folder, frames=len(result.numbers), left_out=len(result.left_out()))
    console.say(f"wrote {folder}")
    return 0


@dataclass(frozen=True, slots=True)
class _Part:
    """The frames to compare on, at a known rate."""

    clip: vs.VideoNode
    timeline: Timeline
    first: int  # number of its first frame in the file
    start: Fraction  # when the file's first frame is shown

    def seconds(self, number: int) -> float:
        """The time of a frame of the file."""
        return float(self.timeline[number - self.first] - self.start)


def _run(
    file: Path, console: Console, *, drop: int, network: Sequence[NetworkArguments], baselines: Sequence[str],
    start: str | None, end: str | None, frames: int | None, deinterlace: bool, sc_threshold: float, worst: int,
) -> tuple[Result, Seconds]:  # fmt: skip
    """Gives the result, and the time of each of its frames."""
    from vsrife.evaluation.comparison import compare as compare_clip
    from vsrife.evaluation.comparison import plan_dropping
    from vsrife.video.source import media_errors, open_source

    for package in ("cv2", "matplotlib.figure", "PIL.Image"):
        import_module(package)  # one that is missing is missed now, not when the work is done
    models = _models(network)
    part = _part(open_source(file, upright=True), start, end, frames, deinterlace)
    time_of = None if part.timeline.rate is not None else part.timeline.__getitem__
    with media_errors(file, "cannot be compared on"):
        with console.progress("looking for cuts", part.clip.num_frames) as advance:
            dropping = plan_dropping(part.clip, drop, sc_threshold, time_of, advance)
        with console.progress("rebuilding", len(dropping.targets)) as advance:
            chosen = [name for name in baselines or _BASELINES if name != "none"]
            result = compare_clip(part.clip, dropping, models, chosen, _MEASURES, worst, advance)
    return result.moved(part.first), part.seconds


def _models(network: Sequence[NetworkArguments]) -> dict[str, dict[str, Any]]:
    """A short name and the filter's keywords of each model."""
    from vsrife.checkpoints.finding import model_labels

    chosen = list({arguments.model: arguments for arguments in network}.values())
    names = model_labels([arguments.model for arguments in chosen])
    return {name: arguments.keywords() for name, arguments in zip(names, chosen, strict=True)}


def _part(source: Source, start: str | None, end: str | None, frames: int | None, deinterlace: bool) -> _Part:
    from vsrife.video.plan import VideoOptions, make_plan, parse_mark, prepare

    options = VideoOptions(
        start=parse_mark("--start", start) if start else None,
        end=parse_mark("--end", end) if end else None,
        deinterlace=deinterlace,
    )
    plan = make_plan(options, source.timeline, source.field_based, source.keywords)
    clip, timeline = prepare(source.clip, plan), plan.timeline
    if frames is not None and frames < timeline.frames:
        clip, timeline = clip[:frames], timeline.part(0, frames)
    if timeline.rate is None:  # positions between frames are given by their times; the filter wants some rate
        mean = timeline.mean_rate
        clip = clip.std.AssumeFPS(fpsnum=mean.numerator, fpsden=mean.denominator)
    return _Part(clip, timeline, plan.trim[0] if plan.trim else 0, source.timeline.start)


@contextmanager
def _output_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Refuses a folder with files in it before anything is computed; one that stays empty is not left behind."""
    if folder.is_file():
        raise OptionError(f"--output must be a folder, got the file {folder}; give another name")
    existed = folder.is_dir()
    if existed and any(folder.iterdir()) and not overwrite:
        raise OptionError(
            f"--output must be empty, got {folder} with files in it; add --overwrite or give another name"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except OSError as error:
        if isinstance(error, RifeError):
            raise
        raise MediaError(f"{folder} cannot be written, got: {error.strerror}; give another --output") from error
    finally:
        if not existed:
            with suppress(OSError):
                folder.rmdir()


def _say(console: Console, means: Mapping[str, Mapping[str, float]], result: Result) -> None:
    from vsrife.evaluation.tables import score_table

    for method, values in means.items():
        console.event("score", method=method, frames=len(result.numbers), **values)
    if not console.json:
        click.echo(score_table(means))
    console.say(f"{len(result.numbers)} frames scored; {_left_out(result)}")


def _left_out(result: Result) -> str:
    """What was not scored, and why."""
    dropping = result.dropping
    cuts = ", ".join(str(cut) for cut in dropping.cuts[:_CUTS_SHOWN])
    more = ", …" if len(dropping.cuts) > _CUTS_SHOWN else ""
    reasons = (
        (len(dropping.across_cuts), f"across scene changes (before frame {cuts}{more})"),
        (len(result.repeated), "that repeat a neighbour"),
        (len(dropping.rest), "at the end without a kept frame after them"),
    )
    parts = [f"{count} {reason}" for count, reason in reasons if count]
    return f"left out: {'; '.join(parts)}" if parts else "nothing left out"


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third"}.get(n, f"{n}th")


def _write(folder: Path, title: str, seconds: Seconds, result: Result, *, html: bool) -> None:
    from vsrife.evaluation.page import Page, write_page
    from vsrife.evaluation.plots import plot_time
    from vsrife.evaluation.strips import method_row, save_png, strip
    from vsrife.evaluation.tables import number, write_csv

    scores, gaps = result.scores, _stretches(result.left_out())
    rows = zip(
        result.numbers, *(scores[key][method] for key in result.measures for method in result.methods), strict=True
    )
    head = ["frame", "seconds", *(f"{method} {key}" for key in result.measures for method in result.methods)]
    lines = ((n, f"{seconds(n):.6f}", *(f"{v:.6g}" for v in values)) for n, *values in rows)
    write_csv(folder / "scores.csv", head, lines)
    plot_time(folder / "plot.png", scores, result.numbers, gaps)
    (folder / "strips").mkdir(exist_ok=True)
    for case in result.worst:
        panels = [
            method_row(
                case.before, case.truth, f"{name}  {number('psnr_db', case.scores[name]['psnr_db'])} dB", picture
            )
            for name, picture in case.pictures.items()
        ]
        save_png(strip(panels), folder / "strips" / f"frame_{case.target.number:06d}.png")
    if html:
        page = Page(title, f"{len(result.numbers)} frames scored; {_left_out(result)}", result, gaps, seconds)
        write_page(folder / "compare.html", page)


def _stretches(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n - 1:
            runs[-1] = runs[-1][0], n
        else:
            runs.append((n, n))
    return runs
