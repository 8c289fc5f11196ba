"""``mpt-deblur train``: train a model on synthetic defocus of sharp images."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.cli.console import DONE, INTERRUPTED, complain, ending_signals, pixels, size, subparser
from napari_mpt_deblur.errors import DeblurError, ParameterError, TrainingError
from napari_mpt_deblur.images.atomic import check_creatable, make_folder
from napari_mpt_deblur.networks.config import MPTConfig
from napari_mpt_deblur.training.config import TrainingConfig

if TYPE_CHECKING:
    from napari_mpt_deblur.training.loop import Trainer

_SAVE_EVERY_S = 120.0


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparser(
        subparsers, "train", "train a model on sharp images, by synthetic defocus; resumes by itself", run
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="sharp images: files, folders, globs, or .txt lists of files"
    )
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for checkpoints, weights and the log")
    parser.add_argument(
        "--validation", nargs="+", metavar="IMAGE", help="images to validate on (default: every tenth of the images)"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file of TrainingConfig's settings")
    parser.add_argument(
        "--start-from",
        metavar="MODEL",
        help="begin with this model's weights (name or path) and its network, where the folder holds no run yet",
    )
    parser.add_argument("--iterations", type=pixels, help="how many (replaces the configuration's)")
    parser.add_argument("--minutes", type=size, help="stop after this time; the same command goes on later")
    parser.add_argument("--seed", type=int, help="of everything random (replaces the configuration's)")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")
    parser.add_argument("--restart", action="store_true", help="begin anew where the folder holds a run")


def run(arguments: argparse.Namespace) -> int:
    """Train to the end, to the time limit or until stopped; what was learnt is kept in each case."""
    check_creatable(arguments.output)
    trainer = _trainer(arguments)
    config = trainer.config
    make_folder(arguments.output)
    if arguments.restart:
        trainer.best_path.unlink(missing_ok=True)  # of the run before: not what this one comes to
    resumed = not arguments.restart and trainer.resume()
    print(f"{'Resumed' if resumed else 'Begun'} at iteration {trainer.iteration} of {config.iterations}.", flush=True)
    with _stop_between_steps() as stop:
        try:
            _follow(trainer, arguments.minutes, stop)
        except Exception:
            trainer.save()
            raise
        trainer.save()  # not where a step was torn: weights, average and the number of the step would not fit
    print(f"Weights: {trainer.best_path if trainer.best_path.exists() else trainer.last_path}")
    if stop.is_set() and trainer.iteration < config.iterations:
        complain("stopped; the same command goes on from here.")
        return INTERRUPTED
    return DONE


@contextmanager
def _stop_between_steps() -> Iterator[threading.Event]:
    """An event that Ctrl-C and a polite kill set, once; the second time they end the process as ever.

    Stopped in the middle of a step, weights, average and the number of the step would not belong together, and the
    run that resumes would not be the one that was stopped.
    """
    stop = threading.Event()
    before: dict[int, Any] = {}

    def note(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():  # others may not set handlers
        for number in (signal.SIGINT, *ending_signals()):
            before[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        for known, handler in before.items():
            signal.signal(known, handler)


def _config(arguments: argparse.Namespace, network: MPTConfig | None) -> TrainingConfig:
    try:
        if arguments.config:
            config = TrainingConfig.from_toml(arguments.config, network)
        else:
            config = TrainingConfig(network=network or MPTConfig.compact())
        changes = {name: getattr(arguments, name) for name in ("iterations", "seed")}
        return replace(config, **{name: value for name, value in changes.items() if value is not None})
    except TrainingError as error:
        raise ParameterError(str(error)) from error


def _trainer(arguments: argparse.Namespace) -> Trainer:
    from napari_mpt_deblur.checkpoints import load_model
    from napari_mpt_deblur.restoration import pick_device
    from napari_mpt_deblur.training.loop import Trainer
    from napari_mpt_deblur.training.sharp_images import hold_out, list_images, load_sharp_images

    try:
        device = pick_device(arguments.device)
        start = load_model(arguments.start_from, "cpu") if arguments.start_from else None
    except DeblurError as error:  # the arguments are at fault
        raise ParameterError(str(error)) from error
    config = _config(arguments, start.network.config if start else None)
    train = list_images(arguments.images)
    if arguments.validation:
        validation = list_images(arguments.validation)
    else:
        train, validation = hold_out(train)
    shared = set(train) & set(validation)
    if shared:
        raise TrainingError(f"{sorted(shared)[0]} is both trained and validated on: keep the two apart.")
    if not train or not validation:
        raise TrainingError("Training needs at least two sharp images: one to train on and one to validate on.")
    return Trainer(config, arguments.output, load_sharp_images(train), load_sharp_images(validation), device, start)


def _follow(trainer: Trainer, minutes: float | None, stop: threading.Event) -> None:
    from tqdm import tqdm

    begun = saved = time.monotonic()
    losses: list[float] = []
    with tqdm(total=trainer.config.iterations, initial=trainer.iteration, disable=None, file=sys.stderr) as bar:
        for step in trainer.run():
            losses.append(step.loss)
            bar.update()
            if step.validation is not None:
                trainer.log({"iteration": step.iteration, "loss": sum(losses) / len(losses), **step.validation})
                scores = ", ".join(f"{name} {value:.3f}" for name, value in step.validation.items())
                tqdm.write(f"{step.iteration}: loss {sum(losses) / len(losses):.5f}, {scores}", file=sys.stdout)
                sys.stdout.flush()
                losses.clear()
            now = time.monotonic()
            if now - saved > _SAVE_EVERY_S:
                trainer.save()
                saved = now
            if stop.is_set() or (minutes is not None and now - begun > 60 * minutes):
                return
