"""`rife()` runs what was written for vs-rife 5.7: every keyword, with its meaning."""

from __future__ import annotations

import inspect
import logging
from fractions import Fraction
from typing import Any

import pytest
import vapoursynth as vs

import vsrife.filters.compat
import vsrife.filters.rife
from tests.clips import (
    counted_runs,
    counting,
    equal,
    marks,
    pan,
    planes_of,
    spliced,
    value_of,
    with_props,
)
from vsrife import RIFE, rife
from vsrife.checkpoints.loading import Network
from vsrife.engine.loaded import NetworkOptions, network
from vsrife.errors import WeightsError

# Names, order and defaults of the published function, save the default of `model`, which was "4.25".
PUBLISHED: dict[str, Any] = {
    "device_index": 0,
    "model": None,
    "auto_download": False,
    "factor_num": 2,
    "factor_den": 1,
    "fps_num": None,
    "fps_den": None,
    "scale": 1.0,
    "ensemble": False,
    "sc": False,
    "sc_threshold": 0.15,
    "trt": False,
    "trt_static_shape": True,
    "trt_min_shape": [128, 128],
    "trt_opt_shape": [1920, 1080],
    "trt_max_shape": [1920, 1080],
    "trt_workspace_size": 0,
    "trt_max_aux_streams": None,
    "trt_optimization_level": None,
    "trt_cache_dir": None,
}


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[NetworkOptions]:
    """What was asked to be loaded; the bundled weights come instead."""
    asked: list[NetworkOptions] = []

    def bundled(options: NetworkOptions) -> Network:
        asked.append(options)
        return network(NetworkOptions(None, 1.0, False, options.device, options.dtype))

    monkeypatch.setattr(vsrife.filters.rife, "network", bundled)
    return asked


def test_names_order_and_defaults() -> None:
    parameters = list(inspect.signature(rife).parameters.values())
    assert parameters[0].name == "clip"
    ours = {p.name: list(p.default) if isinstance(p.default, tuple) else p.default for p in parameters[1:]}
    assert list(ours) == list(PUBLISHED)
    assert ours == PUBLISHED
    assert all(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in parameters)


def test_every_keyword_at_once(loaded: list[NetworkOptions]) -> None:
    out = rife(pan(3, fmt="RGBS"), **(PUBLISHED | {"factor_num": 3, "trt_cache_dir": "/nowhere"}))
    assert (out.num_frames, out.format.id) == (9, vs.RGBS)
    assert [options.model for options in loaded] == [None]


@pytest.mark.parametrize("fmt", ["RGBH", "RGBS"])
def test_same_frames_as_the_other_spelling(fmt: str) -> None:
    clip = pan(3, fmt=fmt)
    assert equal(planes_of(rife(clip), 1), planes_of(RIFE(clip, sc_threshold=1.0), 1))


@pytest.mark.usefixtures("linear")
def test_factor() -> None:
    out = rife(counting(6), factor_num=5, factor_den=2)
    assert (out.num_frames, out.fps) == (15, 60)
    assert [value_of(out, n) for n in range(4)] == pytest.approx([0, 0.4, 0.8, 1.2])


@pytest.mark.parametrize(
    ("fps", "rate"), [((60, 1), 60), ((60, None), 72), ((None, 1), 72), ((60000, 1001), Fraction(60000, 1001))]
)
@pytest.mark.usefixtures("linear")
def test_a_rate_given_in_full_replaces_the_factor(fps: tuple[int | None, int | None], rate: Fraction) -> None:
    out = rife(counting(6), factor_num=3, fps_num=fps[0], fps_den=fps[1])
    assert out.fps == rate


def test_what_to_load(loaded: list[NetworkOptions]) -> None:
    rife(pan(2), model="4.18", scale=0.5, ensemble=True)
    (options,) = loaded
    assert (options.model, options.scale, options.ensemble) == ("4.18", 0.5, True)


