"""A frozen Multi-Scale network: a small picture's network, upsampling products, the network that they condition.

docs/model-format.md, section 10.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixzip.errors import ModelError
from pixzip.model.checks import (
    LARGEST_HIDDEN,
    Arrays,
    Shapes,
    check_shapes,
    check_shifts,
    object_with,
    product_arrays,
    shown,
)
from pixzip.model.stack import StackNetwork, paper_arrays, read_paper, sizes_of

MULTISCALE = "multiscale"
FACTORS = (2, 4, 8, 16)
MAX_FEATURES = 1024
#: Output (2y + py, 2x + px) of an upsampling sees inputs at y and y + this, for py = 0 and 1; along x likewise.
BESIDE = (-1, 1)
_KEYS = ("factor", "features", "small", "large")
_MOST = 1 << 30


@dataclass(frozen=True)
class Upsampling:
    """Products ``upsample.i``, each of which doubles both sides of a map; features of the conditioning map."""

    factor: int
    features: int
    arrays: Arrays = field(default_factory=dict)

    @property
    def doublings(self) -> int:
        """How many products."""
        return self.factor.bit_length() - 1


@dataclass(frozen=True, eq=False)
class MultiScaleNetwork:
    """What a decoder executes of a Multi-Scale network; checked."""

    small: StackNetwork
    large: StackNetwork
    upsampling: Upsampling

    architecture = MULTISCALE
    #: Networks of the paper do not learn from what they have coded.
    learns = False

    @property
    def planes(self) -> int:
        """Planes of a picture as the drivers take it."""
        return self.large.planes

    @property
    def pictures(self) -> str:
        """rgb, gray or binary."""
        return self.large.pictures

    @property
    def factor(self) -> int:
        """Every factor-th pixel of every factor-th row is in the small picture."""
        return self.upsampling.factor

    @property
    def arrays(self) -> Arrays:
        """All arrays, by their names in the file."""
        return {
            **{f"small.{name}": array for name, array in self.small.arrays.items()},
            **{f"large.{name}": array for name, array in self.large.arrays.items()},
            **self.upsampling.arrays,
        }

    def slope_at(self, width: int) -> int:
        """Steps per row of the large network's wavefront."""
        return self.large.slope_at(width)

    def macs_per_pixel(self) -> int:
        """Multiply-accumulates of one pixel of the large picture, rounded up."""
        macs = float(self.large.macs_per_pixel()) + self.small.macs_per_pixel() / self.factor**2
        for i in range(self.upsampling.doublings):  # at each pixel that it reads: 4^i for a pixel of the small picture
            macs += self.upsampling.arrays[f"upsample.{i}.weight"].size * 4.0**i / self.factor**2
        return int(np.ceil(macs))

    def refusal(self, colours: int, depth: int) -> str | None:
        """As StackNetwork.refusal."""
        return self.large.refusal(colours, depth)


def _sizes(config: Mapping[str, Any]) -> tuple[StackNetwork, StackNetwork, int, int]:
    """The two networks without their integers, factor and features. Raises ModelError, naming the field."""
    object_with(config, "config", _KEYS)
    factor, features = config["factor"], config["features"]
    if type(factor) is not int or factor not in FACTORS:
        raise ModelError(f"factor is {shown(factor)}, allowed are {', '.join(map(str, FACTORS))}")
    if type(features) is not int or not 1 <= features <= MAX_FEATURES:
        raise ModelError(f"features is {shown(features)}, allowed are 1 to {MAX_FEATURES}")
    parts = []
    for name, conditioning in (("small", 0), ("large", features)):
        try:
            parts.append(sizes_of(object_with(config[name], name, ("architecture",)), conditioning))
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from None
    small, large = parts
    if small.pictures != large.pictures:
        raise ModelError(f"small.pictures is {shown(small.pictures)}, must be that of large, {large.pictures}")
    return small, large, factor, features


def _upsampling_arrays(small: StackNetwork, factor: int, features: int) -> Shapes:
    out: Shapes = {}
    for i in range(factor.bit_length() - 1):
        inputs = features if i else small.inputs
        out |= product_arrays(f"upsample.{i}", (4 * features, 4 * inputs))
    return out


def multiscale_arrays(config: Mapping[str, Any]) -> Shapes:
    """Name → (shape, dtype) of every array of a Multi-Scale network, in the order of the file."""
    small, _, factor, features = _sizes(config)
    return {
        **{f"small.{name}": kind for name, kind in paper_arrays(config["small"]).items()},
        **_upsampling_arrays(small, factor, features),
        **{f"large.{name}": kind for name, kind in paper_arrays(config["large"], features).items()},
    }


def read_multiscale(config: Mapping[str, Any], arrays: Arrays) -> MultiScaleNetwork:
    """Check sizes, shapes, shifts and bounds. Raises ModelError."""
    sizes, _, factor, features = _sizes(config)
    check_shapes(multiscale_arrays(config), arrays)
    parts = []
    for name, conditioning in (("small", 0), ("large", features)):
        own = {key[len(name) + 1 :]: array for key, array in arrays.items() if key.startswith(f"{name}.")}
        try:
            parts.append(read_paper(config[name], own, conditioning))
        except ModelError as error:
            raise ModelError(f"{name}: {error}") from None
    upsampling = {key: arrays[key] for key in _upsampling_arrays(sizes, factor, features)}
    for key in upsampling:
        check_shifts(key, upsampling)
    for i in range(factor.bit_length() - 1):
        _check_upsampling(f"upsample.{i}", upsampling)
    return MultiScaleNetwork(parts[0], parts[1], Upsampling(factor, features, upsampling))


def _check_upsampling(name: str, arrays: Arrays) -> None:
    """|w| <= 127 and every output within 2^30."""
    weight = arrays[f"{name}.weight"].astype(np.int64)
    if weight.min() == -128:
        raise ModelError(f"{name}.weight holds -128")
    bound = LARGEST_HIDDEN * np.abs(weight).sum(axis=1) + np.abs(arrays[f"{name}.bias"].astype(np.int64))
    if bound.max() >= _MOST:
        worst = int(bound.argmax())
        raise ModelError(f"{name}.weight: output {worst} can reach {int(bound[worst])}, the limit is 2^30")
