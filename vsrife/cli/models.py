"""`vsrife models`: lists the published weights, downloads them, tells where they are kept."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from vsrife.catalogue import DEFAULT_WEIGHTS, MODELS, Layout, ModelSpec
from vsrife.download import UnreachableError, download
from vsrife.errors import OptionError, WeightsError
from vsrife.weights import (
    download_command,
    find_weights,
    match_layout,
    model_directory,
    named_version,
    package_directory,
)


@click.group()
def models() -> None:
    """List, download and locate the published weights."""


@models.command("list")
def list_models() -> None:
    """Every model, its parameters, whether it is here."""
    rows = [("model", "layout", "parameters", "weights"), _bundled_row()]
    rows += [(spec.name, spec.layout.id, f"{spec.layout.parameters():,}", _place(spec)) for spec in MODELS.values()]
    for name, layout, parameters, place in rows:
        click.echo(f"{name:<11}  {layout:<6}  {parameters:>10}  {place}")
    print(f"\nget one with: {download_command(MODELS['4.26'])}", file=sys.stderr)


@models.command("path")
def print_path() -> None:
    """Print the directory that downloads go to."""
    click.echo(model_directory())


@models.command("download")
@click.argument("versions", nargs=-1, metavar="[VERSION]...")
@click.option("--all", "everything", is_flag=True, help=f"All {len(MODELS)} versions.")
@click.option("--force", is_flag=True, help="Also where the file is here already.")
def download_models(versions: tuple[str, ...], everything: bool, force: bool) -> int:
    """Fetch published weights; a VERSION is such as 4.26 or 4.25.lite."""
    if everything and versions:
        raise OptionError(f"--all is every version, got {' '.join(versions)} as well; give one of both")
    specs = list(MODELS.values()) if everything else [_version(text) for text in versions]
    if not specs:
        raise OptionError("no version given; name one, such as 4.26, or use --all")
    failed = 0
    for spec in dict.fromkeys(specs):
        try:
            click.echo(download(spec, force=force))
        except UnreachableError:
            raise
        except WeightsError as error:
            print(f"vsrife: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


def _version(text: str) -> ModelSpec:
    spec = named_version(text)
    if spec is None:
        raise OptionError(f"only published versions can be downloaded, got {text!r}; name one, such as 4.26")
    return spec


def _bundled_row() -> tuple[str, str, str, str]:
    path = package_directory() / DEFAULT_WEIGHTS
    try:
        layout = _header_layout(path)
    except WeightsError:
        return "default", "-", "-", f"damaged or missing: {path}"
    return "default", layout.id, f"{layout.parameters():,}", f"bundled: {path}"


def _header_layout(path: Path) -> Layout:
    """The layout of a safetensors file from its header alone, which needs no torch."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return match_layout({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, path)  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read, got {error}; reinstall vsrife") from error


def _place(spec: ModelSpec) -> str:
    try:
        return str(find_weights(spec.name))
    except WeightsError:
        return "-"
