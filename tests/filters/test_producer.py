"""How frames are made: no hang with any number of threads and requests, the same bits in any order, clean endings."""

from __future__ import annotations

import gc
import hashlib
import json
import random
import re
import runpy
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import vapoursynth as vs

import vsrife.filters.producer
import vsrife.filters.rife
from tests.clips import (
    NEXT,
    PREV,
    counted_runs,
    counting,
    equal,
    pan,
    planes_of,
    props_of,
    spliced,
    with_props,
)
from tests.conftest import VSPipe
from vsrife import RIFE
from vsrife.engine.engine import Engine
from vsrife.engine.sources import InputFrame
from vsrife.filters.producer import PREPARED_FRAMES
from vsrife.filters.worker import MAX_FINISHED, MAX_WAITING, Pipeline

TESTS = Path(__file__).parents[1]
TIMEOUT_S = 120


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "vsrife"]


def digest(clip: vs.VideoNode, n: int) -> str:
    return hashlib.sha256(b"".join(plane.tobytes() for plane in planes_of(clip, n))).hexdigest()


def run_python(code: str, timeout: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Run code in a Python of its own, beside the tests' helpers."""
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        cwd=TESTS,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def write_script(folder: Path, code: str) -> Path:
    """A script for vspipe that finds the tests' helpers."""
    path = folder / "script.vpy"
    path.write_text(f"import sys\nsys.path.insert(0, {str(TESTS)!r})\n{textwrap.dedent(code)}")
    return path


# --- threads and requests ---------------------------------------------------------------------------------------------

IN_FLIGHT = """
    import hashlib, json, sys
    import vapoursynth as vs
    from tests.clips import pan, spliced
    from vsrife import RIFE

    threads, chained = map(int, sys.argv[1:])
    vs.core.num_threads = threads

    def digests(requests):
        clip = RIFE(spliced(3, 4), multi="5/2")
        for _ in range(chained):
            clip = RIFE(clip, multi=2)
        pending, result = [], []
        for n in range(clip.num_frames):
            pending.append(clip.get_frame_async(n))
            if len(pending) == requests or n == clip.num_frames - 1:
                take = len(pending) if n == clip.num_frames - 1 else 1
                for future in pending[:take]:
                    with future.result() as frame:
                        result.append(hashlib.sha256(b"".join(bytes(frame[p]) for p in range(3))).hexdigest())
                del pending[:take]
        return result

    print(json.dumps([digests(requests) for requests in (1, 2, 8)]))
"""


@pytest.mark.parametrize("chained", [0, 1], ids=["one-filter", "two-chained"])
def test_any_number_of_threads_and_requests_gives_the_same_frames(chained: int) -> None:
    """1, 2 and 8 of either. Two filters whose callbacks wait are where one thread would hang, if they waited for it."""
    found = {}
    for threads in (1, 2, 8):
        command = [sys.executable, "-c", textwrap.dedent(IN_FLIGHT), str(threads), str(chained)]
        result = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert result.returncode == 0, result.stderr
        for requests, digests in zip((1, 2, 8), json.loads(result.stdout), strict=True):
            assert len(digests) == (36 if chained else 18)
            found[threads, requests] = digests
    assert all(digests == found[1, 1] for digests in found.values())


@pytest.mark.parametrize("requests", ["1", "8"])
def test_vspipe_with_requests_in_flight(requests: str, tmp_path: Path, vspipe: VSPipe) -> None:
    code = """
        import vapoursynth as vs
        from tests.clips import pan
        from vsrife import RIFE

        vs.core.num_threads = 1
        RIFE(RIFE(pan(5)), multi=3).set_output()
    """
    result = vspipe(write_script(tmp_path, code), "-r", requests, "--", timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    assert b"Output 30 frames" in result.stderr
    assert b"Traceback" not in result.stderr


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Engine], list[Pipeline[Any, Any]]]:
    """Engines and pipelines of the filters that the test makes."""
    engines: list[Engine] = []
    pipelines: list[Pipeline[Any, Any]] = []

    class KeptEngine(Engine):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            engines.append(self)

    class KeptPipeline(Pipeline[Any, Any]):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            pipelines.append(self)

    monkeypatch.setattr(vsrife.filters.rife, "Engine", KeptEngine)
    monkeypatch.setattr(vsrife.filters.producer, "Pipeline", KeptPipeline)
    return engines, pipelines


