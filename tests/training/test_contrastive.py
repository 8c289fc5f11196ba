"""EFCR and EFCRex against PyWavelets, against values worked by hand, and against themselves in other forms."""

import math

import numpy as np
import pytest
import pywt
import torch
from torch.autograd import gradcheck

from napari_mpt_deblur.errors import TrainingError
from napari_mpt_deblur.training import EFCR, efcr, efcr_extra, haar_bands, to_channels
from napari_mpt_deblur.training.contrastive import efcr_terms


def _images(count=5, batch=2, channels=1, side=8, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(batch, channels, side, side, generator=generator, dtype=dtype) for _ in range(count)]


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (2, 3, 6, 10), (1, 2, 7, 5), (1, 1, 1, 1), (3, 1, 2, 9)])
def test_bands_are_those_of_pywavelets(shape):
    x = np.random.default_rng(0).random(shape)
    low, high = haar_bands(torch.from_numpy(x))
    expected_low, details = pywt.dwt2(x, "haar")
    np.testing.assert_allclose(low.numpy(), expected_low, atol=1e-12)
    np.testing.assert_allclose(high.numpy(), np.concatenate(details, 1), atol=1e-12)


@pytest.mark.parametrize("x", [torch.zeros(3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.int32)])
def test_bands_refuse_what_is_no_batch_of_images(x):
    with pytest.raises(TrainingError, match="floating"):
        haar_bands(x)


def test_bands_worked_by_hand_and_their_gradient():
    x = torch.tensor([[5.0, 3.0], [1.0, 2.0]], dtype=torch.float64).reshape(1, 1, 2, 2)
    low, high = haar_bands(x)
    assert low.item() == pytest.approx((5 + 3 + 1 + 2) / 2)
    np.testing.assert_allclose(high.flatten(), [(5 + 3 - 1 - 2) / 2, (5 - 3 + 1 - 2) / 2, (5 - 3 - 1 + 2) / 2])
    assert gradcheck(haar_bands, [_images(1, channels=2, side=5)[0].requires_grad_()])


def test_a_value_worked_by_hand():
    """2 x 2 images: cA, cH, cV, cD are (a+b+c+d, a+b-c-d, a-b+c-d, a-b-c+d) / 2; one value each.

    output - target = (1, 0, 0, 0): all bands 1/2, so L+ = 1/2 + 1/2. output - blurred = (0, 2, 0, 0): high bands
    1, -1, -1, so L- = 1. blurred - reblurred = (0, 0, 4, 0): high bands of size 2; reblurred_output - reblurred =
    (0, 0, 0, 6): of size 3; Lext = 3/2. Together 1 / (1 + 3/2).
    """

    def image(*values):
        return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 2, 2)

    output, reblurred = image(5.0, 7.0, 1.0, 2.0), image(5.0, 5.0, -3.0, 2.0)
    target = output - image(1, 0, 0, 0)
    blurred = output - image(0, 2, 0, 0)
    again = reblurred + image(0, 0, 0, 6)
    assert torch.equal(blurred - reblurred, image(0, 0, 4, 0))
    assert efcr(output, target, blurred, reblurred, again).item() == pytest.approx(1 / 2.5, rel=1e-12)
    assert efcr_extra(output, target, blurred, reblurred, again).item() == pytest.approx(0.5 / 2.5, rel=1e-12)
    # sums over three high bands and one low one; Lext is a ratio and stays
    sums = efcr(output, target, blurred, reblurred, again, reduction="sum").item()
    assert sums == pytest.approx((1.5 + 0.5) / (3 + 1.5), rel=1e-12)
    half = efcr(output, target, blurred, reblurred, again, extra_weight=0.5).item()
    assert half == pytest.approx(1 / 1.75, rel=1e-12)
    # two unlabelled images, whose Lext' are 3/2 and 0: their mean replaces Lext
    others = (torch.cat([blurred, blurred]), torch.cat([reblurred, reblurred]), torch.cat([again, reblurred]))
    unlabelled = efcr(output, target, blurred, reblurred, again, extra=others).item()
    assert unlabelled == pytest.approx(1 / (1 + 0.75), rel=1e-12)


