"""`vsrife video --farm` on a real Ray cluster of several nodes: the same file as from one machine, whatever fails."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.farm.openers import Broken, Hanging, KilledThenHanging, Opener, Slow, meet
from tests.media_clips import HEIGHT, WIDTH, Programs
from vsrife.checkpoints.finding import find_weights
from vsrife.cli import main
from vsrife.errors import MediaError, OptionError
from vsrife.video.job import Outcome, VideoJob, run
from vsrife.video.muxer import EncodeOptions
from vsrife.video.plan import VideoOptions
from vsrife.video.reporting import Reporter

ROOT = Path(__file__).parents[2]
FRAMES = 24  # of the source, in a second; a segment is a quarter of that
NETWORK: dict[str, Any] = {"model": "lite", "scale": 1.0, "device": "cpu", "precision": "fp32"}
OPTIONS = ("--model", "lite", "--codec", "mpeg4", "--segment", "0.25", "--device", "cpu", "--precision", "fp32")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of Ray itself


class Nodes:
    """A cluster whose head only coordinates. Its nodes are processes of `ray start` with their own working folder; to
    them `hidden` is an empty folder, but for other content in `hidden`/other.mkv."""

    def __init__(self, folder: Path) -> None:
        import ray
        from ray.cluster_utils import Cluster

        self.folder, self.hidden = folder, folder / "hidden"
        self.hidden.mkdir()
        self.divided = os.geteuid() == 0 and shutil.which("unshare") is not None
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        # Before there are other nodes, so that this process belongs to the head and outlives all of them.
        ray.init(address=self.cluster.address, log_to_driver=False, configure_logging=False)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}  # by the id of the node
        for _ in range(2):
            self.add()

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self) -> None:
        """Start a node, and wait until the cluster has it: two at once would choose the same socket."""
        process = self._start()
        while not (new := [node for node in self._ids() if node not in self.processes]):
            assert process.poll() is None, f"see the log in {self.folder}"
            time.sleep(0.05)
        self.processes[new[0]] = process

    def lose(self, node: str) -> None:
        """Kill a node and everything on it."""
        process = self.processes.pop(node)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def end(self) -> None:
        for process in self.processes.values():
            os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes.values():
            process.wait(60)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={self.address}", "--num-cpus=1",
            "--object-store-memory=150000000", "--min-worker-port=0", "--max-worker-port=0", "--block",
        ]  # fmt: skip
        if self.divided:
            hide = 'mount -t tmpfs none "$0" && echo other > "$0/other.mkv" && exec "$@"'
            command = ["unshare", "-m", "sh", "-c", hide, str(self.hidden), *command]
        own = self.folder / f"node-{time.monotonic_ns()}"
        own.mkdir()
        # What a node keeps lies in a folder of its own, but not Ray's sockets, whose paths must be short.
        environment = os.environ | {"TMPDIR": str(own), "RAY_TMPDIR": tempfile.gettempdir()}
        with (own / "log").open("wb") as log:
            return subprocess.Popen(command, cwd=own, start_new_session=True, stdout=log, stderr=log, env=environment)

    def _ids(self) -> list[str]:
        from vsrife.farm import cluster

        return [node.id for node in cluster.alive()]


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Two nodes of a core each, and a head without."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))  # for the workers
        patch.setenv("RAY_raylet_start_wait_time_s", "200")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_health_check_period_ms", "500")
        made = Nodes(tmp_path_factory.mktemp("nodes"))
        yield made
        ray.shutdown()
        made.end()
        made.cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, programs: Programs) -> Path:
    """A second of moving pictures and sound."""
    path = tmp_path_factory.mktemp("source") / "in.mkv"
    programs.make(
        "-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate={FRAMES}:duration=1",
        "-f", "lavfi", "-i", "sine=440:duration=1", "-c:v", "libx264", "-preset", "ultrafast", "-c:a", "aac", path,
    )  # fmt: skip
    return path


@pytest.fixture
def job(source: Path, tmp_path: Path) -> VideoJob:
    return VideoJob(
        source=Opener(tmp_path, os.getpid()), inputs=(source,), output=tmp_path / "out.mp4",
        video=VideoOptions(multi=Fraction(2), network=NETWORK), encode=EncodeOptions(codec="mpeg4"),
        segment_seconds=Fraction(1, 4),
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(source: Path) -> bytes:
    """The file that a single machine makes."""
    output = source.with_name("alone.mp4")
    assert main(["video", "--quiet", str(source), str(output), *OPTIONS]) == 0
    return output.read_bytes()


class Said:
    """What a run reports."""

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self.texts: list[str] = []
        self.counts: dict[str, int] = {}
        self.stop = stop

    def reporter(self) -> Reporter:
        return Reporter(say=self.texts.append, warn=self.texts.append, advance=self.advance, stop=self.stop)

    def advance(self, done: int, total: int, **counts: int) -> None:
        self.counts = {"done": done, "total": total, **counts}

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def farmed(nodes: Nodes, job: VideoJob, said: Said | None = None, *, ship: bool = False, **limits: Any) -> Outcome:
    from vsrife.farm.dispatch import Farm, Limits

    farm = Farm(nodes.address, ship=ship, limits=Limits(nodes_seconds=1.0, **limits))
    return farm.run(job, (said or Said()).reporter())


def kept(job: VideoJob) -> list[str]:
    """Finished segments that a later run can use."""
    paths = sorted(job.output.with_name("out.mp4.part").glob("*.packets"))
    return [path.stem.lstrip("0") or "0" for path in paths]


def test_the_file_is_that_of_one_machine_to_the_byte(nodes: Nodes, job: VideoJob, alone: bytes) -> None:
    said = Said()
    outcome = farmed(nodes, job, said)
    assert outcome.complete
    assert job.output.read_bytes() == alone
    assert said.counts == {
        "done": 48, "total": 48, "cuts": outcome.cuts, "duplicates": outcome.duplicates, "nodes": 2, "devices": 2,
        "retries": 0,
    }  # fmt: skip
    assert not job.output.with_name("out.mp4.part").exists()


def test_repeats_and_damage_that_span_segments(nodes: Nodes, job: VideoJob, tmp_path: Path) -> None:
    """The file is that of one machine, whichever node looks beyond the ends of its segment."""
    video = replace(job.video, multi=Fraction(3, 2), duplicates="even", max_repeats=4, replace="8-10")
    once = replace(job, video=video, output=tmp_path / "once.mp4")
    run(once, Said().reporter())
    farmed(nodes, replace(job, video=video))
    assert job.output.read_bytes() == once.output.read_bytes()


# --- files ------------------------------------------------------------------------------------------------------------


def test_nodes_that_see_no_file_of_the_job_are_sent_all(
    nodes: Nodes, job: VideoJob, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Film, ramp and model, named relative to the head's working folder; what an interrupted run has sent is used."""
    if not nodes.divided:
        pytest.skip("mount namespaces need root and unshare")
    monkeypatch.chdir(nodes.hidden)
    Path("film.mkv").write_bytes(source.read_bytes())
    Path("ramp.csv").write_text("0,0\n0.5,0.7\n1,1\n")
    Path("mine.safetensors").write_bytes(find_weights("lite").read_bytes())
    video = VideoOptions(retime="ramp.csv", network=NETWORK | {"model": "mine.safetensors"})
    hidden = replace(job, inputs=(Path("film.mkv"),), video=video)
    once = replace(hidden, output=tmp_path / "once.mp4")
    run(once, Said().reporter())

    with pytest.raises(OptionError, match=rf"/\w+ does not see {nodes.hidden}/film\.mkv; give --ship"):
        farmed(nodes, hidden)
    said = Said(stop=lambda: said.counts.get("done", 0) > 0)
    with suppress(KeyboardInterrupt):  # raised where a later segment came first: there is nothing to play yet
        assert not farmed(nodes, hidden, said, ship=True).complete
    assert all(f"sending {name}, " in said.text for name in ("film.mkv", "ramp.csv", "mine.safetensors"))
    said = Said()
    farmed(nodes, replace(hidden, resume=True), said, ship=True)
    assert "sending" not in said.text
    assert hidden.output.read_bytes() == once.output.read_bytes()

    read = {Path(note.read_text()) for note in tmp_path.glob("opened-*")}
    assert all(path.is_absolute() and nodes.hidden not in path.parents for path in read)
    assert not any(path.exists() for path in read), "a complete run leaves nothing"


