"""What `vsrife doctor` looks at: versions, devices, plugins, models, folders, and how fast all of it is.

Every part is looked at on its own, so that what is broken does not hide the rest. Nothing private goes into it: the
home directory is shown as `~`, and of the environment only the variables that matter here.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from vsrife._version import __version__
from vsrife.errors import RifeError

if TYPE_CHECKING:
    import numpy as np
    import vapoursynth as vs
    from numpy.typing import NDArray

Rows = dict[str, str]

PACKAGES = (
    "torch", "vapoursynth", "numpy", "safetensors", "numba", "av", "vapoursynth-bestsource", "rich", "click", "onnx",
)  # fmt: skip
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR",
             "VSSCRIPT_PATH", "XDG_CACHE_HOME")  # fmt: skip
OWN_PREFIX = "VSRIFE_"
PLUGINS = {  # what each is for, and how to get it
    "bs": ("`vsrife video` reads files with it", "pip install vapoursynth-bestsource"),
    "bwdif": ("`vsrife video --deinterlace` uses it", "pip install vapoursynth-bwdif"),
}
BENCHMARK_SIZES = ((640, 360), (1280, 720))
BENCHMARK_SECONDS = 10.0
_POOL = 8  # source frames that the benchmark shows in turn
_MANY = 100_000


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be, and what to do about it."""

    text: str
    remedy: str
    fatal: bool = False  # nothing can be interpolated


@dataclass(slots=True)
class Diagnosis:
    """What was found: sections of rows, in order, and problems."""

    sections: dict[str, Rows] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not any(problem.fatal for problem in self.problems)

    def look(self, title: str, part: Callable[[list[Problem]], Rows]) -> None:
        """Add a section; whatever fails in it is a problem of its own."""
        try:
            self.sections[title] = part(self.problems)
        except Exception as error:
            self.sections[title] = {"failed": private(f"{type(error).__name__}: {error}")}
            self.problems.append(Problem(f"{title} could not be looked at, got {private(str(error))}", "report this"))


def diagnose(*, benchmark: bool = True) -> Diagnosis:
    """Look at everything; with `benchmark` it takes about ten seconds more."""
    diagnosis = Diagnosis()
    diagnosis.look("system", system)
    diagnosis.look("packages", packages)
    diagnosis.look("devices", devices)
    diagnosis.look("VapourSynth", vapoursynth)
    diagnosis.look("FFmpeg", ffmpeg)
    diagnosis.look("models", models)
    diagnosis.look("folders", folders)
    diagnosis.look("environment", environment)
    diagnosis.look("self-test", self_test)
    if benchmark and diagnosis.usable:
        diagnosis.look("benchmark", speed)
    diagnosis.problems.sort(key=lambda problem: not problem.fatal)
    return diagnosis


def private(text: str) -> str:
    """Text without the name of the home directory."""
    home = str(Path.home())
    return text if home in ("", "/") else text.replace(home, "~")


# --- versions ---------------------------------------------------------------------------------------------------------


def system(problems: list[Problem]) -> Rows:  # noqa: ARG001
    bits = sys.maxsize.bit_length() + 1
    return {
        "vsrife": __version__,
        "Python": f"{platform.python_version()} ({platform.python_implementation()}, {bits} bit)",
        "system": platform.platform(),
        "CPU": f"{_cpu_name()}, {os.cpu_count()} threads",
        "memory": _memory(),
    }


def packages(problems: list[Problem]) -> Rows:
    found = {name: _version(name) or "not installed" for name in PACKAGES}
    for name in ("torch", "vapoursynth"):
        if found[name] == "not installed":
            problems.append(Problem(f"{name} is not installed", "install vsrife again: pip install .", fatal=True))
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    except (AttributeError, ValueError, OSError):  # not on Windows
        return "not known"


# --- devices ----------------------------------------------------------------------------------------------------------


def _precisions() -> str:
    """What the CPU computes fast in, beside float32."""
    import torch

    from vsrife.engine.devices import parse_precision
    from vsrife.errors import DeviceError

    cpu = torch.device("cpu")
    try:
        parse_precision("int8", cpu)
    except DeviceError:
        known = []
    else:
        known = ["int8"]
    if parse_precision(None, cpu) == torch.bfloat16:
        known.append("bf16")
    return f"units for {' and '.join(known)}" if known else "no units for int8 or bf16"


def devices(problems: list[Problem]) -> Rows:
    import torch

    from vsrife.engine.devices import parse_device

    capability = torch.backends.cpu.get_cpu_capability()
    rows = {"torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}", "used": str(parse_device(None)),
            "cpu": f"{capability}, {torch.get_num_threads()} threads, {_precisions()}"}  # fmt: skip
    rows |= _accelerators()
    driver = _nvidia_driver()
    if driver:
        rows["NVIDIA driver"] = driver
        if not torch.cuda.is_available():
            problems.append(_unused_gpu(torch.version.cuda))
    if torch.get_num_threads() < (os.cpu_count() or 1) // 2:
        problems.append(
            Problem(
                f"torch uses {torch.get_num_threads()} of {os.cpu_count()} CPU threads",
                "unset OMP_NUM_THREADS, unless it is meant so",
            )
        )
    if rows["used"] == "cpu" and _version("numba") is None:
        problems.append(
            Problem("numba is not installed: a frame takes almost three times as long", "pip install numba")
        )
    return rows