def test_every_term_passes_gradients():
    """The authors' release computes the loss without any; all inputs are checked against differences."""
    images = [image.requires_grad_() for image in _images(8, side=4)]
    extra = [image.detach().clone()[:1].requires_grad_() for image in images[5:]]

    def loss(*values):
        return efcr(*values[:5], extra=values[5:] or None)

    assert gradcheck(loss, images[:5])
    assert gradcheck(loss, [*images[:5], *extra])
    assert gradcheck(efcr_extra, images[:5])
    for inputs in (images[:5], [*images[:5], *extra]):
        used = [i for i in range(len(inputs)) if len(inputs) == 5 or i not in (3, 4)]  # Lext is replaced by Lext'
        gradients = torch.autograd.grad(loss(*inputs), [inputs[i] for i in used])
        assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_unlabelled_images_replace_lext_by_their_mean():
    images, extra = _images(), _images(3, batch=5, side=12, seed=1)
    terms = efcr_terms(*images, extra=tuple(extra))
    each = [efcr_terms(*images, extra=tuple(image[i : i + 1] for image in extra)).extra.item() for i in range(5)]
    assert terms.extra.shape == (1,)
    assert terms.extra.item() == pytest.approx(np.mean(each), rel=1e-12)
    own = efcr_terms(*images)
    torch.testing.assert_close(terms.positive, own.positive)
    torch.testing.assert_close(terms.negative, own.negative)
    expected = (own.positive / (own.negative + terms.extra)).mean()
    torch.testing.assert_close(efcr(*images, extra=tuple(extra)), expected)


def test_the_loss_is_the_mean_over_the_batch():
    images = _images(batch=4)
    single = [efcr(*(image[i : i + 1] for image in images)).item() for i in range(4)]
    assert efcr(*images).item() == pytest.approx(np.mean(single), rel=1e-12)


def test_means_do_not_depend_on_the_size_of_patches():
    small = _images(side=8)
    large = [torch.cat([torch.cat([image] * 3, 2)] * 2, 3) for image in small]
    for mine, theirs in zip(efcr_terms(*small), efcr_terms(*large), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("high_only", [False, True])
def test_the_module_is_the_function(reduction, high_only):
    images, extra = _images(), tuple(_images(3, seed=2))
    module = EFCR(reduction, extra_weight=0.3, high_only=high_only)
    if high_only:
        expected = efcr_extra(*images, reduction=reduction, extra_weight=0.3)
        torch.testing.assert_close(module(*images), expected)
    else:
        expected = efcr(*images, extra=extra, reduction=reduction, extra_weight=0.3)
        torch.testing.assert_close(module(*images, extra), expected)
    assert set(module.terms) == {"positive", "negative", "extra"}
    assert all(math.isfinite(value) and value > 0 for value in module.terms.values())


LOSSES = {
    "efcr": efcr,
    "efcr_extra": efcr_extra,
    "unlabelled": lambda *images: efcr(*images, extra=images[2:5]),
    "module": lambda *images: EFCR(high_only=True)(*images),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_precisions_agree(loss, dtype):
    exact = LOSSES[loss](*_images(side=16)).item()
    value = LOSSES[loss](*(image.to(dtype) for image in _images(side=16)))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact, rel=1e-5 if dtype == torch.float32 else 0.02)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("shape", [(1, 1, 2, 2), (3, 1, 8, 6), (2, 3, 7, 5)])
def test_a_loss_is_a_finite_scalar_for_all_shapes(loss, shape):
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(shape, generator=generator, requires_grad=True) for _ in range(5)]
    value = LOSSES[loss](*images)
    assert value.shape == ()
    assert value.item() > 0
    value.backward()
    assert torch.isfinite(images[0].grad).all()
    assert images[0].grad.abs().max() > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_images_of_whole_numbers_are_refused(loss):
    with pytest.raises(TrainingError, match="floating"):
        LOSSES[loss](*(torch.ones(1, 1, 4, 4, dtype=torch.int32) for _ in range(5)))


