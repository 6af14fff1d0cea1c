"""Finds, reads and checks weights files of RIFE 4.x; `generations` adds those of older models and other programs.

A file is a PyTorch state dict (.pkl, .pth) or a .safetensors file. Neither is ever unpickled: `torch.load` runs with
`weights_only=True`, and a file that it refuses is refused here. Names and shapes of the tensors alone tell the layout,
strictly: nothing missing, nothing of another shape, nothing unknown except the training-only parts listed below.

torch is imported when the first file is read, so that looking for files stays quick.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import logging
import os
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

from vsrife.errors import OptionError, WeightsError
from vsrife.networks.catalogue import (
    DEFAULT_WEIGHTS,
    LAYOUTS,
    LEGACY_MODELS,
    MODELS,
    Layout,
    LegacySpec,
    ModelSpec,
    Shape,
)

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

DIRECTORY_VARIABLE = "VSRIFE_MODEL_DIR"
SUFFIXES = (".pkl", ".pth", ".safetensors")
MAX_BYTES = 512 * 2**20  # the largest published file has 87 MB; more than this is something else, and is not read

# Parts of published files that only training uses: refiners of older generations, teachers, time calibration.
UNUSED_FAMILIES = ("contextnet.", "unet.", "block_tea.", "teacher.", "caltime.")
PARALLEL_PREFIX = "module."  # put before every name by torch's DataParallel
COUNTER_SUFFIX = ".num_batches_tracked"  # of batch normalisation in older generations: only training counts
FOLDER_FILES = (*(f"flownet{suffix}" for suffix in SUFFIXES), "flownet.param")  # one of them makes a folder a model

# First bytes of what a browser, a captive portal or a bare git clone leaves in place of the file.
_FOREIGN = ((b"<", "a web page"), (b"version https://git-lfs", "a Git LFS pointer"))
_ZIP = b"PK\x03\x04"
_NAMES_SHOWN = 4


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The checked contents of one weights file."""

    name: str  # the version asked for, or the file's stem
    path: Path
    layout: Layout
    tensors: Mapping[str, Tensor]  # float32 on the CPU, finite, exactly the layout's names, without prefix
    sha256: str  # of the file, in lower-case hex: its identity for caches


@dataclass(frozen=True, slots=True, eq=False)
class StoredFile:
    """What one weights file holds, before anything is known of its layout."""

    path: Path
    tensors: Mapping[str, Tensor]  # as stored, names without prefix, counters of training left out
    sha256: str  # of the file, in lower-case hex


def load_weights(model: str | Path | None = None) -> Weights:
    """Find, read and check the weights of a 4.x `model`.

    Args:
        model: A version such as "4.26", the name of an installed model, the path of a weights file, or None for the
            bundled weights.

    Raises:
        OptionError: `model` is neither a known version, nor an installed name, nor a path.
        WeightsError: the file is missing, damaged, of no layout or of another one than the version's.
    """
    from vsrife.checkpoints.loading import LegacyWeights, load_model, title_of  # which builds upon this module

    loaded = load_model(model)
    if isinstance(loaded, LegacyWeights):
        raise WeightsError(
            f"{loaded.path} is a model before 4.x, {title_of(loaded.layout)}; this takes 4.x alone, give another one"
        )
    return loaded


def find_weights(model: str | Path | None = None) -> Path:
    """Where the weights of `model` are: a path is itself; a name is looked for in each of `search_directories`.

    Returns:
        A weights file, or a folder that holds several.

    Raises:
        OptionError: `model` is neither a known version, nor an installed name, nor a path.
        WeightsError: there is no such file; for a version, the text holds the command that downloads it.
    """
    spec = named_version(model)
    if spec:
        return _find_version(spec)
    if model is None or model == "default":
        return _find_bundled()
    legacy, path = split_legacy(model)
    if legacy and path is None:
        return _installed(legacy.name) or _missing_legacy(legacy)
    path = path or Path(model)
    return _installed(model) or _find_file(path.expanduser())


