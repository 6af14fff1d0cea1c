"""Train a network of any published layout.

    python -m training.train --spec 4.25 --clips CLIPS --out RUN
    torchrun --nproc-per-node 4 -m training.train --spec 4.25 --clips CLIPS --out RUN

A run that was stopped, or killed, goes on where its last checkpoint stands when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist

from training import checkpoint
from training.console import exit_code
from training.losses import LossWeights
from training.monitor import Monitor
from training.pack import Pack, build_pack, find_clips, open_pack
from training.samples import REDUCED_SHARE, STRIDE_SHARES, Mix
from training.synthetic import Motion
from training.teacher import load_teacher
from training.trainer import Plan, Ranks, Schedule, Trainer, find_layout, join_ranks, run


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.train", description="Train a RIFE network")
    parser.add_argument("--spec", default="4.25", help="version or layout of the catalogue (default 4.25)")
    parser.add_argument("--clips", type=Path, help="folder of training clips")
    parser.add_argument("--pack", type=Path, help="decoded clips (default: OUT/pack)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: checkpoint, logs")
    parser.add_argument("--init", type=Path, help="weights to start from; a checkpoint in OUT goes first")
    parser.add_argument("--teacher", type=Path, help="weights of any layout, whose flow and picture are taught")
    parser.add_argument(
        "--carried", type=Path, help="checkpoint of another machine, without its optimiser, to go on from"
    )
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--minutes", type=float, help="stop after this time even if steps are left")
    parser.add_argument("--crop", type=int, default=192, help="side of the crops in pixels (default 192)")
    parser.add_argument("--batch", type=int, default=8, help="samples of a step over all processes (default 8)")
    parser.add_argument("--rate", type=float, default=2e-4, help="peak learning rate (default 2e-4)")
    parser.add_argument("--last-rate", type=float, default=1e-6, help="learning rate at the end (default 1e-6)")
    parser.add_argument("--warmup", type=int, default=300, help="steps in which the rate rises (default 300)")
    parser.add_argument(
        "--echoes", type=int, default=1, help="steps that learn from the same samples, mirrored in turns (default 1)"
    )
    parser.add_argument("--synthetic", type=float, default=0.25, help="share of synthetic motion (default 0.25)")
    parser.add_argument(
        "--reach", type=float, default=1.0, help="up to how many times as far synthetic layers go (default 1)"
    )
    parser.add_argument("--halfway", type=float, default=0.6, help="share of samples at timestep 1/2 (default 0.6)")
    parser.add_argument("--degraded", type=float, default=0.3, help="share of worse recordings (default 0.3)")
    parser.add_argument(
        "--wide", type=float, default=0.0, help="share of steps with crops of twice the side (default 0)"
    )
    parser.add_argument(
        "--reduced",
        type=float,
        default=REDUCED_SHARE,
        help="share of steps whose crops are cut twice as large and halved",
    )
    parser.add_argument(
        "--strides", type=float, nargs="+", default=STRIDE_SHARES, help="shares of strides 1, 2, ... (default mostly 1)"
    )
    parser.add_argument("--pyramid", type=float, default=1.0, help="weight of the truth (default 1)")
    parser.add_argument("--psnr", type=float, default=0.0, help="weight of each sample's logarithmic error")
    parser.add_argument("--still", type=float, default=0.08, help="share of samples without motion (default 0.08)")
    parser.add_argument("--flow", type=float, default=0.0, help="weight of the teacher's flow and of exact flow")
    parser.add_argument("--picture", type=float, default=0.0, help="weight of the teacher's picture where it is better")
    parser.add_argument(
        "--blocks", type=int, help="run and train only so many blocks, from the coarsest (default: all)"
    )
    parser.add_argument(
        "--freeze",
        nargs="+",
        default=(),
        metavar="PART",
        help="parts that keep their weights: encode, block0, block1, ...",
    )
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", help="cpu, cuda (default: the GPU where there is one)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, help="CPU threads of each process")
    parser.add_argument("--save-every", type=float, default=60.0, help="seconds between checkpoints (default 60)")
    parser.add_argument("--log-every", type=int, default=50, help="steps between lines of the log (default 50)")
    return parser


def make_plan(a: argparse.Namespace) -> Plan:
    return Plan(
        layout=find_layout(a.spec).id,
        mix=Mix(
            crop_px=a.crop,
            batch=a.batch,
            synthetic_share=a.synthetic,
            still_share=a.still,
            strides=tuple(share / sum(a.strides) for share in a.strides),
            wide_share=a.wide,
            reduced_share=a.reduced,
            degraded_share=a.degraded,
            halfway_share=a.halfway,
        ),
        schedule=Schedule(a.steps, a.rate, a.last_rate, a.warmup),
        weights=LossWeights(pyramid=a.pyramid, psnr=a.psnr, flow=a.flow, picture=a.picture),
        ema=a.ema,
        seed=a.seed,
        blocks=a.blocks,
        frozen=tuple(a.freeze),
        motion=Motion(reach=a.reach),
        echoes=a.echoes,
    )


def resume(trainer: Trainer, arguments: argparse.Namespace) -> None:
    """Go on from the run's own checkpoint, else from one carried here, else start from given weights."""
    own = arguments.out / checkpoint.CHECKPOINT_FILE
    if own.is_file():
        trainer.restore(checkpoint.load_checkpoint(own))
    elif arguments.carried:
        trainer.restore(checkpoint.load_checkpoint(arguments.carried))
    elif arguments.init:
        trainer.start_from(checkpoint.read_initial_weights(arguments.init))


def open_clips(arguments: argparse.Namespace, ranks: Ranks) -> Pack:
    """The pack of the run; the first process of a machine makes it, the others wait."""
    folder = arguments.pack or arguments.out / "pack"
    if arguments.clips and ranks.opens:
        build_pack(find_clips(arguments.clips), folder)
    if ranks.count > 1:
        dist.barrier()
    return open_pack(folder)


def train(arguments: argparse.Namespace) -> None:
    """Carry out one command line."""
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    until = time.time() + 60 * arguments.minutes if arguments.minutes else None
    with join_ranks(arguments.device) as ranks:
        plan = make_plan(arguments)
        precision = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
        teacher = load_teacher(arguments.teacher, ranks.device, precision) if arguments.teacher else None
        trainer = Trainer(plan, open_clips(arguments, ranks), ranks, precision, teacher)
        resume(trainer, arguments)
        monitor = Monitor(
            arguments.out, plan.schedule.steps, trainer.step, every=arguments.log_every, shown=ranks.leads
        )
        with monitor:
            run(trainer, arguments.out, save_every_s=arguments.save_every, monitor=monitor, until=until)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = make_parser().parse_args(argv)
    return exit_code(lambda: train(arguments))


if __name__ == "__main__":
    sys.exit(main())
