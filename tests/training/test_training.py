"""Training: data, forward, losses, and runs that survive kills and share their work."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import vsrife
from training import average, checkpoint, export, train
from training.compact import compact
from training.degrade import add_noise, degrade
from training.forward import TrainingForward
from training.losses import LossWeights, compute_loss, is_better
from training.monitor import colour_flow
from training.pack import Pack, build_pack, find_clips, open_pack
from training.prepare import Preparation
from training.prune import prune
from training.samples import Mix, Sampler, list_frames
from training.start import initialise
from training.synthetic import Motion, Renderer, trace
from training.teacher import LEAST_TRUST, Teacher, load_teacher
from training.trainer import Plan, Ranks, Schedule, Trainer
from vsrife.checkpoints.loading import load_model, read_ifnet
from vsrife.errors import ClipError, MediaError, OptionError, WeightsError
from vsrife.networks.catalogue import BODY_LAYERS, LAYOUTS
from vsrife.networks.ifnet import IFNet

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SPEED_PX = 3  # of the moving clips, to the right, for each frame
SMALL = ("--spec", "L18", "--crop", "64", "--threads", "1", "--device", "cpu", "--log-every", "1")


def write_clip(path: Path, frames: list[NDArray[np.uint8]]) -> None:
    """Frames (H, W, 3) as an mp4, almost without loss."""
    import av

    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264rgb", rate=25, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def texture(seed: int, height: int = 112, width: int = 220) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).random((height // 12, width // 12, 3), np.float32)
    return np.clip(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC) * 255, 0, 255).astype(np.uint8)


def moving(seed: int, frames: int, speed: int = SPEED_PX) -> list[NDArray[np.uint8]]:
    """A picture that slides to the right."""
    picture = texture(seed)
    return [np.ascontiguousarray(picture[:, 80 - speed * n : 80 - speed * n + 128]) for n in range(frames)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps as small as these only wait for each other on more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two moving clips; the second has a cut, then repeats every frame once."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "a.mp4", moving(1, 12))
    repeats = [frame // 4 for frame in moving(3, 4) for _ in range(2)]
    write_clip(folder / "b.mp4", moving(2, 8) + repeats)
    return folder


@pytest.fixture(scope="module")
def pack(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return build_pack(find_clips(clips), tmp_path_factory.mktemp("packs") / "pack")


def draw_everything(pack: Pack, **mix: float) -> Sampler:
    return Sampler(pack, Mix(**{"crop_px": 64, "batch": 16, **mix}), seed=5)  # type: ignore[arg-type]


# Data


def test_cuts_and_repeated_frames_are_left_out(pack: Pack) -> None:
    """Samples lie within one scene, and no step of theirs shows the same frame twice."""
    table = list_frames(pack)
    starts = {
        (pack.entries[c].name, int(n), int(r)) for c, n, r in zip(table.clip, table.number, table.reach, strict=True)
    }
    assert {name for name, _, _ in starts} == {"a.mp4", "b.mp4"}
    assert all(number + reach <= 7 for name, number, reach in starts if name == "b.mp4")
    assert {(name, number + reach) for name, number, reach in starts if name == "a.mp4"} == {("a.mp4", 11)}


def test_truth_lies_where_its_timestep_says(pack: Pack) -> None:
    """Flow between the frames of real samples, measured, is the timestep times the clip's motion."""
    sampler = draw_everything(pack, synthetic_share=0.0, degraded_share=0.0, still_share=0.0)
    batch = Preparation(pack, CPU).make(sampler.draw(3), Motion())
    to0, to1 = (measured_flow(batch.truth, frames)[..., 16:-16, 16:-16] for frames in (batch.frame0, batch.frame1))
    motion = (to0 - to1).norm(dim=1).mean(dim=(1, 2))
    before = to0.norm(dim=1).mean(dim=(1, 2))
    assert motion.min() > 0.5 * SPEED_PX
    assert torch.allclose(before / motion, batch.timestep, atol=0.06)
    assert len(set(batch.timestep.tolist())) > 2


