"""Make a smaller network out of a trained one: the channels that matter most, of the blocks that it has.

    python -m training.thin BIG.safetensors OUT.safetensors --pack PACK [--spec L18]

A start for `python -m training.train --spec L18 --init OUT.safetensors`; by itself it interpolates badly. A channel of
a block's body counts by what the layers behind it make of it: its strength on samples, times the norm of their weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training.checkpoint import export_weights, read_initial_weights
from training.console import exit_code
from training.forward import TrainingForward
from training.pack import Pack, open_pack
from training.prepare import Preparation
from training.samples import Mix, Sampler
from training.synthetic import Motion
from training.trainer import find_layout
from vsrife.checkpoints.recognition import recognise
from vsrife.errors import OptionError
from vsrife.networks.catalogue import BODY_LAYERS, Layout
from vsrife.networks.ifnet import IFNet

STEPS, CROPS, CROP_PX = 3, 8, 256
CPU = torch.device("cpu")

State = Mapping[str, Tensor]


def measure_strength(net: IFNet, pack: Pack) -> dict[str, Tensor]:
    """Root mean square of each channel, (C,), that goes into `lastconv` and the second convolution of each block."""
    squares: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module) -> None:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            squares[name] = squares.get(name, torch.zeros(())) + inputs[0].square().mean((0, 2, 3))

        module.register_forward_pre_hook(note)

    for name, module in net.named_modules():
        if name.startswith("block") and name.endswith(("lastconv.0", "conv0.1.0")):
            watch(name, module)
    sampler = Sampler(pack, Mix(CROP_PX, CROPS, synthetic_share=0.0, still_share=0.0), seed=5)
    preparation, forward = Preparation(pack, CPU), TrainingForward(net)
    with torch.no_grad():
        for step in range(STEPS):
            batch = preparation.make(sampler.draw(step), Motion(), taught=False)
            forward(batch.frame0, batch.frame1, batch.timestep)
    return {name: square.sqrt() for name, square in squares.items()}


def choose(scores: Tensor, count: int) -> Tensor:
    """Indices of the `count` highest, in their order."""
    return scores.topk(count).indices.sort().values


def thin_block(block: str, width: int, state: State, strength: State) -> dict[str, Tensor]:
    """The tensors of one block with `width` channels."""
    last, second = f"{block}.lastconv.0", f"{block}.conv0.1.0"
    body = [f"{block}.convblock.{k}" for k in range(BODY_LAYERS)]
    read = sum((state[f"{layer}.conv.weight"] * state[f"{layer}.beta"].view(-1, 1, 1, 1)).square() for layer in body)
    assert isinstance(read, Tensor)
    used = [read.sum((0, 2, 3)).sqrt(), state[f"{last}.weight"].square().sum((1, 2, 3)).sqrt()]
    scores = [strength[last] * norm for norm in used]
    kept = choose(torch.stack([score / score.mean() for score in scores]).sum(0), width)
    half = choose(strength[second] * state[f"{second}.weight"][kept].square().sum((0, 2, 3)).sqrt(), width // 2)
    first = f"{block}.conv0.0.0"
    result = {
        f"{first}.weight": state[f"{first}.weight"][half],
        f"{first}.bias": state[f"{first}.bias"][half],
        f"{second}.weight": state[f"{second}.weight"][kept][:, half],
        f"{second}.bias": state[f"{second}.bias"][kept],
        f"{last}.weight": state[f"{last}.weight"][kept],
        f"{last}.bias": state[f"{last}.bias"],
    }
    for layer in body:
        result[f"{layer}.conv.weight"] = state[f"{layer}.conv.weight"][kept][:, kept]
        result[f"{layer}.conv.bias"] = state[f"{layer}.conv.bias"][kept]
        result[f"{layer}.beta"] = state[f"{layer}.beta"][:, kept]
    return result


def thin(state: State, big: Layout, small: Layout, pack: Pack) -> dict[str, Tensor]:
    """Weights of `small`, taken out of those of `big`.

    Args:
        state: of `big`, float32.
        big: the layout to begin with.
        small: one with the same kind of blocks and encoder, of which none is wider.
        pack: clips, to see which channels are strong.

    Raises:
        OptionError: `small` is not part of `big`.
    """
    alike = all(getattr(big, name) == getattr(small, name) for name in ("head", "body", "outputs", "groups"))
    if not (alike and big.body == "residual" and big.groups == 1 and big.scales[: small.blocks] == small.scales):
        raise OptionError(f"{small.id} must have the encoder and the kind of blocks of {big.id}; take another layout")
    if any(narrow > wide for narrow, wide in zip(small.widths, big.widths, strict=False)):
        raise OptionError(f"no block of {small.id} may be wider than that of {big.id}, got {small.widths}")
    net = IFNet(big)
    net.load_state_dict(dict(state))
    strength = measure_strength(net, pack)
    result = {name: tensor for name, tensor in state.items() if name.startswith("encode.")}
    for index, width in enumerate(small.widths):
        result |= thin_block(f"block{index}", width, state, strength)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.thin", description="A smaller network out of a bigger one"
    )
    parser.add_argument("big", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--spec", default="L18", help="version or layout of the small one (default L18)")
    arguments = parser.parse_args(argv)

    def work() -> None:
        state = {name: tensor.float() for name, tensor in read_initial_weights(arguments.big).items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        big, small = recognise(shapes, arguments.big), find_layout(arguments.spec)
        export_weights(thin(state, big, small, open_pack(arguments.pack)), arguments.out)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
