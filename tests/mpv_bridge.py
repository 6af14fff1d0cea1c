"""Plays a script the way mpv does, and says as JSON what came of it. For tests: there is no mpv for today's wheels.

    python mpv_bridge.py SCRIPT [--concurrent 2] [--buffered 4] [--frames 48] [--seeks 2] [--jump-after 9]

Each seek makes a new VapourSynth environment and runs the script anew in it, with mpv's variables; modules stay. The
clip is YUV, without a rate and without an end. Frames before a sliding window and after the end of the file fail; the
first frame that fails ends playback. A seek in mid-play fails what is still asked of the source, and waits for every
frame in flight before it lets go of the nodes. While the script runs, the source is black. The last frame has a
negative duration, durations are read as 32-bit integers, a frame without a positive one has no time, and Python's root
logger leads to a log that nobody reads.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import logging
import runpy
import threading
import time
import warnings
from typing import Any
from unittest import mock

import numpy as np
import vapoursynth as vs

LENGTH = (2**31 - 1) // 16
PATIENCE_S = 60.0
IMAGE = 0x7F00_0000_0000  # mpv keeps a pointer in a prop, as bytes


class Environments(vs.EnvironmentPolicy):  # type: ignore[misc, unused-ignore]
    """One environment at a time for each thread, made and destroyed at will."""

    def __init__(self) -> None:
        self.local = threading.local()
        self.api: Any = None

    def on_policy_registered(self, special_api: Any) -> None:
        self.api = special_api

    def on_policy_cleared(self) -> None:
        self.api = None

    def get_current_environment(self) -> Any:
        return getattr(self.local, "environment", None)

    def set_environment(self, environment: Any) -> Any:
        before, self.local.environment = self.get_current_environment(), environment
        return before

    def is_alive(self, environment: Any) -> bool:
        return environment is not None


class Bridge:
    """The source side: a window of frames that slides with the requests."""

    def __init__(self, options: argparse.Namespace, first: int) -> None:
        self.options = options
        self.window = options.buffered * options.concurrent
        self.first = first  # of the file, after a seek
        self.lowest, self.highest, self.furthest_back = 0, -1, 0
        self.loading, self.asked_while_loading = True, 0
        self.shutdown = False
        self.lock = threading.Lock()
        width, height = options.size
        blank = vs.core.std.BlankClip(
            width=width, height=height, format=options.format, length=LENGTH, fpsnum=0, fpsden=1, keep=True
        )
        self.clip = blank.std.ModifyFrame([blank], self.feed)

    def feed(self, n: int, f: vs.VideoFrame) -> vs.VideoFrame:
        with self.lock:
            if self.shutdown:
                raise RuntimeError("EOF or filter reset/uninit")
            if self.loading:  # mpv warns that this is unsupported
                self.asked_while_loading += 1
                black = f.copy()
                black.props.update({"_DurationNum": 0, "_DurationDen": 1})
                return black
            if n >= self.options.frames:
                raise RuntimeError("EOF or filter EOF/reinit")
            if n < self.lowest:
                raise RuntimeError(f"Frame {n} requested, but only have frames starting from {self.lowest}")
            self.furthest_back = max(self.furthest_back, self.highest - n)
            self.highest = max(self.highest, n)
            self.lowest = max(self.lowest, n - self.window + 1)
        frame = f.copy()
        number = self.first + n
        for plane in range(3):
            samples = np.asarray(frame[plane])
            bar = (np.arange(samples.shape[1]) + 2 * number) // 8 % 2
            samples[:] = ((90 + 40 * bar) * (samples.itemsize * 2 - 1)).astype(samples.dtype)[None]
        # Not _Matrix: mpv writes the matrix as _ColorSpace.
        micros = 41708 if n < self.options.frames - 1 else -1_000_000
        frame.props.update({"_DurationNum": micros, "_DurationDen": 1_000_000, "_SARNum": 1, "_SARDen": 1})
        frame.props.update({"_ColorSpace": 1, "_ChromaLocation": 0, "_PictType": "P"})
        frame.props["_FieldBased"] = self.options.field_based
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            frame.props["_ColorRange"] = 1  # mpv uses the older name
        frame.props["_MP_IMAGE"] = (IMAGE + number).to_bytes(8, "little")
        return frame


def load(script: str, bridge: Bridge, options: argparse.Namespace) -> Any:
    variables = {
        "video_in": bridge.clip,
        "video_in_dw": options.size[0],
        "video_in_dh": options.size[1],
        "container_fps": options.container_fps,
        "display_fps": options.display_fps,
        "display_res": [1920, 1080],
        "user_data": options.user_data,
    }
    runpy.run_path(script, init_globals=variables)
    return vs.get_output(0).clip


def read(frame: vs.VideoFrame) -> dict[str, int]:
    """What mpv takes from a frame."""
    keys = ("_DurationNum", "_DurationDen")
    result = {key: ctypes.c_int32(frame.props[key]).value for key in keys if key in frame.props}
    image = frame.props.get("_MP_IMAGE")
    return result | ({"_MP_IMAGE": int.from_bytes(image, "little")} if isinstance(image, bytes) else {})


def play(clip: Any, bridge: Bridge, options: argparse.Namespace) -> tuple[list[dict[str, int]], str]:
    """Keep requests in flight and show frames in order, until one fails or a seek is due."""
    arrived: dict[int, dict[str, int] | Exception] = {}
    changed = threading.Condition()
    shown: list[dict[str, int]] = []
    requested = 0

    def arrival(n: int) -> Any:
        def arrive(frame: vs.VideoFrame | None, error: Exception | None) -> None:
            result = error or (read(frame) if frame is not None else {})
            if frame is not None:
                frame.close()
            with changed:
                arrived[n] = result
                changed.notify_all()

        return arrive

    while True:
        while requested < len(shown) + options.concurrent:
            clip.get_frame_async(requested, arrival(requested))
            requested += 1
        with changed:
            if not changed.wait_for(lambda: len(shown) in arrived, PATIENCE_S):
                raise TimeoutError(f"frame {len(shown)} did not come")
            result = arrived.pop(len(shown))
        failed = isinstance(result, Exception)
        if not isinstance(result, Exception):
            shown.append(result)
        jump = len(shown) == options.jump_after
        if failed or jump:
            bridge.shutdown = jump
            outstanding = requested - len(shown) - failed
            with changed:
                if not changed.wait_for(lambda: len(arrived) == outstanding, PATIENCE_S):  # noqa: B023 - leaves the loop
                    raise TimeoutError(f"{outstanding - len(arrived)} frames in flight did not come back")
            return shown, "seek" if jump else str(result).strip().splitlines()[-1]


def watch(environments: Environments, options: argparse.Namespace, seek: int, read: mock.Mock) -> dict[str, Any]:
    """Everything from a seek to the end of the file, in an environment of its own."""
    environment = environments.api.create_environment()
    with environments.api.wrap_environment(environment).use():
        bridge = Bridge(options, first=1000 * seek)
        start = time.perf_counter()
        clip = load(options.script, bridge, options)
        load_ms = 1000 * (time.perf_counter() - start)
        bridge.loading = False
        fps, color_family = [clip.fps_num, clip.fps_den], clip.format.color_family.name
        shown, reason = play(clip, bridge, options)
        del clip
    environments.api.destroy_environment(environment)
    gc.collect()
    return {
        "load_ms": round(load_ms, 2),
        "fps": fps,
        "color_family": color_family,
        "shown": shown,
        "reason": reason,
        "furthest_back": bridge.furthest_back,
        "asked_while_loading": bridge.asked_while_loading,
        "weights_read": read.call_count,
        "workers": sum(thread.name == "vsrife" for thread in threading.enumerate()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Play a script as mpv does.")
    parser.add_argument("script")
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--buffered", type=int, default=4)
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--seeks", type=int, default=0)
    parser.add_argument("--jump-after", type=int, help="frames shown until the next seek, instead of all")
    parser.add_argument("--container-fps", type=float, default=23.976)
    parser.add_argument("--display-fps", type=float, default=60.0)
    parser.add_argument("--user-data", default="")
    parser.add_argument("--format", type=lambda name: int(getattr(vs, name)), default=int(vs.YUV420P8))
    parser.add_argument("--field-based", type=int, default=0)
    parser.add_argument("--size", type=int, nargs=2, default=(64, 64))
    options = parser.parse_args()

    logging.getLogger().addHandler(logging.NullHandler())  # VapourSynth's bridge
    environments = Environments()
    vs.register_policy(environments)
    from vsrife.checkpoints.loading import load_model  # after the policy: as in a player, where the script imports it

    with mock.patch("vsrife.engine.loaded.load_model", wraps=load_model) as read:
        rounds = [watch(environments, options, seek, read) for seek in range(options.seeks + 1)]
    print(json.dumps(rounds))


if __name__ == "__main__":
    main()
