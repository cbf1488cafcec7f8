"""A .pxz file → its samples in plain Python integers, from docs/format.md and docs/model-format.md alone.

Slow, short and without dependencies: as long as there is a Python, this file and the model file decode every picture
that a model coded. It covers all of coding MODEL: any number of tiles or pictures, modes L, LA, RGB, RGBA and P, 1 to
16 bits a sample, constant alpha; and all of kind DEEP. It does not look inside PNG and WebP files, and it checks a
model file for no more than it needs: it is an oracle for files at hand, not a shield against hostile ones.

    width, height, pictures = decode(file_bytes, model_bytes)           model_bytes: b"" for coding STORED
    pictures[i][plane][y][x]            planes in the order of format.md, section 3
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from decimal import ROUND_HALF_UP, Decimal, localcontext
from math import isqrt
from operator import mul
from typing import Any, NamedTuple

Vector = list[int]
Plane = list[list[int]]  # rows of samples

MAGIC = b"\x89PXZ\r\n\x1a\n"
PLANES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 1}  # by mode id: L, LA, RGB, RGBA, P
WITH_ALPHA = (2, 4)
KNOWN_TYPES = (b"HEAD", b"MODL", b"PALT", b"TRNS", b"ALPH", b"STOR", b"TILE")
PICTURES_A_BLOCK = 1024
WINDOW = [
    *[(-3, dx) for dx in range(-3, 4)],
    *[(-2, dx) for dx in range(-3, 4)],
    *[(-1, dx) for dx in range(-3, 2)],
    *[(0, dx) for dx in range(-3, 0)],
]
ERROR_WINDOW = [(-2, 0), (-1, -1), (-1, 0), (-1, 1), (0, -2), (0, -1)]


class Refused(ValueError):
    """The file is not one that the format allows, or not one that this decoder covers."""


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise Refused(reason)


def decode(file_bytes: bytes, model_bytes: bytes) -> tuple[int, int, list[list[Plane]]]:
    """Width, height and pictures[i][plane][y][x] of a .pxz file; `model_bytes`: the model file its header names."""
    header, chunks = read_chunks(file_bytes)
    pictures = [
        [[[0] * header.width for _ in range(header.height)] for _ in range(PLANES[header.mode])]
        for _ in range(header.pictures)
    ]
    if header.coding == 2:
        colours = range(PLANES[header.mode] - (header.mode in WITH_ALPHA))
        decode_stored(chunks[b"STOR"][0], colours, header, pictures)
    else:
        require(hashlib.sha256(model_bytes).digest()[:8] == header.model_digest, "coded with another model")
        model = read_model(model_bytes)
        for payload, block in zip(chunks[b"TILE"], blocks_of(header), strict=True):
            decode_payload(payload, block, header, model, pictures)
    if header.mode in WITH_ALPHA:
        decode_alpha(chunks[b"ALPH"][0], header, pictures)
    require(max_sample(pictures) < 1 << header.depth, "a sample out of range")
    palette, transparency = (b"".join(chunks.get(name, [])) for name in (b"PALT", b"TRNS"))
    require(checksum(header, pictures, palette, transparency) == header.checksum, "pixels checksum")
    return header.width, header.height, pictures


# format.md, sections 1 to 7: the container


class Header(NamedTuple):
    width: int
    height: int
    pictures: int
    mode: int
    depth: int
    coding: int
    lanes: int
    tile: int
    learning: int
    model_digest: bytes
    checksum: bytes


def read_chunks(data: bytes) -> tuple[Header, dict[bytes, list[bytes]]]:
    """The header, and the payloads of all chunks by type."""
    require(data[:8] == MAGIC, "magic")
    require(data[8:9] in (b"\x02", b"\x03"), "version")
    kind, payload, at = read_chunk(data, 9)
    require(kind == b"HEAD" and len(payload) == 43, "header")
    header = Header(*struct.unpack("<IIIBBBBHB8s16s", payload))
    check_header(header)
    chunks: dict[bytes, list[bytes]] = {}
    last, count = (b"STOR", 1) if header.coding == 2 else (b"TILE", len(list(blocks_of(header))))
    while len(chunks.get(last, [])) < count:
        kind, payload, at = read_chunk(data, at)
        require(kind in KNOWN_TYPES or kind[:1].islower(), f"critical chunk {kind!r}")
        chunks.setdefault(kind, []).append(payload)
    require(at == len(data), "trailing bytes")
    require((b"ALPH" in chunks) == (header.mode in WITH_ALPHA), "alpha chunk")
    kinds = [chunks[name][0][0] for name in (b"ALPH", b"STOR") if name in chunks]
    deep = 3 in kinds or (header.depth == 16 and header.coding == 1)
    require(data[8] == (3 if deep else 2), "a version that is not the file's")
    require(3 not in kinds or header.depth == 16, "kind DEEP with 8 bits")
    return header, chunks


def read_chunk(data: bytes, at: int) -> tuple[bytes, bytes, int]:
    """Type and payload of the chunk at offset `at`, and the offset after it."""
    require(at + 8 <= len(data), "the file ends within a chunk")
    kind, length = struct.unpack_from("<4sI", data, at)
    end = at + 8 + length
    require(end + 4 <= len(data), "the file ends within a chunk")
    payload = data[at + 8 : end]
    require(struct.unpack_from("<I", data, end)[0] == zlib.crc32(kind + payload), f"CRC of chunk {kind!r}")
    return kind, payload, end + 4


def check_header(header: Header) -> None:
    require(header.coding in (1, 2), "coding")
    require(min(header.width, header.height, header.pictures, header.lanes, header.tile) >= 1, "a size of 0")
    require(header.mode in PLANES and header.depth in (1, 2, 4, 8, 16) and header.lanes <= 64, "mode, depth or lanes")
    require(
        header.coding == 2 or header.pictures == 1 or max(header.width, header.height) <= header.tile,
        "pictures larger than a tile",
    )


class Block(NamedTuple):
    """What one TILE chunk codes: `height` x `width` pixels at (top, left) of `count` pictures from `first` on."""

    first: int
    count: int
    top: int
    left: int
    height: int
    width: int


def blocks_of(header: Header) -> Iterator[Block]:
    """The blocks of the TILE chunks, in the order of the file (section 6)."""
    if header.pictures > 1:
        for first in range(0, header.pictures, PICTURES_A_BLOCK):
            yield Block(first, min(PICTURES_A_BLOCK, header.pictures - first), 0, 0, header.height, header.width)
        return
    for top in range(0, header.height, header.tile):
        for left in range(0, header.width, header.tile):
            yield Block(0, 1, top, left, min(header.tile, header.height - top), min(header.tile, header.width - left))


def decode_alpha(payload: bytes, header: Header, pictures: list[list[Plane]]) -> None:
    """Fills in the last plane of each picture (section 5)."""
    last = len(pictures[0]) - 1
    if payload[0] != 0:
        decode_stored(payload, range(last, last + 1), header, pictures)
        return
    require(len(payload) == 1 + -(-header.depth // 8), "constant alpha of another length")
    alpha = int.from_bytes(payload[1:], "little")
    for planes in pictures:
        planes[last] = [[alpha] * header.width for _ in range(header.height)]


def decode_stored(payload: bytes, planes: range, header: Header, pictures: list[list[Plane]]) -> None:
    """Fills in these planes of all pictures from kind DEEP (section 5): bands of the pictures under one another."""
    require(payload[0] == 3, "PNG and WebP files are not covered here")
    require(header.depth == 16, "kind DEEP of 8 bits")
    rows, at = max(1, 2**20 // header.width), 1
    height = header.pictures * header.height
    for top in range(0, height, rows):
        length, at = read_varint(payload, at)
        require(at + length <= len(payload), "the payload ends within a band")
        size = (min(rows, height - top), header.width)
        (band,) = decode_deep(payload[at : at + length], 1, len(planes), *size, None)
        at += length
        for k, plane in enumerate(planes):
            for y, row in enumerate(band[k], top):
                pictures[y // header.height][plane][y % header.height] = row
    require(at == len(payload), "bytes after the last band")


def max_sample(pictures: list[list[Plane]]) -> int:
    return max(sample for planes in pictures for plane in planes for row in plane for sample in row)


def checksum(header: Header, pictures: list[list[Plane]], palette: bytes, transparency: bytes) -> bytes:
    """BLAKE2b-128 of what the file stands for (section 7)."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(bytes([header.mode, header.depth, PLANES[header.mode]]))
    digest.update(struct.pack("<III", header.pictures, header.width, header.height))
    for planes in pictures:
        for plane in planes:
            for row in plane:
                digest.update(struct.pack(f"<{len(row)}H", *row) if header.depth == 16 else bytes(row))
    for extra in (palette, transparency):
        digest.update(struct.pack("<I", len(extra)) + extra)
    return digest.digest()


