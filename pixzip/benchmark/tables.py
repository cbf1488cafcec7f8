"""Results → tables of text, which the terminal, Markdown and HTML show alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixzip.benchmark import published, summary
from pixzip.benchmark.measure import BOUND_BYTES, BOUND_SHARE, Coded
from pixzip.benchmark.published import Published
from pixzip.benchmark.results import TITLES, Pack, Results, Section
from pixzip.benchmark.summary import Codec, Complete

#: More pictures than this are shown as their sum only.
MOST_ROWS = 60
_NONE = "–"


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first column is a name, the others are numbers unless words says otherwise."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: list[str] = field(default_factory=list)
    words: frozenset[int] = frozenset({0})  # columns of words

    def __post_init__(self) -> None:
        """Check that rows fit the head."""
        assert all(len(row) == len(self.head) for row in self.rows)


def tables_of(section: Section) -> list[Table]:
    """Everything that was measured of a source."""
    found = summary.complete(section)
    out = [_against_peers(section, found)] if found.index else []
    out += [_steps(section, found)]
    for model in section.coded:
        if len(section.pictures) <= MOST_ROWS:
            out += [_by_picture(section, model), _bytes_by_picture(section, model)]
    if (best := found.best_peer) is not None and len(found.index) > 3:
        out.append(_extremes(found, best))
    out += [table for pack in section.packs for table in _packed(section, found, pack)]
    out += [_sizes(section, model) for model in section.sizes if section.sizes[model]]
    out.append(_cost(section))
    if section.missing or section.failures:
        out.append(_faults(section))
    return [table for table in out if table.rows]


# ------------------------------------------------------------------------ files against files


def _against_peers(section: Section, found: Complete) -> Table:
    """Means over pictures, and what the first model's files save."""
    ours = found.codecs[0]
    rows = [_codec_row(found, ours, codec) for codec in found.codecs]
    head = (
        "codec",
        "mean bits/dim",
        "by sub-pixels",
        "bytes",
        "saved, %",
        "95 % interval",
        "encode, s/MP",
        "decode, s/MP",
    )
    notes = [
        f"{len(found.index)} pictures, {int(found.sub_pixels.sum()):,} sub-pixels; every file was decoded and "
        "compared; headers count.",
        f"saved: mean over pictures of what {ours.title} takes less, paired, with a bootstrap interval over pictures.",
        f"{section.threads} thread{'s' if section.threads > 1 else ''} each, where a codec has threads; peers in "
        "processes of their own, nothing beside another.",
    ]
    return Table("Files", head, rows, notes)


def _codec_row(found: Complete, ours: Codec, codec: Codec) -> tuple[str, ...]:
    if codec is ours:
        saved, interval = _NONE, _NONE
    else:
        s = summary.saving(ours, codec)
        saved, interval = f"{100 * s.mean:.2f}", f"{100 * s.low:.2f} to {100 * s.high:.2f}"
    return (
        codec.title,
        f"{found.bits_per_dim(codec).mean():.4f}",
        f"{codec.file_bits.sum() / found.sub_pixels.sum():.4f}",
        f"{int(codec.file_bits.sum()) // 8:,}",
        saved,
        interval,
        f"{found.seconds_per_megapixel(codec.encode_s):.2f}",
        f"{found.seconds_per_megapixel(codec.decode_s):.2f}",
    )


def _extremes(found: Complete, best: Codec) -> Table:
    """The pictures where most and least is saved over the best peer."""
    ours = found.codecs[0]
    most, least = summary.extremes(found, ours, best, 3)
    bits, other = found.bits_per_dim(ours), found.bits_per_dim(best)
    rows = [
        (found.names[i], f"{bits[i]:.4f}", f"{other[i]:.4f}", f"{100 * (1 - bits[i] / other[i]):.2f}")
        for i in [*most, *least]
    ]
    return Table(f"Most and least saved over {best.title}", ("picture", ours.title, best.title, "saved, %"), rows)


# ------------------------------------------------------------------------ from the model's bits to the file's


