"""Writes docs/reference/command.md from the help of the command itself:  python docs/make_cli.py"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

import click

from vsrife.cli import commands
from vsrife.cli.options import sections_of

PAGE = Path(__file__).parent / "reference" / "command.md"

HEAD = """\
# The command `vsrife`

<!-- Written by docs/make_cli.py from the command's own help; change that, and run it again. -->

`vsrife` is installed with the package; `python -m vsrife` is the same. The commands for video and pictures need what
the extra `cli` installs. `vsrife COMMAND --help` shows what stands here.

| to | type |
|---|---|
| double the frame rate | `vsrife video in.mp4 out.mp4` |
| get 60 frames a second | `vsrife video in.mkv out.mkv --fps 60` |
| quadruple it, as `inference_video.py --exp=2 --video=in.mp4` | `vsrife video in.mp4 out.mp4 --exp 2` |
| see 8 times slower, with the sound | `vsrife video in.mp4 slow.mp4 --slow-motion 8 --stretch-audio` |
| work on 4K | `vsrife video in.mkv out.mkv --uhd` |
| convert a folder | `vsrife video clips --output-dir smooth --skip-existing` |
| make the picture between two | `vsrife image a.png b.png -o middle.png` |
| choose a model on your own video | `vsrife compare in.mp4 --model 4.6 --model 4.26 --html` |
| go on in VapourSynth | `vsrife script in.mp4 > in.vpy` |
| play in real time | `vsrife script --mpv > ~/.config/mpv/vsrife.vpy` |
| report a bug | `vsrife doctor > report.txt` |

## Output, errors, exit codes

Results go to stdout; messages, progress and errors to stderr. With `--json`, stdout has JSON alone: one object a line
while a command works on files, with the key `event`; one document from `models` and `doctor`.

| exit code | meaning |
|---:|---|
| 0 | done |
| 1 | failed: a file, a model or a device cannot be used. Of several inputs, at least one failed |
| 2 | wrong usage: an unknown command or option, or a value out of range |
| 130 | interrupted by Ctrl-C; `vsrife video` has finished the file so far |

An error says what is wrong, what it got, and what to do. Commands, options and models that are misspelt get a guess.
Files get their final names when they are complete; existing files stay, unless `--overwrite` (for models:
`--force`) is given.

## Completion

Commands, options, models, devices, precisions and codecs complete with Tab after one line of set-up:

| shell | line | where |
|---|---|---|
| bash | `eval "$(vsrife completion bash)"` | `~/.bashrc` |
| zsh | `eval "$(vsrife completion zsh)"` | `~/.zshrc`, after `compinit` |
| fish | `vsrife completion fish \\| source` | `~/.config/fish/completions/vsrife.fish` |

## Environment variables

| variable | meaning |
|---|---|
| `VSRIFE_MODEL_DIR` | where downloaded and imported models are kept, instead of the user's cache directory |
| `VSRIFE_MODEL_URL` | mirror that models are downloaded from |

## ONNX graphs

`vsrife models export 4.26 out.onnx` writes the published forward. It agrees with the network to 1e-4, which the tests
check for each of the layouts in onnxruntime.

- One graph for frames of any size and number. They are padded with zeros inside, as the published forward does.
- Inputs `img0` and `img1`, (N, 3, H, W), and `timestep`, (1, 1, 1, 1) or (N, 1, 1, 1), all float32; colours are RGB of
  0 to 1. Output `image`, as the frames.
- The flow scale is fixed when it is written (`--scale`). There is no ensemble.
- 4.0 and 4.1 look a second time at large motion; their graphs look once.
- Opset 16 and IR 8. With `--precision fp16` convolutions and their weights are half; all else stays float32.
- Models before 4.x are written as safetensors only.
"""


def page() -> str:
    """The text of docs/reference/command.md."""
    leaves = list(_leaves(commands, "vsrife"))
    links = "\n".join(f"- [{name}](#{name.replace(' ', '-')}): {leaf.get_short_help_str(100)}" for name, leaf in leaves)
    parts = [HEAD, "## Commands\n\n" + links + "\n", *(_section(name, command) for name, command in leaves)]
    return "\n".join(parts)


def _leaves(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its full name, in the order of the help."""
    if isinstance(command, click.Group):
        for own, inner in command.commands.items():
            yield from _leaves(inner, f"{name} {own}")
    else:
        yield name, command


def _section(name: str, command: click.Command) -> str:
    ctx = command.make_context(name, [], resilient_parsing=True)
    usage = " ".join([name, *command.collect_usage_pieces(ctx)])
    parts = [f"## {name}\n", f"```\n{usage}\n```\n", *_prose(command.help or "")]
    tables = []
    for title, options in sections_of(command, ctx).items():
        shown = [option for option in options if "--help" not in option.opts]
        records = [record for option in shown if (record := option.get_help_record(ctx))]
        tables += [f"| {_cell(title.lower())} | |", "|---|---|"] if records else []
        tables += [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in records] + [""] * bool(records)
    return "\n".join([*parts, *tables, *_prose(command.epilog or "")])


def _prose(text: str) -> Iterator[str]:
    """Paragraphs as they are; what is laid out by hand, or follows "Example:", as code."""
    for block in inspect.cleandoc(text).split("\n\n"):
        lines = [line for line in block.splitlines() if line.strip() != "\b"]
        if not lines:
            continue
        head, colon, example = block.partition(":  ")
        if colon and "\n" not in block:
            yield f"{head}:\n\n```\n{example}\n```\n"
        elif "\b" in block:
            yield from _by_hand(lines)
        else:
            yield " ".join(lines) + "\n"


def _by_hand(lines: list[str]) -> Iterator[str]:
    """Lines of which those without indentation introduce those with it; without any, all are code."""
    if not any(line.startswith(" ") for line in lines):
        yield "```\n" + "\n".join(lines) + "\n```\n"
        return
    code: list[str] = []
    for line in [*lines, ""]:
        if line.startswith(" "):
            code.append(line.strip())
            continue
        if code:
            yield "```\n" + "\n".join(code) + "\n```\n"
            code = []
        if line:
            yield f"{line}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
