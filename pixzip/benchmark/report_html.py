"""Results → one HTML file with tables and plots, which needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np

from pixzip.benchmark import summary
from pixzip.benchmark.calibration import CROP
from pixzip.benchmark.colours import css_gradient
from pixzip.benchmark.measure import BOUND_BYTES, BOUND_SHARE, Coded
from pixzip.benchmark.plots import Axis, Figure, around, legend
from pixzip.benchmark.results import Results, Section
from pixzip.benchmark.summary import Complete
from pixzip.benchmark.tables import MOST_ROWS, Table, described, load_line, models_line, published_tables, tables_of

_MODEL_COLOURS = ("#0072b2", "#56b4e9", "#004b75", "#7a8fd6")
_PEER_COLOURS = {
    "png": "#8c8c8c",
    "webp": "#009e73",
    "jp2": "#cc79a7",
    "avif": "#8c564b",
    "jxl-e7": "#e6a000",
    "jxl-e9": "#d55e00",
}
_STYLE = """
:root { color-scheme: light }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 1060px; margin: 2em auto; padding: 0 1.2em }
h1 { font-size: 1.7em; margin-bottom: .2em }
h2 { margin-top: 2.2em; border-bottom: 1px solid #ccc; padding-bottom: .2em }
h3 { font-size: 1.05em; margin: 1.8em 0 .4em }
code { background: #f4f4f4; padding: .1em .3em }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; white-space: nowrap }
th, td { padding: .25em .7em; text-align: right; border-bottom: 1px solid #eee }
th { border-bottom: 1px solid #888; font-weight: 600; vertical-align: bottom; white-space: normal }
th.w, td.w { text-align: left } tr.ours td { background: #eef6fb }
.note { color: #666; font-size: 13px; margin: .4em 0; max-width: 62em }
.plots { display: flex; flex-wrap: wrap; gap: 1.2em }
figure { margin: .6em 0 } figcaption { color: #666; font-size: 13px; max-width: 460px }
svg { max-width: 100%; height: auto }
.legend span { margin-right: 1.2em; white-space: nowrap } .legend svg { vertical-align: -2px }
.shots { display: flex; flex-wrap: wrap; gap: 1em } .shots img, .map img { max-width: 100%; display: block }
.shots figcaption { max-width: 220px }
.ramp { height: 12px; max-width: 460px }
.scale { display: flex; justify-content: space-between; max-width: 460px; color: #666; font-size: 12px }
"""


def as_html(results: Results) -> str:
    """The report."""
    title = "pixzip: " + ", ".join(section.title for section in results.sections)
    body = [f"<h1>{escape(title)}</h1>", f"<p><code>{escape(results.command)}</code></p>"]
    body += [f'<p class="note">{escape(line)}</p>' for line in (*described(results), load_line(results))]
    body += [f'<p class="note">Models: {escape(models_line(results.sections))}.</p>']
    for section in results.sections:
        body += _section(section)
    body += ["<h2>Published numbers, not measured here</h2>"]
    for table in published_tables():
        body += _table(table)
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
    )
    return f"{head}<body>{''.join(body)}</body></html>\n"


def _section(section: Section) -> Iterator[str]:
    found = summary.complete(section)
    tables = tables_of(section)
    yield f"<h2>{escape(section.title)}: {len(section.pictures)} pictures{', as gray' if section.gray else ''}</h2>"
    if not found.index:
        yield "<p>No picture was coded by every codec.</p>"
        yield from (part for table in tables for part in _table(table))
        return
    colours = _colours(found)
    yield from _table(tables[0])
    yield legend([(codec.title, colours[codec.name], codec.is_model) for codec in found.codecs])
    yield f'<div class="plots">{"".join(_costs(found, colours))}</div>'
    yield _by_picture(found, colours)
    yield from _shots(section, found)
    yield f'<div class="plots">{"".join(_overheads(section))}{"".join(_calibrations(section))}</div>'
    yield from _map(section)
    for table in tables[1:]:
        yield from _table(table)


def _colours(found: Complete) -> dict[str, str]:
    models = [codec.name for codec in found.codecs if codec.is_model]
    out = {name: _MODEL_COLOURS[i % len(_MODEL_COLOURS)] for i, name in enumerate(models)}
    return {codec.name: out.get(codec.name) or _PEER_COLOURS[codec.name] for codec in found.codecs}


def _table(table: Table) -> Iterator[str]:
    yield f'<h3>{escape(table.title)}</h3><div class="wide"><table>'
    for tag, rows in (("th", [table.head]), ("td", table.rows)):
        for row in rows:
            ours = ' class="ours"' if row[0].startswith("pixzip ") else ""
            cells = (f"<{tag}{' class=w' if i in table.words else ''}>{escape(c)}</{tag}>" for i, c in enumerate(row))
            yield f"<tr{ours}>{''.join(cells)}</tr>"
    yield "</table></div>"
    yield from (f'<p class="note">{escape(note)}</p>' for note in table.notes)


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


# ------------------------------------------------------------------------ codecs against each other


def _by_picture(found: Complete, colours: dict[str, str]) -> str:
    """Bits/dim of every picture and codec, by what the first model takes."""
    each = [found.bits_per_dim(codec) for codec in found.codecs]
    order = np.argsort(-each[0], kind="stable")
    n, few = len(order), len(order) <= MOST_ROWS
    x = around([float(v) for bits in each for v in bits], "bits/dim")
    y = Axis("pictures, by what the first model takes", -0.7, n - 0.3)
    rows = [found.names[i] for i in order] if few else []
    left = 16 + 7 * max(map(len, rows)) if few else 62
    figure = Figure(x, y, 940, 60 + (19 * n if few else 560), min(left, 240), rows)
    for codec, bits in reversed(list(zip(found.codecs, each, strict=True))):
        for place, i in enumerate(order):
            title = f"{found.names[i]}: {codec.title} {bits[i]:.4f}"
            radius = 4.5 if few else 1.8
            figure.dot((float(bits[i]), place), colours[codec.name], title, diamond=codec.is_model, radius=radius)
    caption = "Bits/dim by picture; every point names its picture and codec when pointed at."
    return _figure(figure.svg("bits per sub-pixel by picture and codec"), caption)


def _costs(found: Complete, colours: dict[str, str]) -> Iterator[str]:
    """Size against time, both ways."""
    for what in ("encode", "decode"):
        seconds = {
            c.name: found.seconds_per_megapixel(c.encode_s if what == "encode" else c.decode_s) for c in found.codecs
        }
        points = [(max(seconds[c.name], 1e-5), float(found.bits_per_dim(c).mean())) for c in found.codecs]
        x = around([p[0] for p in points], f"{what}, seconds a megapixel", log=True)
        figure = Figure(x, around([p[1] for p in points], "mean bits/dim", share=0.18))
        best = [points[i] for i in summary.front(points)]
        steps = [(best[i + k][0], best[i][1]) for i in range(len(best) - 1) for k in (0, 1)] + [best[-1]]
        figure.line([(best[0][0], figure.y.high), *steps, (x.high, best[-1][1])], "#bbb", dashed=True)
        figure.names([(point, codec.title) for codec, point in zip(found.codecs, points, strict=True)])
        for codec, point in zip(found.codecs, points, strict=True):
            title = f"{codec.title}: {point[1]:.4f} bits/dim, {point[0]:.3f} s a megapixel"
            figure.dot(point, colours[codec.name], title, diamond=codec.is_model, radius=5.5)
        caption = (
            f"Size against the time to {what}; lower and further left is better, dashed: what no other beats in both."
        )
        yield _figure(figure.svg(f"mean bits per sub-pixel against seconds to {what}"), caption)


def _shots(section: Section, found: Complete) -> Iterator[str]:
    """The pictures at both ends."""
    best = found.best_peer
    if best is None or len(found.index) < 4:
        return
    ours = found.codecs[0]
    for title, places in zip(("Most", "Least"), summary.extremes(found, ours, best, 3), strict=True):
        shots = []
        for i in places:
            saved = 100 * (1 - ours.file_bits[i] / best.file_bits[i])
            shot = section.pictures[found.index[i]]
            data = base64.b64encode(shot.thumbnail).decode()
            image = f'<img alt="{escape(shot.name)}" src="data:image/jpeg;base64,{data}">'
            shots.append(f"<figure>{image}<figcaption>{escape(shot.name)}: {saved:.1f} %</figcaption></figure>")
        yield f'<h3>{title} saved over {escape(best.title)}</h3><div class="shots">{"".join(shots)}</div>'


# ------------------------------------------------------------------------ the model and its files


def _overheads(section: Section) -> Iterator[str]:
    """File less model against the number of sub-pixels: pictures, and squares out of the first."""
    kinds = {
        name: [*_with_bits(section.coded[name]), *_with_bits(section.sizes.get(name, []))] for name in section.coded
    }
    every = [(each.sub_pixels, over) for files in kinds.values() for each, over in files if not each.is_stored]
    if not every:
        return
    allowed = [BOUND_BYTES + BOUND_SHARE * (each.model_bits or 0) / 8 for files in kinds.values() for each, _ in files]
    x = around([n for n, _ in every], "sub-pixels of the picture", log=True)
    figure = Figure(x, around([*(over for _, over in every), *allowed], "file less model, bytes", zero=True))
    for i, (name, files) in enumerate(kinds.items()):
        colour = _MODEL_COLOURS[i % len(_MODEL_COLOURS)]
        if i == 0:
            bound = sorted((each.sub_pixels, each.bound_bytes or 0.0) for each, _ in files)
            figure.line(_upper(bound), "#d55e00", dashed=True)
        for each, over in files:
            if not each.is_stored:
                title = f"pixzip {name}: {each.sub_pixels:,} sub-pixels, {over:.0f} bytes over the model's bits"
                figure.dot((each.sub_pixels, max(over, 0.0)), colour, title, diamond=True)
    caption = (
        f"What the files have beyond the model's bits, by size: pictures, and squares out of "
        f"{section.pictures[0].name}. Dashed: the bound, {BOUND_BYTES} bytes and {100 * BOUND_SHARE:.1f} %, where it "
        "is lowest."
    )
    yield _figure(figure.svg("bytes of overhead by size of picture"), caption)


def _with_bits(files: Sequence[Coded | None]) -> list[tuple[Coded, float]]:
    return [(each, over) for each in files if each is not None and (over := each.overhead_bytes) is not None]


def _upper(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The least bound at every size, by size."""
    least: dict[float, float] = {}
    for x, y in points:
        least[x] = min(y, least.get(x, y))
    return sorted(least.items())


def _calibrations(section: Section) -> Iterator[str]:
    """Frequency against probability."""
    kept = {name: found.points() for name, found in section.calibration.items() if found.points()}
    if not kept:
        return
    values = [v for points in kept.values() for p, f, _ in points for v in (p, f) if v > 0]
    axis = around(values, "", log=True)
    low, high = axis.low, min(1.3, axis.high)
    figure = Figure(
        Axis("probability that the model gives", low, high, True), Axis("how often it happens", low, high, True)
    )
    figure.line([(low, low), (1, 1)], "#bbb", dashed=True)
    for i, (name, points) in enumerate(kept.items()):
        for p, f, happened in points:
            if f > 0:
                title = f"pixzip {name}: given {p:.2g}, happened {f:.2g} ({happened:,} times)"
                figure.dot((p, f), _MODEL_COLOURS[i % len(_MODEL_COLOURS)], title, diamond=True)
    names = ", ".join(section.calibrated_on)
    caption = (
        f"Calibration: all 256 probabilities of every sub-pixel in the middle {CROP} × {CROP} pixels of {names}, in "
        "bins of half an octave, against how often the symbol was the true one. Dashed: as often as said. Bins with "
        "under 20 expected and true symbols are left out."
    )
    yield _figure(figure.svg("observed frequency against predicted probability"), caption)


def _map(section: Section) -> Iterator[str]:
    """Where the bits of a picture are."""
    found = section.map
    if found is None:
        return
    image = base64.b64encode(found.png).decode()
    yield f'<h3>Model bits of each pixel of {escape(found.picture)}</h3><div class="map">'
    yield f'<img alt="map of bits" src="data:image/png;base64,{image}">'
    yield f'<div class="ramp" style="background: {css_gradient()}"></div>'
    scale = ("0", f"{found.most / 2:.1f}", f"{found.most:.1f} bits a pixel and more")
    yield f'<div class="scale">{"".join(f"<span>{each}</span>" for each in scale)}</div></div>'
