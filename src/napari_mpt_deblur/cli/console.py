"""What the commands share: exit statuses, one-line messages, the progress bar and the types of options."""

from __future__ import annotations

import argparse
import math
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from napari_mpt_deblur.errors import AxesError, DeblurError, ModelError, ParameterError
from napari_mpt_deblur.images import Axes

if TYPE_CHECKING:
    from napari_mpt_deblur.checkpoints import ModelConfig
    from napari_mpt_deblur.restoration import Deblurrer

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
Result = TypeVar("Result")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def complain(message: str) -> None:
    """One line on the standard error output."""
    print(f"mpt-deblur: {' '.join(message.split())}", file=sys.stderr)


def complain_of_unexpected(error: Exception, *, where: str = "", with_traceback: bool = False) -> None:
    """One line on an error that is not the user's."""
    if with_traceback:
        traceback.print_exception(error)
    reason = f"unexpected {type(error).__name__}: {error}"
    complain(f"{where}{reason}; please report it, with what mpt-deblur --traceback shows.")


def ending_signals() -> tuple[int, ...]:
    """What asks a command to end: a kill, and a terminal that is closed, unless that is ignored (nohup)."""
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN:
        return (signal.SIGTERM,)
    return (signal.SIGTERM, hangup)


@contextmanager
def polite_kill() -> Iterator[None]:
    """Let a termination signal end the command as Ctrl-C does, so that nothing half-written is left behind."""
    if threading.current_thread() is not threading.main_thread():  # others may not set handlers
        yield
        return

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # clean up undisturbed
        raise KeyboardInterrupt

    before: dict[int, Any] = {number: signal.getsignal(number) for number in ending_signals()}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Options of everything that runs the engine."""
    parser.add_argument("--model", default=None, help="a name that `mpt-deblur models` lists, or a .safetensors file")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS, help="of the computation (default: auto)")
    parser.add_argument("--tile", type=pixels, metavar="PIXELS", help="side of a tile (default: by the memory)")


def make_deblurrer(arguments: argparse.Namespace) -> Deblurrer:
    """Load the model onto the device.

    Raises
    ------
    ParameterError
        If the model or the device cannot be used: the arguments are at fault.
    """
    from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, load_model
    from napari_mpt_deblur.restoration import Deblurrer

    try:
        model = load_model(arguments.model or DEFAULT_MODEL, device=arguments.device)
        return Deblurrer(model, device=arguments.device, precision=arguments.precision, tile_px=arguments.tile)
    except DeblurError as error:
        raise ParameterError(str(error)) from error


def check_model(arguments: argparse.Namespace) -> ModelConfig:
    """Find out whether there is such a model, and what it is, without loading torch.

    Raises
    ------
    ParameterError
        If there is none, or its file is damaged.
    """
    from napari_mpt_deblur.checkpoints import DEFAULT_MODEL, find_model, read_header

    try:
        return read_header(find_model(arguments.model or DEFAULT_MODEL)).config
    except (ModelError, OSError) as error:
        raise ParameterError(str(error)) from error


class Progress(Protocol):
    """How far a run is."""

    @property
    def done(self) -> int: ...

    @property
    def total(self) -> int: ...


def follow(run: Generator[Progress, None, Result], label: str) -> Result:
    """Drive a run to its end behind a progress bar (on terminals only)."""
    from tqdm import tqdm

    with tqdm(desc=label, unit="tile", leave=False, disable=None, file=sys.stderr) as bar:
        while True:
            try:
                progress = next(run)
            except StopIteration as finished:
                result: Result = finished.value
                return result
            if bar.total != progress.total:
                bar.total = progress.total
                bar.refresh()
            bar.update(progress.done - bar.n)


def pixels(text: str) -> int:
    """A whole number above 0, for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return number


def size(text: str) -> float:
    """A number above 0, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return number


def fraction(text: str) -> float:
    """A number above 0 and below 1, for argparse."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must be a number above 0 and below 1, not {text!r}")
    return number


def axes(text: str) -> str:
    """Letters of axes, for argparse; a C after YX is taken as colour."""
    try:
        return Axes(text[:-1] + "S" if text.upper().endswith("YXC") else text).text
    except AxesError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from error


def subparser(subparsers: Any, name: str, summary: str, run: Any) -> argparse.ArgumentParser:
    """A command of that name."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser
