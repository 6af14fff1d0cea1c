"""Write the averaged weights of a run as the filter reads them.

python -m training.export RUN OUT.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.checkpoint import CHECKPOINT_FILE, export_weights, load_checkpoint
from training.console import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.export", description="Export averaged weights as float16")
    parser.add_argument("run", type=Path, help="folder of a run, or its checkpoint.pt or carried.pt")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args(argv)

    def work() -> None:
        path = arguments.run / CHECKPOINT_FILE if arguments.run.is_dir() else arguments.run
        state = load_checkpoint(path)
        export_weights(state["ema"], arguments.out)
        print(f"{arguments.out}: layout {state['plan']['layout']}, step {state['step']:,}")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
