"""Write the averaged weights of a run, or those of another file, as the filter reads them.

python -m training.export RUN OUT.safetensors [--int8]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from training.checkpoint import CHECKPOINT_FILE, export_weights, read_network
from training.console import exit_code


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.export", description="Export averaged weights as float16")
    parser.add_argument("run", type=Path, help="folder of a run, its checkpoint.pt or carried.pt, or a weights file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--int8", action="store_true", help="kernels in eight bits: half the size")
    arguments = parser.parse_args(argv)

    def work() -> None:
        path = arguments.run / CHECKPOINT_FILE if arguments.run.is_dir() else arguments.run
        net = read_network(path)
        export_weights(net.state_dict(), arguments.out, eight_bits=arguments.int8)
        print(f"{arguments.out}: layout {net.layout.id}")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
