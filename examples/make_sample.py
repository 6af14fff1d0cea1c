"""Make the sample clip: 72 frames of 640x360 at 24 fps with stereo sound and one hard cut, at frame 36.

    python examples/make_sample.py -o examples/sample.mp4

Needs numpy, opencv-python-headless, scikit-image (its photographs, already inside the wheel), Pillow and PyAV; no
network, no `ffmpeg` program. Every number is fixed, so the same library versions give the same clip.

Scene one: a cat behind a brick wall, a bouncing ball, a toy on a string, a caption that stands still.
Scene two: a launch pad, cables, grass in front, a flying saucer, a caption that runs.
The sound is a soft chord for each scene and one blip that starts exactly with the first frame of scene two.
"""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage import data

WIDTH, HEIGHT = 640, 360
FPS = 24
FRAMES = 72
CUT = 36
"""First frame of scene two, counted from 0: 1.5 s."""

SAMPLE_RATE = 48_000
BLIP_HZ = 2_000
BLIP_SECONDS = 0.08

OVERSAMPLING = 2
"""Frames are drawn this much larger and averaged down, so edges, lines and letters are smooth at sub-pixel steps."""

SEED = 24

type Pixels = NDArray[np.float32]
type Point = tuple[float, float]
type Colour = tuple[float, float, float]

WHITE: Colour = (1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0)
DUSK = (14, 16, 26, 255)
"""Cables and poles against the evening sky, as Pillow takes it."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A picture to lay over a frame.

    Attributes:
        pixels: (H, W, 4), red, green, blue (already multiplied by alpha) and alpha, range 0 to 1.
        anchor: the point, in layer pixels, that `paste` puts at the asked position; x before y.
    """

    pixels: Pixels
    anchor: Point


def paste(canvas: Pixels, layer: Layer, at: Point, *, scale: float = 1.0, degrees: float = 0.0) -> None:
    """Lay `layer` over `canvas` in place, its anchor at `at` in output pixels, turned clockwise by `degrees`."""
    size = scale * OVERSAMPLING
    turn = math.radians(degrees)
    matrix = size * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shift = OVERSAMPLING * np.array(at) - matrix @ np.array(layer.anchor)
    height, width = canvas.shape[:2]
    moved = cv2.warpAffine(layer.pixels, np.column_stack([matrix, shift]), (width, height), flags=cv2.INTER_LINEAR)
    canvas *= 1.0 - moved[..., 3:]
    canvas += moved[..., :3]


def opaque(picture: Pixels, anchor: Point = (0.0, 0.0)) -> Layer:
    """A rectangular layer out of an (H, W, 3) picture."""
    return Layer(np.dstack([picture, np.ones(picture.shape[:2], np.float32)]), anchor)


def cut_out(picture: Pixels, mask: Pixels, anchor: Point) -> Layer:
    """A layer out of an (H, W, 3) picture and its (H, W) alpha."""
    return Layer(np.dstack([picture * mask[..., None], mask]), anchor)


def photo(name: str) -> Pixels:
    """The photograph of that name in `skimage.data`, (H, W, 3), range 0 to 1."""
    load: Callable[[], NDArray[np.uint8]] = getattr(data, name)
    picture = load()
    rgb = np.dstack([picture] * 3) if picture.ndim == 2 else picture
    return rgb.astype(np.float32) / 255.0


def enlarge(picture: Pixels, scale: float) -> Pixels:
    """Resize by `scale`, smooth in both directions."""
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    resized = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=method)
    return np.clip(resized, 0.0, 1.0).astype(np.float32)


def tint(picture: Pixels, colour: Colour) -> Pixels:
    """Colour a grey picture."""
    coloured: Pixels = np.clip(picture * np.array(colour, np.float32), 0.0, 1.0)
    return coloured


