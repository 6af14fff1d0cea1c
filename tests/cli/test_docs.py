"""The page of the command is its own help, and every line in it that begins with `vsrife` is a command that parses."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from docs.make_cli import PAGE, page
from vsrife.cli import commands, main

LINES = sorted(set(re.findall(r"(?:^|[`(])(vsrife [^`\n]+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)))


def leaf_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that a line runs, and its arguments."""
    command: click.Command = commands
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def leaves(command: click.Command) -> list[click.Command]:
    if isinstance(command, click.Group):
        return [leaf for inner in command.commands.values() for leaf in leaves(inner)]
    return [command]


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python docs/make_cli.py"


@pytest.mark.parametrize("line", [line for line in LINES if "[" not in line and "COMMAND" not in line])
def test_examples_parse(line: str) -> None:
    """Options exist and take these values; what follows in a shell is left out."""
    _, *words = shlex.split(re.split(r" (?:\\?\||>|&&) |[)(]", line)[0])
    command, arguments = leaf_of(words)
    if arguments or not any(parameter.required for parameter in command.params):  # otherwise it is only named
        with command.make_context(str(command.name), arguments):
            pass


def test_there_are_examples() -> None:
    told = {" ".join(shlex.split(line.replace('"', ""))[1:2]) for line in LINES}
    assert set(commands.commands) <= told


@pytest.mark.parametrize("command", leaves(commands), ids=lambda command: command.name)
def test_help_is_a_sentence_for_every_command_and_option(command: click.Command) -> None:
    assert (command.help or "").strip().endswith((".", ":"))
    for option in command.params:
        if isinstance(option, click.Option) and "--help" not in option.opts:
            assert re.search(r"[.\])]$", option.help or ""), f"{command.name} {option.opts}"
            assert len(option.help or "") <= 130, f"{command.name} {option.opts}"


def test_a_misspelt_command_or_option_gets_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vidoe"]) == 2
    assert "video" in capsys.readouterr().err.partition("vidoe")[2]
    assert main(["video", "in.mp4", "--slowmotion", "2"]) == 2
    assert "--slow-motion" in capsys.readouterr().err
