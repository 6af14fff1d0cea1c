"""Picture files: PNG, JPEG, WebP and TIFF with 8 or 16 bits a sample, alpha and ICC profile.

Pillow reads and writes 8-bit files, but drops the lower bits of 16-bit colour. There FFmpeg (through PyAV) or tifffile
reads, and tifffile or the PNG encoder below writes.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from vsrife.errors import MediaError, OptionError
from vsrife.files import atomic_write, is_special

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """Size and sample layout of an upright picture.

    Attributes:
        width, height: pixels.
        channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        bits: per sample, 8 or 16.
    """

    width: int
    height: int
    channels: int
    bits: int

    @property
    def has_alpha(self) -> bool:
        return self.channels in (2, 4)

    @property
    def size(self) -> str:
        """Width and height as text, e.g. "1280x720"."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An upright picture in memory.

    Attributes:
        pixels: (H, W, C) uint8 or uint16, full range. C is 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; alpha is
            straight (colours are not multiplied by it).
        icc: ICC profile of the colours; None: not known, shown as sRGB.
    """

    pixels: Pixels
    icc: bytes | None = None

    @property
    def header(self) -> PictureHeader:
        height, width, channels = self.pixels.shape
        return PictureHeader(width, height, channels, self.pixels.dtype.itemsize * 8)


# --- reading ----------------------------------------------------------------------------------------------------------

_READ_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # of Pillow
_MODES = {  # Pillow's mode to the mode of the result, without and with transparency that the mode does not show
    "1": ("L", "LA"), "L": ("L", "LA"), "LA": ("LA", "LA"), "La": ("LA", "LA"), "P": ("RGB", "RGBA"),
    "PA": ("RGBA", "RGBA"), "RGB": ("RGB", "RGBA"), "RGBX": ("RGB", "RGB"), "RGBA": ("RGBA", "RGBA"),
    "RGBa": ("RGBA", "RGBA"), "YCbCr": ("RGB", "RGB"),
}  # fmt: skip
_MOST_PIXELS = 2**28  # 16384x16384; a damaged header can claim more than any memory holds
_ORIENTATION = 0x0112  # tag of EXIF and TIFF
_UPRIGHT: Mapping[int, Callable[[Pixels], Pixels]] = {  # by orientation
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: p.swapaxes(0, 1)[::-1],
}


@dataclass(frozen=True, slots=True)
class _Stored:
    """An open picture file.

    Attributes:
        header: as stored, before it is turned upright.
        orientation: how to turn it, as EXIF counts.
        icc: ICC profile.
        decode: reads the pixels, (H, W, C).
    """

    header: PictureHeader
    orientation: int
    icc: bytes | None
    decode: Callable[[], Pixels]


def read_picture(path: Path) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF, BMP or still GIF file and turn it upright as its EXIF orientation says.

    Palettes become RGB, 1-bit samples 8-bit grey, associated alpha straight. Of a multi-page TIFF the first page is
    read.

    Raises:
        MediaError: the file is missing, damaged, an animation, or its samples are not 8- or 16-bit grey or RGB.
    """
    with _opened(path) as stored:
        pixels = stored.decode()
    return Picture(np.ascontiguousarray(_UPRIGHT[stored.orientation](pixels)), stored.icc)


def read_header(path: Path) -> PictureHeader:
    """Read size and sample layout of a picture file without decoding its pixels.

    Raises:
        MediaError: as `read_picture`, except that damage beyond the header goes unnoticed.
    """
    with _opened(path) as stored:
        header = stored.header
    if stored.orientation < 5:
        return header
    return PictureHeader(header.height, header.width, header.channels, header.bits)


@contextmanager
def _opened(path: Path) -> Iterator[_Stored]:
    """Open a picture file.

    Raises:
        MediaError: it cannot be opened, or decoding inside the block fails.
    """
    if is_special(path):
        raise MediaError(f"picture must be a file, got {path}, a pipe or device; save it to a file")
    if path.is_dir():
        raise MediaError(f"picture must be a file, got the folder {path}; name one in it")
    try:
        with path.open("rb") as file:
            is_tiff = file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        with (_open_tiff if is_tiff else _open_pillow)(path) as stored:
            yield stored
    except MediaError:
        raise
    except FileNotFoundError as error:
        raise MediaError(f"picture must be a file, got {path}, which does not exist; check the name") from error
    except UnidentifiedImageError as error:
        raise MediaError(
            f"picture must be PNG, JPEG, WebP, TIFF, BMP or GIF, got {path}, which is not; convert it"
        ) from error
    except Exception as error:  # decoders raise almost anything on damaged files
        raise MediaError(
            f"picture cannot be read, got {path}: {error or type(error).__name__}; the file may be damaged or cut short"
        ) from error


