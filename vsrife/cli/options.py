"""Options that several commands share. Their names and meanings are the keywords of `vsrife.RIFE`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from vsrife.cli.completion import complete_device, complete_model, complete_precision
from vsrife.cli.console import Console
from vsrife.cli.models import offer_download
from vsrife.engine.keywords import FLOW_SCALES, NetworkKeywords
from vsrife.errors import OptionError
from vsrife.files import is_special

if TYPE_CHECKING:
    from vsrife.timing.duplicates import Duplicates
    from vsrife.video.plan import VideoOptions


class Number(click.FloatRange):
    """A finite number in a range; click's own takes "nan" for one in any."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number.", param, ctx)
        return number


class SectionedOption(click.Option):
    """An option listed under a section heading in the help."""

    def __init__(self, *args: Any, section: str, **rest: Any) -> None:
        super().__init__(*args, **rest)
        self.section = section


class SectionedCommand(click.Command):
    """A command whose help groups options by section."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, options in sections_of(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl([record for option in options if (record := option.get_help_record(ctx))])


def sections_of(command: click.Command, ctx: click.Context) -> dict[str, list[click.Option]]:
    """Group a command's options by section; those without one come last."""
    options = [parameter for parameter in command.get_params(ctx) if isinstance(parameter, click.Option)]
    sections: dict[str, list[click.Option]] = {}
    for option in options:
        if isinstance(option, SectionedOption):
            sections.setdefault(option.section, []).append(option)
    others = [option for option in options if not isinstance(option, SectionedOption)]
    return sections | {"Other options" if sections else "Options": others}


