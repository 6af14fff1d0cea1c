"""How the commands of this package end."""

from __future__ import annotations

import sys
from collections.abc import Callable

from vsrife.errors import RifeError


def exit_code(work: Callable[[], object], name: str = "training") -> int:
    """Do the work: 0; or 1, with one line on standard error that begins with `name`, where something is refused."""
    try:
        work()
    except RifeError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
