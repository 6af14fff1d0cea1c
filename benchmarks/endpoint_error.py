"""Score a model's flow against exactly known motion: the mean end-point error in pixels.

    python benchmarks/endpoint_error.py
    python benchmarks/endpoint_error.py --model 4.26 --scale 2

A photograph is moved, zoomed and turned by functions whose inverse is known. `vsrife.flow` at time 0 gives the flow
from the first picture to the second at the pixels of the first, at time 1 that back at the pixels of the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

import numpy as np
import skimage.data
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

import vsrife

HEIGHT, WIDTH, MARGIN = 120, 160, 16
Vectors = NDArray[np.float64]  # (H, W, 2), x before y
Motion = Callable[[Vectors], Vectors]  # from a place in the first picture to its place in the second


def _turn(p: Vectors) -> Vectors:
    cos, sin = np.cos(0.0625), np.sin(0.0625)
    middle = (WIDTH / 2, HEIGHT / 2)
    turned: Vectors = np.add(np.subtract(p, middle) @ np.array([[cos, sin], [-sin, cos]]), middle)
    return turned


MOTIONS: Mapping[str, Motion] = {
    "shift": lambda p: np.add(p, (5.0, -3.0)),
    "zoom": lambda p: np.add(p, np.subtract(p, (WIDTH / 2, HEIGHT / 2)) * 0.05),  # 4 pixels at the sides
    "turn": _turn,  # 5 pixels at the sides
    "far": lambda p: np.add(p, (14.0, 6.0)),
}


def places() -> Vectors:
    """Coordinates of every pixel."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    return np.stack((x, y), axis=-1)


def back(motion: Motion) -> Vectors:
    """Inverse of a motion: where in the first picture each pixel of the second comes from."""
    target = places()
    found = target
    for _ in range(20):
        found = found - (motion(found) - target)
    return found


def make_pair(motion: Motion) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photograph before and after a motion, (H, W, 3)."""
    return _photo_at(places()), _photo_at(back(motion))


def _photo_at(p: Vectors) -> NDArray[np.uint8]:
    photo = skimage.data.astronaut()[20:220, 120:360].astype(float)
    channels = [map_coordinates(photo[..., c], [p[..., 1] + 40, p[..., 0] + 40], order=3) for c in range(3)]
    result: NDArray[np.uint8] = np.stack(channels, -1).clip(0, 255).round().astype(np.uint8)
    return result


def endpoint_error_px(flow: NDArray[np.floating], truth: Vectors) -> float:
    """Mean end-point error without the border, where content leaves the picture."""
    distance = np.hypot(*np.moveaxis(flow - truth, -1, 0))
    return float(distance[MARGIN:-MARGIN, MARGIN:-MARGIN].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a model's flow against exactly known motion.")
    parser.add_argument("--model", help="a published version such as 4.26, or a weights file")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--device")
    options = vars(parser.parse_args())
    print("| motion | length, px | forward error, px | backward error, px |\n|---|---|---|---|")
    for name, motion in MOTIONS.items():
        a, b = make_pair(motion)
        forward, backward = motion(places()) - places(), back(motion) - places()
        errors = (
            endpoint_error_px(vsrife.flow(a, b, 0.0, **options).to_b, forward),
            endpoint_error_px(vsrife.flow(a, b, 1.0, **options).to_a, backward),
        )
        print(f"| {name} | {endpoint_error_px(forward * 0, forward):.2f} | {errors[0]:.2f} | {errors[1]:.2f} |")


if __name__ == "__main__":
    main()
