"""Computes ahead of requests, on one worker thread for each filter.

The filter pushes what the frameserver is about to need and returns at once; the callback that must deliver waits, with
the interpreter lock released. The worker uses only what was handed over and never asks the frameserver for
anything, so that no number of threads and no chain of filters can hang.
"""

from __future__ import annotations

import threading
import traceback
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from vsrife.networks.cancellation import Cancellation

MAX_FINISHED = 3  # finished results that nobody has collected; from there on no look-ahead begins
MAX_WAITING = 32  # requests handed over that nobody waits for
REMEMBERED = 64  # results collected lately: a late look-ahead must not compute them again
JOIN_SECONDS = 5.0


class Interrupted(Exception):
    """Raised inside a computation that should stop: the filter is closing, or a waited-for frame goes first."""


@dataclass(slots=True, eq=False)
class _Job[Request, Result]:
    n: int
    request: Request | None
    result: Result | None = None
    error: BaseException | None = None
    waiters: int = 0
    abandoned: bool = False  # whoever waited has given up
    done: threading.Event = field(default_factory=threading.Event)


class _State[Request, Result]:
    """What the worker thread holds: not the pipeline, so that a forgotten pipeline can be collected and stop it."""

    def __init__(self, compute: Callable[[Request, Cancellation], Result]) -> None:
        self.compute = compute
        self.lock = threading.Condition()
        self.jobs: dict[int, _Job[Request, Result]] = {}
        self.collected: OrderedDict[int, None] = OrderedDict()
        self.stopping = False
        self.running: _Job[Request, Result] | None = None
        self.last = 0  # the frame waited for last
        self.thread: threading.Thread | None = None

    def work(self) -> None:
        while job := self._next():
            self._run(job)
            del job  # an idle worker holds neither frames nor results
        with self.lock:
            for job in self.jobs.values():
                job.error = job.error or RuntimeError("the filter was closed")
                job.request = None
                job.done.set()
            self.jobs.clear()

    def _run(self, job: _Job[Request, Result]) -> None:
        try:
            job.result = self.compute(job.request, self._check)  # type: ignore[arg-type]
        except Interrupted:
            if not self.stopping:
                return  # back in the queue, if it is there still: it has its request
            job.error = RuntimeError("the filter was closed")
        except BaseException as error:  # whatever it is, it belongs to the caller that asks for this frame
            traceback.clear_frames(error.__traceback__)  # which would keep frames alive with the error
            job.error = error
        with self.lock:
            self.running = job.request = None
            job.done.set()
            self._drop_stale()

    def _next(self) -> _Job[Request, Result] | None:
        """Wait for the next job and mark it as running; None when it is time to stop."""
        with self.lock:
            self.running = None
            while not self.stopping:
                open_jobs = sorted((job for job in self.jobs.values() if not job.done.is_set()), key=lambda job: job.n)
                waited = [job for job in open_jobs if job.waiters]
                finished = len(self.jobs) - len(open_jobs)
                candidates = waited or (open_jobs if finished < MAX_FINISHED else [])
                if candidates:
                    self.running = candidates[0]
                    return self.running
                self.lock.wait()
            return None

    def _check(self) -> None:
        """Called between steps of a computation."""
        with self.lock:
            if self.stopping:
                raise Interrupted
            if self.running is None or self.running.waiters:
                return
            if self.running.abandoned or any(other.waiters and not other.done.is_set() for other in self.jobs.values()):
                raise Interrupted

    def follow(self, n: int) -> None:
        """Forget look-ahead that a jump to frame n left behind: begun and put off again, it would slow every frame."""
        self.last = n
        for job in list(self.jobs.values()):
            if not (job.waiters or job.done.is_set() or 0 <= job.n - n <= MAX_WAITING):
                del self.jobs[job.n]

    def _drop_stale(self) -> None:
        """Forget what nobody waits for beyond the bounds, farthest from the frame waited for last first."""
        unwanted = [job for job in self.jobs.values() if not job.waiters and job is not self.running]
        unwanted.sort(key=lambda job: abs(job.n - self.last))
        finished = [job for job in unwanted if job.done.is_set()]
        waiting = [job for job in unwanted if not job.done.is_set()]
        for job in finished[MAX_FINISHED:] + waiting[MAX_WAITING:]:
            del self.jobs[job.n]

    def stop(self) -> None:
        with self.lock:
            self.stopping = True
            self.lock.notify_all()
            thread = self.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_SECONDS)


class Pipeline[Request, Result]:
    """Computes requests, numbered by output frame, on a thread of its own.

    Thread-safe: every method may be called from any thread. The thread starts with the first request and ends with
    `close`, when the pipeline is collected, or before the interpreter exits.

    Args:
        compute: turns a request into a result; is handed a function to call between steps, which raises `Interrupted`
            when the computation should be abandoned. Runs on the worker thread, one request at a time.
    """

    def __init__(self, compute: Callable[[Request, Cancellation], Result]) -> None:
        self._state = _State(compute)
        self._finalizer = weakref.finalize(self, self._state.stop)
        # Threads that sit in native code while the interpreter goes down can crash it: atexit comes before that.
        self._finalizer.atexit = True

    def push(self, n: int, request: Request) -> None:
        """Hand over what frame n will need. Never blocks; what is known or was just collected is ignored."""
        state = self._state
        with state.lock:
            if n not in state.jobs and n not in state.collected:
                self._add(n, request)
                state._drop_stale()
                state.lock.notify_all()

    def take(self, n: int, request: Request, timeout: float | None = None) -> Result:
        """Wait for frame n and forget it here.

        Args:
            n: the frame.
            request: for the case that it was never pushed, or dropped since.
            timeout: seconds to wait; after them the computation is abandoned. None, the default: no limit.

        Raises:
            TimeoutError: it is not there in time.
            Exception: whatever the computation of this frame raised. Other frames are not affected.
        """
        state = self._state
        with state.lock:
            job = state.jobs.get(n) or self._add(n, request)
            job.waiters += 1  # before anything is dropped
            state.follow(n)
            state._drop_stale()
            state.lock.notify_all()
        finished = job.done.wait(timeout)
        with state.lock:
            job.waiters -= 1
            job.abandoned = not finished and not job.waiters
            if not job.waiters and state.jobs.get(n) is job:
                del state.jobs[n]
            state.collected[n] = None
            while len(state.collected) > REMEMBERED:
                state.collected.popitem(last=False)
            state._drop_stale()
            state.lock.notify_all()
        if not finished:
            raise TimeoutError
        if job.error is not None:
            raise job.error
        assert job.result is not None
        return job.result

    def knows(self, n: int) -> bool:
        """Whether frame n was handed over, or collected lately."""
        with self._state.lock:
            return n in self._state.jobs or n in self._state.collected

    def _add(self, n: int, request: Request) -> _Job[Request, Result]:
        state = self._state
        if state.stopping:
            raise RuntimeError("the filter was closed")
        job = state.jobs[n] = _Job[Request, Result](n, request)
        state.collected.pop(n, None)
        if state.thread is None:
            state.thread = threading.Thread(target=state.work, name="vsrife", daemon=True)
            state.thread.start()
        return job

    def close(self) -> None:
        """Stop the worker: at most one step of a computation is waited for. Frames asked for later fail."""
        self._finalizer()
