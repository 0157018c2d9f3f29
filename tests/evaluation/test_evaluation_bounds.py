import math

import numpy as np
import pytest
import torch
from evaluation_toy import every_event, toy_model
from torch.nn.functional import softplus

from deltavae import evaluation
from deltavae.evaluation.encodings import evaluating
from deltavae.latents import AR1, Standard

NODES, WEIGHTS = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(120))
LOG_WEIGHTS = WEIGHTS.log() - 0.5 * math.log(2 * math.pi)  # Σ exp = 1: weights of N(0, 1)
REPEATS = 400


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def log_likelihoods(model, x, z):
    """log p(x|z) of every pair of x and a scalar z, written out."""
    logits = model.decoder.a[0, 0] * z[:, None] + model.decoder.b  # (z, p)
    x = x.flatten(1)[:, None].double()
    return (x * logits - softplus(logits)).sum(2)  # (x, z)


def quadrature(model, x, mean, scale):
    """log ∫ N(z; mean, scale²) p(x|z) dz."""
    terms = LOG_WEIGHTS + log_likelihoods(model, x, mean + scale * NODES)
    return terms.logsumexp(1)


def aux_moments(model):
    """Mean and scale of the auxiliary prior of one step, from its own samples' noise-free path."""
    prior = model.aux_prior
    z = torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)[:, None, None]
    a, b, c = prior.log_prob(z).tolist()  # −(z−m)²/2s² + const at z = 0, 1, 2
    curvature = -(c - 2 * b + a)
    return (b - a) / curvature + 0.5, 1 / math.sqrt(curvature)


@pytest.fixture(scope="module")
def scalar():
    """A model with one scalar latent, its events, repeated, and their posteriors."""
    model = toy_model(Standard(1, 1), aux=True)
    x = every_event(REPEATS).numpy()
    return model, x, evaluation.encode_images(model, x)


def by_event(values):
    return values.reshape(16, REPEATS)


def assert_mean(values, truth, dim=-1):
    """The sample mean agrees with the truth to 4.5 standard errors (16 comparisons: 1e-4)."""
    error = values.std(dim) / math.sqrt(values.shape[dim])
    assert ((values.mean(dim) - truth).abs() < 4.5 * error).all()


@pytest.mark.parametrize("samples", [1, 3, 40])
def test_importance_weights_estimate_the_likelihood_without_bias(scalar, samples):
    # E exp(−L_K) = p(x) for every K, under either prior.
    model, x, q = scalar
    bounds = evaluation.importance_bounds(model, x, q, samples, generator=seeded(samples))
    with torch.no_grad():
        model_prior = quadrature(model, every_event(), 0.0, 1.0)
        aux_prior = quadrature(model, every_event(), *aux_moments(model))
    assert_mean(by_event(bounds.model).neg().exp(), model_prior.exp())
    assert_mean(by_event(bounds.aux).neg().exp(), aux_prior.exp())


def test_importance_bound_falls_towards_the_likelihood(scalar):
    model, x, q = scalar
    with torch.no_grad():
        truth = -quadrature(model, every_event(), 0.0, 1.0)
    gaps = []
    for samples in (1, 5, 25, 150):
        bound = evaluation.importance_bounds(model, x, q, samples, generator=seeded()).model
        gaps.append((by_event(bound) - truth[:, None]).flatten())
    means = [float(gap.mean()) for gap in gaps]
    errors = [float(gap.std()) / math.sqrt(len(gap)) for gap in gaps]
    assert means[0] > means[1] + 5 * errors[0] > means[2] > 5 * errors[2]  # clearly apart
    assert abs(means[3]) < 4 * errors[3] + 1 / 150  # the bias is O(1/K)


def test_one_sample_has_the_elbo_as_its_mean(scalar):
    model, x, q = scalar
    terms = evaluation.draw_terms(model, x, q, generator=seeded(1))
    bounds = evaluation.importance_bounds(model, x, q, 1, generator=seeded(2))
    with torch.no_grad():
        first = evaluation.encode_images(model, every_event().numpy())
        expected = torch.cat(
            [
                LOG_WEIGHTS.exp() @ log_likelihoods(model, x1[None], (m + s * NODES)[0]).T
                for x1, m, s in zip(every_event(), first.mu, first.sigma, strict=True)
            ]
        )
        rate = 0.5 * (first.mu.square() + first.sigma.square() - 1) - first.sigma.log()
        mean, scale = aux_moments(model)
        ratio = first.sigma / scale
        aux_rate = 0.5 * (ratio**2 + ((first.mu - mean) / scale) ** 2 - 1) - ratio.log()
    assert_mean(by_event(terms.distortion), -expected)
    assert_mean(by_event(terms.neg_elbo), rate.flatten() - expected)
    assert_mean(by_event(bounds.model), rate.flatten() - expected)
    assert_mean(by_event(terms.aux_neg_elbo), aux_rate.flatten() - expected)
    assert_mean(by_event(bounds.aux), aux_rate.flatten() - expected)


@pytest.mark.parametrize("aux", [True, False])
@pytest.mark.parametrize("way", [(False, False), (True, False), (True, True)])
def test_terms_are_those_of_the_forward(aux, way):
    model = toy_model(AR1(3, [0.5, 0.9], *way), aux=aux).eval()
    x = every_event()
    noise = torch.randn(16, 3, 2, generator=seeded(5), dtype=torch.float64)
    with torch.no_grad():
        expected = model(x, noise)
    q = evaluation.encode_images(model, x.numpy())
    terms = evaluation.draw_terms(model, x.numpy(), q, generator=seeded(5), batch_size=7)
    for name in ("distortion", "rate", "rate_terms", "aux_rate"):
        ours, theirs = getattr(terms, name), getattr(expected, name)
        if theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", [(False, False), (True, False), (True, True)])
