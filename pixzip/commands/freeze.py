"""`pixzip freeze`: a run's checkpoint → its exact model, with float, quantised and exact bits/dim side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pixzip.commands.arguments import remark, say
from pixzip.commands.learning import learning_half
from pixzip.commands.options import EXIT_CODES, completed_files
from pixzip.commands.progress import Stop, metered

if TYPE_CHECKING:
    from pixzip.data.cache import Pictures
    from pixzip.data.settings import DataSettings
    from pixzip.training.checkpoint import Run


@click.command(epilog=EXIT_CODES)
@click.argument("checkpoint", shell_complete=completed_files)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The model file.")
@click.option("--validation", help="Pictures to measure on: a folder, or DATASET/PART:PLACE. Default: the run's.")
@click.option("--data", help="Pictures to choose scales by where the run has not yet. Default: the run's.")
@click.option("--limit", type=click.IntRange(1), help="Measure on so many pictures, the first by content hash.")
@click.option("--cache", type=click.Path(file_okay=False, path_type=Path), help="As for train.")
@click.option("--threads", type=click.IntRange(1), help="Default: as many as there are cores.")
@click.option("--force", is_flag=True, help="Overwrite the model file if it exists.")
@click.pass_obj
def freeze(
    stop: Stop,
    /,
    checkpoint: str,
    output: Path,
    validation: str | None,
    data: str | None,
    limit: int | None,
    cache: Path | None,
    threads: int | None,
    force: bool,
) -> None:
    """Export the exact model of a CHECKPOINT of `pixzip train`, and say what exactness costs.

    Bits/dim are those of the float network, of its integers as they are trained, and of the model as a decoder computes
    them, on the same pictures; then the share of activations that lie beyond their grid and are clipped. The averaged
    weights are exported where the run keeps an average. A run with a second phase is frozen with its own exponents,
    one without on crops of its training pictures.
    """
    from pixzip.files import check_target, staged

    with learning_half():
        import torch

        from pixzip.data.cache import default_cache
        from pixzip.training.checkpoint import load_run, read_checkpoint
    check_target(output, force=force)
    if threads is not None:
        torch.set_num_threads(threads)
    run = load_run(read_checkpoint(Path(checkpoint)), checkpoint)
    sources = _Sources.of(run, data, validation, cache or default_cache(), remark)
    model, clipped = _model(run, sources)
    with metered("measuring", stop, quiet=False) as shown:
        lines = [*_bits(run, model, checkpoint, sources, limit, shown.part(0, 1)), _clipped(run, sources, clipped)]
    with staged(output, model, force=force):
        pass
    for line in lines:
        say(line)
    say(f"{output}: {len(model)} bytes")


@dataclass(frozen=True)
class _Sources:
    """Where the pictures are that a run is calibrated by, as it was trained, and those it is measured on."""

    settings: DataSettings
    validation: str
    cache: Path
    say: Callable[[str], None]
    #: Of the pictures that the run had, where none others are named.
    digests: dict[str, str]

    @staticmethod
    def of(run: Run, data: str | None, validation: str | None, cache: Path, say: Callable[[str], None]) -> _Sources:
        """Those of the run, unless others are named."""
        settings = run.config.data
        named = {"train": data, "validation": validation or (data and not settings.validation)}
        digests = {part: digest for part, digest in run.data.items() if not named.get(part)}
        settings = replace(settings, train=data or settings.train)
        return _Sources(settings, validation or settings.validation, cache, say, digests)

    @cached_property
    def measured(self) -> Pictures:
        """The pictures to measure on; training pictures are read only where a share of them is held out."""
        from pixzip.data.cache import load_pictures
        from pixzip.data.split import load_split

        if self.validation:
            return self._noted("validation", load_pictures(self.validation, self.cache, self.say))
        return self._noted("validation", load_split(self.settings, self.cache, self.say)[1])

    def _noted(self, part: str, pictures: Pictures) -> Pictures:
        """The pictures; a line says where the run had others."""
        if self.digests.get(part, pictures.digest) != pictures.digest:
            self.say(f"{part} pictures: not those that the run had")
        return pictures

    def calibration_crops(self, seed: int) -> Any:
        """(n, h, w, planes): the crops that a run of this seed chooses its exponents from."""
        from pixzip.data.crops import RandomCrops
        from pixzip.data.split import load_split
        from pixzip.training import integers

        pictures = self._noted("train", load_split(self.settings, self.cache, self.say)[0])
        return integers.calibration_crops(RandomCrops(pictures, self.settings, seed))


def _model(run: Run, sources: _Sources) -> tuple[bytes, dict[str, float]]:
    """The model file, and what choosing its exponents found to be clipped; gives the run those that it can keep."""
    from pixzip.training import finish, integers

    seed = run.config.training.seed
    if run.exponents is None and integers.has_integers(run.network):
        run.exponents = integers.calibrate(run.network, run.network.prepare(sources.calibration_crops(seed)))
    return finish.frozen(run, lambda: sources.calibration_crops(seed))


def _bits(
    run: Run, model: bytes, name: str, sources: _Sources, limit: int | None, progress: Callable[[float], None]
) -> Iterator[str]:
    """Lines of bits/dim by each way of computing them."""
    from pixzip.model.file import load_model
    from pixzip.training.evaluation import Subject, measured, subject_of_model, subject_of_run

    subject = subject_of_run(run, name)
    exact = subject_of_model(load_model(model, "model"), subject.planes)
    together = Subject(subject.name, subject.planes, subject.levels, subject.measures | exact.measures)
    return measured(together, sources.measured, limit=limit, progress=progress)


def _clipped(run: Run, sources: _Sources, found: dict[str, float]) -> str:
    """A line of the shares of clipped activations: of the crops that exponents were chosen from (found), or, where the
    run has exponents, of a few as large as the pictures allow."""
    from pixzip.data.crops import centre_crops
    from pixzip.training import finish, integers

    where = "the calibration crops"
    if run.exponents is not None:
        pictures = sources.measured
        largest = int(max(min(h, w) for h, w in zip(pictures.heights, pictures.widths, strict=True)))
        size = min(sources.settings.validation_crop, largest)
        few = replace(sources.settings, validation_crop=size, validation_pictures=finish.SATURATION_CROPS)
        crops = centre_crops(pictures, few)
        found = integers.saturation(run.network, run.network.prepare(crops), run.exponents)
        where = f"{len(crops)} crops of {size}×{size}"
    shown = ", ".join(f"{name} {100 * share:.3f} %" for name, share in found.items() if share) or "none"
    return f"clipped    {shown}, of {where}"