@contextmanager
def _open_pillow(path: Path, formats: tuple[str, ...] = _READ_FORMATS) -> Iterator[_Stored]:
    with Image.open(path, formats=formats) as image:
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in ("MPO", "TIFF"):  # MPO: a phone's JPEG with a preview
            raise MediaError(
                f"picture must be a single image, got {path} with {frames} frames; read it with `vsrife video`"
            )
        depth, colour_type = _png_header(path) if image.format == "PNG" else (8, 0)
        if depth == 16:
            channels = (1 if colour_type in _PNG_GREY else 3) + image.has_transparency_data
            decode: Callable[[], Pixels] = partial(_decode, path)
        elif image.mode in _MODES:
            mode = _MODES[image.mode][image.has_transparency_data]
            channels, decode = len(mode), lambda: _with_channels(np.array(image.convert(mode)))
        else:
            raise MediaError(f"picture must be grey or RGB, got {path} of {image.mode}; convert it")
        # Pillow turns TIFFs by itself.
        orientation = 1 if image.format == "TIFF" else image.getexif().get(_ORIENTATION, 1)
        header = PictureHeader(image.width, image.height, channels, max(depth, 8))
        yield _Stored(header, orientation, image.info.get("icc_profile"), decode)


_PNG_GREY = (0, 4)  # colour types


def _png_header(path: Path) -> tuple[int, int]:
    """Bits per sample and colour type."""
    with path.open("rb") as file:
        depth, colour_type = file.read(26)[24:]  # of the header chunk, which comes first
    return depth, colour_type


def _with_channels(pixels: Pixels) -> Pixels:
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _decode(path: Path) -> Pixels:
    """Decode a PNG or TIFF with FFmpeg, (H, W, C)."""
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
_TIFF_UNSPECIFIED, _TIFF_ASSOCIATED = 0, 1  # kinds of an extra sample; 2 is straight alpha
_TIFF_PLAIN = (1, 8, 32773, 32946)  # compressions that tifffile decodes by itself: none, deflate, PackBits
_TIFF_LZW = 5