def test_another_file_of_the_same_name_is_told_apart(nodes: Nodes, job: VideoJob, source: Path) -> None:
    if not nodes.divided:
        pytest.skip("mount namespaces need root and unshare")
    other = nodes.hidden / "other.mkv"
    other.write_bytes(source.read_bytes())
    with pytest.raises(OptionError, match=rf"another file at {other}, got 6 bytes, not {other.stat().st_size}"):
        farmed(nodes, replace(job, inputs=(other,)))


def test_a_full_disk_on_the_head_keeps_the_segments(nodes: Nodes, job: VideoJob, alone: bytes, tmp_path: Path) -> None:
    if not nodes.divided:
        pytest.skip("mounting needs root")
    output, ballast = tmp_path / "small" / "out.mp4", tmp_path / "small" / "ballast"
    output.parent.mkdir()
    said = Said()

    def fill_the_disk() -> bool:
        if said.counts.get("done", 0) > 0 and not ballast.exists():
            with suppress(OSError), ballast.open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass
        return False

    said.stop = fill_the_disk

    def on_a_small_disk() -> None:
        os.unshare(os.CLONE_NEWNS | os.CLONE_FS)  # of this thread alone; the disk goes with it
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", output.parent], check=True)
        with pytest.raises(MediaError, match=r"cannot be written, got No space left.*finished segments stay in"):
            farmed(nodes, replace(job, output=output), said)
        assert kept(replace(job, output=output))
        assert not output.exists()
        ballast.unlink()
        farmed(nodes, replace(job, output=output, resume=True))
        assert output.read_bytes() == alone

    with ThreadPoolExecutor(1) as pool:
        pool.submit(on_a_small_disk).result()


