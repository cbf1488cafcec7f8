"""A .pxz or model file and a random number → another file: what bench/fuzz.py feeds to the decoders.

Rough mutations break something, mostly with the checksums put right, so that what is behind them is reached. Fine ones
take a good file apart and make another good one of it: other pixels, sizes, modes, layouts, models, metadata, palettes,
PNG files inside, tiles of other places, of other files or without words. In the end the pixels checksum is mostly that
of the pixels that come out, so that a file is refused for what is wrong with it and not for having been touched.
"""

from __future__ import annotations

import hashlib
import random
import re
import string
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pixzip import contents
from pixzip.coding.stored import write_webp
from pixzip.errors import ModelError, PixzipError
from pixzip.formats import png as png_module
from pixzip.formats.image import MODES, Picture
from pixzip.formats.png import COLOURS, Header, Png, chunk_bytes, pack_rows, read_png
from pixzip.model.file import Model, load_model
from pixzip.pxz import container
from pixzip.pxz.container import MAGIC, PNG, WEBP, Coding, Container, read_container, write_container
from pixzip.pxz.names import pack_names

#: Most pixels of a file that is decoded here, and of one that is made.
MOST_PIXELS, _MOST_MADE = 1024, 160
_FINE = 0.65
_HEAD = "<IIIBBBBHB8s16s"
HOW = contents.How(1, "float32", None)

_Chunks = list[tuple[bytes, bytes]]
#: Bytes and the most bytes → other bytes: what libFuzzer does to what it knows nothing of.
Blind = Callable[[bytes, int], bytes]


def blind(data: bytes, most: int) -> bytes:
    """In the place of libFuzzer: bytes changed, put in, cut out."""
    chance = random.Random(data)
    changed = bytearray(data or b"\0")
    for _ in range(chance.randrange(1, 4)):
        at, how = chance.randrange(len(changed) + 1), chance.randrange(6)
        if how == 0:
            changed[at:at] = chance.randbytes(chance.randrange(1, 5))
        elif how == 1 and len(changed) > 1:
            del changed[at : at + chance.randrange(1, 5)]
        elif at < len(changed):
            changed[at] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
    return bytes(changed[:most])


@dataclass(frozen=True)
class Means:
    """What mutations draw on: good files to splice with, models by digest, and a mutator that knows no structure.

    Readers know the first model; files of the others embed them.
    """

    seeds: Sequence[bytes]
    models: Sequence[Model]
    blind: Blind = blind

    def model_of(self, c: Container) -> Model | None:
        """The model that a file of coding MODEL names, if it is known and good."""
        if c.model is not None:
            return load_model(c.model, "embedded")
        return next((model for model in self.models if model.digest.startswith(c.header.model_digest)), None)


def mutate(data: bytes, most: int, seed: int, means: Means) -> tuple[str, bytes]:
    """(name of the mutation, another file of at most so many bytes); the same arguments give the same file."""
    chance = random.Random(seed)
    if not data.startswith(MAGIC):
        return "model", mutated_model(data, most, chance, means.blind)
    if chance.random() < _FINE:
        name, made = _finely(data, chance, means)
        if made is not None and len(made) <= most:
            return name, made
    return "rough", _roughly(data, most, chance, means)


# ------------------------------------------------------------------------ fine


def samples_of(c: Container, means: Means) -> NDArray[Any] | None:
    """The planes (n, c, h, w) that a file holds, whatever its checksum says; None where it holds none."""
    h = c.header
    if h.width * h.height * h.pictures > MOST_PIXELS:
        return None
    try:
        if h.coding == Coding.STORED:
            return contents.from_stored(c, HOW)
        model = means.model_of(c)
        return None if model is None else contents.from_coded(c, model, HOW)
    except PixzipError:
        return None


def signed(c: Container, planes: NDArray[Any] | None) -> Container:
    """The file with the checksum of the pixels that come out of it, if any do."""
    if planes is None:
        return c
    checksum = container.checksum(planes, c.header.mode, c.header.depth, c.palette, c.transparency)
    return replace(c, header=replace(c.header, pixels_checksum=checksum))


