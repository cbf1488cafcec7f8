"""The benchmark: its columns explain every byte, its peers are checked, its reports need nothing else; ratios hold."""

from __future__ import annotations

import csv
import io
import itertools
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import model_picture
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tiny_stack import stack_bytes

import pixzip
from pixzip import evaluate
from pixzip.benchmark import command, peak, peers, plots, report_html, summary, tables
from pixzip.benchmark.anatomy import anatomy
from pixzip.benchmark.calibration import calibration
from pixzip.benchmark.cost import peak_mib
from pixzip.benchmark.journal import Journal
from pixzip.benchmark.measure import Coded, measure
from pixzip.benchmark.peers import Peer
from pixzip.benchmark.pictures import pictures_of
from pixzip.benchmark.report_text import as_markdown
from pixzip.benchmark.results import Results, Section, Shot
from pixzip.cli import main
from pixzip.errors import CostError, FormatError, PeerError, PixzipError, UsageError
from pixzip.model.file import find_model
from pixzip.pxz.container import read_container
from pixzip.runtime import frozen

PHOTO = Path(__file__).parents[1] / "examples" / "photo.png"
#: Of the piece of photo.png below: bytes of the file, when these models were released or this test was written.
#: A model or coder that needs more is a regression; one that needs less may lower them.
EXPECTED_BYTES = {"default": 7742, "fast": 7750}


