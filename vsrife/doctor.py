"""The checks of `vsrife doctor`: versions, devices, plugins, encoders, models, folders, and speed.

Sections are independent, so that a failing one does not hide the others. Nothing private is reported: the home
directory becomes `~`, and only the environment variables that matter here are listed.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from vsrife._version import __version__
from vsrife.errors import RifeError

Rows = dict[str, str]

PACKAGES = (
    "torch", "triton", "vapoursynth", "numpy", "safetensors", "numba", "av", "vapoursynth-bestsource", "rich", "click",
    "onnx",
)  # fmt: skip
VARIABLES = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "NUMBA_DISABLE_JIT", "NUMBA_NUM_THREADS", "NUMBA_CACHE_DIR",
             "VSSCRIPT_PATH", "XDG_CACHE_HOME")  # fmt: skip
OWN_PREFIX = "VSRIFE_"
PLUGINS = {  # namespace to its purpose and how to install it
    "bs": ("`vsrife video` reads files with it", "pip install vapoursynth-bestsource"),
    "bwdif": ("`vsrife video --deinterlace` uses it", "pip install vapoursynth-bwdif"),
    "vivtc": ("`vsrife video --inverse-telecine` uses it", "pip install vapoursynth-vivtc"),
}
BENCHMARK_SIZES = ((640, 360), (1280, 720))
BENCHMARK_SECONDS = 10.0
_CUDA_WHEELS = "https://download.pytorch.org/whl/cu130"


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem of the installation.

    Attributes:
        text: what is wrong.
        remedy: what to do.
        fatal: whether interpolation does not work at all.
    """

    text: str
    remedy: str
    fatal: bool = False


@dataclass(slots=True)
class Diagnosis:
    """The report: sections of rows, in order, and the problems found."""

    sections: dict[str, Rows] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not any(problem.fatal for problem in self.problems)

    def check(self, title: str, section: Callable[[list[Problem]], Rows]) -> None:
        """Add a section. An exception in it becomes a problem."""
        try:
            self.sections[title] = section(self.problems)
        except Exception as error:  # of any kind: the other sections are still worth having
            self.sections[title] = {"failed": redact(f"{type(error).__name__}: {error}")}
            self.problems.append(
                Problem(f"section {title} failed, got {redact(str(error))}", "report this as a bug, with this report")
            )


def diagnose(*, benchmark: bool = True) -> Diagnosis:
    """Run all checks.

    Args:
        benchmark: measure the speed as well, which takes about ten seconds.
    """
    diagnosis = Diagnosis()
    diagnosis.check("system", system)
    diagnosis.check("packages", packages)
    diagnosis.check("devices", devices)
    diagnosis.check("VapourSynth", vapoursynth)
    diagnosis.check("FFmpeg", ffmpeg)
    diagnosis.check("models", models)
    diagnosis.check("folders", folders)
    diagnosis.check("environment", environment)
    diagnosis.check("self-test", self_test)
    if benchmark and diagnosis.usable:
        diagnosis.check("benchmark", speed)
    diagnosis.problems.sort(key=lambda problem: not problem.fatal)
    return diagnosis


def issues_url() -> str | None:
    """Where to report bugs; None if vsrife runs from a checkout uninstalled."""
    try:
        urls = importlib.metadata.metadata("vsrife").get_all("Project-URL") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((url for label, _, url in (each.partition(", ") for each in urls) if label == "Issues"), None)


def redact(text: str) -> str:
    """Replace the path of the home directory by `~`."""
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
    versions = {name: _version(name) for name in PACKAGES}
    for name in ("torch", "vapoursynth"):
        if versions[name] is None:
            problems.append(Problem(f"{name} is not installed", "install vsrife again: pip install .", fatal=True))
    for name, oldest in _required().items():
        version = versions.get(name)
        if version is not None and _numbers(version) < _numbers(oldest):
            problems.append(Problem(f"{name} {version} is too old, vsrife needs {oldest}", f"pip install -U {name}"))
    return {name: version or "not installed" for name, version in versions.items()}


def _required() -> dict[str, str]:
    """Oldest version of each package that vsrife declares; empty if vsrife runs from a checkout uninstalled."""
    try:
        declared = importlib.metadata.requires("vsrife") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    matches = (re.match(r"([\w-]+)(?:\[.*\])?>=([\d.]+)", line) for line in declared)
    return {match[1]: match[2] for match in matches if match}


def _numbers(version: str) -> list[int]:
    """Leading numbers of a version: "2.14.1+cu130" gives 2, 14, 1."""
    match = re.match(r"\d+(\.\d+)*", version)
    return [int(number) for number in match[0].split(".")] if match else []


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
    except (AttributeError, ValueError, OSError):  # on Windows
        return "unknown"