def test_random_access_equals_a_linear_run(kept: tuple[list[Engine], list[Pipeline[Any, Any]]]) -> None:
    """Bit for bit over 600 requests, and what is held meanwhile stays within its bounds."""
    source = pan(20, 32, 32)
    linear = RIFE(source, multi="5/2", sc_threshold=1.0)
    expected = [digest(linear, n) for n in range(linear.num_frames)]
    out = RIFE(source, multi="5/2", sc_threshold=1.0)
    engine, pipeline = kept[0][-1], kept[1][-1]
    random_order = random.Random(7)
    most_jobs = most_prepared = 0
    with counted_runs() as runs:
        for request in range(600):
            if request % 10 == 0:
                vs.core.clear_cache()  # of the frameserver, which would answer for us
            n = random_order.randrange(out.num_frames)
            assert digest(out, n) == expected[n], f"frame {n}"
            most_jobs = max(most_jobs, len(pipeline._state.jobs))
            most_prepared = max(most_prepared, len(engine.cache.keys("frame")))
    assert len(runs) > 150, "frames came from a cache of the frameserver"
    assert most_prepared <= PREPARED_FRAMES
    assert most_jobs <= 1 + MAX_FINISHED + MAX_WAITING  # and the one being computed
    pipeline.close()


def test_many_random_requests_at_once(kept: tuple[list[Engine], list[Pipeline[Any, Any]]]) -> None:
    source = pan(20, 32, 32)
    linear = RIFE(source, sc_threshold=1.0)
    expected = [planes_of(linear, n) for n in range(linear.num_frames)]
    out = RIFE(source, sc_threshold=1.0)
    pipeline = kept[1][-1]
    random_order = random.Random(8)
    for _ in range(3):
        asked = [random_order.randrange(out.num_frames) for _ in range(100)]
        for n, future in [(n, out.get_frame_async(n)) for n in asked]:
            with future.result() as frame:
                assert all(bytes(frame[p]) == expected[n][p].tobytes() for p in range(3)), f"frame {n}"
            assert len(pipeline._state.jobs) <= 1 + MAX_FINISHED + MAX_WAITING + 100
    pipeline.close()


@pytest.mark.parametrize("multi", [2, "5/2"])
def test_reversed(multi: Any) -> None:
    source = pan(6, 32, 32)
    out, last = RIFE(source, multi=multi), RIFE(source, multi=multi)
    backwards = last.std.Reverse()
    for n in range(out.num_frames):
        assert equal(planes_of(backwards, out.num_frames - 1 - n), planes_of(out, n))


def test_a_frame_asked_for_again_and_again() -> None:
    out = RIFE(pan(3, 32, 32))
    first = planes_of(out, 1)
    assert all(equal(planes_of(out, 1), first) for _ in range(20))


def test_two_filters_are_independent() -> None:
    """Alternating between two clips of other contents, sizes and formats."""
    a, b = pan(6, 64, 64, "YUV420P8", seed=1), pan(6, 48, 32, "RGB48", seed=2)
    expected_a, expected_b = ([planes_of(RIFE(c), n) for n in range(c.num_frames * 2)] for c in (a, b))
    out_a, out_b = RIFE(a), RIFE(b)
    for n in range(12):
        assert equal(planes_of(out_a, n), expected_a[n])
        assert equal(planes_of(out_b, 11 - n), expected_b[11 - n])


# --- errors -----------------------------------------------------------------------------------------------------------

FAILING = """
    import vapoursynth as vs
    from tests.clips import pan
    from vsrife import RIFE
    from vsrife.engine.engine import Engine

    real = Engine.interpolate

    def interpolate(self, frame0, frame1, *rest, **keywords):
        if frame0.key == 2:
            raise RuntimeError("the device fell off")
        return real(self, frame0, frame1, *rest, **keywords)

    Engine.interpolate = interpolate
    RIFE(pan(6), sc_threshold=1.0).set_output()
"""


