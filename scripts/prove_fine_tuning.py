"""Does fine-tuning on an unlabelled stack of another microscope help? Three seeds, against the hidden truth.

    python scripts/prove_fine_tuning.py LISTS OUTPUT [--arms default pixel more] [--seeds 0 1 2]

LISTS is a folder that scripts/list_training_images.py wrote. A model is trained without the images of dsb2018_fluo
whose median nucleus area is over 700 pixels, and then fine-tuned, as the widget and the command line do by default, on
a stack of such images, out of focus, whose truth it is never given. Runs lie in OUTPUT; what is interrupted goes on
when it is called again, what is done is not repeated. The tables go into the document (docs/contrastive-training.md).
Needs MPT_DEBLUR_DATA (see CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from evaluate_model import DATA
from proof import tables
from proof.fields import Seen
from proof.microscope import (
    CASES,
    LARGE_PX,
    SIDE_PX,
    Group,
    as_source,
    fine_tune,
    fine_tuning,
    pretrain,
    train_more,
    views,
)
from proof.runs import Run
from proof.scores import Scores, kept_scores, restore_stack, score, weights_key

from napari_mpt_deblur.evaluation.paired import PairedDifference
from napari_mpt_deblur.training import FocusStacks, OpenLayer
from napari_mpt_deblur.training.request import PairSource

DOCUMENT = Path(__file__).parents[1] / "docs" / "contrastive-training.md"
ARMS = {
    "default": "the default: EFCRex, unlabelled",
    "pixel": "the pixel loss alone",
    "itself": "EFCRex; where nothing is sharp, the stack itself is the target",
    "planes": "EFCRex; the sharp side is the sharpest plane of each field",
    "more": "control: as many steps more of the known images",
}


def tune(arm: str, seed: int, case: str, base: Path, group: Group, options: argparse.Namespace) -> Run:
    """One fine-tuning; the control does not depend on the stack."""
    config = fine_tuning(base, seed, options.iterations, "pixel" if arm in ("pixel", "more") else "efcrex")
    if arm == "more":
        return train_more(base, group, config, options.output / f"more-{seed}")
    fields = views(group.stack, CASES[case], 0)
    stack = as_source("stack", [field.planes for field in fields])
    pairs: PairSource = FocusStacks((stack,)) if arm == "planes" else OpenLayer(stack, restored=arm != "itself")
    folder = options.output / f"{case.replace(' ', '-')}-{arm}-{seed}"
    return fine_tune(base, stack, pairs, config, folder, f"{case}, {ARMS[arm]}, {config.iterations} iterations")


def measured(folder: Path, weights: Path, fields: list[Seen], name: str) -> Scores:
    """PSNR and SSIM of the fields as one stack, restored with these weights."""

    def measure() -> Scores:
        return score(restore_stack(weights, fields), fields)

    return kept_scores(folder / f"{name}.json", [*weights_key(weights, fields), name], measure)


def prove_case(case: str, base: Path, group: Group, options: argparse.Namespace) -> tuple[list[str], list[Run]]:
    """The tables of one case, and its runs."""
    # of a stack through focus the sharp planes are the sharp side in any case
    arms = [arm for arm in options.arms if arm != "itself" or case == "out of focus"]
    runs = {(arm, seed): tune(arm, seed, case, base, group, options) for seed in options.seeds for arm in arms}
    sets = {
        "the stack itself": views(group.stack, CASES[case], 0),
        "other fields of the group": views(group.others, CASES[case], 100),
    }
    rows, by_depth = [], []
    for where, fields in sets.items():
        name = f"{case}-{where}".replace(" ", "-")
        blurred = score([field.planes for field in fields], fields)["psnr"]
        before = measured(options.output / "base", base, fields, name)["psnr"]
        by_depth += [_by_depth(f"{where}, {what}", psnr) for what, psnr in (("blurred", blurred), ("before", before))]
        for arm in arms:
            after = [measured(runs[arm, s].folder, runs[arm, s].best, fields, name)["psnr"] for s in options.seeds]
            found = PairedDifference.of([psnr.mean(1) for psnr in after], [before.mean(1)])
            figures = [f"{value.mean():.2f}" for value in (blurred, before, np.mean(after, 0))]
            rows.append([where, ARMS[arm], *figures, *tables.difference_cells(found, 3)])
            by_depth.append(_by_depth(f"{where}, after: {ARMS[arm]}", np.mean(after, 0)))
    head = ["fields", "fine-tuned by", "blurred, dB", "before, dB", "after, dB", *tables.DIFFERENCE_HEAD]
    lines = [
        f"### A stack {case}: {', '.join(f'{depth:g}' for depth in CASES[case])} um",
        "",
        *tables.table(head, rows),
        "",
        "PSNR by distance from focus:",
        "",
        *tables.table(["um", *(f"{depth:g}" for depth in CASES[case])], by_depth),
        "",
    ]
    return lines, list(runs.values())


def _by_depth(title: str, psnr: np.ndarray) -> list[str]:
    return [title, *(f"{value:.2f}" for value in psnr.mean(0))]


def prove(options: argparse.Namespace) -> list[str]:
    """Both cases."""
    group = Group.of(options.lists, options.fields, options.others)
    base = pretrain(group, options.pretraining, options.output / "base")
    cases = [prove_case(case, base.last, group, options) for case in CASES]
    tuned = {run.folder: run for _, runs in cases for run in runs}.values()
    longest = max(run.cpu_seconds for run in tuned)
    return [
        f"`MPTConfig.tiny`, trained for {options.pretraining} iterations of 4 patches of 64 x 64 on {len(group.known)} "
        "images of both data sets, at their own scale, without those of dsb2018_fluo whose median nucleus area is over "
        f"{LARGE_PX:.0f} pixels. The stack: {len(group.stack)} of these, {SIDE_PX} x {SIDE_PX}, defocused and recorded "
        f"as in the bundled model's card; {len(group.others)} others only measure. Seeds "
        f"{', '.join(map(str, options.seeds))}; the weights are those that a user gets. One fine-tuning took "
        f"{longest / 60:.1f} minutes of processor time at most.",
        "",
        *tables.provenance((base.cpu_seconds + sum(run.cpu_seconds for run in tuned)) / 60),
        "",
        f"PSNR against the hidden truth, mean over the distances. {tables.STANDARD_ERRORS}",
        "",
        *(line for lines, _ in cases for line in lines),
    ]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lists", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretraining", type=int, default=4000, help="iterations of the model to begin with")
    parser.add_argument("--iterations", type=int, help="of fine-tuning; the default's by default")
    parser.add_argument("--fields", type=int, default=6, help="of the stack")
    parser.add_argument("--others", type=int, default=8, help="fields that only measure")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not a folder: set MPT_DEBLUR_DATA, see CONTRIBUTING.md.")
    torch.set_num_threads(options.threads)
    tables.write_part(options.document, "fine-tuning", prove(options))


if __name__ == "__main__":
    main()
