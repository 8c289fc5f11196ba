"""``mpt-deblur train``: train a model, or bring one to images at hand; stopped and taken up again."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_mpt_deblur.cli.console import DONE, INTERRUPTED, complain, ending_signals, size, subparser
from napari_mpt_deblur.cli.train_request import add_options, make_request
from napari_mpt_deblur.errors import DeviceError, ParameterError
from napari_mpt_deblur.training.events import Event, Finished, Scores, Started, Step
from napari_mpt_deblur.words import describe_seconds

if TYPE_CHECKING:
    from tqdm import tqdm


def add_parser(subparsers: Any) -> None:
    """Add the command."""
    parser = subparser(
        subparsers,
        "train",
        "train a model on sharp images, on pairs, on a stack through focus, or fine-tune one on an image; "
        "resumes by itself",
        run,
    )
    parser.add_argument("-o", "--output", required=True, type=Path, help="folder for checkpoints, weights and the log")
    add_options(parser)
    parser.add_argument("--minutes", type=size, help="stop after this time; the same command goes on later")
    parser.add_argument("--device", default="auto", help="auto (default), cpu, cuda, cuda:1 or mps")
    parser.add_argument("--restart", action="store_true", help="begin anew where the folder holds a run")
    parser.add_argument("--tensorboard", action="store_true", help="write a TensorBoard log into the folder, too")
    parser.add_argument("--name", help="put the weights into your library under this name when the run has ended")
    parser.add_argument("--overwrite", action="store_true", help="replace a model of yours that has this name")


def run(arguments: argparse.Namespace) -> int:
    """Train to the end, to the time limit or until stopped; what was learnt is kept in each case."""
    request = make_request(arguments)
    from napari_mpt_deblur.restoration import pick_device
    from napari_mpt_deblur.training.publish import check_name, publish
    from napari_mpt_deblur.training.session import train

    try:
        pick_device(arguments.device)
    except DeviceError as error:  # the arguments are at fault
        raise ParameterError(str(error)) from error
    if arguments.name is not None:
        check_name(arguments.name, overwrite=arguments.overwrite)
    finished = _follow(train(request))
    if finished is None:
        last = request.folder / "last.safetensors"
        print(f"Weights: {last}")
        complain("stopped; the same command goes on from here.")
        return INTERRUPTED
    before, after = finished.before, finished.after
    print(f"Held-out patches: {_scores(before)} before, {_scores(after)} after.")
    if finished.got_worse:
        complain("validation got worse: these weights restore the held-out patches worse than the run began.")
    print(f"Weights: {finished.weights}")
    if arguments.name is not None:
        path = publish(finished.weights, arguments.name, overwrite=arguments.overwrite)
        print(f"Saved as {arguments.name}: {path}")
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


def _follow(events: Generator[Event, None, Finished]) -> Finished | None:
    """Drive a run to its end; None where it was stopped before."""
    from tqdm import tqdm

    stop = threading.Event()
    with ExitStack() as stack:
        bar = stack.enter_context(tqdm(disable=None, file=sys.stderr))
        losses: list[float] = []
        while not stop.is_set():
            try:
                event = next(events)
            except StopIteration as end:
                finished: Finished = end.value
                return finished
            if isinstance(event, Started):
                _show_start(event)
                bar.total, bar.n = event.iterations, event.iteration
                bar.refresh()
                stop = stack.enter_context(_stop_between_steps())  # what comes before may be torn
            elif isinstance(event, Step):
                losses.append(event.loss)
                bar.update()
                if event.validation is not None:
                    _show_validation(event, event.validation, sum(losses) / len(losses), bar)
                    losses.clear()
        events.close()  # saves
    return None


def _show_start(started: Started) -> None:
    """All that is known before the first step."""
    for note in started.notes:
        print(note)
    estimate = started.estimate
    print(f"{'Resumed' if started.iteration else 'Begun'} at iteration {started.iteration} of {started.iterations}.")
    span = "for what is left" if started.iteration else "in all"
    print(
        f"About {estimate.seconds_per_step:.2g} s a step, {describe_seconds(estimate.seconds)} {span}, "
        f"{estimate.memory_bytes / 1e9:.1f} GB of memory, on {started.device} in {started.precision}."
    )
    print(f"0: {_scores(started.before)}", flush=True)


def _show_validation(step: Step, scores: Scores, mean_loss: float, bar: tqdm[Any]) -> None:
    terms = ", ".join(f"{name} {value:.3g}" for name, value in step.losses.to_dict().items() if name != "total")
    text = f"{step.iteration}: loss {mean_loss:.5f} ({terms}), {_scores(scores)}"
    bar.write(text, file=sys.stdout)
    sys.stdout.flush()


def _scores(scores: Scores) -> str:
    return f"PSNR {scores.psnr:.2f} dB (blurred {scores.psnr_blurred:.2f}), SSIM {scores.ssim:.3f}"
