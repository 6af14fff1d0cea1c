"""Picture files: PNG, JPEG, WebP and TIFF of 8 or 16 bits, with alpha and ICC profile.

Pillow reads and writes what has 8 bits. It knows no colours of 16 bits: FFmpeg (PyAV) reads those, tifffile and a few
lines here write them.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vsrife.errors import MediaError, OptionError

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A picture in memory, upright.

    Attributes:
        pixels: (H, W, C) uint8 or uint16, full range. C is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; alpha is
            straight (the colours are not multiplied by it).
        icc: profile that tells what the colours mean.
    """

    pixels: Pixels
    icc: bytes | None = None

    @property
    def bits(self) -> int:
        return self.pixels.dtype.itemsize * 8

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[2])

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4)

    @property
    def size(self) -> str:
        """Width and height as text."""
        return f"{self.pixels.shape[1]}x{self.pixels.shape[0]}"


# --- reading ----------------------------------------------------------------------------------------------------------

_READ_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # of Pillow
_MODES = {  # Pillow's mode to that of the result, without and with transparency that the mode does not tell
    "1": ("L", "LA"), "L": ("L", "LA"), "LA": ("LA", "LA"), "La": ("LA", "LA"), "P": ("RGB", "RGBA"),
    "PA": ("RGBA", "RGBA"), "RGB": ("RGB", "RGBA"), "RGBX": ("RGB", "RGB"), "RGBA": ("RGBA", "RGBA"),
    "RGBa": ("RGBA", "RGBA"), "YCbCr": ("RGB", "RGB"),
}  # fmt: skip
_ORIENTATION = 0x0112
_Turn = Callable[[Pixels], Pixels]
_UPRIGHT: Mapping[int, _Turn] = {  # by EXIF orientation
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: p.swapaxes(0, 1)[::-1],
}
# What damaged files make the decoders raise.
_DAMAGES = (OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError, struct.error, zlib.error)


def read_picture(path: Path) -> Picture:
    """A PNG, JPEG, WebP, TIFF, BMP or still GIF file, turned upright as its EXIF orientation says.

    Palettes become RGB, single bits 8 bits. Of a TIFF of several pages it is the first.

    Raises:
        MediaError: the file is missing, damaged, an animation, or of samples that are not 8 or 16 bit grey or RGB.
    """
    try:
        with path.open("rb") as file:
            is_tiff = file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        pixels, orientation, icc = (_read_tiff if is_tiff else _read)(path)
    except MediaError:
        raise
    except FileNotFoundError as error:
        raise MediaError(f"picture must be a file, got {path}, which is not there; check the name") from error
    except UnidentifiedImageError as error:
        raise MediaError(
            f"picture must be PNG, JPEG, WebP, TIFF, BMP or GIF, got {path}, which is not; convert it"
        ) from error
    except (*_DAMAGES, av.FFmpegError) as error:
        raise MediaError(f"picture cannot be read, got {path}: {error}; is the file whole?") from error
    return Picture(np.ascontiguousarray(_UPRIGHT.get(orientation, _UPRIGHT[1])(pixels)), icc)


_Read = tuple[Pixels, int, bytes | None]  # pixels (H, W, C), orientation, ICC profile


def _read(path: Path) -> _Read:
    with Image.open(path, formats=_READ_FORMATS) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format != "MPO":  # a phone's JPEG with a preview
            raise MediaError(f"picture must be single, got {path} with {frames} frames; take its frames out first")
        if _is_deep_png(path, image):
            pixels = _decode(path)
        elif image.mode in _MODES:
            pixels = np.array(image.convert(_MODES[image.mode][image.has_transparency_data]))
        else:
            raise MediaError(f"picture must be grey or RGB, got {path} of {image.mode}; convert it")
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        return pixels, image.getexif().get(_ORIENTATION, 1), image.info.get("icc_profile")


def _is_deep_png(path: Path, image: Image.Image) -> bool:
    """Whether it has 16 bits, of which Pillow would drop 8."""
    if image.format != "PNG":
        return False
    with path.open("rb") as file:
        return file.read(25)[24] == 16  # in the header chunk, which comes first


def _decode(path: Path) -> Pixels:
    """The samples of a PNG or TIFF as FFmpeg reads them, (H, W, C)."""
    with av.open(str(path), options={"err_detect": "explode"}) as container:
        frame = next(container.decode(video=0))
    if frame.is_corrupt:
        raise OSError("its data are damaged")
    components = frame.format.components
    bits = max(component.bits for component in components)
    grey, alpha = len(components) <= 2 and not frame.format.has_palette, len(components) in (2, 4)
    row = ("gray", "gray16le") if grey and not alpha else ("rgba", "rgba64le") if alpha else ("rgb24", "rgb48le")
    pixels = frame.to_ndarray(format=row[bits > 8]).reshape(frame.height, frame.width, -1)
    return pixels[..., [0, 3]] if grey and alpha else pixels


