"""Times of kernels: measured once, kept for later processes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from vsrife.ops.cuda.choices import Choices, file_for, versions

WAYS = ["fused", "apart", "wide", "tall"]
TIMES = {"fused": 2.0, "apart": 3.0, "wide": 1.0, "tall": math.inf}


class Clock:
    """Gives times in place of a device, and counts how often it is asked."""

    def __init__(self, times: Mapping[str, float]) -> None:
        self.times, self.asked = times, list[str]()

    def __call__(self, way: str) -> float:
        self.asked.append(way)
        return self.times[way]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kernels" / "gpu.json"


def test_a_later_process_measures_nothing(path: Path) -> None:
    clock = Clock(TIMES)
    assert Choices(path).fastest("convolve", WAYS, clock) == "wide"
    assert clock.asked == WAYS
    later = Clock({})
    for choices in (Choices(path), Choices(path)):
        assert choices.fastest("convolve", WAYS, later) == "wide"
    assert later.asked == []


def test_what_does_not_work_is_not_chosen(path: Path) -> None:
    assert Choices(path).fastest("convolve", ["tall", "fused"], Clock(TIMES)) == "fused"
    assert Choices(path).fastest("convolve", ["tall", "fused"], Clock({})) == "fused"
    json.loads(path.read_text(), parse_constant=pytest.fail)  # no Infinity, which is not JSON


def test_a_spent_budget_leaves_the_rest_to_a_later_process(path: Path) -> None:
    clock = Clock(TIMES)
    assert Choices(path, budget_seconds=0).fastest("convolve", WAYS, clock) == "fused"
    assert clock.asked == ["fused", "apart"]
    assert Choices(path).fastest("convolve", WAYS, clock) == "wide"
    assert clock.asked == WAYS


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"convolve": 1}', '{"convolve": {"fused": "fast"}}', "\xff\0"]
)
def test_a_broken_file_is_measured_again(path: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    path.write_bytes(content.encode("latin-1"))
    clock = Clock(TIMES)
    with caplog.at_level("DEBUG"):
        assert Choices(path).fastest("convolve", WAYS, clock) == "wide"
    assert clock.asked == WAYS
    assert "measured again" in caplog.text
    assert Choices(path).fastest("convolve", WAYS, Clock({})) == "wide"


def test_processes_add_to_one_file(path: Path) -> None:
    """Each writes what the others have found as well, and never half a file."""
    choices = [Choices(path) for _ in range(8)]
    for i, task in product(range(8), range(5)):
        choices[i].fastest(f"{i} {task}", WAYS, Clock(TIMES))
        json.loads(path.read_text())
    assert set(json.loads(path.read_text())) == {f"{i} {task}" for i in range(8) for task in range(5)}
    assert [file.name for file in path.parent.iterdir()] == ["gpu.json"]


def test_threads_share_what_one_measures() -> None:
    clock, choices = Clock(TIMES), Choices(None)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: choices.fastest("convolve", WAYS, clock), range(32))) == {"wide"}
    assert clock.asked == WAYS


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level("DEBUG"):
        assert Choices(tmp_path / "file" / "gpu.json").fastest("convolve", WAYS, Clock(TIMES)) == "wide"
    assert "not kept" in caplog.text


def test_an_optional_library_is_there_or_not() -> None:
    assert versions("pytest") == [pytest.__version__]
    assert versions("no-such-library") == []


def test_what_will_run_in_any_case_is_known(path: Path) -> None:
    choices = Choices(path)
    assert choices.needed("convolve", WAYS) == ["fused", "apart"]
    choices.fastest("convolve", WAYS, Clock(TIMES))
    assert choices.needed("convolve", WAYS) == ["wide"]
    assert choices.needed("convolve", ["new", *WAYS]) == ["new", "wide"]


def test_each_kind_of_device_has_a_file() -> None:
    names = [file_for({"": name, "torch": "2.11"}) for name in ("NVIDIA A/B", "NVIDIA H100")]
    assert names[0] is not None
    assert names[1] is not None
    assert [path.name for path in names if path] == ["NVIDIA_A_B-torch2.11.json", "NVIDIA_H100-torch2.11.json"]
    assert names[0].parent == names[1].parent
    assert "vsrife" in names[0].parts
