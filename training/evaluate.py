"""How good weights are: PSNR, SSIM, interpolation error and SSIMULACRA2 beside simple baselines.

    python -m training.evaluate ../shared/data/eval                          # the bundled model
    python -m training.evaluate FOLDER -m 4.26 -m my.safetensors -o scores   # several models; CSV, plot, strips
    python -m training.evaluate --authors ucf101 --authors hd --root DATA    # as the scripts of RIFE's authors

FOLDER holds triplets (NAME/frame_00, frame_01_gt, frame_02 and the like), videos, or folders of numbered images. From
videos, frames are dropped and rebuilt at 2x, 4x or 8x; cuts count like everything else.

Two ways to run a network. `engine`, the default, is what users get from vsrife.interpolate: pictures as they are, parts
that are equal in both left alone. `published` is the network as its authors run it, in float32; the authors' sets
then get the channel order and padding of their scripts. Both are rounded to 8 bits before anything is measured.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import vsrife
from training.authors import AUTHORS_SETS
from training.console import exit_code
from training.evalsets import EvalSet, Item, find_sets
from vsrife.checkpoints.finding import model_labels
from vsrife.checkpoints.loading import IFNetWeights, LegacyWeights, load_model
from vsrife.engine.devices import parse_device
from vsrife.engine.legacy import reachable
from vsrife.errors import OptionError
from vsrife.evaluation.baselines import BASELINES, Interpolator
from vsrife.evaluation.metrics import METRICS, Image8
from vsrife.evaluation.plots import plot_sets
from vsrife.evaluation.strips import method_row, write_strip
from vsrife.evaluation.tables import MEASURES, number, score_table, write_csv
from vsrife.images.panels import Panel
from vsrife.networks import legacy
from vsrife.networks.ifnet import IFNet

RANKING = ("psnr_db", "luma_psnr_db")  # what tells the worst cases


@dataclass(frozen=True, slots=True)
class Method:
    """One way to interpolate."""

    name: str
    interpolate: Interpolator
    fed: bool = False  # whether pictures are prepared as the authors' script of the set does

    def pictures(self, evalset: EvalSet, item: Item) -> Iterator[Image8]:
        """What the method shows at each time of the item's truths."""
        times = list(item.truths)
        if not self.fed:
            return self.interpolate(item.first, item.last, times)
        feeding = evalset.feeding(item.first)
        fed = self.interpolate(feeding.apply(item.first), feeding.apply(item.last), times)
        return (feeding.undo(picture, item.first) for picture in fed)


@dataclass(frozen=True, slots=True)
class Score:
    """What was measured on one rebuilt picture."""

    item: str
    group: str
    time: float
    values: Mapping[str, float]  # by measure

    @property
    def rank(self) -> float:
        return next(self.values[key] for key in RANKING if key in self.values)


Scores = dict[str, list[Score]]  # by method


# --- methods ----------------------------------------------------------------------------------------------------------


def engine_interpolator(model: str | None, options: Mapping[str, Any]) -> Interpolator:
    """The network as users get it."""

    def interpolate(first: Image8, last: Image8, times: Sequence[float]) -> Iterator[Image8]:
        return iter(vsrife.interpolate(first, last, list(times), model=model, **options))

    return interpolate


# Two pictures (1, 3, H, W) of 0..1 and a time between them, to the picture at that time.
Forward = Callable[[Tensor, Tensor, float], Tensor]


def published_interpolator(model: str | None, device: str | None, scale: float, ensemble: bool) -> Interpolator:
    """The network as its authors run it: everything at full resolution, float32, the whole picture as one blend."""
    weights, chosen = load_model(model), parse_device(device)
    if isinstance(weights, LegacyWeights):
        forward = _legacy_forward(weights, chosen, scale, ensemble)
    else:
        forward = _forward(weights, chosen, scale, ensemble)

    def tensor(picture: Image8) -> Tensor:
        return (torch.from_numpy(picture.transpose(2, 0, 1).copy()).to(chosen).float() / 255)[None]

    def interpolate(first: Image8, last: Image8, times: Sequence[float]) -> Iterator[Image8]:
        pair = tensor(first), tensor(last)
        for t in times:
            with torch.inference_mode():
                image = forward(*pair, t)[0]
            yield (image * 255).round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()

    return interpolate


def _forward(weights: IFNetWeights, device: torch.device, scale: float, ensemble: bool) -> Forward:
    if ensemble and not weights.layout.ensemble:
        raise OptionError(f"--ensemble needs a model up to 4.20, or 4.24, got {weights.name}; leave it out")
    net = IFNet(weights.layout)
    net.load_state_dict(dict(weights.tensors))
    net.eval().to(device)
    return lambda first, last, t: net(first, last, t, scale=scale, ensemble=ensemble).image


