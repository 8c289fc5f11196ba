"""What a step minimises: the terms of each method from the public losses, their gradients, and the second blur."""

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch.autograd import gradcheck

from napari_mpt_deblur.training import efcr, efcr_extra
from napari_mpt_deblur.training.config import ContrastConfig
from napari_mpt_deblur.training.contrast_config import METHODS
from napari_mpt_deblur.training.contrastive import EFCR, negative_term, positive_term
from napari_mpt_deblur.training.objective import PIXEL_LOSSES, Batch, draw_kernels, objective, reblur

KERNELS = (3, 7)


def _images(seed, batch=2, channels=1, side=8):
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _batch(contrast, channels=1):
    pairs, extra = ((_images(seed, channels=channels), _images(seed + 1, channels=channels)) for seed in (0, 2))
    return Batch(
        pairs,
        _images(4, channels=channels) if contrast.needs_unlabelled else None,
        extra if contrast.needs_extra_pairs else None,
        KERNELS if contrast.has_extra_term else (),
    )


def _network(weight):
    return lambda images: images + weight * (images - 0.3) ** 2


@pytest.mark.parametrize("method", METHODS)
def test_each_method_is_what_the_public_losses_say(method):
    contrast = ContrastConfig(method, beta=0.3, extra_weight=0.7, reduction="sum")
    batch, network = _batch(contrast), _network(0.4)
    (blurred, sharp), parts = batch.pairs, objective(network, batch, "l1", contrast)
    out = network(blurred)
    again = reblur(blurred, KERNELS, contrast.sigma_px)
    options = {"reduction": "sum", "extra_weight": 0.7}
    if method in ("efcrex_labelled", "vex1"):
        images, truth = batch.extra
        once_more = reblur(images, KERNELS, contrast.sigma_px)
    expected = {
        "pixel": lambda: None,
        "efcr": lambda: efcr(out, sharp, blurred, again, network(again), **options),
        "efcrex": lambda: efcr(
            *(out, sharp, blurred, again, network(again)),
            extra=(
                batch.unlabelled,
                reblur(batch.unlabelled, KERNELS, contrast.sigma_px),
                network(reblur(batch.unlabelled, KERNELS, contrast.sigma_px)),
            ),
            **options,
        ),
        "efcrex_labelled": lambda: efcr_extra(network(images), truth, images, once_more, network(once_more), **options),
        "v1": lambda: (
            positive_term(out, sharp, reduction="sum") / negative_term(out, blurred, reduction="sum")
        ).mean(),
        "vex1": lambda: (
            positive_term(network(images), truth, high_only=True, reduction="sum")
            / negative_term(network(images), images, reduction="sum")
        ).mean(),
    }[method]()
    torch.testing.assert_close(parts.pixel, (out - sharp).abs().mean())
    if expected is None:
        assert parts.contrast is None
        assert parts.total is parts.pixel
    else:
        torch.testing.assert_close(parts.contrast, expected)
        torch.testing.assert_close(parts.total, parts.pixel + 0.3 * expected)
    assert set(parts.values().to_dict()) == {name for name, part in parts._asdict().items() if part is not None}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("loss", PIXEL_LOSSES)