@contextmanager
def _open_tiff(path: Path) -> Iterator[_Stored]:
    """Open a TIFF with tifffile, FFmpeg (16 bits in LZW) or Pillow (8 bits or fewer in anything else)."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        if page.imagewidth * page.imagelength > _MOST_PIXELS:
            raise MediaError(
                f"picture must have at most {_MOST_PIXELS} pixels, got {path} of {page.imagewidth}x{page.imagelength}; "
                "its header may be damaged"
            )
        basic = page.photometric in range(4) and page.sampleformat == _TIFF_INTEGER and page.bitspersample in (8, 16)
        plain = basic and page.compression in _TIFF_PLAIN
        simple = page.planarconfig != _TIFF_SEPARATE and not page.is_tiled
        if plain or (basic and page.bitspersample == 16 and page.compression == _TIFF_LZW and simple):
            colours = 1 if page.photometric in (_TIFF_WHITE_IS_0, _TIFF_BLACK_IS_0) else 3
            extra = page.extrasamples[0] if page.extrasamples else _TIFF_UNSPECIFIED
            bits = 8 if page.photometric == _TIFF_PALETTE else page.bitspersample
            alpha = extra != _TIFF_UNSPECIFIED
            yield _Stored(
                PictureHeader(page.imagewidth, page.imagelength, colours + alpha, bits),
                page.tags.valueof(_ORIENTATION, 1), page.iccprofile,
                lambda: _straight(_tiff_pixels(page) if plain else _decode(path), colours, extra),
            )  # fmt: skip
            return
        if page.bitspersample not in (1, 2, 4, 8) or page.sampleformat != _TIFF_INTEGER:
            kind = getattr(page.photometric, "name", page.photometric)
            compression = getattr(page.compression, "name", page.compression)
            raise MediaError(
                f"picture must have 8 or 16 bit grey or RGB, got {path} of {page.bitspersample} bit {kind} "
                f"{page.dtype} ({compression}); convert it"
            )
    with _open_pillow(path, ("TIFF",)) as stored:
        yield stored


def _tiff_pixels(page: tifffile.TiffPage) -> Pixels:
    """Decode a page, (H, W, C); palettes and inverted grey are resolved."""
    pixels = page.asarray()
    if page.planarconfig == _TIFF_SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    pixels = _with_channels(pixels)
    if page.photometric == _TIFF_PALETTE and page.colormap is not None:
        colours = (page.colormap.T[pixels[..., 0]] >> 8).astype(np.uint8)
        pixels = np.concatenate((colours, pixels[..., 1:].astype(np.uint8)), axis=-1)
    if page.photometric == _TIFF_WHITE_IS_0:
        pixels = np.concatenate((~pixels[..., :1], pixels[..., 1:]), axis=-1)
    return pixels


def _straight(pixels: Pixels, colours: int, extra: int) -> Pixels:
    """Turn the extra sample that follows the colours into straight alpha, or drop it if it is not alpha."""
    if extra == _TIFF_UNSPECIFIED:
        return pixels[..., :colours]
    pixels = pixels[..., : colours + 1]
    if extra != _TIFF_ASSOCIATED:
        return pixels
    peak = np.iinfo(pixels.dtype).max
    alpha = pixels[..., -1:].astype(np.float64)
    straight = np.minimum(np.rint(pixels[..., :-1] * (peak / np.maximum(alpha, 1))), peak)
    return np.concatenate((straight.astype(pixels.dtype), pixels[..., -1:]), axis=-1)


# --- conversion -------------------------------------------------------------------------------------------------------


def alike(
    a: Picture, b: Picture, names: tuple[str, str] = ("a", "b"), *, same_size: bool = True
) -> tuple[Picture, Picture]:
    """Convert two pictures to the fewest channels and bits that hold both. Each keeps its ICC profile.

    Args:
        a, b: the pictures.
        names: what to call them in an error.
        same_size: refuse pictures of different sizes.

    Raises:
        OptionError: their sizes differ, and `same_size` is True.
    """
    if same_size and a.header.size != b.header.size:
        raise OptionError(
            f"pictures must have the same size, got {a.header.size} ({names[0]}) and {b.header.size} ({names[1]}); "
            "scale or crop one"
        )
    channels, bits = common_samples((a.header, b.header))
    return convert(a, channels, bits), convert(b, channels, bits)


def common_samples(headers: Iterable[PictureHeader]) -> tuple[int, int]:
    """The fewest channels and bits per sample that hold all of these pictures."""
    each = list(headers)
    colours = max(3 if header.channels >= 3 else 1 for header in each)
    return colours + any(header.has_alpha for header in each), max(header.bits for header in each)


def convert(picture: Picture, channels: int, bits: int) -> Picture:
    """Convert a picture to as many channels and bits or more; nothing is lost, added alpha is opaque."""
    pixels = picture.pixels
    if bits > picture.header.bits:
        pixels = pixels.astype(np.uint16) * 257
    parts = np.split(pixels, [-1], axis=-1) if picture.header.has_alpha else [pixels]
    if channels >= 3 and parts[0].shape[-1] == 1:
        parts[0] = parts[0].repeat(3, axis=-1)
    if channels in (2, 4) and not picture.header.has_alpha:
        parts.append(np.full_like(pixels[..., :1], np.iinfo(pixels.dtype).max))
    return Picture(np.concatenate(parts, axis=-1), picture.icc)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_picture(path: Path, picture: Picture, *, quality: int | None = None) -> None:
    """Write a picture in the format of the path's suffix. The file appears when it is complete, or not at all.

    Args:
        path: ends in .png, .jpg, .jpeg, .webp, .tif or .tiff. An existing file is replaced.
        picture: the picture; its ICC profile is written with it.
        quality: 1..100 for JPEG (None: 95) and WebP (None: lossless). Other formats are lossless.

    Raises:
        OptionError: the format cannot hold the picture, or the suffix is none of these.
        MediaError: the file cannot be written.
    """
    encoded = encode_picture(path, picture, quality=quality)
    with atomic_write(path, error=MediaError) as part:
        part.write_bytes(encoded)


def encode_picture(path: Path, picture: Picture, *, quality: int | None = None) -> bytes:
    """Encode a picture in the format of the path's suffix; nothing is written.

    Args:
        path, picture, quality: as for `write_picture`.

    Raises:
        OptionError: as `write_picture`.
    """
    check_writable(path, picture)
    return _FORMATS[path.suffix.lower()].encode(picture, quality)


def check_writable(path: Path, picture: Picture) -> None:
    """Check that the format of the path's suffix can hold the picture.

    Raises:
        OptionError: it cannot, or the suffix is not one of `PICTURE_SUFFIXES`.
    """
    row = _FORMATS.get(path.suffix.lower())
    if row is None:
        raise OptionError(
            f"picture file must end in {', '.join(PICTURE_SUFFIXES)}, got {path.name}; give one of these suffixes"
        )
    if picture.header.bits > row.bits:
        raise OptionError(
            f"{row.name} holds 8 bits a sample, got a picture of {picture.header.bits}; use .png or .tiff"
        )
    if picture.header.has_alpha and not row.alpha:
        raise OptionError(f"{row.name} holds no alpha, got a picture with alpha ({path.name}); use .png or .webp")
    if max(picture.pixels.shape[:2]) > row.longest:
        raise OptionError(f"{row.name} holds at most {row.longest} pixels a side, got {picture.header.size}; use .png")


def _encode_pillow(picture: Picture, name: str, **options: Any) -> bytes:
    pixels, target = picture.pixels, io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if picture.header.channels == 1 else pixels)
    image.save(target, name, icc_profile=picture.icc, **options)
    return target.getvalue()


def _encode_jpeg(picture: Picture, quality: int | None) -> bytes:
    return _encode_pillow(picture, "JPEG", quality=95 if quality is None else quality, subsampling=0)


def _encode_webp(picture: Picture, quality: int | None) -> bytes:
    if quality is None:  # exact: keeps the colours of transparent pixels
        return _encode_pillow(picture, "WEBP", lossless=True, exact=True)
    return _encode_pillow(picture, "WEBP", quality=quality)


def _encode_tiff(picture: Picture, quality: int | None) -> bytes:  # noqa: ARG001
    target = io.BytesIO()
    tifffile.imwrite(
        target,
        picture.pixels if picture.header.channels > 1 else picture.pixels[..., 0],
        photometric="rgb" if picture.header.channels >= 3 else "minisblack",
        planarconfig="contig",
        extrasamples=["unassalpha"] if picture.header.has_alpha else None,
        compression="zlib",
        predictor=True,
        iccprofile=picture.icc,
        metadata=None,
    )
    return target.getvalue()


def _encode_png(picture: Picture, quality: int | None) -> bytes:  # noqa: ARG001
    return _encode_pillow(picture, "PNG") if picture.header.bits == 8 else _encode_deep_png(picture)


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
    """Subtract from each byte its left, upper or upper left neighbour, whichever predicts it best."""
    around = np.pad(rows.astype(np.int16), ((1, 0), (pixel_bytes, 0)))
    left, up, corner = around[1:, :-pixel_bytes], around[:-1, pixel_bytes:], around[:-1, :-pixel_bytes]
    estimate = left + up - corner
    to_left, to_up, to_corner = (abs(estimate - neighbour) for neighbour in (left, up, corner))
    best = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
    return (rows - best).astype(np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """A format to write.

    Attributes:
        name: in errors.
        encode: a picture and a quality to the bytes of a file.
        bits: most bits per sample.
        alpha: whether it can hold alpha.
        longest: most pixels a side.
    """

    name: str
    encode: Callable[[Picture, int | None], bytes]
    bits: int
    alpha: bool
    longest: int


_PNG = _Format(name="PNG", encode=_encode_png, bits=16, alpha=True, longest=2**31 - 1)
_JPEG = _Format(name="JPEG", encode=_encode_jpeg, bits=8, alpha=False, longest=65535)
_WEBP = _Format(name="WebP", encode=_encode_webp, bits=8, alpha=True, longest=16383)
_TIFF = _Format(name="TIFF", encode=_encode_tiff, bits=16, alpha=True, longest=2**31 - 1)
_FORMATS: Mapping[str, _Format] = {
    ".png": _PNG, ".jpg": _JPEG, ".jpeg": _JPEG, ".webp": _WEBP, ".tif": _TIFF, ".tiff": _TIFF,
}  # fmt: skip
PICTURE_SUFFIXES = tuple(_FORMATS)  # formats to write; `numbering` also looks for .bmp
