"""Sizes of pictures → bytes of memory that work on them takes at most, and the tiles that a limit lets work at once.

The numbers are bounds on what bench/memory.py measures: each stage of the work with what it holds meanwhile. Tiles are
worked on independently, so that of a large picture only samples, files and classical codecs grow with its size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pixzip.errors import LimitError
from pixzip.formats.image import WEBP_SIDE_PX
from pixzip.model.file import Frozen, TrunkNetwork
from pixzip.model.multiscale import MultiScaleNetwork
from pixzip.model.stack import StackNetwork
from pixzip.pxz.container import BAND_PIXELS

if TYPE_CHECKING:
    from pixzip.coding.schedule import Tile

MIB = 1 << 20
#: Python, numpy, the compiled code and a model of some megabytes.
PROCESS_BYTES = 200 * MIB
#: libwebp, lossless, method 4.
_WEBP_PIXEL_BYTES = 44
#: Rows that write_png filters at once, in all their guesses; no more than a multiple of the samples.
_PNG_FILTER_BYTES, _PNG_FILTER_TIMES = 44 * MIB, 60
#: Interval rows of the symbols that go to constriction at once.
_INTERVAL_ROWS_BYTES, _INTERVAL_ROW_BYTES = 16 * MIB, 128
#: Of threads: operands, accumulators, and what the heads learn.
_SCRATCH_BYTES = 12 * MIB
#: Of weights: packed, joined and copied, as float32; the first megabytes are among the process's and the scratch.
_WEIGHT_BYTES, _WEIGHTS_COUNTED = 12, 2 * MIB
#: Of 16-bit samples in a stream of their own: intervals, ranks and words of a sample, copies of a plane's, and of each
#: value that planes list.
_DEEP_SAMPLE_BYTES, _DEEP_PLANE_BYTES, _DEEP_VALUE_BYTES = 22, 16, 34 * 8
#: A Picture, its view of the samples, and its name.
_PICTURE_BYTES = 400
#: What the C library's arena of a further thread keeps of memory that was freed.
THREAD_BYTES = 16 * MIB


@dataclass(frozen=True)
class Extent:
    """Pictures of one size, before anything is allocated for them."""

    pictures: int
    planes: int  # alpha too
    height: int
    width: int
    sample_bytes: int  # 1 or 2

    @property
    def pixels(self) -> int:
        return self.pictures * self.height * self.width

    @property
    def samples_bytes(self) -> int:
        """All samples, once."""
        return self.pixels * self.planes * self.sample_bytes

    def tiles(self, side: int) -> list[Tile]:
        from pixzip.coding.schedule import tiles_of  # loads numba, which stored pictures do without

        return tiles_of(self.pictures, self.height, self.width, side)

    def blocks(self, side: int) -> list[tuple[int, int, int]]:
        """(pictures, rows, columns) of each tile."""
        return [(tile.last - tile.first, tile.h, tile.w) for tile in self.tiles(side)]


def _place_bytes(network: TrunkNetwork) -> int:
    """Of one position in all maps of a trunk: activations and states of a byte, cells of four."""
    return network.channels * len(network.blocks) + 5 * network.lstm * network.blocks.count("l")


def _weights_bytes(network: Frozen) -> int:
    """Of what each tile has of a network's weights for itself."""
    weights = sum(array.size for name, array in network.arrays.items() if name.endswith(".weight"))
    return _WEIGHT_BYTES * max(0, weights - _WEIGHTS_COUNTED)


def _kept_bytes(network: StackNetwork) -> int:
    """Of one row in the maps of a wavefront, which hold so many steps of a byte, of cells of four."""
    steps = {"pixelcnn": 6, "row_lstm": 2 * 2 + 6 + 4 * 5, "diagonal_bilstm": 0}  # the last is coded in raster order
    return steps[network.architecture] * network.h * network.layers


def _position_bytes(network: Frozen) -> int:
    """Of one position in the buffers and the maps of all layers."""
    if isinstance(network, TrunkNetwork):
        return 2 * _place_bytes(network) + 4 * network.channels + 64
    return sum(10 * sum(a.shape) for name, a in network.arrays.items() if name.endswith(".weight"))


