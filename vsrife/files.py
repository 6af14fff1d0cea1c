"""Files that appear under their name only when complete, and locks between processes. Imports no torch.

with atomic_write(path) as part:        # a path beside it, for a library that writes the file itself
    image.save(part, format="PNG")

with atomic_write(path, overwrite=False, durable=True) as part, part.open("wb") as file:
    file.write(data)

replace_file(finished, path, overwrite=False)   # the rename alone, for a file that took hours to write

with file_lock(folder / ".lock", "another download"):
    ...
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from vsrife.errors import RifeError

PART_SUFFIX = ".part"


@contextlib.contextmanager
def atomic_write(
    path: Path, *, overwrite: bool = True, durable: bool = False, error: type[RifeError] | None = None
) -> Iterator[Path]:
    """Yield a temporary path beside `path`, and rename it to `path` when the block ends without an exception.

    The file has its final name only when it is complete; after an exception neither it nor the temporary file is left.
    The temporary name is hidden, unique and ends in `.part`, so a library that derives the format from the suffix has
    to be told the format.

    Args:
        path: The file to write. Its folder must exist.
        overwrite: Replace an existing file. If False, a file that exists at the end of the block is kept, and
            `FileExistsError` is raised.
        durable: Flush the file to disk before it is renamed and its folder afterwards, so that it survives a power
            failure.
        error: Raise this class, with a text that names `path`, instead of an `OSError`. Errors of vsrife's own pass
            unchanged.

    Raises:
        FileExistsError: `path` exists and `overwrite` is False. `error` does not replace it.
        OSError: The file cannot be written, e.g. because the disk is full; or a pipe or device has its name.
    """
    if is_special(path):
        raise (error or OSError)(f"{path} cannot be replaced by a file, got a pipe or device; give another name")
    part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(3)}{PART_SUFFIX}")
    try:
        yield part
        replace_file(part, path, overwrite=overwrite, durable=durable)
    except (RifeError, FileExistsError):
        raise
    except OSError as cause:
        if error is None:
            raise
        raise error(
            f"{path} cannot be written, got {cause.strerror or cause}; make room or choose another place"
        ) from cause
    finally:
        with contextlib.suppress(OSError):  # the first error is the one to report
            part.unlink()


def replace_file(source: Path, target: Path, *, overwrite: bool = True, durable: bool = False) -> None:
    """Rename `source` to `target` on the same file system, in one step.

    Args:
        source: A complete file.
        target: Its final path.
        overwrite: Replace an existing file. If False, it is kept and `FileExistsError` raised, even if it appeared at
            the last moment (except on file systems without hard links, such as FAT).
        durable: Flush `source` to disk before it is renamed and the folder afterwards.

    Raises:
        FileExistsError: `target` exists and `overwrite` is False.
        OSError: The file cannot be renamed.
    """
    if durable:
        with source.open("rb+") as file:
            os.fsync(file.fileno())  # the rename must not reach the disk before the bytes
    if overwrite:
        source.replace(target)
    else:
        _rename_to_new(source, target)
    if durable:
        sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in `folder` to disk. Does nothing on Windows, where folders cannot be opened."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def is_special(path: Path) -> bool:
    """Whether a path is a device, pipe or socket, which may block for ever when opened, or never end."""
    return path.exists() and not path.is_file() and not path.is_dir()


def is_taken(path: Path) -> bool:
    """Whether a name is in use, also by a link to nothing."""
    return path.exists() or path.is_symlink()


@contextlib.contextmanager
def file_lock(path: Path, holder: str, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock between processes; the operating system releases it even if the process is killed.

    Args:
        path: The lock file, created if missing. Its folder must exist.
        holder: Who may hold it, for the message on stderr while waiting, e.g. "another download".
        wait: Block until the lock is free. If False, raise at once.

    Raises:
        filelock.Timeout: `wait` is False and another process holds the lock. A subclass of `TimeoutError`.
        OSError: The lock file cannot be created.
    """
    from filelock import FileLock, Timeout  # here: the import takes 0.1 s, which every command would pay

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise
        if sys.stderr is not None:  # None in a GUI process without a console
            sys.stderr.write(f"waiting for {holder} to finish\n")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _rename_to_new(source: Path, target: Path) -> None:
    """Rename unless `target` exists."""
    if sys.platform == "win32":
        source.rename(target)  # which raises there if the target exists
        return
    try:
        target.hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        if target.exists():
            raise FileExistsError(f"{target} exists") from None
        source.replace(target)
    else:
        source.unlink()
