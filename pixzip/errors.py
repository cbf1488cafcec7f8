"""The exception tree: what went wrong, and the exit code the command line gives for it."""

from __future__ import annotations


class PixzipError(Exception):
    """Base of all errors that pixzip raises on purpose; exit_code is what the command line returns."""

    exit_code = 1


class UsageError(PixzipError):
    """The caller asked for something impossible: a wrong argument, an output that exists."""

    exit_code = 2


class ImageError(PixzipError):
    """The input is not an image that pixzip can keep without loss."""

    exit_code = 3


class FormatError(PixzipError):
    """A .pxz file is damaged, hostile, or of a version this pixzip does not know."""

    exit_code = 4


class PixelChecksumError(FormatError):
    """The file is intact but the decoded pixels are not those that were encoded."""

    exit_code = 5


class ModelNotFoundError(PixzipError):
    """No model with the digest that a file names (or the name that the caller gave) was found."""

    exit_code = 6


class ModelError(PixzipError):
    """A model file is damaged, hostile, or of a version this pixzip does not know."""

    exit_code = 7


class LimitError(PixzipError):
    """The input is larger than a limit that the caller can raise."""

    exit_code = 8


class OutputError(PixzipError):
    """The output could not be written."""

    exit_code = 9


class TrainingError(PixzipError):
    """Training cannot go on: configuration, checkpoint or numbers are unusable."""

    exit_code = 10


class TrainingDataError(TrainingError):
    """The training or validation pictures are unusable."""


class ManifestError(PixzipError):
    """A file is not what a manifest says of it, or one of them has no place in the other."""

    exit_code = 12


class SalvageError(PixzipError):
    """Of a damaged file only a part could be given back; it was."""

    exit_code = 11


class MeasurementError(PixzipError):
    """What was to be measured failed: no fault of the pictures."""

    exit_code = 13


class PeerError(MeasurementError):
    """Another codec is not there, or does not give back what it was given."""


class CostError(MeasurementError):
    """A command of pixzip's that was to be measured failed."""