def read_weights(path: Path, spec: ModelSpec | None = None) -> Weights:
    """Read and check the file at `path`; with `spec`, it must have that version's layout.

    The file is read once, so that the hash is that of the bytes the tensors come from. If the hash was recorded beside
    the file (`sidecar_path`), it must match.

    Raises:
        WeightsError: the file is missing, damaged, of no layout or of another one than `spec`'s.
    """
    return check_weights(read_file(path), spec)


def check_weights(stored: StoredFile, spec: ModelSpec | None = None) -> Weights:
    """The contents of a file as weights of a 4.x layout. Raises as `read_weights`."""
    path = stored.path
    tensors = _without_training(stored.tensors, path)
    layout = recognise_layout(tensors, path)
    if spec and layout.id != spec.layout.id:
        raise WeightsError(
            f"{path} is not {spec.name}, got the layout of {_versions_of(layout)} where {spec.name} has "
            f"{spec.layout.id}; {_remedy(path)}, or give the path instead of the version"
        )
    return Weights(
        name=spec.name if spec else path.stem,
        path=path,
        layout=layout,
        tensors=MappingProxyType(to_float32(tensors, path)),
        sha256=stored.sha256,
    )


def read_file(path: Path) -> StoredFile:
    """The tensors of one file of any layout. If its hash was recorded beside it (`sidecar_path`), it must match.

    Raises:
        WeightsError: the file is missing, damaged, or holds anything but named floating-point tensors.
    """
    data = read_bytes(path)
    sha256 = hashlib.sha256(data).hexdigest()
    _check_recorded_hash(path, sha256)
    return StoredFile(path, _parse(data, path), sha256)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file as stored, names without `module.`, training-only parts left out.

    Raises:
        WeightsError: the file is missing, damaged, or holds anything but named floating-point tensors.
    """
    return _without_training(_parse(read_bytes(path), path), path)


def recognise_layout(tensors: Mapping[str, Tensor], path: Path) -> Layout:
    """The layout whose names and shapes are exactly those of `tensors`.

    Args:
        tensors: As `read_tensors` gives them.
        path: Where they come from; named in the error.

    Raises:
        WeightsError: no layout fits; the text compares with the nearest one.
    """
    return match_layout({name: tuple(tensor.shape) for name, tensor in tensors.items()}, path)


def match_layout(shapes: Mapping[str, Shape], path: Path) -> Layout:
    """`recognise_layout` for shapes alone, such as a safetensors header has. Raises the same."""

    def distance(layout: Layout) -> int:
        return len(layout.tensor_shapes().items() ^ shapes.items())

    nearest = min(LAYOUTS.values(), key=distance)
    if distance(nearest) == 0:
        return nearest
    more = shapes.keys() - nearest.tensor_shapes().keys()
    if distance(nearest) == len(more):  # nothing missing, nothing of another shape
        raise WeightsError(
            f"{path} fits no RIFE 4.x layout, got all tensors of {_versions_of(nearest)} and {len(more)} that no known "
            f"version has, {_some([name for name in shapes if name in more])}; it may be of a newer version: update "
            f"vsrife, or save it without them"
        )
    difference = describe_difference(shapes, nearest.tensor_shapes(), _versions_of(nearest))
    raise WeightsError(f"{path} fits no RIFE 4.x layout, {difference}; {_remedy(path)}")


def named_version(model: str | Path | None) -> ModelSpec | None:
    """The catalogue row that `model` names ("4.26", also "v4.26"); None for other files, installed or given by path.

    Raises:
        OptionError: `model` is neither a known version, nor an installed name, nor a path.
    """
    if not isinstance(model, str | Path | None):
        raise OptionError(
            f"model must be a version in quotes or a path, got {model!r} ({type(model).__name__}); as numbers "
            f'4.1 and 4.10 would be the same, so write model="4.26"'
        )
    if model is None or model == "default" or isinstance(model, Path) or _looks_like_path(model):
        return None
    if split_legacy(model)[0]:
        return None
    version = model.strip().lower().removeprefix("v")
    if version not in MODELS:
        if _installed(model):
            return None
        others = installed_names()
        raise OptionError(
            f"model must be a version, the path of a {', '.join(SUFFIXES)} file or folder, or nothing, got {model!r}; "
            f"{_suggestion(version)}known versions are {', '.join(MODELS)} and before 4.x {', '.join(LEGACY_MODELS)}"
            + (f"; other models here are {', '.join(others)}" if others else "")
        )
    return MODELS[version]


def split_legacy(model: str | Path | None) -> tuple[LegacySpec | None, Path | None]:
    """The row before 4.x that `model` names, as "2.3" or, for what lies elsewhere, as "RIFE_2R:path"; and the path."""
    if not isinstance(model, str):
        return None, None
    name, colon, path = model.partition(":")
    rows = {spec.name.lower(): spec for spec in LEGACY_MODELS.values()}
    spec = rows.get(name.strip().lower().removeprefix("v"))
    if spec is None or (colon and not path):
        return None, None
    return spec, Path(path) if colon else None


def model_directory() -> Path:
    """Where downloads go: `VSRIFE_MODEL_DIR`, or else the user's cache directory. It may not exist yet."""
    chosen = os.environ.get(DIRECTORY_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs  # here, so that a network can be measured where only PyTorch is installed

    return platformdirs.user_cache_path("vsrife", appauthor=False) / "models"


def package_directory() -> Path:
    """Where the weights are that come with the package: inside it, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "models"
    return installed if installed.is_dir() else package.parent / "models"


def search_directories() -> tuple[Path, Path]:
    """The directories that a version is looked for in, in this order."""
    return package_directory(), model_directory()


def installed_names() -> list[str]:
    """Names of the models in `search_directories` that are no published versions; `model=` takes each of them."""
    published = {Path(spec.filename).stem for spec in MODELS.values()}
    found = [path for folder in search_directories() if folder.is_dir() for path in folder.iterdir()]
    visible = [path for path in found if not path.name.startswith(".")]
    names = {path.stem for path in visible if path.suffix in SUFFIXES} | set(map(_folder_name, visible)) - {""}
    return sorted(names - published)


def sidecar_path(path: Path) -> Path:
    """The file beside `path` that holds its SHA-256, in the text format of `sha256sum`."""
    return path.with_name(f"{path.name}.sha256")


def download_command(spec: ModelSpec) -> str:
    """The command line that fetches a version."""
    return f"python -m vsrife models download {spec.name}"


def is_model_folder(path: Path) -> bool:
    """Whether `path` is a folder that a model can be read from, such as the releases' `train_log`."""
    return any((path / name).is_file() for name in FOLDER_FILES)


def _folder_name(path: Path) -> str:
    return path.name if is_model_folder(path) else ""


def _looks_like_path(model: str) -> bool:
    if model.lower().endswith((*SUFFIXES, ".param")) or any(mark in model for mark in ("/", "\\")):
        return True
    return is_model_folder(Path(model))


def _suggestion(version: str) -> str:
    spelt = version.replace("-", ".").replace("_", ".")
    close = difflib.get_close_matches(spelt, MODELS, n=2) or difflib.get_close_matches(version, installed_names(), n=1)
    return f"did you mean {' or '.join(close)}? " if close else ""


def _find_version(spec: ModelSpec) -> Path:
    files = [directory / spec.filename for directory in search_directories()]
    found = [path for file in files for suffix in SUFFIXES if (path := file.with_suffix(suffix)).is_file()]
    for path in found:
        if path.stat().st_size > 0:
            return path
    if found:  # other packages ship empty files where a download is still to come
        raise WeightsError(f"{found[0]} is an empty placeholder, got 0 bytes; run: {download_command(spec)}")
    places = " and ".join(str(directory) for directory in search_directories())
    raise WeightsError(f"the weights of {spec.name} are not in {places}; run: {download_command(spec)}")


def _installed(model: str | Path) -> Path | None:
    """The file of a model that is known by its name alone, such as `vsrife models import` puts here."""
    if isinstance(model, Path) or _looks_like_path(model):
        return None
    candidates = [folder / f"{model}{suffix}" for folder in search_directories() for suffix in SUFFIXES]
    folders = [folder / model for folder in search_directories()]
    found = [path for path in candidates if path.is_file()] + [path for path in folders if is_model_folder(path)]
    return found[0] if found else None


def _missing_legacy(spec: LegacySpec) -> NoReturn:
    raise WeightsError(
        f"{spec.name} ({spec.title}) is not in {' and '.join(map(str, search_directories()))}; put the files of its "
        f"release into a folder {spec.name} there, or give the path of their folder"
    )


def _find_bundled() -> Path:
    path = package_directory() / DEFAULT_WEIGHTS
    if not path.is_file():
        raise WeightsError(f"the bundled weights are not at {path}; reinstall vsrife")
    return path


def _find_file(path: Path) -> Path:
    if is_model_folder(path) or (path.suffix.lower() == ".param" and path.is_file()):
        return path
    if path.is_dir() and path.suffix.lower() not in SUFFIXES:
        raise WeightsError(
            f"{path} is a folder without a model, got none of {', '.join(FOLDER_FILES)}; give the folder that holds one"
        )
    if path.suffix.lower() not in SUFFIXES:
        raise WeightsError(
            f"{path} has no suffix of a weights file, got {path.suffix!r}; "
            f"give a {', '.join(SUFFIXES)} file, or a version such as 4.26"
        )
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise WeightsError(f"{path} {what}; give the path of a weights file, or a version such as 4.26")
    return path


def _remedy(path: Path) -> str:
    """What to do about a bad file, which depends on who put it there."""
    if path.parent == package_directory():
        return "reinstall vsrife"
    if path.parent == model_directory():
        for spec in MODELS.values():
            if spec.filename == path.name:
                return f"run: {download_command(spec)} --force"
    return "get the file again"


def read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise WeightsError(
                f"{path} is no RIFE weights file, got {size} bytes where the largest has 87 MB; {_remedy(path)}"
            )
        data = path.read_bytes()
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path} cannot be read, got {error.strerror or error}; {_remedy(path)}") from error
    if not data:
        raise WeightsError(f"{path} is empty, got 0 bytes; {_remedy(path)}")
    return data


