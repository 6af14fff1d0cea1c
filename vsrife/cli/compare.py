"""`vsrife compare`: score models on one's own footage."""

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

from vsrife.cli.console import DONE, Console, plural
from vsrife.cli.options import SectionedCommand, console_options, network_options, option, part_options, reading_options
from vsrife.errors import ClipError, MediaError, OptionError, RifeError
from vsrife.evaluation import BASELINE_NAMES

if TYPE_CHECKING:
    from vsrife.engine.keywords import NetworkKeywords
    from vsrife.evaluation.comparison import Comparison
    from vsrife.timing.timeline import Timeline
    from vsrife.video.source import Source

_MEASURES = ("psnr_db", "ssim", "ssimulacra2")
_CUTS_SHOWN = 5

Seconds = Callable[[int], float]  # frame number to time

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
    type=click.Choice([*BASELINE_NAMES, "none"]),
    help="Compare with: the previous frame repeated, a cross-fade, OpenCV's DIS flow; repeatable.  [all]",
)
@part_options
@_source("--frames", type=click.IntRange(min=3), metavar="COUNT", help="Use this many frames only.")
@reading_options
@_output(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Output folder.  [the name of IN with -compare]",
)
@_output(
    "--worst",
    type=click.IntRange(0, 50),
    default=4,
    show_default=True,
    metavar="COUNT",
    help="Number of worst frames to show as pictures.",
)
@_output("--html", is_flag=True, help="Also write a self-contained HTML page.")
@_output("--overwrite", is_flag=True, help="Write into a folder that already holds files.")
@functools.partial(network_options, several=True)
@console_options
def compare(file: Path, console: Console, html: bool, output: Path | None, overwrite: bool, **options: Any) -> int:
    """Find the best model for your own video.

    Drops frames of IN, rebuilds them with each --model and with simple baselines, and scores the result against the
    dropped frames: PSNR, SSIM, and SSIMULACRA2 as a perceptual score. Frames across a scene change and duplicates are
    not scored. Writes the scores of every frame as CSV, a plot over time, and strips of the worst frames.
    """
    with _output_folder(output or Path(f"{file.stem}-compare"), overwrite) as folder:
        result, seconds = _run(file, console, **options)
        means = result.means()
        if not means:
            raise ClipError(
                f"{file} must have a frame that can be scored, got {_unscored(result, 'too few')}; give a longer part, "
                "or --sc-threshold 1 if the scene changes are false"
            )
        _print_scores(console, means, result)
        _write(folder, f"{file.name}, every {_ordinal(result.plan.step)} frame kept", seconds, result, html=html)
    console.event("done", output=folder, frames=len(result.numbers), left_out=len(result.unscored()))
    console.say(f"wrote {folder}")
    return DONE


@dataclass(frozen=True, slots=True)
class _Part:
    """The frames to compare on.

    Attributes:
        clip: a `vs.VideoNode` at a known rate.
        timeline: times of its frames.
        first: number of its first frame in the file.
        start: time of the file's first frame.
    """

    clip: Any
    timeline: Timeline
    first: int
    start: Fraction

    def seconds(self, number: int) -> float:
        """Time of a frame of the file, from the file's first."""
        return float(self.timeline[number - self.first] - self.start)


def _run(
    file: Path, console: Console, *, drop: int, network: Sequence[NetworkKeywords], baselines: Sequence[str],
    start: str | None, end: str | None, frames: int | None, deinterlace: bool, sc_threshold: float, worst: int,
) -> tuple[Comparison, Seconds]:  # fmt: skip
    """Compare, and return the result with the time of each of its frames."""
    from vsrife.evaluation.comparison import compare as compare_clip
    from vsrife.evaluation.comparison import plan_drop
    from vsrife.video.source import media_errors, open_source

    for package in ("cv2", "matplotlib.figure", "PIL.Image"):
        import_module(package)  # a missing package must fail now, not after the work
    models = _models(network)
    part = _part(open_source(file, upright=True), start, end, frames, deinterlace)
    time_of = None if part.timeline.rate is not None else part.timeline.__getitem__
    with media_errors(file, "cannot be compared on"):
        with console.progress("detecting scene changes", part.clip.num_frames) as advance:
            plan = plan_drop(part.clip, drop, sc_threshold, time_of, advance)
        with console.progress("rebuilding", len(plan.targets)) as advance:
            chosen = [name for name in baselines or BASELINE_NAMES if name != "none"]
            result = compare_clip(part.clip, plan, models, chosen, _MEASURES, worst, advance)
    return result.renumbered(part.first), part.seconds


