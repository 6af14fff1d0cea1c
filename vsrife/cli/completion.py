"""`vsrife completion`: shell completion of commands, options and their values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import click
from click.shell_completion import CompletionItem, get_completion_class

from vsrife.checkpoints.finding import DOWNLOADABLE, NAMED, installed_names
from vsrife.engine.keywords import Precision
from vsrife.networks.catalogue import LEGACY_MODELS


@click.command(
    epilog="""\b
Add to ~/.bashrc:
  eval "$(vsrife completion bash)"
or to ~/.zshrc, after compinit:
  eval "$(vsrife completion zsh)"
or to ~/.config/fish/completions/vsrife.fish:
  vsrife completion fish | source"""
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for SHELL."""
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(click.get_current_context().find_root().command, {}, "vsrife", "_VSRIFE_COMPLETE").source())


def complete_version(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Published versions."""
    return _matching(DOWNLOADABLE, incomplete)


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Model names and files."""
    files = CompletionItem(incomplete, type="file")  # first, because bash's script drops items before it
    return [files, *_matching(dict.fromkeys([*installed_names(), *NAMED, *LEGACY_MODELS]), incomplete)]


def complete_device(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    return _matching(("cpu", "cuda", "cuda:0", "cuda:1", "xpu", "mps"), incomplete)


def complete_precision(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    return _matching(get_args(Precision), incomplete)


def complete_codec(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    try:
        from vsrife.video.codecs import CODECS
    except ImportError:  # without the extra `cli`
        return []
    return _matching((row.name for row in CODECS), incomplete)


def _matching(values: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(value) for value in values if value.startswith(incomplete)]
