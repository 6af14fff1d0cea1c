"""Readers refuse any bytes with an error of vsrife's own: those found before, and those found in 20 seconds."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.fuzz.readers import CORPUS, READERS, can_fuzz, read

SECONDS = 20  # of each reader; `scripts/fuzz` runs for ten minutes
FOUND_BEFORE = sorted(path for path in CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", FOUND_BEFORE, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_before(path: Path, tmp_path: Path) -> None:
    read(path.parent.name, path.read_bytes(), tmp_path)


@pytest.mark.parametrize("reader", READERS)
def test_fuzzing_finds_nothing(reader: str, tmp_path: Path) -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or sys.version_info >= (3, 15):
        pytest.skip("atheris has wheels for Linux on x86-64 and CPython up to 3.14 alone")
    if not can_fuzz():
        missing("atheris is not installed")
    command = [sys.executable, "-m", "tests.fuzz.readers", reader, "--seconds", f"{SECONDS}", "--found", f"{tmp_path}"]
    run = subprocess.run([*command, "--timeout", "400"], capture_output=True, text=True, errors="replace", timeout=500)
    broken = {path.name: path.read_bytes() for path in tmp_path.glob(f"{reader}-*")}
    assert (run.returncode, broken) == (0, {}), run.stderr[-3000:]
