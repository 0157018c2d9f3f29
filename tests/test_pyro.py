"""Priors in Pyro models: Pyro's own estimates of the ELBO against the rate in closed form."""

import math
import sys

import pytest
import torch
from torch.distributions import Independent as Reinterpreted
from torch.distributions import Normal, kl_divergence

from deltavae.certified import Laplace
from deltavae.latents import (
    AR1,
    AR1Prior,
    Grid,
    Matern,
    MeanFieldPair,
    PowerSpherical,
    SphericalUniform,
    as_pyro,
)

B, NOISE = 3, 0.5
PAIRS = {
    "ar1": AR1(4, [0.5, -0.9]),
    "matern": Matern(4, [3.0, 3.0], 2.5),
    "grid": Grid([0.8, 0.3], [0.6, 0.9], 2, 2),
    "laplace": MeanFieldPair(Laplace(), 4, 2),
}


@pytest.fixture
def pyro():
    return pytest.importorskip("pyro", reason="the optional extra pyro is not installed")


def seeded(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(params=PAIRS.values(), ids=PAIRS)
def pair(request):
    return request.param


@pytest.fixture
def programs(pyro, pair):
    """A model x = z + noise under the pair's prior, a posterior as guide, and that posterior."""
    import pyro.distributions as dist

    q = pair.posterior(seeded(B, 4, 4, seed=0))
    x = seeded(B, 4, 2, seed=1)

    def model():
        with pyro.plate("examples", B):
            z = pyro.sample("z", as_pyro(pair.prior))
            pyro.sample("x", dist.Normal(z, NOISE).to_event(2), obs=x)

    def guide():
        with pyro.plate("examples", B):
            pyro.sample("z", dist.Normal(q.mu, q.sigma).to_event(2))

    squares = (x - q.mu).square() + q.sigma.square()
    distortion = 0.5 * (squares / NOISE**2 + math.log(2 * math.pi * NOISE**2)).sum()
    return model, guide, q, distortion.item()


def test_trace_elbo_estimates_rate_plus_distortion(pyro, pair, programs):
    from pyro.infer import Trace_ELBO

    model, guide, q, distortion = programs
    expected = pair.rate(q).sum().item() + distortion
    pyro.set_rng_seed(0)
    elbo = Trace_ELBO(num_particles=500, vectorize_particles=True, max_plate_nesting=1)
    losses = torch.tensor([elbo.loss(model, guide) for _ in range(20)])
    error = losses.std().item() / math.sqrt(20)
    assert abs(losses.mean().item() - expected) < 4 * error  # four standard errors
    assert error < 0.01 * expected


def test_mean_field_elbo_takes_the_registered_divergence(pyro, pair, programs):
    """Its draws enter the distortion alone: less their distortion the loss is the rate."""
    from pyro.infer import TraceMeanField_ELBO

    model, guide, q, _ = programs
    pyro.set_rng_seed(1)
    loss = TraceMeanField_ELBO(max_plate_nesting=1).loss(model, guide)
    pyro.set_rng_seed(1)
    trace = pyro.poutine.trace(guide).get_trace()
    replayed = pyro.poutine.trace(pyro.poutine.replay(model, trace)).get_trace()
    replayed.compute_log_prob()
    distortion = -replayed.nodes["x"]["log_prob"].sum().item()
    assert loss - distortion == pytest.approx(pair.rate(q).sum().item(), rel=1e-9)


def test_a_site_is_the_same_distribution(pyro, pair):
    prior = pair.prior
    site = as_pyro(prior)
    assert isinstance(site, type(prior))
    assert type(prior) is not type(site)
    z = seeded(5, 4, 2, seed=2)
    assert torch.equal(site.log_prob(z), prior.log_prob(z))
    wide = site.expand((3,))
    assert type(wide) is type(site)
    assert wide.shape() == (3, 4, 2)
    posterior = Reinterpreted(Normal(z, z.exp()), 2)
    assert torch.equal(kl_divergence(posterior, site), kl_divergence(posterior, prior))


def test_alpha_of_a_pyro_model_is_learned(pyro):
    """The likeliest α of draws with a known one, found by Pyro's own optimisation."""
    from pyro.infer import SVI, Trace_ELBO
    from torch.distributions import constraints

    truth = torch.tensor([0.8])
    torch.manual_seed(0)
    z = AR1Prior(400, truth).sample()

    def model():
        alpha = pyro.param("alpha", torch.tensor([0.1]), constraint=constraints.unit_interval)
        pyro.sample("z", as_pyro(AR1Prior(400, alpha)), obs=z)

    pyro.clear_param_store()
    svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(60):
        svi.step()
    learned = pyro.param("alpha").item()
    # standard error of the maximum likelihood estimate: √((1 − α²)/n) = 0.03
    assert learned == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize("kind", [PowerSpherical, SphericalUniform])
def test_directions_are_sites_too(pyro, kind):
    directions = torch.nn.functional.normalize(seeded(B, 3, seed=3), dim=-1)
    arguments = (3,) if kind is SphericalUniform else (directions[0], torch.tensor(4.0).double())
    prior = kind(*arguments)

    def model():
        with pyro.plate("examples", B):
            return pyro.sample("z", as_pyro(prior))

    trace = pyro.poutine.trace(pyro.condition(model, data={"z": directions})).get_trace()
    found = trace.log_prob_sum()
    torch.testing.assert_close(found, prior.log_prob(directions).sum())
    assert model().shape == (B, 3)


def test_without_pyro_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyro.distributions.torch_distribution", None)
    with pytest.raises(ValueError, match=r"deltavae\[pyro\]"):
        as_pyro(AR1(4, 0.5).prior)