# --- devices ----------------------------------------------------------------------------------------------------------


def devices(problems: list[Problem]) -> Rows:
    import torch  # here: it may be missing or broken

    from vsrife.engine.devices import parse_device  # here: it may be missing or broken

    default = parse_device(None)
    threads = torch.get_num_threads()
    rows = {
        "torch": f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}",
        "default": str(default),
        "cpu": f"{torch.backends.cpu.get_cpu_capability()}, {threads} threads",
        **_accelerators(),
        **_cuda_kernels(problems),
        **{f"precisions of {device}": _precisions(device) for device in dict.fromkeys((default.type, "cpu"))},
    }
    driver = _nvidia_driver()
    if driver:
        rows["NVIDIA driver"] = driver
        if not torch.cuda.is_available():
            problems.append(_unused_gpu(torch.version.cuda))
    if threads < (os.cpu_count() or 1) // 2:
        problems.append(
            Problem(
                f"torch uses {threads} of {os.cpu_count()} CPU threads",
                "unset OMP_NUM_THREADS, unless the limit is intended",
            )
        )
    if default.type == "cpu" and _version("numba") is None:
        problems.append(
            Problem("numba is not installed, so a frame takes almost three times as long", "pip install numba")
        )
    if default.type == "cpu" and os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        problems.append(Problem("NUMBA_DISABLE_JIT turns the CPU kernels off", "unset NUMBA_DISABLE_JIT"))
    return rows


def _precisions(device: str) -> str:
    """Which precisions a device offers, which is the default, and why the others are not fast."""
    import torch  # here: it may be missing or broken

    from vsrife.checkpoints.finding import bundled_name  # here: it may be missing or broken
    from vsrife.engine.devices import best_precision, parse_precision  # likewise
    from vsrife.engine.keywords import Precision

    chosen = torch.device(device)
    best, parts = best_precision(chosen, bundled_name()), []
    for name in get_args(Precision):
        try:
            parse_precision(name, chosen)
        except RifeError as error:
            parts.append(f"{name} no ({str(error).partition(' needs ')[2].partition(';')[0] or 'not on this device'})")
            continue
        emulated = device == "cpu" and (name == "fp16" or (name == "bf16" and best_precision(chosen) != "bf16"))
        parts.append(f"{name} {'default' if name == best else 'slow (emulated)' if emulated else 'yes'}")
    return ", ".join(parts)


def _accelerators() -> Rows:
    import torch  # here: it may be missing or broken

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


def _cuda_kernels(problems: list[Problem]) -> Rows:
    """Whether Triton's kernels run on each CUDA device, and how to get them."""
    import torch  # here: it may be missing or broken

    from vsrife.ops.dispatch import CUDA_VARIABLE, cuda_mode, kernels_problem  # here: it may be missing or broken

    rows = {}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        what, _, remedy = kernels_problem(torch.device("cuda", index)).partition("; ")
        rows[f"kernels of cuda:{index}"] = f"plain PyTorch: {what}" if what else "Triton"
        if remedy:
            problems.append(Problem(f"cuda:{index} uses plain PyTorch alone, which is slower: {what}", remedy))
    return rows | ({CUDA_VARIABLE: cuda_mode() or "not set"} if rows else {})


def _nvidia_driver() -> str | None:
    """Version of NVIDIA's driver; None if there is none."""
    try:
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
    except OSError:
        return "present" if shutil.which("nvidia-smi") else None
    words = text.splitlines()[0].split()
    return next((word for word in words if word.replace(".", "").isdigit()), "present")


def _unused_gpu(cuda: str | None) -> Problem:
    if cuda is None:
        why = " (on Windows, the wheels of PyPI are for CPUs only)" if sys.platform == "win32" else ""
        return Problem(
            f"an NVIDIA GPU is present, but this torch is built for CPUs only{why}",
            f"pip install --force-reinstall torch --index-url {_CUDA_WHEELS}",
        )
    return Problem(
        f"an NVIDIA GPU is present, but torch for CUDA {cuda} cannot use it",
        "update NVIDIA's driver, and check that CUDA_VISIBLE_DEVICES does not hide the GPU",
    )


# --- frameserver, encoders --------------------------------------------------------------------------------------------


