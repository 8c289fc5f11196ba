"""The paper's Table 5 in small: L1, EFCR, EFCRex and pretraining from one start with one budget, three seeds.

    python scripts/prove_training.py LISTS OUTPUT --explore      # beta, reduction and weight of Lext, one seed
    python scripts/prove_training.py LISTS OUTPUT --beta B --reduction R --extra-weight W

LISTS is a folder that scripts/list_training_images.py wrote. Runs lie in OUTPUT; what is interrupted goes on when it is
called again, what is done is not repeated. Both write their tables into the document (docs/contrastive-training.md).
Needs MPT_DEBLUR_DATA (see CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from evaluate_detector import DATA
from proof import tables
from proof.arms import Arm, Images, arms, total_seconds, train_arm
from proof.fields import OTHER, TARGET, Seen, listed, seen
from proof.runs import Run
from proof.scores import Scores, kept_scores, restore_each, score, weights_key

from napari_mpt_deblur.detection import Detector, load_detector
from napari_mpt_deblur.evaluation.paired import PairedDifference
from napari_mpt_deblur.training import ContrastConfig

DOCUMENT = Path(__file__).parents[1] / "docs" / "contrastive-training.md"
DEPTHS_UM = (4.0, 8.0, 12.0)
FIGURES = {"psnr": ("PSNR, dB", 2), "ssim": ("SSIM", 4), "ap": ("mean AP", 4)}
# reduction, weight of Lext, betas; with a weight of 0.03 neither L- nor Lext is all of the denominator
GRID = (
    ("mean", 1.0, (1e-5, 1e-2, 1e-1, 1.0)),
    ("mean", 0.03, (1e-2, 1e-1)),
    ("sum", 1.0, (1e-5, 1e-3)),
)


def measured(run: Run, fields: list[Seen], detector: Detector | None = None) -> Scores:
    """What a run's last weights make of the fields; each plane normalised alone, as BBBC039 fields come."""

    def measure() -> Scores:
        return score(restore_each(run.last, fields), fields, detector)

    name = "scores.json" if detector is not None else "choice.json"
    return kept_scores(run.folder / name, weights_key(run.last, fields, detector), measure)


def explore(options: argparse.Namespace, images: Images) -> list[str]:
    """EFCR over beta, reduction and weight of Lext against L1, with one seed, on fields that only serve to choose."""
    seed = options.seeds[0]
    fields = [seen(path, number, DEPTHS_UM) for number, path in enumerate(images.spare[: options.fields])]
    grid = [ContrastConfig("pixel")] + [
        ContrastConfig("efcr", beta=beta, reduction=reduction, extra_weight=weight)
        for reduction, weight, betas in GRID
        for beta in betas
    ]
    rows, baseline, seconds = [], None, 0.0
    for contrast in grid:
        pixel = contrast.method == "pixel"
        name = "explore-pixel" if pixel else f"explore-{contrast.reduction}-{contrast.extra_weight:g}-{contrast.beta:g}"
        runs = train_arm(Arm(name, name, contrast), seed, options.iterations, images, options.output)
        seconds += total_seconds(runs)
        scores = measured(runs[-1], fields)
        baseline = baseline or scores
        rows.append(_explored(contrast, runs[-1], scores, None if pixel else baseline))
    head = ("reduction", "weight of Lext", "beta", "L-", "Lext", "Lext's share", "PSNR, dB", "gain, dB", "SE", "SSIM")
    return [
        f"EFCR against L1, seed {seed}, {options.iterations} iterations, {len(fields)} fields of the training split of "
        f"{TARGET} that no run sees, at {_depths()} um. L- and Lext are means over the last half of the run; the share "
        "is that of weight x Lext in the denominator; SE is over the fields. One seed decides nothing; it says where "
        "to look.",
        "",
        *tables.provenance(seconds / 60),
        "",
        *tables.table(head, rows),
    ]


def _explored(contrast: ContrastConfig, run: Run, scores: Scores, baseline: Scores | None) -> list[str]:
    figures = [f"{scores['psnr'].mean():.2f}", "", "", f"{scores['ssim'].mean():.4f}"]
    if baseline is None:
        return ["L1 alone", "", "", "", "", "", *figures]
    gain = PairedDifference.of(scores["psnr"].mean(1)[None], baseline["psnr"].mean(1)[None])
    figures[1:3] = [f"{gain.mean:+.2f}", f"{gain.se_images:.2f}"]
    share = run.share_of_extra(contrast.extra_weight) or 0.0
    terms = [f"{run.terms['negative']:.3g}", f"{run.terms['extra']:.3g}", f"{100 * share:.1f} %"]
    return [contrast.reduction, f"{contrast.extra_weight:g}", f"{contrast.beta:g}", *terms, *figures]


