"""The ledger of nuclei: a hand-made case of every fate, what holds for any, and what the raw image says."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import numpy as np
import pytest
from detection.drawing import disc, pairs
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mpt_deblur.detection.fates import Objects, matched_with
from napari_mpt_deblur.detection.ledger import Ledger, Nucleus, ledger
from napari_mpt_deblur.detection.precision import count_matches
from napari_mpt_deblur.errors import ImageError, LabelsError, ParameterError

MIRROR = {"kept": "kept", "split": "merged", "merged": "split", "lost": "gained", "gained": "lost"}


def row(*runs: tuple[int, int]) -> np.ndarray:
    """A plane of one row: ``(label, pixels)`` one after another."""
    return np.array([np.concatenate([np.full(length, label) for label, length in runs])])


def fates(found: Ledger) -> tuple[dict[int, Any], dict[int, Any]]:
    """Fate and partners by label."""
    before, after = ({n.label: (n.fate, n.partners) for n in side} for side in (found.before, found.after))
    return before, after


def test_kept() -> None:
    found = ledger(row((0, 2), (3, 10), (0, 2)), row((0, 2), (0, 3), (8, 7), (0, 2)))
    assert fates(found) == ({3: ("kept", (8,))}, {8: ("kept", (3,))})
    assert found.before[0].iou == found.after[0].iou == pytest.approx(0.7)


def test_kept_at_exactly_half_and_not_below() -> None:
    assert fates(ledger(row((1, 10)), row((1, 5), (0, 5))))[0] == {1: ("kept", (1,))}
    assert fates(ledger(row((1, 11)), row((1, 5), (0, 6)))) == ({1: ("lost", ())}, {1: ("gained", ())})


def test_split() -> None:
    before, after = fates(ledger(row((1, 20)), row((5, 9), (0, 2), (6, 9))))
    assert before == {1: ("split", (5, 6))}
    assert after == {5: ("split", (1,)), 6: ("split", (1,))}


def test_split_into_exact_halves() -> None:
    assert fates(ledger(row((1, 10)), row((5, 5), (6, 5))))[0] == {1: ("split", (5, 6))}


def test_a_large_and_a_small_piece_are_a_split_but_debris_is_not() -> None:
    assert fates(ledger(row((1, 20)), row((5, 16), (6, 4))))[0] == {1: ("split", (5, 6))}
    before, after = fates(ledger(row((1, 20)), row((5, 17), (6, 3))))
    assert before == {1: ("kept", (5,))}
    assert after == {5: ("kept", (1,)), 6: ("gained", ())}


def test_merged() -> None:
    before, after = fates(ledger(row((5, 9), (0, 2), (6, 9)), row((1, 20))))
    assert before == {5: ("merged", (1,)), 6: ("merged", (1,))}
    assert after == {1: ("merged", (5, 6))}


def test_lost_and_gained() -> None:
    before, after = fates(ledger(row((1, 5), (0, 20)), row((0, 20), (1, 5))))
    assert before == {1: ("lost", ())}
    assert after == {1: ("gained", ())}


def test_a_chain_is_split_before_and_merged_after() -> None:
    # 1 falls into 7 and 8; 7 is also made of 1 and 2
    before, after = fates(ledger(row((1, 100), (2, 40)), row((8, 40), (7, 100))))
    assert before == {1: ("split", (7, 8)), 2: ("merged", (7,))}
    assert after == {7: ("merged", (1, 2)), 8: ("split", (1,))}


def test_stacks_are_matched_plane_by_plane() -> None:
    before, after = np.zeros((2, 2, 3, 6), int), np.zeros((2, 2, 3, 6), int)  # time, depth
    before[0, 1, 0, :4] = 1
    before[1, 0, 2, 3:] = 1
    after[0, 1, 0, :4] = 9
    after[1, 1, 2, 3:] = 9  # elsewhere than in `before`: another plane
    found = ledger(before, after)
    assert [(n.plane, n.label, n.fate, n.y, n.x) for n in found.before] == [
        (1, 1, "kept", 0, 1.5),
        (2, 1, "lost", 2, 4),
    ]
    assert [(n.plane, n.label, n.fate) for n in found.after] == [(1, 9, "kept"), (3, 9, "gained")]


def test_nothing_against_nothing() -> None:
    found = ledger(np.zeros((4, 5), int), np.zeros((4, 5)), np.zeros((4, 5)), truth=np.zeros((4, 5), int))
    assert (found.before, found.after) == ((), ())
    assert found.totals() == {
        "before": {"nuclei": 0, "kept": 0, "split": 0, "merged": 0, "lost": 0, "right": 0, "wrong": 0},
        "after": {
            "nuclei": 0,
            "kept": 0,
            "split": 0,
            "merged": 0,
            "gained": 0,
            "right": 0,
            "wrong": 0,
            "unsupported": 0,
        },
    }
    assert all(len(column) == 0 for column in found.features("after").values())
    assert found.to_csv().count("\n") == 1


@settings(max_examples=250, deadline=None)
@given(pairs((8, 9)))
def test_every_nucleus_has_one_fate_and_exchanging_mirrors_it(pair: tuple[np.ndarray, np.ndarray]) -> None:
    before, after = pair
    found, mirrored = ledger(before, after), ledger(after, before)
    for label_image, entries, mirror in (
        (before, found.before, mirrored.after),
        (after, found.after, mirrored.before),
    ):
        assert [n.label for n in entries] == [label for label in np.unique(label_image) if label]
        assert [(n.label, MIRROR[n.fate], n.partners, n.iou) for n in entries] == [
            (n.label, n.fate, n.partners, n.iou) for n in mirror
        ]
    by_label = {n.label: n for n in found.after}
    for nucleus in found.before:
        assert all(nucleus.label in by_label[label].partners for label in nucleus.partners)
        if nucleus.fate == "kept":
            (label,) = nucleus.partners
            assert by_label[label].fate == "kept"
            assert by_label[label].partners == (nucleus.label,)
        if nucleus.iou >= 0.5:
            assert nucleus.fate != "lost"
        assert (nucleus.fate == "lost") == (not nucleus.partners)
    totals = found.totals()
    for side, names in (("before", "kept split merged lost"), ("after", "kept split merged gained")):
        assert sum(totals[side][name] or 0 for name in names.split()) == totals[side]["nuclei"]
    assert totals["before"]["kept"] == totals["after"]["kept"]


@settings(max_examples=150, deadline=None)
@given(st.lists(pairs((6, 7)), min_size=1, max_size=3))
def test_as_many_are_right_as_stardist_matches(planes: list[tuple[np.ndarray, np.ndarray]]) -> None:
    truth, labels = (np.stack(stack) for stack in zip(*planes, strict=True))
    (count,) = count_matches(truth, labels, [0.5])
    assert matched_with(Objects.of(labels), Objects.of(truth)).sum() == count.tp
    totals = ledger(labels, truth, truth=truth).totals()
    assert (totals["before"]["right"], totals["before"]["wrong"]) == (count.tp, count.fp)
    assert totals["after"]["wrong"] == 0


def test_right_and_wrong() -> None:
    truth = row((0, 4), (2, 10), (0, 6))
    found = ledger(row((0, 4), (1, 4), (0, 12)), row((0, 4), (1, 5), (0, 5), (2, 6)), truth=truth)
    assert [n.right for n in found.before] == [False]
    assert [n.right for n in found.after] == [True, False]


def noisy(rng: np.random.Generator, radius: float, height: float, sigma: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of a disc, and an image in which it stands that many sigma out of the noise."""
    labels = disc((64, 64), 30, 33, radius).astype(np.uint16)
    return labels, 500 + sigma * (rng.standard_normal((64, 64)) + height * labels)


