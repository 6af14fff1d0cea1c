"""The models that are here: what they are, whether they are whole, how they come and go.

Bundled models lie in the package. Downloaded and imported ones lie in `model_directory()`, each with its SHA-256 beside
it, which every load checks. Nothing here imports torch before a model's tensors are read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from vsrife.checkpoints.weights import (
    SUFFIXES,
    find_weights,
    installed_names,
    is_model_folder,
    match_layout,
    model_directory,
    named_version,
    package_directory,
    sidecar_path,
    split_legacy,
)
from vsrife.errors import OptionError, WeightsError
from vsrife.networks.catalogue import DEFAULT_WEIGHTS, LEGACY_MODELS, MODELS, LegacySpec, ModelSpec

if TYPE_CHECKING:
    from vsrife.checkpoints.loading import AnyWeights

Kind = Literal["bundled", "published", "imported"]

# Stems that say nothing about which model a file holds.
_NO_NAMES = {
    "flownet", "model", "models", "weights", "checkpoint", "checkpoints", "best", "last", "latest", "final", "rife",
    "default", "train_log",
}  # fmt: skip
_VERSION_IN_NAME = re.compile(r"(?:flownet|rife)[-_. ]*v?(\d+\.\d+(?:[-_.](?:lite|heavy))?)(?![\d.])", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A model by the name that `model=` takes.

    Attributes:
        name: of the model.
        kind: where it comes from.
        path: of its file or folder; None where a published version has not been downloaded.
        spec: the catalogue's row of a version.
        licence: in a few words.
        recorded: SHA-256 that the file has to have, where one is recorded.
    """

    name: str
    kind: Kind
    path: Path | None
    spec: ModelSpec | LegacySpec | None = None
    licence: str
    recorded: str | None = None

    @property
    def is_default(self) -> bool:
        return self.path == package_directory() / DEFAULT_WEIGHTS

    def summary(self) -> tuple[str, int]:
        """The layout that it has, or has to have, and its number of parameters.

        Raises:
            WeightsError: the file is damaged.
        """
        if isinstance(self.spec, ModelSpec):
            return self.spec.layout.id, self.spec.layout.parameters()
        assert self.path is not None
        if self.path.suffix.lower() == ".safetensors" and self.spec is None and (known := _header_summary(self.path)):
            return known
        weights = verify(self)
        return weights.layout.id, sum(tensor.numel() for tensor in weights.tensors.values())

    def size_bytes(self) -> int:
        """Of its files."""
        assert self.path is not None
        files = self.path.iterdir() if self.path.is_dir() else [self.path]
        return sum(file.stat().st_size for file in files)


def stored_models() -> list[StoredModel]:
    """The bundled models, the default first; every published version, here or not; what was imported."""
    names = {Path(DEFAULT_WEIGHTS).stem: None} | dict.fromkeys(installed_names())
    others = [_named(name) for name in names]
    bundled = [model for model in others if model.kind == "bundled"]
    imported = [model for model in others if model.kind == "imported"]
    return bundled + [_published(spec) for spec in MODELS.values()] + imported


def stored_model(name: str) -> StoredModel:
    """The model of that name.

    Raises:
        OptionError: there is no such name.
    """
    if name == "default":
        return _named(Path(DEFAULT_WEIGHTS).stem)
    spec = named_version(name)
    return _published(spec) if spec else _named(name)


def verify(model: StoredModel) -> AnyWeights:
    """Read a model, check its SHA-256 against the recorded one and its tensors against its layout.

    Raises:
        WeightsError: it is not here or not as it has to be.
    """
    from vsrife.checkpoints.loading import read_model

    weights = read_model(model.path or find_weights(model.name), model.spec)
    if model.recorded and weights.sha256 != model.recorded:
        raise WeightsError(
            f"{weights.path} is not the file that was released, got SHA-256 {weights.sha256[:12]}… where "
            f"{model.recorded[:12]}… is recorded; reinstall vsrife"
        )
    return weights


