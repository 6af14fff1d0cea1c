"""Names on a command line to inputs: videos, or sequences of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from PIL import Image

from vsrife.errors import MediaError
from vsrife.files import is_special
from vsrife.images.files import PICTURE_SUFFIXES
from vsrife.images.numbering import find_sequence

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".mkv", ".mov", ".m4v", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".wmv", ".flv",
    ".3gp", ".ogv", ".y4m", ".mxf", ".gif", ".apng", ".avif",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Input:
    """A video or a sequence of pictures.

    Attributes:
        name: as given, or the path of a video found in a folder.
        files: the video, or the pictures in order.
        sequence: whether it is a sequence.
    """

    name: str
    files: tuple[Path, ...]
    sequence: bool


def find_inputs(names: Sequence[str]) -> list[Input]:
    """Find the inputs that names stand for; a folder or glob may hold several videos.

    Raises:
        MediaError: a folder or a glob holds neither videos nor pictures, or an input is a pipe or device.
    """
    inputs = []
    for name in names:
        _check_openable(Path(name))
        for each in _find(name):
            for path in each.files if each.sequence else ():
                _check_openable(path)
            inputs.append(each)
    return inputs


def _check_openable(path: Path) -> None:
    """Check that a path can be opened without waiting for another program.

    Raises:
        MediaError: it is a named pipe or a device.
    """
    if is_special(path):
        raise MediaError(
            f"an input must be a file, since it is read twice, got {path}, a pipe or device; save it to a file"
        )


def _find(name: str) -> list[Input]:
    path = Path(name)
    if path.is_dir():
        candidates = list(path.iterdir())
    elif not path.exists() and any(sign in name for sign in "*?["):
        candidates = [Path(found) for found in glob(name)]  # noqa: PTH207 - the folder may be a pattern, too
    elif "%" in path.name and not path.exists():
        return [Input(name, tuple(find_sequence(name)), True)]
    else:
        still = path.suffix.lower() in PICTURE_SUFFIXES and not _is_animated(path)
        return [Input(name, (path,), still)]
    videos = sorted(each for each in candidates if each.suffix.lower() in VIDEO_SUFFIXES and each.is_file())
    if videos:
        return [Input(str(video), (video,), False) for video in videos]
    try:
        return [Input(name, tuple(find_sequence(name)), True)]
    except MediaError as error:
        raise MediaError(f"no videos and no pictures found, got {name}; check the name") from error


def _is_animated(path: Path) -> bool:
    """Whether a WebP or PNG holds several frames; then it is read like a video."""
    try:
        with Image.open(path) as image:
            return image.format != "MPO" and getattr(image, "n_frames", 1) > 1
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
