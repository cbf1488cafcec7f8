"""Command lines ↔ commands, one line an error and an exit code.

The commands are in pixzip/commands, but for bench, which is in pixzip/benchmark. Every command imports what it needs
when it runs, so that --help and mistakes load neither numpy nor numba nor torch.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence

import click

from pixzip import __version__
from pixzip.benchmark.command import bench
from pixzip.commands.arguments import complain, say
from pixzip.commands.compress import compress
from pixzip.commands.decompress import decompress
from pixzip.commands.draw import complete, sample
from pixzip.commands.freeze import freeze
from pixzip.commands.info import info
from pixzip.commands.learning import evaluate, train
from pixzip.commands.models import models
from pixzip.commands.options import EXIT_CODES
from pixzip.commands.progress import Interrupted, Stop, handled_signals
from pixzip.commands.verify import verify
from pixzip.errors import LimitError, OutputError, PixzipError, UsageError


@click.group(epilog=EXIT_CODES, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pixzip")
@click.pass_context
def _pixzip(context: click.Context) -> None:
    """Lossless image compression by a neural network in exact integer arithmetic.

    A FILE of - is standard input or output. Messages go to standard error, one line each.
    """
    if context.invoked_subcommand is None:
        say(context.get_help())


for _command in (compress, decompress, info, verify, models, sample, complete, train, freeze, evaluate, bench):
    _pixzip.add_command(_command)


def commands() -> click.Group:
    """All commands, for what is written about them."""
    return _pixzip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit code."""
    stop = Stop()
    try:
        with handled_signals(stop):
            result = _pixzip.main(arguments, prog_name="pixzip", standalone_mode=False, obj=stop)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        complain("", error.format_message())
        return UsageError.exit_code
    except PixzipError as error:
        complain("", str(error))
        return error.exit_code
    except MemoryError as error:
        complain("", f"out of memory: {error}")
        return LimitError.exit_code
    except OSError as error:  # click writes --help and --version by itself; all other files have errors of their own
        if error.errno != errno.ENOSPC:
            raise
        complain("", f"cannot write to standard output: {error.strerror}")
        return OutputError.exit_code
    except Interrupted as error:
        complain("", "interrupted")
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        complain("", "interrupted")
        return 130
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
