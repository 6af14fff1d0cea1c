"""Installed models: list, verify, import, remove, and which one is the default.

Bundled models are in the package. Downloaded and imported ones are in `model_directory()`, each with its SHA-256 beside
it, which every load checks. Nothing here imports torch before a model's tensors are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from vsrife.checkpoints import finding
from vsrife.checkpoints.finding import (
    DEFAULT_FILE,
    DIRECTORY_VARIABLE,
    DOWNLOADABLE,
    SCALE_SUFFIX,
    SUFFIXES,
    Spec,
    default_model,
    files_of,
    find_weights,
    installed_names,
    is_model_folder,
    model_directory,
    sidecar_path,
    spec_named,
    spec_of,
)
from vsrife.checkpoints.recognition import recognise
from vsrife.errors import OptionError, RifeError, WeightsError, shown
from vsrife.files import atomic_write, file_lock
from vsrife.networks.catalogue import BUNDLED_DEFAULT, ModelSpec

if TYPE_CHECKING:
    from vsrife.checkpoints.loading import Weights

Kind = Literal["bundled", "published", "imported"]

# Stems that say nothing about which model a file holds.
_GENERIC_NAMES = {
    "flownet", "model", "models", "weights", "checkpoint", "checkpoints", "best", "last", "latest", "final", "rife",
    "default", "train_log",
}  # fmt: skip
_VERSION_IN_NAME = re.compile(r"(?:flownet|rife)[-_. ]*v?(\d+\.\d+(?:[-_.](?:lite|heavy))?)(?![\d.])", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_HEADER_BYTES = 2**20  # of a safetensors file; those of the models take at most 100 kB


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model by the name that `model=` takes.

    Attributes:
        name: Of the model.
        kind: Where it comes from.
        path: Of its file or folder; None where a published version has not been downloaded.
        spec: The catalogue's row of a version.
        licence: In a few words.
        recorded: The SHA-256 that the file must have, where one is recorded.
    """

    name: str
    kind: Kind
    path: Path | None
    spec: Spec | None = None
    licence: str
    recorded: str | None = None

    @property
    def is_default(self) -> bool:
        """Whether it is what `model=None` means for this user."""
        try:
            return self.path is not None and self.path == find_weights(None)
        except RifeError:
            return False

    def summary(self) -> tuple[str, int | None]:
        """Return the layout that it has, or has to have, and its number of parameters where that is known.

        Raises:
            WeightsError: The file is damaged.
        """
        if isinstance(self.spec, ModelSpec):
            return self.spec.layout.id, self.spec.layout.parameters()
        if self.path is None:
            assert self.spec is not None
            return self.spec.layout.id, None
        if self.path.suffix.lower() == ".safetensors" and self.spec is None:
            with contextlib.suppress(WeightsError):  # reading all of it tells what is wrong
                layout = recognise(_header_shapes(self.path), self.path)
                return layout.id, layout.parameters()
        weights = verify(self)
        return weights.layout.id, sum(tensor.numel() for tensor in weights.tensors.values())

    def size_bytes(self) -> int:
        """Return the size of its files."""
        assert self.path is not None
        files = self.path.iterdir() if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files)


def stored_models() -> list[StoredModel]:
    """Return the bundled models, the bundled default first; all that can be downloaded; what was imported."""
    names = dict.fromkeys([BUNDLED_DEFAULT, *installed_names()])
    others = [_named(name) for name in names if name not in DOWNLOADABLE]
    bundled = [model for model in others if model.kind == "bundled"]
    imported = [model for model in others if model.kind == "imported"]
    return bundled + [_published(spec) for spec in DOWNLOADABLE.values()] + imported


def stored_model(name: str) -> StoredModel:
    """Return the model of that name; "default" is the user's default.

    Raises:
        OptionError: There is no such name.
    """
    if name == "default":
        name = default_model().name
    spec = spec_of(name)
    return _published(spec) if spec and spec.name in DOWNLOADABLE else _named(name)


def verify(model: StoredModel) -> Weights:
    """Read a model, check its SHA-256 against the recorded one and its tensors against its layout.

    Raises:
        WeightsError: It is missing or not as it has to be.
    """
    from vsrife.checkpoints.loading import read_model  # here: it imports torch

    weights = read_model(model.path or find_weights(model.name), model.spec)
    if model.recorded and weights.sha256 != model.recorded:
        raise WeightsError(
            f"{weights.path} is not the file that was released, got SHA-256 {weights.sha256[:12]}… where "
            f"{model.recorded[:12]}… is recorded; reinstall vsrife"
        )
    return weights


