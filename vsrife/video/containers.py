"""Containers: a row for each that is treated specially, and which codecs one can hold."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av

from vsrife.errors import OptionError

QUICKTIME = ("mp4", "mov")
MATROSKA = ("matroska", "webm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec:
    """What FFmpeg does not say about one of its muxers.

    Attributes:
        suffixes: file suffixes that choose it, where FFmpeg would choose another.
        text_codec: encoder for text subtitles that the container cannot hold as they are; None: it holds no text.
        attachments, chapters: whether it can hold these.
        options: of the muxer.
    """

    suffixes: frozenset[str] = frozenset()
    text_codec: str | None = None
    attachments: bool = False
    chapters: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


_OTHER = ContainerSpec()
CONTAINERS = {
    "mp4": ContainerSpec(
        suffixes=frozenset({".mp4", ".m4v"}), text_codec="mov_text", chapters=True, options={"movflags": "+faststart"}
    ),
    "mov": ContainerSpec(text_codec="mov_text", chapters=True, options={"movflags": "+faststart"}),
    "matroska": ContainerSpec(text_codec="srt", attachments=True, chapters=True),
    "webm": ContainerSpec(text_codec="webvtt", chapters=True),
    "nut": ContainerSpec(chapters=True),
}


def container_spec(name: str) -> ContainerSpec:
    """The row of FFmpeg's name of a container, or an empty one."""
    return CONTAINERS.get(name, _OTHER)


def container_of(output: Path) -> str:
    """FFmpeg's name of the container that a file's suffix chooses.

    Raises:
        OptionError: no container has this suffix.
    """
    suffix = output.suffix.lower()
    special = next((name for name, spec in CONTAINERS.items() if suffix in spec.suffixes), None)
    if special is not None:
        return special
    try:
        with av.open(os.fspath(output), "w") as container:  # creates no file until something is written
            return container.format.name
    except ValueError as error:
        raise OptionError(f"no container has the suffix of {output.name!r}; use .mkv or .mp4") from error


def can_hold(container: str, encoder: str) -> bool:
    """Whether a container can hold an encoder's output, as far as FFmpeg knows."""
    with av.open(io.BytesIO(), "w", format=container) as target:
        try:
            target.add_stream(encoder)
        except ValueError:
            return False
    return True