def _legacy_forward(weights: LegacyWeights, device: torch.device, scale: float, ensemble: bool) -> Forward:
    """Models before 4.x; a model that knows the middle alone is applied recursively, as in the authors' scripts."""
    if ensemble:
        raise OptionError(f"--ensemble needs a model of 4.x, got {weights.name}; leave it out")
    net = legacy.load(weights.layout, weights.tensors, scale=scale, device=device)

    def halved(first: Tensor, last: Tensor, t: float) -> Tensor:
        if t in (0, 1):
            return last if t else first
        middle: Tensor = net(first, last)
        if t == 0.5:
            return middle
        return halved(first, middle, 2 * t) if t < 0.5 else halved(middle, last, 2 * t - 1)

    def reached(first: Tensor, last: Tensor, t: float) -> Tensor:
        return halved(first, last, float(reachable(t)))

    return net if weights.layout.takes_time else reached


def chosen_methods(arguments: argparse.Namespace) -> list[Method]:
    """Models first, then the baselines."""
    published = arguments.forward == "published"
    methods = []
    models = list(dict.fromkeys(arguments.model or [None]))
    for name, model in zip(model_labels(models), models, strict=True):
        if published:
            run = published_interpolator(model, arguments.device, arguments.scale, arguments.ensemble)
        else:
            keys = ("scale", "ensemble", "device", "precision")
            run = engine_interpolator(model, {key: getattr(arguments, key) for key in keys})
        methods.append(Method(name, run, fed=published))
    return methods + [Method(name, BASELINES[name]) for name in arguments.baseline]


# --- scoring ----------------------------------------------------------------------------------------------------------


def evaluate(evalset: EvalSet, methods: Sequence[Method], measures: Sequence[str]) -> Scores:
    """Score every item with every method; one item is in memory at a time."""
    return {method.name: list(_scores(evalset, method, measures)) for method in methods}


def _scores(evalset: EvalSet, method: Method, measures: Sequence[str]) -> Iterator[Score]:
    for item in tqdm(evalset.items(), desc=f"{evalset.name}, {method.name}", leave=False, disable=None):
        for (time, truth), picture in zip(item.truths.items(), method.pictures(evalset, item), strict=True):
            values = {key: METRICS[key](picture, truth) for key in measures}
            yield Score(item.name, item.group, time, values)


def means(scores: Sequence[Score]) -> dict[str, float]:
    """The mean over groups of the mean in each group, of every measure."""
    groups: dict[str, list[Score]] = {}
    for score in scores:
        groups.setdefault(score.group, []).append(score)
    return {
        key: fmean(fmean(score.values[key] for score in group) for group in groups.values()) for key in scores[0].values
    }


def worst(scores: Sequence[Score], count: int) -> list[Score]:
    """The lowest scores, at most one for each item."""
    lowest: dict[str, Score] = {}
    for score in sorted(scores, key=lambda score: score.rank):
        lowest.setdefault(score.item, score)
    return list(lowest.values())[:count]


# --- what is written --------------------------------------------------------------------------------------------------


def text_table(evalset: EvalSet, scores: Scores) -> str:
    """The means of each method."""
    count = len(next(iter(scores.values())))
    published = f" (the paper's model, as published: {evalset.published})" if evalset.published else ""
    return f"{evalset.name}: {count} pictures{published}\n{score_table({name: means(s) for name, s in scores.items()})}"


def write_tables(folder: Path, results: Mapping[str, Scores]) -> None:
    """`scores.csv` with the means, `items.csv` with every picture."""
    head = ("set", "method", "pictures", *MEASURES)
    rows = (
        (name, method, len(scores), *_cells(means(scores)))
        for name, by_method in results.items()
        for method, scores in by_method.items()
    )
    write_csv(folder / "scores.csv", head, rows)
    items = (
        (name, method, score.item, f"{score.time:g}", *_cells(score.values))
        for name, by_method in results.items()
        for method, scores in by_method.items()
        for score in scores
    )
    write_csv(folder / "items.csv", ("set", "method", "item", "time", *MEASURES), items)


def _cells(values: Mapping[str, float]) -> list[str]:
    return [f"{values[key]:.6g}" if key in values else "" for key in MEASURES]


def write_plot(folder: Path, results: Mapping[str, Scores]) -> None:
    """`scores.png`: the means of every set and method."""
    table = {name: {method: means(scores) for method, scores in by.items()} for name, by in results.items()}
    used = {key for by_method in table.values() for values in by_method.values() for key in values}
    plot_sets(folder / "scores.png", table, [key for key in MEASURES if key in used and key != "ie"])