def _finely(data: bytes, chance: random.Random, means: Means) -> tuple[str, bytes | None]:
    """One to three fine mutations of a good file, the pixels checksum put right; None where they do not fit it.

    What was coded anew and not changed thereafter must be decoded under the checksum that it got when it was coded:
    raises AssertionError where it is not.
    """
    names, coded = [], False
    try:
        c = read_container(data, max_pixels=MOST_PIXELS)
        for _ in range(chance.choice((1, 1, 2, 3))):
            change = chance.choice(FINE)
            names.append(change.__name__.strip("_"))
            before, c = c, change(c, chance, means)
            coded = (coded and change in _KEEPING) or (change in _CODING and c is not before)
        planes = samples_of(c, means)
        again = signed(c, planes)
    except PixzipError:
        return "", None
    if coded and (planes is None or again != c):
        raise AssertionError(f"what was coded is not decoded: {write_container(c).hex()}")
    made = write_container(again)
    if chance.random() < 0.2:
        made = _with_unknown_chunk(made, chance)
    return names[-1], made


def _recoded(c: Container, chance: random.Random, means: Means) -> Container:
    """Other pixels, coded anew: stored, or by any model in any layout."""
    planes = samples_of(c, means)
    return c if planes is None else _coded(_changed(planes, c.header.depth, chance), c, chance, means)


def _other_mode(c: Container, chance: random.Random, means: Means) -> Container:
    """The samples as those of another mode and depth."""
    planes = samples_of(c, means)
    if planes is None:
        return c
    mode = chance.choice(list(MODES))
    depth = chance.choice(MODES[mode][2])
    picked = planes[:, np.arange(MODES[mode][0]) % planes.shape[1]].astype(np.uint16) & np.uint16(2**depth - 1)
    palette = chance.randbytes(3 * chance.randint(1, 2**depth)) if mode == "P" else b""
    header = replace(c.header, mode=mode, depth=depth, coding=Coding.STORED, model_digest=bytes(8), learning=0)
    parts: dict[str, Any] = {"palette": palette, "transparency": b"", "alpha": None, "model": None, "tiles": ()}
    bare = replace(c, header=header, stored=(PNG, b"?"), **parts)
    return _coded(picked.astype(np.uint16 if depth == 16 else np.uint8), bare, chance, means)


