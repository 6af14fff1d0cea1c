"""The command `vsrife`, also `python -m vsrife`.

Results go to stdout, messages and progress to stderr. Importing this package imports neither vapoursynth nor torch:
each command imports what it needs when it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import click

from vsrife._version import __version__
from vsrife.cli.compare import compare
from vsrife.cli.completion import completion
from vsrife.cli.console import DONE, FAILED, INTERRUPTED, WRONG_USAGE
from vsrife.cli.doctor import doctor
from vsrife.cli.flow import flow
from vsrife.cli.image import image
from vsrife.cli.models import models
from vsrife.cli.script import script
from vsrife.cli.video import video
from vsrife.errors import OptionError, RifeError, shortened, shown

_OPTIONS = {"times": "--retime"} | {
    name: f"--{name.replace('_', '-')}"
    for name in ("multi", "fps", "sc_threshold", "model", "scale", "ensemble", "tta", "device", "precision")
}
_WORD = re.compile(r"\S+")
_EXTRAS = {"onnx": "export"}  # the extra that installs a package, where it is not `cli`


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  vsrife video in.mp4 out.mp4
  vsrife video in.mkv out.mkv --fps 60
  vsrife image a.png b.png -o middle.png

Run vsrife COMMAND --help for details. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.""",
)
@click.version_option(__version__, message="vsrife %(version)s")
def commands() -> None:
    """Frame interpolation with RIFE for videos and pictures."""


for command in (video, image, flow, script, compare, models, doctor, completion):
    commands.add_command(command)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return the exit code.

    Args:
        argv: the arguments without the program's name; None: those of the process.
    """
    try:
        if any("\0" in text for text in argv or ()):  # a system passes none on
            raise OptionError("an argument must be without null characters, got one with; leave it out")
        if "" in (sys.argv[1:] if argv is None else argv):
            raise OptionError("an argument must not be empty, got ''; a variable of your shell may be unset")
        code = commands.main(argv, prog_name="vsrife", standalone_mode=False)
        if sys.stdout is not None:  # as in a GUI process without a console
            sys.stdout.flush()  # a full disk shows here, not when the interpreter exits
    except BrokenPipeError:  # the reader has gone, as in `vsrife models list | head -1`
        return _without_stdout()
    except Exception as error:
        return _report(error)
    except KeyboardInterrupt:  # outside of a command; inside, click raises Abort
        return _report(click.Abort())
    return code if isinstance(code, int) else DONE


def entry() -> NoReturn:
    """Entry point of the installed script."""
    sys.exit(main())


def _report(error: Exception) -> int:
    """Print an error and return the exit code. Errors that are not the user's are raised again."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return WRONG_USAGE
    if isinstance(error, click.exceptions.Abort):
        code, text = INTERRUPTED, "interrupted"
    elif isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "vsrife"
        code, text = (
            WRONG_USAGE,
            f"{_WORD.sub(lambda word: shortened(word[0]), error.format_message())} See: {where} --help",
        )
    elif isinstance(error, click.ClickException):
        code, text = FAILED, error.format_message()
    elif isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("vsrife"):
        extra = _EXTRAS.get(error.name or "", "cli")
        code = FAILED
        text = f"this command needs the package {error.name}; install it with: pip install '.[{extra}]'"
    elif isinstance(error, OSError) and not isinstance(error, RifeError) and error.filename:  # such as too long a name
        code, text = FAILED, f"{shown(error.filename)} cannot be used, got: {error.strerror}; check the name"
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO, errno.EDQUOT) and not error.filename:
        _without_stdout()
        code, text = FAILED, f"stdout cannot be written, got: {error.strerror}; make room or write elsewhere"
    else:
        ours = error if isinstance(error, RifeError) else error.__cause__  # the filter raises vs.Error from ours
        if not isinstance(ours, RifeError):
            raise error
        code, text = (WRONG_USAGE if isinstance(ours, OptionError) else FAILED), _in_options(str(ours))
    print(f"vsrife: {text}", file=sys.stderr)
    return code


def _in_options(text: str) -> str:
    """An error that begins with the name of a keyword of `RIFE`, with that of the option."""
    keyword, blank, rest = text.partition(" ")
    return f"{_OPTIONS.get(keyword, keyword)}{blank}{rest}"


def _without_stdout() -> int:
    """Point stdout at nothing, so that the interpreter's flush at exit does not fail as well."""
    with suppress(OSError, ValueError):  # stdout may be no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
