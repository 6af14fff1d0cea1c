"""Plans as VapourSynth scripts: a .vpy makes the frames that `vsrife video` would encode."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from vsrife.errors import OptionError
from vsrife.filters.telecine import takes
from vsrife.timing.pulldown import Film
from vsrife.timing.timeline import Timeline
from vsrife.video.plan import Plan, VideoOptions
from vsrife.video.source import Source

# Defaults of `RIFE` other than None and False.
_DEFAULTS: Mapping[str, Any] = {"sc_threshold": 0.15, "scale": 1.0, "max_repeats": 3}

_TIMED = """\


def timed(n, f):
    frame, duration = f.copy(), (times[n + 1] - times[n]){}
    frame.props["_DurationNum"], frame.props["_DurationDen"] = duration.numerator, duration.denominator
    return frame


clip = clip.std.ModifyFrame(clip, timed)"""

_MPV_HEAD = """\
# Real-time playback in mpv. Save this as vsrife.vpy in mpv's configuration folder, and put into mpv.conf:
#
#   framedrop=decoder+vo
#   {}
#
# A key that switches it on and off, in input.conf:
#
#   ctrl+r vf toggle vapoursynth="~~/vsrife.vpy"
#
# Where the machine is too slow, source frames are shown. :user-data="model=lite fps=60 realtime=overlay" after the
# file's name overrides what is below. mpv runs this again after every seek; the network stays loaded.
import vsrife
from vsrife.filters.player import player_keywords, show_warnings