def _steps(section: Section, found: Complete) -> Table:
    """By model: bits/dim from the model to the file, and what the bound says."""
    rows = []
    for model, files in section.coded.items():
        coded = [each for each in files if each is not None and each.model_bits is not None]
        if not coded:
            continue
        sub_pixels = np.array([each.sub_pixels for each in coded])
        bits = [
            [each.model_bits for each in coded],
            [each.row_bits for each in coded],
            [8 * each.payload_bytes for each in coded],
            [each.file_bits for each in coded],
        ]
        means = [f"{float(np.mean(np.array(kind, dtype=np.float64) / sub_pixels)):.4f}" for kind in bits]
        over = [each.overhead_bytes or 0.0 for each in coded]
        share = 100 * 8 * sum(over) / sum(each.model_bits or 0.0 for each in coded)
        outside = sum(
            each.overhead_bytes > each.bound_bytes for each in coded if each.overhead_bytes and each.bound_bytes
        )
        stored = sum(each.is_stored for each in coded)
        worst = max(over)
        row = (
            f"pixzip {model}",
            *means,
            f"{np.mean(over):.0f}",
            f"{worst:.0f}",
            f"{share:.3f}",
            f"{outside}",
            f"{stored}",
        )
        rows.append(row)
    notes = [
        "model bits: what the frozen network's own probabilities say, −Σ log2 softmax; rows: the same with frequencies "
        "out of 2^24; payload: what the coder wrote, lane tables too; file: all bytes. Mean bits/dim over pictures.",
        f"over the bound: pictures whose file exceeds the model's bits by more than {100 * BOUND_SHARE:.1f} % and "
        f"{BOUND_BYTES} bytes. stored: pictures that a classical codec took less for.",
    ]
    head = ("model", "model", "rows", "payload", "file", "file less model, mean B", "most, B", "of model bits, %")
    return Table("From the model's bits to the file's", (*head, "over the bound", "stored"), rows, notes)


def _by_picture(section: Section, model: str) -> Table:
    """Bits/dim of every picture."""
    peers = list(section.peers)
    head = ("picture", "model", "rows", "payload", "file", "over, B", "allowed, B", *(TITLES[peer] for peer in peers))
    rows = []
    for i, (shot, coded) in enumerate(zip(section.pictures, section.coded[model], strict=True)):
        files = [section.peers[peer][i] for peer in peers]
        others = tuple(_NONE if f is None else f"{8 * f.bytes / shot.sub_pixels:.4f}" for f in files)
        rows.append((shot.name, *_coded_cells(coded), *others))
    return Table(f"Bits/dim by picture, pixzip {model}", head, rows)


def _coded_cells(coded: Coded | None) -> tuple[str, ...]:
    if coded is None:
        return (_NONE,) * 6
    n = coded.sub_pixels
    file = (f"{8 * coded.payload_bytes / n:.4f}", f"{coded.file_bits / n:.4f}{' stored' if coded.is_stored else ''}")
    if coded.model_bits is None or coded.row_bits is None:
        return (_NONE, _NONE, *file, _NONE, _NONE)
    over, bound = coded.overhead_bytes or 0.0, coded.bound_bytes or 0.0
    flag = "" if over <= bound else " OVER"
    return (
        f"{coded.model_bits / n:.4f}",
        f"{coded.row_bits / n:.4f}",
        *file,
        f"{over:.0f}{flag}",
        f"{bound:.0f}",
    )


#: What stands in Coded.overheads, and its column.
_OVERHEADS = {
    "rows": "+ rows",
    "coder": "+ coder",
    "lane_table": "+ lane tables",
    "header": "+ header",
    "frames": "+ chunks",
    "inside": "+ other parts",
}


