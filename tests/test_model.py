from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import small_model
from torch.distributions import Normal, kl_divergence
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import FlopCounterMode

from vae import VAE, VAEConfig, generate, score
from vae.files import MAX_PARAMETERS
from vae.model import LOGVAR_BOUND, DiagonalGaussian, reparameterize


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", 30),
        ("image_size", 8),
        ("image_size", "28"),
        ("image_size", 28.0),
        ("channels", 2),
        ("channels", 4),
        ("channels", True),
        ("latent_dim", 0),
        ("width", -32),
        ("depth", 0),
        ("depth", None),
        ("likelihood", "gauss"),
        ("likelihood", ["gaussian"]),
    ],
)
def test_config_refuses_a_bad_value_by_its_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field) as caught:
        VAEConfig(**{field: value})
    assert str(value) in str(caught.value)


def test_a_config_of_ones_own_may_be_as_large_as_the_memory() -> None:
    config = VAEConfig(image_size=1024, channels=3, width=2048, depth=16, latent_dim=16384)
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in VAE(config).parameters()) > MAX_PARAMETERS


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


def test_a_decoder_for_128_pixels_costs_a_browser_half_as_much_again_as_for_64() -> None:
    """Most work is done on a grid of 16 by 16 cells, whatever the size of the picture."""
    cost = {}
    for size in (64, 128):
        config = VAEConfig(image_size=size, channels=3, latent_dim=64, width=40, depth=1)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            VAE(config).eval().decode(torch.zeros(1, 64))
        cost[size] = counter.get_total_flops()
    assert 1 < cost[128] / cost[64] < 1.5


@pytest.mark.parametrize(("channels", "size"), [(1, 16), (1, 28), (3, 32), (3, 64), (1, 96), (3, 128), (3, 256)])
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_works_in_the_type_of_its_weights(dtype: torch.dtype, tmp_path: Path) -> None:
    model = small_model()
    x = torch.rand(4, 1, 28, 28)
    expected = model(x, torch.Generator().manual_seed(0)), generate(model, range(4)), score(model, x)
    model = model.to(dtype)
    output = model(x.to(dtype), torch.Generator().manual_seed(0))
    for value in (*output.posterior, output.z, output.logits, output.reconstruction):
        assert value.dtype == torch.float32  # noise and likelihoods, whatever the weights are
    tolerance = 0.0 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(output.reconstruction, expected[0].reconstruction, atol=tolerance + 1e-5, rtol=0)
    torch.testing.assert_close(generate(model, range(4)), expected[1], atol=tolerance + 1e-5, rtol=0)
    torch.testing.assert_close(score(model, x), expected[2], atol=0.1, rtol=tolerance)
    model.save_pretrained(tmp_path)
    again = VAE.from_pretrained(tmp_path)
    assert again.log_scale.dtype == torch.float32
    torch.testing.assert_close(generate(again, range(4)), expected[1], atol=tolerance + 1e-5, rtol=0)


def test_posteriors_are_trees_of_tensors() -> None:
    """Which torch.export, DataParallel and torch.func take apart and put together again."""
    output = small_model()(torch.rand(2, 1, 28, 28))
    leaves, structure = tree_flatten(output)
    assert type(tree_unflatten(leaves, structure).posterior) is DiagonalGaussian
    assert len(leaves) == 5


def test_the_model_and_its_encoder_are_exported() -> None:
    model, x = small_model(), torch.rand(3, 1, 28, 28)
    batch = {0: torch.export.Dim("batch", min=2)}
    encoder = torch.export.export(model.encoder, (x,), dynamic_shapes=(batch,)).module()
    torch.testing.assert_close(encoder(x).mean, model.encode(x).mean)
    whole = torch.export.export(model, (x,), dynamic_shapes=(batch,)).module()
    torch.testing.assert_close(whole(x).posterior.mean, model.encode(x).mean)
    assert whole(torch.rand(5, 1, 28, 28)).reconstruction.shape == (5, 1, 28, 28)


def test_a_picture_does_not_depend_on_its_neighbours(model: VAE) -> None:
    x = torch.rand(7, 1, 28, 28)
    together = model.encode(x).mean
    alone = torch.cat([model.encode(row[None]).mean for row in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
