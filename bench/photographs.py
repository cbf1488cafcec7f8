"""A folder of photographs → model, row, payload and file bits per sub-pixel beside PNG, WebP and JPEG XL.

    python bench/photographs.py FOLDER [--model NAME] [--csv FILE] [--no-peers] [--gray]

Every file is decoded and compared with the picture before it is counted; every peer likewise. Bits are per sub-pixel
(bits/dim), headers counted; --gray turns the pictures into 8-bit gray first (ITU-R 601-2 luma). JPEG XL takes part
where the package pillow-jxl-plugin is installed.
"""

from __future__ import annotations

import csv
import io
import platform
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

import pixzip
from pixzip import codec, evaluate
from pixzip.container import read_container
from pixzip.model_file import Model, find_model

try:
    import pillow_jxl  # noqa: F401  registers the JXL format

    HAS_JXL = True
except ImportError:
    HAS_JXL = False

PEERS: dict[str, dict[str, Any]] = {
    "png": {"format": "PNG", "optimize": True},
    "webp": {"format": "WEBP", "lossless": True, "exact": True, "quality": 100, "method": 6},
}
if HAS_JXL:
    PEERS["jxl_e7"] = {"format": "JXL", "lossless": True, "effort": 7}
    PEERS["jxl_e9"] = {"format": "JXL", "lossless": True, "effort": 9}


def peer_bits(pixels: np.ndarray[Any, np.dtype[np.uint8]], options: dict[str, Any]) -> int:
    """Bits of a peer's file, which must decode to the same pixels."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, **options)
    with Image.open(io.BytesIO(out.getvalue())) as again:
        if not np.array_equal(np.asarray(again.convert("L" if pixels.ndim == 2 else "RGB")), pixels):
            raise SystemExit(f"{options['format']} did not return the same pixels")
    return 8 * len(out.getvalue())


def measure(path: Path, name: str, model: Model, peers: bool, gray: bool, learning: int | None) -> dict[str, Any]:
    """One row of the table; bits are totals of the picture."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB").convert("L") if gray else image.convert("RGB"))
    planes = pixels[None, None] if gray else np.ascontiguousarray(pixels.transpose(2, 0, 1))[None]
    start = time.perf_counter()
    encoded = codec.encode(model, planes, learning=learning)
    encode_s = time.perf_counter() - start
    file = pixzip.compress(pixels, model=name, learning=learning)
    start = time.perf_counter()
    decoded = pixzip.decompress(file, model=name).planes
    decode_s = time.perf_counter() - start
    if not np.array_equal(decoded, planes[0]):
        raise SystemExit(f"{path}: the pixels did not come back")
    row: dict[str, Any] = {"picture": path.name, "sub_pixels": planes.size}
    row["model"] = float(evaluate.model_bits(model, planes, learning=learning).sum())
    row["rows"] = encoded.row_bits
    row["payload"] = 8 * sum(len(t) for t in encoded.tiles)
    row["file"] = 8 * len(file)
    row["overhead_bytes"] = (row["file"] - row["model"]) / 8
    row["bound_bytes"] = row["model"] / 8 * 0.001 + 200
    row["coded"] = "model" if read_container(file).tiles else "stored"
    row["encode_s"], row["decode_s"] = encode_s, decode_s
    if peers:
        row |= {name: peer_bits(pixels, options) for name, options in PEERS.items()}
    return row


def show(rows: list[dict[str, Any]]) -> None:
    """Print bits per sub-pixel of every picture and of all together."""
    bits = ["model", "rows", "payload", "file", *(name for name in PEERS if name in rows[0])]
    print(f"{'picture':<28}" + "".join(f"{name:>9}" for name in bits) + "  over-  allowed  encode  decode")
    print(f"{'':<28}" + "".join(f"{'bpsp':>9}" for _ in bits) + "   head B     B        s       s")
    for r in rows:
        line = f"{r['picture'][:27]:<28}" + "".join(f"{r[name] / r['sub_pixels']:9.4f}" for name in bits)
        line += f"{r['overhead_bytes']:8.0f}{r['bound_bytes']:8.0f}{r['encode_s']:9.2f}{r['decode_s']:8.2f}"
        print(line + ("" if r["overhead_bytes"] <= r["bound_bytes"] else "  OVER"))
    total = sum(r["sub_pixels"] for r in rows)
    print(f"{'all, by sub-pixels':<28}" + "".join(f"{sum(r[n] for r in rows) / total:9.4f}" for n in bits))
    mean = [float(np.mean([r[n] / r["sub_pixels"] for r in rows])) for n in bits]
    print(f"{'mean over pictures':<28}" + "".join(f"{m:9.4f}" for m in mean))
    for name in bits[4:]:
        saving = np.array([1 - r["file"] / r[name] for r in rows])
        rng = np.random.default_rng(0)
        means = saving[rng.integers(len(saving), size=(10000, len(saving)))].mean(axis=1)
        low, high = np.percentile(means, [2.5, 97.5])
        print(
            f"saving over {name}: {100 * saving.mean():.2f} %, "
            f"95 % bootstrap interval {100 * low:.2f} to {100 * high:.2f}"
        )


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", "name", default="default")
@click.option("--csv", "csv_path", type=click.Path(path_type=Path))
@click.option("--peers/--no-peers", default=True)
@click.option("--first", type=int, default=None, help="Only the first N pictures.")
@click.option("--gray", is_flag=True, help="Turn the pictures into 8-bit gray first.")
@click.option("--learning", type=int, default=None, help="Rate of learning; default: the codec's.")
def main(
    folder: Path, name: str, csv_path: Path | None, peers: bool, first: int | None, gray: bool, learning: int | None
) -> None:
    """Measure every picture of FOLDER."""
    model = find_model(name)
    print(f"model {name}, digest {model.digest[:8].hex()}, {len(model.data)} bytes; Python {platform.python_version()}")
    rows = []
    for path in sorted(folder.iterdir())[:first]:
        if path.suffix.lower() in (".png", ".webp", ".tif", ".tiff", ".ppm"):
            rows.append(measure(path, name, model, peers, gray, learning))
            print(f"  {path.name} {rows[-1]['file'] / rows[-1]['sub_pixels']:.4f}", flush=True)
    if csv_path:
        with csv_path.open("w", newline="") as handle:
            out = csv.DictWriter(handle, list(rows[0]))
            out.writeheader()
            out.writerows(rows)
    show(rows)


if __name__ == "__main__":
    main()