# --- faults -----------------------------------------------------------------------------------------------------------


def test_a_killed_process_and_a_hanging_one_cost_a_retry_each(nodes: Nodes, job: VideoJob) -> None:
    """There is one segment, so that its pace is unknown and no free node makes a copy. It gets twice the time after the
    first attempt."""
    said, notes = Said(), job.output.parent
    faulty = replace(job, source=KilledThenHanging(notes, os.getpid()), segment_seconds=Fraction(1))
    assert farmed(nodes, faulty, said, first_seconds=4.0, least_seconds=4.0, attempts=7).complete
    assert "are made again: WorkerCrashedError on" in said.text
    assert "no result after 8 s" in said.text
    assert said.counts["retries"] >= 2


def test_the_end_does_not_wait_for_the_slowest_node(nodes: Nodes, job: VideoJob) -> None:
    notes = job.output.parent
    outcome = farmed(nodes, replace(job, source=Slow(notes, os.getpid()), segment_seconds=Fraction(1, 2)))
    assert outcome.complete
    assert len(list(notes.glob("slow-*"))) < FRAMES // 2  # its segment was made elsewhere before it was through


def test_a_segment_that_fails_everywhere_is_named_and_the_others_are_kept(
    nodes: Nodes, job: VideoJob, alone: bytes
) -> None:
    broken = replace(job, source=Broken(job.output.parent, os.getpid()))
    with pytest.raises(
        MediaError, match=r"frames 24-35 could not be made in 2 attempts.*a scratch here.*finished segments stay"
    ):
        farmed(nodes, broken, attempts=2)
    assert not job.output.exists()
    assert kept(job) == ["0", "12", "36"]
    said = Said()
    farmed(nodes, replace(job, resume=True), said)
    assert "3 of 4 segments are done" in said.text
    assert job.output.read_bytes() == alone


