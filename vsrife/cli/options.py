"""Options that several commands share. Their names and meanings are the keywords of `vsrife.RIFE`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click

from vsrife.catalogue import FLOW_SCALES
from vsrife.cli.console import Console
from vsrife.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkArguments:
    """What to run and on what, as given; the filter and `interpolate` check the values."""

    model: str | None
    scale: float
    ensemble: bool
    device: str | None
    precision: str | None

    def keywords(self) -> dict[str, Any]:
        """For `RIFE(...)` or `interpolate(...)`."""
        return asdict(self)


def network_options[R](function: Callable[..., R]) -> Callable[..., R]:
    """Adds the options of the network; the command gets them as `network`, a `NetworkArguments`."""

    @click.option("-m", "--model", metavar="MODEL", help="Published version such as 4.26, or a weights file or folder.")
    @click.option(
        "--scale", type=float, metavar="SCALE", help="Estimate the flow at 0.25, 0.5, 1, 2 or 4 times the size.  [1]"
    )
    @click.option("--uhd", is_flag=True, help="The same as --scale 0.5, for 4K.")
    @click.option("--ensemble", is_flag=True, help="Estimate in both directions and average; twice the work.")
    @click.option("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, …  [best present]")
    @click.option("--precision", metavar="PRECISION", help="fp32, fp16 or bf16.  [best that is safe on the device]")
    @functools.wraps(function)
    def command(
        *args: Any,
        model: str | None,
        scale: float | None,
        uhd: bool,
        ensemble: bool,
        device: str | None,
        precision: str | None,
        **rest: Any,
    ) -> R:
        if uhd and scale not in (None, 0.5):
            raise OptionError(f"--uhd is --scale 0.5, got --scale {scale:g} as well; give one of both")
        chosen = 0.5 if uhd else 1.0 if scale is None else scale
        if chosen not in FLOW_SCALES:
            raise OptionError(f"--scale must be 0.25, 0.5, 1, 2 or 4, got {chosen:g}; for 4K sources try 0.5")
        network = NetworkArguments(model=model, scale=chosen, ensemble=ensemble, device=device, precision=precision)
        return function(*args, network=network, **rest)

    return command


def console_options[R](function: Callable[..., R]) -> Callable[..., R]:
    """Adds --quiet and --json; the command gets a `Console` as `console`."""

    @click.option("-q", "--quiet", is_flag=True, help="No progress and no messages except errors.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout instead of text.")
    @functools.wraps(function)
    def command(*args: Any, quiet: bool, as_json: bool, **rest: Any) -> R:
        return function(*args, console=Console(quiet=quiet, json=as_json), **rest)

    return command
