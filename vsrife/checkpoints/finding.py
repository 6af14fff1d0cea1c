"""From a model's name to the path of its weights. Imports no torch, so that listing and completion stay quick.

A model is named by a published version ("4.26", "3.1"), by the name of a bundled or imported model ("lite"), or by the
path of a file or folder. None is the user's default: `VSRIFE_MODEL`, else what `vsrife models default` recorded, else
the bundled one.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vsrife.errors import OptionError, RifeError, WeightsError, shown
from vsrife.networks.catalogue import BUNDLED_DEFAULT, LEGACY_MODELS, MODELS, UNVERSIONED_MODELS, LegacySpec, ModelSpec

type Spec = ModelSpec | LegacySpec

NAMED = {**MODELS, **UNVERSIONED_MODELS}  # models of 4.x that can be asked for by name, here or not
DOWNLOADABLE: dict[str, Spec] = {**NAMED, **{name: spec for name, spec in LEGACY_MODELS.items() if spec.can_download}}

DIRECTORY_VARIABLE = "VSRIFE_MODEL_DIR"
MODEL_VARIABLE = "VSRIFE_MODEL"
BUNDLED_SOURCE = "bundled"
DEFAULT_FILE = "default"  # in `model_directory()`: the name of the user's default model, as one line of text

SUFFIXES = (".pkl", ".pth", ".safetensors")
SCALE_SUFFIX = ".scale"  # after the name of int8 values in a safetensors file: what they are multiplied by
GRAPH_SUFFIX = ".param"  # of ncnn, beside a .bin
PARTS = {"contextnet": "contextnet", "unet": "fusionnet"}  # files of HD v1 to v3 beside flownet: in PyTorch, in ncnn
FLOW_FILES = tuple(f"flownet{suffix}" for suffix in (*SUFFIXES, GRAPH_SUFFIX))  # one of them makes a folder a model


# --- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DefaultModel:
    """The model that None stands for.

    Attributes:
        name: As `model=` takes it.
        source: Where it was set: "VSRIFE_MODEL", the path that `vsrife models default` writes, or `BUNDLED_SOURCE`.
    """

    name: str
    source: str


def default_model() -> DefaultModel:
    """Return the user's default model; it may be missing.

    Raises:
        WeightsError: The file that records it cannot be read.
    """
    chosen = os.environ.get(MODEL_VARIABLE)
    if chosen:
        return DefaultModel(chosen, MODEL_VARIABLE)
    path = model_directory() / DEFAULT_FILE
    try:
        recorded = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):  # there is none, and there can be none
            return DefaultModel(BUNDLED_DEFAULT, BUNDLED_SOURCE)
        raise WeightsError(f"{path} cannot be read, got {error.strerror or error}; remove it") from error
    return DefaultModel(recorded, str(path)) if recorded else DefaultModel(BUNDLED_DEFAULT, BUNDLED_SOURCE)


def spec_of(model: str | Path | None) -> Spec | None:
    """Return the catalogue's row of a published version, such as "4.26" or "v4.26"; None for any other model.

    Raises:
        OptionError: `model` is neither a known version, nor the name of a model here, nor a path.
    """
    with _naming_default(model):
        return _parse(model)[0]


def to_download(model: str | Path | None) -> Spec | None:
    """Return the row of `model` if its weights can be downloaded and are not here, else None.

    Raises:
        OptionError: As `spec_of`.
    """
    spec = spec_of(model)
    if spec is None or not spec.can_download:
        return None
    try:
        find_weights(model)
    except WeightsError:
        return spec
    return None


def spec_named(name: str) -> Spec | None:
    """Return the catalogue's row of that name, in any case and with or without a "v"; None if there is none."""
    version = name.strip().lower().removeprefix("v")
    return NAMED.get(version) or _LEGACY_BY_NAME.get(version)


def find_weights(model: str | Path | None = None) -> Path:
    """Return where the weights of `model` are: a file, or a folder that holds several.

    Names are looked for in each of `search_directories`; a path is itself.

    Args:
        model: A version, the name of a model here, a path, "RIFE_2R:path" for weights whose tensors do not tell the
            version, or None (also "default") for the user's default.

    Raises:
        OptionError: `model` is neither a known version, nor the name of a model here, nor a path.
        WeightsError: There is no such file; for a version that can be downloaded, the text holds the command.
    """
    with _naming_default(model):
        return _find(*_parse(model))


