"""The commands of `pixzip`, as click knows them → docs/man/pixzip.1, for man(1).

    python docs/man/make_man_page.py            # writes it; tests/test_man_page.py compares

click-man makes a page for each command and knows neither exit codes nor environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from pixzip import __version__
from pixzip.cli import commands
from pixzip.commands.options import ENVIRONMENT, EXIT_CODES

PAGE = Path(__file__).with_name("pixzip.1")


def roff(text: str) -> str:
    """Text as troff takes it: hyphens that may be typed, no line that begins a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def paragraphs(text: str) -> Iterator[str]:
    """A docstring's paragraphs, each on a line of its own; the first without a request before it."""
    for i, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        if i:
            yield ".PP"
        yield roff(" ".join(paragraph.split()))


def option_lines(option: click.Option, context: click.Context) -> Iterator[str]:
    """An entry of the list of options, with what --help says of it."""
    found = option.get_help_record(context)
    if found is None:
        return
    names, text = found
    yield ".TP"
    yield rf"\fB{roff(names)}\fR"
    yield roff(" ".join(text.split()))


def command_lines(name: str, command: click.Command) -> Iterator[str]:
    """The section of one command: usage, what it does, its options."""
    context = click.Context(command, info_name=f"pixzip {name}")
    usage = " ".join(command.collect_usage_pieces(context))
    yield rf".SS \fBpixzip {name}\fR {roff(usage)}"
    yield from paragraphs(command.help or "")
    for option in command.params:
        if isinstance(option, click.Option):
            yield from option_lines(option, context)


def exit_codes() -> list[tuple[str, str]]:
    """(code, meaning), and ("", the rest), of the text that every --help ends with."""
    listed, _, rest = EXIT_CODES.removeprefix("Exit codes:").partition(". ")
    # 143 stands after a comma: it is what 130 is by another signal.
    entries = re.split(r"[;,] (?=\d+ )", " ".join(listed.split()))
    return [(code, meaning) for code, _, meaning in (entry.partition(" ") for entry in entries)] + [("", rest)]


def page() -> str:
    """The whole page."""
    group = commands()
    lines = [f'.TH PIXZIP 1 "" "pixzip {__version__}" "User Commands"', ".SH NAME"]
    lines += [r"pixzip \- lossless image compression by a neural network", ".SH SYNOPSIS"]
    lines += [r"\fBpixzip\fR \fICOMMAND\fR [\fIOPTIONS\fR] [\fIARGUMENTS\fR]", ".SH DESCRIPTION"]
    lines += paragraphs(group.help or "")
    lines += [
        ".PP",
        roff("`pixzip --version` says which version this is, `pixzip COMMAND --help` what a command does."),
    ]
    lines += [".SH COMMANDS"]
    for name, command in sorted(group.commands.items()):
        lines += command_lines(name, command)
    lines += [".SH EXIT STATUS"]
    for code, meaning in exit_codes():
        lines += [".TP", rf"\fB{code}\fR", roff(meaning)] if code else [".PP", roff(" ".join(meaning.split()))]
    lines += [".SH ENVIRONMENT"]
    for name, text in ENVIRONMENT:
        lines += [".TP", rf"\fB{roff(name)}\fR", roff(text)]
    lines += [".SH SEE ALSO", ".BR cwebp (1),", ".BR cjxl (1),", ".BR sha256sum (1)"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
