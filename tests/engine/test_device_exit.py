"""How a process ends that has used the thread of a CUDA device: by itself, or interrupted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os, signal, sys, tempfile, time
from pathlib import Path
import pytest
from tests.engine.cuda_runs import GPU
from tests.fake_cuda import fresh_cuda
from vsrife.engine.device_thread import run_on

def pair():
    if sys.argv[1] == "interrupt":
        os.kill(os.getpid(), signal.SIGINT)  # reaches the main thread, which waits for this one
        time.sleep(0.2)
    print("pair done", flush=True)

with pytest.MonkeyPatch.context() as patch, fresh_cuda(patch, Path(tempfile.mkdtemp())):
    run_on(GPU, lambda: None, lambda: None)  # starts the thread
    run_on(GPU, pair, lambda: None)
"""


@pytest.mark.parametrize(("how", "status", "last"), [("end", 0, ""), ("interrupt", -2, "KeyboardInterrupt")])
def test_the_process_ends(how: str, status: int, last: str) -> None:
    """After the pair that is being computed, with nothing printed but the interrupt."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "pair done\n"
    assert done.returncode == status
    assert done.stderr.strip().rpartition("\n")[2] == last
    assert done.stderr.count("Traceback") == bool(last)