def model_labels(models: Sequence[str | Path | None]) -> list[str]:
    """Return a short label for each model: its version or file name, or the name as given where two would be equal.

    Raises:
        OptionError, WeightsError: As `find_weights`.
    """
    labels = [spec.name if (spec := spec_of(model)) else find_weights(model).stem for model in models]
    return [label if labels.count(label) == 1 else str(model) for label, model in zip(labels, models, strict=True)]


def bundled_name(model: str | Path | None = None) -> str | None:
    """Return the name of the bundled model that `model` stands for; None if it is another one, or is not here."""
    try:
        path = find_weights(model)
    except RifeError:
        return None
    return path.stem if path.parent.resolve() == package_directory().resolve() else None


def installed_names() -> list[str]:
    """Return the names of all models in `search_directories` that are no published versions of 4.x."""
    published = {Path(spec.filename).stem for spec in NAMED.values()}
    paths = [path for folder in search_directories() if folder.is_dir() for path in folder.iterdir()]
    models = [path for path in paths if not path.name.startswith(".")]
    names = {path.stem for path in models if path.suffix in SUFFIXES}
    names |= {path.name for path in models if is_model_folder(path)}
    return sorted(names - published)


def how_to_get(spec: Spec) -> str:
    """Return the remedy for a missing version: the command that downloads it, or the one that imports its release."""
    if spec.can_download:
        return f"run: {download_command(spec)}"
    return (
        f"it cannot be downloaded: get its release, and give the path of its folder, or run: vsrife models import "
        f"FOLDER --name {spec.name}"
    )


def download_command(spec: Spec) -> str:
    """Return the command line that downloads a version."""
    return f"python -m vsrife models download {spec.name}"


@contextlib.contextmanager
def _naming_default(model: str | Path | None) -> Iterator[None]:
    """Add to an error about the user's default model where it was set."""
    try:
        yield
    except RifeError as error:
        if model is not None and model != "default":
            raise
        default = default_model()
        if default.source == BUNDLED_SOURCE:
            raise
        raise type(error)(f"{error} (the default model, set by {default.source})") from error


def _parse(model: str | Path | None) -> tuple[Spec | None, Path | str]:
    """Split a model's name into the catalogue's row, if any, and a path or a name to look for."""
    if model is None or model == "default":
        default = default_model()
        return (None, default.name) if default.source == BUNDLED_SOURCE else _parse_name(default.name)
    if not isinstance(model, str | Path):
        raise OptionError(
            f"model must be a version in quotes or a path, got {shown(model)} ({type(model).__name__}); as numbers "
            f'4.1 and 4.10 would be the same, so write model="4.26"'
        )
    return (None, model) if isinstance(model, Path) else _parse_name(model)


def _parse_name(model: str) -> tuple[Spec | None, Path | str]:
    name, colon, path = model.partition(":")
    spec = spec_named(name)
    if isinstance(spec, LegacySpec) and (path or not colon):
        return spec, Path(path) if path else spec.name
    if _looks_like_path(model):
        return None, Path(model)
    if spec and not colon:
        return spec, spec.name
    if _candidates(model):
        return None, model
    raise OptionError(_unknown(model))


_LEGACY_BY_NAME = {spec.name.lower(): spec for spec in LEGACY_MODELS.values()}


def _find(spec: Spec | None, place: Path | str) -> Path:
    """Return the path of what `_parse` found in a model's name."""
    if isinstance(place, Path):
        return _checked_path(place.expanduser())
    paths = _candidates(place if spec is None else Path(spec.filename).stem)
    for path in paths:
        if spec is None or path.is_dir() or path.stat().st_size > 0:
            return path
    if spec is None:
        raise WeightsError(f"the bundled weights {place} are not in {package_directory()}; reinstall vsrife")
    if paths:  # other packages ship empty files in place of downloads
        raise WeightsError(f"{paths[0]} is an empty placeholder, got 0 bytes; {how_to_get(spec)}")
    folders = " and ".join(map(str, search_directories()))
    raise WeightsError(f"the weights of {spec.name} are not in {folders}; {how_to_get(spec)}")