def write_strips(folder: Path, evalset: EvalSet, methods: Sequence[Method], scores: Scores, count: int) -> None:
    """For the worst cases of the first method, a strip of source, result, truth and error for each method."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = {case.item: case for case in worst(scores[methods[0].name], count)}
    for item in evalset.items():
        if item.name in cases:
            time = cases[item.name].time
            rows = [_strip_row(evalset, item, time, method, scores[method.name]) for method in methods]
            name = f"{evalset.name} {item.name} {time:g}".replace("/", "-").replace(" ", "_")
            write_strip(folder / f"{name}.png", rows)


def _strip_row(evalset: EvalSet, item: Item, time: float, method: Method, scores: Sequence[Score]) -> list[Panel]:
    picture = list(method.pictures(evalset, item))[list(item.truths).index(time)]
    score = next(score for score in scores if score.item == item.name and score.time == time)
    key = next(key for key in RANKING if key in score.values)
    return method_row(item.first, item.truths[time], f"{method.name}  {number(key, score.values[key])} dB", picture)


# --- the command ------------------------------------------------------------------------------------------------------


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Scores of weights on pictures")
    parser.add_argument(
        "paths", type=Path, nargs="*", metavar="PATH", help="triplets, videos or image folders, or folders of these"
    )
    parser.add_argument(
        "-m", "--model", action="append", help="version, weights file or folder; may be repeated [bundled]"
    )
    parser.add_argument(
        "-b",
        "--baseline",
        action="append",
        choices=[*BASELINES, "none"],
        help=f"may be repeated [{', '.join(BASELINES)}]",
    )
    parser.add_argument(
        "--forward", choices=("engine", "published"), default="engine", help="how networks are run [engine]"
    )
    parser.add_argument(
        "--authors", action="append", choices=[*AUTHORS_SETS, "all"], default=[], help="a set of RIFE's README"
    )
    parser.add_argument("--root", type=Path, default=Path(), help="folder that the authors' sets are in [.]")
    parser.add_argument(
        "--multi", type=int, action="append", choices=range(2, 17), help="of sequences; may be repeated [2, 4, 8]"
    )
    parser.add_argument("--limit", type=int, help="only the first items of each set")
    parser.add_argument("--no-perceptual", action="store_true", help="leave SSIMULACRA2 out")
    parser.add_argument("-o", "--output", type=Path, help="folder for scores.csv, items.csv, scores.png and strips")
    parser.add_argument("--worst", type=int, default=2, help="strips for each set, with --output [2]")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--ensemble", action="store_true")
    parser.add_argument("--device")
    parser.add_argument("--precision", help="of the engine: fp32, fp16, bf16 or int8")
    arguments = parser.parse_args(argv)
    if not arguments.paths and not arguments.authors:
        parser.error("nothing to evaluate; give a PATH or --authors")
    arguments.multi = arguments.multi or [2, 4, 8]
    arguments.baseline = [name for name in arguments.baseline or BASELINES if name != "none"]
    return arguments


def chosen_sets(arguments: argparse.Namespace) -> list[EvalSet]:
    """Those of the paths, then the authors'."""
    names = AUTHORS_SETS if "all" in arguments.authors else arguments.authors
    found = [s for path in arguments.paths for s in find_sets(path, arguments.multi)]
    found += [s for name in names for s in AUTHORS_SETS[name].open(arguments.root)]
    return [evalset.limited(arguments.limit) for evalset in found]


def perceptual_is_here() -> bool:
    """Whether SSIMULACRA2 can be computed."""
    if find_spec("vapoursynth") is None:
        return False
    import vapoursynth as vs

    return hasattr(vs.core, "vszip")


def run(arguments: argparse.Namespace) -> None:
    """Evaluate, print a table for each set as it is done, write the files."""
    perceptual = not arguments.no_perceptual
    if perceptual and not perceptual_is_here():
        perceptual = False
        print("SSIMULACRA2 is left out; for it: pip install vapoursynth-vszip", file=sys.stderr)
    sets, methods = chosen_sets(arguments), chosen_methods(arguments)
    results: dict[str, Scores] = {}
    print(f"networks run as: {arguments.forward}, scale {arguments.scale:g}")
    for evalset in sets:
        measures = [key for key in evalset.measures if perceptual or key != "ssimulacra2"]
        results[evalset.name] = evaluate(evalset, methods, measures)
        print(f"\n{text_table(evalset, results[evalset.name])}", flush=True)
        if arguments.output:
            write_strips(arguments.output / "strips", evalset, methods, results[evalset.name], arguments.worst)
            write_tables(arguments.output, results)
            write_plot(arguments.output, results)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    return exit_code(lambda: run(arguments), "evaluate")


if __name__ == "__main__":
    sys.exit(main())