def test_gradients_reach_the_weights_through_every_pass(method, loss):
    contrast = ContrastConfig(method, beta=0.5)
    batch = _batch(contrast)
    weight = torch.tensor([0.4, 0.2, 0.1], dtype=torch.float64, requires_grad=True)
    passes = []

    def network(images, weights):
        passes.append(images)
        return images + weights[len(passes) - 1] * (images - 0.3) ** 2  # a weight of its own for each pass

    def total(weights):
        passes.clear()
        return objective(lambda images: network(images, weights), batch, loss, contrast).total

    assert gradcheck(total, [weight])
    (gradient,) = torch.autograd.grad(total(weight), weight)
    assert len(passes) == contrast.passes
    assert (gradient[: contrast.passes] != 0).all()
    assert (gradient[contrast.passes :] == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_colour_batches_and_flat_ones_are_safe(method):
    contrast = ContrastConfig(method)
    assert torch.isfinite(objective(_network(0.4), _batch(contrast, channels=3), "l1", contrast).total)
    batch = _batch(contrast)
    none = torch.zeros_like(batch.pairs[0])
    flat = Batch(
        (none, none),
        none if contrast.needs_unlabelled else None,
        (none, none) if contrast.needs_extra_pairs else None,
        batch.kernels_px,
    )
    weight = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    objective(_network(weight), flat, "rmse", contrast).total.backward()
    assert torch.isfinite(weight.grad)


@pytest.mark.parametrize("side", [3, 5, 7])
@pytest.mark.parametrize("sigma", [0.8, 10.0])
def test_the_second_blur_is_a_gaussian_of_its_side(side, sigma):
    images = _images(0, channels=2, side=12)
    blurred = reblur(images, [side, 3], sigma)
    offsets = np.arange(side) - side // 2
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    for channel in range(2):
        expected = correlate(images[0, channel].numpy(), kernel, mode="mirror")
        np.testing.assert_allclose(blurred[0, channel].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(blurred[1], reblur(images[1:], [3], sigma)[0])  # each image has a side of its own
    torch.testing.assert_close(reblur(torch.ones(1, 1, 8, 8), [side], sigma), torch.ones(1, 1, 8, 8))


def test_a_box_of_three_by_hand():
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 9
    expected = torch.zeros(1, 1, 5, 5)
    expected[0, 0, 1:4, 1:4] = 1
    torch.testing.assert_close(reblur(image, [3], 1e6), expected)


def test_images_smaller_than_the_kernel_are_blurred_too():
    assert torch.isfinite(reblur(torch.rand(2, 1, 2, 2), [7, 3], 10.0)).all()


def test_kernels_are_drawn_alike_and_none_where_none_is_needed():
    contrast = ContrastConfig("efcr", kernels_px=(3, 5, 5, 7))
    drawn = draw_kernels(contrast, 4000, np.random.default_rng(0))
    shares = [drawn.count(side) / 4000 for side in (3, 5, 7)]
    np.testing.assert_allclose(shares, (0.25, 0.5, 0.25), atol=0.03)
    assert draw_kernels(ContrastConfig("v1"), 4, np.random.default_rng(0)) == ()


def test_a_value_worked_by_hand():
    """The network is the identity, and the truth lies below the blurred image by 1 everywhere.

    |out - sharp| = 1 in all pixels, so the pixel loss is 1. All high bands of out - sharp are
    0, the low band is 2 (a Haar low band doubles): L+ = 2. out = blurred, so L- = 0. The reblurred image is returned
    as it is: Lext = 0. The denominator is clamped to 1e-4: contrast = 2 / 1e-4.
    """
    blurred = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    parts = objective(
        lambda images: images, Batch((blurred, blurred - 1), kernels_px=(3,)), "l1", ContrastConfig("efcr")
    )
    values = parts.values()
    assert (values.pixel, values.positive) == (pytest.approx(1), pytest.approx(2))
    assert (values.negative, values.extra) == (0, 0)
    assert values.contrast == pytest.approx(2e4)
    assert values.total == pytest.approx(1 + 1e-5 * 2e4)


def test_the_module_of_the_losses_logs_the_same_terms():
    contrast = ContrastConfig("efcr")
    batch, network = _batch(contrast), _network(0.4)
    (blurred, sharp), again = batch.pairs, reblur(batch.pairs[0], KERNELS, contrast.sigma_px)
    module = EFCR()
    module(network(blurred), sharp, blurred, again, network(again))
    values = objective(network, batch, "l1", contrast).values().to_dict()
    assert module.terms == pytest.approx({name: values[name] for name in module.terms})
