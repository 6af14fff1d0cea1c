"""From names and shapes of tensors to the layout of the catalogue. Nothing else about a file matters.

A layout of 4.x is recognised strictly: nothing missing, nothing of another shape, nothing unknown except the parts that
only training uses. A model before 4.x is recognised by its flow network first, because its parts lie in several files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from vsrife.checkpoints.finding import PARTS, remedy
from vsrife.errors import WeightsError
from vsrife.networks.catalogue import LAYOUTS, LEGACY_LAYOUTS, LEGACY_MODELS, MODELS, Layout, LegacyLayout, Shape

logger = logging.getLogger(__name__)

type Shapes = Mapping[str, Shape]

# Parts of published 4.x files that only training uses: refiners of older generations, teachers, time calibration.
UNUSED_FAMILIES = ("contextnet.", "unet.", "block_tea.", "teacher.", "caltime.")
TEACHER_FAMILIES = ("block_tea.", "teacher.")  # those of them that files before 4.x hold

_FLOW_FAMILY = "block"
_LIKELY = 0.5  # share of common tensors from which on a file is taken for a damaged one of that generation
_NAMES_SHOWN = 4


def recognise(shapes: Shapes, path: Path) -> Layout:
    """Return the 4.x layout whose names and shapes are exactly `shapes`, without training's parts.

    Args:
        shapes: Of all tensors, by name.
        path: Where they come from; named in the error.

    Raises:
        WeightsError: No layout fits; the text compares with the nearest one.
    """
    shapes = used_alone(shapes, path)

    def distance(layout: Layout) -> int:
        return len(layout.tensor_shapes().items() ^ shapes.items())

    nearest = min(LAYOUTS.values(), key=distance)
    if distance(nearest) == 0:
        return nearest
    more = shapes.keys() - nearest.tensor_shapes().keys()
    if distance(nearest) == len(more):  # nothing missing, nothing of another shape
        raise WeightsError(
            f"{path} fits no RIFE 4.x layout, got all tensors of {versions_of(nearest)} and {len(more)} that no known "
            f"version has, {some([name for name in shapes if name in more])}; it may be of a newer version: update "
            f"vsrife, or save it without them"
        )
    difference = describe_difference(shapes, nearest.tensor_shapes(), versions_of(nearest))
    raise WeightsError(f"{path} fits no RIFE 4.x layout, {difference}; {remedy(path)}")


def recognise_legacy(shapes: Shapes) -> LegacyLayout | None:
    """Return the generation before 4.x whose flow network has the most of these tensors; None if 4.x has more.

    None as well where no generation has half of them. Two generations of the paper's model have the same tensors: the
    first of them is returned.
    """
    flow = _flow_items(shapes)
    if any(flow == _flow_items(layout.tensor_shapes()) for layout in LAYOUTS.values()):
        return None
    legacy_shapes = _legacy_shapes()

    def likeness(expected: Shapes) -> float:
        wanted = _flow_items(expected)
        return len(flow & wanted) / max(1, len(flow | wanted))

    best = max(LEGACY_LAYOUTS.values(), key=lambda layout: likeness(legacy_shapes(layout)))
    highest = likeness(legacy_shapes(best))
    if highest < _LIKELY or any(likeness(layout.tensor_shapes()) > highest for layout in LAYOUTS.values()):
        return None
    return best


def refuse_part(shapes: Shapes, path: Path) -> None:
    """Refuse a part of a model before 4.x that was given for the whole.

    Raises:
        WeightsError: `shapes` are those of a contextnet or unet.
    """
    legacy_shapes = _legacy_shapes()
    for layout in LEGACY_LAYOUTS.values():
        whole = legacy_shapes(layout).items()
        for part in PARTS:
            named = {f"{part}.{name}": shape for name, shape in shapes.items()}
            if named and named.items() <= whole:
                raise WeightsError(
                    f"{path} is a {part} of {title_of(layout)} alone; give the flownet file, or the folder of all files"
                )


def used_alone[T](tensors: Mapping[str, T], path: Path) -> dict[str, T]:
    """Return the tensors, or whatever stands for them, without the parts that 4.x uses in training alone."""
    dropped = [name for name in tensors if name.startswith(UNUSED_FAMILIES)]
    if dropped:
        logger.debug("%s: dropped %d tensors that only training uses: %s", path.name, len(dropped), some(dropped))
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED_FAMILIES)}


def describe_difference(shapes: Shapes, expected: Shapes, nearest: str) -> str:
    """Return in words how `shapes` differs from the `expected` shapes of the layout called `nearest`."""
    if not expected.keys() & shapes.keys():
        return f"got {len(shapes)} tensors ({some(shapes)}); expected names such as {some(list(expected)[:2])}"
    wrong = [
        f"{name} {_text(shapes[name])} instead of {_text(expected[name])}"
        for name in expected
        if name in shapes and shapes[name] != expected[name]
    ]
    missing = [f"{name} {_text(shape)}" for name, shape in expected.items() if name not in shapes]
    unknown = [f"{name} {_text(shape)}" for name, shape in shapes.items() if name not in expected]
    groups = {"other shapes": wrong, "missing": missing, "unknown": unknown}
    parts = [f"{group}: {some(names)}" for group, names in groups.items() if names]
    return f"nearest is that of {nearest}, but got {'; '.join(parts)}"


def versions_of(layout: Layout) -> str:
    """Return the versions of a 4.x layout, and its id."""
    names = [spec.name for spec in MODELS.values() if spec.layout.id == layout.id]
    return f"{', '.join(names) or 'our own models'} ({layout.id})"


def title_of(layout: LegacyLayout) -> str:
    """Return the versions of a generation before 4.x, and what people call it."""
    specs = [spec for spec in LEGACY_MODELS.values() if spec.layout.id == layout.id]
    return f"{', '.join(spec.name for spec in specs)} ({specs[0].title})"


def some(names: Collection[str]) -> str:
    """Return the first few of many names."""
    shown = ", ".join(list(names)[:_NAMES_SHOWN]) or "none"
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _legacy_shapes() -> Callable[[LegacyLayout], dict[str, Shape]]:
    from vsrife.networks.legacy import tensor_shapes  # here: it imports torch, which 4.x layouts do without

    return tensor_shapes


def _flow_items(shapes: Shapes) -> set[tuple[str, Shape]]:
    return {
        (name, shape)
        for name, shape in shapes.items()
        if name.startswith(_FLOW_FAMILY) and not name.startswith(TEACHER_FAMILIES)
    }


def _text(shape: Shape) -> str:
    return "×".join(str(side) for side in shape) or "scalar"
