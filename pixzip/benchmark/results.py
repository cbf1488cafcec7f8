"""What a run found, as reports read it and JSON holds it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pixzip.benchmark.calibration import Calibration
from pixzip.benchmark.cost import Memory
from pixzip.benchmark.measure import Coded
from pixzip.benchmark.peers import PEERS, PeerFile

#: Peer → what it is called in reports.
TITLES = {peer.name: peer.title for peer in PEERS}


@dataclass(frozen=True)
class Shot:
    """A picture: what reports need of it."""

    name: str
    height: int
    width: int
    sub_pixels: int
    thumbnail: bytes  # JPEG


@dataclass(frozen=True)
class Weights:
    """A model that takes part."""

    name: str
    digest: str
    file_bytes: int


@dataclass(frozen=True)
class Pack:
    """Small pictures of one shape in one file: by model, and one under another in strips by the peers."""

    pictures: int
    height: int
    width: int
    coded: dict[str, Coded]
    strip: int  # pictures in one
    peers: dict[str, list[PeerFile]]


@dataclass(frozen=True)
class BitsMap:
    """Model bits of each pixel of a picture as a PNG; the colours run from 0 to ``most`` bits."""

    picture: str
    most: float
    png: bytes


@dataclass
class Section:
    """One source: what was measured of each picture, in the order of pictures; None: it failed there."""

    title: str
    source: str
    gray: bool = False
    learning: int | None = None
    threads: int = 1
    pictures: list[Shot] = field(default_factory=list)
    models: list[Weights] = field(default_factory=list)
    coded: dict[str, list[Coded | None]] = field(default_factory=dict)
    peers: dict[str, list[PeerFile | None]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    packs: list[Pack] = field(default_factory=list)
    memory: dict[str, list[tuple[str, Memory]]] = field(default_factory=dict)  # by model: picture, peaks
    sizes: dict[str, list[Coded]] = field(default_factory=dict)  # by model: the first picture, cut to squares
    calibration: dict[str, Calibration] = field(default_factory=dict)
    calibrated_on: list[str] = field(default_factory=list)
    map: BitsMap | None = None
    timed: list[str] = field(default_factory=list)  # pictures with medians of several runs
    failures: list[tuple[str, str]] = field(default_factory=list)
    exit_code: int = 0  # of the first failure


@dataclass
class Results:
    """A whole run."""

    command: str
    machine: dict[str, Any]
    load: float  # processes that wanted to run, when the command began
    made: int = 0  # measurements of this command
    reused: int = 0  # of earlier ones into the same folder
    sections: list[Section] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """All numbers; pictures of pictures are left out."""
        out = asdict(self)
        for section, told in zip(self.sections, out["sections"], strict=True):
            for shot in told["pictures"]:
                del shot["thumbnail"]
            if told["map"]:
                del told["map"]["png"]
            for model, files in section.coded.items():
                for coded, each in zip(files, told["coded"][model], strict=True):
                    if coded is not None:
                        each |= {"file_bytes": coded.file_bytes, "overheads": coded.overheads}
        return out
