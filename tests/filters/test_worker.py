"""The worker: results, errors, bounds, order and endings. Waits on events, so that nothing depends on speed."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from vsrife.filters.worker import MAX_FINISHED, MAX_WAITING, REMEMBERED, Pipeline, Together
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


# --- several at once --------------------------------------------------------------------------------------------------


class Tens(Work):
    """Computes requests of one ten together.

    Attributes:
        groups: the requests of each such computation.
    """

    def __init__(self, *, held: bool = False) -> None:
        super().__init__(held=held)
        self.groups: list[list[int]] = []

    def all_of(self, requests: Sequence[int], cancellation: Cancellation) -> Sequence[int]:
        self.groups.append([*requests])
        results = [self(requests[0], cancellation)]
        if any(request % 10 == 9 for request in requests):
            raise ValueError("no nines")
        return results + [request * request for request in requests[1:]]

    def pipeline(self, most: int) -> Pipeline[int, int]:
        return Pipeline(self, Together(lambda request: request // 10, self.all_of, most))


def test_open_requests_of_a_kind_are_computed_together() -> None:
    """Only those that were handed over, and no more than the bound; the rest follows."""
    work = Tens(held=True)
    line = work.pipeline(3)
    try:
        line.push(50, 50)
        work.wait_begun()  # the worker is busy while the others come
        for n in (11, 12, 20, 13, 14, 15):
            line.push(n, n)
        work.go.set()
        assert [line.take(n, n) for n in (11, 12, 13, 14, 15, 20, 50)] == [n * n for n in (11, 12, 13, 14, 15, 20, 50)]
        assert line.take(16, 16) == 256
    finally:
        line.close()
    assert [11, 12, 13] in work.groups
    assert all(len({request // 10 for request in group}) == 1 and len(group) <= 3 for group in work.groups)
    assert sorted(n for group in work.groups for n in group if n < 16) == [11, 12, 13, 14, 15]
    assert work.log[-1] == 16  # alone


def test_results_made_together_are_kept_until_collected() -> None:
    work = Tens(held=True)
    line = work.pipeline(4)
    try:
        line.push(50, 50)
        work.wait_begun()
        for n in (10, 11, 12, 13, 20, 21, 22, 23):
            line.push(n, n)
        work.go.set()
        for n in (10, 11, 12, 13, 20, 21, 22, 23):
            assert line.take(n, n) == n * n
    finally:
        line.close()
    assert work.groups == [[10, 11, 12, 13], [20, 21, 22, 23]]


def test_error_of_several_belongs_to_its_frame() -> None:
    work = Tens(held=True)

    def alone(request: int, cancellation: Cancellation) -> int:
        if request % 10 == 9:
            raise ValueError(f"no {request}")
        return work(request, cancellation)

    line = Pipeline(alone, Together(lambda request: request // 10, work.all_of, 3))
    try:
        line.push(50, 50)
        work.wait_begun()
        for n in (17, 18, 19):
            line.push(n, n)
        work.go.set()
        with pytest.raises(ValueError, match=r"no 19$"):
            line.take(19, 19)
        assert [line.take(n, n) for n in (17, 18)] == [289, 324]
    finally:
        line.close()
    assert sorted(work.groups[0]) == [17, 18, 19]


def test_waited_for_frame_goes_before_several_that_nobody_waits_for() -> None:
    work = Tens(held=True)
    line = work.pipeline(3)
    try:
        with ThreadPoolExecutor(1) as pool:
            line.push(50, 50)
            work.wait_begun()
            for n in (11, 12, 13):
                line.push(n, n)
            asked = pool.submit(line.take, 7, 7)
            work.wait_begun()
            work.go.set()
            assert asked.result(PATIENCE) == 49
            assert [line.take(n, n) for n in (11, 12, 13)] == [121, 144, 169]
    finally:
        line.close()
    assert work.log[:2] == [50, 7]


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