def test_a_nucleus_at_five_sigma_has_evidence() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        labels, raw = noisy(rng, 6, 5)
        (nucleus,) = ledger(np.zeros_like(labels), labels, raw).after
        assert nucleus.fate == "gained"
        assert nucleus.unsupported is False
        assert nucleus.contrast == pytest.approx(5, abs=0.9)  # 10 % of it the estimate of the noise
        assert nucleus.evidence is not None
        assert nucleus.evidence > 20


def test_noise_is_no_evidence() -> None:
    rng = np.random.default_rng(2)
    values = []
    for _ in range(400):
        labels, raw = noisy(rng, rng.uniform(2, 9), 0)
        (nucleus,) = ledger(np.zeros_like(labels), labels, raw).after
        assert nucleus.evidence is not None
        assert nucleus.unsupported is (nucleus.evidence < 3)
        values.append(nucleus.evidence)
    assert np.mean(values) == pytest.approx(0, abs=0.2)  # four standard errors
    assert np.std(values) == pytest.approx(1, abs=0.2)
    assert np.mean(np.array(values) >= 3) <= 0.01  # 0.0013 expected, 4 of 400 all but impossible


def sample_with_invented_nuclei() -> tuple[Any, np.ndarray, np.ndarray]:
    """The sample's stack, its true labels, and these with discs (from 1001) where the background is free."""
    from scipy.ndimage import distance_transform_edt
    from stardist.data import test_image_nuclei_2d

    from napari_mpt_deblur.optics.sample import sample_focus_stack

    truth = test_image_nuclei_2d(return_mask=True)[1].astype(int)
    free = distance_transform_edt(truth == 0) > 9
    labels, number = truth.copy(), 1000
    for y in range(16, 496, 10):
        for x in range(16, 496, 10):
            if free[y, x] and not (labels[y - 16 : y + 17, x - 16 : x + 17] > 1000).any():
                number += 1
                labels[disc(truth.shape, y, x, 8)] = number
    return sample_focus_stack(), truth, labels


