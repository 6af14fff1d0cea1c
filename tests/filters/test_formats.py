"""Every format and size: the same comes out, still parts stay, and what moves is moved in the clip's own planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import vapoursynth as vs
from numpy.typing import NDArray

from tests.clips import (
    RGBPicture,
    clip_of,
    core,
    counted_runs,
    equal,
    pan,
    panned,
    planes_of,
    props_of,
    psnr_db,
    texture,
    video_format,
)
from vsrife import RIFE
from vsrife.checkpoints.finding import find_weights
from vsrife.checkpoints.loading import read_ifnet
from vsrife.networks.ifnet import IFNet

INTEGER_FORMATS = (
    *("GRAY8", "GRAY9", "GRAY10", "GRAY12", "GRAY14", "GRAY16"),
    *("YUV420P8", "YUV420P9", "YUV420P10", "YUV420P12", "YUV420P14", "YUV420P16"),
    *("YUV422P8", "YUV422P10", "YUV422P16", "YUV444P8", "YUV444P10", "YUV444P16"),
    *("YUV410P8", "YUV411P8", "YUV440P8", "RGB24", "RGB27", "RGB30", "RGB48"),
)
FLOAT_FORMATS = ("GRAYH", "GRAYS", "YUV420PH", "YUV420PS", "YUV422PS", "YUV444PH", "YUV444PS", "RGBH", "RGBS")
FORMATS = INTEGER_FORMATS + FLOAT_FORMATS


def peak(fmt: vs.VideoFormat) -> float:
    return 1.0 if fmt.sample_type == vs.FLOAT else float((1 << fmt.bits_per_sample) - 1)


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_new_frames_have_the_format_of_the_clip_and_show_the_motion(name: str) -> None:
    """Each plane is nearer to the true frame between than a plain mix of its neighbours is, chroma included."""
    width, height = 128, 64
    step_px = 8 if "41" in name else 4  # half of it is a whole number of chroma samples
    clip = clip_of([panned(n, width, height, step_px) for n in range(2)], name)
    truth = planes_of(clip_of([panned(1, width, height, step_px // 2)], name), 0)
    out = RIFE(clip, sc_threshold=1.0)
    assert out.format.id == clip.format.id == video_format(name).id
    assert (out.width, out.height) == (width, height)
    before, made, after = (planes_of(out, n) for n in range(3))
    for plane, (a, x, b, right) in enumerate(zip(before, made, after, truth, strict=True)):
        mixed = (a.astype(np.float64) + b.astype(np.float64)) / 2
        inner = np.s_[:, x.shape[1] // 8 : -x.shape[1] // 8]  # at the sides something comes into view
        gain_db = psnr_db(x[inner], right[inner], peak(clip.format)) - psnr_db(
            mixed[inner], right[inner], peak(clip.format)
        )
        assert gain_db > 3, f"plane {plane}: {gain_db:.1f} dB"


@pytest.mark.parametrize("name", FORMATS)
def test_the_smallest_size(name: str) -> None:
    clip = pan(2, 16, 16, name)
    made = planes_of(RIFE(clip, sc_threshold=1.0), 1)
    assert [p.shape for p in made] == [p.shape for p in planes_of(clip, 0)]
    assert all(np.isfinite(p.astype(np.float32)).all() for p in made)


@pytest.mark.parametrize("size", [(17, 19), (427, 239)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("name", ["GRAY8", "GRAYH", "YUV444P8", "YUV444P16", "YUV444PS", "RGB24", "RGB48", "RGBS"])
def test_odd_sizes(name: str, size: tuple[int, int]) -> None:
    clip = pan(2, *size, name)
    out = RIFE(clip, sc_threshold=1.0)
    before, made, after = (planes_of(out, n) for n in range(3))
    assert made[0].shape == (size[1], size[0])
    assert not equal(made, before)
    assert not equal(made, after)
    # Also the last row and column are made from the picture, not from the padding.
    for a, x, b in zip(before, made, after, strict=True):
        mixed = (a.astype(np.float64) + b.astype(np.float64)) / 2
        for edge in (np.s_[-1, :], np.s_[:, -1]):
            assert np.abs(x[edge] - mixed[edge]).mean() < 0.1 * peak(clip.format)


@pytest.mark.parametrize(("name", "size"), [("YUV422P8", (34, 19)), ("YUV440P8", (19, 34)), ("YUV420P8", (426, 238))])
def test_sizes_that_only_the_subsampling_allows(name: str, size: tuple[int, int]) -> None:
    clip = pan(2, *size, name)
    assert [p.shape for p in planes_of(RIFE(clip, sc_threshold=1.0), 1)] == [p.shape for p in planes_of(clip, 0)]


def test_a_large_size() -> None:
    """Strides beyond a page, positions beyond 2048 that half floats could not tell apart."""
    width, height = 4096, 2176
    tile = np.tile(texture(256, 272, finest_px=8), (height // 272, width // 256 + 1, 1))
    pictures = [tile[:, 16 * n : 16 * n + width] for n in range(2)]
    clip = clip_of(pictures, "YUV420P8")
    truth = planes_of(clip_of([tile[:, 8 : 8 + width]], "YUV420P8"), 0)
    made = planes_of(RIFE(clip, scale=0.25, sc_threshold=1.0), 1)
    mixed = [(a.astype(np.float64) + b) / 2 for a, b in zip(planes_of(clip, 0), planes_of(clip, 1), strict=True)]
    right = np.s_[-512:, -1024:-64]  # the far corner, apart from what comes into view
    assert psnr_db(made[0][right], truth[0][right], 255) > psnr_db(mixed[0][right], truth[0][right], 255) + 3


# --- what stays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_equal_neighbours_give_the_source_frame_without_the_network(name: str) -> None:
    picture = panned(0, 64, 48)
    clip = clip_of([picture, picture, picture, panned(5, 64, 48)], name)
    out = RIFE(clip, multi=3, sc_threshold=1.0)
    with counted_runs() as runs:
        for n in (1, 2):  # the pair after this one is worked on ahead
            assert equal(planes_of(out, n), planes_of(clip, 0))
        assert not runs
        assert not equal(planes_of(out, 7), planes_of(clip, 2))
        assert runs


def square_on_texture(n: int, width: int, height: int) -> RGBPicture:
    picture = texture(width, height, 3).copy()
    left = 16 + 6 * n
    picture[height // 2 - 12 : height // 2 + 12, left : left + 24] = texture(24, 24, 4)
    return picture


@pytest.mark.parametrize("name", INTEGER_FORMATS)
def test_where_nothing_moves_the_picture_stays(name: str) -> None:
    """A textured square moves over a textured ground; 40 pixels away from it the ground stays within one code value."""
    width, height = 256, 64
    clip = clip_of([square_on_texture(n, width, height) for n in range(2)], name)
    made, source = planes_of(RIFE(clip, sc_threshold=1.0), 1), planes_of(clip, 0)
    away_px = 16 + 6 + 24 + 40
    for plane, (x, a) in enumerate(zip(made, source, strict=True)):
        away = np.s_[:, away_px * x.shape[1] // width :]
        difference = np.abs(x[away].astype(np.int64) - a[away].astype(np.int64))
        assert difference.max() <= 1, f"plane {plane}: {difference.max()} codes, {np.count_nonzero(difference)} samples"
        moved = x.astype(np.int64) - a.astype(np.int64)
        assert np.abs(moved).max() > 1, f"plane {plane}: the square did not move"


# --- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(128, 64), (97, 61)], ids=lambda s: f"{s[0]}x{s[1]}")
@pytest.mark.parametrize("timestep", [1 / 3, 1 / 2])
def test_float_rgb_is_what_the_published_forward_shows(size: tuple[int, int], timestep: float) -> None:
    """To 1e-5, beyond black and white too, where the published forward clamps."""
    width, height = size
    pictures: list[RGBPicture] = [(panned(n, width, height) * 1.4 - 0.2).astype(np.float32) for n in range(2)]
    clip = clip_of(pictures, "RGBS")
    multi = round(1 / timestep)
    made = np.stack(planes_of(RIFE(clip, multi=multi, sc_threshold=1.0, device="cpu", precision="fp32"), 1))

    weights = read_ifnet(find_weights())
    net = IFNet(weights.layout).eval()
    net.load_state_dict(weights.tensors)
    full_width, full_height = weights.layout.padded(width, height, 1.0)
    a, b = (
        F.pad(torch.from_numpy(p.transpose(2, 0, 1).copy())[None], (0, full_width - width, 0, full_height - height))
        for p in pictures
    )
    with torch.inference_mode():
        expected = net(a, b, timestep).image[0, :, :height, :width].numpy()
    assert np.abs(made - expected).max() <= 1e-5


def as_rgb(clip: vs.VideoNode, n: int) -> NDArray[np.float32]:
    return np.stack(planes_of(clip.resize.Bilinear(format=vs.RGBS), n))


@pytest.mark.parametrize(
    ("name", "matrix", "full_range"),
    [
        ("YUV444P16", "709", True),
        ("YUV444P16", "170m", False),
        ("YUV444P16", "170m", True),
        ("YUV444P16", "2020ncl", False),
        ("YUV444P16", "ycgco", False),
        ("RGB48", "709", False),
        ("YUV420P16", "709", True),
    ],
)
def test_range_and_matrix_do_not_change_the_motion(name: str, matrix: str, full_range: bool) -> None:
    """The same scene in another encoding gives the same new frame."""
    scene = [panned(n, 96, 64, step_px=4) for n in range(2)]
    plain = clip_of(scene, "YUV420P16" if "420" in name else "YUV444P16", matrix="709", full_range=False)
    other = clip_of(scene, name, matrix=matrix, full_range=full_range)
    expected = as_rgb(RIFE(plain, sc_threshold=1.0), 1)
    made = as_rgb(RIFE(other, sc_threshold=1.0), 1)
    assert np.abs(made - expected).max() < 0.01
    assert np.abs(made - expected).mean() < 0.0005


def test_the_older_name_of_the_range_is_understood() -> None:
    """`_ColorRange` 0 is full and 1 limited, the other way round than `_Range`."""
    scene = [panned(n, 96, 64, step_px=4) for n in range(2)]
    clip = clip_of(scene, "YUV444P8", full_range=True)
    assert props_of(clip, 0)["_Range"] == 1

    def renamed(n: int, f: vs.VideoFrame) -> vs.VideoFrame:  # noqa: ARG001
        result = f.copy()
        del result.props["_Range"]
        with pytest.warns(DeprecationWarning, match="_ColorRange"):
            result.props["_ColorRange"] = 0
        return result

    made = planes_of(RIFE(clip.std.ModifyFrame([clip], renamed), sc_threshold=1.0), 1)
    assert equal(made, planes_of(RIFE(clip, sc_threshold=1.0), 1))
    untagged = clip.std.RemoveFrameProps(["_Range", "_ColorRange"])
    assert not equal(made, planes_of(RIFE(untagged, sc_threshold=1.0), 1)), "the range makes no difference here"


def test_clips_without_colour_props() -> None:
    """As players hand them over; the usual guess by height is near enough."""
    tagged = pan(2, 96, 64, "YUV420P8", matrix="170m", full_range=False)
    bare = tagged.std.RemoveFrameProps(["_Matrix", "_Range", "_Primaries", "_Transfer", "_ChromaLocation"])
    assert equal(planes_of(RIFE(bare, sc_threshold=1.0), 1), planes_of(RIFE(tagged, sc_threshold=1.0), 1))


def test_chroma_location_moves_the_chroma() -> None:
    """Chroma is warped by the flow at its own place."""
    scene = [square_on_texture(n, 96, 64) for n in range(2)]
    clip = clip_of(scene, "YUV420P8")
    left = planes_of(RIFE(clip.std.SetFrameProps(_ChromaLocation=0), sc_threshold=1.0), 1)
    bottom = planes_of(RIFE(clip.std.SetFrameProps(_ChromaLocation=5), sc_threshold=1.0), 1)
    assert not equal(left[1:], bottom[1:])


# --- what is refused --------------------------------------------------------------------------------------------------


def variable_format() -> vs.VideoNode:
    return core.std.Splice([pan(2), pan(2, fmt="YUV444P8")], mismatch=True)


def variable_size() -> vs.VideoNode:
    return core.std.Splice([pan(2), pan(2, 32, 32)], mismatch=True)


def integers_of_32_bit() -> vs.VideoNode:
    return core.std.BlankClip(format=video_format("GRAY32").id, width=64, height=64, length=3)


@pytest.mark.parametrize(
    ("clip", "text"),
    [
        (variable_format, r"RIFE: clip must have one format and size, got a variable format and \d+x\d+; convert it"),
        (variable_size, r"RIFE: clip must have one format and size, got YUV420P8 and a variable size; convert it"),
        (integers_of_32_bit, r"RIFE: clip must have 8 to 16 bit or float samples, got Gray32; convert it"),
    ],
)
def test_what_cannot_be_handled_is_refused(clip: Any, text: str) -> None:
    with pytest.raises(vs.Error, match=text):
        RIFE(clip())


def test_only_clips_are_taken() -> None:
    frame: Any = pan(2).get_frame(0)
    with pytest.raises(vs.Error, match=r"RIFE: clip must be a video node, got VideoFrame; pass what"):
        RIFE(frame)


def test_a_conversion_after_the_filter_needs_no_more_arguments() -> None:
    """New frames carry the colour props of their neighbours."""
    out = RIFE(pan(2, fmt="YUV420P8"), sc_threshold=1.0)
    assert np.isfinite(as_rgb(out, 1)).all()
