"""`vsrife flow`: the optical flow, mask and warped frames behind an interpolated picture, as files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vsrife.cli.console import Console
from vsrife.cli.image import refuse_existing, report
from vsrife.cli.options import Number, SectionedCommand, console_options, network_options, option
from vsrife.errors import MediaError

if TYPE_CHECKING:
    from vsrife.arrays import OpticalFlow
    from vsrife.engine.keywords import NetworkKeywords
    from vsrife.images.files import Picture

_FILES = (
    "to_a.flo", "to_b.flo", "to_a.png", "to_b.png", "mask.png", "warp_a.png", "warp_b.png", "between.png",
)  # fmt: skip
_motion, _output = (partial(option, section=section) for section in ("Motion", "Output"))


@click.command(
    cls=SectionedCommand,
    epilog="""\b
Examples:
  vsrife flow frame_0100.png frame_0101.png -o bad_frame
  vsrife flow a.png b.png --timestep 0 --only to_b.flo -o .""",
)
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@_motion(
    "--timestep",
    type=Number(0, 1),
    default=0.5,
    show_default=True,
    metavar="T",
    help="Time of the new picture: 0 is A, 1 is B.",
)
@_motion(
    "--largest",
    type=Number(0, min_open=True),
    metavar="PX",
    help="Motion shown in full colour.  [the longest vector]",
)
@_output("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Output folder.  [flow, beside A]")
@_output(
    "--only",
    "names",
    multiple=True,
    type=click.Choice(_FILES),
    metavar="NAME",
    help="Write this file only; repeatable.  [all]",
)
@_output("--overwrite", is_flag=True, help="Replace existing files.")
@network_options
@console_options
def flow(
    first: Path, second: Path, timestep: float, largest: float | None, output: Path | None, names: tuple[str, ...],
    overwrite: bool, network: NetworkKeywords, console: Console,
) -> None:  # fmt: skip
    """Write the estimated motion between pictures A and B, to find out why a frame looks wrong.

    \b
    to_a.flo, to_b.flo      flow from a pixel at time T to its position in A and in B
    to_a.png, to_b.png      the same, colour-coded: red right, yellow down, cyan left, blue up, white static
    mask.png                blend weights: white takes A, black takes B
    warp_a.png, warp_b.png  A and B warped to time T
    between.png             the interpolated picture

    Flow files are in Middlebury format: pixels, x (right) before y (down). With --timestep 0, to_b.flo is the flow from
    A to B as Middlebury defines it; with --timestep 1, to_a.flo is the flow from B to A.
    """
    from vsrife.arrays import Pair
    from vsrife.images.files import Picture, alike, read_picture

    a, b = alike(read_picture(first), read_picture(second), (str(first), str(second)))
    folder = first.with_name("flow") if output is None else output
    paths = [folder / name for name in names or _FILES]
    refuse_existing(paths, overwrite=overwrite, inputs=(first, second))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"{folder} cannot be created, got: {error.strerror}; give another --output") from error
    pair: Pair[Any] = Pair(a.pixels, b.pixels, **network)
    motion = pair.flow(timestep)
    between = Picture(pair.at(timestep), a.icc) if folder / "between.png" in paths else None
    for path in paths:
        _write(path, motion, between, largest, a.icc)
    report(paths, console)


def _write(
    path: Path, flow: OpticalFlow[Any], between: Picture | None, largest: float | None, icc: bytes | None
) -> None:
    from vsrife.images.files import Picture, write_picture
    from vsrife.images.flow_files import flow_colours, write_flo

    if path.name == "between.png":
        assert between is not None
        write_picture(path, between)
    elif path.suffix == ".flo":
        write_flo(path, getattr(flow, path.stem))
    elif path.stem.startswith("to_"):
        write_picture(path, Picture(flow_colours(getattr(flow, path.stem), largest)))
    elif path.stem == "mask":
        write_picture(path, Picture((flow.mask * 65535).round().astype("uint16")[..., None]))
    else:
        write_picture(path, Picture(getattr(flow, path.stem), icc))
