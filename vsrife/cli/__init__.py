"""The command `vsrife`, also `python -m vsrife`.

Results go to stdout, messages and progress to stderr. Importing this package imports neither vapoursynth nor torch:
each command imports what it needs when it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from vsrife import __version__
from vsrife.cli import models
from vsrife.errors import OptionError, RifeError

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (without the program's name; None: that of the process); gives the exit code."""
    try:
        arguments = _build_parser().parse_args(argv)
        return int(arguments.run(arguments))
    except SystemExit as error:  # argparse has printed what is wrong, or the help that was asked for
        return WRONG_USAGE if error.code else DONE
    except OptionError as error:
        print(f"vsrife: {error}", file=sys.stderr)
        return WRONG_USAGE
    except RifeError as error:
        print(f"vsrife: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("vsrife: interrupted", file=sys.stderr)
        return INTERRUPTED


def entry() -> NoReturn:
    """The installed script: `main` with the process's arguments and exit code."""
    sys.exit(main())


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vsrife", description="Frame interpolation with RIFE 4.x.")
    parser.add_argument("--version", action="version", version=f"vsrife {__version__}")
    parser.set_defaults(run=lambda _: parser.error("no command given, name one: models; see vsrife --help"))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    models.add_command(commands)
    return parser
