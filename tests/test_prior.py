from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from sklearn.mixture import GaussianMixture as SklearnMixture
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal, Normal

from vae import Flow, GaussianMixture, StandardNormal, load_prior, save_prior
from vae.prior import Prior


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_moons(n: int, seed: int = 0) -> Tensor:
    """Samples of no Gaussian, (n, 3): a bent line and a cloud, and noise in the third dimension."""
    angle = math.pi * torch.rand(n, generator=seeded(seed))
    line = torch.stack([angle.cos(), angle.sin() + 0.5, torch.zeros(n)], dim=1)
    cloud = torch.tensor([2.0, -1.0, 1.0]).expand(n, 3)
    noise = torch.randn(n, 3, generator=seeded(seed + 1)) * torch.tensor([0.1, 0.1, 0.5])
    return torch.where(torch.rand(n, 1, generator=seeded(seed + 2)) < 0.7, line, cloud) + noise


@pytest.fixture(scope="module")
def fitted() -> dict[str, Prior]:
    z = two_moons(4000)
    return {
        "gaussian-mixture": GaussianMixture.fit(z, components=8),
        "flow": Flow.fit(z, layers=6, width=32, steps=300),
    }


KINDS = ["gaussian-mixture", "flow"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_noise_gives_the_same_latents_alone_and_among_others(fitted: dict[str, Prior], kind: str) -> None:
    eps = torch.randn(64, 3, generator=seeded())
    together = fitted[kind].from_noise(eps)
    assert together.shape == (64, 3)
    alone = torch.cat([fitted[kind].from_noise(row[None]) for row in eps])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)
    torch.testing.assert_close(fitted[kind].sample(64, seeded()), together)


@pytest.mark.parametrize("kind", KINDS)
def test_the_density_integrates_to_one(fitted: dict[str, Prior], kind: str) -> None:
    """By importance sampling from a wide Gaussian."""
    wide = Normal(torch.zeros(3), 2.0)
    z = 2 * torch.randn(200_000, 3, generator=seeded())
    ratio = torch.exp(fitted[kind].log_prob(z) - wide.log_prob(z).sum(1))
    assert ratio.mean().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("kind", ["gaussian-mixture", "flow"])
def test_samples_are_distributed_like_the_data(fitted: dict[str, Prior], kind: str) -> None:
    data, drawn = two_moons(20_000, seed=7), fitted[kind].sample(20_000, seeded())
    torch.testing.assert_close(drawn.mean(0), data.mean(0), atol=0.06, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(data.T), atol=0.08, rtol=0)
    held_out = fitted[kind].log_prob(data).mean()
    gaussian = MultivariateNormal(data.mean(0), torch.cov(data.T)).log_prob(data).mean()
    assert held_out > gaussian + 0.8
    assert abs(fitted[kind].log_prob(drawn).mean() - held_out) < 0.3  # neither wider nor narrower than it says


@pytest.mark.parametrize("kind", KINDS)
def test_a_temperature_below_one_gives_likelier_latents(fitted: dict[str, Prior], kind: str) -> None:
    cold, warm = (fitted[kind].sample(2000, seeded(), temperature=t) for t in (0.5, 1.0))
    assert fitted[kind].log_prob(cold).mean() > fitted[kind].log_prob(warm).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_log_prob_is_differentiable_and_keeps_its_type(fitted: dict[str, Prior], kind: str) -> None:
    z = torch.randn(5, 3, requires_grad=True)
    fitted[kind].log_prob(z).sum().backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


def test_the_standard_normal_needs_no_dimension_but_to_sample() -> None:
    assert torch.equal(StandardNormal().from_noise(torch.ones(2, 7), temperature=0.5), torch.full((2, 7), 0.5))
    with pytest.raises(ValueError, match=r"StandardNormal\(\) has no dimension"):
        StandardNormal().sample(1)


# --- the mixture -----------------------------------------------------------------------------------------------------