def test_evidence_tells_real_nuclei_from_invented_ones_in_an_uneven_background() -> None:
    sample, truth, labels = sample_with_invented_nuclei()
    for plane in sample.stack[:4]:  # from 12 um of defocus to none
        before = ledger(truth, labels, plane)
        invented = [nucleus for nucleus in before.after if nucleus.label > 1000]
        assert len(invented) > 50
        assert {nucleus.fate for nucleus in invented} == {"gained"}
        assert np.mean([nucleus.unsupported for nucleus in invented]) > 0.95
        real = ledger(np.zeros_like(truth), truth, plane).after
        assert np.mean([nucleus.unsupported for nucleus in real]) < 0.03


def test_only_the_gained_are_unsupported() -> None:
    labels = disc((40, 40), 20, 20, 6).astype(int)
    raw = np.random.default_rng(0).normal(100, 5, (40, 40))
    found = ledger(labels, labels, raw)
    assert found.after[0].evidence is not None
    assert found.after[0].evidence < 3
    assert found.after[0].unsupported is found.before[0].unsupported is False


def test_without_surroundings_it_is_not_known_whether_a_nucleus_is_supported() -> None:
    labels = np.ones((30, 30), int)  # all of the plane
    labels[:, 15:] = 2
    raw = np.random.default_rng(0).normal(100, 5, (30, 30))
    found = ledger(np.where(labels == 1, 1, 0), labels, raw)
    assert [(n.fate, n.evidence, n.unsupported) for n in found.after] == [("kept", None, False), ("gained", None, None)]
    assert found.totals()["after"]["unsupported"] == 0
    assert found.features("after")["unsupported"].tolist() == ["no", ""]


def test_neighbours_are_not_surroundings_and_share_them() -> None:
    rng = np.random.default_rng(4)
    left, right = disc((60, 60), 30, 20, 7), disc((60, 60), 30, 36, 7)
    labels = left * 1 + right * 2
    raw = rng.normal(100, 1, (60, 60)) + 3.0 * left + 1000.0 * right
    first, second = ledger(labels, np.zeros_like(labels), raw).before
    assert first.contrast == pytest.approx(3, abs=0.5)
    assert second.contrast == pytest.approx(1000, rel=0.1)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_images_without_noise_have_finite_evidence(dtype: Any) -> None:
    labels = disc((40, 40), 12, 12, 5) * 1 + disc((40, 40), 28, 28, 5) * 2
    raw = np.where(labels == 1, 200, 50).astype(dtype)
    real, invented = ledger(np.zeros_like(labels), labels, raw).after
    assert real.evidence is not None
    assert np.isfinite(real.evidence)
    assert not real.unsupported
    assert invented.evidence == pytest.approx(0, abs=1e-6)
    assert invented.unsupported


def test_intensities_are_those_of_the_raw_image() -> None:
    labels = np.zeros((2, 20, 20), int)
    labels[1, 5:7, 5:8] = 4
    raw = np.arange(800, dtype=np.uint16).reshape(2, 20, 20)
    (nucleus,) = ledger(
        labels, labels, raw, probabilities=({(1, 4): 0.75, (0, 4): 0.5}, None), pixel_size_um=0.5
    ).before
    assert nucleus.total_intensity == raw[1, 5:7, 5:8].sum()
    assert nucleus.mean_intensity == pytest.approx(raw[1, 5:7, 5:8].mean())
    assert (nucleus.area_px, nucleus.area_um2, nucleus.probability) == (6, 1.5, 0.75)
    assert (nucleus.y, nucleus.x) == (5.5, 6)


