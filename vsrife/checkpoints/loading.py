"""Checked weights of any generation, ready to build a network from.

`load_model` returns `Weights`; whoever runs them calls `build` and need not know the generation:

    net = load_model("4.26").build(scale=1.0, ensemble=False, device=device, dtype=torch.float16)

The tensors tell the generation and the layout. The name of a file or folder does not matter, except for the parts of
older models, which are found by theirs: `contextnet` and `unet` beside `flownet`.
"""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import torch
from torch import Tensor

from vsrife.checkpoints import ncnn
from vsrife.checkpoints.finding import GRAPH_SUFFIX, PARTS, Spec, files_of, find_weights, part_path, remedy, spec_of
from vsrife.checkpoints.reading import StoredFile, read_file
from vsrife.checkpoints.recognition import (
    TEACHER_FAMILIES,
    describe_difference,
    recognise,
    recognise_legacy,
    refuse_part,
    some,
    title_of,
    used_alone,
    versions_of,
)
from vsrife.errors import OptionError, WeightsError
from vsrife.networks import legacy
from vsrife.networks.catalogue import Layout, LegacyLayout, LegacySpec, ModelSpec, Shape
from vsrife.networks.fold import FoldedNet, fold
from vsrife.networks.legacy import LegacyNet

Network = FoldedNet | LegacyNet


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights(abc.ABC):
    """The checked tensors of one model.

    Attributes:
        name: The version asked for, or the stem of the file or folder.
        path: Of the file or folder.
        layout: The catalogue's row that decides how it is run.
        tensors: float32 on the CPU, finite, exactly the layout's names without prefix.
        sha256: Of the file, or of all files together, in lower-case hex: the identity for caches.
    """

    name: str
    path: Path
    layout: Layout | LegacyLayout
    tensors: Mapping[str, Tensor]
    sha256: str

    @abc.abstractmethod
    def build(self, *, scale: float, ensemble: bool, device: torch.device, dtype: torch.dtype) -> Network:
        """Return the network that these weights are of, on a device.

        Args:
            scale: Flow scale, 0.25, 0.5, 1, 2 or 4.
            ensemble: Average with the pass in the other time direction.
            device: Where it runs.
            dtype: Of the convolutions; int8 is for 4.x alone.

        Raises:
            OptionError: The model does not support `ensemble` or `dtype`.
        """

    @abc.abstractmethod
    def check_ensemble(self) -> None:
        """Refuse a model that was not made to be run in both time directions and averaged.

        Raises:
            OptionError: It is a model before 4.x, or one with carried features.
        """

    def _refuse_ensemble(self, models: str) -> NoReturn:
        raise OptionError(
            f"ensemble must be False for models {models}, got True for {self.name}; leave it out, or take a model from "
            "4.0 to 4.20, or 4.24"
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IFNetWeights(Weights):
    """Weights of a 4.x layout."""

    layout: Layout

    def build(self, *, scale: float, ensemble: bool, device: torch.device, dtype: torch.dtype) -> FoldedNet:
        if ensemble:
            self.check_ensemble()
        return fold(self.layout, self.tensors, scale=scale, ensemble=ensemble, device=device, dtype=dtype)

    def check_ensemble(self) -> None:
        if not self.layout.ensemble:
            self._refuse_ensemble("with carried features")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LegacyWeights(Weights):
    """Weights of a model before 4.x."""

    layout: LegacyLayout

    def build(self, *, scale: float, ensemble: bool, device: torch.device, dtype: torch.dtype) -> LegacyNet:
        if ensemble:
            self.check_ensemble()
        if dtype == torch.int8:
            raise OptionError(
                f"precision must not be 'int8' for models before 4.x, got it for {self.name}; leave it out, or take a "
                "model of 4.x"
            )
        return legacy.load(self.layout, self.tensors, scale=scale, device=device, dtype=dtype)

    def check_ensemble(self) -> None:
        self._refuse_ensemble("before 4.x")


def load_model(model: str | Path | None = None) -> IFNetWeights | LegacyWeights:
    """Find, read and check the weights of `model`, of any generation.

    Args:
        model: As `finding.find_weights` takes it; None is the user's default.

    Raises:
        OptionError: `model` is neither a known version, nor the name of a model here, nor a path.
        WeightsError: Files are missing, damaged, of no known generation or of another one than the version's.
    """
    return read_model(find_weights(model), spec_of(model))


def read_model(path: Path, spec: Spec | None = None) -> IFNetWeights | LegacyWeights:
    """Read and check a file or a folder; with `spec`, it must have that version's layout.

    Raises:
        WeightsError: Files are missing, damaged, of no known generation or of another one than `spec`'s.
    """
    first, *others = files_of(path)
    layout: Layout | LegacyLayout | None
    if first.suffix == GRAPH_SUFFIX:
        stored, layout = ncnn.read(first)
    else:
        stored = read_file(first)
        layout = recognise_legacy(_shapes(stored.tensors))
        if isinstance(layout, LegacyLayout):
            stored = _with_parts(stored, layout, others)
        else:
            refuse_part(_shapes(stored.tensors), first)
    name = spec.name if spec else path.name if path.is_dir() else path.stem
    if isinstance(layout, LegacyLayout):
        return _check_legacy(stored, path, name, layout, spec)
    if isinstance(spec, LegacySpec):
        raise WeightsError(f"{path} is not {spec.name} ({spec.title}), got no model before 4.x; give the path alone")
    return _check_ifnet(stored, name, spec)


def read_ifnet(path: Path, spec: Spec | None = None) -> IFNetWeights:
    """Read and check a file or a folder that must be of a 4.x layout, as `read_model` does.

    Raises:
        WeightsError: As `read_model`; or it is a model before 4.x.
    """
    weights = read_model(path, spec)
    if not isinstance(weights, IFNetWeights):
        raise WeightsError(
            f"{path} is a model before 4.x, {title_of(weights.layout)}; only 4.x can be used here, give another model"
        )
    return weights


def _check_ifnet(stored: StoredFile, name: str, spec: ModelSpec | None) -> IFNetWeights:
    path = stored.path
    layout = recognise(_shapes(stored.tensors), path)
    if spec and layout.id != spec.layout.id:
        raise WeightsError(
            f"{path} is not {spec.name}, got the layout of {versions_of(layout)} where {spec.name} has "
            f"{spec.layout.id}; {remedy(path)}, or give the path instead of the version"
        )
    tensors = _to_float32(used_alone(stored.tensors, path), path)
    return IFNetWeights(name=name, path=path, layout=layout, tensors=tensors, sha256=stored.sha256)


def _check_legacy(stored: StoredFile, path: Path, name: str, layout: LegacyLayout, spec: Spec | None) -> LegacyWeights:
    shapes, expected = _shapes(stored.tensors), legacy.tensor_shapes(layout)
    if shapes != expected:
        difference = describe_difference(shapes, expected, f"{title_of(layout)} ({layout.id})")
        raise WeightsError(f"{path} fits no RIFE generation, {difference}; get the files again, all from one release")
    if spec is not None:
        if not isinstance(spec, LegacySpec) or legacy.tensor_shapes(spec.layout) != expected:
            raise WeightsError(
                f"{path} is not {spec.name}, got the tensors of {title_of(layout)}; give the path alone, or the right "
                "version"
            )
        layout = spec.layout  # two generations have the same tensors
    tensors = _to_float32(stored.tensors, path)
    return LegacyWeights(name=name, path=path, layout=layout, tensors=tensors, sha256=stored.sha256)


def _with_parts(stored: StoredFile, layout: LegacyLayout, files: Sequence[Path]) -> StoredFile:
    """Add the tensors of the other files, each under its part's name, unless the first file holds them itself."""
    tensors = {name: tensor for name, tensor in stored.tensors.items() if not name.startswith(TEACHER_FAMILIES)}
    if layout.refiner is None or any(name.startswith(tuple(PARTS)) for name in tensors):
        return StoredFile(stored.path, tensors, stored.sha256)
    absent = [file.name for part in PARTS if (file := part_path(stored.path, part)) not in files]
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


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _to_float32(tensors: Mapping[str, Tensor], path: Path) -> Mapping[str, Tensor]:
    """Convert to float32; a value that is not finite there is refused."""
    converted = {name: tensor.detach().to(torch.float32).contiguous() for name, tensor in tensors.items()}
    broken = [name for name, tensor in converted.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise WeightsError(f"{path} is damaged, got NaN or infinity in {some(broken)}; {remedy(path)}")
    return MappingProxyType(converted)