def vapoursynth(problems: list[Problem]) -> Rows:
    if _version("vapoursynth") is None:
        return {}
    import vapoursynth as vs  # here: it may be missing or broken

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
        problems.append(Problem("PyAV is not installed; `vsrife video` encodes with it", "pip install '.[cli]'"))
        return {}
    from vsrife.video.codecs import CODECS, library_versions, missing_codecs  # here: it may be missing or broken

    libraries, missing = library_versions(), missing_codecs()
    if missing:
        problems.append(
            Problem(f"this PyAV lacks encoders for {', '.join(missing)}", "use another --codec, or PyAV's own wheel")
        )
    names = ("libavcodec", "libavformat", "libswscale")
    return {"libraries": ", ".join(f"{name} {libraries[name]}" for name in names if name in libraries),
            "codecs": ", ".join(row.name for row in CODECS if row.name not in missing)}  # fmt: skip


# --- models, folders, environment -------------------------------------------------------------------------------------


def models(problems: list[Problem]) -> Rows:
    from vsrife.checkpoints.finding import BUNDLED_SOURCE, default_model, find_weights  # here: may be missing or broken
    from vsrife.checkpoints.installed import stored_models, verify

    rows = {}
    default = default_model()
    if default.source != BUNDLED_SOURCE:
        rows["default"] = f"{default.name}, set by {redact(default.source)}"
        try:
            find_weights(None)
        except RifeError as error:
            problems.append(Problem(redact(str(error)), "run: vsrife models default default", fatal=True))
    for model in stored_models():
        if model.path is None:
            continue
        name = f"{model.name} (default)" if model.is_default else model.name
        try:
            weights = verify(model)
        except RifeError as error:
            rows[name] = "unusable"
            what, _, remedy = redact(str(error)).partition("; ")
            problems.append(Problem(what, remedy, fatal=model.is_default))
        else:
            rows[name] = f"verified, {weights.layout.id}, {model.kind}"
    return rows


def folders(problems: list[Problem]) -> Rows:
    from vsrife.checkpoints.finding import model_directory, package_directory  # here: it may be missing or broken

    models = model_directory()
    if models.exists() and not os.access(models, os.W_OK):
        problems.append(Problem(f"{redact(str(models))} is not writable", "set VSRIFE_MODEL_DIR to another folder"))
    state = "" if models.is_dir() else "  (created by the first download)"
    return {
        "package": redact(str(Path(__file__).parent)),
        "bundled models": redact(str(package_directory())),
        "models": f"{redact(str(models))}{state}",
    }


def environment(problems: list[Problem]) -> Rows:  # noqa: ARG001
    names = [*sorted(name for name in os.environ if name.startswith(OWN_PREFIX)), *VARIABLES]
    return {name: redact(_without_password(os.environ[name])) for name in names if name in os.environ}


def _without_password(value: str) -> str:
    """Remove user name and password from a URL."""
    parts = urlsplit(value) if "://" in value else None
    if parts is None or parts.username is None:
        return value
    return parts._replace(netloc=f"…@{parts.hostname}").geturl()


# --- self-test and speed ----------------------------------------------------------------------------------------------


def self_test(problems: list[Problem]) -> Rows:
    """Interpolate a small pair with the default model, by itself and through the filter."""
    if any(problem.fatal for problem in problems):
        return {"result": "skipped because of the problems"}
    try:
        import vsrife  # here: it may be missing or broken
        from vsrife.evaluation.speed import moving_clip, picture

        a, b = (picture(64, 64, n) for n in (0, 1))
        middle = vsrife.interpolate(a, b)
        assert middle.shape == a.shape
        clip = vsrife.RIFE(moving_clip(64, 64)[:2])
        frames = [frame.format.name for frame in clip.frames(close=True)]
        return {"result": f"passed, {len(frames)} frames of {frames[0]}"}
    except Exception as error:
        problems.append(
            Problem(
                f"interpolation fails, got {redact(str(error))}", "report this as a bug, with this report", fatal=True
            )
        )
        return {"result": "failed"}


def speed(problems: list[Problem]) -> Rows:  # noqa: ARG001
    """Time per pair and output frames/s of the filter, at as many sizes as `BENCHMARK_SECONDS` allow."""
    from vsrife.evaluation.speed import filter_rate, moving_clip, pair_ms  # here: it may be missing or broken

    rows: Rows = {}
    end = time.monotonic() + BENCHMARK_SECONDS
    for index, (width, height) in enumerate(BENCHMARK_SIZES):
        share = (end - time.monotonic()) / (len(BENCHMARK_SIZES) - index)
        if share < BENCHMARK_SECONDS / 8:
            rows[f"{width}x{height}"] = "skipped: out of time"
            continue
        pair = pair_ms(width, height, share / 4)
        rate = filter_rate(moving_clip(width, height), share / 4)
        rows[f"{width}x{height}"] = (
            f"{pair:.0f} ms per pair (RGB, both frames new), {rate:.2f} output frames/s (YUV420P8)"
        )
    return rows
