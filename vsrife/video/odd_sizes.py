"""Frames of odd width or height with subsampled chroma, which VapourSynth cannot hold: bestsource crops them.

They are decoded here and padded to an even size by repeating the last column and row; results are cropped again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import av
import numpy as np
import vapoursynth as vs
from numpy.typing import NDArray

from vsrife.errors import MediaError
from vsrife.video.demuxing import open_media
from vsrife.video.pixel_formats import PixelFormat, named_format

Planes = list[NDArray[Any]]

_KEPT_FRAMES = 32  # decoded ahead of or behind the frame that is asked for


def pad_odd_sizes(
    clip: vs.VideoNode, path: Path, track: int, size: tuple[int, int], pix_fmt: str | None, stamps: Sequence[int],
    turn: tuple[int, ...] | None,
) -> tuple[vs.VideoNode, tuple[int, int]]:  # fmt: skip
    """The whole picture of a file that bestsource has cropped, padded to an even size; any other clip as it is.

    Args:
        clip: as bestsource reads it.
        path, track: of the file and its video stream.
        size: coded width and height.
        pix_fmt: FFmpeg's name of the pixel format.
        stamps: time stamps of the frames.
        turn: display matrix by which bestsource has rotated the frames; None: it has not. Then the picture comes with
            chroma of full resolution, which needs no padding, as this may have to be on the left or at the top.

    Returns:
        The clip, and width and height of the picture in it.
    """
    fmt = named_format(pix_fmt) if pix_fmt else None
    read = clip.width, clip.height
    cropped = None if fmt is None else (size[0] & ~fmt.subsampling_w, size[1] & ~fmt.subsampling_h)
    if fmt is None or cropped == size or (read if turn is None or turn[0] else read[::-1]) != cropped:
        return clip, read
    blank = clip.std.BlankClip(
        width=size[0] + size[0] % 2, height=size[1] + size[1] % 2, format=fmt.vapoursynth_id, keep=True
    )
    reader = _Reader(path, track, fmt, stamps)

    def fill(n: int, f: Sequence[vs.VideoFrame]) -> vs.VideoFrame:
        frame = f[0].copy()
        for number, plane in enumerate(reader.planes(n)):
            target = np.asarray(frame[number])
            target[:] = np.pad(
                plane, [(0, full - part) for full, part in zip(target.shape, plane.shape, strict=True)], mode="edge"
            )
        for name, value in f[1].props.items():
            frame.props[name] = value
        return frame

    padded = blank.std.ModifyFrame([blank, clip], fill)
    if turn is None:
        return padded, size
    full = padded.resize.Bicubic(format=padded.format.replace(subsampling_w=0, subsampling_h=0).id)
    turned = _turned(full.std.CropAbs(*size), turn)
    return turned, (turned.width, turned.height)


def _turned(clip: vs.VideoNode, matrix: Sequence[int]) -> vs.VideoNode:
    """Rotate or mirror in quarter turns: x' = m0 x + m3 y, y' = m1 x + m4 y, in 1/65536."""
    if not matrix[0]:
        clip = clip.std.Transpose()
    clip = clip.std.FlipHorizontal() if matrix[0] < 0 or matrix[3] < 0 else clip
    return clip.std.FlipVertical() if matrix[1] < 0 or matrix[4] < 0 else clip


class _Reader:
    """Decodes frames by number, best in order."""

    def __init__(self, path: Path, track: int, fmt: PixelFormat, stamps: Sequence[int]) -> None:
        self._path, self._track, self._format, self._stamps = path, track, fmt, stamps
        self._lock = Lock()
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._next = len(stamps)  # number of the frame that the decoder gives next
        self._kept: OrderedDict[int, Planes] = OrderedDict()

    def planes(self, n: int) -> Planes:
        """The colour planes of frame n.

        Raises:
            MediaError: it cannot be decoded.
        """
        with self._lock:
            if n in self._kept:
                return self._kept[n]
            if n < self._next:
                self._frames, self._next = self._decode(), 0
                self._kept.clear()
            for frame in self._frames:
                self._kept[self._next] = self._copy(frame)
                self._next += 1
                if len(self._kept) > _KEPT_FRAMES:
                    self._kept.popitem(last=False)
                if self._next > n:
                    return self._kept[n]
        raise MediaError(f"{self._path} cannot be read, got no frame {n} of {len(self._stamps)}; copy it again")

    def _decode(self) -> Iterator[av.VideoFrame]:
        with open_media(self._path) as container:
            stream = next(each for each in container.streams.video if each.index == self._track)
            stream.thread_type = "AUTO"
            yield from container.decode(stream)

    def _copy(self, frame: av.VideoFrame) -> Planes:
        if frame.format.name != self._format.name:
            frame = frame.reformat(format=self._format.name)
        dtype = np.uint8 if self._format.bits == 8 else np.uint16
        return [
            np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width].copy()
            for plane in frame.planes[: 1 if self._format.family == "GRAY" else 3]
        ]