def _check_recorded_hash(path: Path, sha256: str) -> None:
    sidecar = sidecar_path(path)
    try:
        text = sidecar.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return
    except OSError as error:
        raise WeightsError(f"{sidecar} cannot be read, got {error.strerror or error}; remove it") from error
    recorded = re.match(r"([0-9a-fA-F]{64})\s", f"{text}\n")
    if not recorded:
        raise WeightsError(f"{sidecar} holds no SHA-256 as sha256sum writes it, got {text[:80]!r}; remove it")
    if recorded[1].lower() != sha256:
        raise WeightsError(
            f"{path} is damaged, got SHA-256 {sha256[:12]}… where {recorded[1][:12].lower()}… is recorded in "
            f"{sidecar.name}; {_remedy(path)}"
        )


def _parse(data: bytes, path: Path) -> dict[str, Tensor]:
    head = data[:64].lstrip()
    for start, what in _FOREIGN:
        if head.startswith(start):
            raise WeightsError(f"{path} is {what}, not a weights file, got {head[:24]!r}; {_remedy(path)}")
    stored = _parse_safetensors(data, path) if path.suffix.lower() == ".safetensors" else _parse_torch(data, path)
    return _bare_names(_checked_tensors(stored, path), path)


def _parse_safetensors(data: bytes, path: Path) -> dict[str, Tensor]:
    import safetensors.torch  # imports torch

    try:
        return safetensors.torch.load(data)
    except Exception as error:  # whatever damaged bytes make the parser raise, the file is to blame
        raise WeightsError(f"{path} is damaged or no safetensors file, got {error}; {_remedy(path)}") from error


