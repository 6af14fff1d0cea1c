"""`vsrife script`: prints a .vpy that does what the same options of `vsrife video` do."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vsrife.checkpoints.finding import spec_of
from vsrife.cli.options import ClipArguments, SectionedCommand, clip_options, network_options, option
from vsrife.errors import OptionError
from vsrife.networks.catalogue import MODELS

if TYPE_CHECKING:
    from vsrife.engine.keywords import NetworkKeywords
    from vsrife.video.plan import VideoOptions


@click.command(
    cls=SectionedCommand,
    epilog="""\b
Examples:
  vsrife script in.mkv --fps 60 > in.vpy
  vspipe -c y4m in.vpy - | ffmpeg -i - -i in.mkv -map 0:v -map 1:a out.mkv
  vsrife script --mpv --scale 0.5 > ~/.config/mpv/vsrife.vpy""",
)
@click.argument("source", metavar="[IN]", required=False, type=click.Path(path_type=Path))
@clip_options
@functools.partial(network_options, runs=False)
@option("--mpv", is_flag=True, section="Player", help="Print a script for real-time playback in mpv; takes no IN.")
def script(source: Path | None, clip: ClipArguments, network: NetworkKeywords, mpv: bool) -> None:
    """Print a VapourSynth script for the same options as `vsrife video`.

    Run by vspipe, it makes the same frames at the same times, as a starting point for scripts of your own.
    """
    options = clip.options({**network, "model": _located(network.get("model"))})
    if mpv:
        _print_mpv(source, options)
        return
    if source is None:
        raise OptionError("IN is missing; give a video file, or --mpv for a script that plays any file")
    from vsrife.video.plan import make_plan
    from vsrife.video.rendering import find_film, unflagged_combs
    from vsrife.video.reporting import Reporter
    from vsrife.video.script import vapoursynth_script
    from vsrife.video.source import open_source

    opened = open_source(source, upright=True)
    if opened.read_size != opened.size:
        (width, height), (read_width, read_height) = opened.size, opened.read_size
        _say(
            f"{source.name} is {width}x{height}, of which the script reads {read_width}x{read_height}; `vsrife video` "
            "keeps all"
        )
    report = Reporter(say=_say, warn=_say, advance=lambda *_, **__: None, stop=lambda: False)
    film = find_film(opened, report) if options.inverse_telecine else None
    plan = make_plan(options, opened.timeline, opened.field_based, opened.keywords, film)
    if film is None and plan.field is None and (warning := unflagged_combs(opened)):
        _say(warning)
    click.echo(vapoursynth_script(opened, plan), nl=False)


def _say(text: str) -> None:
    print(f"vsrife: {text}", file=sys.stderr)


def _print_mpv(source: Path | None, options: VideoOptions) -> None:
    from vsrife.video.script import MPV_LINE, mpv_script

    if source is not None:
        raise OptionError(f"--mpv is for any file, got {source}; leave IN out")
    click.echo(mpv_script(options), nl=False)
    print(f"save it as vsrife.vpy in mpv's folder, and put into mpv.conf:  {MPV_LINE}", file=sys.stderr)


def _located(model: str | Path | None) -> str | Path | None:
    """A model's name, or the absolute path of a file, since the script may run in another folder."""
    if model is None or model in MODELS:
        return model
    path = Path(model).expanduser()
    if path.exists():
        return str(path.absolute())
    spec_of(model)  # raises if there is no such name
    return model