def test_pixels_that_are_not_finite_do_not_count() -> None:
    labels = np.zeros((20, 20), int)
    labels[5:7, 5:7], labels[15:17, 15:17] = 1, 2
    raw = np.random.default_rng(0).normal(10, 1, (20, 20))
    raw[5, 5], raw[0, 0], raw[15:17, 15:17] = np.nan, np.inf, np.nan
    first, second = ledger(labels, labels, raw).before
    assert first.mean_intensity == pytest.approx(np.nanmean(raw[5:7, 5:7]))
    assert first.evidence is not None
    assert second.mean_intensity is second.total_intensity is second.evidence is None


def test_without_a_raw_image_nothing_is_measured() -> None:
    found = ledger(row((1, 5)), row((0, 2), (1, 3)))
    for nucleus in (*found.before, *found.after):
        assert nucleus.mean_intensity is nucleus.evidence is nucleus.unsupported is None
    assert found.totals()["after"]["unsupported"] is None


def a_ledger() -> Ledger:
    labels = disc((40, 40), 12, 12, 5) * 1 + disc((40, 40), 28, 28, 5) * 300
    raw = np.random.default_rng(0).normal(100, 5, (40, 40)) + 50.0 * labels
    return ledger(np.where(labels == 300, 0, labels), labels, raw, truth=labels, probabilities=(None, {(0, 300): 0.5}))


def test_csv_says_what_the_entries_say() -> None:
    found = a_ledger()
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert tuple(rows[0]) == found.columns
    assert len(rows) == len(found.to_rows()) == 3
    for text, nucleus in zip(rows, (*found.before, *found.after), strict=True):
        back = Nucleus(
            **{name: text[name] for name in ("image", "fate")},
            **{name: int(text[name]) for name in ("label", "plane", "area_px")},
            **{name: float(text[name]) for name in ("y", "x", "iou")},
            **{
                name: float(text[name]) if text[name] else None
                for name in ("area_um2", "probability", "mean_intensity", "total_intensity", "contrast", "evidence")
            },
            partners=tuple(map(int, text["partners"].split())),
            unsupported={"": None, "yes": True, "no": False}[text["unsupported"]],
            right={"": None, "right": True, "wrong": False}[text["right"]],
        )
        assert back == nucleus


def test_rows_and_totals_are_json() -> None:
    found = a_ledger()
    assert json.loads(json.dumps(found.totals(), allow_nan=False)) == found.totals()
    assert json.loads(json.dumps(found.to_rows(), allow_nan=False))[2]["label"] == 300


def test_features_fit_a_labels_layer() -> None:
    from napari.layers import Labels

    found = a_ledger()
    table = found.features("after")
    assert {len(column) for column in table.values()} == {2}
    assert table["index"].tolist() == [1, 300]
    assert table["fate"].tolist() == ["kept", "gained"]
    assert table["right"].tolist() == ["right", "right"]
    assert np.isnan(table["probability"][0])
    assert table["probability"][1] == 0.5
    layer = Labels(np.zeros((40, 40), int), features=table)
    assert layer.features["fate"].tolist() == ["kept", "gained"]
    assert layer._label_index == {1: 0, 300: 1}


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "reason"),
    [
        (
            (np.zeros((3, 3), int), np.zeros((3, 4), int)),
            {},
            LabelsError,
            r"labels before \(3 x 3\) and the labels after",
        ),
        ((np.zeros((3, 3), int), np.full((3, 3), 0.5)), {}, LabelsError, "labels after hold fractions"),
        ((np.eye(3, dtype=int),) * 2, {"truth": np.zeros((2, 3, 3), int)}, LabelsError, "truth"),
        ((np.eye(3, dtype=int),) * 2, {"raw": np.zeros((2, 3, 3))}, LabelsError, "raw image"),
        ((np.eye(3, dtype=int),) * 2, {"raw": np.zeros((3, 3), complex)}, ImageError, "raw image"),
        ((np.eye(3, dtype=int),) * 2, {"pixel_size_um": 0}, ParameterError, "above 0"),
    ],
)
def test_what_makes_no_sense(arguments: Any, keywords: Any, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason) as caught:
        ledger(*arguments, **keywords)
    assert "\n" not in str(caught.value)