def _bytes_by_picture(section: Section, model: str) -> Table:
    """Every byte of every file: columns that sum to the last."""
    rows = []
    for shot, coded in zip(section.pictures, section.coded[model], strict=True):
        if coded is not None and coded.model_bits is not None:
            steps = coded.overheads
            cells = [f"{coded.model_bits / 8:.1f}", *(f"{steps[name]:.1f}" for name in _OVERHEADS)]
            rows.append((shot.name, *cells, f"{coded.file_bytes:,}"))
    notes = [
        "model: its bits / 8. rows: rounding to frequencies out of 2^24. coder: words that the lanes' coders wrote "
        "less the rows' bits, mostly what each of the lanes ends in; of a stored picture, its file less the model's "
        "bits. header: magic, version, sizes, the model's digest, the pixels checksum. chunks: their types, lengths "
        "and CRCs. other parts: palette, metadata, alpha, an embedded model. The columns sum to the file."
    ]
    return Table(
        f"Bytes of the files, pixzip {model}", ("picture", "model", *_OVERHEADS.values(), "= file"), rows, notes
    )


def _sizes(section: Section, model: str) -> Table:
    """Overhead by size of picture."""
    rows = []
    for coded in section.sizes[model]:
        if coded.model_bits is not None and coded.overhead_bytes is not None:
            side = round((coded.sub_pixels / (3 if coded.sub_pixels % 3 == 0 else 1)) ** 0.5)
            model_bpd, file_bpd = coded.model_bits / coded.sub_pixels, coded.file_bits / coded.sub_pixels
            over = 800 * coded.overhead_bytes / coded.model_bits
            rows.append(
                (
                    f"{side} × {side}",
                    f"{model_bpd:.4f}",
                    f"{file_bpd:.4f}",
                    f"{coded.overhead_bytes:.0f}",
                    f"{over:.3f}",
                )
            )
    head = ("square", "model", "file", "file less model, B", "of model bits, %")
    title = f"Overhead by size, pixzip {model}: the middle of {section.pictures[0].name}"
    return Table(title, head, rows)


# ------------------------------------------------------------------------ small pictures


def _packed(section: Section, found: Complete, pack: Pack) -> Iterator[Table]:
    """Pictures of one shape alone and in one file."""
    rows = []
    places = [
        i for i in found.index if (section.pictures[i].height, section.pictures[i].width) == (pack.height, pack.width)
    ]
    sub_pixels = sum(section.pictures[i].sub_pixels for i in places)
    for model, files in section.coded.items():
        alone = [coded for i in places if (coded := files[i]) is not None]
        bits = [coded.model_bits for coded in alone if coded.model_bits is not None]
        cells = [f"{sum(bits) / sub_pixels:.4f}" if len(bits) == len(alone) else _NONE]
        cells.append(f"{sum(coded.file_bits for coded in alone) / sub_pixels:.4f}")
        together = pack.coded.get(model)
        if together is None:
            cells += [_NONE, _NONE]
        else:
            of_model = together.model_bits
            cells.append(_NONE if of_model is None else f"{of_model / together.sub_pixels:.4f}")
            cells.append(f"{together.file_bits / together.sub_pixels:.4f}")
        rows.append((f"pixzip {model}", *cells))
    for peer, made in section.peers.items():
        one = sum(8 * file.bytes for i in places if (file := made[i]) is not None) / sub_pixels
        strips = pack.peers.get(peer)
        all_of = sum(8 * strip.bytes for strip in strips) / sub_pixels if strips else None
        rows.append((TITLES[peer], _NONE, f"{one:.4f}", _NONE, _NONE if all_of is None else f"{all_of:.4f}"))
    head = ("codec", "model, each alone", "files, each alone", "model, together", "files, together")
    notes = [
        f"{len(places)} of {pack.pictures} pictures of {pack.width} × {pack.height} that all codecs have, bits/dim "
        "over all sub-pixels. Together: one .pxz file of all, through which a model that learns goes on learning; for "
        f"the others strips of {pack.strip} pictures one under another.",
    ]
    yield Table(f"Small pictures, {pack.width} × {pack.height}", head, rows, notes)


# ------------------------------------------------------------------------ cost, faults


def _mib(value: float | None) -> str:
    return _NONE if value is None else f"{value:.0f}"