def _parse_torch(data: bytes, path: Path) -> Any:
    """The object in a zip or legacy file of `torch.save`; only tensors and plain containers get through."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols: they load or raise below
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # as above; there is no second try that unpickles
        # The cause is left out: its text advises to switch the protection off.
        raise WeightsError(
            f"{path} is damaged or holds more than tensors, got {_reason(error, data)}; expected a state dict as "
            f"torch.save writes it (nothing else in a pickle is ever run); {_remedy(path)}"
        ) from None


def _reason(error: Exception, data: bytes) -> str:
    """What torch.load stumbled over, in a few words."""
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        return f"a reference to {refused[1]}"
    start = data[:24].decode("utf-8", errors="ignore")
    if start and all(letter.isprintable() or letter.isspace() for letter in start):
        return f"text ({start!r}…)"
    if data.startswith(_ZIP):
        return "a part of a file, as of a broken copy"
    return "bytes that are no such file"


def _checked_tensors(stored: Any, path: Path) -> dict[str, Tensor]:
    """`stored`, if it maps names to dense floating-point tensors."""
    import torch

    expected = f"expected names and their tensors, as state_dict() gives them; {_remedy(path)}"
    if not isinstance(stored, Mapping):
        raise WeightsError(f"{path} is no state dict, got {type(stored).__name__}; {expected}")
    for name, tensor in stored.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise WeightsError(f"{path} is no flat state dict, got {type(tensor).__name__} under {name!r}; {expected}")
        if name.endswith(COUNTER_SUFFIX):
            continue
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise WeightsError(
                f"{path} has a tensor {name} of no use, got {tensor.dtype}, {tensor.layout}; expected dense "
                f"floating-point values; {_remedy(path)}"
            )
    return {name: tensor for name, tensor in stored.items() if not name.endswith(COUNTER_SUFFIX)}


def _bare_names(stored: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`stored` without the `module.` prefix."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        bare = name.removeprefix(PARALLEL_PREFIX)
        if bare in tensors:
            raise WeightsError(
                f"{path} holds {bare} twice, got it with and without {PARALLEL_PREFIX!r}; {_remedy(path)}"
            )
        tensors[bare] = tensor
    return tensors


def _without_training(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """`tensors` without the parts that 4.x needs for training alone."""
    dropped = [name for name in tensors if name.startswith(UNUSED_FAMILIES)]
    if dropped:
        logger.debug("%s: dropped %d tensors that only training uses: %s", path.name, len(dropped), _some(dropped))
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED_FAMILIES)}


def to_float32(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The same in float32, refused where a value is not finite."""
    import torch

    converted = {name: tensor.detach().to(torch.float32).contiguous() for name, tensor in tensors.items()}
    broken = [name for name, tensor in converted.items() if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise WeightsError(f"{path} is damaged, got NaN or infinity in {_some(broken)}; {_remedy(path)}")
    return converted


def describe_difference(shapes: Mapping[str, Shape], expected: Mapping[str, Shape], nearest: str) -> str:
    """How `shapes` differs from those of the nearest layout, in words."""
    if not expected.keys() & shapes.keys():
        return f"got {len(shapes)} tensors ({_some(shapes)}); expected names such as {_some(list(expected)[:2])}"
    wrong = [
        f"{name} {_text(shapes[name])} instead of {_text(expected[name])}"
        for name in expected
        if name in shapes and shapes[name] != expected[name]
    ]
    missing = [f"{name} {_text(shape)}" for name, shape in expected.items() if name not in shapes]
    unknown = [f"{name} {_text(shape)}" for name, shape in shapes.items() if name not in expected]
    groups = {"other shapes": wrong, "missing": missing, "unknown": unknown}
    parts = [f"{what}: {_some(names)}" for what, names in groups.items() if names]
    return f"nearest is that of {nearest}, but got {'; '.join(parts)}"


def _versions_of(layout: Layout) -> str:
    names = [spec.name for spec in MODELS.values() if spec.layout.id == layout.id]
    return f"{', '.join(names) or 'our own models'} ({layout.id})"


def _some(names: Collection[str]) -> str:
    """The first few of many names."""
    shown = ", ".join(list(names)[:_NAMES_SHOWN]) or "none"
    more = len(names) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _text(shape: Shape) -> str:
    return "×".join(str(side) for side in shape) or "scalar"