def option[F: Callable[..., Any]](*names: str, section: str, **rest: Any) -> Callable[[F], F]:
    """`click.option` in a section of the help."""
    return click.option(*names, cls=SectionedOption, section=section, **rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipArguments:
    """Rate, range and scene-change options, as given on the command line."""

    multi: str | None
    exp: int | None
    fps: str | None
    slow_motion: str | None
    retime: str | None
    start: str | None
    end: str | None
    deinterlace: bool
    inverse_telecine: bool
    duplicates: Duplicates
    max_repeats: int
    replace: str | None
    sc_threshold: float

    def options(self, network: NetworkKeywords) -> VideoOptions:
        """Parse and check the values.

        Raises:
            OptionError: a value cannot be parsed, or two contradict each other.
        """
        from vsrife.timing.parsing import parse_fps, parse_multi
        from vsrife.video.plan import VideoOptions, parse_mark

        if sum(value is not None for value in (self.multi, self.exp, self.fps)) > 1:
            raise OptionError("--multi, --exp and --fps exclude each other, got more than one; give one of them")
        multi = Fraction(2**self.exp) if self.exp else None
        if self.exp is None and self.multi is not None:
            multi = parse_multi(self.multi, "--multi", "for a lower rate give --fps")
        slow_motion = Fraction(1)
        if self.slow_motion is not None:
            slow_motion = parse_multi(self.slow_motion, "--slow-motion", "--retime speeds up")
        return VideoOptions(
            multi=multi,
            fps=None if self.fps is None else parse_fps(self.fps, "--fps"),
            slow_motion=slow_motion,
            retime=None if self.retime is None else _ramp_file(Path(self.retime)),
            start=None if self.start is None else parse_mark("--start", self.start),
            end=None if self.end is None else parse_mark("--end", self.end),
            deinterlace=self.deinterlace,
            inverse_telecine=self.inverse_telecine,
            duplicates=self.duplicates,
            max_repeats=self.max_repeats,
            replace=self.replace,
            sc_threshold=self.sc_threshold,
            network=network,
        )


def _ramp_file(path: Path) -> str:
    """The absolute name of a speed ramp, which is read more than once."""
    if is_special(path):
        raise OptionError(f"--retime must be a file, got {path}, a pipe or device; save it to a file")
    return str(path.resolve())


_source = functools.partial(option, section="Source")


def part_options[F: Callable[..., Any]](function: F) -> F:
    """Add the options of a range of the source: `start` and `end`, text or None."""
    function = _source("--end", metavar="TIME", help="End before this time.")(function)
    begin = _source("--start", metavar="TIME", help="Start at this time: 90, 1:30, 00:01:30.5, or frame 100f.")
    return begin(function)


def reading_options[F: Callable[..., Any]](function: F) -> F:
    """Add the options for reading a source: `deinterlace` and `sc_threshold`."""
    function = _source(
        "--sc-threshold",
        type=Number(0, 1),
        default=0.15,
        show_default=True,
        metavar="X",
        help="Scene-change threshold on the difference of two frames; 1 disables detection.",
    )(function)
    deinterlace = "Deinterlace first, one frame per field."
    return _source("--deinterlace", is_flag=True, help=deinterlace)(function)


def clip_options[R](function: Callable[..., R]) -> Callable[..., R]:
    """Add rate, range and scene-change options; the command gets them as `clip`, a `ClipArguments`."""
    rate = functools.partial(option, section="Frame rate")

    @rate("--multi", metavar="MULTI", help="Multiply the frame rate by 2, 2.5, 5/2, ….  [2]")
    @rate("--exp", type=click.IntRange(1, 8), metavar="N", help="Same as --multi 2^N.")
    @rate("--fps", metavar="FPS", help="Set a constant output rate instead: 60, 60000/1001, ….")
    @rate("--slow-motion", metavar="K", help="Stretch to K times the duration at the source's frame rate.")
    @rate(
        "--retime",
        type=click.Path(exists=True, dir_okay=False),
        metavar="CSV",
        help="Follow a speed ramp: lines of output and source time in seconds, linear in between. Drops the audio.",
    )
    @part_options
    @reading_options
    @_source(
        "--inverse-telecine", is_flag=True,
        help="Take film out of video with pulldown first: 23.976 from 29.97 frames per second. Reads the file twice.",
    )  # fmt: skip
    @_source(
        "--duplicates", type=click.Choice(["keep", "fill", "even"]), default="keep", show_default=True,
        help="Frames that repeat the one before: keep them, fill in motion, or also spread a regular rhythm evenly.",
    )  # fmt: skip
    @_source(
        "--max-repeats", type=click.IntRange(1, 60), default=3, show_default=True, metavar="N",
        help="Repeats in a row that --duplicates replaces; longer ones are a pause.",
    )  # fmt: skip
    @_source(
        "--replace", metavar="FRAMES", help="Make these damaged frames from their neighbours, such as 120,455-456."
    )
    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> R:
        values = {field.name: options.pop(field.name) for field in fields(ClipArguments)}
        return function(*args, clip=ClipArguments(**values), **options)

    return command


def network_options[R](function: Callable[..., R], *, several: bool = False, runs: bool = True) -> Callable[..., R]:
    """Add the network options; the command gets them as `network`, whose values the filter and `interpolate` check.

    With `several`, --model may be repeated, and `network` is a list. With `runs`, a missing model is downloaded, after
    a question unless --yes is given.
    """

    network = functools.partial(option, section="Network")
    if runs:
        function = network("--yes", is_flag=True, help="Download a missing model without asking.")(function)

    @network(
        "-m",
        "--model",
        metavar="MODEL",
        multiple=several,
        shell_complete=complete_model,
        help="A published version such as 4.26, a name from `vsrife models list`, or a weights file"
        f"{'; repeatable' if several else ''}.  [`vsrife models default`]",
    )
    @network(
        "--scale", type=float, metavar="SCALE", help="Estimate flow at 0.25, 0.5, 1, 2 or 4 times the resolution.  [1]"
    )
    @network("--uhd", is_flag=True, help="Same as --scale 0.5, for 4K sources.")
    @network(
        "--ensemble",
        is_flag=True,
        help="Average the flow of both temporal directions; twice the cost; models up to 4.20, and 4.24.",
    )
    @network("--tta", is_flag=True, help="Average over eight flips and rotations; eight times the cost.")
    @network("--tta-temporal", is_flag=True, help="Average over both temporal directions, any model; twice the cost.")
    @network(
        "--device",
        metavar="DEVICE",
        shell_complete=complete_device,
        help="cpu, cuda, cuda:1, …; cuda:0,1 splits a video between two.  [best available]",
    )
    @network(
        "--precision",
        metavar="PRECISION",
        shell_complete=complete_precision,
        help="fp32, fp16, bf16 or int8.  [fastest of full quality on the device]",
    )
    @functools.wraps(function)
    def command(
        *args: Any, model: str | tuple[str, ...] | None, scale: float | None, uhd: bool, yes: bool = False, **rest: Any
    ) -> R:
        values = {name: rest.pop(name) for name in ("ensemble", "tta", "tta_temporal", "device", "precision")}
        if uhd and scale not in (None, 0.5):
            raise OptionError(f"--uhd means --scale 0.5, got --scale {scale:g} as well; give one of them")
        chosen = 0.5 if uhd else 1.0 if scale is None else scale
        if chosen not in FLOW_SCALES:
            raise OptionError(f"--scale must be 0.25, 0.5, 1, 2 or 4, got {chosen:g}; for 4K sources try 0.5")
        models = (model or [None]) if isinstance(model, tuple) else [model]
        if runs:
            for each in models:
                offer_download(each, yes)
        networks = [cast(NetworkKeywords, {"model": each, "scale": chosen, **values}) for each in models]
        return function(*args, network=networks if several else networks[0], **rest)

    return command


def console_options[R](function: Callable[..., R]) -> Callable[..., R]:
    """Add --quiet and --json; the command gets a `Console` as `console`."""

    @option("-q", "--quiet", section="Messages", is_flag=True, help="Print warnings and errors only.")
    @option("--json", "as_json", section="Messages", is_flag=True, help="Print JSON objects on stdout, one per line.")
    @functools.wraps(function)
    def command(*args: Any, quiet: bool, as_json: bool, **rest: Any) -> R:
        return function(*args, console=Console(quiet=quiet, json=as_json), **rest)

    return command
