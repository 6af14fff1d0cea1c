"""The rule behind the weights and frames of the reference outputs, in NumPy alone.

Turns (version, tensor name, shape) into an array and (height, width) into a pair of frames; knows nothing of how the
network is evaluated. README.md states the rule in words.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRANSPOSED_HEADS = ("encode.1", "encode.6", "encode.cnn3")


def is_transposed(name: str) -> bool:
    """Whether a weight is stored as (in, out, 4, 4): the last convolution of a block or head."""
    stem = name.rpartition(".")[0]
    return stem.endswith(("lastconv", "lastconv.0")) or stem in TRANSPOSED_HEADS


def weight(version: str, name: str, shape: Sequence[int], has_beta: bool) -> NDArray[np.float32]:
    """One tensor of one version.

    Args:
        version: as published, e.g. "4.25.lite".
        name: of the tensor in the checkpoint, without a prefix.
        shape: of the tensor.
        has_beta: whether the version's layout has tensors named `.beta`.
    """
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"{version}/{name}".encode("ascii"))))
    u = (2.0 * generator.random(tuple(shape)) - 1.0) * math.sqrt(3.0)
    value: NDArray[np.float64]
    if name.endswith(".beta"):
        value = 0.9 + 0.08 * u
    elif name.endswith(".bias"):
        value = 0.05 * u
    elif len(shape) == 1:  # slopes of a PReLU
        value = 0.25 + 0.05 * u
    elif is_transposed(name):
        std = 1.0 / math.sqrt(shape[0] * 4)  # four of the sixteen taps reach one output pixel
        if name.startswith("encode"):
            value = 1.4 * std * u
        else:
            out = np.arange(shape[1]) // (4 if name.endswith("lastconv.0.weight") else 1)
            gain = np.where(out < 4, 0.30, 0.7)
            value = gain.reshape(1, -1, 1, 1) * std * u
    else:
        body = 0.65 if has_beta else 1.4
        gain_of = 1.4 if name.startswith("encode") else 1.5 if ".conv0." in name else body
        value = gain_of / math.sqrt(shape[1] * shape[2] * shape[3]) * u
    return value.astype(np.float32)


def weights(version: str, shapes: Mapping[str, Sequence[int]], boost: float = 1.0) -> dict[str, NDArray[np.float32]]:
    """Every tensor of one version.

    Args:
        version: as published.
        shapes: of all tensors of its layout, by name.
        boost: factor of block 1's last convolution; 9 drives 4.0 into its second, coarser try.
    """
    has_beta = any(name.endswith(".beta") for name in shapes)
    result = {}
    for name in sorted(shapes):
        value = weight(version, name, shapes[name], has_beta)
        if boost != 1.0 and name.startswith("block1.lastconv"):
            value = (value.astype(np.float64) * boost).astype(np.float32)
        result[name] = value
    return result


def _texture(x: Any, y: Any, c: int) -> Any:
    return (
        0.50
        + 0.24 * np.sin(0.110 * x + 0.070 * y + 1.3 * c)
        + 0.17 * np.sin(0.053 * x - 0.091 * y + 0.7 * c + 1.0)
        + 0.12 * np.cos(0.310 * x + 0.190 * y - 0.9 * c)
        + 0.07 * np.sin(0.670 * x - 0.530 * y + 0.4 * c)
    )


def frames(height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two frames of shape (3, height, width).

    The background moves by (+3, -1.5) pixels from the first to the second, a soft disc with a texture of its own by
    (-4, +2.5). A few samples lie outside 0..1 on purpose: the clamp has to be in the right place.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    result = []
    for s in (-0.5, 0.5):
        bx, by = x - 3.0 * s, y + 1.5 * s
        ox, oy = x + 4.0 * s, y - 2.5 * s
        r = np.hypot(ox - 0.45 * width, oy - 0.55 * height)
        a = 1.0 / (1.0 + np.exp((r - 0.22 * min(height, width)) / 1.5))
        planes = [
            (1.0 - a) * _texture(bx, by, c) + a * (_texture(1.7 * oy, 1.3 * ox, c + 3) * 0.8 + 0.12) for c in range(3)
        ]
        result.append(np.stack(planes).astype(np.float32))
    return result[0], result[1]
