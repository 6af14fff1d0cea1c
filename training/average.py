"""Average weights of runs that began from one another: often better on every set than the best of them.

    python -m training.average OUT.safetensors 0.6 A.safetensors 0.4 B.safetensors

After "Model soups" (Wortsman et al., ICML 2022): states that fine-tuning reached from a common start lie in one basin,
and the errors that each has of its own cancel.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from training.checkpoint import export_weights, read_initial_weights
from training.console import exit_code
from vsrife.errors import OptionError, WeightsError


def average(parts: Sequence[tuple[float, Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """The weighted mean of state dicts of one layout; shares need not sum to 1.

    Raises:
        WeightsError: they differ in names or shapes.
    """
    names = {name: tensor.shape for name, tensor in parts[0][1].items()}
    if any({name: tensor.shape for name, tensor in state.items()} != names for _, state in parts):
        raise WeightsError("weights to average must be of one layout, got different ones")
    total = sum(share for share, _ in parts)
    return {
        name: torch.stack([share / total * state[name].double() for share, state in parts]).sum(0).float()
        for name in names
    }


def read_parts(words: Sequence[str]) -> list[tuple[float, Mapping[str, Tensor]]]:
    """Shares and files in turns.

    Raises:
        OptionError: a share is missing or not above 0.
        WeightsError: a file cannot be read.
    """
    pairs = list(zip(words[::2], words[1::2], strict=False))
    shares = [_positive(share) for share, _ in pairs]
    if len(words) % 2 or not pairs:
        raise OptionError(f"give a share before each file, got {len(words)} words after the output")
    return [(share, read_initial_weights(Path(file))) for share, (_, file) in zip(shares, pairs, strict=True)]


def _positive(share: str) -> float:
    try:
        number = float(share)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise OptionError(f"a share must be a number above 0, got {share!r}")
    return number


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.average", description="Average weights of one layout")
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="+", metavar="SHARE FILE", help="share and weights file in turns")
    arguments = parser.parse_args(argv)
    return exit_code(lambda: export_weights(average(read_parts(arguments.parts)), arguments.out))


if __name__ == "__main__":
    sys.exit(main())
