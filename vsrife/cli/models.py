"""`vsrife models`: lists the published weights, downloads them, tells where they are kept."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

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


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `models` with its own commands to the command line."""
    about = "list, download and locate the published weights"
    parser = commands.add_parser("models", help=about, description=f"{about.capitalize()}.")
    parser.set_defaults(run=lambda _: parser.error("no command given, name one: list, download, path"))
    actions = parser.add_subparsers(title="commands", metavar="COMMAND")

    actions.add_parser("list", help="every model, its parameters, whether it is here").set_defaults(run=_run_list)
    actions.add_parser("path", help="print the directory that downloads go to").set_defaults(run=_run_path)
    fetch = actions.add_parser("download", help="fetch published weights")
    fetch.add_argument("versions", nargs="*", metavar="VERSION", help="such as 4.26 or 4.25.lite")
    fetch.add_argument("--all", action="store_true", help=f"all {len(MODELS)} versions")
    fetch.add_argument("--force", action="store_true", help="also where the file is here already")
    fetch.set_defaults(run=_run_download)


def _run_list(_: argparse.Namespace) -> int:
    rows = [("model", "layout", "parameters", "weights"), _bundled_row()]
    rows += [(spec.name, spec.layout.id, f"{spec.layout.parameters():,}", _place(spec)) for spec in MODELS.values()]
    for name, layout, parameters, place in rows:
        print(f"{name:<11}  {layout:<6}  {parameters:>10}  {place}")
    print(f"\nget one with: {download_command(MODELS['4.26'])}", file=sys.stderr)
    return 0


def _run_path(_: argparse.Namespace) -> int:
    print(model_directory())
    return 0


def _run_download(arguments: argparse.Namespace) -> int:
    specs = list(MODELS.values()) if arguments.all else [_version(text) for text in arguments.versions]
    if arguments.all and arguments.versions:
        raise OptionError(f"--all is every version, got {' '.join(arguments.versions)} as well; give one of both")
    if not specs:
        raise OptionError("no version given; name one, such as 4.26, or use --all")
    failed = 0
    for spec in dict.fromkeys(specs):
        try:
            print(download(spec, force=arguments.force))
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
