"""Weights of any generation: 4.x and older, one file or several, of PyTorch or of ncnn.

The tensors tell the generation, as they tell the layout of a 4.x file. Nothing about a file's or folder's name matters,
but for the parts of older models, which are found by theirs: `contextnet` and `unet` beside `flownet`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from vsrife.checkpoints import ncnn
from vsrife.checkpoints.weights import (
    SUFFIXES,
    StoredFile,
    Weights,
    check_weights,
    describe_difference,
    find_weights,
    named_version,
    read_file,
    split_legacy,
    to_float32,
)
from vsrife.errors import WeightsError
from vsrife.networks.catalogue import (
    LAYOUTS,
    LEGACY_LAYOUTS,
    LEGACY_MODELS,
    LegacyLayout,
    LegacySpec,
    ModelSpec,
    Shape,
)

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("contextnet", "unet")  # of HD v1 to v3, in files of their own
_TRAINING_FAMILIES = ("block_tea.", "teacher.")
_FLOW_FAMILY = "block"
_LIKELY = 0.5  # share of common tensors from which on a file is taken for a damaged one of that generation


@dataclass(frozen=True, slots=True, eq=False)
class LegacyWeights:
    """The checked contents of the files of a model before 4.x."""

    name: str  # the version asked for, or the stem of the file or folder
    path: Path
    layout: LegacyLayout
    tensors: Mapping[str, Tensor]  # float32 on the CPU, finite, exactly the names of `legacy.tensor_shapes`
    sha256: str  # of all files together, in lower-case hex: their identity for caches


AnyWeights = Weights | LegacyWeights


def load_model(model: str | Path | None = None) -> AnyWeights:
    """Find, read and check the weights of `model`, of any generation.

    Args:
        model: A version such as "4.26" or "2.3", the name of an installed model, the path of a weights file or of a
            folder, "RIFE_2R:path" for weights whose tensors do not tell the generation, or None for the bundled ones.

    Raises:
        OptionError: `model` is neither a known version, nor an installed name, nor a path.
        WeightsError: files are missing, damaged, of no known generation or of another one than the version's.
    """
    return read_model(find_weights(model), named_version(model) or split_legacy(model)[0])


def read_model(path: Path, spec: ModelSpec | LegacySpec | None = None) -> AnyWeights:
    """Read and check a file or a folder; with `spec`, it must be of that version's layout.

    Raises:
        WeightsError: files are missing, damaged, of no known generation or of another one than `spec`'s.
    """
    first, *others = files_of(path)
    if first.suffix == ncnn.SUFFIX:
        stored, layout = ncnn.read(first)
    else:
        stored, layout = read_file(first), None
        layout = recognise_legacy(_shapes(stored.tensors))
        if layout is None:
            _refuse_part(stored)
    if not isinstance(layout, LegacyLayout):
        if isinstance(spec, LegacySpec):
            raise WeightsError(
                f"{path} is not {spec.name} ({spec.title}), got no model before 4.x; give the path alone"
            )
        weights = check_weights(stored, spec)
        return replace(weights, name=path.name) if path.is_dir() and spec is None else weights
    if first.suffix != ncnn.SUFFIX:
        stored = _with_parts(stored, layout, others)
    return _check_legacy(stored, path, layout, spec)


def files_of(path: Path) -> list[Path]:
    """The files that a model is read from: the flow network's first, then the others that lie beside it.

    Args:
        path: as `find_weights` gives it.
    """
    if path.is_dir():
        names = [f"flownet{suffix}" for suffix in (*SUFFIXES, ncnn.SUFFIX)]  # a graph's data are rounded
        path = next(file for name in names if (file := path / name).is_file())
    if path.suffix == ncnn.SUFFIX:
        return [path, *ncnn.companions(path)]
    return [path, *(file for part in PARTS if (file := _part_file(path, part)).is_file())]


def recognise_legacy(shapes: Mapping[str, Shape]) -> LegacyLayout | None:
    """The generation before 4.x whose flow network has the most of these tensors; None if 4.x has more, or none many.

    Two generations of the paper's model have the same tensors: the first of them is given.
    """
    from vsrife.networks.legacy import tensor_shapes  # imports torch

    flow = _flow_items(shapes)
    if any(flow == _flow_items(layout.tensor_shapes()) for layout in LAYOUTS.values()):
        return None

    def likeness(expected: Mapping[str, Shape]) -> float:
        wanted = _flow_items(expected)
        return len(flow & wanted) / max(1, len(flow | wanted))

    best = max(LEGACY_LAYOUTS.values(), key=lambda layout: likeness(tensor_shapes(layout)))
    found = likeness(tensor_shapes(best))
    if found < _LIKELY or any(likeness(layout.tensor_shapes()) > found for layout in LAYOUTS.values()):
        return None
    return best


def title_of(layout: LegacyLayout) -> str:
    """What people call the versions of a generation."""
    specs = [spec for spec in LEGACY_MODELS.values() if spec.layout.id == layout.id]
    return f"{', '.join(spec.name for spec in specs)} ({specs[0].title})"


def _flow_items(shapes: Mapping[str, Shape]) -> set[tuple[str, Shape]]:
    return {
        (name, shape)
        for name, shape in shapes.items()
        if name.startswith(_FLOW_FAMILY) and not name.startswith(_TRAINING_FAMILIES)
    }


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _refuse_part(stored: StoredFile) -> None:
    """Tell a part of an older model that was given for the whole."""
    from vsrife.networks.legacy import tensor_shapes  # imports torch

    for layout in LEGACY_LAYOUTS.values():
        whole = tensor_shapes(layout).items()
        for part in PARTS:
            named = {f"{part}.{name}": shape for name, shape in _shapes(stored.tensors).items()}
            if named and named.items() <= whole:
                raise WeightsError(
                    f"{stored.path} is a {part} of {title_of(layout)} alone; give the flownet file, or the folder of "
                    "all files"
                )


def _part_file(flow_file: Path, part: str) -> Path:
    """Where the file of a part lies: "flownet" in the name of the flow network's file becomes its name."""
    name = flow_file.name.replace("flownet", part) if "flownet" in flow_file.name else f"{part}{flow_file.suffix}"
    return flow_file.with_name(name)