def test_a_lost_node_is_replaced_by_one_that_joins(nodes: Nodes, job: VideoJob, alone: bytes) -> None:
    """Its segment, which hangs there, is made elsewhere, whether the loss is noticed before that or after."""
    said, notes = Said(), job.output.parent
    hanging = replace(job, source=Hanging(notes, os.getpid()))
    with ThreadPoolExecutor(1) as pool:
        made = pool.submit(farmed, nodes, hanging, said, first_seconds=300.0)
        while not made.done() and not ((notes / "node").exists() and (notes / "node").read_text()):
            time.sleep(0.1)
        nodes.lose((notes / "node").read_text())
        nodes.add()
        made.result()
    assert job.output.read_bytes() == alone


def test_an_interruption_of_three_files_leaves_what_plays_and_continues(
    nodes: Nodes, source: Path, alone: bytes, tmp_path: Path, programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mkv").write_bytes(source.read_bytes())
    folder = tmp_path / "out"
    inputs = [str(path) for path in sorted(tmp_path.glob("*.mkv"))]
    command = ["video", *inputs, "--output-dir", str(folder), "--container", "mp4", *OPTIONS, "--farm", nodes.address]
    with subprocess.Popen([sys.executable, "-m", "vsrife", *command], stderr=subprocess.PIPE, text=True) as process:
        while not list(folder.glob("*.part/*.packets")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert said.count("interrupted: ") + said.count("wrote ") == 3, said
    for path in folder.glob("*.mp4"):
        frames = len(programs.times(path))
        assert frames == 48 or list(path.with_name(f"{path.name}.part").glob("*.packets"))
    assert main([*command, "--resume", "--skip-existing"]) == 0, capsys.readouterr().err
    assert [path.read_bytes() == alone for path in sorted(folder.iterdir())] == [True] * 3


def test_a_killed_head_goes_on_with_resume(nodes: Nodes, source: Path, alone: bytes, tmp_path: Path) -> None:
    output = tmp_path / "out.mp4"
    command = ["video", str(source), str(output), *OPTIONS, "--farm", nodes.address]
    with subprocess.Popen([sys.executable, "-m", "vsrife", *command], stderr=subprocess.PIPE, text=True) as process:
        while not list(output.with_name("out.mp4.part").glob("*.packets")):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.02)
        process.kill()
    assert not output.exists()
    assert main([*command, "--resume"]) == 0
    assert output.read_bytes() == alone


# --- what is checked --------------------------------------------------------------------------------------------------


def test_all_nodes_are_asked_at_once(nodes: Nodes, tmp_path: Path) -> None:
    """Each waits until the other has been asked."""
    from vsrife.farm import cluster

    assert len(nodes.processes) == 2
    assert cluster.ask(cluster.nodes(), "meet", meet, tmp_path, 2, seconds=120.0) == [2, 2]


def test_a_node_with_another_version_is_named(nodes: Nodes, job: VideoJob, monkeypatch: pytest.MonkeyPatch) -> None:
    from vsrife.farm import cluster

    ours = cluster.versions()
    monkeypatch.setattr(cluster, "versions", lambda: ours | {"PyTorch": "1.0"})
    with pytest.raises(OptionError, match=rf"/\w+ has PyTorch {re.escape(ours['PyTorch'])}, this machine 1\.0"):
        farmed(nodes, job)


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


def test_the_cluster_file_is_one_that_ray_takes() -> None:
    """By Ray's own loader and schema, with the placeholders filled in."""
    import yaml  # type: ignore[import-untyped]
    from ray.autoscaler._private import util

    text = (ROOT / "docker" / "cluster.yaml").read_text()
    for number, name in enumerate(("HEAD_ADDRESS", "FIRST_ADDRESS", "SECOND_ADDRESS"), 1):
        assert name in text
        text = text.replace(name, f"192.0.2.{number}")
    config = util.prepare_config(yaml.safe_load(text))
    util.validate_config(config)
    assert config["max_workers"] == 2
    assert any("--autoscaling-config=" in command for command in config["head_start_ray_commands"])  # starts the others
