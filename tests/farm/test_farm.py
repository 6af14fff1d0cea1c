"""`vsrife video --farm` on a real Ray cluster of several nodes: the same file as from one machine, whatever fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.farm.openers import Broken, Hanging, Killed, Opener, Slow
from tests.media_clips import HEIGHT, WIDTH, Programs
from vsrife.cli import main
from vsrife.errors import MediaError, OptionError
from vsrife.video.job import Outcome, VideoJob, run
from vsrife.video.muxer import EncodeOptions
from vsrife.video.plan import VideoOptions
from vsrife.video.reporting import Reporter

ROOT = Path(__file__).parents[2]
FRAMES, RATE = 48, 24  # of the source; a segment is a second of the result
NETWORK: dict[str, Any] = {"model": None, "scale": 1.0, "device": "cpu", "precision": "fp32"}
OPTIONS = ("--codec", "mpeg4", "--segment", "1", "--device", "cpu", "--precision", "fp32")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of Ray itself


class Nodes:
    """A cluster whose head only coordinates."""

    def __init__(self) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        # Before there are other nodes, so that this process belongs to the head and outlives all of them.
        ray.init(address=self.cluster.address, log_to_driver=False, configure_logging=False)
        self.nodes = [self.add() for _ in range(2)]

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1)

    def lose(self, node_id: str) -> None:
        """Kill a node and everything on it."""
        node = next(node for node in self.nodes if node.node_id == node_id)
        self.nodes.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two nodes of a core each, and a head without."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # for the workers
        patch.setenv("RAY_raylet_start_wait_time_s", "200")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_health_check_period_ms", "500")
        made = Nodes()
        yield made
        ray.shutdown()
        made.cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Path:
    """Two seconds of moving pictures and sound."""
    path = tmp_path_factory.mktemp("source") / "in.mkv"
    programs.make(
        "-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate={RATE}:duration={FRAMES // RATE}",
        "-f", "lavfi", "-i", f"sine=440:duration={FRAMES // RATE}", "-c:v", "libx264", "-preset", "ultrafast",
        "-c:a", "aac", path,
    )  # fmt: skip
    return path


@pytest.fixture
def job(source: Path, tmp_path: Path) -> VideoJob:
    return VideoJob(
        source=Opener(tmp_path, os.getpid()), inputs=(source,), output=tmp_path / "out.mp4",
        video=VideoOptions(multi=Fraction(2), network=NETWORK), encode=EncodeOptions(codec="mpeg4"),
        segment_seconds=Fraction(1, 2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(source: Path) -> bytes:
    """The file that a single machine makes."""
    output = source.with_name("alone.mp4")
    job = VideoJob(
        source=Opener(source.parent, os.getpid()), inputs=(source,), output=output,
        video=VideoOptions(multi=Fraction(2), network=NETWORK), encode=EncodeOptions(codec="mpeg4"),
        segment_seconds=Fraction(1, 2),
    )  # fmt: skip
    run(job, Said().reporter())
    return output.read_bytes()


class Said:
    """What a run reports."""

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self.texts: list[str] = []
        self.counts: dict[str, int] = {}
        self._stop = stop

    def reporter(self) -> Reporter:
        return Reporter(say=self.texts.append, warn=self.texts.append, advance=self.advance, stop=self._stop)

    def advance(self, done: int, total: int, **counts: int) -> None:
        self.counts = {"done": done, "total": total, **counts}

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def farmed(nodes: Nodes, job: VideoJob, said: Said | None = None, *, ship: bool = False, **limits: Any) -> Outcome:
    from vsrife.farm.dispatch import Farm, Limits

    farm = Farm(nodes.address, ship=ship, limits=Limits(nodes_seconds=1.0, **limits))
    return farm.run(job, (said or Said()).reporter())


def test_the_file_is_that_of_one_machine_to_the_byte(nodes: Nodes, job: VideoJob, alone: bytes) -> None:
    said = Said()
    outcome = farmed(nodes, job, said)
    assert outcome.complete
    assert job.output.read_bytes() == alone
    assert said.counts == {
        "done": 96, "total": 96, "cuts": outcome.cuts, "duplicates": outcome.duplicates, "nodes": 2, "devices": 2,
        "retries": 0,
    }  # fmt: skip
    assert not job.output.with_name("out.mp4.part").exists()


def test_repeats_and_damage_that_span_segments(nodes: Nodes, job: VideoJob, tmp_path: Path) -> None:
    """The file is that of one machine, whichever node looks beyond the ends of its segment."""
    video = replace(job.video, multi=Fraction(3, 2), duplicates="even", max_repeats=4, replace="11-13")
    once = replace(job, video=video, output=tmp_path / "once.mp4")
    run(once, Said().reporter())
    farmed(nodes, replace(job, video=video))
    assert job.output.read_bytes() == once.output.read_bytes()


def test_shipped_inputs_are_read_on_the_node_and_deleted(nodes: Nodes, job: VideoJob, alone: bytes) -> None:
    farmed(nodes, job, ship=True)
    assert job.output.read_bytes() == alone
    read = {Path(note.read_text()) for note in job.output.parent.glob("opened-*")}
    assert read
    assert job.inputs[0] not in read
    assert not any(path.exists() for path in read)


def test_a_killed_process_costs_a_retry(nodes: Nodes, job: VideoJob, alone: bytes) -> None:
    said = Said()
    farmed(nodes, replace(job, source=Killed(job.output.parent, os.getpid())), said)
    assert job.output.read_bytes() == alone
    assert said.counts["retries"] == 1


def test_a_hanging_segment_is_made_again(nodes: Nodes, job: VideoJob, alone: bytes) -> None:
    said = Said()
    hanging = replace(job, source=Hanging(job.output.parent, os.getpid()))
    farmed(nodes, hanging, said, first_seconds=90.0, least_seconds=30.0)
    assert job.output.read_bytes() == alone


def test_the_end_does_not_wait_for_the_slowest_node(nodes: Nodes, job: VideoJob) -> None:
    notes = job.output.parent
    outcome = farmed(nodes, replace(job, source=Slow(notes, os.getpid()), segment_seconds=Fraction(1)))
    assert outcome.complete
    assert len(list(notes.glob("slow-*"))) < FRAMES // 2  # its segment was made elsewhere before it was through


def test_a_segment_that_fails_everywhere_is_named_and_the_others_are_kept(nodes: Nodes, job: VideoJob) -> None:
    broken = replace(job, source=Broken(job.output.parent, os.getpid()))
    with pytest.raises(MediaError, match=r"frames 48-71 could not be made in 2 attempts.*a scratch here"):
        farmed(nodes, broken, attempts=2)
    assert not job.output.exists()
    kept = sorted(path.name for path in job.output.with_name("out.mp4.part").glob("*.packets"))
    assert kept == ["0000000000.packets", "0000000024.packets", "0000000072.packets"]


def test_the_rest_is_made_with_resume(nodes: Nodes, job: VideoJob, alone: bytes) -> None:
    broken = replace(job, source=Broken(job.output.parent, os.getpid()))
    with pytest.raises(MediaError, match="finished segments stay"):
        farmed(nodes, broken, attempts=1)
    said = Said()
    farmed(nodes, replace(job, resume=True), said)
    assert "3 of 4 segments are done" in said.text
    assert job.output.read_bytes() == alone


def test_an_interruption_leaves_a_file_that_plays_up_to_there(
    nodes: Nodes, job: VideoJob, alone: bytes, programs: Programs
) -> None:
    said = Said(stop=lambda: said.counts.get("done", 0) >= 24)
    outcome = farmed(nodes, job, said)
    assert not outcome.complete
    assert len(programs.times(job.output)) == outcome.frames >= 24
    farmed(nodes, replace(job, resume=True))
    assert job.output.read_bytes() == alone


def test_a_lost_node_is_replaced_by_one_that_joins(nodes: Nodes, job: VideoJob, alone: bytes) -> None:
    said, notes = Said(), job.output.parent
    hanging = replace(job, source=Hanging(notes, os.getpid()))
    with ThreadPoolExecutor(1) as pool:  # Ray wants its nodes to be started by the main thread
        made = pool.submit(farmed, nodes, hanging, said, first_seconds=300.0)
        while not made.done() and not ((notes / "node").exists() and (notes / "node").read_text()):
            time.sleep(0.1)
        nodes.lose((notes / "node").read_text())
        nodes.nodes.append(nodes.add())
        made.result()
    assert job.output.read_bytes() == alone
    assert "is lost; its segments are made elsewhere" in said.text


def test_three_files_at_once(nodes: Nodes, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mkv").write_bytes(source.read_bytes())
    inputs = [str(path) for path in sorted(tmp_path.glob("*.mkv"))]
    code = main(["video", *inputs, "--output-dir", str(tmp_path / "out"), *OPTIONS, "--farm", nodes.address])
    assert code == 0, capsys.readouterr().err
    sizes = {path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert len(list((tmp_path / "out").iterdir())) == 3
    assert len(sizes) == 1


def test_a_killed_head_goes_on_with_resume(nodes: Nodes, source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    command = [
        sys.executable, "-m", "vsrife", "video", str(source), str(output), *OPTIONS, "--segment", "0.25",
        "--farm", nodes.address,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "disabled"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        while not list(output.with_name("out.mp4.part").glob("*.packets")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.05)
        process.kill()
    assert not output.exists()
    assert main([*command[3:], "--resume"]) == 0
    whole = tmp_path / "whole.mp4"
    assert main(["video", str(source), str(whole), *OPTIONS, "--segment", "0.25"]) == 0
    assert output.read_bytes() == whole.read_bytes()


def test_a_node_with_another_version_is_named(nodes: Nodes, job: VideoJob, monkeypatch: pytest.MonkeyPatch) -> None:
    from vsrife.farm import cluster

    ours = cluster.versions()
    monkeypatch.setattr(cluster, "versions", lambda: ours | {"PyTorch": "1.0"})
    with pytest.raises(OptionError, match=rf"/\w+ has PyTorch {re.escape(ours['PyTorch'])}, this machine 1\.0"):
        farmed(nodes, job)


@pytest.mark.usefixtures("nodes")
def test_an_input_that_a_node_does_not_see_is_named() -> None:
    from vsrife.farm import cluster

    problem = cluster.check(cluster.nodes()[0], (Path("/nowhere/film.mkv"),))
    assert problem is not None
    assert "does not see /nowhere/film.mkv; give --ship" in problem


def test_without_ray_the_remedy_is_told(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("vsrife.farm")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["video", str(source), str(tmp_path / "out.mp4"), "--farm"]) == 2
    assert "pip install 'vsrife[farm]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--ship"], "--ship goes with --farm"),
        (["--farm", "somewhere"], "--farm must be auto, local or ray://HOST:10001, got 'somewhere'"),
        (["--farm", "--y4m", "-"], "leave out --images, --png or --y4m"),
    ],
)
def test_wrong_usage(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    names = [str(source)] if "--y4m" in options else [str(source), str(tmp_path / "out.mp4")]
    assert main(["video", *names, *options]) == 2
    assert text in capsys.readouterr().err