def measured_flow(first: Tensor, second: Tensor) -> Tensor:
    """OpenCV's DIS flow between pictures of 0..1, (N, 2, H, W)."""
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    pairs = zip(*((frames.mean(1) * 255).byte().numpy() for frames in (first, second)), strict=True)
    flows = [method.calc(a, b, None) for a, b in pairs]  # type: ignore[call-overload]
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)


def test_mirrored_samples_are_samples(pack: Pack) -> None:
    """Left is right and the first frame is the last: the flow of synthetic motion still leads to the same colours."""
    batch = Preparation(pack, CPU).make(
        draw_everything(pack, synthetic_share=1.0, degraded_share=0.0).draw(1), Motion()
    )
    mirrored = batch.mirrored()
    assert torch.equal(mirrored.timestep, 1 - batch.timestep)
    assert torch.equal(mirrored.frame0.flip(-1), batch.frame1)
    errors = []
    for each in (batch, mirrored):
        frames = torch.stack((each.frame0, each.truth, each.frame1), dim=1)
        errors.append(float(warp_errors(frames, each.flow).amin(dim=0).median()))
        assert torch.equal(each.trust, torch.ones_like(each.trust))
    assert errors[0] == pytest.approx(errors[1], rel=0.1)
    again = mirrored.mirrored()
    assert all(torch.equal(getattr(again, name), getattr(batch, name)) for name in ("frame0", "truth", "flow", "trust"))


def test_crops_are_the_clips_pixels(pack: Pack, clips: Path) -> None:
    """Without changes of colour, a crop is found unchanged (or turned) in the decoded frame."""
    sampler = draw_everything(pack, synthetic_share=0.0, degraded_share=0.0)
    drawn = sampler.draw(0)
    plain = replace(
        drawn, gain=np.ones_like(drawn.gain), gamma=np.ones_like(drawn.gamma), orientation=drawn.orientation * 0
    )
    plain = replace(
        plain, channels=np.tile(np.arange(3), (len(drawn.timestep), 1)), shape=replace(drawn.shape, factor=1)
    )
    crops = (Preparation(pack, CPU).real(plain)[:, 0] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    decoded = {path.name: read_all(path) for path in find_clips(clips)}
    for i, entry in enumerate(pack.entries[c] for c in clip_of(pack, plain.first[:, 0])):
        number = (int(plain.first[i, 0]) - entry.first_pixel) // (entry.height * entry.width)
        y, x = int(plain.y[i]), int(plain.x[i])
        assert np.array_equal(crops[i], decoded[entry.name][number][y : y + 64, x : x + 64])


def read_all(path: Path) -> list[NDArray[np.uint8]]:
    from training.pack import read_frames

    return list(read_frames(path))


def clip_of(pack: Pack, pixels: NDArray[np.int64]) -> list[int]:
    firsts = [entry.first_pixel for entry in pack.entries]
    return [int(np.searchsorted(firsts, pixel, side="right")) - 1 for pixel in pixels]


def test_a_step_does_not_depend_on_the_number_of_ranks(pack: Pack) -> None:
    sampler = draw_everything(pack, batch=4, synthetic_share=0.5, degraded_share=1.0)
    preparation = Preparation(pack, CPU)
    whole = preparation.make(sampler.draw(7), Motion())
    parts = [preparation.make(sampler.draw(7).part(rank, 2), Motion()) for rank in range(2)]
    assert 0 < whole.trust[:, 0, 0, 0].sum() < 4
    for name in ("frame0", "truth", "frame1", "timestep", "flow", "trust"):
        assert torch.allclose(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "make", "error", "text"),
    [
        ("missing", None, MediaError, "no folder of clips"),
        ("empty", lambda _: None, MediaError, "holds no clips"),
        ("broken", lambda d: (d / "bad.mp4").write_bytes(b"\0" * 4096), MediaError, r"bad\.mp4 cannot be decoded"),
        ("short", lambda d: write_clip(d / "two.mp4", moving(1, 2)), ClipError, r"two\.mp4 is too short, got 2 frames"),
        (
            "small",
            lambda d: write_clip(d / "tiny.mp4", [f[:64, :64].copy() for f in moving(1, 5)]),
            ClipError,
            r"tiny\.mp4 is too small, got 64x64",
        ),
    ],
)
def test_bad_data_is_refused_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, make: object, error: type[Exception], text: str
) -> None:
    """Before anything is trained; the command ends with the message and leaves no pack."""
    folder = tmp_path / name
    if callable(make):
        folder.mkdir()
        make(folder)
    with pytest.raises(error, match=text):
        build_pack(find_clips(folder), tmp_path / "pack")
    assert not (tmp_path / "pack").exists()
    assert train.main(["--clips", str(folder), "--out", str(tmp_path / "run"), "--device", "cpu"]) == 1
    assert "training: " in capfd.readouterr().err


