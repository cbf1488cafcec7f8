"""Lossless image compression by a neural network in exact integer arithmetic.

`compress` takes an image file's bytes, an array or a Pillow image and gives the bytes of a .pxz file; `decompress`
gives the Picture back. Importing this package loads nothing heavy: each name loads its module when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pixzip.errors import (
    FormatError,
    ImageError,
    LimitError,
    ManifestError,
    ModelError,
    ModelNotFoundError,
    OutputError,
    PixelChecksumError,
    PixzipError,
    SalvageError,
    UsageError,
)

if TYPE_CHECKING:
    from pixzip.api import (
        Info,
        Salvaged,
        compress,
        compress_batch,
        decompress,
        decompress_batch,
        inspect,
        model_bits,
        picture_names,
        salvage,
        verify,
    )
    from pixzip.drawing import complete, sample
    from pixzip.formats.image import Picture, from_array, from_pil, read_image, to_array, to_pil, write_image

__version__ = "0.1.0"

__all__ = [
    "FormatError",
    "ImageError",
    "Info",
    "LimitError",
    "ManifestError",
    "ModelError",
    "ModelNotFoundError",
    "OutputError",
    "Picture",
    "PixelChecksumError",
    "PixzipError",
    "SalvageError",
    "Salvaged",
    "UsageError",
    "__version__",
    "complete",
    "compress",
    "compress_batch",
    "decompress",
    "decompress_batch",
    "from_array",
    "from_pil",
    "inspect",
    "model_bits",
    "picture_names",
    "read_image",
    "salvage",
    "sample",
    "to_array",
    "to_pil",
    "verify",
    "write_image",
]

_HOMES = {
    "pixzip.api": (
        *("Info", "Salvaged", "compress", "compress_batch", "decompress", "decompress_batch", "inspect"),
        *("model_bits", "picture_names", "salvage", "verify"),
    ),
    "pixzip.drawing": ("complete", "sample"),
    "pixzip.formats.image": ("Picture", "from_array", "from_pil", "read_image", "to_array", "to_pil", "write_image"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