def photo(height: int, width: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(PHOTO) as image:
        return np.asarray(image.convert("RGB"))[150 : 150 + height, 200 : 200 + width]


rgb = model_picture  # (h, w, 3), which the small model codes well


def png(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", **options)
    return out.getvalue()


# ------------------------------------------------------------------------ every byte has a column


def test_parts_of_a_coded_file_are_what_was_put_in(model: Path) -> None:
    info = PngInfo()
    info.add_text("Comment", "no comment" * 5)
    file = pixzip.compress(png(rgb(20, 30), pnginfo=info), model=model, tile=16, embed_model=True)
    parts, container = anatomy(file), read_container(file)
    assert container.tiles and sum(parts.values()) == len(file)
    assert parts["words"] + parts["lane_table"] == sum(map(len, container.tiles))
    assert parts["model_file"] == model.stat().st_size
    assert parts["metadata"] == sum(1 + len(key) + len(value) for key, value in container.metadata) > 50
    assert (parts["magic"], parts["header"]) == (9, 43)
    assert parts["frames"] == 12 * (2 + len(container.metadata) + len(container.tiles))


@pytest.mark.parametrize("mode", ["RGBA", "P", "1", "I;16"])
def test_parts_of_files_of_other_modes_sum_to_the_file(model: Path, mode: str) -> None:
    image = Image.fromarray(rgb(12, 9))
    image = image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)
    out = io.BytesIO()
    image.save(out, "PNG")
    file = pixzip.compress(out.getvalue(), model=model)
    parts = anatomy(file)
    assert sum(parts.values()) == len(file) and parts["other"] == 0
    assert (parts["stored"] > 0) == (not read_container(file).tiles)


def test_parts_of_a_damaged_file_are_not_counted(model: Path) -> None:
    file = bytearray(pixzip.compress(rgb(8, 8), model=model))
    file[-1] ^= 1
    with pytest.raises(FormatError):
        anatomy(bytes(file))


@pytest.mark.parametrize("count", [1, 3])
def test_overheads_lead_from_the_models_bits_to_the_file(model: Path, count: int) -> None:
    pictures = [rgb(24, 31, seed) for seed in range(count)]
    coded = measure(pictures, str(model), None, 1)
    file = pixzip.compress_batch(pictures, model=model, threads=1)
    bits = evaluate.plane_bits(find_model(model), np.stack([p.transpose(2, 0, 1) for p in pictures])).sum()
    assert coded.model_bits == pytest.approx(bits) and coded.file_bytes == len(file) and not coded.is_stored
    assert coded.model_bits / 8 + sum(coded.overheads.values()) == pytest.approx(coded.file_bytes, abs=1e-6)
    assert coded.overhead_bytes is not None and coded.bound_bytes is not None
    assert 0 < coded.overhead_bytes <= coded.bound_bytes


def test_a_stored_picture_is_explained_too(model: Path) -> None:
    row = np.random.default_rng(0).integers(0, 256, size=(1, 16, 3), dtype=np.uint8)
    coded = measure([np.repeat(row, 64, axis=0)], str(model), None, 1)
    assert coded.is_stored and coded.model_bits is not None
    assert coded.model_bits / 8 + sum(coded.overheads.values()) == pytest.approx(coded.file_bytes, abs=1e-6)


@pytest.mark.parametrize("kind", ["gray", "binary"])
def test_models_of_gray_and_bilevel_pictures_are_measured(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    path.write_bytes(stack_bytes("row_lstm", pictures=kind))
    picture = rgb(12, 20)[..., 0] > 120 if kind == "binary" else rgb(12, 20)[..., 0]
    coded = measure([picture], str(path), None, 1)
    assert coded.sub_pixels == 240 and coded.model_bits is not None
    assert coded.model_bits / 8 + sum(coded.overheads.values()) == pytest.approx(coded.file_bytes, abs=1e-6)
    found = calibration(find_model(path), [picture], None)
    assert sum(found.happened) == 240 == pytest.approx(sum(found.expected))
    assert sum(found.events) == 240 * (2 if kind == "binary" else 256)
    default = measure([picture], "default", None, 1)  # bilevel pictures it leaves to PNG
    assert default.is_stored >= (kind == "binary") and sum(default.parts.values()) == default.file_bytes


# ------------------------------------------------------------------------ regressions


@pytest.mark.parametrize("name", EXPECTED_BYTES)
def test_files_of_shipped_models_do_not_grow(name: str) -> None:
    coded = measure([photo(96, 64)], name, None, 1)
    assert coded.file_bytes <= EXPECTED_BYTES[name]
    assert coded.overhead_bytes is not None and coded.bound_bytes is not None
    assert coded.overhead_bytes <= coded.bound_bytes and not coded.is_stored


# ------------------------------------------------------------------------ peers


def test_a_peer_in_its_own_process_makes_the_file_that_pillow_makes_here() -> None:
    pictures = np.stack([rgb(20, 24), rgb(20, 24, 1)])
    sizes = [file.bytes for file in peers.run_peer("png", pictures, 1)]
    assert sizes == [len(png(each, optimize=True)) for each in pictures]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "WEBP", "lossless": False, "quality": 50}, "not lossless"),
        ({"format": "JPEG2000", "irreversible": False, "mct": 0}, "without a colour transform"),
        ({"format": "JPEG2000", "irreversible": True, "quality_layers": [50]}, "not lossless"),
    ],
)
def test_a_peer_that_is_not_what_it_says_is_caught(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PeerError, match=message):
        peers._one(Peer("fault", "Fault", options), photo(40, 40), 1, 1)


def test_the_command_names_the_peers_that_there_are() -> None:
    assert tuple(peer.name for peer in peers.PEERS) == command._PEERS
    assert set(report_html._PEER_COLOURS) == set(command._PEERS)


def test_a_missing_peer_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(peers._PLUGINS, "JXL", "no_such_package")
    with pytest.raises(PeerError, match="pillow-jxl-plugin is not installed"):
        peers._require(next(peer for peer in peers.PEERS if peer.name == "jxl-e7"), 1)


def test_a_commands_peak_is_its_own_and_not_that_of_who_starts_it() -> None:
    held = np.ones(300 << 20, dtype=np.uint8)  # 300 MiB here
    small, large = (peak_mib([sys.executable, "-c", f"b'x' * {mib << 20}"]) for mib in (1, 100))
    assert small is not None and large is not None and small < 60 and 90 < large - small < 110 and held[-1]
    file = peers.run_peer("png", rgb(4, 4)[None], 1)[0]
    assert file.peak_mib is not None and 10 < file.peak_mib < 200
    with pytest.raises(CostError, match="exit code 3"):
        peak_mib([sys.executable, "-c", "raise SystemExit(3)"])


