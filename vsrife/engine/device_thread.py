"""One thread for each CUDA device, kept as long as the process.

cuDNN remembers the algorithms it chose per thread, and a graph capture or an out-of-memory error concerns everything on
its device. With one thread for all engines a second filter searches nothing again, and neither captures nor errors of
two filters can meet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from vsrife.engine.memory import out_of_memory
from vsrife.errors import DeviceError, first_line
from vsrife.ops import dispatch
from vsrife.ops.cuda import KernelError

_threads: dict[torch.device, ThreadPoolExecutor] = {}
_threads_lock = threading.Lock()


def thread_of(device: torch.device) -> ThreadPoolExecutor:
    """The thread of a CUDA device with an index, started at its first use."""
    with _threads_lock:
        if device not in _threads:
            _threads[device] = ThreadPoolExecutor(1, f"vsrife {device}", _prepare, (device,))
        return _threads[device]


def _prepare(device: torch.device) -> None:
    torch.cuda.set_device(device)
    # The fastest algorithm is searched once per shape; float32 means all digits. Both belong to the process.
    torch.backends.cudnn.enabled = torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = False


def run_on[Result](device: torch.device, function: Callable[[], Result], reset: Callable[[], None]) -> Result:
    """Run a pair: on CUDA on the device's thread, elsewhere at once. `function` must not call `run_on` itself.

    Where a kernel fails, `reset` drops what the kernels have computed, and the pair is run again with plain PyTorch.

    Raises:
        DeviceError: an error that leaves the device unusable for this process.
    """
    if device.type != "cuda":
        return function()

    def on_thread() -> Result:
        try:
            return function()
        except KernelError as error:
            dispatch.disable_kernels(device, str(error))
            reset()
        return function()

    try:
        return thread_of(device).submit(on_thread).result()
    except torch.AcceleratorError as error:
        if out_of_memory(error):
            raise
        raise DeviceError(
            f"{device} failed, got {first_line(error)!r}; it cannot be used again before a restart. If it "
            "happens again, set VSRIFE_CUDA=plain and report it"
        ) from error