def _unknown(model: str) -> str:
    others = installed_names()
    version = model.strip().lower().removeprefix("v")
    spelt = version.replace("-", ".").replace("_", ".")
    close = difflib.get_close_matches(spelt, NAMED, n=2) or difflib.get_close_matches(version, others, n=1)
    return (
        f"model must be a version, the path of a {', '.join(SUFFIXES)} file or folder, or nothing, got {shown(model)}; "
        + (f"did you mean {' or '.join(close)}? " if close else "")
        + f"known versions are {', '.join(NAMED)} and before 4.x {', '.join(LEGACY_MODELS)}"
        + (f"; other models here are {', '.join(others)}" if others else "")
    )


# --- places -----------------------------------------------------------------------------------------------------------


def model_directory() -> Path:
    """Return where downloads go: `VSRIFE_MODEL_DIR`, or else the user's cache directory. It may not exist yet."""
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs  # here, so that a network can be measured where only PyTorch is installed

    return platformdirs.user_cache_path("vsrife", appauthor=False) / "models"


def package_directory() -> Path:
    """Return where the bundled weights are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def search_directories() -> tuple[Path, Path]:
    """Return the directories that names are looked for in, the package's first."""
    return package_directory(), model_directory()


def sidecar_path(path: Path) -> Path:
    """Return the file beside `path` that records its SHA-256, in the text format of `sha256sum`."""
    return path.with_name(f"{path.name}.sha256")


def is_model_folder(path: Path) -> bool:
    """Return whether `path` is a folder that a model can be read from, such as the releases' `train_log`."""
    return any((path / name).is_file() for name in FLOW_FILES)


def files_of(path: Path) -> list[Path]:
    """Return the files that a model is read from, the flow network's first.

    Args:
        path: As `find_weights` returns it.
    """
    if path.is_dir():
        path = next(file for name in FLOW_FILES if (file := path / name).is_file())
    if path.suffix == GRAPH_SUFFIX:
        graphs = [path, *(path.with_name(f"{name}{GRAPH_SUFFIX}") for name in PARTS.values())]
        others = [file for graph in graphs for file in (graph, graph.with_suffix(".bin"))][1:]
    else:
        others = [part_path(path, part) for part in PARTS]
    return [path, *(file for file in others if file.is_file())]


def part_path(flow_file: Path, part: str) -> Path:
    """Return where a part of HD v1 to v3 is: "flownet" in the name of the flow network's file becomes its name."""
    name = flow_file.name.replace("flownet", part) if "flownet" in flow_file.name else f"{part}{flow_file.suffix}"
    return flow_file.with_name(name)


def remedy(path: Path) -> str:
    """Return what to do about a damaged file, which depends on who put it there."""
    if path.parent == package_directory():
        return "reinstall vsrife"
    if path.parent == model_directory():
        for spec in DOWNLOADABLE.values():
            if spec.filename == path.name:
                return f"run: {download_command(spec)} --force"
    return "get the file again"


def _candidates(name: str) -> list[Path]:
    """Return the files and folders that are found under a name, in order of precedence."""
    paths: list[Path] = []
    for folder in search_directories():
        with contextlib.suppress(OSError):  # the user's folder cannot be read, or its name is too long
            paths += [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()]
            paths += [folder / name] * is_model_folder(folder / name)
    return paths


def _looks_like_path(model: str) -> bool:
    if model.lower().endswith((*SUFFIXES, GRAPH_SUFFIX)) or any(mark in model for mark in ("/", "\\")):
        return True
    return is_model_folder(Path(model))


def _checked_path(path: Path) -> Path:
    suffix = path.suffix.lower()
    if is_model_folder(path) or (suffix == GRAPH_SUFFIX and path.is_file()):
        return path
    if path.is_dir() and suffix not in SUFFIXES:
        raise WeightsError(
            f"{path} is a folder without a model, got none of {', '.join(FLOW_FILES)}; give the folder that holds one"
        )
    if suffix not in SUFFIXES:
        raise WeightsError(
            f"{path} has no suffix of a weights file, got {path.suffix!r}; "
            f"give a {', '.join(SUFFIXES)} file, or a version such as 4.26"
        )
    if not path.is_file():
        problem = "is not a file" if path.exists() else "does not exist"
        raise WeightsError(f"{path} {problem}; give the path of a weights file, or a version such as 4.26")
    return path
