"""Memory that is lent out again: never while somebody still reads it."""

from typing import Any

import torch
from numpy.typing import NDArray

from vsrife.ops.cpu.buffers import KEPT, BufferPool

SHAPE = (512, 1024)  # 2 MiB


def address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


def test_what_is_held_is_not_lent_again() -> None:
    """Through whatever view: the array, a tensor of it, a part of that tensor."""
    pool = BufferPool()
    first = pool.take(SHAPE)
    place = address(first)
    part = torch.from_numpy(first)[None].permute(0, 2, 1)[0, :3]
    del first
    assert address(pool.take(SHAPE)) != place
    part.fill_(7)
    others = [pool.take(SHAPE) for _ in range(2 * KEPT)]
    for other in others:
        other.fill(0)
    assert bool((part == 7).all())


def test_memory_comes_back() -> None:
    pool = BufferPool()
    place = address(pool.take(SHAPE))
    smaller = pool.take((500, 1000))
    assert address(smaller) == place
    assert smaller.shape == (500, 1000)
    assert address(pool.take((5, 10))) != place
    pool.clear()
    smaller.fill(3)
    assert bool((smaller == 3).all())
