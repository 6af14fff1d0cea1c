"""The buffer pool: memory in use is never lent again, whatever refers to it; free memory is."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vsrife.ops.cpu.buffers import KEPT, SMALLEST_BYTES, BufferPool

SHAPE = (512, 1024)  # 2 MiB
Array = NDArray[np.float32]


def address(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


HOLDERS: dict[str, Callable[[Array], Any]] = {
    "array": lambda array: array,
    "slice": lambda array: array[7:9, ::3],
    "reshaped": lambda array: array.reshape(-1)[5:].view(np.int32),
    "tensor": torch.from_numpy,
    "tensor of a slice": lambda array: torch.from_numpy(array[3:]),
    "slice of a tensor": lambda array: torch.from_numpy(array)[None].permute(0, 2, 1)[0, :3],
    "detached": lambda array: torch.from_numpy(array).detach().as_strided((4, 4), (8, 1)),
    "storage": lambda array: torch.from_numpy(array).untyped_storage(),
    "array of a tensor": lambda array: torch.from_numpy(array)[1:].numpy()[2:],
    "memoryview": lambda array: memoryview(array)[2:],
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_memory_returns_only_after_its_last_reference(hold: Callable[[Array], Any]) -> None:
    pool = BufferPool()
    array = pool.take(SHAPE)
    place = address(array)
    holder = hold(array)
    del array
    others = [pool.take(SHAPE) for _ in range(3)]
    assert place not in map(address, others)
    del holder
    assert address(pool.take(SHAPE)) == place


def test_a_size_that_fits_is_reused_and_others_are_not() -> None:
    pool = BufferPool()
    place = address(pool.take(SHAPE))
    assert address(pool.take((500, 1000))) == place
    assert address(pool.take((1024, 1024))) != place
    assert address(pool.take((400, 600))) != place  # less than half of it
    small = pool.take((5, 10))
    assert small.shape == (5, 10)
    assert small.dtype == np.float32
    assert small.base is None  # from the heap


def test_clear_leaves_memory_in_use_alone() -> None:
    pool = BufferPool()
    tensor = torch.from_numpy(pool.take(SHAPE)).fill_(3)
    pool.clear()
    for _ in range(KEPT):
        pool.take(SHAPE).fill(0)
    assert bool((tensor == 3).all())


def work(pool: BufferPool, seed: int, failures: list[str], shared: list[tuple[float, torch.Tensor]]) -> None:
    """Take, slice, hand on and drop buffers at random; each must keep the value that its taker wrote."""
    rng = random.Random(seed)
    held: list[tuple[float, torch.Tensor]] = []
    for i in range(100):
        value = float(seed * 1000 + i)
        rows = rng.choice((256, 260, 384, 512))
        tensor = torch.from_numpy(pool.take((rows, SMALLEST_BYTES // 1024 + 1))).fill_(value)
        start = rng.randrange(rows - 1)
        held.append((value, rng.choice((tensor, tensor[start:], tensor.t()[::2], tensor[start : start + 1]))))
        del tensor
        if rng.random() < 0.2:  # the last reference may go on another thread
            shared.append(held.pop(rng.randrange(len(held))))
        if shared and rng.random() < 0.2:
            held.append(shared.pop())
        while len(held) > rng.randrange(1, 6):
            value, tensor = held.pop(rng.randrange(len(held)))
            if not bool((tensor == value).all()):
                failures.append(f"{value} was overwritten by {tensor.flatten()[0]}")
            del tensor
    for value, tensor in held:
        if not bool((tensor == value).all()):
            failures.append(f"{value} was overwritten")


@pytest.mark.parametrize("threads", [1, 4])
def test_no_two_live_buffers_overlap(threads: int) -> None:
    pool, failures, shared = BufferPool(), list[str](), list[tuple[float, torch.Tensor]]()
    workers = [threading.Thread(target=work, args=(pool, seed, failures, shared)) for seed in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


def test_a_steady_load_needs_no_more_memory() -> None:
    """As a clip's pairs follow each other, the same blocks serve again and again."""
    pool, places = BufferPool(), set[int]()
    for _ in range(50):
        live = [pool.take(SHAPE) for _ in range(5)]
        places.update(map(address, live))
        del live
    gc.collect()
    assert len(places) == 5
