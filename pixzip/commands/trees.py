"""What -r works on ↔ what is done before, now, and in all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from pixzip.commands.options import Settings
from pixzip.commands.outputs import Outputs
from pixzip.tree import Tally, Tree, is_done, make_folder, tree_of


def asked_tree(files: Sequence[str], output: str | None, recursive: bool) -> Tree | None:
    """The tree to work through, where -r asks for one. Raises UsageError as tree_of does."""
    return tree_of(files, output) if recursive else None


def is_before(file: str, targets: Sequence[Path], tree: Tree | None, outputs: Outputs, settings: Settings) -> bool:
    """Whether an earlier command has done this file of a tree. Raises UsageError where a target is another file's."""
    if tree is None or settings.force or not is_done(file, targets):
        return False
    for target in targets:
        outputs.claim(file, target)
    return True


def prepare(file: str, target: Path, tree: Tree | None, outputs: Outputs, *, dry_run: bool) -> None:
    """Check an output, and make its folder in a tree."""
    if tree is not None and not target.parent.is_dir():
        if dry_run:
            outputs.claim(file, target)
            return
        make_folder(target.parent)
    outputs.check(file, target)


@contextmanager
def summed_up(tally: Tally, tree: Tree | None, as_json: bool, quiet: bool) -> Iterator[None]:
    """Say what a command came to, whatever became of it: of a tree, or as JSON."""
    try:
        yield
    finally:
        if as_json:
            click.echo(tally.as_json())
        elif tree is not None and not quiet:
            click.echo(str(tally), err=True)