_TIFF_INTEGER = 1  # sample format
_TIFF_WHITE_IS_0, _TIFF_BLACK_IS_0, _TIFF_RGB, _TIFF_PALETTE = range(4)  # photometric interpretations
_TIFF_SEPARATE = 2  # planar configuration
_TIFF_UNSPECIFIED, _TIFF_ASSOCIATED = 0, 1  # what an extra sample is; 2 is straight alpha
_TIFF_COMPRESSIONS = (1, 8, 32773, 32946)  # that tifffile decodes by itself: none, deflate, PackBits


def _read_tiff(path: Path) -> _Read:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        usable = page.photometric in range(4) and page.sampleformat == _TIFF_INTEGER and page.bitspersample in (8, 16)
        if not usable:
            kind = getattr(page.photometric, "name", page.photometric)
            raise MediaError(
                f"picture must have 8 or 16 bit grey or RGB, got {path} of {page.bitspersample} bit {kind} "
                f"{page.dtype}; convert it"
            )
        pixels = _tiff_pixels(page) if page.compression in _TIFF_COMPRESSIONS else _decode(path)
        if page.extrasamples:
            pixels = _straight(pixels, page.extrasamples[0])
        orientation = page.tags.valueof(_ORIENTATION, 1)
        return pixels, orientation, page.iccprofile


def _tiff_pixels(page: tifffile.TiffPage) -> Pixels:
    """(H, W, C) as stored, palettes and inverted grey resolved."""
    pixels = page.asarray()
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    elif page.planarconfig == _TIFF_SEPARATE:
        pixels = np.moveaxis(pixels, 0, -1)
    if page.photometric == _TIFF_PALETTE and page.colormap is not None:
        pixels = (page.colormap.T[pixels[..., 0]] >> 8).astype(np.uint8)
    result: Pixels = ~pixels if page.photometric == _TIFF_WHITE_IS_0 else pixels
    return result


def _straight(pixels: Pixels, extra: int) -> Pixels:
    """Pixels with what a TIFF calls an extra sample as straight alpha, or without it where it is something else."""
    if extra == _TIFF_UNSPECIFIED:
        return pixels[..., : 1 if pixels.shape[-1] == 2 else 3]
    if extra != _TIFF_ASSOCIATED:
        return pixels
    peak = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.float64)
    colours = np.minimum(np.rint(pixels[..., :-1] * (peak / np.maximum(alpha, 1))), peak)
    return np.concatenate((colours.astype(pixels.dtype), pixels[..., -1:]), axis=-1)


def alike(
    a: Picture, b: Picture, names: tuple[str, str] = ("a", "b"), *, same_size: bool = True
) -> tuple[Picture, Picture]:
    """Two pictures with the channels and the depth that can hold both. Each keeps its ICC profile.

    Raises:
        OptionError: their sizes differ, unless that is allowed.
    """
    if same_size and a.pixels.shape[:2] != b.pixels.shape[:2]:
        raise OptionError(
            f"pictures must have one size, got {a.size} ({names[0]}) and {b.size} ({names[1]}); scale or crop one"
        )
    colours = max(3 if p.channels >= 3 else 1 for p in (a, b))
    alpha, bits = a.has_alpha or b.has_alpha, max(a.bits, b.bits)
    return _widened(a, colours, alpha, bits), _widened(b, colours, alpha, bits)


def _widened(picture: Picture, colours: int, alpha: bool, bits: int) -> Picture:
    pixels = picture.pixels
    if bits > picture.bits:
        pixels = pixels.astype(np.uint16) * 257
    parts = np.split(pixels, [-1], axis=-1) if picture.has_alpha else [pixels]
    if parts[0].shape[-1] < colours:
        parts[0] = parts[0].repeat(colours, axis=-1)
    if alpha and not picture.has_alpha:
        parts.append(np.full_like(pixels[..., :1], np.iinfo(pixels.dtype).max))
    return Picture(np.concatenate(parts, axis=-1), picture.icc)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_picture(path: Path, picture: Picture, *, quality: int | None = None) -> None:
    """Write a picture in the format of the path's suffix. The file appears when it is complete, or not at all.

    Args:
        path: ends in .png, .jpg, .jpeg, .webp, .tif or .tiff. A file that is there is replaced.
        picture: what to write, with its ICC profile.
        quality: 1..100 for JPEG (None: 95) and WebP (None: lossless).

    Raises:
        OptionError: the format cannot hold the picture, or the suffix is none of these.
        MediaError: the file cannot be written.
    """
    check_writable(path, picture)
    encoded = _FORMATS[path.suffix.lower()].encode(picture, quality)
    with written(path) as part:
        part.write_bytes(encoded)