def ellipse_mask(shape: tuple[int, int], centre: Point, axes: Point) -> Pixels:
    """Alpha of a filled ellipse with a soft edge one pixel wide; `axes` are its half sides."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    distance = np.hypot((x - centre[0]) / axes[0], (y - centre[1]) / axes[1])
    alpha: Pixels = np.clip((1.0 - distance) * min(axes) + 0.5, 0.0, 1.0).astype(np.float32)
    return alpha


def drawing(size: tuple[int, int]) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """An empty see-through picture of (width, height) and the pen for it."""
    image = Image.new("RGBA", size)
    return image, ImageDraw.Draw(image)


def from_drawing(image: Image.Image, shrink: int, anchor: Point = (0.0, 0.0)) -> Layer:
    """A layer out of a drawing that was made `shrink` times too large, for smooth lines."""
    rgba = np.asarray(image, np.float32) / 255.0
    rgba[..., :3] *= rgba[..., 3:]
    small = cv2.resize(rgba, (image.width // shrink, image.height // shrink), interpolation=cv2.INTER_AREA)
    return Layer(small.astype(np.float32), anchor)


def caption(text: str, size_px: int) -> Layer:
    """White letters on a dark, half see-through plate; the anchor is the plate's lower left corner."""
    zoom = 4
    font = ImageFont.load_default(size_px * zoom)
    left, top, right, bottom = font.getbbox(text)
    margin = size_px * zoom // 2
    width, height = int(right - left) + 2 * margin, int(bottom - top) + 2 * margin
    image, pen = drawing((width // zoom * zoom, height // zoom * zoom))
    pen.rounded_rectangle((0, 0, image.width - 1, image.height - 1), radius=margin, fill=(10, 12, 20, 170))
    pen.text((margin - left, margin - top), text, font=font, fill=(255, 255, 255, 255))
    return from_drawing(image, zoom, (0.0, image.height / zoom))


def shade(radius: int, strength: float) -> Layer:
    """Shadow on the lower right of a ball; it is laid over the ball and does not turn with it."""
    side = 2 * radius
    y, x = (np.mgrid[:side, :side] + 0.5) / radius - 1.0
    dark = strength * np.clip(np.hypot(x + 0.45, y + 0.5) - 0.45, 0.0, 1.0).astype(np.float32)
    middle = (float(radius), float(radius))
    alpha = dark * ellipse_mask((side, side), (radius - 0.5, radius - 0.5), middle)
    return cut_out(np.zeros((side, side, 3), np.float32), alpha, middle)


class CatScene:
    """Slow pan and zoom on a cat; a ball bounces along a wall; a wooden fish swings on a string."""

    BALL_SPEED_PX = 19.0
    BALL_SPIN_DEGREES = 11.0
    BALL_SCALE = 0.52

    def __init__(self) -> None:
        cat = enlarge(photo("chelsea"), 2 * OVERSAMPLING)
        self.cat = opaque(cat, (cat.shape[1] / 2, cat.shape[0] / 2))
        self.wall = self._wall()
        self.ball = self._ball()
        self.shade = shade(64, 0.6)
        self.toy = self._toy()
        self.caption = caption("A cat, a ball and a toy on a string", 15)

    @staticmethod
    def _wall() -> Layer:
        bricks = np.ascontiguousarray(photo("brick").transpose(1, 0, 2)[180:240])
        wall = tint(enlarge(bricks, 2.0), (1.2, 0.8, 0.68))
        wall *= np.linspace(1.15, 0.7, wall.shape[0], dtype=np.float32)[:, None, None]
        return opaque(np.clip(wall, 0.0, 1.0))

    @staticmethod
    def _ball() -> Layer:
        side = 256
        felt = tint(photo("grass")[:side, :side] * 0.45 + 0.5, (0.92, 1.0, 0.28))
        for x in (-side // 5, side + side // 5):
            cv2.circle(felt, (x, side // 2), side // 2, WHITE, side // 22, cv2.LINE_AA)
        middle = (side / 2, side / 2)
        whole = cut_out(felt, ellipse_mask((side, side), (side / 2 - 0.5, side / 2 - 0.5), middle), middle)
        return Layer(enlarge(whole.pixels, 0.5), (side / 4, side / 4))

    @staticmethod
    def _toy() -> Layer:
        wood = enlarge(photo("coffee")[300:380, 470:600], 2.0)
        image, pen = drawing((400, 1000))
        pen.line((200, 0, 200, 800), fill=(245, 245, 240, 255), width=6)
        layer = from_drawing(image, 2, (100.0, 0.0))
        shape = np.zeros(layer.pixels.shape[:2], np.float32)
        cv2.ellipse(shape, ((100.0, 430.0), (110.0, 62.0), 0.0), 1.0, -1, cv2.LINE_AA)
        cv2.fillPoly(shape, [np.array([[140, 430], [185, 402], [185, 458]], np.int32)], 1.0, cv2.LINE_AA)
        texture = np.zeros((*shape.shape, 3), np.float32)
        texture[360:500] = wood[:140, :200]
        cv2.circle(texture, (68, 422), 7, WHITE, -1, cv2.LINE_AA)
        cv2.circle(texture, (67, 422), 3, BLACK, -1, cv2.LINE_AA)
        fish = cut_out(texture, shape, layer.anchor)
        return Layer(layer.pixels * (1.0 - shape[..., None]) + fish.pixels, layer.anchor)

    def ball_at(self, frame: int) -> Point:
        """Centre of the ball: constant speed sideways, a parabola between bounces."""
        bounce_frames, height_px, floor_px = 24, 120.0, 282.0
        phase = ((frame + 6) % bounce_frames) / bounce_frames
        return -20.0 + self.BALL_SPEED_PX * frame, floor_px - height_px * 4.0 * phase * (1.0 - phase)

    def draw(self, canvas: Pixels, frame: int) -> None:
        """Draw frame `frame` of this scene, counted from its first."""
        zoom = (0.775 + 0.0026 * frame) / OVERSAMPLING
        paste(canvas, self.cat, (345.0 - 1.5 * frame, 142.0 + 0.7 * frame), scale=zoom)
        swing = 24.0 * math.sin(math.tau * frame / 32)
        paste(canvas, self.toy, (150.0 - 1.2 * frame, -14.0), scale=0.5, degrees=swing)
        paste(canvas, self.wall, (-6.0 * frame, 312.0), scale=0.86)
        at = self.ball_at(frame)
        paste(canvas, self.ball, at, scale=self.BALL_SCALE, degrees=self.BALL_SPIN_DEGREES * frame)
        paste(canvas, self.shade, at, scale=self.BALL_SCALE)
        paste(canvas, self.caption, (16.0, 46.0))


class LaunchScene:
    """Pan over a launch pad; cables and grass pass in front; a spinning saucer crosses the picture."""

    def __init__(self) -> None:
        self.pad = opaque(enlarge(photo("rocket"), 1.3 * OVERSAMPLING))
        self.cables = self._cables()
        self.grass = self._grass()
        self.saucer = self._saucer()
        self.caption = caption("Falcon 9 at Cape Canaveral, and a visitor", 15)

    @staticmethod
    def _cables() -> Layer:
        zoom, width, height, span = 4, 1250, 300, 250
        image, pen = drawing((width * zoom, height * zoom))
        for left in range(0, width, span):
            pole, arm = left + span // 2, 17
            pen.rectangle(((pole - 2) * zoom, 0, (pole + 2) * zoom, height * zoom), fill=DUSK)
            for row, sag_px in ((8, 44), (20, 48), (32, 52)):
                pen.rectangle(((pole - arm) * zoom, row * zoom, (pole + arm) * zoom, (row + 2) * zoom), fill=DUSK)
                steps = np.linspace(0.0, 1.0, 60)
                points = [((pole + span * (t - 1)) * zoom, (row + 4 * sag_px * t * (1 - t)) * zoom) for t in steps]
                pen.line(points, fill=DUSK, width=6)
        return from_drawing(image, zoom)

    @staticmethod
    def _grass() -> Layer:
        width, height, zoom = 1100, 90, 4
        texture = photo("grass")[:height]
        texture = np.hstack([texture, texture[:, ::-1], texture])[:, :width] ** 1.4
        ground = tint(texture, (0.30, 0.42, 0.24))
        image, pen = drawing((width * zoom, height * zoom))
        pen.rectangle((0, 40 * zoom, width * zoom, height * zoom), fill=(255, 255, 255, 255))
        random = np.random.default_rng(SEED)
        for x, lean, top in zip(
            random.uniform(0, width, 500), random.normal(0, 7, 500), random.uniform(8, 36, 500), strict=True
        ):
            blade = [((x - 2.2) * zoom, 46 * zoom), ((x + lean) * zoom, top * zoom), ((x + 2.2) * zoom, 46 * zoom)]
            pen.polygon(blade, fill=(255, 255, 255, 255))
        return cut_out(ground, from_drawing(image, zoom).pixels[..., 3], (0.0, 0.0))

    @staticmethod
    def _saucer() -> Layer:
        plate = ellipse_mask((400, 600), (279.0, 222.0), (198.0, 159.0))
        cup = ellipse_mask((400, 600), (290.0, 112.0), (117.0, 93.0))
        whole = cut_out(photo("coffee"), np.maximum(plate, cup), (0.0, 0.0))
        return Layer(enlarge(whole.pixels, 0.5), (139.5, 102.0))

    def saucer_at(self, frame: int) -> Point:
        """Centre of the saucer: about 21 pixels a frame, on a shallow curve."""
        return -60.0 + 21.0 * frame, 190.0 - 4.6 * frame + 0.09 * frame**2

    def draw(self, canvas: Pixels, frame: int) -> None:
        """Draw frame `frame` of this scene, counted from its first."""
        paste(canvas, self.pad, (-20.0 - 3.2 * frame, -128.0 + 0.9 * frame), scale=1 / OVERSAMPLING)
        paste(canvas, self.saucer, self.saucer_at(frame), scale=0.5, degrees=6.0 * frame)
        paste(canvas, self.cables, (-70.0 - 7.3 * frame, 12.0))
        paste(canvas, self.grass, (-12.4 * frame, 278.0))
        paste(canvas, self.caption, (300.0 - 4.5 * frame, 338.0))


def frames() -> Iterator[NDArray[np.uint8]]:
    """All frames in order, (H, W, 3), RGB."""
    scenes = (CatScene(), LaunchScene())
    canvas = np.zeros((HEIGHT * OVERSAMPLING, WIDTH * OVERSAMPLING, 3), np.float32)
    for number in range(FRAMES):
        scene, first = (scenes[0], 0) if number < CUT else (scenes[1], CUT)
        canvas[:] = 0.0
        scene.draw(canvas, number - first)
        small = cv2.resize(canvas, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
        yield (np.clip(small, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def chord(notes_hz: tuple[float, ...], seconds: float) -> NDArray[np.float64]:
    """A soft chord, (2, samples): the two channels are tuned a little apart, both ends fade."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    fade = np.clip(np.minimum(time, seconds - time) / 0.12, 0.0, 1.0)
    channels = [
        sum(np.sin(math.tau * hz * detune * time) / (1 + row) for row, hz in enumerate(notes_hz))
        for detune in (0.999, 1.001)
    ]
    return 0.09 * np.array(channels) * fade


def sound() -> NDArray[np.float32]:
    """The whole sound track, (2, samples), range -1 to 1, exactly as long as the pictures."""
    cut_seconds, end_seconds = CUT / FPS, FRAMES / FPS
    first = chord((261.63, 329.63, 392.0), cut_seconds)
    second = chord((220.0, 261.63, 329.63, 440.0), end_seconds - cut_seconds)
    track = np.concatenate([first, second], axis=1)
    time = np.arange(round(BLIP_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    blip = 0.5 * np.sin(math.tau * BLIP_HZ * time) * np.exp(-time / (BLIP_SECONDS / 5))
    start = CUT * SAMPLE_RATE // FPS
    track[:, start : start + blip.size] += blip
    return track.astype(np.float32)


def add_video(container: av.container.OutputContainer) -> av.VideoStream:
    """H.264, 4:2:0, BT.709, limited range, and tagged so."""
    stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryslow", "crf": "18", "threads": "1"})
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    stream.time_base = Fraction(1, FPS)
    stream.codec_context.time_base = Fraction(1, FPS)
    stream.codec_context.color_range = ColorRange.MPEG
    stream.codec_context.colorspace = Colorspace.ITU709
    stream.codec_context.color_primaries = ColorPrimaries.BT709
    stream.codec_context.color_trc = ColorTrc.BT709
    return stream


def video_frame(rgb: NDArray[np.uint8], number: int) -> av.VideoFrame:
    """Frame `number` in the format of `add_video`."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )
    frame.pts, frame.time_base = number, Fraction(1, FPS)
    return frame


def encode_sound(container: av.container.OutputContainer, stream: av.AudioStream) -> None:
    """Encode the whole sound track."""
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound()), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 0, Fraction(1, SAMPLE_RATE)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write(path: Path) -> None:
    """Render and encode the clip."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        video = add_video(container)
        audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="stereo", options={"b": "96k"})
        for number, rgb in enumerate(frames()):
            container.mux(video.encode(video_frame(rgb, number)))
        container.mux(video.encode(None))
        encode_sound(container, audio)


def main() -> None:
    """Read the command line and write the clip."""
    parser = argparse.ArgumentParser(description="Make the sample clip.")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).with_name("sample.mp4"))
    write(parser.parse_args().output)


if __name__ == "__main__":
    main()