# format.md, section 8: the payload of a tile


class Lane:
    """A stack of 32-bit words and the state of the coder on top of it."""

    def __init__(self, words: Vector) -> None:
        require(not words or words[-1] != 0, "a last word of 0")
        self.words = words
        self.state = 0
        for _ in range(min(2, len(words))):
            self.state = self.state << 32 | words.pop()

    def symbol(self, left: Vector) -> int:
        """The next symbol; `left` has the lower ends of its possible values' intervals, and 2^24 at the end."""
        return self.symbol_of(left.__getitem__, len(left) - 1)

    def symbol_of(self, left: Callable[[int], int], count: int) -> int:
        """The next symbol, 0 to count - 1, of intervals that begin at left(symbol)."""
        q = self.state % 2**24
        symbol = bisect_right(range(count), q, key=left) - 1
        frequency = left(symbol + 1) - left(symbol)
        self.state = (self.state >> 24) * frequency + q - left(symbol)
        if self.state < 2**32 and self.words:
            self.state = self.state << 32 | self.words.pop()
        return symbol

    def end(self) -> None:
        require(self.state == 0 and not self.words, "a lane is left over after its last symbol")


def read_lanes(payload: bytes, lanes: int) -> list[Lane]:
    counts, at = [], 0
    for _ in range(lanes):
        count, at = read_varint(payload, at)
        counts.append(count)
    require(len(payload) - at == 4 * sum(counts), "the words are not as many as the lanes say")
    result = []
    for count in counts:
        result.append(Lane(list(struct.unpack_from(f"<{count}I", payload, at))))
        at += 4 * count
    return result


def read_varint(payload: bytes, at: int) -> tuple[int, int]:
    """The LEB128 number at offset `at`, and the offset after it."""
    value = 0
    for i in range(5):
        require(at + i < len(payload), "the payload ends within a varint")
        byte = payload[at + i]
        value |= (byte & 127) << 7 * i
        if byte < 128:
            require((byte > 0 or i == 0) and value < 2**32, "varint")
            return value, at + i + 1
    raise Refused("varint of over five bytes")


def decode_payload(payload: bytes, block: Block, header: Header, model: Model, pictures: list[list[Plane]]) -> None:
    """Decodes a TILE chunk into its place in `pictures`, with low bytes where samples have 16 bits (section 6)."""
    if header.depth < 16:
        decode_block(payload, block, header, model, pictures)
        return
    length, at = read_varint(payload, 0)
    require(at + length <= len(payload), "the payload ends within the high bytes")
    decode_block(payload[at : at + length], block, header, model, pictures)
    rows, columns = slice(block.top, block.top + block.height), slice(block.left, block.left + block.width)
    colours = 3 if header.mode in (3, 4) else 1
    here = pictures[block.first : block.first + block.count]
    high = [[[row[columns] for row in plane[rows]] for plane in planes[:colours]] for planes in here]
    size = (block.count, colours, block.height, block.width)
    for planes, found in zip(here, decode_deep(payload[at + length :], *size, high), strict=True):
        for c in range(colours):
            for y in range(block.height):
                planes[c][block.top + y][columns] = found[c][y]


