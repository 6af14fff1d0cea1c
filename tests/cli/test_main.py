"""The command as a whole: exit codes, and output that nobody takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["models list", "models list --json", "completion bash", "--help"])
def test_full_stdout_is_one_line(command: str) -> None:
    with FULL.open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "vsrife", *command.split()], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 1
    assert (
        result.stderr
        == "vsrife: stdout cannot be written, got: No space left on device; make room or write elsewhere\n"
    )