def test_importance_weights_of_sequential_latents(way):
    # Second derivation: log w = log p(x|z) + log p(z) − log q(z|x) with torch's own densities.
    latents = AR1(3, [0.5, 0.9], *way)
    model = toy_model(latents, aux=True)
    x = every_event()
    q = evaluation.encode_images(model, x.numpy())
    bounds = evaluation.importance_bounds(model, x.numpy(), q, 2, generator=seeded(3))
    generator, weights = seeded(3), []
    with torch.no_grad():
        for _ in range(2):
            z = q.mu + q.sigma * torch.randn(q.mu.shape, generator=generator, dtype=torch.float64)
            posterior = torch.distributions.Normal(q.mu, q.sigma).log_prob(z).sum((1, 2))
            likelihood = model.decoder.log_prob(x, latents.to_decoder(z))
            priors = torch.stack([latents.prior.log_prob(z), model.aux_prior.log_prob(z)])
            weights.append(likelihood + priors - posterior)
    expected = -torch.stack(weights).exp().mean(0).log()
    torch.testing.assert_close(bounds.model, expected[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(bounds.aux, expected[1], rtol=1e-10, atol=0)


def test_batches_do_not_matter():
    model = toy_model(AR1(2, [0.7]), aux=True)
    x = every_event().numpy()
    q = evaluation.encode_images(model, x, batch_size=5)
    torch.testing.assert_close(q.mu, evaluation.encode_images(model, x).mu, rtol=1e-12, atol=0)
    runs = [
        evaluation.importance_bounds(model, x, q, 4, generator=seeded(), batch_size=size)
        for size in (3, 16, 100)
    ]
    for run in runs[1:]:
        torch.testing.assert_close(run.model, runs[0].model, rtol=1e-12, atol=0)
        torch.testing.assert_close(run.aux, runs[0].aux, rtol=1e-12, atol=0)


def test_without_latents_the_bound_is_the_likelihood():
    model = toy_model(None)
    x = every_event()
    terms = evaluation.draw_terms(model, x.numpy(), None, generator=seeded(), batch_size=5)
    with torch.no_grad():
        expected = -model.decoder.log_prob(x, None)
    assert torch.equal(terms.neg_elbo, expected)
    assert (terms.rate_terms, terms.aux_rate, terms.aux_neg_elbo) == (None, None, None)
    torch.testing.assert_close(expected.neg().exp().sum(), torch.ones_like(expected[0]))


def test_without_an_auxiliary_prior_there_is_one_bound():
    model = toy_model(Standard(1, 1))
    x = every_event().numpy()
    q = evaluation.encode_images(model, x)
    assert evaluation.importance_bounds(model, x, q, 2, generator=seeded()).aux is None


def test_rate_is_not_below_the_floor_in_float32():
    model = toy_model(AR1(5, [0.3, 0.99, 0.9999])).float()
    with torch.no_grad():
        model.encoder.w.zero_()  # the posterior at the minimiser
    x = every_event().numpy()
    q = evaluation.encode_images(model, x)
    terms = evaluation.draw_terms(model, x, q, generator=seeded())
    assert terms.rate.dtype == torch.float64
    assert (terms.rate >= model.latents.committed_rate).all()
    torch.testing.assert_close(
        terms.rate, torch.full_like(terms.rate, model.latents.committed_rate), rtol=1e-12, atol=0
    )


def test_progress_counts_the_draws(scalar):
    model, x, q = scalar
    seen = []
    evaluation.importance_bounds(model, x, q, 3, generator=seeded(), progress=seen.append)
    assert seen == [1, 2, 3]


def test_bad_arguments(scalar):
    model, x, q = scalar
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        evaluation.importance_bounds(model, x, q, 0, generator=seeded())
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluation.draw_terms(model, x, q, generator=seeded(), batch_size=0)
    with pytest.raises(ValueError, match=r"q must have shape \(6400, 1, 1\).* got None"):
        evaluation.draw_terms(model, x, None, generator=seeded())
    with pytest.raises(ValueError, match=r"q must have shape \(3, 1, 1\).* got \(6400, 1, 1\)"):
        evaluation.importance_bounds(model, x[:3], q, 1, generator=seeded())
    with pytest.raises(ValueError, match="no latents"):
        evaluation.encode_images(toy_model(None), x)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_the_mode_as_it_was(training):
    model = toy_model(Standard(1, 1), aux=True).train(training)
    updates = model.aux_prior.updates.clone()
    x = every_event().numpy()
    q = evaluation.encode_images(model, x)
    evaluation.draw_terms(model, x, q, generator=seeded())
    assert model.training is training
    assert torch.equal(model.aux_prior.updates, updates)
    with evaluating(model) as device:
        assert (model.training, torch.is_grad_enabled(), device.type) == (False, False, "cpu")
    assert (model.training, torch.is_grad_enabled()) == (training, True)
    with pytest.raises(ValueError, match="no latents"), evaluating(model):
        toy_model(None).encode(every_event())
    assert (model.training, torch.is_grad_enabled()) == (training, True)