def _accelerators() -> Rows:
    import torch

    rows = {}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        rows[f"cuda:{index}"] = (
            f"{properties.name}, compute capability {properties.major}.{properties.minor}, "
            f"{total / 2**30:.1f} GiB, {free / 2**30:.1f} free"
        )
    for index in range(torch.xpu.device_count() if torch.xpu.is_available() else 0):
        intel = torch.xpu.get_device_properties(index)
        rows[f"xpu:{index}"] = f"{intel.name}, {intel.total_memory / 2**30:.1f} GiB"
    if torch.backends.mps.is_available():
        rows["mps"] = f"{torch.mps.recommended_max_memory() / 2**30:.1f} GiB"
    return rows


def _nvidia_driver() -> str | None:
    """Version of NVIDIA's driver where a GPU of theirs is here; None where there is none."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return "present" if shutil.which("nvidia-smi") else None
    words = text.splitlines()[0].split()
    return next((word for word in words if word.replace(".", "").isdigit()), "present")


def _unused_gpu(cuda: str | None) -> Problem:
    if cuda is None:
        return Problem(
            "an NVIDIA GPU is here, but this torch is for CPUs only",
            "install torch with CUDA, as pytorch.org/get-started says for this system",
        )
    return Problem(
        f"an NVIDIA GPU is here, but torch with CUDA {cuda} cannot use it",
        "update NVIDIA's driver, and see that CUDA_VISIBLE_DEVICES does not hide it",
    )


# --- frameserver, encoders --------------------------------------------------------------------------------------------


def vapoursynth(problems: list[Problem]) -> Rows:
    if _version("vapoursynth") is None:
        return {}
    import vapoursynth as vs

    core = vs.core.core
    rows = {"core": f"{core.core_version}, API {core.api_version}", "threads": str(core.num_threads)}
    plugins = {plugin.namespace: plugin.version for plugin in core.plugins()}
    rows["plugins"] = ", ".join(f"{name} {version.major}.{version.minor}" for name, version in sorted(plugins.items()))
    for name, (use, remedy) in PLUGINS.items():
        if name not in plugins:
            problems.append(Problem(f"the VapourSynth plugin {name} is missing; {use}", remedy))
    return rows


def ffmpeg(problems: list[Problem]) -> Rows:
    if _version("av") is None:
        problems.append(Problem("PyAV is not installed, which encodes for `vsrife video`", "pip install '.[cli]'"))
        return {}
    import av

    from vsrife.video.codecs import CODECS

    libraries = {name: ".".join(map(str, version)) for name, version in av.library_versions.items()}
    encoders = [row.name for row in CODECS if row.encoder in av.codecs_available]
    absent = [row.name for row in CODECS if row.encoder not in av.codecs_available]
    if absent:
        problems.append(
            Problem(f"this PyAV has no encoder for {', '.join(absent)}", "use another --codec, or PyAV's wheel")
        )
    names = ("libavcodec", "libavformat", "libswscale")
    return {"libraries": ", ".join(f"{name} {libraries[name]}" for name in names if name in libraries),
            "codecs": ", ".join(encoders)}  # fmt: skip


# --- models, folders, environment -------------------------------------------------------------------------------------


def models(problems: list[Problem]) -> Rows:
    from vsrife.checkpoints.finding import BUNDLED_SOURCE, default_model, find_weights
    from vsrife.checkpoints.installed import stored_models, verify

    rows = {}
    default = default_model()
    if default.source != BUNDLED_SOURCE:
        rows["default"] = f"{default.name}, set by {private(default.source)}"
        try:
            find_weights(None)
        except RifeError as error:
            problems.append(Problem(private(str(error)), "run: vsrife models default default", fatal=True))
    for model in stored_models():
        if model.path is None:
            continue
        name = f"{model.name} (default)" if model.is_default else model.name
        try:
            weights = verify(model)
        except RifeError as error:
            rows[name] = "not usable"
            what, _, remedy = private(str(error)).partition("; ")
            problems.append(Problem(what, remedy, fatal=model.is_default))
        else:
            rows[name] = f"good, {weights.layout.id}, {model.kind}"
    return rows


def folders(problems: list[Problem]) -> Rows:
    from vsrife.checkpoints.finding import model_directory, package_directory

    models = model_directory()
    if models.exists() and not os.access(models, os.W_OK):
        problems.append(Problem(f"{private(str(models))} cannot be written", "set VSRIFE_MODEL_DIR to another folder"))
    state = "" if models.is_dir() else "  (made by the first download)"
    return {
        "package": private(str(Path(__file__).parent)),
        "bundled models": private(str(package_directory())),
        "models": f"{private(str(models))}{state}",
    }


def environment(problems: list[Problem]) -> Rows:  # noqa: ARG001
    names = [*sorted(name for name in os.environ if name.startswith(OWN_PREFIX)), *VARIABLES]
    return {name: private(_without_password(os.environ[name])) for name in names if name in os.environ}


def _without_password(value: str) -> str:
    """An address without the name and password that it may hold."""
    parts = urlsplit(value) if "://" in value else None
    if parts is None or parts.username is None:
        return value
    return parts._replace(netloc=f"…@{parts.hostname}").geturl()


# --- doing it ---------------------------------------------------------------------------------------------------------


def self_test(problems: list[Problem]) -> Rows:
    """A small pair through the default network, and through the filter."""
    if any(problem.fatal for problem in problems):
        return {"result": "left out: see the problems"}
    try:
        import vsrife

        first, second = (_picture(64, 64, n) for n in (0, 1))
        middle = vsrife.interpolate(first, second)
        assert middle.shape == first.shape
        clip = vsrife.RIFE(_moving_clip(64, 64)[:2])
        frames = [frame.format.name for frame in clip.frames(close=True)]
        return {"result": f"good, {len(frames)} frames of {frames[0]}"}
    except Exception as error:
        problems.append(Problem(f"no frame can be made, got {private(str(error))}", "report this", fatal=True))
        return {"result": "failed"}


def speed(problems: list[Problem]) -> Rows:  # noqa: ARG001
    """Milliseconds of a pair and frames/s of the filter, at as many sizes as ten seconds allow."""
    rows: Rows = {}
    end = time.monotonic() + BENCHMARK_SECONDS
    for index, (width, height) in enumerate(BENCHMARK_SIZES):
        share = (end - time.monotonic()) / (len(BENCHMARK_SIZES) - index)
        if share < BENCHMARK_SECONDS / 8:
            rows[f"{width}x{height}"] = "left out: no time"
            continue
        pair = _network_ms(width, height, share / 2)
        rate = _filter_rate(width, height, share / 2)
        rows[f"{width}x{height}"] = f"{pair:.0f} ms a pair (RGB, both frames new), {rate:.2f} frames/s of YUV420P8 out"
    return rows


def _network_ms(width: int, height: int, seconds: float) -> float:
    import vsrife

    pictures = [_picture(width, height, n) for n in range(3)]
    vsrife.interpolate(pictures[0], pictures[1])  # loads and compiles
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < seconds / 2:
        vsrife.interpolate(pictures[done % 2], pictures[done % 2 + 1])
        done += 1
    return 1000 * (time.perf_counter() - start) / done


def _filter_rate(width: int, height: int, seconds: float) -> float:
    """Output frames a second of a doubled clip."""
    import vsrife

    frames = vsrife.RIFE(_moving_clip(width, height), sc_threshold=1).frames(close=True)
    next(frames), next(frames)  # compiles
    start, done = time.perf_counter(), 0
    for _ in frames:
        done += 1
        if done % 2 == 0 and time.perf_counter() - start > seconds / 2:
            break
    elapsed = time.perf_counter() - start
    frames.close()  # type: ignore[attr-defined, unused-ignore]
    return done / elapsed


def _picture(width: int, height: int, n: int) -> NDArray[np.uint8]:
    """A coloured pattern that moves by 3 pixels a frame."""
    import numpy as np

    x, y = np.arange(width) + 3 * n, np.arange(height)[:, None]
    planes = [np.sin(x / a) * np.cos((y + x / 3) / b) for a, b in ((17, 11), (23, 7), (9, 19))]
    return (127.5 + 100 * np.stack(planes, axis=-1)).astype(np.uint8)


def _moving_clip(width: int, height: int) -> vs.VideoNode:
    """A long YUV420P8 clip of the pattern; made once, so that making it does not count."""
    import numpy as np
    import vapoursynth as vs

    blank = vs.core.std.BlankClip(width=width, height=height, format=vs.RGB24, length=_POOL, keep=True)

    def paint(n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        frame, picture = f.copy(), _picture(width, height, n)
        for plane in range(3):
            np.asarray(frame[plane])[:] = picture[..., plane]
        return frame

    clip = blank.std.ModifyFrame([blank], paint).resize.Bicubic(format=vs.YUV420P8, matrix_s="709")
    pool = list(_held(clip))
    long = clip.std.BlankClip(length=_MANY, keep=True)
    return long.std.ModifyFrame([long], lambda n, f: pool[n % _POOL])  # noqa: ARG005


def _held(clip: vs.VideoNode) -> Iterator[vs.VideoFrame]:
    for n in range(clip.num_frames):
        yield clip.get_frame(n)