def remove(model: StoredModel) -> Path:
    """Delete a downloaded or imported model and its record; gives the path that is gone.

    Raises:
        OptionError: it is part of the package.
        WeightsError: it is not here, or cannot be deleted.
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


# --- import -----------------------------------------------------------------------------------------------------------


def import_model(source: Path, name: str | None = None, *, force: bool = False) -> StoredModel:
    """Check a model from elsewhere and copy it into `model_directory()`.

    One weights file is copied as it is. What is spread over several, or is of ncnn, becomes one safetensors file.

    Args:
        source: a weights file, a `flownet.param` of ncnn, or a folder that holds a model, such as `train_log`.
        name: to call it by. None: the version or the name in the file's or folder's name.
        force: replace a model of that name.

    Raises:
        OptionError: the name is missing or cannot be taken.
        WeightsError: it is no usable model, or one of that name is here.
    """
    from vsrife.checkpoints.loading import files_of, read_model

    path = _model_path(source)
    name = _name_for(path) if name is None else name.strip()
    spec = _checked_name(name)
    weights = read_model(path, spec)
    files = files_of(path)
    single = len(files) == 1 and files[0].suffix.lower() in SUFFIXES
    data = _unchanged(files[0], weights) if single else joined(weights)
    stem = Path(spec.filename).stem if isinstance(spec, ModelSpec) else spec.name if spec else name
    target = model_directory() / f"{stem}{files[0].suffix.lower() if single else '.safetensors'}"
    sha256 = hashlib.sha256(data).hexdigest()
    with writing(target), locked(target.parent, "another import or download"):
        _refuse_replacing(target, sha256, force)
        part = target.with_name(f"{target.name}.part")
        part.write_bytes(data)
        install(part, target, sha256)
    return stored_model(name)


def joined(weights: AnyWeights) -> bytes:
    """The tensors as one safetensors file, in half precision where that keeps every value."""
    import safetensors.torch
    import torch

    halves = {name: tensor.to(torch.float16) for name, tensor in weights.tensors.items()}
    exact = all(torch.equal(halves[name].to(torch.float32), tensor) for name, tensor in weights.tensors.items())
    stored = halves if exact else dict(weights.tensors)
    return safetensors.torch.save(stored, metadata={"layout": weights.layout.id, "source_sha256": weights.sha256})


def _unchanged(file: Path, weights: AnyWeights) -> bytes:
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != weights.sha256:
        raise WeightsError(f"{file} changed while it was read; try again when it is complete")
    return data


def _model_path(source: Path) -> Path:
    """The file or folder that `source` means.

    Raises:
        WeightsError: there is no model, or more than one.
    """
    if not source.exists():
        raise WeightsError(f"{source} does not exist; give a weights file or a folder such as train_log")
    if not source.is_dir():
        return source.with_suffix(".param") if source.suffix.lower() == ".bin" else source
    folders = [folder for folder in (source, source / "train_log") if folder.is_dir()]
    for folder in folders:
        if is_model_folder(folder):
            return folder
    found = [path for folder in folders for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    if len(found) != 1:
        got = ", ".join(path.name for path in found) or "no weights file"
        raise WeightsError(f"{source} must hold one model, got {got}; give the path of the file")
    return found[0]


def _name_for(path: Path) -> str:
    """The version that the name of a file, its folder or the one above tells, or else its own name.

    Raises:
        OptionError: they tell none.
    """
    places = path.absolute()
    own = path.stem if path.is_file() else places.name
    for part in (own, places.parent.name, places.parent.parent.name):
        match = _VERSION_IN_NAME.search(part)
        if match and (version := re.sub("[-_]", ".", match[1].lower())) in {**MODELS, **LEGACY_MODELS}:
            return version
    if own.lower() in _NO_NAMES:
        raise OptionError(f"which model {path} holds cannot be known, got no version in its name; add --name NAME")
    return own


def _checked_name(name: str) -> ModelSpec | LegacySpec | None:
    """The version that a name stands for; None for a new name.

    Raises:
        OptionError: it cannot be the name of a model here.
    """
    spec = MODELS.get(name.lower().removeprefix("v")) or split_legacy(name)[0]
    if spec:
        return spec
    if not _NAME.fullmatch(name) or name.lower().endswith(SUFFIXES) or name.lower() in _NO_NAMES:
        raise OptionError(
            f"the name must be a version or letters, digits, '.', '_', '+', '-' and blanks, got {name!r}; "
            f"give one such as my-run"
        )
    if any((package_directory() / f"{name}{suffix}").is_file() for suffix in SUFFIXES):
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
def writing(target: Path) -> Iterator[None]:
    """Makes the folder of `target`; what goes wrong inside on disk is told as a `WeightsError` about it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(
            f"{target} cannot be written, got {error.strerror or error}; make room or choose another directory "
            f"with VSRIFE_MODEL_DIR"
        ) from error


def install(part: Path, target: Path, sha256: str) -> None:
    """Give a complete and checked file its final name, and record its SHA-256 beside it."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())  # the rename must not overtake the bytes
    for other in _variants(target):  # first, so that no moment has the new file with the old hash
        sidecar_path(other).unlink(missing_ok=True)
        if other != target:
            other.unlink(missing_ok=True)
    part.replace(target)
    fresh = sidecar_path(target).with_name(f"{sidecar_path(target).name}.part")
    fresh.write_text(f"{sha256}  {target.name}\n", encoding="utf-8", newline="\n")
    fresh.replace(sidecar_path(target))


def _variants(target: Path) -> list[Path]:
    """The files that `model=` finds under the same name."""
    stem = target.name.removesuffix(target.suffix)
    return [target.with_name(f"{stem}{suffix}") for suffix in SUFFIXES]


@contextlib.contextmanager
def locked(directory: Path, other: str) -> Iterator[None]:
    """Holds `directory` against other processes that write there; the system lets go when the process ends.

    Args:
        directory: must exist.
        other: what is waited for, in words.
    """
    with (directory / ".lock").open("a+b") as file:
        waiting = False
        while not _try_lock(file):
            if not waiting and sys.stderr is not None:
                sys.stderr.write(f"waiting for {other} to finish\n")
            waiting = True
            time.sleep(0.2)
        yield


def _try_lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


# --- what is known of a model without reading it ----------------------------------------------------------------------


def _published(spec: ModelSpec) -> StoredModel:
    try:
        path = find_weights(spec.name)
    except WeightsError:
        path = None
    return StoredModel(name=spec.name, kind="published", path=path, spec=spec, licence="its authors' terms")


def _named(name: str) -> StoredModel:
    """A bundled or imported model."""
    bundled = package_directory() / DEFAULT_WEIGHTS
    path = bundled if name == bundled.stem else find_weights(name)
    if path.parent != package_directory():
        spec = split_legacy(name)[0]
        licence = "its authors' terms" if spec else "not known"
        return StoredModel(name=name, kind="imported", path=path, spec=spec, licence=licence)
    licence, recorded = _attribution(path)
    return StoredModel(name=name, kind="bundled", path=path, licence=licence, recorded=recorded)


def _attribution(path: Path) -> tuple[str, str | None]:
    """Licence and SHA-256 of a bundled file, from its row in ATTRIBUTION.md."""
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


def _header_summary(path: Path) -> tuple[str, int] | None:
    """Layout and parameters of a 4.x safetensors file from its header alone, which needs no torch."""
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        layout = match_layout(shapes, path)
    except (OSError, safetensors.SafetensorError):
        return None  # reading all of it tells what is wrong
    return layout.id, layout.parameters()