def encoding_tile(network: Frozen, tile: Tile) -> int:
    """Bytes while one tile or block is encoded: its samples, errors, and two pairs (left, f) a sub-pixel."""
    from pixzip.coding.schedule import pictures_together  # loads numba, as whoever made the tile did

    n = tile.last - tile.first
    pixels = n * tile.h * tile.w
    together = pictures_together(n, tile.w) * (tile.w + 2)  # positions of a row
    coder = min(_INTERVAL_ROWS_BYTES, _INTERVAL_ROW_BYTES * 3 * pixels)
    maps = max(together * _position_bytes(network), _maps_bytes(network, tile))  # of rows, or of steps to learn
    return 2 * 8 * 3 * pixels + 12 * pixels + maps + coder + _SCRATCH_BYTES + _weights_bytes(network)


def _conditioning_bytes(network: Frozen, tile: Tile) -> int:
    """Of a Multi-Scale network's map, and of the doubling that makes it: float64 of 2 × 2 inputs, and sums."""
    if not isinstance(network, MultiScaleNetwork):
        return 0
    places = (tile.last - tile.first) * (tile.h + network.factor) * (tile.w + network.factor)
    return (2 + 16) * places * network.upsampling.features


def _maps_bytes(network: Frozen, tile: Tile) -> int:
    """Of the maps of the last steps."""
    n = tile.last - tile.first
    rows = min(tile.h, tile.w // network.slope_at(tile.w) + 2)
    if isinstance(network, TrunkNetwork):
        return 3 * (n * rows + 1) * _position_bytes(network)  # maps hold four steps
    # a Diagonal BiLSTM has buffers of a whole row, the others have maps of all rows
    parts = (network.small, network.large) if isinstance(network, MultiScaleNetwork) else (network,)
    places = n * (tile.w if any(part.architecture == "diagonal_bilstm" for part in parts) else rows)
    kept = n * (tile.h + 1) * sum(map(_kept_bytes, parts))
    return places * _position_bytes(network) + kept + _conditioning_bytes(network, tile)


def decoding_tile(network: Frozen, tile: Tile) -> int:
    """Bytes while one tile or block is decoded: its samples, errors and words, and maps of four steps."""
    n = tile.last - tile.first
    return 12 * n * tile.h * tile.w + _maps_bytes(network, tile) + _SCRATCH_BYTES + _weights_bytes(network)


def deep_block(pixels: int, planes: int) -> int:
    """Bytes while low bytes, or samples of 16 bits, of one tile, block or band are coded in either direction."""
    values = min(pixels, 1 << 16) * planes
    return pixels * (_DEEP_SAMPLE_BYTES * planes + _DEEP_PLANE_BYTES) + _DEEP_VALUE_BYTES * values + 4 * MIB


def _deep_tile(extent: Extent, tile: Tile) -> int:
    """Bytes for the low bytes of one tile or block; 0 where there are none."""
    return deep_block((tile.last - tile.first) * tile.h * tile.w, extent.planes) if extent.sample_bytes > 1 else 0


def _deep_band(extent: Extent) -> int:
    """Bytes for one band of a stored picture, beside the coded ones; 0 where there are none."""
    if extent.sample_bytes == 1:
        return 0
    band = min(extent.pixels, max(BAND_PIXELS, extent.width))
    return 2 * extent.samples_bytes + deep_block(band, extent.planes)


def _as_png(extent: Extent) -> int:
    """Bytes while all samples are written as PNG, beside the samples themselves."""
    return 3 * extent.samples_bytes + min(_PNG_FILTER_BYTES, _PNG_FILTER_TIMES * extent.samples_bytes)


def _as_webp(extent: Extent) -> int:
    """Likewise as WebP, which has no more bits and no longer sides."""
    fits = extent.sample_bytes == 1 and max(extent.height * extent.pictures, extent.width) <= WEBP_SIDE_PX
    return extent.samples_bytes + _WEBP_PIXEL_BYTES * extent.pixels + 4 * MIB if fits else 0


def _storing(extent: Extent) -> int:
    """Bytes while all samples are stored: as PNG, then as WebP, where several are one under another."""
    stacked = extent.samples_bytes if extent.pictures > 1 else 0
    return stacked + max(_as_png(extent), _as_webp(extent), _deep_band(extent))


@dataclass(frozen=True)
class Need:
    """Bytes that one piece of work takes at most: least with one tile at once, and more with each further one."""

    what: str
    fixed: int  # while tiles are worked on
    a_tile: int
    tiles: int
    otherwise: int  # in the other stages

    def bytes(self, at_once: int = 1) -> int:
        """With so many tiles worked on at once, each on a thread."""
        count = min(at_once, self.tiles)
        return max(self.fixed + count * self.a_tile, self.otherwise) + (count - 1) * THREAD_BYTES

    def tiles_within(self, limit: int | None) -> int | None:
        """How many tiles may be worked on at once; None: any number. Raises LimitError where one is too many."""
        if limit is None:
            return None
        if self.bytes() > limit:
            needed, allowed = -(-self.bytes() // MIB), limit // MIB
            most = f"the limit is {allowed} MiB (max_memory)"
            raise LimitError(f"{self.what}: needs up to {needed} MiB of memory, {most}")
        by_tiles = (limit - self.fixed + THREAD_BYTES) // (self.a_tile + THREAD_BYTES)
        return min(by_tiles, 1 + (limit - self.otherwise) // THREAD_BYTES)


def holding(file_bytes: int) -> Need:
    """Of any file that is read to compress or decompress it: its bytes, and as many once more."""
    return Need(f"a file of {file_bytes} bytes", 0, 0, 1, PROCESS_BYTES + 2 * file_bytes)


def _what(extent: Extent) -> str:
    several = f"{extent.pictures} pictures of " if extent.pictures > 1 else ""
    return f"{several}{extent.width} x {extent.height} pixels"


def _restoring(extent: Extent) -> int:
    """Bytes while a stored picture is read, beside the file: the planes that Pillow or zlib gives, and copies."""
    return max(4 * extent.samples_bytes + 8 * extent.pixels, _deep_band(extent))


def compressing(extent: Extent, file_bytes: int, network: Frozen, side: int) -> Need:
    """Of pictures in files of so many bytes together, up to a .pxz file that is read back and compared.

    side: of a tile. Samples count once as they are, and as often as stored, coded and decoded, as if nothing got
    smaller.
    """
    samples, tiles = extent.samples_bytes, extent.tiles(side)
    held = PROCESS_BYTES + file_bytes + samples * (2 if extent.pictures > 1 else 1) + _PICTURE_BYTES * extent.pictures
    reading = PROCESS_BYTES + 2 * file_bytes + 3 * samples + 8 * extent.height * extent.width
    a_tile = max(encoding_tile(network, tiles[0]), decoding_tile(network, tiles[0]), _deep_tile(extent, tiles[0]))
    otherwise = max(reading, held + _storing(extent), held + 2 * samples + _restoring(extent))
    worked_on = held + (3 if extent.sample_bytes == 1 else 5) * samples  # high bytes are copies
    return Need(_what(extent), worked_on, a_tile, len(tiles), otherwise)


def decompressing(extent: Extent, file_bytes: int, network: Frozen | None, side: int) -> Need:
    """Of pictures in a .pxz file of so many bytes; network: None where they are stored."""
    samples = extent.samples_bytes
    held = PROCESS_BYTES + 2 * file_bytes + _PICTURE_BYTES * extent.pictures
    if network is None:
        return Need(_what(extent), 0, 0, 1, held + samples + _restoring(extent))
    tiles = extent.tiles(side)
    with_alpha = samples if extent.planes in (2, 4) else 0
    of_high = samples if extent.sample_bytes > 1 else 0
    a_tile = max(decoding_tile(network, tiles[0]), _deep_tile(extent, tiles[0]))
    return Need(_what(extent), held + samples + with_alpha + of_high, a_tile, len(tiles), 0)


def comparing(extent: Extent, file_bytes: int) -> Need:
    """Of pictures in image files and a .pxz file of so many bytes together, with the checksum in that."""
    return decompressing(extent, file_bytes, None, 1)


def and_writing(need: Need, extent: Extent, file_bytes: int, *, webp: bool) -> Need:
    """The need of decompressing pictures, each then written as an image file: PNG or another, or WebP."""
    one = replace(extent, pictures=1)
    written = (
        PROCESS_BYTES
        + file_bytes
        + extent.samples_bytes
        + one.samples_bytes
        + max(_as_png(one), _as_webp(one) if webp else 0)
    )
    return replace(need, otherwise=max(need.otherwise, written))
