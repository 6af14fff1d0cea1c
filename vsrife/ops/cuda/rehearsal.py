"""Kernels compiled ahead on all cores, where Triton would compile each at its first start, one after the other.

What is about to be done is gone through once without starting a kernel: so exactly those kernels are found, with the
very arguments that they are specialised for. Triton's passes and the assembler let other threads run meanwhile.
"""

from __future__ import annotations

import contextvars
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

logger = logging.getLogger(__name__)

_goes_on = contextvars.ContextVar("rehearsal_goes_on", default=False)


def goes_on() -> bool:
    """Whether kernels are to be compiled only, by this thread and just now."""
    return _goes_on.get()


def compile_ahead(*works: Callable[[], object]) -> None:
    """Compile what the kernels of `works` need; what they compute is worth nothing.

    Never fails: a kernel that does not compile fails again when it is started, and is dealt with there. Does nothing
    with a Triton that cannot compile in threads.
    """
    try:
        from triton.runtime._async_compile import AsyncCompileMode
    except ImportError:  # the module is not public and may go
        logger.debug("kernels are compiled one after the other: this Triton knows no other way")
        return
    contextvars.copy_context().run(_compile_ahead, AsyncCompileMode, works)  # what is set in there, stays in there


def _compile_ahead(mode: Callable[..., Any], works: tuple[Callable[[], object], ...]) -> None:
    _goes_on.set(True)
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        with mode(pool, ignore_errors=True):
            for work in works:
                _try(work)
    except Exception as error:
        logger.debug("kernels are compiled one after the other: %s", error)
    finally:
        pool.shutdown(cancel_futures=True)  # there are some if this is interrupted


def _try(work: Callable[[], object]) -> None:
    try:
        work()
    except Exception as error:
        logger.debug("not all kernels are compiled ahead: %s", error)