def test_the_device_index_counts_cuda_devices(loaded: list[NetworkOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    rife(pan(2), device_index=0)
    assert loaded[0].device.index in (None, 0)
    devices: list[object] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)

    def build(_: str, clips: list[vs.VideoNode], *_args: Any, **keywords: Any) -> list[vs.VideoNode]:
        devices.append(keywords["device"])
        return clips

    monkeypatch.setattr(vsrife.filters.compat, "build", build)
    rife(pan(2), device_index=1)
    assert devices == ["cuda:1"]


def test_scene_changes_are_left_alone_unless_asked_for() -> None:
    clip = with_props(spliced(2, 2, fmt="RGBS"), lambda n: {"_SceneChangeNext": int(n == 1)})
    with counted_runs() as runs:
        made = planes_of(rife(clip, sc=False, sc_threshold=0.15), 3)
        assert runs == [0.5]
    assert not equal(made, planes_of(clip, 1))
    assert not equal(made, planes_of(clip, 2))


def test_scene_changes_are_found_when_asked_for() -> None:
    clip = spliced(2, 2, fmt="RGBS")
    out = rife(clip, sc=True)
    assert equal(planes_of(out, 3), planes_of(clip, 2))
    assert marks(out) == {"_SceneChangeNext": [2], "_SceneChangePrev": [3]}


def test_without_a_threshold_existing_props_are_used() -> None:
    clip = spliced(2, 2, fmt="RGBS")
    assert not equal(planes_of(rife(clip, sc=True, sc_threshold=None), 3), planes_of(clip, 2))
    marked = with_props(pan(4), lambda n: {"_SceneChangeNext": int(n == 1), "_SceneChangePrev": 0})
    assert equal(planes_of(rife(marked, sc=True, sc_threshold=None), 3), planes_of(marked, 2))


def test_tensorrt_options_do_nothing_and_say_so_once(caplog: pytest.LogCaptureFixture) -> None:
    vsrife.filters.rife.warn_once.cache_clear()
    options: dict[str, Any] = {
        "trt": True,
        "trt_static_shape": False,
        "trt_min_shape": [64, 64],
        "trt_opt_shape": [128, 128],
        "trt_max_shape": [256, 256],
        "trt_workspace_size": 1 << 30,
        "trt_max_aux_streams": 2,
        "trt_optimization_level": 5,
        "trt_cache_dir": "/nowhere",
    }
    clip = pan(2)
    with caplog.at_level(logging.WARNING):
        first, _ = rife(clip, **options), rife(clip, **options)
    assert [record.message for record in caplog.records] == [
        "rife: trt and its options have no effect: there are no engines to build"
    ]
    assert equal(planes_of(first, 1), planes_of(rife(clip), 1))


def test_missing_weights_are_downloaded_only_with_auto_download(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []

    def missing(model: object) -> None:
        raise WeightsError(f"no weights of {model}")

    monkeypatch.setattr(vsrife.filters.compat, "download_missing", fetched.append)
    monkeypatch.setattr(vsrife.filters.rife, "network", lambda options: missing(options.model))
    with pytest.raises(vs.Error, match=r"^rife: no weights of 4\.26"):
        rife(pan(2), model="4.26")
    assert not fetched
    with pytest.raises(vs.Error, match=r"^rife: no weights of 4\.26"):
        rife(pan(2), model="4.26", auto_download=True)
    assert fetched == ["4.26"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"factor_num": 0}, "rife: factor_num must be an integer of at least 1, got 0"),
        ({"factor_den": 2.5}, "rife: factor_den must be an integer of at least 1, got 2.5"),
        ({"factor_num": 1, "factor_den": 2}, "rife: multi must be at least 1, got "),
        ({"fps_num": -1, "fps_den": 1}, "rife: fps_num must be an integer of at least 1, got -1"),
        ({"fps_num": 12, "fps_den": 1}, "rife: fps must be at least the clip's rate of 24, got "),
        ({"sc": True, "sc_threshold": 2}, "rife: sc_threshold must be between 0 and 1, or None, got 2; "),
        ({"scale": 3}, "rife: scale must be 0.25, 0.5, 1, 2 or 4, got 3; "),
    ],
    ids=str,
)
def test_refusals_name_this_function(options: Any, text: str) -> None:
    with pytest.raises(vs.Error) as caught:
        rife(pan(2), **options)
    assert str(caught.value).startswith(text)


# --- vs-rife 1.x and 2.x ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "cuda", "device", "precision"),
    [
        ({"fp16": True}, True, None, "fp16"),
        ({"fp16": False}, True, None, "fp32"),
        ({"fp16": True}, False, None, None),  # half precision was CUDA's alone
        ({"device_type": "cpu", "fp16": True}, True, "cpu", None),
        ({"device_type": "cuda", "device_index": 1, "fp16": True}, True, "cuda:1", "fp16"),
        ({"device_type": "cuda"}, False, "cuda:0", None),
        ({"device_index": 1}, True, "cuda:1", None),
        ({"device_index": 1}, False, None, None),
    ],
    ids=str,
)
def test_old_keywords_of_rife(
    old: Any, cuda: bool, device: str | None, precision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def build(_: str, clips: list[vs.VideoNode], *_args: Any, **keywords: Any) -> list[vs.VideoNode]:
        asked.append((keywords["model"], keywords["device"], keywords["precision"]))
        return clips

    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr(vsrife.filters.rife, "build", build)
    RIFE(pan(2), 2, 0.5, **old)
    RIFE(pan(2), model_ver=3.1, **old)
    assert asked == [(None, device, precision), ("3.1", device, precision)]


def test_old_keywords_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    vsrife.filters.rife.warn_once.cache_clear()
    clip = pan(2)
    with caplog.at_level(logging.WARNING):
        first, _ = (RIFE(clip, multi=2, scale=1.0, device_type="cpu", fp16=False) for _ in range(2))
    assert [record.message for record in caplog.records] == [
        "RIFE: device_type, fp16: keywords of vs-rife 1.x and 2.x; use device=, precision= and model="
    ]
    assert equal(planes_of(first, 1), planes_of(RIFE(clip, device="cpu"), 1))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"device_type": "npu"}, "device_type must be 'cuda' or 'cpu', got 'npu'"),
        ({"device_index": -1}, "device_index must be an integer of at least 0, got -1"),
        ({"fp16": True, "precision": "fp32"}, "fp16 is the older spelling of a keyword that is there too"),
        ({"device_type": "cpu", "device": "cpu"}, "device_type is the older spelling of a keyword that is there too"),
        ({"fps_num": 60}, "there is no keyword 'fps_num'"),
    ],
    ids=str,
)
def test_old_keywords_that_are_refused(options: Any, text: str) -> None:
    with pytest.raises(vs.Error, match="^RIFE: " + text):
        RIFE(pan(2), **options)
