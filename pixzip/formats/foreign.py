"""A file that Pillow decodes → its reader and the depth of samples, or the reason why Pillow would lose something.

Refused, before a pixel is decoded, is whatever Pillow rounds, scales, drops, merges or makes up.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

from pixzip.errors import ImageError
from pixzip.formats import tiff_tags
from pixzip.formats.deep_tiff import LOSSLESS, DeepTiff, deep_tiff
from pixzip.formats.fax import GROUP_4
from pixzip.formats.png import check_size
from pixzip.formats.segments import gif_frames
from pixzip.formats.tiff import check_single

_READABLE = ("WEBP", "TIFF", "BMP", "GIF", "TGA", "JPEG")
#: (offset, bytes, format); formats that are not read are named in the refusal.
_MAGIC = (
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (8, b"WEBP", "WEBP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftypheic", "HEIC"),
    (4, b"ftypmif1", "HEIF"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL \r\n\x87\n", "JPEG XL"),
    (4, b"jP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"qoif", "QOI"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\x76\x2f\x31\x01", "OpenEXR"),
    (0, b"%PDF", "PDF"),
    (0, b"\0\0\1\0", "ICO"),
    (0, b"P7\n", "PAM"),
    (0, b"PF\n", "PFM"),
    (0, b"\x8aMNG", "MNG"),
)


def format_of(data: bytes) -> str:
    """The format's name by its first bytes; TGA, which has no magic, by a header that makes sense.

    Raises ImageError for what looks like no image.
    """
    if not data:
        raise ImageError("not an image: the file is empty")
    for offset, magic, kind in _MAGIC:
        if data.startswith(magic, offset) and (kind != "WEBP" or data.startswith(b"RIFF")):
            return kind
    if len(data) > 18 and data[1] < 2 and data[2] in (1, 2, 3, 9, 10, 11) and data[16] in (8, 15, 16, 24, 32):
        return "TGA"
    raise ImageError(f"not an image, or none that pixzip knows: begins with {data[:8].hex()}")


def open_foreign(data: bytes, kind: str, *, max_pixels: int) -> tuple[Any, int]:
    """(Pillow's reader, not loaded; bits a sample) of a file whose header says that nothing will be lost.

    Raises ImageError with the reason otherwise, LimitError beyond max_pixels. What Pillow raises passes through.
    """
    if kind not in _READABLE:
        raise ImageError(f"{kind} files are not read")
    width, height = _canvas_size(data, kind)
    check_size(width, height, max_pixels)
    if kind == "TIFF":
        check_single(data)  # Pillow reads all pages to count them
    image = _open(data, kind)
    check_size(image.width, image.height, max_pixels)
    frames = gif_frames(data) if kind == "GIF" else 1 if kind == "TIFF" else getattr(image, "n_frames", 1)
    if frames != 1 or getattr(image, "is_animated", False):
        raise ImageError(f"{kind} file with {frames} frames or pages: only single pictures are kept")
    if kind == "WEBP" and data[12:16] == b"VP8X" and data[20] & 2:
        raise ImageError("WEBP file with an animated picture of one frame: only single pictures are kept")
    return image, _CHECKS[kind](data, image) if kind in _CHECKS else 8


def opened_deep_tiff(data: bytes, *, max_pixels: int) -> DeepTiff | None:
    """A TIFF that deep_tiff.py reads, and None for all others. Raises as open_foreign."""
    tiff = deep_tiff(data)
    if tiff is not None:
        check_single(data)
        check_size(tiff.width, tiff.height, max_pixels)
    return tiff


def _canvas_size(data: bytes, kind: str) -> tuple[int, int]:
    """(width, height) where Pillow allocates the canvas on opening; elsewhere (1, 1)."""
    if kind == "GIF":
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    chunk = data[12:16] if kind == "WEBP" else b""
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return 1, 1


def _open(data: bytes, kind: str) -> Any:
    """Pillow's reader of this format, past Image.open: no guessing, no warning about sizes that the caller allowed."""
    from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, TgaImagePlugin, TiffImagePlugin, WebPImagePlugin

    readers: dict[str, Any] = {
        "WEBP": WebPImagePlugin.WebPImageFile,
        "TIFF": TiffImagePlugin.TiffImageFile,
        "BMP": BmpImagePlugin.BmpImageFile,
        "GIF": GifImagePlugin.GifImageFile,
        "TGA": TgaImagePlugin.TgaImageFile,
        "JPEG": JpegImagePlugin.JpegImageFile,
    }
    return readers[kind](io.BytesIO(data))


#: fax.py looks at CCITT Group 4.
_LOSSLESS = LOSSLESS | {GROUP_4}
#: CCITT's older codes: what is missing or damaged libtiff leaves white, and does not say so.
_OLD_FAX = {2, 3}
_PHOTOMETRICS = {0: "white is zero", 1: "black is zero", 2: "RGB", 3: "palette"}


def _check_tiff(data: bytes, image: Any) -> int:
    """Depth of a TIFF whose tags show that Pillow gives all of every sample.

    Not so: 16-bit colour, cut to 8; 12 bits, scaled; float and signed; 16-bit white-is-zero, not inverted; CMYK, YCbCr,
    Lab; extra samples, dropped, and premultiplied alpha, divided; JPEG inside; strips that are not there, left black.
    """
    tags = image.tag_v2
    bits, formats, extra = (
        set(tags.get(tiff_tags.BITS, (1,))),
        set(tags.get(tiff_tags.FORMAT, (1,))),
        tuple(tags.get(tiff_tags.EXTRA, ())),
    )
    photometric, compression = tags.get(tiff_tags.PHOTOMETRIC, 0), tags.get(tiff_tags.COMPRESSION, 1)
    depth = bits.pop() if len(bits) == 1 else 0
    if photometric not in _PHOTOMETRICS:
        raise ImageError(f"TIFF with photometric interpretation {photometric}: only gray, RGB and palette are kept")
    if compression in _OLD_FAX:
        raise ImageError(f"TIFF with compression {compression} (CCITT before Group 4): damage to it would not be seen")
    if compression not in _LOSSLESS:
        raise ImageError(f"TIFF with compression {compression}, which is lossy or unknown")
    if formats != {1}:
        raise ImageError(f"TIFF with sample format {sorted(formats)}: only unsigned integers are kept")
    gray = photometric == 1 or (photometric == 0 and depth < 16)
    if depth not in (1, 2, 4, 8) and not (depth == 16 and gray and image.mode in ("I;16", "I;16B")):
        raise ImageError(
            f"TIFF with bits {tags.get(tiff_tags.BITS)}, {_PHOTOMETRICS[photometric]}: would be cut or scaled"
        )
    if extra not in ((), (2,)) or image.mode == "PA":
        raise ImageError(f"TIFF with extra samples {extra} in mode {image.mode}: only alpha of gray and RGB is kept")
    _check_strips(image)
    if photometric == 3 and any(entry & 255 not in (0, entry >> 8) for entry in tags.get(tiff_tags.COLORMAP, ())):
        raise ImageError("TIFF with a palette of 16 bits a sample: would be cut to 8")
    return int(depth)


def _check_strips(image: Any) -> None:
    """Pillow leaves pixels black that no strip covers."""
    covered = sum((x1 - x0) * (y1 - y0) for _, (x0, y0, x1, y1), _, _ in image.tile)
    planes = len(image.getbands()) if image.tag_v2.get(284, 1) == 2 and image.tile[0][0] != "libtiff" else 1
    width, height = image.size
    if covered != width * height * planes:
        raise ImageError(f"TIFF is truncated: strips cover {covered} of {width * height * planes} samples")


def _check_bmp(data: bytes, image: Any) -> int:
    """Depth of a BMP; refused: 16 bits a pixel, a fourth byte that Pillow drops, gray palettes that it misreads."""
    bits = struct.unpack_from("<H", data, 24 if data[14] == 12 else 28)[0]
    if bits not in (1, 4, 8, 24, 32):
        raise ImageError(f"BMP with {bits} bits a pixel: would be scaled")
    if (image.mode == "1" and bits != 1) or (image.mode == "L" and bits != 8):
        raise ImageError(f"BMP with {bits} bits a pixel and a gray palette is not read")
    _, (_, _, width, height), offset, args = image.tile[0]
    if bits == 32 and image.mode == "RGB":
        pixels = np.frombuffer(data, dtype=np.uint8, count=4 * width * height, offset=offset)
        unused = pixels[args[0].index("X") :: 4]
        if unused.min() != unused.max() or unused[0] not in (0, 255):
            raise ImageError("BMP with 32 bits a pixel uses the byte that its header calls unused")
    return int(bits) if bits < 8 else 8


def _check_tga(data: bytes, image: Any) -> int:
    """Depth 8; refused: 15 and 16 bits a colour, which Pillow scales, and palettes other than 24-bit."""
    kind, depth, map_depth = data[2] & 7, data[16], data[7]
    known = (kind, depth) in ((1, 8), (2, 24), (2, 32), (3, 8), (3, 16))
    if not known or (kind == 1 and (data[1], map_depth) != (1, 24)):
        raise ImageError(f"TGA of type {kind} with {depth} bits a pixel, palette of {map_depth}: would be scaled")
    return 8


def check_tga_footer(data: bytes) -> None:
    """Raises ImageError for a TGA with an extension or developer area: author, comment, date and others."""
    if len(data) > 26 and data.endswith(b"TRUEVISION-XFILE.\0") and any(data[-26:-18]):
        raise ImageError("TGA with an extension or developer area, which would be lost (strip leaves it out)")


def _check_gif(data: bytes, image: Any) -> int:
    """Depth 8; refused: a frame smaller than its canvas, which Pillow fills up."""
    extents = image.tile[0][1]
    if tuple(extents) != (0, 0, *image.size):
        raise ImageError(f"GIF whose frame {extents} does not cover its canvas {image.size}")
    return 8


_CHECKS = {"TIFF": _check_tiff, "BMP": _check_bmp, "TGA": _check_tga, "GIF": _check_gif}
