"""The first real pair on a CUDA device, computed with the kernels and with plain PyTorch, and compared.

The verdict is kept on disk, in a file whose path names everything that it holds for, so that other processes need not
repeat it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from vsrife._version import __version__
from vsrife.checkpoints.loading import Network
from vsrife.engine.formats import PictureFormat
from vsrife.engine.memory import give_back, out_of_memory
from vsrife.engine.transfer import Planes
from vsrife.files import atomic_write
from vsrife.ops import dispatch

LEAST_DB = {torch.float32: 60.0}  # PSNR of the worst plane; kernels and plain PyTorch round differently
LEAST_DB_HALF = 40.0

_verified: set[tuple[torch.device, str]] = set()  # by this process; used by the threads of the devices


def verify(net: Network, fmt: PictureFormat, compute: Callable[[], Planes | None]) -> None:
    """Compare both ways to compute a pair, once per device, network architecture and format class.

    Disables the kernels of the device, with a warning, where they are wrong. `compute` gives the planes of a frame
    between two, from scratch, on the device, or None for identical frames.

    Raises:
        KernelError: a kernel does not compile or cannot be started.
    """
    device, kind = net.device, _kind(net, fmt)
    if device.type != "cuda" or (device, kind) in _verified or not dispatch.uses_kernels(device):
        return
    path = _verdicts_folder(device) / kind
    decibels = _read(path)
    if decibels is None:
        try:
            with dispatch.plain_operations():
                expected = compute()
            result = compute()
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            give_back(device)  # plain PyTorch needs more memory than the kernels, which may do
            _verified.add((device, kind))
            return
        if expected is None or result is None:
            return
        decibels = psnr(result, expected, 1 if fmt.floating else fmt.peak)
        _write(path, decibels)
    _verified.add((device, kind))
    if not decibels >= LEAST_DB.get(net.dtype, LEAST_DB_HALF):
        dispatch.disable_kernels(device, f"{kind} came out wrong, {decibels:.1f} dB from plain PyTorch")


def _kind(net: Network, fmt: PictureFormat) -> str:
    """Everything besides the device and the versions that selects other kernels."""
    samples = f"{fmt.family}{fmt.bits}{'F' if fmt.floating else ''} {fmt.subsampling_w}{fmt.subsampling_h}"
    return f"{net.layout.id} {str(net.dtype).removeprefix('torch.')} {samples}"


def psnr(result: Sequence[Tensor], expected: Sequence[Tensor], peak: float) -> float:
    """Of the worst plane, at most 200 dB; NaN where a plane holds NaN."""
    errors = [(a.float() - b.float()).square().mean() for a, b in zip(result, expected, strict=True)]
    worst = torch.stack(errors).amax() / peak**2
    return float(-10 * torch.log10(worst.clamp_min(1e-20)))


def _verdicts_folder(device: torch.device) -> Path:
    import platformdirs  # here, so that a network can be measured where only PyTorch is installed
    import triton  # likewise, and PyTorch brings it along on Linux only

    major, minor = torch.cuda.get_device_capability(device)
    facts = (
        torch.cuda.get_device_name(device), f"sm{major}{minor}", f"vsrife{__version__}", f"torch{torch.__version__}",
        f"cudnn{torch.backends.cudnn.version()}", f"triton{triton.__version__}",  # type: ignore[no-untyped-call]
        f"driver{getattr(torch._C, '_cuda_getDriverVersion', str)()}",
    )  # fmt: skip
    name = "-".join(re.sub(r"[^\w.+]+", "_", fact) for fact in facts)
    return platformdirs.user_cache_path("vsrife", appauthor=False) / "cuda" / name


def _read(path: Path) -> float | None:
    """Decibels; None where the file is missing or damaged."""
    try:
        return float(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(path: Path, decibels: float) -> None:
    with suppress(OSError):  # the next process compares again
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as part:
            part.write_text(f"{decibels:.2f}", encoding="utf-8")