def prove(options: argparse.Namespace, images: Images) -> list[str]:
    """All arms with all seeds on validation fields."""
    chosen = ContrastConfig("efcr", beta=options.beta, reduction=options.reduction, extra_weight=options.extra_weight)
    every = arms(chosen)
    picked = [every[name] for name in options.arms or every]
    trained = {
        (arm.name, seed): train_arm(arm, seed, options.iterations, images, options.output)
        for seed in options.seeds
        for arm in picked
    }
    detector = load_detector("nuclei", device="cpu")
    paths = listed(options.lists, "validation", TARGET)
    paths = paths[:: max(1, len(paths) // options.fields)][: options.fields]
    fields = [seen(path, number, DEPTHS_UM) for number, path in enumerate(paths)]
    sharp = [field.truth[None] for field in fields]
    blurred = [field.planes for field in fields]
    references = {"blurred": score(blurred, fields, detector), "in focus": score(sharp, fields, detector)}
    results = {
        arm.name: [measured(trained[arm.name, seed][-1], fields, detector) for seed in options.seeds] for arm in picked
    }
    seconds = sum(map(total_seconds, trained.values()))
    return [
        f"`MPTConfig.tiny`, {options.iterations} iterations of 4 patches of 64 x 64 pixels, seeds "
        f"{', '.join(map(str, options.seeds))}; {len(images.pairs)} sharp fields of {TARGET} to train on, "
        f"{len(images.unlabelled)} others out of focus as unlabelled images, {len(images.extra)} images of {OTHER}. "
        f"Same weights to begin with, same pairs in the same order in every arm. beta {options.beta:g}, "
        f"{options.reduction}s, weight of Lext {options.extra_weight:g}, unless the row says otherwise.",
        "",
        *tables.provenance(seconds / 60),
        "",
        f"{len(fields)} validation fields of {TARGET} at {_depths()} um, as in the bundled model's card; each figure "
        "is the mean over the distances, then over fields and seeds. AP: the bundled detector, mean of the AP at IoU "
        "0.5, 0.7 and 0.9 of each image.",
        "",
        *_figures(picked, results, references, trained, options),
        "",
        f"Against {picked[0].title}. {tables.STANDARD_ERRORS}",
        "",
        *_differences(picked, results),
    ]


def _figures(
    picked: list[Arm],
    results: dict[str, list[Scores]],
    references: dict[str, Scores],
    trained: dict[tuple[str, int], list[Run]],
    options: argparse.Namespace,
) -> list[str]:
    rows = [[name, *_cells([scores]), "", "", ""] for name, scores in references.items()]
    for arm in picked:
        lasts = [trained[arm.name, seed][-1] for seed in options.seeds]
        seconds = np.mean([total_seconds(trained[arm.name, seed]) for seed in options.seeds])
        shares = [run.share_of_extra(arm.contrast.extra_weight) for run in lasts]
        share = "" if shares[0] is None else f"{100 * np.mean(shares):.1f} %"
        negative = "" if shares[0] is None else f"{np.mean([run.terms['negative'] for run in lasts]):.3g}"
        rows.append([arm.title, *_cells(results[arm.name]), negative, share, f"{seconds:.0f}"])
    heads = [title for title, _ in FIGURES.values()]
    return tables.table(["arm", *heads, "L-", "Lext's share of the denominator", "processor seconds a run"], rows)


def _cells(every: list[Scores]) -> list[str]:
    """Means over seeds, fields and distances; PSNR of the truth itself has none."""
    means = [(np.mean([scores[name].mean() for scores in every]), digits) for name, (_, digits) in FIGURES.items()]
    return [f"{mean:.{digits}f}" if np.isfinite(mean) else "" for mean, digits in means]


def _differences(picked: list[Arm], results: dict[str, list[Scores]]) -> list[str]:
    def of(arm: Arm, figure: str) -> np.ndarray:
        return np.array([scores[figure].mean(1) for scores in results[arm.name]])  # (seeds, fields)

    rows = []
    for figure, (title, digits) in FIGURES.items():
        for arm in picked[1:]:
            found = PairedDifference.of(of(arm, figure), of(picked[0], figure))
            rows.append([title, arm.title, *tables.difference_cells(found, digits + 1)])
    return tables.table(["figure", "arm", *tables.DIFFERENCE_HEAD], rows)


def _depths() -> str:
    return ", ".join(f"{depth:g}" for depth in DEPTHS_UM)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lists", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--explore", action="store_true", help="choose beta, reduction and weight of Lext")
    parser.add_argument("--arms", nargs="+", choices=list(arms(ContrastConfig())), help="the first is the baseline")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--fields", type=int, default=8, help="that are looked at")
    parser.add_argument("--beta", type=float, default=1e-5)
    parser.add_argument("--reduction", choices=["mean", "sum"], default="mean")
    parser.add_argument("--extra-weight", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not a folder: set MPT_DEBLUR_DATA, see CONTRIBUTING.md.")
    torch.set_num_threads(options.threads)
    images = Images.of(options.lists)
    if options.explore:
        tables.write_part(options.document, "exploration", explore(options, images))
    else:
        tables.write_part(options.document, "arms", prove(options, images))


if __name__ == "__main__":
    main()