def test_without_what_windows_has_not_the_peak_is_not_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['resource'] = None; import pixzip.benchmark.run"
    subprocess.run([sys.executable, "-c", hidden], check=True)
    monkeypatch.delattr("os.wait4")
    assert peak.main(tmp_path / "peak", [sys.executable, "-c", "raise SystemExit(4)"]) == 4
    assert (tmp_path / "peak").read_text() == ""
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(Path, "read_text", lambda path: (_ for _ in ()).throw(OSError))
    assert peers._peak_mib() is None and tables._mib(None) == "–"


def test_an_added_model_has_its_whole_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: Path) -> None:
    monkeypatch.setenv("PIXZIP_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "v1.2.safetensors").write_bytes(model.read_bytes())
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    (folder / "a.png").write_bytes(png(rgb(8, 9)))
    assert main(["bench", str(folder), "--model", "v1.2", "--no-peers", "--out", str(out)]) == 0
    assert [m["name"] for m in json.loads((out / "results.json").read_text())["sections"][0]["models"]] == ["v1.2"]


# ------------------------------------------------------------------------ calibration


@pytest.mark.parametrize("rate", [0, 8])
def test_probabilities_are_those_of_the_model_bits(model: Path, rate: int) -> None:
    found, planes = find_model(model), np.ascontiguousarray(rgb(9, 14).transpose(2, 0, 1))[None]
    bits = []

    def visit(p: np.ndarray[Any, Any], symbols: np.ndarray[Any, Any]) -> None:
        assert p.sum(axis=1) == pytest.approx(1)
        bits.append(-np.log2(p[np.arange(len(symbols)), symbols]).sum())

    frozen.probabilities(found.network, "float32", planes, 3, rate, visit)
    assert sum(bits) == pytest.approx(evaluate.plane_bits(found, planes, learning=rate).sum())


def _deviations(found: Any) -> np.ndarray[Any, Any]:
    """(happened - expected) in standard deviations, of bins with enough of either."""
    events, happened, expected = (
        np.array(each, dtype=float) for each in (found.events, found.happened, found.expected)
    )
    enough = np.maximum(expected, happened) >= 20
    p = expected[enough] / events[enough]
    return np.asarray((happened[enough] - expected[enough]) / np.sqrt(expected[enough] * (1 - p) + 1e-9))


def test_a_model_is_calibrated_on_its_own_samples_and_not_on_noise(model: Path) -> None:
    drawn = pixzip.sample(model, count=1, size=(48, 48), seed=3)[0]
    found = calibration(find_model(model), [drawn], 0)
    assert sum(found.happened) == drawn.size and sum(found.events) == 256 * drawn.size
    assert sum(found.expected) == pytest.approx(drawn.size)
    assert np.abs(_deviations(found)).max() < 4.5
    noise = np.random.default_rng(0).integers(0, 256, size=drawn.shape, dtype=np.uint8)
    assert np.abs(_deviations(calibration(find_model(model), [noise], 0))).max() > 20


# ------------------------------------------------------------------------ statistics


def test_savings_are_paired_means_with_their_interval() -> None:
    section = _section(ours=[50, 80, 90, 100], theirs=[100, 100, 100, 100])
    found = summary.complete(section)
    saved = summary.saving(*found.codecs)
    assert saved.mean == pytest.approx(0.2)
    assert 0 <= saved.low < saved.mean < saved.high <= 0.5
    most, least = summary.extremes(found, *found.codecs, 1)
    assert ([found.names[i] for i in most], [found.names[i] for i in least]) == (["0"], ["3"])


def test_pictures_that_a_codec_failed_on_are_left_out_of_all_means() -> None:
    section = _section(ours=[50, 80], theirs=[100, 100])
    section.peers["png"][0] = None
    found = summary.complete(section)
    assert found.names == ["1"] and [codec.file_bits.tolist() for codec in found.codecs] == [[640], [800]]


def test_the_front_is_what_no_other_beats() -> None:
    assert summary.front([(3.0, 1.0), (1.0, 3.0), (2.0, 3.0), (2.0, 2.0), (4.0, 1.0)]) == [1, 3, 0]


def _section(ours: list[int], theirs: list[int]) -> Section:
    """Pictures of these many bytes by a model and by PNG."""
    section = Section("made up <&>", "made up")
    for i, size in enumerate(ours):
        section.pictures.append(Shot(f"{i}", 4, 5, 60, b"jpeg"))
        parts = dict.fromkeys(anatomy(pixzip.compress(np.zeros((1, 1), np.uint8))), 0) | {"words": size}
        section.coded.setdefault("m", []).append(Coded(1, 60, 8.0 * size - 3, 8.0 * size - 2, parts, 0.5, 0.25, 1))
    section.peers["png"] = [peers.PeerFile(size, 0.1, 0.01, 1, 30.0) for size in theirs]
    return section


# ------------------------------------------------------------------------ journal


def test_a_journal_measures_once_and_forgets_lines_that_were_cut_off(tmp_path: Path) -> None:
    path, calls = tmp_path / "journal.jsonl", []

    def make(value: int) -> Callable[[], dict[str, Any]]:
        return lambda: calls.append(value) or {"value": value}

    journal = Journal(path)
    assert journal.once({"a": 1, "b": 2}, make(1)) == journal.once({"b": 2, "a": 1}, make(2)) == {"value": 1}
    journal.once({"a": 2}, make(3))
    path.write_bytes(path.read_bytes()[:-4])
    again = Journal(path)
    assert again.once({"a": 1, "b": 2}, make(4)) == {"value": 1}
    assert again.once({"a": 2}, make(5)) == {"value": 5}
    assert Journal(path).once({"a": 2}, make(6)) == {"value": 5}
    assert calls == [1, 3, 5]


# ------------------------------------------------------------------------ reports


class _Page(HTMLParser):
    """Checks that tags are closed in order; keeps what could come from outside."""

    EMPTY = ("meta", "link", "img", "path", "circle", "rect", "polyline")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.EMPTY:
            assert self.open.pop() == tag


def check_page(page: str) -> None:
    parser = _Page()
    parser.feed(page)
    parser.close()
    assert not parser.open and "script" not in parser.tags and {"svg", "table"} <= parser.tags
    assert all(link.startswith("data:") for link in parser.links)
    assert "url(" not in page and "@import" not in page


def test_the_page_needs_nothing_else_and_quotes_what_it_was_given() -> None:
    machine = {"processor": "<b>", "cores": 1, "cores_of_machine": 2, "system": "s", "engine": "int8", "pixzip": "0"}
    results = Results("pixzip bench <x>", machine | {"code": "c", "versions": {"Python": "3"}}, 0.0)
    results.sections.append(_section(ours=[50, 80, 90, 100], theirs=[100, 100, 100, 100]))
    page = report_html.as_html(results)
    check_page(page)
    assert "made up &lt;&amp;&gt;" in page and "<b>" not in page and "<x>" not in page
    assert "20.00" in as_markdown(results)


def test_figures_are_valid_and_ticks_lie_on_their_axes() -> None:
    for axis in (plots.around([0.001, 70.0], "x", log=True), plots.around([2.1, 2.9], "y"), plots.around([5.0], "z")):
        ticks = axis.ticks()
        assert len(ticks) >= 2 and all(-1e-9 <= axis.place(t) <= 1 + 1e-9 for t in ticks)
        figure = plots.Figure(axis, axis)
        figure.dot((ticks[0], ticks[-1]), "#123456", "a < b & c", diamond=True)
        figure.line([(ticks[0], ticks[0]), (ticks[-1], ticks[-1])], "#123456")
        root = ElementTree.fromstring(figure.svg('"label"'))
        assert root.find(".//title") is not None and root.find(".//title").text == "a < b & c"  # type: ignore[union-attr]


def test_names_of_points_that_lie_together_stand_apart() -> None:
    axis = plots.around([1.0, 2.0], "x")
    figure = plots.Figure(axis, axis)
    figure.names([((1.0, 1.0), "one"), ((1.0, 1.01), "two"), ((1.02, 1.0), "three"), ((2.0, 2.0), "at the edge")])
    texts = list(ElementTree.fromstring(figure.svg("")).iter("text"))
    at = {each.text: float(each.get("y", "")) for each in texts if each.text in ("one", "two", "three", "at the edge")}
    rows = sorted(at[name] for name in ("one", "two", "three"))
    assert min(b - a for a, b in itertools.pairwise(rows)) >= 13
    assert all(0 < y < figure.height - 40 for y in at.values())
    edge = next(each for each in texts if each.text == "at the edge")
    assert edge.get("text-anchor") == "end"


# ------------------------------------------------------------------------ the command


def test_pictures_come_by_name_and_what_cannot_be_measured_says_why(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "b.png").write_bytes(png(rgb(5, 6)))
    (tmp_path / "a.png").write_bytes(b"no png")
    Image.fromarray(rgb(5, 6)).convert("RGBA").save(tmp_path / "c.png")
    Image.fromarray(np.full((5, 6), 40000, dtype=np.uint16)).save(tmp_path / "d.png")
    found = dict(pictures_of(str(tmp_path), gray=False, limit=None))
    assert list(found) == ["a.png", "b.png", "c.png", "d.png"]
    assert np.array_equal(found["b.png"], rgb(5, 6)) and np.array_equal(found["c.png"], rgb(5, 6))
    assert isinstance(found["a.png"], PixzipError) and "16 bits" in str(found["d.png"])
    gray = dict(pictures_of(str(tmp_path), gray=True, limit=2))
    assert list(gray) == ["a.png", "b.png"] and gray["b.png"].shape == (5, 6)
    with pytest.raises(UsageError, match="no files"):
        next(pictures_of(str(tmp_path / "empty") if (tmp_path / "empty").mkdir() is None else "", gray=False, limit=1))


def test_one_command_measures_reports_and_goes_on(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    folder.mkdir()
    for name, pixels in {"large": rgb(40, 70), "one": rgb(16, 20), "two": rgb(16, 20, 1)}.items():
        (folder / f"{name}.png").write_bytes(png(pixels))
    (folder / "zzz.png").write_bytes(b"no png")
    how = ["--model", str(model), "--peer", "png", "--threads", "1", "--time-first", "1", "--repeats", "2"]
    arguments = ["bench", str(folder), *how, "--out", str(out), "--markdown", str(tmp_path / "results.md")]
    assert main(arguments) == 3  # of the file that is no image
    told = capsys.readouterr()
    assert "zzz.png" in told.err and "large.png" in told.out and "zzz.png" in told.out
    rows = list(csv.DictReader((out / "pictures.csv").read_text().splitlines()))
    assert [(row["picture"], row["codec"]) for row in rows[:2]] == [("large.png", "pixzip calm"), ("large.png", "png")]
    assert len(rows) == 6
    for row in rows[::2]:
        assert sum(int(row[part]) for part in anatomy(pixzip.compress(rgb(4, 4)))) == int(row["file_bytes"])
    section = json.loads((out / "results.json").read_text())["sections"][0]
    assert [pack["pictures"] for pack in section["packs"]] == [2]
    assert section["memory"]["calm"][0][1]["decompress_mib"] > 20
    assert [each["sub_pixels"] for each in section["sizes"]["calm"]] == [3 * 16 * 16, 3 * 32 * 32]
    check_page((out / "report.html").read_text())
    document = (tmp_path / "results.md").read_text()
    assert "## pictures: 3 pictures" in document and str(model.parent) not in document and str(tmp_path) not in document
    lines = (out / "journal.jsonl").read_text()
    assert main(arguments) == 3
    assert (out / "journal.jsonl").read_text() == lines
    again = (tmp_path / "results.md").read_text()
    assert "made 0 measurements" in again and "made 0 measurements" not in document
    assert [line for line in again.splitlines() if not line.startswith("When the command began")] == [
        line for line in document.splitlines() if not line.startswith("When the command began")
    ]


def test_mistakes_are_told_before_anything_is_measured(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code in (
        (["nowhere"], 10),
        ([str(PHOTO.parent), "nowhere"], 10),
        ([str(PHOTO.parent), "--model", "nobody"], 6),
        ([str(PHOTO.parent), "--no-peers", "--peer", "png"], 2),
    ):
        assert main(["bench", *arguments, "--out", str(tmp_path / "out")]) == code
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "out" / "report.html").exists()
