"""Make a smaller network out of a trained one: its coarse blocks, the channels that matter most, a narrower head.

    python -m training.prune BIG.safetensors OUT.safetensors --pack PACK --spec L19

A start for `python -m training.train --spec L19 --init OUT.safetensors --teacher BIG.safetensors`. A channel of a
block's body counts by what the layers behind it make of it: its strength on samples, times the norm of their weights.
The channels of a narrower head are chosen alike, then fitted until it yields the features of the big one. Blocks left
whole do what they did; with a narrower block alone, a network interpolates badly until it is trained.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training.checkpoint import export_weights, read_network
from training.console import exit_code
from training.forward import TrainingForward
from training.pack import Pack, open_pack
from training.prepare import Preparation
from training.samples import Batch, Mix, Sampler
from training.synthetic import Motion
from training.trainer import find_layout
from vsrife.errors import OptionError
from vsrife.networks.catalogue import BODY_LAYERS, Layout
from vsrife.networks.ifnet import Encoder, IFNet, leaky

STEPS, CROPS, CROP_PX = 3, 8, 256
FIT_STEPS, FIT_CROPS, FIT_CROP_PX, FIT_RATE = 1000, 3, 192, 2e-3
LEAST_ERROR = 1e-5  # of a fitted feature, relative to its variance; smaller ones do not matter
CPU = torch.device("cpu")

State = Mapping[str, Tensor]


def draw_samples(pack: Pack, steps: int, crops: int = CROPS, crop_px: int = CROP_PX) -> Iterator[Batch]:
    """Return real samples, the same in every call."""
    sampler = Sampler(pack, Mix(crop_px, crops, synthetic_share=0.0, still_share=0.0), seed=5)
    preparation = Preparation(pack, CPU)
    return (preparation.make(sampler.draw(step), Motion()) for step in range(steps))


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
    forward = TrainingForward(net)
    with torch.no_grad():
        for batch in draw_samples(pack, STEPS):
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


def convolution(net: nn.Module, name: str) -> nn.Conv2d | nn.ConvTranspose2d:
    """The convolution of that name, which has a bias."""
    layer = net.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    assert layer.bias is not None
    return layer


def copy_bias(
    wide: nn.Conv2d | nn.ConvTranspose2d, narrow: nn.Conv2d | nn.ConvTranspose2d, chosen: Tensor | slice
) -> None:
    assert wide.bias is not None
    assert narrow.bias is not None
    narrow.bias.copy_(wide.bias[chosen])


def thin_head(big: Encoder, small: Encoder, frames: Tensor) -> None:
    """Give a narrower head the strongest channels of a bigger one."""
    kept, x = torch.arange(frames.shape[1]), frames
    *convs, last = big.head.names
    for name, following in zip(convs, (*convs[1:], last), strict=True):
        layer, reader, narrow = convolution(big, name), convolution(big, following), convolution(small, name)
        x = leaky(layer(x))
        read = reader.weight.square().sum((1, 2, 3) if following == last else (0, 2, 3)).sqrt()
        chosen = choose(x.std((0, 2, 3)) * read, small.head.hidden)
        narrow.weight.copy_(layer.weight[chosen][:, kept])
        copy_bias(layer, narrow, chosen)
        kept = chosen
    wide, narrow = convolution(big, last), convolution(small, last)
    narrow.weight.copy_(wide.weight[kept])
    copy_bias(wide, narrow, slice(None))


def fit_head(big: Encoder, small: Encoder, pack: Pack, steps: int) -> None:
    """Make a narrower head yield the features of a bigger one."""
    big.requires_grad_(False)
    with torch.no_grad():
        frames = next(draw_samples(pack, 1)).frame0.clamp(0, 1)
        thin_head(big, small, frames)
        variance = big(frames).var((0, 2, 3))
    optimiser = torch.optim.Adam(small.parameters(), lr=FIT_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    for batch in draw_samples(pack, steps, FIT_CROPS, FIT_CROP_PX):
        error = (small(batch.frame0) - big(batch.frame0)).square().mean((0, 2, 3)) / variance
        optimiser.zero_grad()
        (error + LEAST_ERROR).sqrt().mean().backward()
        optimiser.step()
        schedule.step()


def prune(state: State, big: Layout, small: Layout, pack: Pack, fit_steps: int = FIT_STEPS) -> dict[str, Tensor]:
    """Return weights of `small`, taken out of those of `big`.

    Args:
        state: of `big`, float32.
        big: the layout to begin with.
        small: one with blocks of the same kind at the same scales, fewer or narrower, and the same features of a frame.
        pack: clips, to see which channels are strong.
        fit_steps: for which a narrower head is fitted.

    Raises:
        OptionError: `small` is not part of `big`.
    """
    check_part(big, small)
    net = IFNet(big)
    net.load_state_dict(dict(state))
    narrower = any(narrow < wide for narrow, wide in zip(small.widths, big.widths, strict=False))
    strength = measure_strength(net, pack) if narrower else {}
    result: dict[str, Tensor] = {}
    for index, (width, wide) in enumerate(zip(small.widths, big.widths, strict=False)):
        block = f"block{index}"
        whole = {name: tensor for name, tensor in state.items() if name.startswith(f"{block}.")}
        result |= whole if width == wide else thin_block(block, width, state, strength)
    if not small.head or small.head == big.head:
        return result | {name: tensor for name, tensor in state.items() if name.startswith("encode.")}
    head = Encoder(small.head)
    fit_head(net.encode, head, pack, fit_steps)
    return result | {f"encode.{name}": tensor.detach() for name, tensor in head.state_dict().items()}


def check_part(big: Layout, small: Layout) -> None:
    """Refuse a layout that cannot be taken out of another.

    Raises:
        OptionError: it is of another kind, or wider.
    """
    alike = all(
        getattr(big, name) == getattr(small, name) for name in ("feature_channels", "body", "outputs", "groups")
    )
    heads = [(head.inner, head.names, head.clamps) for head in (big.head, small.head) if head]
    if not (alike and heads[:1] == heads[1:] and big.body == "residual" and big.groups == 1):
        raise OptionError(f"{small.id} must have the kind of head and blocks of {big.id}; take another layout")
    if big.scales[: small.blocks] != small.scales:
        raise OptionError(f"{small.id} must have the coarse blocks of {big.id}, got scales {small.scales}")
    widths = [(big.head.hidden, small.head.hidden)] if big.head and small.head else []
    widths += zip(big.widths, small.widths, strict=False)
    if any(narrow > wide for wide, narrow in widths):
        raise OptionError(f"no part of {small.id} may be wider than that of {big.id}, got {small.widths}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.prune", description="A smaller network out of a bigger one"
    )
    parser.add_argument("big", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--spec", default="L19", help="version or layout of the small one (default L19)")
    arguments = parser.parse_args(argv)

    def work() -> None:
        net, small = read_network(arguments.big), find_layout(arguments.spec)
        export_weights(prune(net.state_dict(), net.layout, small, open_pack(arguments.pack)), arguments.out)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
