"""`vsrife image`: interpolate between two pictures; the result is pictures, an animation or a short video."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vsrife.cli.console import Advance, Console
from vsrife.cli.options import Number, SectionedCommand, console_options, network_options, option
from vsrife.errors import OptionError, shown
from vsrife.files import is_taken

if TYPE_CHECKING:
    from vsrife.engine.keywords import NetworkKeywords
    from vsrife.images.files import Picture

_DEFAULT_RATE = "24"
_MOST_PICTURES = 100_000  # between two; more is a typing error
_times, _stitch, _output = (partial(option, section=section) for section in ("Times", "Stitching", "Output"))


@click.command(
    cls=SectionedCommand,
    epilog="""\b
Examples:
  vsrife image a.png b.png -o middle.png
  vsrife image a.png b.png --timestep 0.3 --timestep 0.7 -o between_%02d.png
  vsrife image a.jpg b.jpg --multi 12 --rate 12 -o morph.webp
  vsrife image a.png b.png --multi 24 -o morph.mp4
  vsrife image left.jpg right.jpg --stitch -o wide.jpg""",
)
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@_times(
    "--multi", type=click.IntRange(2, _MOST_PICTURES), metavar="N", help="Make N - 1 pictures at even intervals.  [2]"
)
@_times(
    "--timestep", "timesteps", type=Number(0, 1), multiple=True, metavar="T",
    help="Make the picture at this time, from A at 0 to B at 1; repeatable.",
)  # fmt: skip
@_stitch(
    "--stitch", is_flag=True, help="Stitch two overlapping pictures into one, going from A to B across the overlap."
)
@_stitch("--offset", metavar="X,Y", help="Position of B's top left corner in A, in pixels.  [estimated]")
@_output(
    "-o", "--output", metavar="OUT", type=click.Path(path_type=Path),
    help="A picture, a pattern such as out_%02d.png, a folder, an animation (.gif, .apng; .webp or .png with --rate) "
    "or a video.  [beside A]",
)  # fmt: skip
@_output("--rate", metavar="FPS", help=f"Frame rate of an animation or video.  [{_DEFAULT_RATE}]")
@_output(
    "--quality", type=click.IntRange(1, 100), metavar="Q", help="Quality of JPEG and WebP.  [JPEG 95, WebP lossless]"
)
@_output("--overwrite", is_flag=True, help="Replace existing files.")
@network_options
@console_options
def image(
    first: Path, second: Path, multi: int | None, timesteps: tuple[float, ...], stitch: bool, offset: str | None,
    output: Path | None, rate: str | None, quality: int | None, overwrite: bool, network: NetworkKeywords,
    console: Console,
) -> None:  # fmt: skip
    """Interpolate between the pictures A and B.

    Reads and writes PNG and TIFF of 8 and 16 bits, JPEG and WebP, with alpha and ICC profile. Animations and videos
    start with A and end with B.
    """
    from vsrife.images.animation import MOVING_SUFFIXES, check_animation, write_animation
    from vsrife.images.files import check_writable, write_picture
    from vsrife.timing.parsing import parse_fps

    if multi and timesteps:
        raise OptionError("--multi and --timestep exclude each other, got both; give one of them")
    if stitch:
        if multi or timesteps or rate:
            raise OptionError("--stitch makes one picture, got --multi, --timestep or --rate as well; leave them out")
        _stitch_pictures(first, second, offset, output, quality, overwrite, network, console)
        return
    if offset is not None:
        raise OptionError(f"--offset needs --stitch, got {shown(offset)} without it; add --stitch")
    times = list(timesteps) or [n / (multi or 2) for n in range(1, multi or 2)]
    a, b = _read_alike(first, second, console)
    moving = output is not None and (rate is not None or output.suffix.lower() in MOVING_SUFFIXES)
    paths = [output] if output is not None and moving else name_outputs(output, first, second, a, len(times))
    for path in paths:
        if moving:
            check_animation(path, a.header, len(times) + 2)
        else:
            check_writable(path, a)
    refuse_existing(paths, overwrite=overwrite, inputs=(first, second))
    with console.progress("interpolating", len(times)) as advance:
        between = _between(a, b, times, network, advance)
        if moving:
            speed = parse_fps(_DEFAULT_RATE if rate is None else rate, "--rate")
            write_animation(paths[0], chain([a], between, [b]), lambda n: n / speed, quality=quality)
        else:
            for path, picture in zip(paths, between, strict=True):
                write_picture(path, picture, quality=quality)
    report(paths, console)


def report(paths: list[Path], console: Console) -> None:
    """Name the files that were written."""
    for path in paths:
        console.say(f"wrote {path}")
        console.event("written", path=path)


def _stitch_pictures(
    first: Path, second: Path, offset: str | None, output: Path | None, quality: int | None, overwrite: bool,
    network: NetworkKeywords, console: Console,
) -> None:  # fmt: skip
    from vsrife.images.files import Picture, check_writable, write_picture
    from vsrife.images.stitching import find_offset, stitch

    a, b = _read_alike(first, second, console, same_size=False)
    (path,) = name_outputs(output, first, second, a, 1)
    check_writable(path, a)
    refuse_existing([path], overwrite=overwrite, inputs=(first, second))
    position = find_offset(a.pixels, b.pixels) if offset is None else _parse_offset(offset)
    console.say(f"offset of {second} in {first}: {position[0]},{position[1]}")
    write_picture(path, Picture(stitch(a.pixels, b.pixels, position, **network), a.icc), quality=quality)
    report([path], console)


def _parse_offset(text: str) -> tuple[int, int]:
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError as error:
        raise OptionError(f"--offset must be two whole numbers X,Y, got {shown(text)}; write it like 640,-3") from error
    return x, y


def _read_alike(first: Path, second: Path, console: Console, *, same_size: bool = True) -> tuple[Picture, Picture]:
    from vsrife.images.files import alike, read_picture

    a, b = alike(read_picture(first), read_picture(second), (str(first), str(second)), same_size=same_size)
    if a.icc != b.icc:
        console.warn(f"{first} and {second} have different ICC profiles; the result keeps that of {first}")
    return a, b


def _between(
    a: Picture, b: Picture, times: list[float], network: NetworkKeywords, advance: Advance
) -> Iterator[Picture]:
    from vsrife.arrays import Pair
    from vsrife.images.files import Picture

    pair: Pair[Any] = Pair(a.pixels, b.pixels, **network)
    for number, time in enumerate(times, 1):
        yield Picture(pair.at(float(time)), a.icc)
        advance(number)


def name_outputs(output: Path | None, first: Path, second: Path, picture: Picture, count: int) -> list[Path]:
    """Name the output files.

    Args:
        output: the option: a name, a pattern such as x_%02d.png, a folder, or None: beside A.
        first, second: the input files.
        picture: a result; its suffix is that of A if that format can hold it, else .png.
        count: number of results.
    """
    from vsrife.images.files import PICTURE_SUFFIXES
    from vsrife.images.numbering import numbered

    deep = picture.header.bits > 8 or picture.header.has_alpha
    kept = first.suffix.lower() in PICTURE_SUFFIXES and not (deep and first.suffix.lower() in (".jpg", ".jpeg"))
    name = f"{first.stem}-{second.stem}{first.suffix if kept else '.png'}".replace("%", "")
    if output is None:
        output = first.with_name(name)
    elif output.is_dir():
        output = output / name
    if count == 1 and numbered(output, 1) is None:
        return [output]
    if numbered(output, 1) is None:
        output = output.with_name(f"{output.stem}_%0{len(str(count))}d{output.suffix}")
    return [path for n in range(1, count + 1) if (path := numbered(output, n)) is not None]


def refuse_existing(paths: list[Path], *, overwrite: bool, inputs: tuple[Path, ...]) -> None:
    """Check, before any work, that no file would be replaced against the user's will.

    Raises:
        OptionError: an output exists and `overwrite` is False, or it is an input.
    """
    for path in paths:
        if any(path.exists() and path.samefile(source) for source in inputs if source.exists()):
            raise OptionError(f"the output would replace the input, got {path} for both; give another name")
        if is_taken(path) and not overwrite:
            raise OptionError(f"{path} exists; give another name, or --overwrite to replace it")