def _cost(section: Section) -> Table:
    """Seconds and memory of the pictures that were timed with repeats."""
    rows = []
    for i, shot in enumerate(section.pictures):
        if shot.name not in section.timed:
            continue
        for model, files in section.coded.items():
            if (coded := files[i]) is not None:
                peaks = dict(section.memory.get(model, [])).get(shot.name)
                weights = next(w.file_bytes for w in section.models if w.name == model)
                memory = (_NONE, _NONE) if peaks is None else (_mib(peaks.compress_mib), _mib(peaks.decompress_mib))
                rows.append((shot.name, f"pixzip {model}", *_seconds(coded), *memory, f"{weights:,}"))
        for peer, made in section.peers.items():
            if (file := made[i]) is not None:
                mib = _mib(file.peak_mib)
                rows.append((shot.name, TITLES[peer], *_seconds(file), mib, mib, "0"))
    notes = [
        "Seconds in memory, without files, medians where there are several runs: of pixzip.compress (which tries WebP "
        "and PNG too) and pixzip.decompress, caches warm. Peak: the largest resident size of `pixzip compress "
        "--no-verify` and `pixzip decompress`; of a peer, of its process with Python, numpy and Pillow, which did "
        "both.",
        "weights: the model file that a decoder must have; not counted in the files.",
    ]
    head = ("picture", "codec", "encode, s", "decode, s", "runs", "encode, MiB", "decode, MiB", "weights, B")
    return Table("Cost", head, rows, notes, frozenset({0, 1}))


def _seconds(file: Any) -> tuple[str, str, str]:
    return f"{file.encode_s:.3f}", f"{file.decode_s:.3f}", f"{file.runs}"


def _faults(section: Section) -> Table:
    """What did not take part."""
    rows = [(TITLES.get(name, name), reason) for name, reason in section.missing.items()]
    return Table("Not measured", ("what", "why"), [*rows, *section.failures], [], frozenset({0, 1}))


# ------------------------------------------------------------------------ published numbers


def published_tables() -> list[Table]:
    """Numbers of others, which were not measured here."""
    photographs = (*published.PHOTOGRAPHS_HEAD, "needs")
    last = len(photographs)
    return [
        Table(
            "Published for photographs, bits/dim: not measured here",
            ("codec", *photographs),
            [_published_row(each) for each in published.PHOTOGRAPHS],
            [published.PHOTOGRAPHS_SOURCES],
            frozenset({0, last}),
        ),
        Table(
            "Published for CIFAR-10, bits/dim: not measured here",
            ("codec", *published.CIFAR_HEAD, "source"),
            [_published_row(each) for each in published.CIFAR],
            [published.CIFAR_SOURCES],
            frozenset({0, 2}),
        ),
    ]


def _published_row(each: Published) -> tuple[str, ...]:
    return (each.codec, *(number or _NONE for number in each.numbers), each.needs or _NONE)


def described(results: Results) -> list[str]:
    """Lines that say of what machine, versions and command results are."""
    m = results.machine
    versions = ", ".join(f"{name} {value}" for name, value in m["versions"].items() if value != "none")
    cores = (
        f"{m['cores']} of {m['cores_of_machine']} cores"
        if m["cores"] != m["cores_of_machine"]
        else f"{m['cores']} cores"
    )
    return [
        f"{m['processor']}, {cores}, {m['system']}, {m['engine']} engine",
        f"pixzip {m['pixzip']} (sources {m['code']}); {versions}",
    ]


def load_line(results: Results) -> str:
    """What other work may have slowed the run down."""
    return (
        f"When the command began, {results.load:.1f} processes wanted to run (mean of a minute); it made "
        f"{results.made} measurements and took {results.reused} from earlier runs"
    )


def models_line(sections: Sequence[Section]) -> str:
    """The models that took part."""
    found = {w.digest: w for section in sections for w in section.models}
    return "; ".join(f"{w.name}, digest {w.digest}, {w.file_bytes:,} bytes" for w in found.values())
