"""`vsrife completion`: what a shell needs to complete the commands and options of vsrife."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a SHELL.

    For bash, put into ~/.bashrc:  eval "$(vsrife completion bash)"
    """
    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(click.get_current_context().find_root().command, {}, "vsrife", "_VSRIFE_COMPLETE").source())
