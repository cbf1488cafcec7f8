"""Results → text: tables for a terminal, a document in Markdown, rows of CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from pixzip.benchmark.anatomy import PARTS
from pixzip.benchmark.measure import Coded
from pixzip.benchmark.peers import PeerFile
from pixzip.benchmark.results import Results, Section
from pixzip.benchmark.tables import Table, described, load_line, models_line, published_tables, tables_of


def as_text(results: Results) -> str:
    """All tables for a terminal."""
    lines = [*described(results), load_line(results), f"models: {models_line(results.sections)}"]
    for section in results.sections:
        lines += ["", "", _heading(section), "=" * len(_heading(section))]
        for table in tables_of(section):
            lines += ["", *_text_table(table)]
    return "\n".join(lines) + "\n"


def _heading(section: Section) -> str:
    n = len(section.pictures)
    return f"{section.title}: {n} picture{'' if n == 1 else 's'}{', as gray' if section.gray else ''}"


def _text_table(table: Table) -> Iterator[str]:
    """Columns as wide as their widest cell; numbers to the right."""
    yield table.title
    columns = list(zip(table.head, *table.rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    for row in (table.head, *table.rows):
        cells = [
            cell.ljust(width) if i in table.words else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  " + "  ".join(cells).rstrip()


def as_markdown(results: Results) -> str:
    """A document of its own: docs/results.md."""
    lines = [
        "# Results",
        "",
        "Made by the benchmark; edit `pixzip/benchmark/report_text.py` instead:",
        "",
        f"    {results.command}",
        "",
        *(f"{line}." for line in (*described(results), load_line(results))),
        f"Models: {models_line(results.sections)}.",
        "",
        "Bits are per sub-pixel (bits/dim), a sub-pixel being one sample of one pixel. Each file was written, decoded",
        "and compared before it counted, headers included. Seconds are of this machine and this run: compare them with",
        "each other only.",
    ]
    for section in results.sections:
        lines += ["", f"## {_heading(section)}"]
        for table in tables_of(section):
            lines += ["", *_markdown_table(table)]
    lines += ["", "## Published numbers", ""]
    lines += ["Of programs that could not be run here; what they were measured on and how is for their papers to say."]
    for table in published_tables():
        lines += ["", *_markdown_table(table)]
    return "\n".join(lines) + "\n"


def _markdown_table(table: Table) -> Iterator[str]:
    yield f"### {table.title}"
    yield ""
    yield f"| {' | '.join(map(_cell, table.head))} |"
    yield f"|{'|'.join('---' if i in table.words else '---:' for i in range(len(table.head)))}|"
    for row in table.rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    for note in table.notes:
        yield ""
        yield note


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def as_csv(results: Results) -> str:
    """A row for every picture and codec; empty where there is nothing to say."""
    out = io.StringIO()
    columns = (
        *("source", "picture", "height", "width", "sub_pixels", "codec", "model_bits", "row_bits", "payload_bytes"),
        *("file_bytes", "stored", "encode_s", "decode_s", "runs", *PARTS),
    )
    writer = csv.DictWriter(out, columns)
    writer.writeheader()
    for section in results.sections:
        for i, shot in enumerate(section.pictures):
            known = {"source": section.title, "picture": shot.name, "height": shot.height, "width": shot.width}
            known |= {"sub_pixels": shot.sub_pixels}
            writer.writerows(known | row for row in _rows_of(section, i))
    return out.getvalue()


def _rows_of(section: Section, place: int) -> Iterator[dict[str, Any]]:
    for model, files in section.coded.items():
        if (coded := files[place]) is not None:
            sizes = {
                "payload_bytes": coded.payload_bytes,
                "file_bytes": coded.file_bytes,
                "stored": int(coded.is_stored),
            }
            bits = {"model_bits": coded.model_bits, "row_bits": coded.row_bits}
            yield {"codec": f"pixzip {model}"} | bits | sizes | _times(coded) | coded.parts
    for peer, made in section.peers.items():
        if (file := made[place]) is not None:
            yield {"codec": peer, "file_bytes": file.bytes} | _times(file)


def _times(file: Coded | PeerFile) -> dict[str, Any]:
    return {"encode_s": f"{file.encode_s:.4f}", "decode_s": f"{file.decode_s:.4f}", "runs": file.runs}