def _with_parts(stored: StoredFile, layout: LegacyLayout, files: Sequence[Path]) -> StoredFile:
    """The file with the tensors of its parts, each under the part's name, where it does not hold them itself."""
    tensors = {name: tensor for name, tensor in stored.tensors.items() if not name.startswith(_TRAINING_FAMILIES)}
    if layout.refiner is None or any(name.startswith(PARTS) for name in tensors):
        return StoredFile(stored.path, tensors, stored.sha256)
    absent = [file.name for part in PARTS if (file := _part_file(stored.path, part)) not in files]
    if absent:
        raise WeightsError(
            f"{stored.path} is the flow network of {title_of(layout)}, got no {' and no '.join(absent)} beside it; "
            "put all files of the release into one folder"
        )
    digests = [stored.sha256]
    for part, file in zip(PARTS, files, strict=True):
        more = read_file(file)
        tensors |= {f"{part}.{name}": tensor for name, tensor in more.tensors.items()}
        digests.append(more.sha256)
    return StoredFile(stored.path, tensors, hashlib.sha256("".join(digests).encode()).hexdigest())


def _check_legacy(
    stored: StoredFile, path: Path, layout: LegacyLayout, spec: ModelSpec | LegacySpec | None
) -> LegacyWeights:
    from vsrife.networks.legacy import tensor_shapes  # imports torch

    shapes, expected = _shapes(stored.tensors), tensor_shapes(layout)
    if shapes != expected:
        difference = describe_difference(shapes, expected, f"{title_of(layout)} ({layout.id})")
        raise WeightsError(f"{path} fits no RIFE generation, {difference}; get the files again, all from one release")
    if spec is not None:
        if not isinstance(spec, LegacySpec) or tensor_shapes(spec.layout) != expected:
            raise WeightsError(
                f"{path} is not {spec.name}, got the tensors of {title_of(layout)}; give the path alone, or the right "
                "version"
            )
        layout = spec.layout
    return LegacyWeights(
        name=spec.name if spec else path.name if path.is_dir() else path.stem,
        path=path,
        layout=layout,
        tensors=MappingProxyType(to_float32(stored.tensors, path)),
        sha256=stored.sha256,
    )