show_warnings()
"""

MPV_LINE = 'vf=vapoursynth="~~/vsrife.vpy"'


def vapoursynth_script(source: Source, plan: Plan) -> str:
    """The text of the script that runs `plan` on `source`."""
    timed = plan.timestamps or source.timeline.rate is None or plan.timeline.rate is None
    imports = ["from fractions import Fraction"] if timed else []
    if plan.film is not None and plan.timeline.rate is None:
        imports.append("from itertools import accumulate")
    imports[-1:] = [f"{line}\n" for line in imports[-1:]]
    parts = [
        "# Length and rate:  vspipe --info SCRIPT",
        "# Into an encoder:  vspipe -c y4m SCRIPT - | ffmpeg -i - out.mp4\n",
        *imports,
        "import vapoursynth as vs\n",
        "import vsrife\n",
        *_source_lines(source, plan),
        *_rife_lines(plan),
        "clip.set_output()",
    ]
    return "\n".join(parts) + "\n"


def mpv_script(options: VideoOptions) -> str:
    """The text of the script for mpv, which opens files itself.

    Raises:
        OptionError: an option that the player must carry out is given.
    """
    unfit = {"--start": options.start, "--end": options.end, "--deinterlace": options.deinterlace,
             "--inverse-telecine": options.inverse_telecine,
             "--slow-motion": options.slow_motion != 1, "--retime": options.retime,
             "--replace": options.replace}  # fmt: skip
    for name, value in unfit.items():
        if value:
            raise OptionError(f"{name} is up to the player, got it with --mpv; use mpv's own option")
    duplicates = None if options.duplicates == "keep" else options.duplicates
    repair = {"duplicates": duplicates, "max_repeats": options.max_repeats if duplicates else None}
    rate = {"multi": options.multi, "fps": options.fps}
    keywords = _keywords({**rate, **options.network, **repair, "sc_threshold": options.sc_threshold})
    chosen = ", ".join(["globals()", *keywords])
    return f"{_MPV_HEAD.format(MPV_LINE)}vsrife.RIFE(video_in, **player_keywords({chosen})).set_output()\n"


def _source_lines(source: Source, plan: Plan) -> Iterator[str]:
    keywords = [f"{name}={value!r}" for name, value in {"track": source.track, **plan.source}.items()]
    opened = f"vs.core.bs.VideoSource({', '.join([_path(source.path), *keywords])}"
    if source.timeline.rate is None:
        yield f"opened = {opened}, exporttimestamps=1)"
        yield f'clip, ticks = opened["clip"], [*opened["timestamps"], {source.timeline.ticks[-1]}]'
    else:
        yield f"clip = {opened})"
    yield from _prepared_lines(source, plan)


def _prepared_lines(source: Source, plan: Plan) -> Iterator[str]:
    ticks = source.timeline.rate is None and plan.film is None
    if plan.field is not None:
        yield f"clip = clip.bwdif.Bwdif(field={plan.field}).std.SetFieldBased(0)"
        if ticks:
            yield "ticks = [t for a, b in zip(ticks, ticks[1:]) for t in (2 * a, a + b)] + [2 * ticks[-1]]"
    if plan.film is not None:
        yield from _film_lines(source, *plan.film)
    if plan.trim is not None:
        first, end = plan.trim
        yield f"clip = clip[{first}:{end}]"
        if ticks:
            yield f"ticks = ticks[{first} : {end + 1}]"
    if plan.rate is not None:
        yield f"clip = clip{_rate(plan.rate)}"
        if plan.timestamps:
            frame = f"Fraction(n * {plan.rate.denominator}, {plan.rate.numerator})"
            yield f"times = [{frame} for n in range(len(clip) + 1)]"
    elif plan.film is not None:
        yield f"lasts = {' + '.join(_durations(plan.timeline))}"
        yield "times = [*accumulate(lasts, initial=Fraction(0))]"
    elif ticks:
        tick = plan.timeline.tick
        yield f"times = [Fraction(tick * {tick.numerator}, {tick.denominator}) for tick in ticks]"


def _film_lines(source: Source, order: int, film: Film) -> Iterator[str]:
    if takes(source.clip):
        yield f"matched = clip.vivtc.VFM({order})"
    else:
        yield "grey = clip.std.ShufflePlanes(0, vs.GRAY).resize.Point(format=vs.GRAY8)"
        yield f"matched = grey.vivtc.VFM({order}, clip2=clip)"
    if film.video:
        yield f"progressive = matched.bwdif.Bwdif(field={order})"
        yield f"video = [{', '.join(f'range({first}, {end})' for first, end in film.video)}]"
        yield 'combed = lambda n, f: f.props["_Combed"] and any(n in part for part in video)'
        yield "choose = lambda n, f, matched=matched: progressive if combed(n, f) else matched"
        yield "matched = matched.std.FrameEval(choose, prop_src=matched, clip_src=[matched, progressive])"
    yield "clip = matched.std.SetFieldBased(0)"
    if film.dropped:
        yield f"clip = clip.std.DeleteFrames([{', '.join(_ranges(film.dropped))}])"


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """Increasing numbers as items of a list, those at equal distances as ranges."""
    i = 0
    while i < len(numbers):
        step = numbers[i + 1] - numbers[i] if i + 1 < len(numbers) else 1
        end = i + 1
        while end < len(numbers) and numbers[end] - numbers[end - 1] == step:
            end += 1
        yield f"*range({numbers[i]}, {numbers[end - 1] + 1}, {step})" if end - i > 1 else f"{numbers[i]}"
        i = end


def _durations(timeline: Timeline) -> Iterator[str]:
    """Lists of equal durations, which make up those of all frames in turn."""
    for ticks, group in groupby(after - now for now, after in pairwise(timeline.ticks)):
        yield f"[{ticks * timeline.tick!r}] * {len(list(group))}"


def _rife_lines(plan: Plan) -> Iterator[str]:
    keywords = [*_keywords(plan.rife), *(["timestamps=times"] if plan.timestamps else [])]
    rate = plan.output_timeline().rate
    if rate is None:
        yield _TIMED.format(f" * {Fraction(plan.slow_motion)!r}" if plan.slow_motion != 1 else "")
    yield f"clip = vsrife.RIFE({', '.join(['clip', *keywords])})"
    if rate is not None and plan.slow_motion != 1:
        yield f"clip = clip{_rate(rate)}"


def _path(path: Path) -> str:
    """A file's absolute name as a literal, of bytes if it is no UTF-8."""
    text = str(path.resolve())
    try:
        text.encode()
    except UnicodeEncodeError:
        return repr(os.fsencode(text))
    return repr(text)


def _rate(rate: Fraction) -> str:
    return f".std.AssumeFPS(fpsnum={rate.numerator}, fpsden={rate.denominator})"


def _keywords(keywords: Mapping[str, Any]) -> list[str]:
    """Keywords as in a call, without defaults."""
    chosen = [
        (name, value)
        for name, value in keywords.items()
        if value is not None and value is not False and (name not in _DEFAULTS or value != _DEFAULTS[name])
    ]
    chosen.sort(key=lambda item: item[0] not in ("multi", "fps"))
    return [f"{name}={_number(value) if isinstance(value, Fraction) else repr(value)}" for name, value in chosen]


def _number(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else repr(str(value))
