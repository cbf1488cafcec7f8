"""Pictures → sizes and seconds of the codecs that one would use instead, each in a process of its own.

Every file is decoded and compared before it counts. This module is also that process::

    python -m pixzip.benchmark.peers NAME THREADS RUNS PICTURES.npy

which prints one line of JSON.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from pixzip.errors import PeerError


@dataclass(frozen=True)
class Peer:
    """A codec as Pillow has it: what it is called, where it comes from, and what it is told."""

    name: str
    title: str
    options: dict[str, Any]
    threads_option: str | None = None


#: PNG optimised, WebP and JPEG XL at their strongest that ends in seconds, the others as they are lossless.
#: command._PEERS has the same names, for --help to need nothing of this.
PEERS = (
    Peer("png", "PNG", {"format": "PNG", "optimize": True}),
    Peer("webp", "WebP", {"format": "WEBP", "lossless": True, "exact": True, "quality": 100, "method": 6}),
    Peer("jp2", "JPEG 2000", {"format": "JPEG2000", "irreversible": False, "mct": 1}),
    Peer("avif", "AVIF", {"format": "AVIF", "quality": 100, "subsampling": "4:4:4", "speed": 0}, "max_threads"),
    Peer("jxl-e7", "JPEG XL e7", {"format": "JXL", "lossless": True, "effort": 7}, "num_threads"),
    Peer("jxl-e9", "JPEG XL e9", {"format": "JXL", "lossless": True, "effort": 9}, "num_threads"),
)
_BY_NAME = {peer.name: peer for peer in PEERS}
#: Format → what must be installed for it.
_PLUGINS = {"JXL": "pillow_jxl"}
_FEATURES = {"WEBP": "webp", "JPEG2000": "jpg_2000", "AVIF": "avif"}
_COD = b"\xff\x52"  # JPEG 2000's marker of how tiles are coded


@dataclass(frozen=True)
class PeerFile:
    """What a peer made of one picture; seconds are medians of so many runs; peak of the process, None: not known."""

    bytes: int
    encode_s: float
    decode_s: float
    runs: int
    peak_mib: float | None


def run_peer(name: str, pictures: NDArray[Any], threads: int, runs: int = 1) -> list[PeerFile]:
    """Sizes and seconds of pictures (n, h, w) or (n, h, w, 3) uint8, one file each, in a new process.

    Raises PeerError, with what is missing or wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.npy"
        np.save(path, pictures)
        command = [sys.executable, "-m", "pixzip.benchmark.peers", name, str(threads), str(runs), str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise PeerError(f"{name}: exit code {done.returncode}: {last}")
    answer = json.loads(done.stdout)
    if isinstance(answer, dict):
        raise PeerError(answer["fault"])
    return [PeerFile(**each) for each in answer]


def missing_peers(names: Sequence[str], *, gray: bool) -> dict[str, str]:
    """Name → why it does not take part: each is tried on a small picture."""
    random = np.random.default_rng(0)
    shape = (1, 40, 48) if gray else (1, 40, 48, 3)
    picture = random.integers(0, 256, size=shape, dtype=np.uint8)
    out = {}
    for name in names:
        try:
            run_peer(name, picture, 1)
        except PeerError as error:
            out[name] = str(error)
    return out


def versions() -> dict[str, str]:
    """Libraries behind the peers."""
    found = {"Pillow": importlib.metadata.version("pillow")}
    for title, feature in {"zlib": "zlib", "libwebp": "webp", "OpenJPEG": "jpg_2000", "libavif": "avif"}.items():
        found[title] = features.version(feature) or "none"
    try:
        found["pillow-jxl-plugin"] = importlib.metadata.version("pillow-jxl-plugin")
    except importlib.metadata.PackageNotFoundError:
        found["pillow-jxl-plugin"] = "none"
    return found


# ------------------------------------------------------------------------ in the process of a peer


def _require(peer: Peer, threads: int) -> None:
    """Raise PeerError where the format is not there; tell its decoder the number of threads."""
    kind = peer.options["format"]
    if kind in _FEATURES and not features.check(_FEATURES[kind]):
        raise PeerError(f"Pillow was built without {peer.title}")
    if kind in _PLUGINS:
        try:
            importlib.import_module(_PLUGINS[kind])
        except ImportError:
            raise PeerError("the package pillow-jxl-plugin is not installed") from None
        vars(importlib.import_module("pillow_jxl.JpegXLImagePlugin"))["DECODE_THREADS"] = threads
    if kind == "AVIF":
        vars(importlib.import_module("PIL.AvifImagePlugin"))["DEFAULT_MAX_THREADS"] = threads


def _encode(image: Image.Image, peer: Peer, threads: int) -> bytes:
    out = io.BytesIO()
    options = peer.options | ({peer.threads_option: threads} if peer.threads_option else {})
    image.save(out, **options)
    return out.getvalue()


def _decode(data: bytes, mode: str) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image if image.mode == mode else image.convert(mode))


def _check(peer: Peer, data: bytes, pixels: NDArray[np.uint8], mode: str) -> None:
    """Raise PeerError where other pixels come back, or a JPEG 2000 file has no colour transform."""
    found = _decode(data, mode)
    if not np.array_equal(found, pixels):
        share = 100 * float(np.mean(found != pixels)) if found.shape == pixels.shape else 100.0
        raise PeerError(f"not lossless here: {share:.0f} % of the samples came back changed")
    if peer.options["format"] == "JPEG2000" and mode == "RGB":
        at = data.index(_COD)  # marker, length of 2 bytes, style, progression, layers of 2 bytes, transform
        if data[at + 8] != 1:
            raise PeerError("wrote a file without a colour transform")


def _one(peer: Peer, pixels: NDArray[np.uint8], threads: int, runs: int) -> PeerFile:
    image = Image.fromarray(pixels)
    _check(peer, _encode(image, peer, threads), pixels, image.mode) if runs > 1 else None
    encode_s, decode_s = [], []
    for _ in range(runs):
        data, spent_s = _timed(lambda: _encode(image, peer, threads))
        encode_s.append(spent_s)
        decode_s.append(_timed(lambda data=data: _decode(data, image.mode))[1])  # type: ignore[misc]
    _check(peer, data, pixels, image.mode)
    return PeerFile(len(data), statistics.median(encode_s), statistics.median(decode_s), runs, _peak_mib())


def _peak_mib() -> float | None:
    """Largest resident size of this process: getrusage would count its parent's, if that is larger. None: not known."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        try:
            import resource
        except ImportError:  # Windows
            return None
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(float(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _answer(name: str, threads: int, runs: int, path: Path) -> list[dict[str, Any]] | dict[str, str]:
    peer = _BY_NAME[name]
    pictures = np.load(path)
    try:
        _require(peer, threads)
        return [asdict(_one(peer, pixels, threads, runs)) for pixels in pictures]
    except PeerError as error:
        return {"fault": str(error)}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answer(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))) + "\n")