def remove(model: StoredModel) -> Path:
    """Delete a downloaded or imported model and its record; return the path that was deleted.

    Raises:
        OptionError: It is part of the package.
        WeightsError: It is missing or cannot be deleted.
    """
    if model.path is None:
        raise WeightsError(f"{model.name} is not here, got no file in {model_directory()}; nothing to remove")
    if model.path.parent != model_directory():
        raise OptionError(f"only downloaded and imported models can be removed, got {model.name} at {model.path}")
    try:
        if model.path.is_dir():
            shutil.rmtree(model.path)
        else:
            model.path.unlink()
        sidecar_path(model.path).unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(f"{model.path} cannot be removed, got {error.strerror or error}") from error
    return model.path


def set_default(model: str) -> Path:
    """Record `model` as what `model=None` means for this user; return the path of its weights.

    Args:
        model: As `find_weights` takes it; a path is recorded in full. The bundled default deletes the record.

    Raises:
        OptionError: There is no such name.
        WeightsError: The model is missing, or the record cannot be written.
    """
    model = BUNDLED_DEFAULT if model == "default" else model
    path = find_weights(model)
    record = model_directory() / DEFAULT_FILE
    with writing_to_store(record, "another import or download"):
        if model == BUNDLED_DEFAULT:
            record.unlink(missing_ok=True)
        else:
            is_name = spec_of(model) is not None or model in installed_names()
            with atomic_write(record) as part:
                part.write_text(f"{model if is_name else path.absolute()}\n", encoding="utf-8")
    return path


# --- import -----------------------------------------------------------------------------------------------------------


def import_model(source: Path, name: str | None = None, *, force: bool = False) -> StoredModel:
    """Check a model from elsewhere and copy it into `model_directory()`.

    One weights file is copied as it is. A model of several files, or of ncnn, becomes one safetensors file.

    Args:
        source: A weights file, a `flownet.param` of ncnn, or a folder that holds a model, such as `train_log`.
        name: What to call it. None: the version or the name in the file's or folder's name.
        force: Replace a model of that name.

    Raises:
        OptionError: The name is missing or cannot be taken.
        WeightsError: It is no usable model, or one of that name exists.
    """
    from vsrife.checkpoints.loading import read_model  # here: it imports torch

    path = _model_path(source)
    name = _name_for(path) if name is None else name.strip()
    spec = _checked_name(name)
    weights = read_model(path, spec)
    files = files_of(path)
    single = len(files) == 1 and files[0].suffix.lower() in SUFFIXES
    data = _unchanged(files[0], weights) if single else joined(weights)
    stem = Path(spec.filename).stem if spec else name
    target = model_directory() / f"{stem}{files[0].suffix.lower() if single else '.safetensors'}"
    sha256 = hashlib.sha256(data).hexdigest()
    with writing_to_store(target, "another import or download"):
        _refuse_replacing(target, sha256, force)
        install(target, sha256, lambda part: part.write_bytes(data))
    return stored_model(name)


def joined(weights: Weights) -> bytes:
    """Return the tensors as one safetensors file, in half precision where that keeps every value."""
    import safetensors.torch  # here: they import torch
    import torch

    halves = {name: tensor.to(torch.float16) for name, tensor in weights.tensors.items()}
    exact = all(torch.equal(halves[name].to(torch.float32), tensor) for name, tensor in weights.tensors.items())
    stored = halves if exact else dict(weights.tensors)
    return safetensors.torch.save(stored, metadata={"layout": weights.layout.id, "source_sha256": weights.sha256})


def _unchanged(file: Path, weights: Weights) -> bytes:
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != weights.sha256:
        raise WeightsError(f"{file} changed while it was read; try again when it is complete")
    return data


def _model_path(source: Path) -> Path:
    """Return the file or folder that `source` stands for.

    Raises:
        WeightsError: It holds no model, or more than one.
    """
    if not source.exists():
        raise WeightsError(f"{source} does not exist; give a weights file or a folder such as train_log")
    if not source.is_dir():
        return source.with_suffix(".param") if source.suffix.lower() == ".bin" else source
    folders = [folder for folder in (source, source / "train_log") if folder.is_dir()]
    for folder in folders:
        if is_model_folder(folder):
            return folder
    files = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    if len(files) != 1:
        got = ", ".join(path.name for path in files) or "no weights file"
        raise WeightsError(f"{source} must hold one model, got {got}; give the path of the file")
    return files[0]


def _name_for(path: Path) -> str:
    """Return the version in the name of a file, its folder or the one above, or else the file's own name.

    Raises:
        OptionError: None of them says anything.
    """
    absolute = path.absolute()
    name = path.stem if path.is_file() else absolute.name
    for part in (name, absolute.parent.name, absolute.parent.parent.name):
        match = _VERSION_IN_NAME.search(part)
        if match and (spec := spec_named(re.sub("[-_]", ".", match[1]))):
            return spec.name
    if name.lower() in _GENERIC_NAMES:
        raise OptionError(f"which model {path} holds cannot be known, got no version in its name; add --name NAME")
    return name


