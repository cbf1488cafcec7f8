"""Image file bytes ↔ Picture: exact samples, mode, depth, palette, transparency and metadata.

PNG and PNM are read by readers of our own. Other formats are decoded by Pillow once foreign.py has seen in the file's
header that nothing will be lost. What cannot be kept whole is refused with the reason.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from pixzip.errors import ImageError, LimitError
from pixzip.formats import metadata as meta
from pixzip.formats import segments, tiff_tags
from pixzip.formats.deep_tiff import read_deep_tiff
from pixzip.formats.directories import read_directories
from pixzip.formats.fax import GROUP_4, check_whole
from pixzip.formats.foreign import check_tga_footer, format_of, open_foreign, opened_deep_tiff
from pixzip.formats.png import (
    GRAY,
    GRAY_ALPHA,
    PALETTE,
    RGB,
    RGB_ALPHA,
    SIGNATURE,
    Png,
    check_size,
    read_header,
    read_png,
    write_png,
)
from pixzip.formats.pnm import is_pnm, pnm_shape, read_pnm, write_pnm
from pixzip.formats.strips import check_strips
from pixzip.formats.tiff import tiff_metadata, write_tiff
from pixzip.limits import MAX_PIXELS

#: Mode → (channels, PNG colour type, depths).
MODES: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "L": (1, GRAY, (1, 2, 4, 8, 16)),
    "LA": (2, GRAY_ALPHA, (8, 16)),
    "RGB": (3, RGB, (8, 16)),
    "RGBA": (4, RGB_ALPHA, (8, 16)),
    "P": (1, PALETTE, (1, 2, 4, 8)),
}
_MODE_OF_COLOUR = {colour: mode for mode, (_, colour, _) in MODES.items()}
_MODE_OF_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}

#: What Pillow raises on damaged files (and on warnings, where the caller made them errors).
_PILLOW_ERRORS = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, AttributeError, ArithmeticError, LookupError),
    *(RuntimeError, AssertionError, MemoryError, Warning, struct.error, Image.DecompressionBombError),
)
#: WebP's largest side.
WEBP_SIDE_PX = 16383


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture, as its file has it. Raises ImageError when its parts do not fit together."""

    planes: NDArray[Any]  # (c, h, w), uint8 for depths up to 8, uint16 for 16; samples 0 .. 2**depth - 1
    mode: str  # "L", "LA", "RGB", "RGBA", "P"; bilevel is L with depth 1
    depth: int  # bits a sample: 1, 2, 4, 8, 16
    palette: bytes = b""  # mode P: RGB triples, as many as the file has
    transparency: bytes = b""  # tRNS of PNG: P alpha of palette entries; L, RGB the transparent colour
    metadata: tuple[tuple[str, bytes], ...] = ()  # (key, value) in order, see metadata.py

    def __post_init__(self) -> None:
        if self.mode not in MODES or self.depth not in MODES[self.mode][2]:
            raise ImageError(f"no picture has mode {self.mode} with depth {self.depth}")
        dtype = np.uint16 if self.depth == 16 else np.uint8
        if self.planes.ndim != 3 or self.planes.shape[0] != MODES[self.mode][0] or self.planes.dtype != dtype:
            planes = f"planes {self.planes.shape} of {self.planes.dtype}"
            raise ImageError(f"{planes} in a picture of mode {self.mode}, depth {self.depth}")
        if not self.planes.size:
            raise ImageError(f"picture of {self.planes.shape[2]} x {self.planes.shape[1]} pixels")
        if self.depth < 8 and self.planes.max() >= 2**self.depth:
            raise ImageError(f"sample {self.planes.max()} in a picture of depth {self.depth}")
        entries, rest = divmod(len(self.palette), 3)
        if rest or (self.mode == "P") != (1 <= entries <= 256):
            raise ImageError(f"palette of {len(self.palette)} bytes in mode {self.mode}")
        key_bytes = {"L": (0, 2), "RGB": (0, 6), "P": range(entries + 1)}.get(self.mode, (0,))
        if len(self.transparency) not in key_bytes:
            raise ImageError(f"transparency of {len(self.transparency)} bytes in mode {self.mode}")

    @property
    def width(self) -> int:
        return int(self.planes.shape[2])

    @property
    def height(self) -> int:
        return int(self.planes.shape[1])

    def same_pixels(self, other: Picture) -> bool:
        """Equal in everything but metadata."""
        parts = (self.mode, self.depth, self.palette, self.transparency)
        others = (other.mode, other.depth, other.palette, other.transparency)
        return parts == others and np.array_equal(self.planes, other.planes)