@pytest.mark.parametrize("requests", ["1", "8"])
def test_an_error_reaches_vspipe_as_one(requests: str, tmp_path: Path, vspipe: VSPipe) -> None:
    """It names the filter, the frame and the reason; the exit code tells, and whole frames are written before it.

    With several requests at once vspipe stops at the error, though earlier frames may still be on their way.
    """
    result = vspipe(write_script(tmp_path, FAILING), "-r", requests, "-", timeout=TIMEOUT_S)
    text = result.stderr.decode()
    assert result.returncode == 1
    frames, rest = divmod(len(result.stdout), 64 * 64 * 3 // 2)
    assert rest == 0
    assert frames == 5 if requests == "1" else frames <= 5
    message = "RIFE: output frame 5 failed, between source frames 2 and 3: the device fell off"
    assert text.count(message) == 1, text
    assert text.count("Error: Failed to retrieve frame") == 1, text


def test_frames_after_an_error_still_come(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Engine.interpolate
    broken = True

    def interpolate(self: Engine, left: InputFrame, right: InputFrame, *rest: Any) -> Any:
        if left.key == 2 and broken:
            raise MemoryError
        return real(self, left, right, *rest)

    monkeypatch.setattr(Engine, "interpolate", interpolate)
    source = pan(6, 32, 32)
    out = RIFE(source, sc_threshold=1.0)
    for _ in range(2):
        with pytest.raises(vs.Error, match="RIFE: output frame 5 failed, between source frames 2 and 3: MemoryError"):
            out.get_frame(5)
        assert len(planes_of(out, 7)) == len(planes_of(out, 3)) == 3
    broken = False
    assert equal(planes_of(out, 5), planes_of(RIFE(source, sc_threshold=1.0), 5))


def failing(clip: vs.VideoNode, *broken: int) -> vs.VideoNode:
    """The clip with frames that cannot be read."""

    def read(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        if n in broken:
            raise RuntimeError("the disk is gone")
        return f

    return clip.std.ModifyFrame([clip], read)


@pytest.mark.parametrize("sc_threshold", [0.15, None, 1.0])
@pytest.mark.parametrize(
    ("multi", "lost"), [(2, {5, 6, 7}), ("5/2", {6, 7, 8, 9}), (1.5, {4, 5}), (4, {*range(9, 16)})]
)
@pytest.mark.usefixtures("linear")
def test_an_unreadable_source_frame_costs_the_frames_made_from_it(
    multi: Any, lost: set[int], sc_threshold: float | None
) -> None:
    source = counting(9)
    good, bad = (RIFE(clip, multi, sc_threshold=sc_threshold) for clip in (source, failing(source, 3)))
    for n in range(good.num_frames):
        if n in lost:
            with pytest.raises(vs.Error, match="the disk is gone"):
                bad.get_frame(n)
        else:
            assert equal(planes_of(bad, n), planes_of(good, n)), f"frame {n}"
            assert props_of(bad, n).keys() >= {"_DurationNum", "_DurationDen", "source"}


def test_cuts_beside_an_unreadable_source_frame() -> None:
    """Without one of its neighbours, the pair alone decides."""
    source = spliced(4, 4)
    good, bad = (RIFE(clip) for clip in (source, failing(source, 5)))
    assert equal(planes_of(good, 7), planes_of(bad, 7))
    assert props_of(bad, 7)[PREV] == 1
    assert props_of(bad, 6)[NEXT] == 1


@pytest.mark.parametrize(
    ("prop", "value", "frame", "text"),
    [
        ("_DurationNum", 1.5, 1, "frame prop _DurationNum must be an integer, got 1.5"),
        ("_DurationDen", "25", 1, "frame prop _DurationDen must be an integer, got '25'"),
        ("_AbsoluteTime", "now", 1, "frame prop _AbsoluteTime must be a number, got 'now'"),
        (NEXT, "yes", 1, "frame prop _SceneChangeNext must be an integer, got 'yes'"),
        (PREV, 0.5, 1, "frame prop _SceneChangePrev must be an integer, got 0.5"),
        ("_Matrix", "bt709", 1, "_Matrix, _Range and _ChromaLocation must be integers"),
    ],
)
def test_props_of_a_wrong_type_are_named(prop: str, value: Any, frame: int, text: str) -> None:
    out = RIFE(with_props(pan(3), lambda n: {prop: value}))  # noqa: ARG005
    with pytest.raises(vs.Error, match=f"RIFE: .*{re.escape(text)}"):
        out.get_frame(frame)


# --- endings ----------------------------------------------------------------------------------------------------------


def test_a_forgotten_clip_ends_its_worker() -> None:
    gc.collect()
    before = len(workers())
    out = RIFE(RIFE(pan(6, 32, 32)))
    frame = out.get_frame(1)
    assert len(workers()) == before + 2
    del out, frame
    gc.collect()
    assert len(workers()) == before


def test_a_clip_forgotten_in_the_middle_of_its_work() -> None:
    gc.collect()
    before = len(workers())
    out = RIFE(pan(20, 32, 32))
    futures = [out.get_frame_async(n) for n in range(30)]
    futures[0].result().close()
    del out
    for future in futures:
        future.result().close()
    del futures, future
    deadline = time.monotonic() + 30
    while len(workers()) > before and time.monotonic() < deadline:
        gc.collect()  # what VapourSynth still has to let go of
        time.sleep(0.01)
    assert len(workers()) == before


def test_a_script_evaluated_again(tmp_path: Path) -> None:
    """As an editor does: outputs cleared, the script run anew in the same process, the network kept."""
    path = tmp_path / "script.vpy"
    path.write_text("from tests.clips import pan\nfrom vsrife import RIFE\nRIFE(pan(4, 32, 32)).set_output()\n")
    found, before = [], len(workers())
    for _ in range(3):
        try:
            runpy.run_path(str(path))
            found.append([digest(vs.get_output(0).clip, n) for n in range(8)])
        finally:
            vs.clear_outputs()
    assert found[0] == found[1] == found[2]
    gc.collect()
    assert len(workers()) == before


@pytest.mark.parametrize("requests", ["1", "8"])
def test_a_consumer_that_goes_away(requests: str, tmp_path: Path, vspipe: VSPipe) -> None:
    """vspipe ends, without a word from us."""
    script = write_script(
        tmp_path, "from tests.clips import pan\nfrom vsrife import RIFE\nRIFE(pan(400)).set_output()\n"
    )
    command = f'"{vspipe.program}" -r {requests} -c y4m "{script}" - | head -c 30000 | wc -c'
    result = subprocess.run(
        ["bash", "-c", command], env=vspipe.environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert result.stdout.strip() == "30000"
    assert "Traceback" not in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) < 5, result.stderr


PLAIN = """
    import sys
    import vapoursynth as vs
    from tests.clips import pan
    from vsrife import RIFE

    out = RIFE(pan(100, 96, 64))
    out.get_frame(1).close()
    futures = [out.get_frame_async(n) for n in range(20, 40)]
"""


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("    sys.exit(3)\n", 3),
        ("    out = futures = None\n", 0),
        ("    raise KeyError('mine')\n", 1),
        ("    vs.clear_outputs(); RIFE(out).set_output()\n", 0),
    ],
    ids=["end", "exit", "forgotten", "error", "output-left"],
)
def test_python_exits_with_requests_in_flight(ending: str, code: int) -> None:
    result = run_python(PLAIN + ending)
    assert result.returncode == code, result.stderr
    assert "Fatal" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert (lines[-1:] == ["KeyError: 'mine'"]) if code == 1 else not lines, result.stderr


def test_no_standard_output_at_all() -> None:
    """Players on Windows run scripts with `sys.stdout` None; with it, nothing may be printed to it."""
    result = run_python(
        """
        import sys

        sys.stdout = sys.stderr = None
        import logging
        from tests.clips import pan
        from vsrife import RIFE, rife

        rife(pan(3), trt=True).get_frame(1).close()
        sys.exit(0 if not sys.stdout else 1)
        """
    )
    assert result.returncode == 0
    assert result.stdout == ""


def test_nothing_is_printed_into_the_video(tmp_path: Path, vspipe: VSPipe) -> None:
    code = """
        from tests.clips import spliced
        from vsrife import rife

        rife(spliced(2, 2), trt=True, sc=True).set_output()
    """
    result = vspipe(write_script(tmp_path, code), "-", timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout) == 8 * 128 * 64 * 3 // 2


def test_a_bad_argument_reaches_vspipe_as_one_line(tmp_path: Path, vspipe: VSPipe) -> None:
    code = "from tests.clips import pan\nfrom vsrife import RIFE\nRIFE(pan(2), scale=3).set_output()\n"
    result = vspipe(write_script(tmp_path, code), "-", timeout=TIMEOUT_S)
    assert result.returncode == 1
    assert result.stdout == b""
    assert b"Python exception: RIFE: scale must be 0.25, 0.5, 1, 2 or 4, got 3; for 4K sources try 0.5" in result.stderr


def test_compiling_says_nothing(tmp_path: Path, vspipe: VSPipe) -> None:
    """A script's loggers are all at debug level; the very first run must show errors only, not a compiler's steps."""
    fresh = VSPipe(vspipe.program, vspipe.environment | {"NUMBA_CACHE_DIR": str(tmp_path / "compiled")})
    script = write_script(tmp_path, "from tests.clips import pan\nfrom vsrife import RIFE\nRIFE(pan(2)).set_output()\n")
    result = fresh(script, "--", timeout=TIMEOUT_S)
    assert result.returncode == 0, result.stderr[-2000:]
    assert any((tmp_path / "compiled").rglob("*.nbc")), "nothing was compiled, so this proved nothing"
    assert result.stderr.decode().strip().startswith("Output 4 frames in ")


@pytest.mark.usefixtures("mixed_frames")
def test_a_long_run_keeps_no_more_than_a_short_one() -> None:
    clip = pan(16).std.Loop(100)
    kept = []
    for n, _frame in enumerate(RIFE(clip, device="cpu").frames(close=True)):
        if n % 500 == 499:
            gc.collect()
            kept.append((len(gc.get_objects()), vs.core.used_cache_size))
    (objects, frames), *later = kept[1:]
    assert max(each[0] for each in later) < objects + 500  # less than one for each new frame
    assert max(each[1] for each in later) < 1.5 * frames
