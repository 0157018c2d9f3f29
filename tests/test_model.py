"""The whole forward: the bound's terms, what reaches what, and bits that must not change."""

import math

import pytest
import torch

from deltavae.model import DeltaVAE
from deltavae.noise import counter_normal
from deltavae.run_folder import instantiate
from runs import tiny_data, tiny_specification


def make(latents="AR1", **options):
    torch.manual_seed(0)
    return instantiate(tiny_specification(latents, **options)).double()


def batch(count=6):
    x = torch.from_numpy(tiny_data().train.images[:count])
    return x, counter_normal(0, 0, torch.arange(count), (4, 2)).double()


def test_terms_are_the_parts_evaluated_by_hand():
    model, (x, noise) = make().eval(), batch()
    terms = model(x, noise)
    q = model.latents.posterior(model.encoder(x))
    z = q.mu + q.sigma * noise
    read = model.latents.to_decoder(z)
    torch.testing.assert_close(terms.distortion, -model.decoder.log_prob(x, read))
    # The rate as a log-ratio's expectation: exact for Gaussians by the textbook formula.
    mean_field = torch.distributions.Independent(torch.distributions.Normal(q.mu, q.sigma), 2)
    direct = torch.distributions.kl_divergence(mean_field, model.latents.prior)
    torch.testing.assert_close(terms.rate, direct, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(terms.rate_terms.sum((1, 2)), terms.rate)
    torch.testing.assert_close(terms.aux_rate, model.aux_prior.rate(q, z))
    assert (terms.rate >= model.latents.committed_rate).all()


def test_bound_is_on_the_right_side():
    """−ELBO ≥ −log p(x), with log p(x) by importance sampling with very many draws."""
    model, (x, _) = make().eval(), batch(1)
    with torch.no_grad():
        count = 20_000
        many = x.expand(count, *x.shape[1:])
        noise = torch.randn(count, 4, 2, generator=torch.Generator().manual_seed(1)).double()
        q = model.encode(many)
        z = q.sample(noise)
        log_likelihood = model.decoder.log_prob(many, model.latents.to_decoder(z))
        log_weight = log_likelihood + model.latents.log_prior(z) - q.log_prob(z)
        log_p = torch.logsumexp(log_weight, 0).item() - math.log(count)
        neg_elbo = model(many, noise).neg_elbo.mean().item()
    assert neg_elbo >= -log_p
    assert neg_elbo == pytest.approx(-log_weight.mean().item(), abs=0.1)


def test_without_latents_the_bound_is_exact_and_the_rate_zero():
    model, (x, _) = make(None).eval(), batch()
    terms = model(x)
    assert terms.rate.tolist() == [0.0] * 6
    assert terms.aux_rate is None
    torch.testing.assert_close(terms.distortion, -model.decoder.log_prob(x, None))


def test_auxiliary_prior_leaves_the_gradient_of_the_model_the_same_bits():
    with_prior, without = make(), make(aux_prior=False)
    without.load_state_dict(
        {k: v for k, v in with_prior.state_dict().items() if not k.startswith("aux_prior")}
    )
    x, noise = batch()
    terms = with_prior(x, noise)
    (terms.neg_elbo.mean() + terms.aux_rate.mean()).backward()
    without(x, noise).neg_elbo.mean().backward()
    for name, parameter in without.named_parameters():
        assert torch.equal(parameter.grad, with_prior.get_parameter(name).grad), name
    for parameter in with_prior.aux_prior.parameters():
        assert parameter.grad is not None


def test_every_parameter_learns():
    model, (x, noise) = make(), batch()
    terms = model(x, noise)
    (terms.neg_elbo.mean() + terms.aux_rate.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize("latents", ["AR1", "Independent", "Standard"])
def test_every_pair_goes_through_the_same_model(latents):
    model = make(latents, delta_bits=None if latents == "Standard" else 4.0).eval()
    x, noise = batch()
    terms = model(x, noise)
    assert (terms.rate >= model.latents.committed_rate).all()
    drawn = model.sample(3, prior="model", generator=torch.Generator().manual_seed(0))
    assert drawn.shape == (3, 1, 4, 4)
    assert drawn.dtype == torch.uint8
    assert drawn.max() < 5


def test_sampling_repeats_with_its_seed_and_takes_the_prior_asked_for():
    model = make().eval()
    draws = {
        prior: model.sample_latents(
            20_000, prior=prior, generator=torch.Generator().manual_seed(0)
        )
        for prior in ("aux", "model")
    }
    # N(0, 1) marginals under the model's prior; loc and scale of the auxiliary prior otherwise.
    assert draws["model"].std(0).mean().item() == pytest.approx(1.0, abs=0.02)
    model.aux_prior.loc += 5.0
    shifted = model.sample_latents(500, generator=torch.Generator().manual_seed(0))
    assert shifted.mean().item() == pytest.approx(5.0, abs=0.2)
    first = model.sample(2, generator=torch.Generator().manual_seed(1))
    assert torch.equal(first, model.sample(2, generator=torch.Generator().manual_seed(1)))


def test_interpolation_ends_at_the_posterior_means():
    model, (x, _) = make().eval(), batch(2)
    line = model.interpolate(x[:1], x[1:], steps=3, generator=torch.Generator().manual_seed(0))
    assert line.shape == (1, 3, 1, 4, 4)
    mu = model.encode(x).mu
    stack = torch.stack([mu[0], (mu[0] + mu[1]) / 2, mu[1]])
    by_hand = model.decode(stack, generator=torch.Generator().manual_seed(0))
    assert torch.equal(line[0], by_hand)


def test_autocast_keeps_rate_and_likelihood_in_full_precision():
    model, (x, noise) = make().float().eval(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = model(x, noise.float())
    assert terms.rate.dtype == terms.distortion.dtype == terms.aux_rate.dtype == torch.float32
    assert (terms.rate >= model.latents.committed_rate * (1 - 2**-23)).all()


def test_parts_that_do_not_fit_are_refused():
    model, bare = make(), make(None)
    x, _ = batch()
    with pytest.raises(ValueError, match="both or neither"):
        DeltaVAE(bare.decoder, model.encoder)
    with pytest.raises(ValueError, match=r"latent_shape must be \(4, 2\), got None"):
        DeltaVAE(bare.decoder, model.encoder, model.latents)
    with pytest.raises(ValueError, match="aux_prior must have shape None"):
        DeltaVAE(bare.decoder, aux_prior=model.aux_prior)
    with pytest.raises(ValueError, match="noise must be given"):
        model(x)
    with pytest.raises(ValueError, match="nothing to encode"):
        bare.encode(x)
    with pytest.raises(ValueError, match="nothing to decode"):
        bare.decode(torch.zeros(1, 4, 2))
    with pytest.raises(ValueError, match="count must be at least 1"):
        model.sample(0)
    with pytest.raises(ValueError, match="no auxiliary prior"):
        make(aux_prior=False).sample(1)
    with pytest.raises(ValueError, match="steps must be at least 2"):
        model.interpolate(x[:1], x[1:2], steps=1)