def test_the_mixture_scores_as_scikit_learn_and_torch_do() -> None:
    z = two_moons(2000)
    ours = GaussianMixture.fit(z, components=5, seed=3)
    theirs = SklearnMixture(5, reg_covar=1e-4, random_state=3).fit(z.numpy())
    torch.testing.assert_close(
        ours.log_prob(z), torch.from_numpy(theirs.score_samples(z.numpy())).float(), rtol=1e-3, atol=1e-3
    )
    components = MultivariateNormal(ours.means, scale_tril=ours.scale_tril)
    torch.testing.assert_close(ours.log_prob(z), MixtureSameFamily(Categorical(ours.weights), components).log_prob(z))


def test_a_mixture_fitted_to_posteriors_is_that_of_endless_samples_of_each() -> None:
    mean, std = two_moons(500), torch.rand(500, 3, generator=seeded(5)) + 0.1
    endless = (mean + std * torch.randn(400, 500, 3, generator=seeded(6))).flatten(0, 1)
    single = GaussianMixture.fit(mean, components=1, variance=std.square())
    covariance = single.scale_tril[0] @ single.scale_tril[0].T
    torch.testing.assert_close(covariance, torch.cov(endless.T), rtol=0.02, atol=0.02)  # of 200,000 samples
    several, sampled = (GaussianMixture.fit(z, 4, variance=v) for z, v in ((mean, std.square()), (endless, None)))
    ours, theirs = (prior.log_prob(endless).mean().item() for prior in (several, sampled))
    # Not quite: a posterior belongs to components as a whole, each of its samples could belong to another.
    assert single.log_prob(endless).mean().item() < ours <= theirs + 0.01
    assert ours > theirs - 0.1


def test_a_mixture_of_classes_is_the_sum_of_those_of_each() -> None:
    """Also where classes overlap. Each has a component, and each further one goes to the most pictures for one."""
    z, labels = two_moons(2000), torch.tensor([2, 0, 0, 0, 0, 0, 0, 0] * 240 + [2] * 60 + [5] * 20)
    whole = GaussianMixture.fit(z, components=9, labels=labels)
    density = torch.zeros(len(z))
    for label, components in ((0, 6), (2, 2), (5, 1)):
        own = labels == label
        density += own.float().mean() * GaussianMixture.fit(z[own], components).log_prob(z).exp()
    torch.testing.assert_close(whole.log_prob(z), density.log())
    assert whole.components == 9
    spread = torch.full_like(z, 0.1)
    wider = GaussianMixture.fit(z, 9, labels=labels, variance=spread)
    assert wider.log_prob(z).mean() < whole.log_prob(z).mean()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_mixture_is_float32_whatever_it_is_fitted_to(dtype: torch.dtype) -> None:
    z = two_moons(300).to(dtype).requires_grad_(True)
    prior = GaussianMixture.fit(z, components=3, variance=torch.ones_like(z))
    assert {buffer.dtype for buffer in prior.buffers()} == {torch.float32}
    assert not any(buffer.requires_grad for buffer in prior.buffers())
    assert prior.log_prob(two_moons(5)).isfinite().all()


def test_a_mixture_of_vectors_that_are_alike_leaves_components_empty() -> None:
    prior = GaussianMixture.fit(torch.ones(50, 4), components=3)
    torch.testing.assert_close(prior.sample(20, seeded()), torch.ones(20, 4), atol=0.1, rtol=0)


