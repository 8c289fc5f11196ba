"""The course of a training run, as its events tell it: what the plot draws. No Qt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_mpt_deblur.training.events import Scores, Started, Step

Points = Sequence[tuple[float, float]]

SHOWN = ("total", "pixel", "positive", "negative", "extra")  # of the losses; their ratio is of no one's interest


@dataclass(eq=False)
class Curves:
    """All losses and validations so far.

    Attributes
    ----------
    began : int
        Iteration before the first step: above 0 where a run is gone on with.
    iterations : int
        Where the run ends.
    before : Scores or None
        Of the weights that training began with.
    """

    began: int = 0
    iterations: int = 1
    before: Scores | None = None
    _steps: list[int] = field(default_factory=list)
    _losses: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SHOWN})
    _validations: list[Scores] = field(default_factory=list)

    @classmethod
    def of(cls, started: Started) -> Curves:
        """The curves of a run that begins now."""
        return cls(started.iteration, started.iterations, started.before)

    def add(self, step: Step) -> None:
        """Note one iteration."""
        self._steps.append(step.iteration)
        for name, values in self._losses.items():
            value = getattr(step.losses, name)
            values.append(np.nan if value is None else value)
        if step.validation is not None:
            self._validations.append(step.validation)

    @property
    def is_empty(self) -> bool:
        return not self._steps

    def loss(self, name: str, most: int) -> Points:
        """A term of the loss.

        Parameters
        ----------
        name : str
            One of `SHOWN`.
        most : int
            Points; neighbours are averaged, which batches that differ need anyway.

        Returns
        -------
        sequence of (iteration, loss)
            Empty where the method has no such term.
        """
        values = np.asarray(self._losses[name])
        known = np.isfinite(values)
        if not known.any():
            return ()
        steps, values = np.asarray(self._steps, float)[known], values[known]
        edges = np.linspace(0, len(values), min(most, len(values)) + 1).astype(int)[:-1]
        counts = np.diff([*edges, len(values)])
        means = (np.add.reduceat(numbers, edges) / counts for numbers in (steps, values))
        return list(zip(*(mean.tolist() for mean in means), strict=True))

    @property
    def psnr(self) -> Points:
        """(iteration, dB) of every validation, that before training first."""
        scores = ([self.before] if self.before is not None and not self.began else []) + self._validations
        return [(score.iteration, score.psnr) for score in scores]