# ------------------------------------------------------------------------ reading


def read_image(data: bytes, *, max_pixels: int = MAX_PIXELS, allow_jpeg: bool = False, strip: bool = False) -> Picture:
    """The picture in an image file's bytes.

    allow_jpeg takes a JPEG's pixels as they decode, strip leaves the metadata out. Raises ImageError for what is
    damaged, no image, animated, of several pages, or of a kind that cannot be kept without loss; LimitError beyond
    max_pixels, before decoding.
    """
    picture = _read(data, max_pixels, allow_jpeg, strip)
    return replace(picture, metadata=()) if strip else picture


def _read(data: bytes, max_pixels: int, allow_jpeg: bool, strip: bool) -> Picture:
    if data.startswith(SIGNATURE):
        return _from_png(read_png(data, max_pixels=max_pixels))
    if is_pnm(data):
        planes, depth = read_pnm(data, max_pixels=max_pixels)
        return Picture(planes, _MODE_OF_CHANNELS[planes.shape[0]], depth)
    kind = format_of(data)
    if kind == "JPEG" and not allow_jpeg:
        raise ImageError("JPEG is lossy already: kept without loss it would only grow (allowed on request)")
    with _pillow_errors(kind):
        if kind == "TIFF" and (tiff := opened_deep_tiff(data, max_pixels=max_pixels)):
            entries = () if strip else tiff_metadata(data)
            return Picture(read_deep_tiff(tiff), _MODE_OF_CHANNELS[tiff.channels], 16, metadata=entries)
        image, depth = open_foreign(data, kind, max_pixels=max_pixels)
        entries = () if strip else _metadata(data, image, kind)
        is_fax = kind == "TIFF" and image.tag_v2.get(tiff_tags.COMPRESSION) == GROUP_4
        if kind == "TIFF":
            check_strips(data, read_directories(data))
        image.load()
        if is_fax:
            check_whole(data, image)
        picture = _from_pillow(image, depth, entries)
    return _fit_depth(picture) if kind == "GIF" else picture


def claimed_shape(data: bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int, int, int]:
    """(planes, height, width, depth) by an image file's header; nothing is decoded.

    Raises ImageError for what is no image, or damaged where a header shows it; LimitError beyond max_pixels.
    """
    if data.startswith(SIGNATURE):
        header = read_header(data)
        shape = header.channels, header.height, header.width, header.depth
    elif is_pnm(data):
        shape = pnm_shape(data)
    else:
        kind = format_of(data)
        with _pillow_errors(kind):
            if kind == "TIFF" and (tiff := opened_deep_tiff(data, max_pixels=max_pixels)):
                return tiff.channels, tiff.height, tiff.width, 16
            image, depth = open_foreign(data, kind, max_pixels=max_pixels)
            shape = len(image.getbands()), image.height, image.width, depth
    check_size(shape[2], shape[1], max_pixels)
    return shape


