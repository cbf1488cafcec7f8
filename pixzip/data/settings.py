"""The [data] table of a configuration: which pictures, and how crops are taken from them."""

from __future__ import annotations

from dataclasses import dataclass

from pixzip.errors import TrainingError

ORIENTATIONS = ("all", "mirror", "none")


@dataclass(frozen=True)
class DataSettings:
    """Pictures to train and validate on; shares are probabilities of a crop.

    ``train`` and ``validation`` are folders or data sets such as ``cifar10/train:FOLDER`` (pixzip.data.sources).
    Without ``validation`` a share ``validation_share`` of ``train`` is held out, chosen by content.
    ``scales``: a crop is taken s times as large and reduced by box averaging, s drawn from these where the picture is
    large enough: that removes the traces of JPEG. ``planes`` of 0 stands for as many as the network reads.
    ``orientations``: all eight, mirror (left-right), or none. ``grain_share`` and ``chroma_share``: noise is added, and
    chroma is halved, in colour crops (pixzip.data.augment). ``gray_share`` and ``permute_share``: a colour crop becomes
    three equal planes, its planes are exchanged. ``crop`` and ``validation_crop`` are sides in pixels; validation is on
    the middle of the first ``validation_pictures`` pictures by content that are large enough, 0: of all. ``note`` says
    on the model's card what the pictures are, and under which licences.
    """

    train: str = ""
    validation: str = ""
    validation_share: float = 0.05
    validation_crop: int = 128
    validation_pictures: int = 0
    planes: int = 0
    crop: int = 64
    orientations: str = "all"
    scales: tuple[int, ...] = (1,)
    gray_share: float = 0.0
    permute_share: float = 0.0
    grain_share: float = 0.0
    chroma_share: float = 0.0
    note: str = ""

    def __post_init__(self) -> None:
        """Refuse settings that no crop can follow."""
        for name in ("validation_share", "gray_share", "permute_share", "grain_share", "chroma_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise TrainingError(f"data.{name} {getattr(self, name)}: must be from 0 to 1")
        if self.crop < 1 or self.validation_crop < 1 or self.validation_pictures < 0:
            raise TrainingError("data.crop and data.validation_crop must be at least 1, validation_pictures 0 (all)")
        if self.planes not in (0, 1, 3):
            raise TrainingError(f"data.planes {self.planes}: must be 1 or 3, or 0 for what the network reads")
        if self.orientations not in ORIENTATIONS:
            raise TrainingError(f"data.orientations {self.orientations!r}: must be one of {', '.join(ORIENTATIONS)}")
        if not self.scales or min(self.scales) < 1 or max(self.scales) > 16:
            raise TrainingError(f"data.scales {list(self.scales)}: must be integers from 1 to 16")
