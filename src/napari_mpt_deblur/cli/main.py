"""``mpt-deblur``: the entry point, and what its exit status says."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from napari_mpt_deblur import __version__
from napari_mpt_deblur.cli import compare, deblur, demo, detect, models, train
from napari_mpt_deblur.cli.console import FAILED, INTERRUPTED, USAGE, complain, complain_of_unexpected, polite_kill
from napari_mpt_deblur.errors import DeblurError, ParameterError


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each command's ``run`` takes the parsed arguments and returns the exit status."""
    parser = _Parser(
        prog="mpt-deblur", description="Bring out-of-focus microscopy back into focus.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"mpt-deblur {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an unexpected error comes from")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    deblur.add_parser(subparsers)
    detect.add_parser(subparsers)
    compare.add_parser(subparsers)
    models.add_parser(subparsers)
    train.add_parser(subparsers)
    demo.add_parser(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process by default.

    Returns
    -------
    int
        0 if all went well, 1 if something failed, 2 if the arguments make no sense, 130 if interrupted. (Arguments
        that cannot be parsed, ``--help`` and ``--version`` raise SystemExit, as argparse does.)
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what a terminal cannot show
    arguments = build_parser().parse_args(argv)
    try:
        with polite_kill():
            status = int(arguments.run(arguments))
        sys.stdout.flush()
        return status
    except ParameterError as error:
        complain(str(error))
        return USAGE
    except DeblurError as error:
        complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted; nothing half-written was left behind.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains as it exits
        return FAILED
    except MemoryError:
        complain("the computer's memory is full: close other programs, or give smaller images.")
        return FAILED
    except Exception as error:
        complain_of_unexpected(error, with_traceback=arguments.traceback)
        return FAILED
