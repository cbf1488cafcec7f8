"""The command line of the benchmark ↔ what it measures and the files it writes.

Only click is imported before the command runs, for --help to stay fast.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixzip.commands.arguments import remark, say
from pixzip.commands.options import EXIT_CODES, completed_files
from pixzip.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pixzip.benchmark.results import Results

_PEERS = ("png", "webp", "jp2", "avif", "jxl-e7", "jxl-e9")


@click.command(epilog=EXIT_CODES)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", shell_complete=completed_files)
@click.option(
    "--model",
    "models",
    multiple=True,
    shell_complete=completed_files,
    help="A shipped model's name or a model file; may be given again. Default: default.",
)
@click.option(
    "--peer", "peers", multiple=True, type=click.Choice(_PEERS), help="Only this one; may be given again. Default: all."
)
@click.option("--no-peers", is_flag=True, help="No other codecs.")
@click.option(
    "--learning",
    type=click.IntRange(0, 255),
    help="Rate at which models learn from what they code. Default: the codec's.",
)
@click.option("--gray", is_flag=True, help="Turn the pictures into 8-bit gray first.")
@click.option("--limit", type=click.IntRange(1), help="Only the first so many pictures of each source.")
@click.option("--threads", type=click.IntRange(1, 1024), help="Default: as many as this process has cores.")
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Runs that times are medians of, of the first pictures.",
)
@click.option(
    "--time-first",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    help="How many pictures that is; those are also measured for memory.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="bench-results",
    show_default=True,
    help="Folder of the results; what it has already is not measured again.",
)
@click.option(
    "--markdown", type=click.Path(dir_okay=False, path_type=Path), help="Write the tables as a document, too."
)
def bench(sources: tuple[str, ...], out: Path, markdown: Path | None, no_peers: bool, **options: Any) -> None:
    """Measure models and other codecs on every picture of SOURCES.

    A SOURCE is a folder of images, or DATASET/PART:PLACE such as cifar10/test:FOLDER. Of every picture: the model's
    bits, the file's, where each further byte goes, the files of PNG, WebP, JPEG 2000, AVIF and JPEG XL where they are
    installed and lossless, seconds and memory. Tables go to standard output, progress to standard error; OUT gets
    report.html, results.json, pictures.csv and journal.jsonl, by which a run that was cut off goes on.
    """
    from pixzip.benchmark import machine
    from pixzip.benchmark.journal import Journal
    from pixzip.benchmark.report_text import as_text
    from pixzip.benchmark.run import Settings, run

    if no_peers and options["peers"]:
        raise UsageError("--no-peers and --peer exclude each other")
    settings = Settings(
        models=options["models"] or ("default",),
        peers=() if no_peers else options["peers"] or _PEERS,
        learning=options["learning"],
        gray=options["gray"],
        limit=options["limit"],
        threads=options["threads"] or machine.cores(),
        runs=options["repeats"],
        timed=options["time_first"],
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write {out}: {error.strerror}") from None
    journal = Journal(out / "journal.jsonl")
    results = run(sources, settings, journal, _command(sources), remark)
    _write(results, out, markdown)
    say(as_text(results), newline=False)
    if code := next((section.exit_code for section in results.sections if section.exit_code), 0):
        raise SystemExit(code)


def _command(sources: Sequence[str]) -> str:
    """The command as it was given, places of folders cut to their names."""
    from pixzip.benchmark.pictures import shown

    context = click.get_current_context()
    words = ["pixzip", "bench", *(shown(source) for source in sources)]
    for option in context.command.params:
        value = context.params.get(option.name or "")
        if (
            isinstance(option, click.Option)
            and option.name not in ("out", "markdown")
            and value != option.default
            and value
        ):
            for each in value if isinstance(value, tuple) else (value,):
                shown_as = Path(each).name if option.name == "models" else str(each)
                words += [option.opts[0]] if each is True else [option.opts[0], shown_as]
    return shlex.join(words)


def _write(results: Results, out: Path, markdown: Path | None) -> None:
    """All files of a run. Raises OutputError."""
    import json

    from pixzip.benchmark.report_html import as_html
    from pixzip.benchmark.report_text import as_csv, as_markdown
    from pixzip.files import staged

    made = {
        out / "results.json": json.dumps(results.as_json(), indent=1) + "\n",
        out / "pictures.csv": as_csv(results),
        out / "report.html": as_html(results),
    }
    if markdown is not None:
        made[markdown] = as_markdown(results)
    for path, text in made.items():
        with staged(path, text.encode(), force=True):
            pass
