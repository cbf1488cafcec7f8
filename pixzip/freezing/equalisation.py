"""A network of the paper → the same function, its features scaled so that all of a map need a grid alike.

A frozen map has one exponent for all its features (docs/model-format.md, section 8), so the one that reaches furthest
would set the grid of the others. What a feature is multiplied by, in the weights that make it, its readers divide by:
ReLU and sums stay what they are. Nagel et al. 2019 (arXiv 1906.04721, section 4.1), by activations instead of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from pixzip.nets.stack import Stack

#: How much of the difference in reach is taken away; the rest stays, for the sake of the weights' own rounding.
SHARE = 0.5


def _scale(reaches: Iterable[Tensor]) -> Tensor:
    """Factors (features,) from how far features reach in the maps that hold them; their mean in logarithms is 0."""
    reach = torch.stack(list(reaches)).amax(0)
    reach = reach.clamp(min=1e-3 * float(reach.max()) + 1e-12).log()
    return (SHARE * (reach.mean() - reach)).exp()


def _rescale(writers: Iterable[Any], readers: Iterable[Any], factors: Tensor) -> None:
    """Multiply what writers make by the factors, divide what readers take."""
    for conv in writers:
        conv.weight.mul_(factors[:, None, None, None])
        conv.bias.mul_(factors)
    for conv in readers:
        conv.weight.div_(factors[None, :, None, None])


def _stream_readers(layer: Any) -> Iterator[nn.Module]:
    """What takes the residual stream in a layer."""
    parts = dict(layer.named_children())
    directions = [layer.left_to_right, layer.right_to_left] if "left_to_right" in parts else [layer]
    for part in directions:
        yield part.down if "down" in parts else part.input_to_state


def equalised(network: Stack, reach: dict[str, Tensor]) -> Stack:
    """A copy; reach: of every activation (pixzip.freezing.stack_calibration.readers) its largest values (features,)."""
    made: Any = deepcopy(network)
    head, skips = made.head, list(made.skips)
    from_stream = [value for name, value in reach.items() if name.endswith((".input", ".skip"))]
    with torch.no_grad():
        readers = [reader for layer in made.layers for reader in _stream_readers(layer)]
        writers = [made.first, *(layer.up for layer in made.layers), *skips]
        _rescale(writers, [*readers, *skips, head.one], _scale(from_stream))
        _rescale([head.one], [head.two], _scale([reach["head.one"]]))
        _rescale([head.two], [head.last], _scale([reach["head.two"]]))
        for i, layer in enumerate(made.layers):
            if hasattr(layer, "middle"):
                condition = [] if layer.condition is None else [layer.condition]
                _rescale([layer.down], [layer.middle], _scale([reach[f"layer.{i}.down"]]))
                _rescale([layer.middle, *condition], [layer.up], _scale([reach[f"layer.{i}.middle"]]))
    equal: Stack = made
    return equal