def decode_block(payload: bytes, block: Block, header: Header, model: Model, pictures: list[list[Plane]]) -> None:
    """Decodes a TILE chunk into its place in `pictures`: by step, colour, then row (section 8, order in a lane)."""
    lanes = read_lanes(payload, header.lanes)
    multiscale = model.config["architecture"] == "multiscale"
    kind = Tile if model.config["architecture"] == "trunk" else PaperTile
    colours = 3 if header.mode in (3, 4) else 1
    small: list[Tile] = []
    if multiscale:
        factor = model.config["factor"]
        part, size = part_of(model, "small"), (-(-block.height // factor), -(-block.width // factor))
        small = [PaperTile(part, *size) for _ in range(block.count)]
        check_kind(small[0], header, colours)
        decode_tiles(lanes, small, header, colours)
        tiles: list[Any] = [ConditionedTile(model, block.height, block.width, first) for first in small]
    else:
        tiles = [kind(model, block.height, block.width) for _ in range(block.count)]
    check_kind(tiles[0], header, colours)
    decode_tiles(lanes, tiles, header, colours)
    for lane in lanes:
        lane.end()
    for i, tile in enumerate(tiles):
        for colour in range(colours):
            for (y, x), value in tile.planes[colour].items():
                pictures[block.first + i][colour][block.top + y][block.left + x] = value


def check_kind(tile: Any, header: Header, colours: int) -> None:
    require(not isinstance(tile, PaperTile) or header.learning == 0, "a model that does not learn")
    require(colours <= tile.colours and (not tile.binary or header.depth == 1), "a model for other pictures")


def decode_tiles(lanes: list[Lane], tiles: list[Any], header: Header, colours: int) -> None:
    """The symbols of tiles of one size, all of them from the beginning; what follows stays in the lanes."""
    model, height, width = tiles[0].model, tiles[0].height, tiles[0].width
    lessons = [Lesson(model, colour) for colour in range(3)] if header.learning else []
    for tile in tiles:
        tile.lessons = lessons
    slope = tiles[0].slope
    for step in range(width + slope * (height - 1)):
        at_step = [(y, step - slope * y) for y in range(height) if 0 <= step - slope * y < width]
        for colour in range(colours):
            for y, x in at_step:
                for i, tile in enumerate(tiles):
                    if (value := tile.known(colour, y, x)) is not None:
                        tile.set_known(colour, y, x, value, gray=colours == 1)
                        continue
                    lane = lanes[(y * len(tiles) + i) % len(lanes)]
                    symbol = lane.symbol(tile.row(colour, y, x))
                    tile.set_value(colour, y, x, symbol, gray=colours == 1)
                    if lessons:
                        lessons[colour].take(symbol)
        for lesson in lessons:
            lesson.learn(header.learning)


# model-format.md, sections 1 to 3: the model file


class Model(NamedTuple):
    config: dict[str, Any]
    arrays: dict[str, Any]  # nested lists of integers


def read_model(data: bytes) -> Model:
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    require(metadata["format"] == "pixzip-model" and metadata["arithmetic"] == "2", "model file")
    config = json.loads(metadata["config"])
    known = ("trunk", "pixelcnn", "row_lstm", "diagonal_bilstm", "multiscale")
    require(config["architecture"] in known, "architecture")
    return Model(config, {name: read_array(entry, data[8 + length :]) for name, entry in header.items()})


def read_array(entry: dict[str, Any], data: bytes) -> Any:
    code, size = {"I8": ("b", 1), "I16": ("h", 2), "I32": ("i", 4)}[entry["dtype"]]
    start, end = entry["data_offsets"]
    return nested(list(struct.unpack_from(f"<{(end - start) // size}{code}", data, start)), entry["shape"])


def nested(flat: Vector, shape: Vector) -> Any:
    """Row-major numbers as lists of lists."""
    if len(shape) == 1:
        return flat
    size = len(flat) // shape[0]
    return [nested(flat[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]


# model-format.md, the definitions at its top


def rs(x: int, s: int) -> int:
    return x + 2**s // 2 >> s


def clip(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


def sat8(x: int) -> int:
    return clip(x, -127, 127)


def sat16(x: int) -> int:
    return clip(x, -32767, 32767)


def relu8(x: int) -> int:
    return clip(x, 0, 255) - 128


def matvec(weight: list[Vector], v: Vector) -> Vector:
    return [sum(map(mul, row, v)) for row in weight]


# model-format.md, sections 4 to 6: from the pixels decoded so far to a row of frequencies


class Tile:
    """A tile, or one picture of a block: the sub-pixels decoded so far and what the network made of them."""

    slope = 2
    colours = 3
    binary = False

    def __init__(self, model: Model, height: int, width: int) -> None:
        self.model, self.height, self.width = model, height, width
        self.planes: list[dict[tuple[int, int], int]] = [{}, {}, {}]  # R, G, B
        self.errors: list[dict[tuple[int, int], int]] = [{}, {}, {}]
        self.lessons: list[Lesson] = []
        self.vectors: dict[Any, Any] = {}  # A, S and C of each block, and the heads' input F

    def known(self, colour: int, y: int, x: int) -> int | None:
        """The value of a sub-pixel that has no symbol in the lanes."""
        return None

    def set_value(self, colour: int, y: int, x: int, symbol: int, gray: bool) -> None:
        """Takes in the symbol of a sub-pixel; in a gray picture its value is that of all three planes."""
        value = (self.prediction(colour, y, x) + symbol) % 256
        for c in range(3) if gray else [colour]:
            self.errors[c][y, x] = value - self.prediction(c, y, x)
            self.planes[c][y, x] = value

    def row(self, colour: int, y: int, x: int) -> Vector:
        """left_0 .. left_256 of the sub-pixel (section 6)."""
        if colour == 0:
            self.vectors["F", y, x] = self.features(y, x)
        return self.left_edges(self.logits(colour, y, x))

    def left_edges(self, logits: Vector) -> Vector:
        """left_0 .. left_n of n symbols (section 6)."""
        weights = self.weights(logits)
        scale = 2**24 - len(logits)
        total, before, left = sum(weights), 0, []
        for i, weight in enumerate(weights):
            left.append(before * scale // total + i)
            before += weight
        return [*left, 2**24]

    def weights(self, logits: Vector) -> Vector:
        """w_0 .. w_(n-1) (section 6)."""
        exp = self.model.arrays["table.exp"]
        distances = [max(logits) - logit for logit in logits]
        return [exp[distance] if distance < 1024 else 0 for distance in distances]

    # Section 4

    def inside(self, y: int, x: int) -> bool:
        return 0 <= y < self.height and 0 <= x < self.width

    def level(self, c: int, y: int, x: int) -> int:
        """d_0 = R, d_1 = G - R, d_2 = B - G."""
        return self.planes[c][y, x] - (self.planes[c - 1][y, x] if c > 0 else 0)

    def prediction(self, c: int, y: int, x: int) -> int:
        guessed = guess(lambda y, x: self.level(c, y, x), y, x, 128 if c == 0 else 0)
        return clip(guessed + (self.planes[c - 1][y, x] if c > 0 else 0), 0, 255)

    def inputs(self, y: int, x: int) -> Vector:
        numbers = []
        for plane, errors in zip(self.planes, self.errors, strict=True):
            a = guess(lambda y, x, plane=plane: plane[y, x], y, x, 128)
            for dy, dx in WINDOW:
                numbers.append(sat8(plane[y + dy, x + dx] - a) if self.inside(y + dy, x + dx) else 0)
            for dy, dx in ERROR_WINDOW:
                numbers.append(sat8(errors[y + dy, x + dx]) if self.inside(y + dy, x + dx) else 0)
            numbers.append(sat8(a - 128))
        return [*numbers, 0]

    # Section 5

    def features(self, y: int, x: int) -> Vector:
        """F, the heads' input, from the stream X after all blocks."""
        config = self.model.config
        shifts = config["shifts"]
        stream = [sat16(value) for value in self.product("input", self.inputs(y, x))]
        for i, letter in enumerate(config["blocks"]):
            block = self.convolution_block if letter == "c" else self.row_lstm_layer
            change = block(f"block.{i}", shifts["blocks"][i], stream, y, x)
            stream = [sat16(a + b) for a, b in zip(stream, change, strict=True)]
        return [sat8(rs(value, shifts["feature"])) for value in stream]

    def product(
        self, name: str, v: Vector, *tables: Vector, weight: list[Vector] | None = None, bias: Vector | None = None
    ) -> Vector:
        """rs(P(v) + tables, P.shift) of product P, with another weight and bias if they are given."""
        arrays = self.model.arrays
        products = matvec(weight or arrays[name + ".weight"], v)
        sums = [sum(terms) for terms in zip(products, bias or arrays[name + ".bias"], *tables, strict=True)]
        return [rs(value, s) for value, s in zip(sums, arrays[name + ".shift"], strict=True)]

    def neighbour(self, name: str, y: int, x: int, size: int) -> Vector:
        return self.vectors[name, y, x] if self.inside(y, x) else [0] * size

    def convolution_block(self, name: str, a: int, stream: Vector, y: int, x: int) -> Vector:
        self.vectors[name + ".A", y, x] = [sat8(rs(value, a)) for value in stream]
        v = []
        for dy, dx in (-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0):
            v += self.neighbour(name + ".A", y + dy, x + dx, len(stream))
        return self.product(name + ".second", [relu8(value) for value in self.product(name + ".first", v)])

    def row_lstm_layer(self, name: str, a: int, stream: Vector, y: int, x: int) -> Vector:
        arrays, size = self.model.arrays, self.model.config["lstm"]
        self.vectors[name + ".A", y, x] = [sat8(rs(value, a)) for value in stream]
        activations = self.neighbour(name + ".A", y, x - 1, len(stream)) + self.vectors[name + ".A", y, x]
        states = [s for dx in (-1, 0, 1) for s in self.neighbour(name + ".S", y - 1, x + dx, size)]
        from_input = matvec(arrays[name + ".is.weight"], activations)
        from_state = matvec(arrays[name + ".ss.weight"], states)
        left = zip(arrays[name + ".is.left"], arrays[name + ".ss.left"], strict=True)
        sums = [(u << i) + (v << s) for u, v, (i, s) in zip(from_input, from_state, left, strict=True)]
        rounding = zip(sums, arrays[name + ".is.bias"], arrays[name + ".is.shift"], strict=True)
        arguments = [rs(value + bias, shift) for value, bias, shift in rounding]
        cells, states = self.lstm_gates(arguments, self.neighbour(name + ".C", y - 1, x, size))
        self.vectors[name + ".C", y, x], self.vectors[name + ".S", y, x] = cells, states
        return self.product(name + ".up", states)

    def lstm_gates(self, arguments: Vector, cells_before: Vector) -> tuple[Vector, Vector]:
        """Cells C and states S from the gates' arguments rs(P, is.shift) and the cells before."""
        sigmoid, tanh = self.model.arrays["table.sigmoid"], self.model.arrays["table.tanh"]
        size = len(cells_before)
        cells, states = [], []
        j = [clip(argument, -1024, 1023) + 1024 for argument in arguments]
        for n in range(size):
            o, f, i = sigmoid[j[n]], sigmoid[j[size + n]], sigmoid[j[2 * size + n]]
            g = tanh[j[3 * size + n]]
            cell = clip(rs(f * cells_before[n] + i * g, 12), -65535, 65535)
            cells.append(cell)
            states.append(sat8(rs(o * tanh[clip(rs(cell, 5), -1024, 1023) + 1024], 17)))
        return cells, states

    # Section 6

    def logits(self, colour: int, y: int, x: int) -> Vector:
        head, known = f"head.{colour}", []
        for c in range(colour):
            known.append(self.model.arrays[head + ".known"][c][clip(self.errors[c][y, x], -128, 127) + 128])
        f = self.vectors["F", y, x]
        if not self.lessons:
            return self.product(head + ".logit", [relu8(value) for value in self.product(head + ".hidden", f, *known)])
        lesson = self.lessons[colour]
        h = [relu8(value) for value in self.product(head + ".hidden", f, *known, weight=lesson.hidden.weight)]
        logits = self.product(head + ".logit", h, weight=lesson.logit.weight, bias=lesson.bias)
        lesson.given = f, h, self.weights(logits)
        return logits


# model-format.md, section 9: learning


class Learner:
    """A layer of a head in a tile or block: what it has learned, and the gradient of the step at hand."""

    def __init__(self, weight: list[Vector], f: int, u: int, least: int) -> None:
        self.weight, self.f, self.u, self.least = weight, f, u, least
        self.kept = [[w << f for w in row] for row in weight]
        self.s = self.n = 0
        self.clear()

    def clear(self) -> None:
        self.gradient = [[0] * len(row) for row in self.weight]

    def add(self, outputs: Vector, inputs: Vector) -> None:
        """Add a position's outer product to the gradient."""
        for row, d in zip(self.gradient, outputs, strict=True):
            if d:
                for k, value in enumerate(inputs):
                    row[k] += d * value

    def learn(self, rate: int) -> None:
        """The step is over."""
        size = sum(abs(g) for row in self.gradient for g in row)
        self.s += 2**4 * size // (len(self.kept) * len(self.kept[0])) - (self.s >> 4)
        self.n += 2**16 - (self.n >> 4)
        q = rate * 2 ** (26 + self.f - self.u) // (self.s * 2**12 // self.n + self.least)
        for row, gradient in zip(self.kept, self.gradient, strict=True):
            for k, g in enumerate(gradient):
                row[k] = clip(row[k] + ((g * q + 2**25) >> 26), -127 * 2**self.f, 127 * 2**self.f)
        self.weight = [[rs(w, self.f) for w in row] for row in self.kept]
        self.clear()


class Lesson:
    """One head of a tile or block, learning."""

    def __init__(self, model: Model, colour: int) -> None:
        arrays, head = model.arrays, f"head.{colour}"
        self.first_weight, self.first_bias = arrays[head + ".logit.weight"], arrays[head + ".logit.bias"]
        self.bias: Vector = self.first_bias
        self.hidden = Learner(arrays[head + ".hidden.weight"], 8, 6, 256)
        self.logit = Learner(self.first_weight, 16, 16, 64)
        shift = arrays[head + ".logit.shift"]
        self.back = [[rs(w, s - min(shift)) for w in row] for row, s in zip(self.first_weight, shift, strict=True)]
        self.given: tuple[Vector, Vector, Vector] = [], [], []  # F, H and w of the position at hand

    def take(self, symbol: int) -> None:
        """The position whose F, H and w are given has this symbol."""
        f, h, w = self.given
        a = [min((weight + 2**13) >> 14, 255) for weight in w]
        total = max(sum(a), 1)
        d = []
        for j, unit in enumerate(h):
            expected = sum(a[i] * self.back[i][j] for i in range(256))
            change = ((self.back[symbol][j] * total - expected) * (2**32 // total) + 2**28) >> 29
            d.append(change if unit != -128 else 0)
        g = [2**12 * (i == symbol) - ((a[i] * (2**30 // total) + 2**17) >> 18) for i in range(256)]
        self.hidden.add(d, f)
        self.logit.add(g, [unit + 128 for unit in h])

    def learn(self, rate: int) -> None:
        """The step is over."""
        self.hidden.learn(rate)
        self.logit.learn(rate)
        rows = zip(self.first_bias, self.logit.weight, self.first_weight, strict=True)
        self.bias = [bias + 128 * (sum(now) - sum(first)) for bias, now, first in rows]


# model-format.md, sections 7 and 8: the paper's networks


class PaperTile(Tile):
    """As Tile, of a pixelcnn, row_lstm or diagonal_bilstm.

    Features are computed colour by colour. A vector has None where a colour is not computed yet; as only weights other
    than 0 are multiplied, one that its mask should hide ends in an error.
    """

    def __init__(self, model: Model, height: int, width: int) -> None:
        super().__init__(model, height, width)
        self.c = model.config
        self.colours = 3 if self.c["pictures"] == "rgb" else 1
        self.binary = self.c["pictures"] == "binary"
        self.residual = self.c["frame"] == "residual"
        self.slope = max(4, width) if self.c["architecture"] == "diagonal_bilstm" else 4

    def set_value(self, colour: int, y: int, x: int, symbol: int, gray: bool) -> None:
        base = self.prediction(colour, y, x) if self.residual else 0
        value = (base + symbol) % 256
        for c in range(self.colours) if gray else [colour]:
            if c > 0 and gray:
                self.stream(c, y, x)  # a colour that has no symbol still has features
            self.errors[c][y, x] = value - self.prediction(c, y, x) if self.residual else 0
            self.planes[c][y, x] = value

    def row(self, colour: int, y: int, x: int) -> Vector:
        logits = self.logits(colour, y, x)
        return self.left_edges([0, *logits] if self.binary else logits)

    def conditioning(self, y: int, x: int) -> Vector:
        """What stands first in the inputs of every layer: nothing but in a Multi-Scale network."""
        return []

    def own_colour(self, k: int, features: int, colour: int) -> bool:
        return self.colours * k // features == colour

    def put(self, name: str, y: int, x: int, colour: int, values: Vector, features: int) -> Vector:
        """Fill one colour of a vector of so many features; the vector so far."""
        vector = self.vectors.setdefault((name, y, x), [None] * features)
        places = [k for k in range(features) if self.own_colour(k, features, colour)]
        for k, value in zip(places, values, strict=True):
            vector[k] = value
        return vector

    def at(self, name: str, y: int, x: int, outside: Vector) -> Vector:
        return self.vectors[name, y, x] if self.inside(y, x) else outside

    def sums(self, name: str, colour: int, v: Vector, gates: int = 1) -> Vector:
        """weight . v of the outputs of one colour, of each gate in turn; of all outputs where colour is -1."""
        weight = self.model.arrays[name + ".weight"]
        rows = self.rows_of(len(weight), colour, gates)
        return [sum(w * value for w, value in zip(weight[k], v, strict=True) if w) for k in rows]

    def rows_of(self, outputs: int, colour: int, gates: int) -> Vector:
        each = outputs // gates
        return [k for k in range(outputs) if colour < 0 or self.own_colour(k % each, each, colour)]

    def rounded(self, name: str, sums: Vector, colour: int, gates: int = 1) -> Vector:
        """rs(sums + bias, shift) of the same outputs."""
        bias, shift = (self.model.arrays[f"{name}.{part}"] for part in ("bias", "shift"))
        rows = self.rows_of(len(bias), colour, gates)
        return [rs(value + bias[k], shift[k]) for value, k in zip(sums, rows, strict=True)]

    def output(self, name: str, colour: int, v: Vector) -> Vector:
        return self.rounded(name, self.sums(name, colour, v), colour)

    def pixel_inputs(self, y: int, x: int) -> Vector:
        """Input features of a pixel; None where a colour is not known yet."""
        features: Vector = []
        for c in range(self.colours):
            value = self.planes[c].get((y, x))
            if value is None:
                features += [None] * (1 + self.residual)
            elif self.binary:
                features.append(64 if value else -64)
            else:
                features.append(value - 128)
                if self.residual:
                    features.append(clip(self.errors[c][y, x], -127, 127))
        return features

    def stream(self, colour: int, y: int, x: int) -> Vector:
        """One colour of X after all layers; remembered, so that each feature is computed once."""
        if ("X", colour, y, x) in self.vectors:
            return self.vectors["X", colour, y, x]
        if (colour, x) == (0, 0) and y > 0 and self.c["architecture"] == "diagonal_bilstm":
            self.right_to_left(y - 1)
        v: Vector = []
        for dy, dx in [(dy, dx) for dy in (-3, -2, -1, 0) for dx in range(-3, 4) if (dy, dx) <= (0, 0)]:
            outside = [0] * (self.colours * (1 + self.residual))
            v += self.pixel_inputs(y + dy, x + dx) if self.inside(y + dy, x + dx) else outside
        stream = [sat16(value) for value in self.output("first", colour, v)]
        skipped = [0] * len(stream)
        layer = {"pixelcnn": self.pixelcnn, "row_lstm": self.row_lstm, "diagonal_bilstm": self.diagonal}
        for j in range(self.c["layers"]):
            if self.c["skip"]:
                values = [sat8(rs(value, self.c["shifts"]["skips"][j])) for value in stream]
                own = self.put(f"{j}.skip", y, x, colour, values, 2 * self.c["h"])
                added = self.output(f"layer.{j}.skip", colour, own)
                skipped = [sat16(a + b) for a, b in zip(skipped, added, strict=True)]
            change = layer[self.c["architecture"]](f"layer.{j}", self.c["shifts"]["layers"][j], stream, colour, y, x)
            base = stream if self.c["residual"] else [0] * len(stream)
            stream = [sat16(a + b) for a, b in zip(base, change, strict=True)]
        if self.c["skip"]:
            stream = [sat16(a + b) for a, b in zip(stream, skipped, strict=True)]
        self.vectors["X", colour, y, x] = stream
        return stream

    def pixelcnn(self, name: str, a: int, stream: Vector, colour: int, y: int, x: int) -> Vector:
        h = self.c["h"]
        own = self.put(name + ".A", y, x, colour, [relu8(rs(value, a)) for value in stream], 2 * h)
        hidden = [relu8(value) for value in self.output(name + ".down", colour, own)]
        own = self.put(name + ".B", y, x, colour, hidden, h)
        v = []
        for dy, dx in (-1, -1), (-1, 0), (-1, 1), (0, -1):
            v += self.at(name + ".B", y + dy, x + dx, [-128] * h)
        v = self.conditioning(y, x) + v + own
        hidden = [relu8(value) for value in self.output(name + ".middle", colour, v)]
        return self.output(name + ".up", colour, self.put(name + ".M", y, x, colour, hidden, h))

    def lstm(self, name: str, colour: int, v: Vector, before: Vector, cells: Vector) -> tuple[Vector, Vector]:
        """Cells and states of one colour: v and before are what is and ss read, cells those of the pixel before."""
        left = [self.model.arrays[f"{name}.{part}.left"] for part in ("is", "ss")]
        rows = self.rows_of(len(left[0]), colour, 4)
        from_input, from_state = self.sums(name + ".is", colour, v, 4), self.sums(name + ".ss", colour, before, 4)
        both = zip(from_input, from_state, rows, strict=True)
        sums = [(u << left[0][k]) + (w << left[1][k]) for u, w, k in both]
        mine = [cell for k, cell in enumerate(cells) if colour < 0 or self.own_colour(k, len(cells), colour)]
        return self.lstm_gates(self.rounded(name + ".is", sums, colour, 4), mine)

    def row_lstm(self, name: str, a: int, stream: Vector, colour: int, y: int, x: int) -> Vector:
        h, arrays = self.c["h"], self.model.arrays
        own = self.put(name + ".A", y, x, colour, [sat8(rs(value, a)) for value in stream], 2 * h)
        before: Vector = []
        for dx in -1, 0, 1:
            inside = 0 <= x + dx < self.width
            before += self.at(name + ".S", y - 1, x + dx, arrays[name + ".h0"] if inside else [0] * h)
        cells = self.at(name + ".C", y - 1, x, arrays[name + ".c0"])
        v = self.conditioning(y, x) + self.at(name + ".A", y, x - 1, [0] * 2 * h) + own
        new_cells, states = self.lstm(name, colour, v, before, cells)
        self.put(name + ".C", y, x, colour, new_cells, h)
        return self.output(name + ".up", colour, self.put(name + ".S", y, x, colour, states, h))

    def diagonal(self, name: str, a: int, stream: Vector, colour: int, y: int, x: int) -> Vector:
        h, arrays, right = self.c["h"], self.model.arrays, name + ".left_to_right"
        own = self.put(name + ".A", y, x, colour, [sat8(rs(value, a)) for value in stream], 2 * h)
        h0, c0 = arrays[right + ".h0"], arrays[right + ".c0"]
        before = self.at(right + ".S", y - 1, x, h0) + self.at(right + ".S", y, x - 1, h0)
        v = self.conditioning(y, x) + own
        cells, states = self.lstm(right, colour, v, before, self.at(right + ".C", y, x - 1, c0))
        self.put(right + ".C", y, x, colour, cells, h)
        states = self.put(right + ".S", y, x, colour, states, h)
        other = self.at(name + ".right_to_left.S", y - 1, x, [0] * h)
        total = [None if s is None else s + t for s, t in zip(states, other, strict=True)]
        return self.output(name + ".up", colour, total)

    def right_to_left(self, y: int) -> None:
        """The other LSTM of every layer on row y, whose pixels are all known."""
        for j in range(self.c["layers"]):
            name = f"layer.{j}.right_to_left"
            h0, c0 = self.model.arrays[name + ".h0"], self.model.arrays[name + ".c0"]
            for x in reversed(range(self.width)):
                before = self.at(name + ".S", y - 1, x, h0) + self.at(name + ".S", y, x + 1, h0)
                cells = self.at(name + ".C", y, x + 1, c0)
                v = self.conditioning(y, x) + self.vectors[f"layer.{j}.A", y, x]
                cells, states = self.lstm(name, -1, v, before, cells)
                self.vectors[name + ".C", y, x], self.vectors[name + ".S", y, x] = cells, states

    def logits(self, colour: int, y: int, x: int) -> Vector:
        stream, c = self.stream(colour, y, x), self.c
        hidden = [relu8(rs(value, c["shifts"]["head"])) for value in stream]
        own = self.put("F", y, x, colour, hidden, 2 * c["h"])
        for name in ("head.one", "head.two"):
            hidden = [relu8(value) for value in self.output(name, colour, own)]
            own = self.put(name, y, x, colour, hidden, c["head"])
        return self.output("head.last", colour, own)


# model-format.md, section 10: Multi-Scale


def part_of(model: Model, name: str) -> Model:
    """One of the two networks."""
    arrays = {key[len(name) + 1 :]: value for key, value in model.arrays.items() if key.startswith(name + ".")}
    return Model(model.config[name], arrays)


class ConditionedTile(PaperTile):
    """As PaperTile, of the network ``large``, after the small picture."""

    def __init__(self, model: Model, height: int, width: int, small: PaperTile) -> None:
        super().__init__(part_of(model, "large"), height, width)
        self.small, self.factor = small, model.config["factor"]
        maps = {(y, x): small.pixel_inputs(y, x) for y in range(small.height) for x in range(small.width)}
        size, j = (small.height, small.width), 0
        while 2**j < self.factor:
            maps = doubled(model, j, maps, size, last=2 ** (j + 1) == self.factor)
            size, j = (2 * size[0], 2 * size[1]), j + 1
        self.map = maps

    def conditioning(self, y: int, x: int) -> Vector:
        return self.map[y, x]

    def known(self, colour: int, y: int, x: int) -> int | None:
        f = self.factor
        return None if y % f or x % f else self.small.planes[colour][y // f, x // f]

    def set_known(self, colour: int, y: int, x: int, value: int, gray: bool) -> None:
        self.stream(colour, y, x)  # later pixels read its features
        base = self.prediction(colour, y, x) if self.residual else 0
        self.set_value(colour, y, x, (value - base) % 256, gray)


def doubled(
    model: Model, j: int, u: dict[tuple[int, int], Vector], size: tuple[int, int], last: bool
) -> dict[tuple[int, int], Vector]:
    """U_(j+1) from U_j."""
    weight, bias, shift = (model.arrays[f"upsample.{j}.{part}"] for part in ("weight", "bias", "shift"))
    m = model.config["features"]
    outside = [-128] * m if j else [0] * len(u[0, 0])
    made = {}
    for y in range(size[0]):
        for x in range(size[1]):
            for p in range(2):
                for q in range(2):
                    e, d = (1 if p else -1), (1 if q else -1)
                    v = u[y, x] + u.get((y, x + d), outside) + u.get((y + e, x), outside)
                    v = v + u.get((y + e, x + d), outside)
                    rows = range((2 * p + q) * m, (2 * p + q + 1) * m)
                    sums = [sum(a * b for a, b in zip(weight[k], v, strict=True)) + bias[k] for k in rows]
                    values = [rs(total, shift[k]) for total, k in zip(sums, rows, strict=True)]
                    made[2 * y + p, 2 * x + q] = [sat8(value) if last else relu8(value) for value in values]
    return made


def guess(value: Any, y: int, x: int, origin: int) -> int:
    """The guess of value(y, x) from its neighbours; `origin` at (0, 0) (section 4)."""
    if y == 0:
        return value(0, x - 1) if x > 0 else origin
    if x == 0:
        return value(y - 1, 0)
    return med(value(y, x - 1), value(y - 1, x), value(y - 1, x - 1))


def med(w: int, n: int, nw: int) -> int:
    if nw >= max(w, n):
        return min(w, n)
    if nw <= min(w, n):
        return max(w, n)
    return w + n - nw


# format.md, section 12: samples of 16 bits


def decode_deep(
    data: bytes, n: int, c: int, height: int, width: int, high: list[list[Plane]] | None
) -> list[list[Plane]]:
    """Samples [picture][plane][y][x] of a stream; `high`: their high bytes, where it holds the low ones only."""
    require(len(data) > 0 and data[0] >> c == 0 and len(data) % 4 == 1, "flags or words")
    lane = Lane(list(struct.unpack(f"<{len(data) // 4}I", data[1:])))
    values = [read_values(lane) if data[0] >> k & 1 else list(range(2**16)) for k in range(c)]
    planes = [DeepPlane(values[k], 7 + 5 * k) for k in range(c)]
    pictures = []
    for i in range(n):
        for plane in planes:
            plane.begin(height, width)
        for y in range(height):
            for k, plane in enumerate(planes):
                for x in range(width):
                    plane.decode(lane, planes[:k], y, x, None if high is None else high[i][k][y][x])
        pictures.append([[[p.values[p.ranks[y, x]] for x in range(width)] for y in range(height)] for p in planes])
    lane.end()
    return pictures


def read_values(lane: Lane) -> Vector:
    chances: dict[Any, int] = defaultdict(lambda: 2**15)

    def bit(which: Any) -> int:
        p = chances[which] if which is not None else 2**15
        found = lane.symbol([0, 2**24 - 256 * p, 2**24])
        chances[which] = min(p + ((2**16 - p) >> 5), 2**16 - 64) if found else max(p - (p >> 5), 64)
        return found

    count = 1 + sum(bit(None) << place for place in range(15, -1, -1))
    values, gap, same = [-1], 1, 0
    for _ in range(count):
        same = bit(("same", same))
        if not same:
            before, length = gap.bit_length(), 1
            while length < 17 and bit(("length", before, length)):
                length += 1
            gap = 1
            for _ in range(length - 1):
                gap = 2 * gap + bit(("top", length, gap) if gap < 8 else None)
        values.append(values[-1] + gap)
        require(values[-1] < 2**16, "a listed value over 65535")
    return values[1:]


def logistic_table() -> Vector:
    """T_0 .. T_256."""
    with localcontext() as context:
        context.prec = 60
        exact = [Decimal(2**28) / (1 + (Decimal(-k) / 16).exp()) for k in range(257)]
        return [int(value.to_integral_value(ROUND_HALF_UP)) for value in exact]


T = logistic_table()
S = [isqrt(2 ** (76 - i)) for i in range(52)]


def logistic(i: int, z: int) -> int:
    v = min(abs(z) * S[i] >> 20, 2**22 - 1)
    k = v >> 14
    t = T[k] + ((T[k + 1] - T[k]) * (v % 2**14) >> 14)
    return t if z >= 0 else 2**28 - t


class Around(NamedTuple):
    """The neighbours of a sample, or numbers that belong to them."""

    w: int
    ww: int
    n: int
    nw: int
    ne: int
    nn: int
    nne: int


def around(a: dict[tuple[int, int], int], first: int, width: int, y: int, x: int) -> Around:
    """Neighbours of (y, x) in a plane that goes on beyond its ends."""

    def at(y: int, x: int) -> int:
        if x < 0:
            return first if y == 0 else a[y - 1, 0]
        return a[y, min(x, width - 1)]

    w, ww = at(y, x - 1), at(y, x - 2)
    if y == 0:
        return Around(w, ww, w, w, w, w, w)
    above = y - 1 if y == 1 else y - 2
    return Around(w, ww, at(y - 1, x), at(y - 1, x - 1), at(y - 1, x + 1), at(above, x), at(above, x + 1))


def median_of(a: Around) -> int:
    return sorted((a.w, a.n, a.w + a.n - a.nw))[1]


class DeepPlane:
    """What decoding one plane of 16 bits knows and learns."""

    def __init__(self, values: Vector, features: int) -> None:
        self.values = values
        self.weights = [0] * features
        self.shares: dict[tuple[int, int], Vector] = defaultdict(lambda: [2**18] * 4)
        self.uses: dict[tuple[int, int], int] = defaultdict(int)

    def begin(self, height: int, width: int) -> None:
        """A picture; what was learned stays."""
        self.width = width
        self.ranks: dict[tuple[int, int], int] = {}
        self.errors: dict[tuple[int, int], int] = {}
        self.misses: list[dict[tuple[int, int], int]] = [{} for _ in range(5)]

    def ranks_around(self, y: int, x: int) -> Around:
        return around(self.ranks, len(self.values) // 2, self.width, y, x)

    def decode(self, lane: Lane, before: list[DeepPlane], y: int, x: int, high: int | None) -> None:
        """The sample at (y, x) of the plane after those `before`."""
        f, guesses = self.guess(before, y, x)
        p = self.predict(guesses, y, x)
        context = self.context(before, y, x)
        scales = [clip(context[1] - 4 + 2 * j, 0, 51) for j in range(4)]
        shares = self.shares[context]

        def below(r: int) -> int:
            z = 64 * r - 32 - p
            return (sum(s * logistic(i, z) for s, i in zip(shares, scales, strict=True)) >> 20) + 4 * r

        first, last = 0, len(self.values)
        if high is not None:
            first, last = bisect_left(self.values, 256 * high), bisect_left(self.values, 256 * high + 256)
        require(first < last, "a high byte that no value has")
        r, n = first, last - first
        if n > 1:
            start, total = below(first), below(last) - below(first)
            r += lane.symbol_of(lambda i: (below(first + i) - start) * (2**24 - n) // total + i, n)
        self.ranks[y, x] = r
        self.errors[y, x] = abs(64 * r - p)
        for k, g in enumerate(guesses):
            self.misses[k][y, x] = abs(64 * r - g)
        gain = ((64 * r - guesses[0]) << 25) // (len(f) + sum(v * v for v in f))
        self.weights = [
            clip(w + (gain * v + 2**15 >> 16), -(2**24), 2**24) for w, v in zip(self.weights, f, strict=True)
        ]
        if n > 1:
            z = 64 * r - p
            parts = [s * (logistic(i, z + 32) - logistic(i, z - 32) + 1) for s, i in zip(shares, scales, strict=True)]
            whole = (sum(parts) >> 20) + 1
            rate = max(4096, 65536 // (self.uses[context] + 2))
            moved = [max(s + ((q // whole - s) * rate >> 16), 4096) for s, q in zip(shares, parts, strict=True)]
            self.shares[context] = moved
            self.uses[context] += 1

    def guess(self, before: list[DeepPlane], y: int, x: int) -> tuple[Vector, Vector]:
        """Features and guesses."""
        a = self.ranks_around(y, x)
        m = median_of(a)
        features = [value - m for value in (a.w, a.n, a.nw, a.ne, a.ww, a.nn, a.nne)]
        guesses = [64 * m, 64 * (a.w + a.n - a.nw), 32 * (a.w + a.ne), 32 * (a.n + a.ne + a.w - a.nw)]
        for other in before[::-1]:
            p, b = other.ranks[y, x], other.ranks_around(y, x)
            features += [value - median_of(b) for value in (p, b.w, b.n, b.nw, b.ne)]
        if before:
            p, b = before[-1].ranks[y, x], before[-1].ranks_around(y, x)
            difference = Around(*(own - theirs for own, theirs in zip(a, b, strict=True)))
            guesses[0] = 64 * (p + median_of(difference))
            guesses[2] = 64 * p + 32 * (difference.w + difference.n)
        learned = 64 * m + (sum(map(mul, self.weights, features)) >> 14)
        return features, [clip(g, 0, 64 * (len(self.values) - 1)) for g in (learned, *guesses)]

    def predict(self, guesses: Vector, y: int, x: int) -> int:
        near = [around(misses, 0, self.width, y, x) for misses in self.misses]
        missed = [a.w + a.ww + a.n + a.nw + a.ne for a in near]
        ratios = [(min(missed) + 5) * 1024 // (value + 5) for value in missed]
        return sum(r**3 * g for r, g in zip(ratios, guesses, strict=True)) // sum(r**3 for r in ratios)

    def context(self, before: list[DeepPlane], y: int, x: int) -> tuple[int, int]:
        a = around(self.errors, 1024, self.width, y, x)
        size = 2 * a.w + a.ww + 2 * a.n + a.nw + a.ne + a.nn >> 3
        b = (size + 1).bit_length() - 1
        half = (size + 1) >> (b - 1) & 1 if b else 0
        z = 0
        if before:
            error = before[-1].errors[y, x]
            z = 1 if 2 * error < size else 2 if 2 * error < 3 * size else 3
        return z, min(2 * b + half, 47)