def _coded(planes: NDArray[Any], c: Container, chance: random.Random, means: Means) -> Container:
    """A file of these planes with the colours and the metadata of another."""
    mode, depth, n = c.header.mode, c.header.depth, len(planes)
    picture = Picture(planes[0], mode, depth, c.palette, c.transparency, c.metadata)
    if depth not in (8, 16) or mode not in contents.MODEL_PLANES or chance.random() < 0.3:
        return contents.as_stored(picture, planes, HOW)
    side = max(planes.shape[2:])
    tile = chance.randint(side, side + 3) if n > 1 else chance.randint(max(1, side // 4), side + 3)
    layout = contents.Layout(tile, chance.choice((1, 2, 3, 5, 64)), chance.choice((0, 0, 1, 8, 255)))
    model = chance.choice(means.models)
    if chance.random() < 0.2:
        model = _changed_model(model, chance)
    layout = layout if model.network.learns else layout._replace(learning=0)
    coded = contents.as_coded(picture, planes, model, layout, HOW)
    known = model is means.models[0]
    return coded if known and chance.random() < 0.8 else replace(coded, model=model.data)


def _changed_model(model: Model, chance: random.Random) -> Model:
    """A model with one byte of its arrays changed, if it is one that can be loaded."""
    data = bytearray(model.data)
    start = 8 + int.from_bytes(data[:8], "little")
    data[chance.randrange(start, len(data))] ^= 1 << chance.randrange(8)
    try:
        return load_model(bytes(data), "changed")
    except ModelError:
        return model


def _changed(planes: NDArray[Any], depth: int, chance: random.Random) -> NDArray[Any]:
    """Planes (n, c, h, w) of another size, number or content."""
    h, w = planes.shape[2:]
    how = chance.randrange(6)
    if how == 0:
        planes = planes[:, :, : chance.randint(1, h), : chance.randint(1, w)]
    elif how == 1:
        planes = np.tile(planes, (1, 1, chance.randint(1, 3), chance.randint(1, 3)))
    elif how == 2:
        planes = np.concatenate([planes] * 3)[: chance.randint(1, 4)]
    elif how == 3:
        planes = np.full_like(planes, chance.choice((0, 2**depth - 1, chance.randrange(2**depth))))
    elif how == 4:
        planes = planes.swapaxes(2, 3)
    planes = np.array(planes[:, :, :20, :20], order="C")
    planes = planes[: max(1, _MOST_MADE // planes[0, 0].size)]
    for _ in range(chance.randrange(4)):
        planes.flat[chance.randrange(planes.size)] = chance.choice((0, 2**depth - 1, chance.randrange(2**depth)))
    return planes


def _metadata(c: Container, chance: random.Random, means: Means) -> Container:
    """An entry more, fewer, twice, moved, with another key or another value."""
    entries = list(c.metadata)
    how = chance.randrange(5)
    if how == 0 or not entries:
        key = chance.choice((*_KEYS, "".join(chance.choices(string.ascii_letters + "!~-", k=chance.randint(1, 64)))))
        value = chance.randbytes(chance.choice((0, 1, 9, 40)))
        if key == "names":
            value = pack_names([f"{i}.png" for i in range(c.header.pictures + chance.choice((0, 0, 0, 1)))])
        entries.insert(chance.randint(0, len(entries)), (key, value))
    elif how == 1:
        del entries[chance.randrange(len(entries))]
    elif how == 2:
        entries.append(chance.choice(entries))
    elif how == 3:
        chance.shuffle(entries)
    else:
        i = chance.randrange(len(entries))
        entries[i] = entries[i][0], means.blind(entries[i][1], len(entries[i][1]) + 16)
    return replace(c, metadata=tuple(entries))


_KEYS = ("icc", "exif", "xmp", "resolution", "comment", "trailer", "names", "gama", "chrm", "phys", "text", "ztxt")
_KEYS += ("itxt", "iccp", "plte", "vpAg", "IDAT", "tRNS", "acTL")


def _colours(c: Container, chance: random.Random, means: Means) -> Container:
    """Another palette, another transparent colour, of a length that the mode has."""
    lengths = {"L": (0, 2), "RGB": (0, 6), "P": range(20)}.get(c.header.mode, (0,))
    transparency = chance.randbytes(chance.choice(list(lengths)))
    palette = c.palette
    if c.header.mode == "P":
        palette = chance.choice((palette, chance.randbytes(3 * chance.randint(1, 256))))
    return replace(c, palette=palette, transparency=transparency)


def _spliced(c: Container, chance: random.Random, means: Means) -> Container:
    """What stands before the pixels from another file, or one of its tiles."""
    other = read_container(chance.choice(means.seeds), max_pixels=MOST_PIXELS)
    if other.header.mode == c.header.mode and chance.random() < 0.5:
        c = replace(c, palette=other.palette, transparency=other.transparency)
    if c.tiles and other.tiles and chance.random() < 0.5:
        tiles = list(c.tiles)
        tiles[chance.randrange(len(tiles))] = chance.choice(other.tiles)
        c = replace(c, tiles=tuple(tiles))
    return replace(c, metadata=chance.choice((c.metadata, other.metadata, c.metadata + other.metadata)))


def _moved_tiles(c: Container, chance: random.Random, means: Means) -> Container:
    """Two tiles exchanged, or one in the place of another."""
    tiles = list(c.tiles)
    if len(tiles) > 1:
        i, j = chance.sample(range(len(tiles)), 2)
        tiles[i], tiles[j] = tiles[j], chance.choice((tiles[i], tiles[j]))
    return replace(c, tiles=tuple(tiles))


def _no_words(c: Container, chance: random.Random, means: Means) -> Container:
    """Tiles of lanes without words: each yields the first symbol for ever."""
    count = chance.randint(1, max(1, len(c.tiles)))
    return replace(c, tiles=(bytes(c.header.lanes),) * min(count, len(c.tiles)) + c.tiles[count:])


def _other_files_within(c: Container, chance: random.Random, means: Means) -> Container:
    """The stored picture, and stored alpha, as another PNG or WebP file of the same samples."""
    h = c.header
    parts: dict[str, Any] = {}
    for name, found in (("stored", c.stored), ("alpha", c.alpha)):
        if found is not None and found[0] == PNG:
            png = read_png(found[1], max_pixels=MOST_PIXELS)
            if h.depth == 8 and png.colour != png_module.GRAY_ALPHA and chance.random() < 0.2:
                parts[name] = WEBP, write_webp(png.samples)
            else:
                parts[name] = PNG, other_png(png, chance)
    return replace(c, **parts)


def other_png(png: Png, chance: random.Random) -> bytes:
    """A PNG of the same samples: other filters, interlaced or not, IDAT in pieces, more chunks."""
    header = Header(png.samples.shape[2], png.samples.shape[1], png.depth, png.colour, chance.random() < 0.4)
    raw = b""
    for y0, x0, dy, dx in png_module.passes(header):
        rows = pack_rows(png.samples[:, y0::dy, x0::dx], png.depth)
        above = bytes(rows.shape[1])
        for row in rows:
            kind, line = chance.randrange(5), row.tobytes()
            raw += bytes([kind]) + _filtered(kind, line, above, header.pixel_bytes)
            above = line
    stream = zlib.compress(raw, chance.choice((0, 1, 9)))
    cuts = sorted(chance.choices(range(len(stream) + 1), k=chance.randrange(3)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    ihdr = struct.pack(">IIBBBBB", header.width, header.height, png.depth, png.colour, 0, 0, header.interlaced)
    chunks = [("IHDR", ihdr), *[("tEXt", b"a\0b"), ("gAMA", bytes(4))][: chance.randrange(3)]]
    chunks += [("IDAT", piece) for piece in pieces] + [("IEND", b"")]
    assert png.samples.shape[0] == COLOURS[png.colour][0]
    return png_module.SIGNATURE + b"".join(chunk_bytes(kind, payload) for kind, payload in chunks)


def _filtered(kind: int, line: bytes, above: bytes, pixel_bytes: int) -> bytes:
    out = bytearray()
    for i, byte in enumerate(line):
        a, c = (line[i - pixel_bytes], above[i - pixel_bytes]) if i >= pixel_bytes else (0, 0)
        out.append((byte - png_module.guess(kind, a, above[i], c)) & 255)
    return bytes(out)


#: Each gives a file that is good, or nearly so.
FINE = (
    *(_recoded, _recoded, _recoded, _other_mode, _metadata, _metadata, _colours),
    *(_spliced, _moved_tiles, _no_words, _other_files_within),
)

#: After these the pixels and their checksum are those of an encoder; these leave them so.
_CODING = (_recoded, _other_mode)
_KEEPING = (_metadata, _other_files_within)


def _with_unknown_chunk(data: bytes, chance: random.Random) -> bytes:
    """An ancillary chunk that no version knows, before the pixels."""
    chunks, tail = split(data)
    pixels = next(i for i, (kind, _) in enumerate(chunks) if kind in (container.STOR, container.TILE))
    kind = chance.choice((b"noIs", b"zzzz", b"aBCD"))
    chunks.insert(chance.randint(1, pixels), (kind, chance.randbytes(chance.randrange(20))))
    return join(chunks, tail, data[len(MAGIC)], repair=True)


# ------------------------------------------------------------------------ rough


def split(data: bytes) -> tuple[_Chunks, bytes]:
    """(type, payload) of the chunks whose lengths fit, and what follows them."""
    chunks, at = [], 9
    while at + 12 <= len(data):
        length = struct.unpack_from("<I", data, at + 4)[0]
        if length > len(data) - at - 12:
            break
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks, data[at:]


def join(chunks: _Chunks, tail: bytes, version: int, repair: bool) -> bytes:
    """A file of these chunks; repair: with all their CRCs right."""
    parts = [MAGIC, bytes([version])]
    for i, (type_, payload) in enumerate(chunks):
        crc = zlib.crc32(payload, zlib.crc32(type_)) ^ (0 if repair or i else 1)
        parts.append(struct.pack("<4sI", type_, len(payload)) + payload + struct.pack("<I", crc))
    return b"".join(parts) + tail


def _roughly(data: bytes, most: int, chance: random.Random, means: Means) -> bytes:
    """One to four changes of chunks, whatever becomes of the file."""
    chunks, tail = split(data)
    if chance.random() < 0.1 or not chunks:
        return bytes(means.blind(data, most))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        chance.choice(ROUGH)(chunks, chance, means.blind)
    if chance.random() < 0.9:
        _name_model(chunks)
    version = data[len(MAGIC)] if chance.random() < 0.95 else chance.choice((container.VERSION, container.DEEP_VERSION))
    made = join(chunks, tail if chance.random() < 0.9 else b"", version, chance.random() < 0.95)[:most]
    if chance.random() < 0.5:
        try:
            c = read_container(made, max_pixels=MOST_PIXELS)
            return write_container(signed(c, samples_of(c, means)))
        except PixzipError:
            pass
    return made


def _change_header(chunks: _Chunks, chance: random.Random, blind: Blind) -> None:
    """One field to a value that is small, at a limit or any."""
    if not chunks or len(chunks[0][1]) != 43:
        return
    fields = list(struct.unpack(_HEAD, chunks[0][1]))
    i = chance.randrange(9)
    most = (2**32 - 1,) * 3 + (255,) * 4 + (2**16 - 1, 255)
    near = fields[i] + chance.choice((-1, 1))
    fields[i] = min(max(0, chance.choice((near, chance.randrange(12), 2**31, most[i], chance.randrange(200)))), most[i])
    chunks[0] = chunks[0][0], struct.pack(_HEAD, *fields)


def _change_payload(chunks: _Chunks, chance: random.Random, blind: Blind) -> None:
    """Any chunk's bytes, as libFuzzer likes."""
    i = chance.randrange(len(chunks))
    chunks[i] = chunks[i][0], bytes(blind(chunks[i][1], len(chunks[i][1]) + 16))


def _change_tile(chunks: _Chunks, chance: random.Random, blind: Blind) -> None:
    """A lane table or words of a tile; a word more or fewer with its count put right, one moved between lanes."""
    tiles = [i for i, chunk in enumerate(chunks) if chunk[0] == container.TILE and chunk[1]]
    if not tiles:
        return
    i = chance.choice(tiles)
    payload, lanes = bytearray(chunks[i][1]), max(1, chunks[0][1][15] if len(chunks[0][1]) > 15 else 1)
    table = min(lanes, len(payload))
    how = chance.randrange(5)
    if how == 0:
        payload[:table] = blind(bytes(payload[:table]), table + 5)
    elif how == 1 and len(payload) > table:
        payload[table:] = blind(bytes(payload[table:]), len(payload) - table)
    elif how == 2:
        k = chance.randrange(table)
        payload[k] = min(127, payload[k] + 1)
        payload += chance.randbytes(4)
    elif how == 3 and len(payload) >= table + 4:
        k = chance.randrange(table)
        payload[k] = max(0, payload[k] - 1)
        del payload[-4:]
    elif table > 1:
        a, b = chance.sample(range(table), 2)
        if payload[a] and payload[b] < 127:
            payload[a], payload[b] = payload[a] - 1, payload[b] + 1
    chunks[i] = chunks[i][0], bytes(payload)


def _change_order(chunks: _Chunks, chance: random.Random, blind: Blind) -> None:
    """A chunk away, twice, elsewhere, of another type."""
    i, j = chance.randrange(len(chunks)), chance.randrange(len(chunks))
    how = chance.randrange(4)
    if how == 0 and len(chunks) > 1:
        del chunks[i]
    elif how == 1:
        chunks.insert(j, chunks[i])
    elif how == 2:
        chunks[i], chunks[j] = chunks[j], chunks[i]
    else:
        types = (*container.CHUNKS, b"ABCD", b"abcd", b"A1b\xff")
        chunks[i] = chance.choice(types), chunks[i][1]


ROUGH = (_change_header, _change_payload, _change_payload, _change_tile, _change_tile, _change_order)


def _name_model(chunks: _Chunks) -> None:
    """The header names the embedded model, which may have changed."""
    model = next((payload for type_, payload in chunks if type_ == container.MODL), None)
    if model is not None and chunks[0][0] == container.HEAD and len(chunks[0][1]) == 43:
        head = chunks[0][1]
        chunks[0] = container.HEAD, head[:19] + hashlib.sha256(model).digest()[:8] + head[27:]


# ------------------------------------------------------------------------ models


def mutated_model(data: bytes, most: int, chance: random.Random, blind: Blind) -> bytes:
    """Configuration (the length before it put right) or arrays."""
    length = int.from_bytes(data[:8], "little")
    if chance.random() < 0.1 or length > len(data) - 8:
        return bytes(blind(data, most))
    text, arrays = data[8 : 8 + length], data[8 + length :]
    if chance.random() < 0.5:
        at = chance.randrange(max(1, len(arrays)))
        piece = arrays[at : at + 64]
        changed = (bytes(blind(piece, len(piece))) or piece).ljust(len(piece), b"\0")
        return data[: 8 + length + at] + changed + arrays[at + 64 :]
    text = _other_number(text, chance) if chance.random() < 0.5 else bytes(blind(text, length + 8))
    return (len(text).to_bytes(8, "little") + text + arrays)[:most]


def _other_number(text: bytes, chance: random.Random) -> bytes:
    """The configuration with one of its numbers changed."""
    numbers = list(re.finditer(rb"[0-9]+", text))
    if not numbers:
        return text
    found = chance.choice(numbers)
    value = chance.choice((0, 1, int(found[0]) + 1, max(0, int(found[0]) - 1), 8, 16, 2**31, 10**30))
    return text[: found.start()] + str(value).encode() + text[found.end() :]
