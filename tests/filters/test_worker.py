"""The worker: results, errors, bounds, order and endings. Waits on events, so that nothing depends on speed."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from vsrife.filters.worker import MAX_FINISHED, MAX_WAITING, REMEMBERED, Pipeline
from vsrife.networks.cancellation import Cancellation

PATIENCE = 60.0  # seconds until a test that hangs fails


class Work:
    """A computation that tests hold and let go. Squares its request.

    Attributes:
        log: requests in the order they were begun.
    """

    def __init__(self, *, held: bool = False) -> None:
        self.log: list[int] = []
        self.begun = threading.Semaphore(0)  # one for each computation begun
        self.go = threading.Event()
        if not held:
            self.go.set()

    def __call__(self, request: int, cancellation: Cancellation) -> int:
        self.log.append(request)
        self.begun.release()
        while not self.go.wait(0.005):
            cancellation()
        return request * request

    def wait_begun(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE)


@contextmanager
def pipeline(compute: Callable[[int, Cancellation], int]) -> Iterator[Pipeline[int, int]]:
    line: Pipeline[int, int] = Pipeline(compute)
    try:
        yield line
    finally:
        line.close()


def test_pushed_results_are_collected_and_not_computed_again() -> None:
    work = Work()
    with pipeline(work) as line:
        for n in range(100):
            line.push(n, n)
            line.push(n, n)
            assert line.take(n, n) == n * n
            line.push(n, n)  # a look-ahead that comes late
    assert work.log == [*range(100)]


def test_late_results_are_abandoned() -> None:
    """After the time limit the computation stops at its next step, and the next one begins."""
    work = Work(held=True)
    with pipeline(work) as line:
        line.push(1, 1)
        work.wait_begun()
        with pytest.raises(TimeoutError):
            line.take(1, 1, timeout=0.01)
        line.push(2, 2)
        work.wait_begun()  # although the first one was never let go
        work.go.set()
        assert line.take(2, 2, timeout=PATIENCE) == 4
    assert work.log == [1, 2]


def test_what_was_never_pushed_is_computed() -> None:
    work = Work()
    with pipeline(work) as line:
        assert not line.knows(5)
        assert [line.take(n, n) for n in (5, 3, 5)] == [25, 9, 25]
        assert line.knows(5)
    assert work.log == [5, 3, 5]


def test_error_belongs_to_its_frame() -> None:
    def compute(request: int, _cancellation: Cancellation) -> int:
        if request % 3 == 0:
            raise ValueError(f"no {request}")
        return request

    with pipeline(compute) as line:
        for n in range(1, 30):
            line.push(n, n)
            line.push(n + 1, n + 1)
            if n % 3:
                assert line.take(n, n) == n
            else:
                with pytest.raises(ValueError, match=f"no {n}$"):
                    line.take(n, n)
                with pytest.raises(ValueError, match=f"no {n}$"):  # asked again, computed again
                    line.take(n, n)


def test_system_exit_in_a_computation_does_not_end_the_worker() -> None:
    def compute(request: int, _cancellation: Cancellation) -> int:
        if request == 0:
            raise SystemExit(3)
        return request

    with pipeline(compute) as line:
        with pytest.raises(SystemExit):
            line.take(0, 0)
        assert line.take(1, 1) == 1


def test_look_ahead_stops_at_the_bound() -> None:
    """Results that nobody collects do not pile up, and those waited for are computed all the same."""
    work = Work()
    with pipeline(work) as line:
        for n in range(MAX_FINISHED + 10):
            line.push(n, n)
        for _ in range(MAX_FINISHED):
            work.wait_begun()
        for n in range(1000, 1020):  # goes first each time; the worker looks for more work in between
            assert line.take(n, n) == n * n
        assert sum(n < 1000 for n in work.log) == MAX_FINISHED
        assert line.take(MAX_FINISHED + 5, MAX_FINISHED + 5) == (MAX_FINISHED + 5) ** 2


def test_requests_held_are_bounded() -> None:
    """Requests hold frames: many pushes that nobody follows must not keep them all."""

    class Frame:
        """Stands in for the frames of a request."""

    frames: list[weakref.ref[Frame]] = []
    held = Work(held=True)

    def compute(_request: Frame, cancellation: Cancellation) -> int:
        return held(0, cancellation) + 1

    line: Pipeline[Frame, int] = Pipeline(compute)
    try:
        for n in range(1000):
            frame = Frame()
            frames.append(weakref.ref(frame))
            line.push(n, frame)
        del frame
        gc.collect()
        assert sum(reference() is not None for reference in frames) <= MAX_WAITING + 2
        held.go.set()
        assert line.take(999, Frame()) == 1  # dropped or not
    finally:
        line.close()


def test_waited_for_frame_goes_first() -> None:
    """Look-ahead work is put off in the middle of a computation, and done later."""
    work = Work(held=True)
    with pipeline(work) as line, ThreadPoolExecutor(1) as pool:
        line.push(1, 1)
        work.wait_begun()
        asked = pool.submit(line.take, 7, 7)
        work.wait_begun()
        assert work.log == [1, 7]
        work.go.set()
        assert asked.result(PATIENCE) == 49
        assert line.take(1, 1) == 1
        assert work.log == [1, 7, 1]


def test_look_ahead_left_behind_by_a_jump_is_not_begun_again() -> None:
    """A seek in the middle of playback: what was computed ahead before it must not slow the frames after it."""
    work = Work(held=True)
    with pipeline(work) as line, ThreadPoolExecutor(1) as pool:
        line.push(5, 5)
        work.wait_begun()
        asked = pool.submit(line.take, 100, 100)
        work.wait_begun()  # 5 is put off
        work.go.set()
        assert asked.result(PATIENCE) == 100**2
        for n in range(102, 120, 2):
            line.push(n, n)
            assert line.take(n, n) == n * n
        assert line.take(5, 5) == 25
    assert work.log == [5, 100, *range(102, 120, 2), 5]


def test_waited_for_frame_is_not_put_off() -> None:
    work = Work(held=True)
    with pipeline(work) as line, ThreadPoolExecutor(3) as pool:
        first = pool.submit(line.take, 9, 9)
        work.wait_begun()
        others = [pool.submit(line.take, n, n) for n in (2, 1)]
        while not (line.knows(1) and line.knows(2)):
            pass
        work.go.set()
        assert first.result(PATIENCE) == 81
        assert [other.result(PATIENCE) for other in others] == [4, 1]
    assert work.log[0] == 9
    assert len(work.log) == 3


def test_many_threads_ask_for_the_same_and_other_frames() -> None:
    work = Work()
    with pipeline(work) as line, ThreadPoolExecutor(8) as pool:

        def ask(i: int) -> None:
            n = i * 7919 % 50
            line.push(n + 1, n + 1)
            assert line.take(n, n) == n * n

        for done in [pool.submit(ask, i) for i in range(2000)]:
            done.result(PATIENCE)


def test_frame_is_forgotten_after_a_while() -> None:
    work = Work()
    with pipeline(work) as line:
        assert line.take(0, 0) == 0
        for n in range(1, REMEMBERED + 1):
            line.take(n, n)
        assert not line.knows(0)
        assert line.take(0, 0) == 0
        assert work.log.count(0) == 2
        line.push(1, 1)
        while work.log.count(1) < 2:
            work.wait_begun()


# --- endings ----------------------------------------------------------------------------------------------------------


def test_close_fails_those_who_wait() -> None:
    work = Work(held=True)
    with pipeline(work) as line, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(line.take, n, n) for n in (1, 2, 3)]
        work.wait_begun()
        while not all(line.knows(n) for n in (1, 2, 3)):
            pass
        line.close()
        for one in asked:
            with pytest.raises(RuntimeError, match="the filter was closed"):
                one.result(PATIENCE)
        with pytest.raises(RuntimeError, match="the filter was closed"):
            line.take(4, 4)
        line.close()


def test_results_made_before_closing_are_gone() -> None:
    work = Work()
    with pipeline(work) as line:
        line.push(1, 1)
        work.wait_begun()
    with pytest.raises(RuntimeError, match="the filter was closed"):
        line.take(1, 1)


def worker_of(line: Pipeline[int, int]) -> threading.Thread:
    before = {thread.ident for thread in threading.enumerate()}
    line.take(0, 0)
    (thread,) = [thread for thread in threading.enumerate() if thread.ident not in before]
    return thread


@pytest.mark.parametrize("how", ["closed", "collected"])
def test_thread_ends(how: str) -> None:
    line = Pipeline[int, int](Work())
    thread = worker_of(line)
    assert thread.name == "vsrife"
    assert thread.daemon
    if how == "closed":
        line.close()
    del line
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_no_thread_without_work() -> None:
    before = threading.active_count()
    line = Pipeline[int, int](Work())
    assert threading.active_count() == before
    line.close()


@pytest.mark.parametrize(
    "ending",
    ["pass", "raise SystemExit(0)", "line.close()", "del line"],
    ids=["end of script", "exit", "closed", "collected"],
)
def test_process_ends_with_work_in_flight(ending: str) -> None:
    """The interpreter waits for one step of the computation at most."""
    script = f"""
        import threading, time
        from vsrife.filters.worker import Pipeline

        begun = threading.Event()

        def compute(request, cancellation):
            begun.set()
            while True:
                time.sleep(0.01)
                cancellation()

        line = Pipeline(compute)
        for n in range(9):
            line.push(n, n)
        threading.Thread(target=lambda: line.take(3, 3), daemon=True).start() if {ending == "pass"} else None
        assert begun.wait(30)
        {ending}
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == ""
