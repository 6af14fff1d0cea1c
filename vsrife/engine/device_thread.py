"""One thread for each CUDA device, kept as long as the process.

cuDNN remembers the algorithms it chose per thread, and a graph capture or an out-of-memory error concerns everything on
its device. With one thread for all engines a second filter searches nothing again, and neither captures nor errors of
two filters can meet.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import torch

from vsrife.engine.memory import out_of_memory
from vsrife.errors import DeviceError
from vsrife.ops import dispatch
from vsrife.ops.cuda import KernelError

_threads: dict[torch.device, DeviceThread] = {}
_threads_lock = threading.Lock()


class DeviceThread:
    """Runs functions one after the other on a CUDA device.

    A daemon: it waits in Python code whenever nothing runs, so it never delays the end of the interpreter.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"vsrife {device}", daemon=True)
        self._thread.start()

    def run[Result](self, function: Callable[[], Result]) -> Result:
        """Block until `function` has run; its exceptions are raised here. Callable from any thread, itself included."""
        if threading.current_thread() is self._thread:
            return function()
        future: Future[Result] = Future()
        self._tasks.put((future, function))
        return future.result()

    def _work(self) -> None:
        torch.cuda.set_device(self.device)
        # The fastest algorithm is searched once per shape; float32 means all digits. Both belong to the process.
        torch.backends.cudnn.enabled = torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = False
        while True:
            _complete(*self._tasks.get())  # a call of its own, so that an idle thread holds no frames


def _complete(future: Future[Any], function: Callable[[], Any]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # whatever it is, it belongs to the caller
        future.set_exception(error)


def thread_of(device: torch.device) -> DeviceThread:
    """The thread of a CUDA device with an index, started at its first use."""
    with _threads_lock:
        if device not in _threads:
            _threads[device] = DeviceThread(device)
        return _threads[device]


def run_on[Result](device: torch.device, function: Callable[[], Result], reset: Callable[[], None]) -> Result:
    """Run a pair: on CUDA on the device's thread, elsewhere at once.

    Args:
        device: of the network.
        function: the work. Where a kernel fails it runs a second time, with plain PyTorch from then on.
        reset: drops what the kernels have computed so far.

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
        return thread_of(device).run(on_thread)
    except torch.AcceleratorError as error:
        if out_of_memory(error):
            raise
        raise DeviceError(
            f"{device} failed, got {str(error).partition('\n')[0]!r}; it cannot be used again before a restart. If it "
            "happens again, set VSRIFE_CUDA=plain and report it"
        ) from error
