"""Write tests/golden/research/: pictures drawn from a research model, and the files that it makes of them.

Run once for each model of bench/research/:

    python tests/make_research_goldens.py bench/research/NAME.safetensors
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

import pixzip
from pixzip.formats.image import from_array, write_image

FOLDER = Path(__file__).parent / "golden" / "research"


def main(model: Path) -> None:
    """A file of four pictures, stacked in its PNG, and one of a piece small enough for the reference decoder."""
    drawn = pixzip.sample(model, 4, size=(28, 28), seed=1, threads=1)
    side = 10 if drawn.ndim == 3 else 3  # the reference decoder takes a second for twenty pixels in colour
    for name, pictures in (("four", list(drawn)), ("piece", [drawn[0, 8 : 8 + side, 9 : 9 + side]])):
        data = pixzip.compress_batch([from_array(p) for p in pictures], model=model, engine="float32", threads=1)
        (FOLDER / f"{model.stem}.{name}.pxz").write_bytes(data)
        (FOLDER / f"{model.stem}.{name}.png").write_bytes(write_image(from_array(np.concatenate(pictures)), "PNG"))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    main(Path(sys.argv[1]))
