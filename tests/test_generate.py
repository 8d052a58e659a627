from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from conftest import small_model
from torch.distributions import Normal

from vae import VAE, Flow, GaussianMixture, StandardNormal, decode, encode, generate, reconstruct, score, typicality
from vae.data import load_examples
from vae.evaluate.features import load_classifier
from vae.generate import CHUNK as ENCODED_AT_ONCE
from vae.generate import latents
from vae.images import to_unit
from vae.loss import log_likelihood
from vae.prior import Prior
from vae.prior.mixture import CHUNK


def test_the_same_seed_gives_the_same_picture_at_any_batch_size(model: VAE) -> None:
    together = generate(model, range(64))
    assert torch.equal(together, generate(model, range(64)))
    alone = torch.cat([generate(model, [seed]) for seed in range(64)])
    torch.testing.assert_close(alone, together, atol=1e-6, rtol=0)
    assert torch.equal(latents(model, [5, 3])[1], latents(model, [3])[0])


def test_different_seeds_give_different_pictures(model: VAE) -> None:
    z = latents(model, range(1000))
    assert len(z.unique(dim=0)) == 1000
    assert z.mean().abs() < 0.05
    assert abs(z.std() - 1) < 0.05


def test_temperature_scales_the_latents(model: VAE) -> None:
    torch.testing.assert_close(latents(model, [1, 2], temperature=0.5), 0.5 * latents(model, [1, 2]))
    cold = generate(model, [1, 2], temperature=0)
    torch.testing.assert_close(cold[0], model.decode(torch.zeros(1, 6))[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(cold[0], cold[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("seeds", [5, [torch.tensor([1.0])], ["1"], [-1], [1.5]])
def test_seeds_are_several_whole_numbers(model: VAE, seeds: object) -> None:
    with pytest.raises(ValueError, match=r"seeds? must be a"):
        generate(model, seeds)  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [math.nan, math.inf])
def test_a_temperature_is_finite(model: VAE, temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be a finite number, got"):
        generate(model, [0], temperature=temperature)


@pytest.mark.parametrize("use", [encode, reconstruct, score, typicality])
def test_pictures_are_numbers_from_0_to_1(model: VAE, use: Callable[[VAE, torch.Tensor], torch.Tensor]) -> None:
    x = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    x[1] = 255
    with pytest.raises(
        ValueError, match=r"expected floating-point pictures in \[0, 1\], got torch.uint8: see vae.images"
    ):
        use(model, x)
    with pytest.raises(ValueError, match="pictures should have values from 0 to 1, got 0 to 255"):
        use(model, x.float())
    with pytest.raises(ValueError, match="from 0 to 1, got nan"):
        use(model, torch.full((1, 1, 28, 28), math.nan))
    with pytest.raises(ValueError, match="expected pictures of shape"):
        use(model, torch.empty(0, 3, 5, 5))


def test_no_pictures_are_no_error(model: VAE) -> None:
    nothing = torch.empty(0, 1, 28, 28)
    assert score(model, nothing).shape == typicality(model, nothing).shape == (0,)
    assert reconstruct(model, nothing).shape == nothing.shape
    with pytest.raises(ValueError, match="expected latents of shape"):
        decode(model, torch.empty(0, 7))


@pytest.mark.parametrize("name", ["mnist", "avatars"])
def test_pictures_of_double_precision_are_scored_as_others(name: str) -> None:
    model, x = VAE.from_pretrained(name), to_unit(load_examples(name).images[:2])
    torch.testing.assert_close(score(model, x.double()), score(model, x), rtol=1e-4, atol=0.1)


def test_another_prior_is_used(model: VAE) -> None:
    class Point(StandardNormal):
        def from_noise(self, eps: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
            return torch.full_like(eps, 2.0)

    expected = model.decode(torch.full((1, 6), 2.0)).detach()
    torch.testing.assert_close(generate(model, [0], prior=Point()), expected)
    assert torch.equal(generate(model, [0]), generate(model, [0], prior=StandardNormal()))
    model.prior = Point(6)  # as a model's own it is used without being named, and StandardNormal when it is
    torch.testing.assert_close(generate(model, [0]), expected)
    assert not torch.equal(generate(model, [0], prior=StandardNormal()), expected)
    with pytest.raises(ValueError, match="the prior has 7 dimensions, the model's latent vectors have 6"):
        generate(model, [0], prior=StandardNormal(7))


@pytest.mark.parametrize("prior", [GaussianMixture(6, 50), Flow(6, layers=4, width=8)])
def test_the_same_seed_gives_the_same_picture_whatever_the_prior(model: VAE, prior: Prior) -> None:
    for tensor in prior.state_dict().values():  # so that it does something
        tensor.add_(0.3 * torch.rand(tensor.shape, generator=torch.Generator().manual_seed(0)))
    together = generate(model, range(64), prior=prior)
    alone = torch.cat([generate(model, [seed], prior=prior) for seed in range(64)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
    assert not torch.equal(together, generate(model, range(64)))


def test_a_models_prior_is_no_part_of_its_weights(model: VAE) -> None:
    names = list(model.state_dict())
    model.prior = Flow(6, layers=2, width=8)
    assert list(model.state_dict()) == names
    assert "prior" not in dict(model.named_children())
    assert isinstance(copy.deepcopy(model).prior, Flow)


def test_pictures_with_an_attribute_are_generated() -> None:
    digits, judge = VAE.from_pretrained("mnist"), load_classifier("mnist")
    assert (judge.predict(generate(digits, range(50), where={"digit": 7})) == 7).float().mean() > 0.8
    assert (judge.predict(generate(digits, range(50), where={"digit": "3"})) == 3).float().mean() > 0.8
    with pytest.raises(ValueError, match="there is no attribute 'letter'"):
        generate(digits, [0], where={"letter": 1})
    with pytest.raises(ValueError, match="give a prior or where, not both"):
        generate(digits, [0], where={"digit": 1}, prior=StandardNormal())
    with pytest.raises(ValueError, match="this model knows no attributes"):
        generate(small_model(), [0], where={"digit": 1})


def test_no_seeds_give_no_pictures(model: VAE) -> None:
    assert generate(model, []).shape == (0, 1, 28, 28)
    assert reconstruct(model, torch.empty(0, 1, 28, 28)).shape == (0, 1, 28, 28)


@pytest.mark.parametrize("seed", [-1, 2**63, 1.0, "1", None])
def test_a_seed_that_is_none_is_refused(model: VAE, seed: int) -> None:
    with pytest.raises(ValueError, match="a seed must be a whole number from 0"):
        generate(model, [seed])


def test_seeds_may_come_from_numpy_and_torch(model: VAE) -> None:
    expected = latents(model, [3, 4])
    assert torch.equal(latents(model, np.array([3, 4])), expected)
    assert torch.equal(latents(model, torch.tensor([3, 4])), expected)


def test_more_pictures_than_a_chunk_and_colour() -> None:
    model = small_model(channels=3, image_size=16)
    pictures = generate(model, range(CHUNK + 1))
    assert pictures.shape == (CHUNK + 1, 3, 16, 16)
    assert not pictures.requires_grad
    torch.testing.assert_close(pictures[-1:], generate(model, [CHUNK]), atol=1e-6, rtol=0)


def test_reconstruct_decodes_the_posterior_mean(model: VAE) -> None:
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(reconstruct(model, x), model.decode(model.encode(x).mean).detach())


def test_a_model_in_training_is_not_changed_by_looking_at_it(model: VAE) -> None:
    x = torch.rand(5, 1, 28, 28)
    expected = generate(model, range(5)), reconstruct(model, x), score(model, x)
    model.train()
    before = copy.deepcopy(model.state_dict())
    for found, known in zip((generate(model, range(5)), reconstruct(model, x), score(model, x)), expected, strict=True):
        torch.testing.assert_close(found, known)
    assert model.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_encode_joins_its_chunks(model: VAE) -> None:
    x = torch.rand(ENCODED_AT_ONCE + 3, 1, 28, 28)
    posterior = encode(model, x)
    assert posterior.mean.shape == posterior.logvar.shape == (len(x), 6)
    torch.testing.assert_close(posterior.mean[-1:], model.encode(x[-1:]).mean.detach(), atol=1e-5, rtol=1e-5)
    assert encode(model, x[:0]).mean.shape == (0, 6)


def test_a_score_is_the_elbo_and_is_repeatable(model: VAE) -> None:
    x = torch.rand(4, 1, 28, 28)
    scores = score(model, x)
    assert torch.equal(scores, score(model, x))
    output = model(x, torch.Generator().manual_seed(0))
    log_weight = log_likelihood(x, output.logits, "gaussian", model.log_scale) + StandardNormal().log_prob(output.z)
    torch.testing.assert_close(scores, (log_weight - output.posterior.log_prob(output.z)).detach(), atol=1e-2, rtol=0)


def test_a_score_tells_the_strange_from_the_familiar_and_tightens_with_samples() -> None:
    digits = VAE.from_pretrained("mnist")
    known = to_unit(load_examples("mnist").images[:40])
    assert score(digits, known, samples=20).mean() > score(digits, known).mean() + 1
    strange = to_unit(load_examples("fashion-mnist").images[:40])
    assert score(digits, known).median() > score(digits, strange).max()


def test_typicality_is_the_density_of_prior_and_posterior_at_the_mean(model: VAE) -> None:
    x = torch.rand(6, 1, 28, 28)
    posterior = encode(model, x)
    for prior in (StandardNormal(), GaussianMixture(6, 3)):
        model.prior = prior
        density = Normal(posterior.mean, posterior.std).log_prob(posterior.mean).sum(dim=1)
        torch.testing.assert_close(typicality(model, x), prior.log_prob(posterior.mean) + density)


def test_standard_normal_scores_and_samples() -> None:
    prior = StandardNormal(5)
    z = prior.sample(20_000, torch.Generator().manual_seed(0), temperature=2)
    assert z.shape == (20_000, 5)
    assert z.std().item() == pytest.approx(2, rel=0.02)
    torch.testing.assert_close(prior.log_prob(z), Normal(0, 1).log_prob(z).sum(1))
    assert prior.log_prob(torch.zeros(1, 5)).item() == pytest.approx(-2.5 * math.log(2 * math.pi))
