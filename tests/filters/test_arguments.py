"""Every refusal beside the nearest accepted value, with its text."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
import vapoursynth as vs

from tests.cpu_units import simulate_cpu
from vsrife.engine.devices import parse_device, parse_precision, parse_scale
from vsrife.errors import ClipError, DeviceError, OptionError, RifeError
from vsrife.filters.arguments import Options, check_options
from vsrife.filters.frames import picture_format
from vsrife.timing.parsing import parse_pair, parse_threshold

core = vs.core
CPU = torch.device("cpu")
NO_NUMBER = "must be a number, got"


def clip(fmt: int = vs.YUV420P8, length: int = 10, fps: tuple[int, int] = (24, 1), **size: int) -> vs.VideoNode:
    size = {"width": 64, "height": 48} | size
    return core.std.BlankClip(format=fmt, length=length, fpsnum=fps[0], fpsden=fps[1], keep=True, **size)


def checked(node: vs.VideoNode, **options: Any) -> Options:
    usual: dict[str, Any] = {"multi": None, "sc_threshold": 0.15, "device": "cpu"}
    return check_options(node, **(usual | options))


@pytest.mark.parametrize(
    ("parse", "accepted", "refused", "message"),
    [
        (parse_scale, {0.25: 0.25, 0.5: 0.5, 1: 1.0, 2: 2.0, 4: 4.0}, (0.3, 0, 8, True, "1", None, float("nan")),
         "scale must be 0.25, 0.5, 1, 2 or 4, got {!r}; for 4K sources try 0.5"),
        (parse_threshold, {0: 0.0, 0.15: 0.15, 1: 1.0, None: None}, (-0.01, 1.01, True, "0.1", float("nan")),
         "sc_threshold must be between 0 and 1, or None, got {!r}; 0.15 is usual, None obeys frame props only, "),
        (lambda v: parse_precision(v, CPU), {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16},
         ("FP16", 16, "", ["fp16"], torch.float16),
         "precision must be one of fp32, fp16, bf16, int8, got {!r}; leave it out for the best"),
        (lambda v: parse_pair("fps", v, 1), {1: Fraction(1), 60: Fraction(60)}, (0, -1, 1.0, True, "1"),
         "fps_num must be an integer of at least 1, got {!r}"),
        (lambda v: parse_pair("factor", 5, v), {1: Fraction(5), 2: Fraction(5, 2)}, (0, -1, 2.0, True, None),
         "factor_den must be an integer of at least 1, got {!r}"),
    ],
    ids=["scale", "sc_threshold", "precision", "fps_num", "factor_den"],
)  # fmt: skip
def test_accepted_and_refused(
    parse: Callable[[Any], Any], accepted: dict[Any, Any], refused: tuple[Any, ...], message: str
) -> None:
    for value, expected in accepted.items():
        assert parse(value) == expected
    for value in refused:
        with pytest.raises(OptionError, match=re.escape(message.format(value))):
            parse(value)


@pytest.mark.parametrize("device", ["bogus", "", 2.5, "cuda:99"], ids=repr)
def test_device_that_is_not_here(device: Any) -> None:
    """One line that names what was asked for, why not, and a way out."""
    with pytest.raises(DeviceError) as caught:
        parse_device(device)
    text = str(caught.value)
    assert text.startswith(f"device cannot be used, got {device!r} (")
    assert text.endswith("; try 'cpu'")
    assert "\n" not in text


def test_device() -> None:
    assert parse_device("cpu") == parse_device(CPU) == CPU
    best = parse_device(None)
    assert (best.type == "cuda") == torch.cuda.is_available()
    assert parse_precision(None, torch.device("cuda")) == torch.float16


@pytest.mark.parametrize("units", [(), ("bf16",), ("amx",), ("vnni",), ("vnni", "bf16")], ids=str)
def test_precision_of_a_cpu(monkeypatch: pytest.MonkeyPatch, units: tuple[str, ...]) -> None:
    """Half precision and eight bits are the best where the CPU has units for it, these for bundled models alone."""
    simulate_cpu(monkeypatch, *units)
    of_others = torch.bfloat16 if {"bf16", "amx"} & {*units} else torch.float32
    assert parse_precision(None, CPU) == of_others
    for bundled in ("base", "lite", "fast"):
        best = torch.int8 if "vnni" in units else of_others
        assert parse_precision(None, CPU, bundled=bundled) == best
        assert parse_precision("fp32", CPU, bundled=bundled) == torch.float32
    assert parse_precision(None, CPU, torch.device("cuda"), bundled="base") == torch.float32


# --- clips ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", [vs.YUV420P8, vs.YUV422P10, vs.YUV444P16, vs.GRAY8, vs.RGB24, vs.RGBH, vs.YUV420PS])
def test_formats_that_are_taken(fmt: int) -> None:
    node, known = clip(fmt), core.get_video_format(fmt)
    got = picture_format(node)
    assert (got.family, got.bits, got.floating) == (
        known.color_family.name, known.bits_per_sample, known.sample_type == vs.FLOAT
    )  # fmt: skip
    assert (got.width, got.height) == (64, 48)
    assert (got.subsampling_w, got.subsampling_h) == (known.subsampling_w, known.subsampling_h)


def test_formats_that_are_refused() -> None:
    sizes = core.std.Splice([clip(), clip(width=32)], mismatch=True)
    formats = core.std.Splice([clip(), clip(vs.RGB24)], mismatch=True)
    for node, message in (
        (sizes, "clip must have one format and size, got YUV420P8 and a variable size; convert it with resize.Bicubic"),
        (formats, "clip must have one format and size, got a variable format and 64x48; convert it"),
        (clip(vs.GRAY32), "clip must have 8 to 16 bit or float samples, got Gray32; convert it with resize.Point"),
        ("video.mp4", "clip must be a video node, got str; pass what a source filter returned"),
        (core.std.BlankAudio(length=10), "clip must be a video node, got AudioNode; pass"),
    ):
        with pytest.raises(ClipError, match=re.escape(message)):
            picture_format(node)


# --- multi, fps and timestamps together -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fps", "length"),
    [
        ({"multi": 3}, (24, 1), 30),
        ({"multi": 2.5}, (0, 1), 25),
        ({"fps": 60}, (24, 1), 25),
        ({"fps": 59.94}, (24000, 1001), 25),
        ({"fps": 25}, (24, 1), 11),
        ({"timestamps": [n / 10 for n in range(10)], "fps": 25}, (0, 1), 25),
        ({"timestamps": [n / 10 for n in range(11)], "fps": 5}, (0, 1), 5),
    ],
)
def test_schedule(options: dict[str, Any], fps: tuple[int, int], length: int) -> None:
    schedule = checked(clip(fps=fps), **options).schedule
    assert schedule is not None
    assert schedule.num_frames == length


@pytest.mark.parametrize("options", [{"multi": 1}, {"multi": 1.0}, {"fps": 24}, {"fps": "24"}])
def test_clip_comes_back_as_it_is(options: dict[str, Any]) -> None:
    assert checked(clip(), **options).schedule is None


@pytest.mark.parametrize(
    ("options", "fps", "error", "message"),
    [
        ({"multi": 4, "fps": 60}, (24, 1), OptionError,
         "multi and fps exclude each other, got multi=4 and fps=60; give one of them"),
        ({"fps": 23.9}, (24, 1), OptionError, "fps must be at least the clip's rate of 24, got 23.9; to drop"),
        ({"fps": 60}, (0, 1), ClipError, "fps needs a clip with a known rate, got fps=60 and a clip of rate 0/0; give"),
        ({"timestamps": [0.0]}, (24, 1), OptionError, "timestamps need fps, got no fps; add the constant rate wanted"),
        ({"timestamps": [0.0, 1.0], "fps": 60}, (24, 1), OptionError,
         "timestamps must give a time for each of the clip's 10 frames, got 2; one more"),
        ({"timestamps": 5, "fps": 60}, (24, 1), OptionError, "timestamps must be seconds or the path of a timecodes"),
        ({"timestamps": ["a"] * 10, "fps": 60}, (24, 1), OptionError, f"timestamps {NO_NUMBER} 'a'"),
        ({"timestamps": "none.txt", "fps": 60}, (24, 1), OptionError,
         "timestamps file cannot be read, got 'none.txt'"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(
    options: dict[str, Any], fps: tuple[int, int], error: type[RifeError], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        checked(clip(fps=fps), **options)


def test_threshold_of_one_and_none() -> None:
    """1.0 interpolates across cuts; None leaves cuts to frame props."""
    never, props, usual = (checked(clip(), sc_threshold=value) for value in (1.0, None, 0.15))
    assert (never.cuts, props.cuts, usual.cuts) == (False, True, True)
    assert (never.threshold, props.threshold, usual.threshold) == (None, None, 0.15)
