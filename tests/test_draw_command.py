"""`pixzip sample` and `pixzip complete`: what they write, and one line, one exit code, nothing left for bad input."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import calm_parts, model_picture
from PIL import Image
from test_cli import BAD_MODELS, Result, assert_fails, contents, feed, pixels_in, png_bytes, run
from tiny_stack import stack_bytes

import pixzip
import pixzip.drawing
from pixzip.drawing import GAP_PX, grid
from pixzip.model.file import write_model

__all__ = ["feed", "run"]  # fixtures

Run = Callable[..., Result]
SAMPLE = ("--size", "5x4", "-q")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A file that is not there yet, in an empty folder."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "grid.png"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    path.write_bytes(png_bytes(model_picture(9, 8)))
    return path


# ------------------------------------------------------------------------ what goes well


def test_sample_writes_a_grid_of_the_pictures_that_the_api_draws(run: Run, model: Path, out: Path) -> None:
    done = run("sample", model, "-o", out, "--count", 5, "--columns", 3, "--seed", 9, *SAMPLE)
    assert done == Result(0, b"", "")
    drawn = pixzip.sample(model, 5, (5, 4), 9)
    assert np.array_equal(pixels_in(out), grid(drawn, 3))
    assert sorted(contents(out.parent)) == ["grid.png"]


@pytest.mark.parametrize(
    ("options", "count", "columns"),
    [
        ((), 16, 4),
        (("--count", 5), 5, 3),
        (("--rows", 2), 16, 8),
        (("--columns", 16), 16, 16),
        (("--rows", 2, "--columns", 3), 6, 3),
        (("--count", 5, "--rows", 2), 5, 3),
        (("--count", 1), 1, 1),
    ],
)
def test_the_grid_is_laid_out_as_asked(
    run: Run, model: Path, out: Path, options: tuple[str | int, ...], count: int, columns: int
) -> None:
    assert run("sample", model, "-o", out, *SAMPLE, *map(str, options)).code == 0
    assert np.array_equal(pixels_in(out), grid(pixzip.sample(model, count, (5, 4)), columns))


def test_options_reach_the_drawing(run: Run, model: Path, out: Path) -> None:
    base = ("sample", model, "--count", 2, *SAMPLE)
    assert run(*base, "-o", out).code == 0
    seen = {pixels_in(out).tobytes()}
    for options in (("--temperature", "3/2"), ("--temperature", "0.5"), ("--seed", 2**64 - 1)):
        assert run(*base, "-o", out, "--force", *options).code == 0
        seen.add(pixels_in(out).tobytes())
    assert len(seen) == 4
    for options in (("--threads", 2), ("--engine", "float32"), ("--temperature", "1.0")):
        assert run(*base, "-o", out, "--force", *options).code == 0
        assert len({pixels_in(out).tobytes(), *seen}) == 4


def test_the_size_comes_from_the_model_where_it_has_one(run: Run, tmp_path: Path, out: Path) -> None:
    config, arrays = calm_parts()
    path = tmp_path / "sized.safetensors"
    path.write_bytes(write_model(config | {"info": {"data": {"crop": 6}}}, arrays))
    assert run("sample", path, "-o", out, "--count", "1").code == 0
    assert np.array_equal(pixels_in(out), pixzip.sample(path, 1, (6, 6))[0])


def test_binary_pictures_are_written_with_one_bit(run: Run, tmp_path: Path, out: Path) -> None:
    path = tmp_path / "binary.safetensors"
    path.write_bytes(stack_bytes("row_lstm", 4, pictures="binary"))
    assert run("sample", path, "-o", out, "--count", 2, *SAMPLE).code == 0
    with Image.open(out) as image:
        assert image.mode == "1" and image.size == (2 * 4 + GAP_PX, 5)
    again = out.with_name("again.png")
    assert run("complete", path, out, "-o", again, "--count", 1, "--no-original").code == 0
    assert np.array_equal(pixels_in(again)[:2], pixels_in(out)[:2])


def test_completions_stand_between_what_is_kept_and_the_original(run: Run, model: Path, photo: Path, out: Path) -> None:
    before = photo.read_bytes()
    assert run("complete", model, photo, "-o", out, "--count", 2, "--seed", 4) == Result(0, b"", "")
    original = pixels_in(photo)
    made = pixzip.complete(model, original, 2, 4, 4)
    kept = np.concatenate([original[:4], np.zeros_like(original[4:])])
    assert np.array_equal(pixels_in(out), grid([kept, *made, original], 4))
    assert photo.read_bytes() == before


def test_several_pictures_make_a_row_each(run: Run, model: Path, photo: Path, out: Path) -> None:
    other = photo.with_name("other.png")
    Image.fromarray(pixels_in(photo)[::-1]).save(other)
    assert run("complete", model, photo, other, "-o", out, "--count", 2).code == 0
    rows = []
    for picture in (photo, other):
        assert run("complete", model, picture, "-o", out, "--force", "--count", 2).code == 0
        rows.append(pixels_in(out))
    assert run("complete", model, photo, other, "-o", out, "--force", "--count", 2).code == 0
    height = len(rows[0])
    found = pixels_in(out)
    assert np.array_equal(found[:height], rows[0]) and np.array_equal(found[height + GAP_PX :], rows[1])


def test_pictures_of_other_sizes_and_modes_are_refused(run: Run, model: Path, photo: Path, out: Path) -> None:
    other = photo.with_name("other.png")
    for wrong in (Image.fromarray(pixels_in(photo)[:-1]), Image.open(photo).convert("L")):
        wrong.save(other)
        failed = run("complete", model, photo, other, "-o", out)
        assert_fails(failed, 2, "other.png", "another size or mode than the first")
        assert contents(out.parent) == {}


@pytest.mark.parametrize(
    ("options", "cut"), [((), 4), (("--keep", 0), 0), (("--keep", 99), 8), (("--keep", 25), 2), (("--from-row", 7), 7)]
)
def test_the_cut_is_a_row_or_a_share(
    run: Run, model: Path, photo: Path, out: Path, options: tuple[str | int, ...], cut: int
) -> None:
    assert run("complete", model, photo, "-o", out, "--count", 1, "--no-original", *options).code == 0
    assert np.array_equal(pixels_in(out), pixzip.complete(model, pixels_in(photo), 1, cut)[0])
    assert np.array_equal(pixels_in(out)[:cut], pixels_in(photo)[:cut])


def test_standard_streams_carry_the_picture_and_the_grid(
    run: Run, model: Path, photo: Path, feed: Callable[[bytes], None]
) -> None:
    feed(photo.read_bytes())
    done = run("complete", model, "-", "-o", "-", "--count", 1)
    assert (done.code, done.err) == (0, "")
    original = pixels_in(photo)
    with Image.open(io.BytesIO(done.out)) as image:
        kept = np.concatenate([original[:4], np.zeros_like(original[4:])])
        assert np.array_equal(np.asarray(image), grid([kept, pixzip.complete(model, original)[0], original], 3))
    drawn = run("sample", model, "-o", "-", "--count", 1, *SAMPLE)
    with Image.open(io.BytesIO(drawn.out)) as image:
        assert np.array_equal(np.asarray(image), pixzip.sample(model, 1, (5, 4))[0])


def test_a_gray_picture_is_completed_by_a_model_of_colour_pictures(run: Run, model: Path, out: Path) -> None:
    gray = out.parent.with_name("gray.png")
    gray.write_bytes(png_bytes(model_picture(9, 8)[:, :, 0]))
    assert run("complete", model, gray, "-o", out).code == 0
    assert pixels_in(out).shape == (9, 5 * 8 + 4 * GAP_PX)


def test_the_suffix_names_the_format(run: Run, model: Path, out: Path) -> None:
    target = out.with_suffix(".webp")
    assert run("sample", model, "-o", target, "--count", 1, *SAMPLE).code == 0
    with Image.open(target) as image:
        assert image.format == "WEBP"
        assert np.array_equal(np.asarray(image), pixzip.sample(model, 1, (5, 4))[0])


@pytest.mark.parametrize("command", ["sample", "complete"])
def test_help_says_the_exit_codes_and_loads_nothing_heavy(run: Run, command: str) -> None:
    assert b"Exit codes: 0" in run(command, "--help").out
    code = (
        f"import sys; from pixzip.cli import main; main(['{command}', '--help']);"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'numba', 'torch', 'PIL')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# ------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "code", "fragment"),
    [
        (("--size", "0x4"), 2, "size 0: must be at least 1"),
        (("--size", "4"), 2, "HEIGHTxWIDTH"),
        (("--size", "-4x4"), 2, "HEIGHTxWIDTH"),
        (("--size", "4x5000"), 8, "4096"),
        (("--size", "999999999x999999999"), 8, "4096"),
        (("--size", "1000x1000", "--count", "65"), 8, "over the limit"),
        (("--max-pixels", "319"), 8, "320 pixels, over the limit of 319"),
        (("--count", "0"), 2, "count"),
        (("--count", "7", "--rows", "2", "--columns", "3"), 2, "7 pictures do not fill 2 rows of 3 columns"),
        (("--count", "5", "--rows", "9"), 2, "9 rows"),
        (("--count", "5", "--columns", "1000000000"), 2, "1000000000 columns"),
        (("--seed", "-1"), 2, "seed"),
        (("--seed", str(2**64)), 2, "seed"),
        (("--temperature", "0"), 2, "temperature 0"),
        (("--temperature", "-1"), 2, "temperature -1"),
        (("--temperature", "nan"), 2, "temperature nan"),
        (("--temperature", "1/0"), 2, "temperature 1/0"),
        (("--device", "cuda"), 2, "CPU only"),
        (("--engine", "abacus"), 2, "abacus"),
        (("--threads", "0"), 2, "threads"),
        (("-o", "grid.jpg"), 2, "lossy"),
        (("-o", "grid.xyz"), 2, ".xyz"),
        (("-o", "no/such/grid.png"), 9, "no folder"),
    ],
)
def test_sample_refuses_what_cannot_be_drawn(
    run: Run,
    model: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: int,
    fragment: str,
) -> None:
    monkeypatch.chdir(out.parent)
    monkeypatch.setattr(pixzip.drawing, "draw_numbers", lambda *arguments: pytest.fail("drawn"))
    assert_fails(run("sample", model, "-o", "grid.png", *SAMPLE, *options), code, fragment)
    assert contents(out.parent) == {}


def test_sample_needs_a_size_that_the_model_does_not_say(run: Run, model: Path, out: Path) -> None:
    assert_fails(run("sample", model, "-o", out), 2, "give a size")


@pytest.mark.parametrize(
    ("options", "code", "fragment"),
    [
        (("--from-row", "9"), 2, "from_row 9: must be 0 to 8"),
        (("--from-row", "-1"), 2, "from_row -1"),
        (("--keep", "100"), 2, "keep"),
        (("--keep", "50", "--from-row", "3"), 2, "exclude"),
        (("--count", "0"), 2, "count"),
        (("--max-pixels", "71"), 8, "limit"),
        (("--max-pixels", "100"), 8, "216 pixels, over the limit of 100"),
        (("-o", "photo.png", "--force"), 2, "is the input"),
        (("-o", "old.png"), 2, "--force"),
    ],
)
def test_complete_refuses_what_cannot_be_drawn(
    run: Run,
    model: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: tuple[str, ...],
    code: int,
    fragment: str,
) -> None:
    monkeypatch.chdir(photo.parent)
    Path("old.png").write_bytes(b"old")
    monkeypatch.setattr(pixzip.drawing, "draw_numbers", lambda *arguments: pytest.fail("drawn"))
    before = contents(photo.parent)
    assert_fails(run("complete", model, "photo.png", "-o", "grid.png", *options), code, fragment)
    assert contents(photo.parent) == before


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "I;16"])
def test_complete_refuses_pictures_of_another_kind(run: Run, model: Path, photo: Path, out: Path, mode: str) -> None:
    with Image.open(photo) as image:
        (image if mode != "I;16" else image.convert("L")).convert(mode).save(photo)
    assert_fails(run("complete", model, photo, "-o", out), 2, "photo.png", "RGB or L with 8 bits")
    assert contents(out.parent) == {}


def test_complete_refuses_what_is_no_picture(run: Run, model: Path, photo: Path, out: Path) -> None:
    photo.write_bytes(b"not a picture")
    assert_fails(run("complete", model, photo, "-o", out), 3, "photo.png")
    assert_fails(run("complete", model, photo.with_name("nothing.png"), "-o", out), 2, "no such file")


@pytest.mark.parametrize("command", ["sample", "complete"])
def test_an_unknown_model_is_named(run: Run, photo: Path, out: Path, command: str) -> None:
    given = (photo,) if command == "complete" else ()
    assert_fails(run(command, "no-such-model", *given, "-o", out), 6, "no-such-model")
    assert contents(out.parent) == {}


@pytest.mark.parametrize("command", ["sample", "complete"])
@pytest.mark.parametrize(("damage", "fragment"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_hostile_model_is_refused(
    run: Run,
    photo: Path,
    out: Path,
    model_bytes: bytes,
    command: str,
    damage: Callable[[bytes], bytes],
    fragment: str,
) -> None:
    hostile = photo.with_name("m.safetensors")
    hostile.write_bytes(damage(model_bytes))
    given = (photo,) if command == "complete" else ()
    assert_fails(run(command, hostile, *given, "-o", out), 7, fragment)
    assert contents(out.parent) == {}


def test_out_of_memory_is_one_line(run: Run, model: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(*arguments: object, **how: object) -> None:
        raise MemoryError("Unable to allocate 7 TiB")

    monkeypatch.setattr(pixzip.drawing, "sample", sample)
    assert_fails(run("sample", model, "-o", out), 8, "out of memory", "7 TiB")


def test_a_signal_stops_the_drawing(run: Run, model: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread asks at its next report."""
    original = pixzip.drawing.draw_numbers

    def interrupted(*arguments: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pixzip.drawing, "draw_numbers", interrupted)
    assert_fails(run("sample", model, "-o", out, "--size", "40x40", "--threads", "2"), 130, "interrupted")
    assert contents(out.parent) == {}