@contextmanager
def _pillow_errors(kind: str) -> Iterator[None]:
    """Whatever Pillow raises on a file of this format as an error of ours."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise LimitError(f"{kind} file beyond a limit: {_one_line(error)}") from None
    except _PILLOW_ERRORS as error:
        raise ImageError(f"{kind} file is damaged or of an unknown kind: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _from_png(png: Png) -> Picture:
    entries = [meta.from_chunk(kind, payload) for kind, payload in png.chunks]
    if png.trailer:
        entries.append(("trailer", png.trailer))
    mode = _MODE_OF_COLOUR[png.colour]
    return Picture(png.samples, mode, png.depth, png.palette, png.transparency, tuple(entries))


def _fit_depth(picture: Picture) -> Picture:
    """Least depth that holds a GIF's palette and indices; GIF knows depths that PNG does not."""
    if picture.mode != "P":
        return picture
    most = max(len(picture.palette) // 3 - 1, int(picture.planes.max()))
    return replace(picture, depth=next(depth for depth in (1, 2, 4, 8) if most < 2**depth))


# ------------------------------------------------------------------------ Pillow's images


def from_pil(image: Image.Image) -> Picture:
    """A picture of a Pillow image (of its current frame), with its ICC profile, EXIF, XMP and resolution.

    Pillow has already cut a 16-bit colour PNG or TIFF to 8 bits: where that can still be seen it is refused; give the
    file's bytes to read_image instead. Raises ImageError for modes that are not kept.
    """
    rawmodes = [tile[3] if isinstance(tile[3], str) else (tile[3] or ("",))[0] for tile in getattr(image, "tile", ())]
    if image.mode in ("L", "LA", "RGB", "RGBA") and any(";16" in str(rawmode) for rawmode in rawmodes):
        raise ImageError(f"Pillow cuts this {image.format} with 16 bits a sample to 8: pass the file's bytes")
    try:
        image.load()
        return _from_pillow(image, 1 if image.mode == "1" else 8, _pillow_metadata(image, ""))
    except _PILLOW_ERRORS as error:
        raise ImageError(f"image cannot be loaded: {_one_line(error)}") from None


def _from_pillow(image: Image.Image, depth: int, entries: meta.Metadata) -> Picture:
    """A loaded image with samples of so many bits; mode P has a palette, of which alpha becomes transparency."""
    if 0 in image.size:
        raise ImageError(f"picture of {image.width} x {image.height} pixels")
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N"):
        samples = np.asarray(image).astype(np.uint16)
        return Picture(samples[None], "L", 16, b"", _colour_key(image, "L"), entries)
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        raise ImageError(f"mode {image.mode} cannot be kept: only 1, L, LA, P, RGB, RGBA and I;16")
    pixels = np.asarray(image).astype(np.uint8)  # (h, w) or (h, w, c)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1)) if pixels.ndim == 3 else pixels[None]
    mode = "L" if image.mode == "1" else image.mode
    if mode == "L" and image.mode != "1" and depth < 8:
        planes = planes // np.uint8(255 // (2**depth - 1))  # Pillow spreads 2 and 4 bits over 0..255
    if mode != "P":
        return Picture(planes, mode, depth, b"", _colour_key(image, mode), entries)
    palette, transparency = _pillow_palette(image, int(planes.max()))
    return Picture(planes, mode, depth, palette, transparency, entries)


def _pillow_palette(image: Image.Image, largest: int) -> tuple[bytes, bytes]:
    """(RGB triples, alpha of the first entries) of an image of mode P, black where pixels have indices beyond it."""
    if image.palette is None:
        raise ImageError("image of mode P without a palette")
    palette = bytes(image.getpalette("RGB") or ())
    entries = len(palette) // 3
    if not 1 <= entries <= 256:
        raise ImageError(f"palette of {entries} entries")
    palette, entries = palette.ljust(3 * largest + 3, b"\0"), max(entries, largest + 1)
    alpha = image.info.get("transparency", b"")
    if image.palette.mode == "RGBA":
        alpha = bytes(image.getpalette("RGBA") or ())[3::4]
    elif isinstance(alpha, int):
        alpha = b"\xff" * alpha + b"\0"
    return palette, bytes(alpha)[:entries]


def _colour_key(image: Image.Image, mode: str) -> bytes:
    """tRNS for the colour that info calls transparent."""
    key = image.info.get("transparency")
    if key is None or mode not in ("L", "RGB"):
        return b""
    samples = (key,) if isinstance(key, int) else tuple(key)
    if image.mode == "1":
        samples = tuple(int(bool(sample)) for sample in samples)  # Pillow says 255 for 1
    if len(samples) != MODES[mode][0] or not all(isinstance(s, int) and 0 <= s <= 65535 for s in samples):
        raise ImageError(f"transparency {key!r} in an image of mode {image.mode}")
    return struct.pack(f">{len(samples)}H", *samples)


def _metadata(data: bytes, image: Any, kind: str) -> meta.Metadata:
    """What a file says about its picture, by Pillow and by readers of our own."""
    if kind == "TIFF":
        return tiff_metadata(data)
    if kind == "TGA":
        check_tga_footer(data)
    return _pillow_metadata(image, kind) + segments.metadata_of(data, kind)


def _pillow_metadata(image: Any, kind: str) -> meta.Metadata:
    """ICC, EXIF, XMP and resolution that Pillow found, and the text before a TGA's pixels; kind "" is any image."""
    packets = {"icc": image.info.get("icc_profile"), "exif": image.info.get("exif"), "xmp": image.info.get("xmp")}
    if not kind and image.format == "TIFF":
        exif = image.getexif()
        packets["exif"] = exif.tobytes() if len(exif) else b""
    if kind == "TGA":
        packets["comment"] = image.info.get("id_section")
    as_bytes = {key: value.encode() if isinstance(value, str) else value for key, value in packets.items() if value}
    kept = tuple((key, v.removeprefix(b"Exif\0\0")) for key, v in as_bytes.items() if isinstance(v, bytes))
    return kept + _pillow_resolution(image, kind)


def _pillow_resolution(image: Any, kind: str) -> meta.Metadata:
    """Resolution; a JPEG's is that of its JFIF header, as Pillow makes up one where an EXIF block has none."""
    unit = image.info.get("jfif_unit") if kind == "JPEG" else 1
    if unit == 0:
        x, y = image.info["jfif_density"]
        return (meta.resolution_entry(Fraction(x), Fraction(y), "none"),) if x != y and x and y else ()
    phys = meta.phys_entry(image.info["dpi"]) if unit and "dpi" in image.info else None
    return (phys,) if phys else ()


def to_pil(picture: Picture) -> Image.Image:
    """A Pillow image of mode 1, L, LA, P, RGB, RGBA or I;16; L of depth 2 and 4 spread over 0..255, as Pillow has it.

    Raises ImageError for 16-bit LA, RGB and RGBA: Pillow has no mode for them.
    """
    if picture.depth == 16 and picture.mode != "L":
        raise ImageError(f"Pillow has no image of mode {picture.mode} with 16 bits a sample")
    scale = 255 // (2**picture.depth - 1) if picture.mode == "L" and picture.depth in (2, 4) else 1
    pixels = np.ascontiguousarray(picture.planes.transpose(1, 2, 0)) * picture.planes.dtype.type(scale)
    if len(picture.planes) == 1:
        pixels = pixels[:, :, 0]
    if picture.mode == "P":
        image = Image.frombytes("P", (picture.width, picture.height), pixels.tobytes())
        image.putpalette(picture.palette)
    else:
        image = Image.fromarray(pixels.astype(bool) if picture.depth == 1 else pixels)
    packets = {**_packets(picture.metadata), "dpi": meta.dots_per_inch(picture.metadata)}
    image.info.update({key: value for key, value in packets.items() if value})
    if picture.mode == "P" and picture.transparency:
        image.info["transparency"] = picture.transparency
    elif picture.transparency:
        image.info["transparency"] = transparent_colour(picture.transparency, picture.mode, picture.depth)
    return image


def transparent_colour(transparency: bytes, mode: str, depth: int) -> int | tuple[int, ...]:
    """The colour that tRNS makes transparent in mode L or RGB, in the samples that a Pillow image has."""
    samples = struct.unpack(f">{len(transparency) // 2}H", transparency)
    if mode == "RGB":
        return samples
    return int(samples[0]) * (255 // (2**depth - 1) if depth < 8 else 1)


def _packets(metadata: meta.Metadata) -> dict[str, bytes]:
    """Pillow's words for the packets that are there."""
    found = {
        "icc_profile": meta.icc_profile(metadata),
        "exif": meta.exif_packet(metadata),
        "xmp": meta.xmp_packet(metadata),
    }
    return {name: packet for name, packet in found.items() if packet}


# ------------------------------------------------------------------------ arrays


def from_array(array: ArrayLike) -> Picture:
    """A picture of (h, w) or (h, w, 2 | 3 | 4) samples: uint8, uint16 of any byte order, or (h, w) bool for bilevel.

    Raises ImageError for other shapes and types.
    """
    pixels = np.asarray(array)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (2, 3, 4)):
        raise ImageError(f"array of shape {pixels.shape}: must be (h, w) or (h, w, 2 | 3 | 4)")
    bits = {"b": 1, "u": 8 * pixels.dtype.itemsize}.get(pixels.dtype.kind, 0)
    if bits not in (1, 8, 16) or (bits == 1 and pixels.ndim == 3):
        raise ImageError(f"array of {pixels.dtype}, shape {pixels.shape}: must be uint8, uint16 or, for (h, w), bool")
    planes = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[None]
    copy = np.array(planes, dtype=np.uint16 if bits == 16 else np.uint8, order="C")
    return Picture(copy, _MODE_OF_CHANNELS[len(copy)], bits)


def to_array(picture: Picture) -> NDArray[Any]:
    """(h, w) or (h, w, channels) samples as they are: uint8 or uint16, bool for bilevel; of mode P the indices."""
    pixels = np.array(picture.planes.transpose(1, 2, 0), order="C")
    if len(picture.planes) > 1:
        return pixels
    return pixels[:, :, 0].astype(bool if picture.mode == "L" and picture.depth == 1 else pixels.dtype)


# ------------------------------------------------------------------------ writing


#: Format → (mode, depth) that it holds exactly. WebP has no gray: L and LA become equal red, green and blue.
_HOLDS = {
    "WEBP": {("L", 8), ("LA", 8), ("RGB", 8), ("RGBA", 8)},
    "TIFF": {
        *(("L", 1), ("L", 2), ("L", 4), ("L", 8), ("L", 16), ("LA", 8), ("RGB", 8), ("RGBA", 8)),
        *(("LA", 16), ("RGB", 16), ("RGBA", 16), ("P", 1), ("P", 2), ("P", 4), ("P", 8)),
    },
    "BMP": {("L", 1), ("L", 8), ("P", 8), ("RGB", 8)},
    "PPM": {("L", 1), ("L", 2), ("L", 4), ("L", 8), ("L", 16), ("RGB", 8), ("RGB", 16)},
}


def write_image(picture: Picture, format: str) -> bytes:
    """The picture as a file of format "PNG", "WEBP", "TIFF", "BMP" or "PPM", no sample changed.

    PNG holds every picture and its metadata; WebP and TIFF take ICC, EXIF and XMP; TIFF and BMP take resolution, and
    palettes filled up with black. Raises ImageError where the format cannot hold the samples.
    """
    if format == "PNG":
        return write_png(_to_png(picture))
    _check_holds(picture, format)
    try:
        return _write_other(picture, format)
    except _PILLOW_ERRORS as error:
        raise ImageError(f"{format} cannot be written: {_one_line(error)}") from None


def _write_other(picture: Picture, format: str) -> bytes:
    if format == "PPM":
        return write_pnm(picture.planes, picture.depth)
    if format == "TIFF":
        return write_tiff(picture.planes, picture.mode, picture.depth, picture.palette, picture.metadata)
    options: dict[str, Any] = {"lossless": True, "exact": True, "quality": 75, "method": 4}
    options |= _packets(picture.metadata)
    if format == "BMP":
        dpi = meta.dots_per_inch(picture.metadata)
        options = {"dpi": dpi} if dpi else {}
    image = to_pil(_as_colour(picture) if format == "WEBP" else picture)
    if picture.mode == "P":
        image.putpalette(picture.palette.ljust(768, b"\0"))
    image.info.clear()
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def _to_png(picture: Picture) -> Png:
    chunks = meta.to_chunks(picture.metadata)
    lengths = [len(payload) for kind, payload in chunks if kind == "PLTE"]
    is_whole = len(lengths) == 1 and 3 <= lengths[0] <= 768 and lengths[0] % 3 == 0
    if picture.mode not in ("RGB", "RGBA") or not is_whole:  # with another PLTE, or two, the PNG would be damaged
        chunks = tuple(chunk for chunk in chunks if chunk[0] != "PLTE")
    trailer = b"".join(value for key, value in picture.metadata if key == "trailer")
    colour = MODES[picture.mode][1]
    return Png(picture.planes, colour, picture.depth, picture.palette, picture.transparency, chunks, trailer=trailer)


def _check_holds(picture: Picture, format: str) -> None:
    if format not in _HOLDS:
        raise ImageError(f"{format} is not written: only PNG, {', '.join(_HOLDS)}")
    if (picture.mode, picture.depth) not in _HOLDS[format]:
        raise ImageError(f"{format} cannot hold mode {picture.mode} with {picture.depth} bits a sample; PNG can")
    if picture.transparency:
        raise ImageError(f"{format} cannot hold a transparent colour in mode {picture.mode}; PNG can")
    if format == "WEBP" and max(picture.width, picture.height) > WEBP_SIDE_PX:
        raise ImageError(f"WEBP cannot hold {picture.width} x {picture.height} pixels: a side is over {WEBP_SIDE_PX}")


def _as_colour(picture: Picture) -> Picture:
    """L and LA as RGB and RGBA."""
    if picture.mode not in ("L", "LA"):
        return picture
    planes = np.concatenate([picture.planes[:1]] * 2 + [picture.planes])
    return Picture(planes, _MODE_OF_CHANNELS[len(planes)], picture.depth)
