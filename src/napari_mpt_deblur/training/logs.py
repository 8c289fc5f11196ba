"""What a run writes down while it goes on: a line a validation, and every step for TensorBoard where that is asked."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_mpt_deblur.errors import ParameterError
from napari_mpt_deblur.images.atomic import make_folder, writing_failed
from napari_mpt_deblur.training.events import TERMS, Scores, Step
from napari_mpt_deblur.training.state import LOG, TENSORBOARD


class Log:
    """The log of a run, ``log.jsonl`` in its folder: figures of each validation, and the means of all terms before it.

    Parameters
    ----------
    folder : Path
    tensorboard : bool
        Write TensorBoard's event files, too, into the folder's ``tensorboard``.
    iteration : int
        Where the run goes on: TensorBoard hides what a run that was killed had written beyond it.

    Raises
    ------
    ParameterError
        If TensorBoard is asked for and not installed.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False, iteration: int = 0) -> None:
        self._path = folder / LOG
        self._losses: list[dict[str, float]] = []
        self._writer: Any = None
        if tensorboard:
            make_folder(folder)
            first = iteration + 1 if iteration else 0  # to be written; only a run that begins writes its start
            self._writer = self.check_tensorboard()(str(folder / TENSORBOARD), purge_step=first)

    @staticmethod
    def check_tensorboard() -> Any:
        """TensorBoard's writer.

        Raises
        ------
        ParameterError
            If it is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ParameterError(
                "A TensorBoard log needs the package tensorboard: pip install 'napari-mpt-deblur[tensorboard]'."
            ) from error
        return SummaryWriter

    def begin(self, scores: Scores) -> None:
        """The figures before the first step."""
        self._write(asdict(scores))
        self._draw_scores(scores)

    def add(self, step: Step) -> None:
        """One step."""
        self._losses.append(step.losses.to_dict())
        if self._writer is not None:
            for name, value in self._losses[-1].items():
                self._writer.add_scalar(f"loss/{TERMS[name]}", value, step.iteration)
            self._writer.add_scalar("learning rate", step.learning_rate, step.iteration)
        if step.validation is None:
            return
        means = {name: sum(each[name] for each in self._losses) / len(self._losses) for name in self._losses[0]}
        self._losses.clear()
        self._write({"iteration": step.iteration, "loss": means.pop("total"), **means, **asdict(step.validation)})
        self._draw_scores(step.validation)

    def close(self) -> None:
        """Nothing more will come."""
        if self._writer is not None:
            self._writer.close()

    def _draw_scores(self, scores: Scores) -> None:
        if self._writer is not None:
            for name in ("psnr", "ssim"):
                self._writer.add_scalar(f"validation/{name}", getattr(scores, name), scores.iteration)

    def _write(self, entry: dict[str, Any]) -> None:
        make_folder(self._path.parent)
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"time": round(time.time()), **entry}) + "\n")
        except OSError as error:
            raise writing_failed(self._path, error) from error
