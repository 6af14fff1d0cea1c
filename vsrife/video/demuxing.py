"""Opens media files, and reads their packets on one clock that does not restart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

from vsrife.timing.timeline import exact

_MAY_RESTART = 0x0200  # flag of container formats whose time stamps may jump: transport and program streams
_BACK_S, _AHEAD_S = Fraction(1, 10), Fraction(10)  # a larger step between packets is a restart, as in ffmpeg


def media_path(path: Path) -> str:
    """A path for FFmpeg, which takes "Part: 2.mp4" for a protocol unless the path is absolute."""
    return os.fspath(path.absolute())


def plugin_path(path: Path) -> bytes:
    """The same for a plugin of VapourSynth, which takes names that are no UTF-8 as bytes."""
    return os.fsencode(path.absolute())


def open_media(path: Path) -> InputContainer:
    """Open a file of any name."""
    return av.open(media_path(path))


@dataclass(slots=True)
class _Continuation:
    """Offsets that join the parts of a file whose clock restarts.

    Attributes:
        offsets: of each part, seconds.
        part: of each stream's last packet, an index into `offsets`.
        raw_ends, ends: end of each stream's last packet, on the clock of its part and on the joined one.
    """

    offsets: list[Fraction] = field(default_factory=lambda: [Fraction(0)])
    part: dict[int, int] = field(default_factory=dict)
    raw_ends: dict[int, Fraction] = field(default_factory=dict)
    ends: dict[int, Fraction] = field(default_factory=dict)

    def offset(self, stream: int, seconds: Fraction, lasts: Fraction) -> Fraction:
        """The offset for a packet at `seconds`; packets of one stream come in order of decoding."""
        part = self.part.get(stream, len(self.offsets) - 1)
        before = self.raw_ends.get(stream)
        if before is not None and not -_BACK_S <= seconds - before <= _AHEAD_S:
            part += 1
            if part == len(self.offsets):  # the first stream that restarts decides for all
                self.offsets.append(self.ends[stream] - seconds)
        self.part[stream] = part
        self.raw_ends[stream], self.ends[stream] = seconds + lasts, seconds + lasts + self.offsets[part]
        return self.offsets[part]


def continuous_packets(container: InputContainer) -> Iterator[tuple[av.Packet[Any], int | None]]:
    """All packets in the order of the file, with the pts that they have there.

    Where the clock of a transport or program stream restarts, later packets are moved to follow the earlier ones.
    Empty packets at the end flush the decoders.
    """
    joins = bool(container.format.flags & _MAY_RESTART)
    clock = _Continuation()
    for packet in container.demux():
        raw, stamp = packet.pts, packet.pts if packet.dts is None else packet.dts
        if joins and stamp is not None:
            tick = exact(packet.time_base)
            if packet.stream.type in ("video", "audio"):
                offset = clock.offset(packet.stream.index, stamp * tick, (packet.duration or 0) * tick)
            else:
                offset = clock.offsets[-1]
            if offset:
                shift = round(offset / tick)
                packet.pts = None if packet.pts is None else packet.pts + shift
                packet.dts = None if packet.dts is None else packet.dts + shift
        yield packet, raw