def test_a_mixture_needs_a_vector_for_each_component() -> None:
    with pytest.raises(ValueError, match=r"got 4 components and latent vectors of shape \(3, 2\)"):
        GaussianMixture.fit(torch.zeros(3, 2), components=4)
    for labels in (None, torch.zeros(3, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"a mixture needs 1 component or more.*got 0 components"):
            GaussianMixture.fit(torch.zeros(3, 2), components=0, labels=labels)


def test_a_class_of_one_vector_has_a_component() -> None:
    z, labels = two_moons(20), torch.tensor([0] * 19 + [1])
    assert GaussianMixture.fit(z, components=3, labels=labels).log_prob(z).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_prior_takes_float64(fitted: dict[str, Prior], kind: str) -> None:
    z = two_moons(5)
    for of in (fitted[kind].log_prob, fitted[kind].from_noise):
        assert torch.equal(of(z.double()), of(z))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_a_mixture_fits_latents_of_any_scale_that_leave_dimensions_empty(scale: float) -> None:
    z = scale * torch.randn(2000, 5, generator=seeded()) @ torch.randn(5, 16, generator=seeded(1))
    drawn = GaussianMixture.fit(z, components=20).sample(5000, seeded())
    torch.testing.assert_close(drawn.std(0), z.std(0), rtol=0.1, atol=0.01)


def test_calibration_makes_a_mixture_of_few_vectors_likelier_for_others() -> None:
    scale = torch.linspace(0.2, 2, 12)
    z, held_out, others = (scale * torch.randn(n, 12, generator=seeded(n)) for n in (400, 500, 5000))
    prior = GaussianMixture.fit(z, components=10)
    before = prior.log_prob(others).mean()
    assert prior.calibrate(held_out) is prior
    best = Normal(torch.zeros(12), scale).log_prob(others).sum(dim=1).mean()  # nothing is likelier than the truth
    assert before < best - 2
    assert best - 1.3 < prior.log_prob(others).mean() < best


def test_calibration_leaves_a_mixture_alone_that_is_right() -> None:
    prior = GaussianMixture(3, 2)
    prior.means[1] = 6.0
    prior.scale_tril[1] = torch.tensor([[0.5, 0.0, 0.0], [0.3, 2.0, 0.0], [0.0, -1.0, 0.2]])
    scale_tril = prior.scale_tril.clone()
    prior.calibrate(prior.sample(5000, seeded()))
    torch.testing.assert_close(prior.scale_tril, scale_tril, rtol=2**-11, atol=0)  # of half precision


@pytest.mark.parametrize(("scale", "dtype"), [(1.0, "F16"), (1e-6, "F32"), (1e5, "F32")])
def test_a_calibrated_mixture_takes_half_the_room_where_its_numbers_allow_it(
    scale: float, dtype: str, tmp_path: Path
) -> None:
    prior = GaussianMixture(3, 2)
    prior.scale_tril *= scale
    prior.calibrate(prior.sample(500, seeded()))
    save_prior(prior, tmp_path / "prior.safetensors")
    with safe_open(tmp_path / "prior.safetensors", "pt") as file:
        assert file.get_slice("scale_tril").get_dtype() == dtype
    assert torch.equal(load_prior(tmp_path / "prior.safetensors").sample(9, seeded()), prior.sample(9, seeded()))


def test_the_mixture_draws_many_as_it_draws_few() -> None:
    prior = GaussianMixture.fit(two_moons(1000), components=4)
    eps = torch.randn(4500, 3, generator=seeded())
    few = torch.cat([prior.from_noise(part) for part in eps.split(100)])
    torch.testing.assert_close(prior.from_noise(eps), few)


def test_the_mixture_draws_its_components_by_weight_and_each_as_it_is() -> None:
    prior = GaussianMixture(2, 3)
    prior.weights.copy_(torch.tensor([0.7, 0.001, 0.299]))
    prior.means.copy_(torch.tensor([[0.0, 0.0], [1e4, 0.0], [2e4, 0.0]]))
    prior.scale_tril[2] = torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    z = prior.sample(100_000, seeded())
    nearest = (z[:, 0] / 1e4).round()
    for k, share in enumerate(prior.weights.tolist()):
        assert (nearest == k).float().mean().item() == pytest.approx(share, abs=0.004)
    drawn = z[nearest == 2] - prior.means[2]
    torch.testing.assert_close(drawn.mean(0), torch.zeros(2), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(drawn.T), prior.scale_tril[2] @ prior.scale_tril[2].T, atol=0.1, rtol=0)
    standard = drawn[:, 0] / 2  # also its tails
    assert (standard.abs() > 2).float().mean().item() == pytest.approx(0.0455, abs=0.005)


def test_at_temperature_zero_the_means_of_the_mixture_remain() -> None:
    prior = GaussianMixture(2, 3)
    prior.means.copy_(torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    z = prior.sample(200, seeded(), temperature=0)
    assert torch.equal(z.unique(dim=0), prior.means)
    extremes = prior.from_noise(torch.tensor([[-20.0, 0.0], [20.0, 0.0]]))  # quantiles that round to 0 and 1
    assert extremes.isfinite().all()


# --- the flow --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latent_dim", [2, 3, 8])
def test_the_flow_goes_both_ways_and_its_determinant_is_the_jacobians(latent_dim: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = Flow(latent_dim, layers=5, width=16).double()
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
    flow.mean += 1
    flow.std *= 3
    eps = torch.randn(latent_dim, dtype=torch.float64, generator=seeded())
    z = flow.from_noise(eps[None])
    jacobian = torch.autograd.functional.jacobian(lambda e: flow.from_noise(e[None])[0], eps)
    expected = Normal(0, 1).log_prob(eps).sum() - torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(flow.log_prob(z)[0], expected)


def test_the_flow_moves_every_number() -> None:
    flow = Flow(32, layers=16, width=8)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter)
    eps = torch.randn(1, 32)
    jacobian = torch.autograd.functional.jacobian(lambda e: flow.from_noise(e), eps)
    assert (jacobian.view(32, 32).abs().sum(1) != 1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_flow_is_float32_whatever_it_is_fitted_to(dtype: torch.dtype) -> None:
    z = two_moons(100).to(dtype).requires_grad_(True)
    flow = Flow.fit(z, layers=2, width=8, steps=5)
    assert {tensor.dtype for tensor in flow.state_dict().values()} == {torch.float32}
    assert not flow.sample(3, seeded()).requires_grad


def test_a_flow_is_fitted_to_two_finite_vectors_or_more() -> None:
    for count in (0, 1):
        with pytest.raises(ValueError, match=rf"two or more latent vectors, \(N, D\), got shape \({count}, 3\)"):
            Flow.fit(two_moons(5)[:count])
    with pytest.raises(ValueError, match="finite latent vectors"):
        Flow.fit(torch.full((5, 3), torch.nan))
    assert Flow.fit(two_moons(2), layers=2, width=8).sample(3, seeded()).isfinite().all()


def test_fitting_the_flow_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    z = two_moons(200)
    before = torch.random.get_rng_state()
    a, b = (Flow.fit(z, layers=2, width=8, steps=5).state_dict() for _ in range(2))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ValueError, match="a flow needs two latent dimensions or more, got 1"):
        Flow.fit(z[:, :1])


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_prior_comes_back_to_the_bit(fitted: dict[str, Prior], kind: str, tmp_path: Path) -> None:
    save_prior(fitted[kind], tmp_path / "prior.safetensors")
    loaded = load_prior(tmp_path / "prior.safetensors")
    assert type(loaded) is type(fitted[kind])
    assert torch.equal(loaded.sample(32, seeded()), fitted[kind].sample(32, seeded()))
    z = torch.randn(32, 3)
    assert torch.equal(loaded.log_prob(z), fitted[kind].log_prob(z))


def test_a_prior_of_no_known_kind_is_not_saved(tmp_path: Path) -> None:
    class Own(StandardNormal):
        pass

    for prior in (Own(3), StandardNormal()):
        with pytest.raises(ValueError, match="can be saved"):
            save_prior(prior, tmp_path / "prior.safetensors")
    with pytest.raises(ValueError, match="more than the 12,000,000 that are loaded again"):
        save_prior(GaussianMixture(500, 50), tmp_path / "prior.safetensors")


MIXTURE = {
    "weights": torch.tensor([0.5, 0.5]),
    "means": torch.zeros(2, 3),
    "scale_tril": torch.tensor([[1.0, 0, 1, 0, 0, 1]] * 2),
}
DESCRIPTION = {"kind": "gaussian-mixture", "latent_dim": 3, "components": 2}


def store(path: Path, description: Any, tensors: dict[str, Tensor]) -> Path:
    text = description if isinstance(description, str) else json.dumps(description)
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, path, metadata={"prior": text})
    return path


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("", "its metadata has no prior in JSON"),
        ("[" * 100_000, "its metadata has no prior in JSON"),
        ([], "the kind of a prior should be one of gaussian-mixture, flow, got None"),
        (DESCRIPTION | {"kind": "vampprior"}, "the kind of a prior should be one of"),
        (DESCRIPTION | {"kind": ["flow"]}, "the kind of a prior should be one of"),
        (DESCRIPTION | {"rank": 1}, "a gaussian-mixture is described by latent_dim, components, got"),
        ({"kind": "gaussian-mixture", "latent_dim": 3}, "is described by latent_dim, components, got latent_dim"),
        (DESCRIPTION | {"components": 10**9}, "components should be a whole number from 1 to 10000, got 1000000000"),
        (DESCRIPTION | {"components": True}, "components should be a whole number from 1 to 10000, got True"),
        (DESCRIPTION | {"latent_dim": 3.0}, r"latent_dim should be a whole number from 1 to 4096, got 3\.0"),
        (DESCRIPTION | {"latent_dim": 4096, "components": 10_000}, "numbers, more than the 12,000,000 allowed"),
        ({"kind": "flow", "latent_dim": 4096, "layers": 64, "width": 4096}, "more than the 12,000,000 allowed"),
        ({"kind": "flow", "latent_dim": 3, "layers": 1, "width": 4}, "lacks the tensor layers.0"),
        (DESCRIPTION | {"components": 3}, r"means should be F32 \[3, 3\], got F32 \[2, 3\]"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(description: Any, message: str, tmp_path: Path) -> None:
    path = store(tmp_path / "prior.safetensors", description, MIXTURE)
    with pytest.raises(ValueError, match=message) as caught:
        load_prior(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        ("means", torch.full((2, 3), math.nan), "values in means are not finite"),
        ("means", torch.zeros(2, 3, dtype=torch.float64), r"means should be F32 \[2, 3\], got F64 \[2, 3\]"),
        ("means", torch.zeros(2, 3, dtype=torch.float16), r"means should be F32 \[2, 3\], got F16 \[2, 3\]"),
        ("means", torch.zeros(2, 4), r"means should be F32 \[2, 3\], got F32 \[2, 4\]"),
        ("extra", torch.zeros(1), "it has the tensor 'extra', which it should not"),
        ("weights", torch.tensor([0.5, 0.6]), "weights should be positive and their sum 1"),
        ("weights", torch.tensor([1.5, -0.5]), "weights should be positive and their sum 1"),
        ("scale_tril", torch.zeros(2, 6), "scale_tril should have a positive diagonal"),
        ("scale_tril", torch.ones(2, 3, 3), "scale_tril"),
    ],
)
def test_tensors_that_make_no_mixture_are_refused(key: str, tensor: Tensor, message: str, tmp_path: Path) -> None:
    path = store(tmp_path / "prior.safetensors", DESCRIPTION, MIXTURE | {key: tensor})
    with pytest.raises(ValueError, match=message):
        load_prior(path)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(ValueError, match=r"broken.safetensors: it is not a complete safetensors file"):
        load_prior(broken)
    for path in (tmp_path / "missing.safetensors", tmp_path):
        with pytest.raises(ValueError, match=f"{path.parent} holds no {path.name}"):
            load_prior(path)
    save_file(MIXTURE, tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="its metadata has no prior in JSON"):
        load_prior(tmp_path / "bare.safetensors")