def _checked_name(name: str) -> Spec | None:
    """Return the version that a name stands for; None for a new name.

    Raises:
        OptionError: It cannot be the name of a model here.
    """
    spec = spec_named(name)
    if spec:
        return spec
    if not _NAME.fullmatch(name) or name.lower().endswith(SUFFIXES) or name.lower() in _GENERIC_NAMES:
        raise OptionError(
            f"the name must be a version or letters, digits, '.', '_', '+', '-' and blanks, got {shown(name)}; "
            f"give one such as my-run"
        )
    if any((finding.package_directory() / f"{name}{suffix}").is_file() for suffix in SUFFIXES):
        raise OptionError(f"the name of a bundled model cannot be taken, got {name!r}; give another one with --name")
    return None


def _refuse_replacing(target: Path, sha256: str, force: bool) -> None:
    folder = target.with_name(target.name.removesuffix(target.suffix))
    if folder.is_dir():
        raise WeightsError(f"{folder} is here already, got a folder of that name; remove it first")
    others = [path for path in _variants(target) if path.is_file()]
    if others and not force and hashlib.sha256(others[0].read_bytes()).hexdigest() != sha256:
        raise WeightsError(f"{others[0]} is here already, got another file; replace it with --force")


# --- files ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing_to_store(target: Path, holder: str) -> Iterator[None]:
    """Create the folder of `target` and hold its lock; what fails on disk inside is raised as a `WeightsError`.

    Args:
        target: The file that is about to be written.
        holder: Who else may hold the lock, for the message while waiting.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(target.parent / ".lock", holder):
            yield
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(
            f"{target} cannot be written, got {error.strerror or error}; make room or choose another directory "
            f"with {DIRECTORY_VARIABLE}"
        ) from error


def install(target: Path, sha256: str, write: Callable[[Path], object]) -> None:
    """Put a checked file under its final name, and record its SHA-256 beside it.

    Args:
        target: The final path; a file there is replaced, and so are files of the same stem with another suffix.
        sha256: Of the file.
        write: Writes the file to the path it is given.
    """
    with atomic_write(target, durable=True) as part:
        write(part)
        for other in _variants(target):  # before the rename, so that no moment has the new file with the old hash
            sidecar_path(other).unlink(missing_ok=True)
            if other != target:
                other.unlink(missing_ok=True)
    with atomic_write(sidecar_path(target)) as part:
        part.write_text(f"{sha256}  {target.name}\n", encoding="utf-8", newline="\n")


def _variants(target: Path) -> list[Path]:
    """Return the files that `model=` finds under the same name."""
    stem = target.name.removesuffix(target.suffix)
    return [target.with_name(f"{stem}{suffix}") for suffix in SUFFIXES]


# --- what is known without reading a model ----------------------------------------------------------------------------


def _published(spec: Spec) -> StoredModel:
    try:
        path = find_weights(spec.name)
    except WeightsError:
        path = None
    return StoredModel(name=spec.name, kind="published", path=path, spec=spec, licence="its authors' terms")


def _named(name: str) -> StoredModel:
    """Return a bundled or imported model."""
    package = finding.package_directory()
    path = package / f"{BUNDLED_DEFAULT}.safetensors" if name == BUNDLED_DEFAULT else find_weights(name)
    if path.parent != package:
        spec = spec_of(name)
        licence = "its authors' terms" if spec else "not known"
        return StoredModel(name=name, kind="imported", path=path, spec=spec, licence=licence)
    licence, recorded = _attribution(path)
    return StoredModel(name=name, kind="bundled", path=path, licence=licence, recorded=recorded)


def _attribution(path: Path) -> tuple[str, str | None]:
    """Return licence and SHA-256 of a bundled file, from its row in ATTRIBUTION.md."""
    try:
        text = (path.parent / "ATTRIBUTION.md").read_text(encoding="utf-8")
    except OSError:
        return "not known", None
    row = next((line for line in text.splitlines() if line.startswith(f"| `{path.name}`")), "")
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    if len(cells) != 3:
        return "not known", None
    sha256 = _SHA256.search(cells[2])
    return cells[1].partition(",")[0], sha256[0] if sha256 else None


def _header_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a safetensors file from its header alone, which needs no torch.

    Raises:
        WeightsError: It has no usable header.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size if size <= _MAX_HEADER_BYTES else 0))
        return {
            name: tuple(entry["shape"])
            for name, entry in header.items()
            if name != "__metadata__" and not name.endswith(SCALE_SUFFIX)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} has no safetensors header, got {error!r}; get the file again") from error
