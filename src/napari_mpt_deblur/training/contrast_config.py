"""What is minimised besides the pixel loss: EFCR, its forms, and the paper's ablations of it. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.training.checks import number, one_of, sequence, whole

Method = Literal["pixel", "efcr", "efcrex", "efcrex_labelled", "v1", "vex1"]

METHODS: dict[Method, str] = {
    "pixel": "the pixel loss alone",
    "efcr": "EFCR: {L+, L-, Lext}, all on the pairs",
    "efcrex": "EFCRex with unlabelled images: {L+, L-} on the pairs, Lext' on the images",
    "efcrex_labelled": "EFCRex with labelled extra data: {L+', L-', Lext'} on the extra pairs",
    "v1": "ablation of Table 5: {L+, L-} on the pairs",
    "vex1": "ablation of Table 5: {L+', L-'} on the extra pairs",
}


@dataclass(frozen=True)
class ContrastConfig:
    """The contrastive part of the loss: pixel loss + beta * mean of L+ / (L- + extra_weight * Lext).

    Parameters
    ----------
    method : {"pixel", "efcr", "efcrex", "efcrex_labelled", "v1", "vex1"}
        `METHODS` says what each is. ``"efcrex"`` needs unlabelled images, ``"efcrex_labelled"`` and ``"vex1"`` extra
        pairs. The pixel loss is always that of the pairs.
    beta : float
        Weight of the contrastive part (equation 7).
    reduction : {"mean", "sum"}
        Of the L1 norms; see `efcr`.
    extra_weight : float
        Of Lext in the denominator.
    kernels_px : tuple of int
        Odd sides of the Gaussian kernels, one of which blurs each image once more, equally likely; one that stands
        twice is twice as likely (the released code: 3, 5, 5, 7).
    sigma_px : float
        Of these kernels. The paper does not state it; 10, nearly a box, is the released code's.

    Raises
    ------
    TrainingError
        If a value is not accepted.
    """

    method: Method = "pixel"
    beta: float = 1e-5
    reduction: Literal["mean", "sum"] = "mean"
    extra_weight: float = 1.0
    kernels_px: tuple[int, ...] = (3, 5, 7)
    sigma_px: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernels_px", sequence(self.kernels_px))
        one_of(self.method, "method", tuple(METHODS))
        one_of(self.reduction, "reduction", ("mean", "sum"))
        number(self.beta, "beta", least=0)
        number(self.extra_weight, "extra_weight", least=0)
        if not number(self.sigma_px, "sigma_px") > 0:
            raise TrainingError(f"sigma_px must be above 0; got {self.sigma_px}.")
        if not self.kernels_px or any(whole(side, "kernels_px", 3) % 2 == 0 for side in self.kernels_px):
            raise TrainingError(f"kernels_px must be odd numbers of at least 3; got {list(self.kernels_px)}.")

    @property
    def needs_unlabelled(self) -> bool:
        """Whether the method takes unlabelled images."""
        return self.method == "efcrex"

    @property
    def needs_extra_pairs(self) -> bool:
        """Whether the method takes extra pairs, of another domain."""
        return self.method in ("efcrex_labelled", "vex1")

    @property
    def has_extra_term(self) -> bool:
        """Whether Lext is in the denominator: an image that was blurred once more goes through the network."""
        return self.method in ("efcr", "efcrex", "efcrex_labelled")

    @property
    def passes(self) -> int:
        """Images that go through the network for each of the batch."""
        return 1 + self.has_extra_term + self.needs_extra_pairs