def test_half_precision_around_it_changes_nothing():
    images = _images(side=16, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = efcr(*images)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(efcr(*images).item(), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_flat_patches_are_safe(value):
    flat = [torch.full((2, 1, 8, 8), value, requires_grad=True) for _ in range(5)]
    loss = efcr(*flat)
    loss.backward()
    assert loss.item() == 0
    assert all(image.grad is None or torch.isfinite(image.grad).all() for image in flat)


@pytest.mark.parametrize(("reduction", "positive"), [("mean", 2.0), ("sum", 8.0)])
def test_the_floors_of_flat_patches_worked_by_hand(reduction, positive):
    """4 x 4 images, all flat, the truth lower by 1: the four values of the low band are off by 2, and L- = 0.

    What was blurred once more is the same, so Lext is divided by its floor, 1e-4 for each value of a band. Where it
    comes back as it is, Lext = 0, and L+ is divided by the floor of the whole denominator, 1e-4. Where one pixel in
    four comes back brighter by 0.001, all high bands are off by 0.0005: Lext = 5.
    """
    output, blurred, reblurred = (torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64) for _ in range(3))
    brighter = reblurred.clone()
    brighter[..., ::2, ::2] += 1e-3
    for again, expected in ((reblurred.clone(), positive / 1e-4), (brighter, positive / 5)):
        images = [image.clone().requires_grad_() for image in (output, output - 1, blurred, reblurred, again)]
        loss = efcr(*images, reduction=reduction)
        assert loss.item() == pytest.approx(expected, rel=1e-9)
        gradients = torch.autograd.grad(loss, images, allow_unused=True)
        assert all(gradient is None or torch.isfinite(gradient).all() for gradient in gradients)
        assert gradients[0].abs().max() > 0


def test_denominators_are_clamped_not_added_to():
    """A denominator above the floor is used as it is."""
    images = _images()
    terms = efcr_terms(*images)
    expected = (terms.positive / (terms.negative + terms.extra)).mean()
    assert efcr(*images).item() == pytest.approx(expected.item(), rel=1e-14)


def test_shapes_that_differ_are_refused():
    images = _images()
    for i in range(1, 5):
        wrong = [image if j != i else image[..., :4] for j, image in enumerate(images)]
        for loss in (efcr, efcr_extra, EFCR()):
            with pytest.raises(TrainingError, match="one shape"):
                loss(*wrong)
    with pytest.raises(TrainingError, match="one shape"):
        efcr(*images, extra=(images[0], images[1], images[2][:1]))
    with pytest.raises(TrainingError, match="three tensors"):
        efcr(*images, extra=tuple(images[:2]))
    for weight in (-1.0, float("nan")):
        for loss in (efcr, efcr_extra):
            with pytest.raises(TrainingError, match="extra_weight"):
                loss(*images, extra_weight=weight)
    for loss in (efcr, efcr_extra):
        with pytest.raises(TrainingError, match="reduction"):
            loss(*images, reduction="median")


def test_channels_are_converted_by_luma():
    colour = torch.tensor([1.0, 0.5, 0.25]).reshape(1, 3, 1, 1).expand(2, 3, 4, 4)
    grey = to_channels(colour, 1)
    torch.testing.assert_close(grey, torch.full((2, 1, 4, 4), 0.299 + 0.587 * 0.5 + 0.114 * 0.25))
    assert to_channels(grey, 3).shape == (2, 3, 4, 4)
    assert to_channels(colour, 3) is colour
    with pytest.raises(TrainingError, match="2 channels"):
        to_channels(colour[:, :2], 1)
