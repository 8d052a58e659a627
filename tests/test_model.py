from __future__ import annotations

from typing import Any

import pytest
import torch
from conftest import small_model
from torch.distributions import Normal, kl_divergence

from vae import VAE, VAEConfig
from vae.files import MAX_PARAMETERS
from vae.model import LOGVAR_BOUND, DiagonalGaussian, reparameterize


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", 30),
        ("image_size", 8),
        ("image_size", 512),
        ("image_size", "28"),
        ("image_size", 28.0),
        ("channels", 2),
        ("channels", 4),
        ("channels", True),
        ("latent_dim", 0),
        ("latent_dim", 10**9),
        ("width", -32),
        ("width", 10**9),
        ("depth", 0),
        ("depth", 10**9),
        ("depth", None),
        ("likelihood", "gauss"),
        ("likelihood", ["gaussian"]),
    ],
)
def test_config_refuses_a_bad_value_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        VAEConfig(**{field: value})
    assert str(value) in str(caught.value)


def test_config_refuses_more_parameters_than_allowed_without_taking_memory() -> None:
    with pytest.raises(ValueError, match=r"width 512, depth 16 and latent_dim 4096 together ask for [\d,]+ parameters"):
        VAEConfig(image_size=256, channels=3, width=512, depth=16, latent_dim=4096)


def test_the_sizes_that_a_refusal_proposes_are_accepted() -> None:
    for size in range(16, 257):
        try:
            config = VAEConfig(image_size=size)
        except ValueError as error:
            nearest = [int(word) for word in str(error).split("sizes are ")[1].split(" and ")]
            assert nearest[0] < size < nearest[1]
            for proposed in nearest:
                VAEConfig(image_size=proposed)
        else:
            assert 4 <= size // config.stride <= 7
            assert size % config.stride == 0


def test_num_parameters_is_what_the_model_has() -> None:
    config = VAEConfig(image_size=64, channels=3, width=8)
    assert config.num_parameters == sum(parameter.numel() for parameter in VAE(config).parameters()) < MAX_PARAMETERS


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (1, 28), (3, 32), (3, 64), (1, 96), (3, 256)])
def test_shapes_and_range(channels: int, size: int) -> None:
    model = small_model(channels=channels, image_size=size)
    x = torch.rand(2, channels, size, size)
    output = model(x)
    assert output.reconstruction.shape == output.logits.shape == x.shape
    assert output.z.shape == output.posterior.mean.shape == output.posterior.logvar.shape == (2, 6)
    assert 0 <= output.reconstruction.min() <= output.reconstruction.max() <= 1
    assert torch.equal(output.reconstruction, model.decode(output.z))


@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 3, 28, 28), (2, 1, 28, 27), (2, 1, 32, 32)])
def test_encode_refuses_another_shape(model: VAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected pictures of shape \(batch, 1, 28, 28\), got \(") as caught:
        model.encode(torch.zeros(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize("shape", [(6,), (2, 7), (2, 6, 1)])
def test_decode_refuses_another_shape(model: VAE, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected latents of shape \(batch, 6\), got \("):
        model.decode(torch.zeros(shape))


def test_reparameterize_has_the_mean_and_the_std_that_it_is_given() -> None:
    mean, logvar = torch.tensor([[-1.0, 0.0, 3.0]]), torch.tensor([[-4.0, 0.0, 1.0]])
    z = reparameterize(mean.expand(200_000, 3), logvar.expand(200_000, 3), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(z.std(0), torch.exp(0.5 * logvar[0]), atol=0, rtol=0.01)


def test_gradients_flow_through_sampling() -> None:
    mean = torch.zeros(1, 3, requires_grad=True)
    logvar = torch.zeros(1, 3, requires_grad=True)
    eps = torch.tensor([[-1.0, 0.5, 2.0]])
    reparameterize(mean, logvar, eps=eps).sum().backward()
    assert mean.grad is not None
    assert logvar.grad is not None
    assert torch.equal(mean.grad, torch.ones(1, 3))  # dz/dmean = 1
    torch.testing.assert_close(logvar.grad, 0.5 * eps)  # dz/dstd = eps, and dstd/dlogvar = std / 2


def test_every_parameter_gets_a_gradient() -> None:
    model = small_model().train()
    output = model(torch.rand(4, 1, 28, 28))
    (output.reconstruction.sum() + output.posterior.kl().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_posterior_agrees_with_torch_distributions() -> None:
    posterior = DiagonalGaussian(torch.randn(5, 4), torch.randn(5, 4))
    expected = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0, 1))
    torch.testing.assert_close(posterior.kl_per_dimension(), expected)
    torch.testing.assert_close(posterior.kl(), expected.sum(1))
    assert posterior.mode() is posterior.mean


def test_posterior_samples_are_repeatable_from_a_generator() -> None:
    posterior = DiagonalGaussian(torch.randn(5, 4), torch.randn(5, 4))
    first, second = (posterior.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, posterior.sample(torch.Generator().manual_seed(4)))


def test_log_variance_is_bounded_whatever_the_weights() -> None:
    model = small_model()
    x = torch.rand(4, 1, 28, 28)
    with torch.no_grad():
        model.encoder.logvar.weight.mul_(1e6)
    posterior = model.encode(x)
    assert posterior.logvar.abs().max() <= LOGVAR_BOUND
    assert posterior.kl().isfinite().all()
    assert posterior.std.half().isfinite().all()


def test_mixed_precision_gives_finite_float32() -> None:
    model = small_model()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(torch.rand(4, 1, 28, 28))
    for value in (output.reconstruction, output.logits, output.posterior.mean, output.posterior.logvar, output.z):
        assert value.dtype == torch.float32
        assert value.isfinite().all()


def test_a_picture_does_not_depend_on_its_neighbours(model: VAE) -> None:
    x = torch.rand(7, 1, 28, 28)
    together = model.encode(x).mean
    alone = torch.cat([model.encode(row[None]).mean for row in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
