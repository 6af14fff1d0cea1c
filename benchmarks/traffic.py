"""Bytes and launches of a pair, counted on meta tensors: nothing is computed, and no device is needed.

    python benchmarks/traffic.py [--sizes 1920x1080] [--models 4.25]

Every operation and kernel counts what it is given and what it returns, once each. A convolution counts as one launch.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.inputs import BT709, folded, format_of, published
from benchmarks.measure import FULL_HD, Size
from vsrife.engine.cache import Cache
from vsrife.engine.forward import PyramidForward
from vsrife.engine.sources import SourceFrame
from vsrife.networks.cancellation import never
from vsrife.networks.fold import FoldedNet
from vsrife.ops.protocol import Ops
from vsrife.ops.reference import reference

META = torch.device("meta")
FREE = {"aten::empty.memory_format", "aten::empty_strided", "aten::new_empty", "aten::empty_like", "aten::_unsafe_view",
        "aten::reshape", "aten::detach", "aten::alias", "aten::expand", "aten::flatten.using_ints"}  # fmt: skip
OVERWRITES = ("aten::copy_", "aten::fill_.Scalar", "aten::zero_")


@dataclass
class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What went through memory."""

    moved: int = 0
    launches: int = 0

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func.name() not in FREE:
            given, written = self._tensors((args, kwargs)), self._tensors(result)
            overwritten = sum(each.nbytes for each in written) if func.name() in OVERWRITES else 0
            self.add(sum(each.nbytes for each in (*given, *written)) - overwritten)
        return result

    def add(self, moved: int) -> None:
        self.moved += moved
        self.launches += moved > 0

    def launch(self, _kernel: Any, _written: Any, *arguments: Any, **_constants: Any) -> None:
        """In place of `backend.launch`."""
        self.add(sum({id(each): each.nbytes for each in self._tensors(arguments)}.values()))

    @staticmethod
    def _tensors(tree: Any) -> list[Tensor]:
        return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor) and leaf.is_meta]


@contextmanager
def _operations(ops: Ops) -> Iterator[None]:
    with patch("vsrife.networks.fold.choose", lambda *_: ops), torch.inference_mode():
        yield


def of_published(model: str, size: Size, dtype: torch.dtype = torch.float16) -> Traffic:
    """The published forward, which encodes both frames and converts no colours."""
    net = published(model, META, dtype)
    width, height = folded(model, META, dtype).layout.padded(size.width, size.height, 1.0)
    frame = torch.empty((1, 3, height, width), dtype=dtype, device=META)
    traffic = Traffic()
    with torch.inference_mode(), traffic:
        net(frame, frame, 0.5)
    return traffic


def of_plain(model: str, size: Size, dtype: torch.dtype = torch.float16) -> Traffic:
    """A YUV420P8 pair of a running clip by plain PyTorch."""
    with _operations(reference):
        return _pair(folded(model, META, dtype), size, Traffic())


def of_kernels(model: str, size: Size, dtype: torch.dtype = torch.float16) -> Traffic:
    """The same by Triton's kernels, which are not launched."""
    from vsrife.ops.cuda import backend  # here, since PyTorch brings Triton along on Linux only

    traffic = Traffic()
    with _operations(backend.cuda_ops), patch.object(backend, "launch", traffic.launch):
        return _pair(folded(model, META, dtype), size, traffic)


def _pair(net: FoldedNet, size: Size, traffic: Traffic) -> Traffic:
    fmt = format_of(size)
    sides = [(size.height, size.width), *[(size.height // 2, size.width // 2)] * 2]
    planes = tuple(torch.empty((1, 1, *side), dtype=torch.uint8, device=META) for side in sides)
    frame0, frame1 = (SourceFrame(key, fmt, BT709, planes) for key in range(2))
    forward = PyramidForward(net, None, Cache(3))
    forward._features(frame0)  # of the pair before
    for _ in range(2):  # the first makes grids and axes that stay
        forward.cache.clear()
        forward._features(frame0)
        traffic.moved = traffic.launches = 0
        with traffic:
            forward.frame_at(frame0, frame1, 0.5, never)
    return traffic


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="bytes and launches of a pair, counted on meta tensors")
    parser.add_argument("--sizes", nargs="+", type=Size.parse, default=[FULL_HD])
    parser.add_argument("--models", nargs="+", default=["4.25"])
    given = parser.parse_args(argv)
    print("| model | size | published, GB | launches | plain PyTorch, GB | launches | kernels, GB | launches |")
    print("|---|---|---|---|---|---|---|---|")
    for size in given.sizes:
        for model in given.models:
            counted = [way(model, size) for way in (of_published, of_plain, of_kernels)]
            cells = [f"{each.moved / 1e9:.2f} | {each.launches}" for each in counted]
            print(f"| {model} | {size} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