def test_still_clips_are_refused(tmp_path: Path) -> None:
    write_clip(tmp_path / "still.mp4", [texture(1, 112, 128)] * 6)
    with pytest.raises(ClipError, match=r"nothing moves in the clips, got still\.mp4"):
        list_frames(build_pack(find_clips(tmp_path), tmp_path / "pack"))


def test_a_pack_cut_short_is_refused(clips: Path, tmp_path: Path) -> None:
    build_pack(find_clips(clips), tmp_path / "pack")
    pixels = tmp_path / "pack" / "pixels.u8"
    pixels.write_bytes(pixels.read_bytes()[:-100])
    with pytest.raises(MediaError, match="cut short"):
        open_pack(tmp_path / "pack")


def test_compact_clips_fit_and_decode(clips: Path, tmp_path: Path) -> None:
    """Every frame is there, in OpenCV, within the budget."""
    free = compact(find_clips(clips), tmp_path / "free", limit=640, budget_bytes=10**9)
    full = sum(path.stat().st_size for path in (tmp_path / "free").iterdir())
    tight = compact(find_clips(clips), tmp_path / "tight", limit=640, budget_bytes=full * 4 // 5)
    assert tight > free
    assert sum(path.stat().st_size for path in (tmp_path / "tight").iterdir()) <= full * 4 // 5
    assert [len(read_all(path)) for path in find_clips(tmp_path / "tight")] == [12, 16]
    with pytest.raises(OptionError, match="raise the budget"):
        compact(find_clips(clips), tmp_path / "none", limit=640, budget_bytes=100)
    assert not (tmp_path / "none").exists()


# Synthetic motion, degradation


def test_moving_window_is_exact() -> None:
    """A still picture seen through a window: the flow leads to the very pixels."""
    picture = torch.from_numpy(texture(4, 128, 128)).permute(2, 0, 1)[None, None].float() / 255
    time_ = torch.tensor([0.25])
    rendering = Renderer(CPU, 1).render(
        picture.expand(1, 2, -1, -1, -1), time_, np.array([3]), Motion(6.0, layers=False)
    )
    flow = rendering.flow[0, :, 64, 64]
    assert (rendering.flow - flow[None, :, None, None]).abs().max() < 1e-3
    assert torch.allclose(flow[:2] * 0.75, -flow[2:] * 0.25, atol=1e-4)  # to frame 1 it is three times as far
    assert flow.norm() > 1
    assert worst_error(rendering.frames, rendering.flow) < 0.02


def test_layers_have_exact_flow_where_nothing_is_covered() -> None:
    """Affine and bent motion of several layers: almost all pixels are found in one of the two frames."""
    pictures = (
        torch.stack([torch.from_numpy(texture(seed, 192, 192)).permute(2, 0, 1) for seed in (5, 6)]).float() / 255
    )
    rendering = Renderer(CPU, 1).render(pictures[None], torch.tensor([0.4]), np.array([12]), Motion(spread_px=4))
    errors = [warp_errors(rendering.frames, f)[..., 40:-40, 40:-40] for f in (rendering.flow, 0 * rendering.flow)]
    taken, still = (error.amin(dim=0).flatten() for error in errors)
    assert still.median() > 0.05
    assert taken.median() < 0.05 * still.median()
    assert taken.quantile(0.75) < 0.1 * still.quantile(0.75)


def warp_errors(frames: Tensor, flow: Tensor) -> Tensor:
    """Largest channel's error of frame 0 and frame 1 warped to the middle of the first sample, (2, H, W)."""
    x = torch.arange(flow.shape[-1], dtype=torch.float32)
    y = torch.arange(flow.shape[-2], dtype=torch.float32)
    maps = []
    for k in (0, 1):
        columns, rows = (x + flow[0, 2 * k]).numpy(), (y[:, None] + flow[0, 2 * k + 1]).numpy()
        image = frames[0, 2 * k].permute(1, 2, 0).numpy()
        warped = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        maps.append(np.abs(warped - frames[0, 1].permute(1, 2, 0).numpy()).max(axis=2))
    return torch.from_numpy(np.stack(maps))


def worst_error(frames: Tensor, flow: Tensor) -> float:
    return float(warp_errors(frames, flow)[..., 24:-24, 24:-24].mean(dim=0).quantile(0.99))


def test_traced_flow_solves_its_equation() -> None:
    """The content of a pixel under a bent velocity is where the flow says: both have the same place in the texture."""
    ramp = torch.arange(96.0)
    velocity = torch.stack((3 + 2 * torch.sin(ramp / 20).expand(96, 96), -0.05 * (ramp[:, None] - 48).expand(96, 96)))[
        None
    ]
    flow = trace(velocity, torch.tensor([0.3]))
    y, x = 40, 50
    dx, dy = flow[0, :2, y, x].tolist()
    there = x + dx, y + dy
    velocity_there = [cv2.getRectSubPix(v.numpy(), (1, 1), there).item() for v in velocity[0]]
    for axis, place in enumerate((x, y)):
        here = place + (0.3 - 0.5) * float(velocity[0, axis, y, x])
        assert there[axis] - 0.5 * velocity_there[axis] == pytest.approx(here, abs=0.02)


def test_degradation_leaves_other_samples_alone() -> None:
    frames = torch.rand(3, 3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    strength = torch.tensor([0.0, 0.02, 0.0])
    worse = degrade(frames, strength, torch.zeros(3), torch.zeros(3), torch.tensor([1, 2, 3]))
    assert torch.equal(worse[0::2], frames[0::2])
    spread = (worse[1, 0] - frames[1, 0])[(frames[1, 0] > 0.1) & (frames[1, 0] < 0.9)].std()
    assert 0.017 < spread < 0.023
    assert (worse[1, 1] - frames[1, 1]).abs().max() < 1e-3  # the truth gets no noise
    alone = add_noise(frames[1:2], strength[1:2], torch.tensor([2]))
    assert torch.allclose(alone[:, 0].clamp(0, 1), worse[1:2, 0], atol=1e-4)


# Network


@pytest.mark.parametrize("layout", ["L01", "L02", "L04", "L07", "L13", "L15", "L18"])
def test_training_forward_is_the_published_one(layout: str) -> None:
    torch.manual_seed(0)
    net = IFNet(LAYOUTS[layout])
    frames = torch.rand(2, 1, 3, 128, 128)
    with torch.no_grad():
        expected = net(*frames, 0.3)
        got = TrainingForward(net)(*frames, torch.tensor([0.3]))
    assert expected.flows[-1].abs().max() > 0.5
    assert torch.allclose(got.image, expected.image, atol=1e-4)
    assert torch.allclose(got.stages[-1].flow, expected.flows[-1], atol=1e-4)


def test_gradients_are_those_of_the_published_forward() -> None:
    torch.manual_seed(0)
    net = IFNet(LAYOUTS["L18"])
    initialise(net)
    frames = torch.rand(2, 1, 3, 64, 64)

    def gradients(image: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((image - 0.5).abs().mean(), list(net.parameters()), allow_unused=True))

    expected = gradients(net(*frames, 0.5).image)
    got = gradients(TrainingForward(net)(*frames, torch.tensor([0.5])).image)
    largest = max(float(e.abs().max()) for e in expected if e is not None)
    for a, b in zip(expected, got, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert torch.allclose(a, b, atol=1e-4 * largest, rtol=1e-2)


def make_net(layout: str, seed: int = 0) -> IFNet:
    torch.manual_seed(seed)
    net = IFNet(LAYOUTS[layout])
    initialise(net)
    return net


def test_a_teacher_adds_its_flow_and_picture(pack: Pack) -> None:
    """Exact flow stays; flow to a frame that the teacher hardly shows counts less."""
    teacher = Teacher(make_net("L13"), torch.float32)
    batch = Preparation(pack, CPU).make(draw_everything(pack, batch=6, synthetic_share=0.5).draw(2), Motion())
    taught = teacher.teach(batch)
    known = batch.trust[:, 0, 0, 0] > 0
    assert 0 < known.sum() < 6
    stage = teacher.forward(batch.frame0, batch.frame1, batch.timestep).stages[-1]
    assert taught.picture is not None
    assert torch.equal(taught.picture, stage.blend)
    assert torch.equal(taught.flow[~known], stage.flow[~known])
    assert torch.equal(taught.flow[known], batch.flow[known])
    assert torch.equal(taught.trust[known], batch.trust[known])
    shown = torch.sigmoid(stage.mask[~known])
    assert torch.allclose(taught.trust[~known][:, :1], (2 * shown).clamp_min(LEAST_TRUST))
    assert torch.allclose(taught.trust[~known][:, 1:], (2 - 2 * shown).clamp_min(LEAST_TRUST))


def test_a_student_has_nothing_to_learn_from_itself(pack: Pack, tmp_path: Path) -> None:
    """Its flow is at no distance, and its picture is nowhere better; those of another network teach it something."""
    states = {seed: make_net("L13", seed).state_dict() for seed in (1, 2)}
    for seed, state in states.items():
        checkpoint.export_weights(state, tmp_path / f"{seed}.safetensors")
    batch = Preparation(pack, CPU).make(draw_everything(pack, batch=2, synthetic_share=0.0).draw(2), Motion())
    student = load_teacher(tmp_path / "1.safetensors", CPU, torch.float32).forward
    parts = {}
    for seed in states:
        taught = load_teacher(tmp_path / f"{seed}.safetensors", CPU, torch.float32).teach(batch)
        estimate = student(batch.frame0, batch.frame1, batch.timestep)
        last = replace(estimate, stages=estimate.stages[-1:])
        parts[seed] = compute_loss(last, taught, LossWeights(flow=1.0, picture=1.0)).parts
    assert parts[1]["flow"] == 0
    assert parts[1]["picture"] == 0
    assert parts[2]["flow"] > 0
    assert parts[2]["picture"] > 0
    assert parts[1]["pyramid"] == parts[2]["pyramid"]


def test_a_picture_counts_where_it_is_better() -> None:
    truth = torch.zeros(1, 3, 16, 16)
    own, other = truth + 0.2, truth + 0.4
    other[..., 8:] = 0.1
    better = is_better(other, own, truth)
    assert better[..., :6].max() == 0
    assert better[..., 10:].min() == 1


def test_flow_colours() -> None:
    """Still is white; opposite directions have different hues."""
    flow = torch.zeros(1, 2, 1, 3)
    flow[0, 0, 0] = torch.tensor([0.0, 5.0, -5.0])
    still, right, left = colour_flow(flow)[0, :, 0].T
    assert torch.allclose(still, torch.ones(3))
    assert right[0] > 0.9 > left[0]


# Runs


def command(clips: Path, out: Path, *more: str, processes: int = 1) -> list[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*start, "-m", "training.train", "--clips", str(clips), "--out", str(out), *SMALL, *more]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def losses(out: Path) -> dict[int, set[float]]:
    """All losses that a run logged, by step; a step done twice after a kill has two."""
    found: dict[int, set[float]] = {}
    for line in (out / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["step"], set()).add(row["loss"])
    return found


def run_to_end(clips: Path, out: Path, *more: str, processes: int = 1) -> None:
    done = subprocess.run(
        command(clips, out, *more, processes=processes), cwd=ROOT, env=environment(), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_two_ranks_train_like_one_with_the_doubled_batch(clips: Path, tmp_path: Path) -> None:
    options = ("--steps", "3", "--batch", "4", "--rate", "1e-4", "--flow", "0.02")
    run_to_end(clips, tmp_path / "one", *options)
    run_to_end(clips, tmp_path / "two", *options, processes=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert sorted(one) == [1, 2, 3]
    for step in one:
        assert one[step].pop() == pytest.approx(two[step].pop(), rel=2e-4)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(clips: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, checkpoints being written all the time: same losses, same weights."""
    teacher = tmp_path / "teacher.safetensors"
    checkpoint.export_weights(make_net("L13").state_dict(), teacher)
    taught = ("--teacher", str(teacher), "--flow", "0.02", "--picture", "0.5", "--echoes", "2")
    options = ("--steps", "8", "--batch", "1", "--save-every", "0", *taught)
    run_to_end(clips, tmp_path / "undisturbed", *options)
    out, pauses = tmp_path / "killed", random.Random(7)
    for least in (2, 5):
        process = subprocess.Popen(
            command(clips, out, *options), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for_step(out, least, process)
        time.sleep(pauses.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (out / "checkpoint.pt").is_file()
    run_to_end(clips, out, *options)
    assert losses(out) == losses(tmp_path / "undisturbed")
    undisturbed, killed = (
        checkpoint.load_checkpoint(folder / "checkpoint.pt") for folder in (tmp_path / "undisturbed", out)
    )
    assert undisturbed["step"] == killed["step"] == 8
    assert all(torch.equal(undisturbed["ema"][name], killed["ema"][name]) for name in undisturbed["ema"])


def wait_for_step(out: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if (out / "log.jsonl").is_file() and max(losses(out), default=0) >= step:
            return
        time.sleep(0.02)
    pytest.fail(f"the run did not reach step {step}")


def make_trainer(pack: Pack, *, teacher: Teacher | None = None, **changes: object) -> Trainer:
    plan = Plan(
        layout="L18", mix=Mix(64, 2, synthetic_share=1.0), schedule=Schedule(20, peak=3e-4, warmup=2),
        weights=LossWeights(psnr=0.1, flow=0.02), motion=Motion(layers=False), ema=0.5,
    )  # fmt: skip
    return Trainer(replace(plan, **changes), pack, Ranks(0, 1, CPU), teacher=teacher)  # type: ignore[arg-type]


def test_training_lowers_the_error_of_what_it_sees(pack: Pack) -> None:
    """The same samples again and again, with every part of the loss."""
    weights = LossWeights(psnr=0.1, flow=0.02, picture=0.1)
    trainer = make_trainer(pack, weights=weights, teacher=Teacher(make_net("L13"), torch.float32))
    drawn = trainer.sampler.draw(0)
    seen = [trainer.train_step(drawn)[0] for _ in range(12)]
    first, last = seen[0].parts, seen[-1].parts
    assert set(first) == {"pyramid", "psnr", "flow", "picture"}
    assert last["pyramid"] < 0.95 * first["pyramid"]
    assert last["flow"] < first["flow"]


def test_coarse_blocks_train_alone(pack: Pack) -> None:
    """They see what they see in the whole network; the others stay as they are."""
    trainer = make_trainer(pack, blocks=2)
    whole = TrainingForward(IFNet(LAYOUTS["L18"]))
    whole.net.load_state_dict(trainer.net.state_dict())
    drawn = trainer.sampler.draw(0)
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    _, batch, estimate = trainer.train_step(drawn)
    with torch.no_grad():
        expected = whole(batch.frame0, batch.frame1, batch.timestep).stages
    assert len(estimate.stages) == 2
    for got, stage in zip(estimate.stages, expected, strict=False):
        assert torch.allclose(got.blend, stage.blend, atol=1e-5)
        assert torch.allclose(got.flow, stage.flow, atol=1e-4)
    changed = {name for name, value in trainer.net.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"encode", "block0", "block1"}
    with pytest.raises(OptionError, match="blocks must be 1 to 4 in this layout, got 5"):
        make_trainer(pack, blocks=5)


def test_frozen_parts_keep_their_weights(pack: Pack) -> None:
    """The others learn through them."""
    trainer = make_trainer(pack, frozen=("block1", "block2"))
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    trainer.train_step(trainer.draw(0))
    changed = {name for name, value in trainer.net.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.split(".")[0] for name in changed} == {"encode", "block0", "block3"}


def test_weights_travel(pack: Pack, tmp_path: Path) -> None:
    """A run carried to another machine goes on from its step; its exported average is a model of the filter."""
    trainer = make_trainer(pack)
    trainer.train_step(trainer.sampler.draw(0))
    checkpoint.save_checkpoint(tmp_path, trainer.state())
    checkpoint.save_carried(tmp_path, trainer.state())
    sizes = [(tmp_path / name).stat().st_size for name in (checkpoint.CARRIED_FILE, checkpoint.CHECKPOINT_FILE)]
    assert sizes[0] < sizes[1] / 3
    other = make_trainer(pack)
    other.restore(checkpoint.load_checkpoint(tmp_path / checkpoint.CARRIED_FILE))
    assert other.step == 1
    assert other.rate(1) < trainer.rate(1)  # the optimiser starts anew
    path = tmp_path / "mine.safetensors"
    checkpoint.export_weights(trainer.average, path)
    weights = read_ifnet(path)
    assert weights.layout.id == "L18"
    net = IFNet(weights.layout)
    net.load_state_dict(dict(weights.tensors))
    a, b = (np.random.default_rng(i).random((70, 90, 3), np.float32) for i in (1, 2))
    got = vsrife.interpolate(a, b, 0.5, model=path, device="cpu", precision="fp32")
    with torch.no_grad():
        expected = net(*(torch.from_numpy(f).permute(2, 0, 1)[None] for f in (a, b)), 0.5).image[0].permute(1, 2, 0)
    assert np.allclose(got, expected.numpy(), atol=1e-4)


def test_weights_in_eight_bits(tmp_path: Path) -> None:
    """Half the size; no value is off by more than half a step of its output channel."""
    net = make_net("L13")
    exact, coded = tmp_path / "exact.safetensors", tmp_path / "coded.safetensors"
    checkpoint.export_weights(net.state_dict(), exact)
    assert export.main([str(exact), str(coded), "--int8"]) == 0
    assert coded.stat().st_size < 0.53 * exact.stat().st_size
    weights = load_model(coded)
    assert weights.layout.id == "L13"
    for name, tensor in net.state_dict().items():
        limit = 2**-11 * tensor.abs() if tensor.dim() < 4 else tensor.abs().max() / 127 / 2
        assert ((weights.tensors[name] - tensor).abs() <= 1.1 * limit + 1e-6).all()


def test_averages_of_weights(pack: Pack, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = [make_trainer(pack, seed=seed).average for seed in (1, 2)]
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for state, file in zip(states, files, strict=True):
        checkpoint.export_weights(state, file)
    out = tmp_path / "mean.safetensors"
    assert average.main([str(out), "3", str(files[0]), "1", str(files[1])]) == 0
    name = "block0.convblock.0.conv.weight"
    expected = 0.75 * states[0][name] + 0.25 * states[1][name]
    assert torch.allclose(load_model(out).tensors[name], expected, rtol=2e-3, atol=1e-5)
    assert average.main([str(out), "3", str(files[0]), "none", str(files[1])]) == 1
    assert "a share must be a number above 0, got 'none'" in capsys.readouterr().err
    other = tmp_path / "other.safetensors"
    checkpoint.export_weights(IFNet(LAYOUTS["L13"]).state_dict(), other)
    assert average.main([str(out), "1", str(files[0]), "1", str(other)]) == 1
    assert "must be of one layout" in capsys.readouterr().err


def test_a_pruned_network_keeps_what_matters(pack: Pack) -> None:
    """Channels that nothing is made of go first: without them the blocks that are left say the same."""
    big, small = LAYOUTS["L14"], LAYOUTS["L18"]
    torch.manual_seed(0)
    net = IFNet(big)
    initialise(net)
    state = net.state_dict()
    for index, (wide, narrow) in enumerate(zip(big.widths, small.widths, strict=False)):
        block = f"block{index}"
        silent, half = torch.randperm(wide)[: wide - narrow], torch.randperm(wide // 2)[: (wide - narrow) // 2]
        state[f"{block}.lastconv.0.weight"][silent] = 0
        state[f"{block}.conv0.1.0.weight"][:, half] = 0
        for k in range(BODY_LAYERS):
            state[f"{block}.convblock.{k}.conv.weight"][:, silent] = 0
    pruned = IFNet(small)
    pruned.load_state_dict(prune(state, big, small, pack))
    net.load_state_dict(state)
    frames = torch.rand(2, 1, 3, 128, 128)
    with torch.no_grad():
        expected, got = (
            TrainingForward(which, blocks=small.blocks)(*frames, torch.tensor([0.4])) for which in (net, pruned)
        )
    assert expected.stages[-1].flow.abs().max() > 0.01
    assert torch.allclose(got.stages[-1].flow, expected.stages[-1].flow, atol=1e-4)
    assert torch.allclose(got.stages[-1].mask, expected.stages[-1].mask, atol=1e-4)


def test_a_narrower_head_is_fitted(pack: Pack) -> None:
    """Whole blocks are taken over as they are; the head's features come near those of the big one."""
    big, small = LAYOUTS["L14"], LAYOUTS["L19"]
    net = make_net("L14")
    state = net.state_dict()
    samples = Preparation(pack, CPU).make(draw_everything(pack, synthetic_share=0.0).draw(0), Motion()).frame0
    errors = []
    for steps in (0, 20):
        pruned = IFNet(small)
        pruned.load_state_dict(prune(state, big, small, pack, fit_steps=steps))
        assert all(torch.equal(t, state[n]) for n, t in pruned.state_dict().items() if not n.startswith("encode."))
        with torch.no_grad():
            errors.append((pruned.encode(samples) - net.encode(samples)).square().mean())
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize(
    ("small", "text"),
    [
        ("L08", "must have the kind of head and blocks of L14"),
        ("L13", "must have the coarse blocks of L14"),
        ("L17", "must have the kind of head and blocks of L14"),
        ("L16", "no part of L16 may be wider"),
    ],
)
def test_what_is_no_part_is_not_pruned(pack: Pack, small: str, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        prune({}, LAYOUTS["L14"], LAYOUTS[small], pack)


def test_a_checkpoint_of_something_else_is_refused(pack: Pack, tmp_path: Path) -> None:
    checkpoint.save_checkpoint(tmp_path, make_trainer(pack).state())
    stored = checkpoint.load_checkpoint(tmp_path / checkpoint.CHECKPOINT_FILE)
    with pytest.raises(OptionError, match="layout is L18 in the checkpoint, got L13"):
        make_trainer(pack, layout="L13").restore(stored)
    (tmp_path / checkpoint.CHECKPOINT_FILE).write_bytes(b"nothing")
    with pytest.raises(WeightsError, match=r"checkpoint\.pt cannot be read"):
        checkpoint.load_checkpoint(tmp_path / checkpoint.CHECKPOINT_FILE)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"mix": Mix(72, 2)}, "crops must be multiples of 64 pixels in this layout, got 72"),
        ({"mix": Mix(64, 2), "teacher": Teacher(IFNet(LAYOUTS["L15"]), torch.float32)}, "multiples of 128 pixels"),
        ({"mix": Mix(64, 6, wide_share=0.5)}, "the batch must be a multiple of 4 samples, got 6"),
        ({"frozen": ("block4",)}, "parts to freeze must be block0, block1, block2, block3, encode in this layout"),
        ({"layout": "5.0"}, "spec must be a version or a layout of the catalogue, got '5.0'"),
    ],
)
def test_plans_that_cannot_work_are_refused(pack: Pack, options: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        make_trainer(pack, **options)


def test_pictures_and_scalars_reach_tensorboard(pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from training import monitor

    monkeypatch.setattr(monitor, "PICTURES_EVERY", 1)
    trainer = make_trainer(pack)
    with monitor.Monitor(tmp_path, 2, 0, every=1) as shown:
        shown.show(0, 1e-4, 2, trainer.train_step(trainer.sampler.draw(0)))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"loss", "psnr_db", "rate", "samples_per_s", "waited_share"} <= set(tags["scalars"])
    image = events.Images("samples")[0]
    assert (image.width, image.height) == (6 * 64, 2 * 64)


def test_a_bare_machine_can_train() -> None:
    """PyTorch, NumPy and OpenCV are enough."""
    absent = ("vapoursynth", "safetensors", "platformdirs", "click", "tqdm", "tensorboard", "av", "rich", "numba")
    script = f"import sys; sys.modules.update(dict.fromkeys({absent!r})); import training.train"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