def _models(network: Sequence[NetworkKeywords]) -> dict[str, dict[str, Any]]:
    """Keywords of `RIFE` by the short name of each model."""
    from vsrife.checkpoints.finding import model_labels

    chosen = {keywords.get("model"): keywords for keywords in network}
    names = model_labels(list(chosen))
    return {name: dict(keywords) for name, keywords in zip(names, chosen.values(), strict=True)}


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
    if timeline.rate is None:  # positions come from the times; the filter needs any rate
        mean = timeline.mean_rate
        clip = clip.std.AssumeFPS(fpsnum=mean.numerator, fpsden=mean.denominator)
    return _Part(clip, timeline, plan.trim[0] if plan.trim else 0, source.timeline.start)


@contextmanager
def _output_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Make the output folder, refusing one that holds files; a new one that stays empty is removed at the end."""
    if folder.is_file():
        raise OptionError(f"--output must be a folder, got the file {folder}; give another name")
    existed = folder.is_dir()
    if existed and any(folder.iterdir()) and not overwrite:
        raise OptionError(
            f"--output must be an empty folder, got {folder} with files in it; add --overwrite or give another name"
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


def _print_scores(console: Console, means: Mapping[str, Mapping[str, float]], result: Comparison) -> None:
    from vsrife.evaluation.tables import score_table

    for method, values in means.items():
        console.event("score", method=method, frames=len(result.numbers), **values)
    if not console.json:
        click.echo(score_table(means))
    console.say(_summary(result))


def _summary(result: Comparison) -> str:
    return f"{plural(len(result.numbers), 'frame')} scored; {_unscored(result)}"


def _unscored(result: Comparison, none: str = "none left out") -> str:
    """Which frames were not scored, and why; `none` if all were."""
    plan = result.plan
    cuts = ", ".join(str(cut) for cut in plan.cuts[:_CUTS_SHOWN])
    more = ", …" if len(plan.cuts) > _CUTS_SHOWN else ""
    reasons = (
        (len(plan.across_cuts), f"across scene changes (before frame {cuts}{more})"),
        (len(result.duplicates), "equal to a neighbour"),
        (len(plan.after_last), "after the last kept frame"),
    )
    parts = [f"{number} {reason}" for number, reason in reasons if number]
    return f"not scored: {'; '.join(parts)}" if parts else none


def _ordinal(n: int) -> str:
    return {2: "second", 3: "third"}.get(n, f"{n}th")


def _write(folder: Path, title: str, seconds: Seconds, result: Comparison, *, html: bool) -> None:
    from vsrife.evaluation.page import Page, write_page
    from vsrife.evaluation.plots import plot_time
    from vsrife.evaluation.strips import method_row, write_strip
    from vsrife.evaluation.tables import number, write_csv

    scores, gaps = result.scores, _ranges(result.unscored())
    rows = zip(
        result.numbers, *(scores[key][method] for key in result.measures for method in result.methods), strict=True
    )
    head = ["frame", "seconds", *(f"{method} {key}" for key in result.measures for method in result.methods)]
    lines = ((n, f"{seconds(n):.6f}", *(f"{v:.6g}" for v in values)) for n, *values in rows)
    write_csv(folder / "scores.csv", head, lines)
    plot_time(folder / "plot.png", scores, result.numbers, gaps)
    (folder / "strips").mkdir(exist_ok=True)
    for frame in result.worst:
        panels = [
            method_row(
                frame.before, frame.truth, f"{name}  {number('psnr_db', frame.scores[name]['psnr_db'])} dB", picture
            )
            for name, picture in frame.pictures.items()
        ]
        write_strip(folder / "strips" / f"frame_{frame.target.number:06d}.png", panels)
    if html:
        write_page(folder / "compare.html", Page(title, _summary(result), result, gaps, seconds))


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n - 1:
            runs[-1] = runs[-1][0], n
        else:
            runs.append((n, n))
    return runs
