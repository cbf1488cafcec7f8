"""Model files → the user's own folder of models, where find_model (pixzip/model/file.py) looks, too."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pixzip.errors import ModelError, ModelNotFoundError, UsageError
from pixzip.files import staged, windows_fault
from pixzip.model.file import (
    MAX_BYTES,
    SUFFIX,
    ModelInfo,
    added_folder,
    added_models,
    load_model,
    shipped_models,
    unreadable_models,
)
from pixzip.pxz.container import DIGEST_BYTES
from pixzip.tree import make_folder

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def add_model(file: Path, name: str | None = None) -> tuple[ModelInfo, bool]:
    """Check a model file and put it into the user's folder, under its own name or another; whether it was new.

    A model that is there already, or ships, stays where it is. Raises ModelNotFoundError, ModelError, UsageError for a
    name that is none or another model's, OutputError.
    """
    data = _read(file)
    wanted = name if name is not None else file.name.removesuffix(SUFFIX)
    load_model(data, str(file))
    digest = hashlib.sha256(data).digest()
    known = [*shipped_models(), *added_models()]
    for info in known:
        if info.digest == digest:
            return info, False
    if not _NAME.fullmatch(wanted) or wanted.endswith(SUFFIX) or windows_fault(wanted):
        raise UsageError(f"model name {wanted!r}: must be up to 64 letters, digits, . _ and -; --name gives another")
    for info in known:
        if info.name.casefold() == wanted.casefold():
            taken = f"{info.name} is the model with digest {info.digest[:DIGEST_BYTES].hex()}"
            raise UsageError(f"{taken}, this one has {digest[:DIGEST_BYTES].hex()}: --name gives it another name")
    for other in unreadable_models():
        if other.name.casefold() == wanted.casefold():
            raise UsageError(f"{other.path} is there and cannot be read ({other.reason}): --name gives another name")
    target = added_folder() / f"{wanted}{SUFFIX}"
    make_folder(target.parent)
    with staged(target, data, force=False):
        pass
    return ModelInfo(wanted, digest, len(data), target), True


def _read(file: Path) -> bytes:
    """The file's bytes, no more than a model may have."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ModelNotFoundError(f"no such file: {file}") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise ModelError(f"model {file}: over {MAX_BYTES} bytes")
    return data