def check_writable(path: Path, picture: Picture) -> None:
    """Whether the format of the path's suffix can hold the picture.

    Raises:
        OptionError: it cannot.
    """
    row = _FORMATS.get(path.suffix.lower())
    if row is None:
        raise OptionError(
            f"picture file must end in {', '.join(PICTURE_SUFFIXES)}, got {path.name}; give one of these suffixes"
        )
    if picture.bits > row.bits:
        raise OptionError(f"{row.name} holds 8 bits a sample, got a picture of {picture.bits}; use .png or .tiff")
    if picture.has_alpha and not row.alpha:
        raise OptionError(f"{row.name} holds no alpha, got a picture with alpha ({path.name}); use .png or .webp")
    if max(picture.pixels.shape[:2]) > row.longest:
        raise OptionError(f"{row.name} holds at most {row.longest} pixels a side, got {picture.size}; use .png")


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to. It becomes `path` when the block ends well; else it goes.

    Raises:
        MediaError: it cannot be written, as on a full disk.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{path} cannot be written, got: {error.strerror or error}; choose another place") from error
    finally:
        part.unlink(missing_ok=True)


def _encode_pillow(picture: Picture, name: str, **options: Any) -> bytes:
    pixels, target = picture.pixels, io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if picture.channels == 1 else pixels)
    image.save(target, name, icc_profile=picture.icc, **options)
    return target.getvalue()


def _encode_jpeg(picture: Picture, quality: int | None) -> bytes:
    return _encode_pillow(picture, "JPEG", quality=95 if quality is None else quality, subsampling=0)


def _encode_webp(picture: Picture, quality: int | None) -> bytes:
    if quality is None:  # exact: also the colours that nobody sees
        return _encode_pillow(picture, "WEBP", lossless=True, exact=True)
    return _encode_pillow(picture, "WEBP", quality=quality)


def _encode_tiff(picture: Picture, quality: int | None) -> bytes:  # noqa: ARG001
    target = io.BytesIO()
    tifffile.imwrite(
        target,
        picture.pixels if picture.channels > 1 else picture.pixels[..., 0],
        photometric="rgb" if picture.channels >= 3 else "minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"] if picture.has_alpha else None,
        compression="zlib",
        predictor=True,
        iccprofile=picture.icc,
        metadata=None,
    )
    return target.getvalue()


def _encode_png(picture: Picture, quality: int | None) -> bytes:  # noqa: ARG001
    return _encode_pillow(picture, "PNG") if picture.bits == 8 else _encode_deep_png(picture)


_PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by channels
_PAETH = 4


def _encode_deep_png(picture: Picture) -> bytes:
    """Source: Portable Network Graphics (PNG) Specification, third edition, sections 5, 9 and 11."""
    height, width, channels = picture.pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, _PNG_COLOUR_TYPES[channels], 0, 0, 0)
    rows = picture.pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    lines = np.concatenate((np.full((height, 1), _PAETH, np.uint8), _paeth_differences(rows, 2 * channels)), axis=1)
    profile = _chunk(b"iCCP", b"icc\0\0" + zlib.compress(picture.icc)) if picture.icc else b""
    data = _chunk(b"IDAT", zlib.compress(lines))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + profile + data + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _paeth_differences(rows: NDArray[np.uint8], pixel_bytes: int) -> NDArray[np.uint8]:
    """Each byte less whichever of its left, upper and upper left neighbour predicts it best."""
    around = np.pad(rows.astype(np.int16), ((1, 0), (pixel_bytes, 0)))
    left, up, corner = around[1:, :-pixel_bytes], around[:-1, pixel_bytes:], around[:-1, :-pixel_bytes]
    estimate = left + up - corner
    to_left, to_up, to_corner = (abs(estimate - neighbour) for neighbour in (left, up, corner))
    best = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
    return (rows - best).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """A format to write."""

    name: str
    encode: Callable[[Picture, int | None], bytes]
    bits: int  # at most, per sample
    alpha: bool
    longest: int  # side in pixels


_PNG = _Format(name="PNG", encode=_encode_png, bits=16, alpha=True, longest=2**31 - 1)
_JPEG = _Format(name="JPEG", encode=_encode_jpeg, bits=8, alpha=False, longest=65535)
_WEBP = _Format(name="WebP", encode=_encode_webp, bits=8, alpha=True, longest=16383)
_TIFF = _Format(name="TIFF", encode=_encode_tiff, bits=16, alpha=True, longest=2**31 - 1)
_FORMATS: Mapping[str, _Format] = {
    ".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": _WEBP, ".tif": _TIFF, ".tiff": _TIFF,
}  # fmt: skip
PICTURE_SUFFIXES = tuple(_FORMATS)  # that can be written; `numbering` looks for these and .bmp
