"""Pillow's images ↔ .pxz files: a plugin, which importing this module registers.

    import pixzip.pillow
    image = Image.open("photo.pxz")
    image.save("copy.pxz", model="fast")

Pillow (13) looks for no plugins by itself, so the import is what it takes.

Opening reads what stands before the pixels; loading decodes. info, mode and palette are what Pillow's own PNG plugin
makes of the PNG that `pixzip decompress` would write, because that plugin is asked. Saving writes the bytes that
pixzip.compress makes of the image.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from PIL import Image, ImageFile, ImageSequence, PngImagePlugin

from pixzip.errors import FormatError, PixzipError, UsageError
from pixzip.formats.image import MODES, Picture, to_pil, transparent_colour
from pixzip.formats.metadata import to_chunks
from pixzip.formats.png import SIGNATURE, chunk_bytes
from pixzip.limits import MAX_WORK
from pixzip.pxz.container import MAGIC, Front, Header, counted_pixels, read_container, read_front

FORMAT = "PXZ"
MIME = "image/x-pixzip"
#: Arguments of pixzip.compress_batch that save takes under their names.
_ARGUMENTS = (
    *("model", "names", "tile", "lanes", "learning", "threads", "engine"),
    *("embed_model", "max_pixels", "max_memory", "max_work", "progress"),
)
#: What save takes instead of the image's own info.
_PACKETS = ("icc_profile", "exif", "xmp", "dpi")


class PxzImageFile(ImageFile.ImageFile):
    """A .pxz file as Pillow has it. Of a file with several pictures each is a frame.

    Damage before the pixels is SyntaxError, so that Image.open says UnidentifiedImageError; damage found on loading,
    and a model that is not there, is OSError. Colour of 16 bits a sample, which Pillow has no mode for, is OSError too.
    """

    format = FORMAT
    format_description = "pixzip lossless image"
    _close_exclusive_fp_after_loading = False

    #: A model to try before the one in the file and the shipped ones; to be set before loading.
    model: str | Path | None = None
    #: The most multiply-accumulates that decoding may take, as in pixzip.decompress; to be set before loading.
    max_work: int = MAX_WORK
    #: All metadata as the file has it, (key, value) in order: pixzip/formats/metadata.py says which.
    metadata: tuple[tuple[str, bytes], ...]

    def _open(self) -> None:
        assert self.fp is not None
        try:
            front = read_front(self.fp)
        except FormatError as error:
            raise SyntaxError(str(error)) from error
        header = front.header
        if header.depth == 16 and header.mode != "L":
            raise OSError(f"Pillow has no mode for {header.mode} with 16 bits a sample: pixzip.decompress gives it")
        _check_bomb(header)
        described = PngImagePlugin.PngImageFile(io.BytesIO(_description(front)))
        self._mode, self._size, self.palette = described.mode, described.size, described.palette
        self.info = described.info
        if front.transparency and header.mode != "P":
            self.info["transparency"] = transparent_colour(front.transparency, header.mode, header.depth)
        self.metadata = front.metadata
        self.n_frames = header.pictures
        self.is_animated = self.n_frames > 1
        self._pictures: list[Picture] = []
        self._frame, self._loaded_frame = 0, -1

    def tell(self) -> int:
        """The number of the current frame."""
        return self._frame

    def seek(self, frame: int) -> None:
        """Make this frame the current one. Raises EOFError beyond the last."""
        if self._seek_check(frame):
            self._frame = frame

    def load(self) -> Any:
        """Decode, once for all frames. Raises OSError."""
        if self._loaded_frame != self._frame:
            image = to_pil(self._decoded()[self._frame])
            if self.fp is not None and self._exclusive_fp:
                self.fp.close()
            self.fp = io.BytesIO(image.tobytes())
            self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.mode)]
            self._loaded_frame = self._frame
            if not self.is_animated:
                self._pictures.clear()
        return super().load()

    def load_seek(self, pos: int) -> None:
        """Pillow must not map the file into memory: what it reads are decoded samples."""

    def verify(self) -> None:
        """Compare all chunks with their checksums; nothing is decoded. Raises SyntaxError, as for PNG."""
        try:
            read_container(self._data(), max_pixels=2**93)
        except PixzipError as error:
            raise SyntaxError(str(error)) from error
        super().verify()

    def _decoded(self) -> Sequence[Picture]:
        if not self._pictures:
            from pixzip.api import decompress_batch  # loads numba

            try:
                # Pillow's own limit was asked on opening.
                self._pictures = decompress_batch(
                    self._data(), model=self.model, max_pixels=2**93, max_work=self.max_work
                )
            except PixzipError as error:
                raise OSError(str(error)) from error
        return self._pictures

    def _data(self) -> bytes:
        """The whole file."""
        if self.fp is None:
            raise ValueError("Operation on closed image")
        self.fp.seek(0)
        return self.fp.read()


def _check_bomb(header: Header) -> None:
    """Pillow's limit, which it only compares with one frame, for all of them: they are decoded together."""
    pixels = counted_pixels(header.pictures, header.height, header.width)
    if header.pictures > 1 and Image.MAX_IMAGE_PIXELS is not None and pixels > 2 * Image.MAX_IMAGE_PIXELS:
        limit = f"over the limit of {2 * Image.MAX_IMAGE_PIXELS}"
        raise Image.DecompressionBombError(f"{header.pictures} pictures count as {pixels} pixels, {limit}")


def _description(front: Front) -> bytes:
    """The PNG of these pictures, without pixels."""
    header = front.header
    ihdr = struct.pack(">IIBBBBB", header.width, header.height, header.depth, MODES[header.mode][1], 0, 0, 0)
    chunks = [("IHDR", ihdr), *(chunk for chunk in to_chunks(front.metadata) if chunk[0] != "PLTE")]
    chunks += [("PLTE", front.palette)] if front.palette else []
    chunks += [("tRNS", front.transparency)] if front.transparency else []
    chunks += [("IDAT", b""), ("IEND", b"")]
    return SIGNATURE + b"".join(chunk_bytes(kind, payload) for kind, payload in chunks)


# ------------------------------------------------------------------------ saving


def _save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    fp.write(_coded([image], image.encoderinfo))


def _save_all(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """All frames, and those of append_images."""
    images = [image, *image.encoderinfo.get("append_images", ())]
    frames = [frame.copy() for each in images for frame in ImageSequence.Iterator(each)]
    fp.write(_coded(frames, image.encoderinfo))


def _coded(images: Sequence[Image.Image], options: dict[str, Any]) -> bytes:
    """The .pxz file of images, by save's options; others than those of pixzip are ignored, as Pillow does.

    Raises ValueError for what the caller got wrong, OSError for what cannot be kept, as Pillow does.
    """
    from pixzip.api import compress_batch  # loads numba

    given = {name: options[name] for name in _PACKETS if name in options}
    arguments = {name: options[name] for name in _ARGUMENTS if name in options}
    try:
        return compress_batch([_with_packets(image, given) for image in images], **arguments)
    except UsageError as error:
        raise ValueError(str(error)) from error
    except PixzipError as error:
        raise OSError(str(error)) from error


def _with_packets(image: Image.Image, given: dict[str, Any]) -> Image.Image:
    """The image, or a copy with these in its info."""
    if not given:
        return image
    changed = image.copy()
    for name, value in given.items():
        changed.info[name] = value.tobytes() if isinstance(value, Image.Exif) else value
    return changed


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


Image.register_open(FORMAT, PxzImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_save_all(FORMAT, _save_all)
Image.register_extension(FORMAT, ".pxz")
Image.register_mime(FORMAT, MIME)
