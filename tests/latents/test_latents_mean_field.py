"""Mean-field Gaussian × a density that is no Gaussian: floor, knobs, draws, training."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import cauchy, kstest, logistic
from sklearn.datasets import load_digits
from torch.distributions import kl_divergence

from deltavae import load
from deltavae.certified import (
    Certificate,
    GaussianMixture,
    Laplace,
    Logistic,
    ProductPrior,
    ScalarPrior,
    StudentT,
    rule,
)
from deltavae.configuration import build_latents, model_specification
from deltavae.data import Dataset, Split
from deltavae.latents import MeanFieldPair
from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import DeltaVAEDataModule, DeltaVAEModule, read_log, train
from deltavae.training.floors import BrokenFloorError, check_floor
from deltavae.units import bits_to_nats, both_units, nats_to_bits
from panels import divergence
from runs import DECODER, ENCODER

PRIORS = {
    "laplace": Laplace(),
    "logistic": Logistic(),
    "cauchy": StudentT(1.0),
    "modes": GaussianMixture(2.2),
}
PAIRS = {name: MeanFieldPair(prior, n=3, d=2) for name, prior in PRIORS.items()}
LAPLACE = 0.5 + math.log(2) - math.log(math.pi)


def raw(*shape, scale=1.0, dtype=torch.float64):
    return scale * torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PAIRS)
def test_rate_is_the_divergence(name):
    """Against Gauss–Legendre panels: never less, and more by twice the stated error at most."""
    pair, prior = PAIRS[name], PRIORS[name]
    q = pair.posterior(raw(5, 3, 4))
    terms = pair.rate_terms(q)
    torch.testing.assert_close(terms.sum(dim=(1, 2)), pair.rate(q), rtol=1e-12, atol=0)
    torch.testing.assert_close(pair.committed_terms.sum().item(), pair.committed_rate)
    direct = [
        divergence(lambda x: prior.log_prob(torch.from_numpy(x)).numpy(), m, s)
        for m, s in zip(q.mu.flatten().tolist(), q.sigma.flatten().tolist(), strict=True)
    ]
    above = terms.flatten() - torch.tensor(direct, dtype=torch.float64)
    assert float(above.min()) >= -1e-11
    if prior.curvature is None:
        assert float(above.max()) <= 1e-11
    else:
        by = rule(len(pair.nodes) // 2)
        bound = by.error(q.sigma.flatten(), prior.curvature, prior.quartic)
        assert bool((above <= 2 * bound + 1e-6).all())
    rates = torch.tensor(direct, dtype=torch.float64).reshape(5, 6).sum(1)
    torch.testing.assert_close(pair.direct_rate(q), rates, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", PAIRS)
def test_the_prior_as_a_distribution(name):
    pair = PAIRS[name]
    prior = pair.prior
    assert (type(prior), prior.event_shape, prior.density) == (ProductPrior, (3, 2), pair.density)
    q = pair.posterior(raw(5, 3, 4))
    z = q.sample(raw(5, 3, 2))
    assert torch.equal(pair.log_prior(z), pair.density.log_prob(z).sum(dim=(1, 2)))
    assert prior.sample((7,)).shape == (7, 3, 2)
    assert prior.sample().dtype == torch.float64
    above = pair.rate(q) - kl_divergence(q.distribution, prior)
    error = torch.zeros(5)
    if pair.density.curvature is not None:
        bounds = pair.density.curvature, pair.density.quartic
        error = rule(len(pair.nodes) // 2).error(q.sigma, *bounds).sum(dim=(1, 2))
    assert float(above.min()) >= -1e-11
    assert bool((above <= 2 * error + 6e-6 * pair.committed_rate + 1e-11).all())


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(PAIRS)),
    mean=st.floats(-1e4, 1e4),
    scale=st.floats(-1e4, 1e4),
    double=st.booleans(),
)
def test_every_raw_output_keeps_the_floor(name, mean, scale, double):
    pair, dtype = PAIRS[name], torch.float64 if double else torch.float32
    params = torch.tensor([mean, 0.0, scale, 0.0], dtype=dtype).expand(1, 3, 4).contiguous()
    params.requires_grad_()
    q = pair.posterior(params)
    total = pair.rate(q)
    assert total.dtype == dtype
    assert float(q.excess.detach().min()) >= 0
    assert total.item() >= pair.committed_rate * (1 - (0 if double else 2**-23))
    (total.sum() + q.mu.sum() + q.sigma.log().sum()).backward()
    assert bool(params.grad.isfinite().all())


@pytest.mark.parametrize("name", PAIRS)
def test_the_minimiser_costs_the_floor(name):
    pair = PAIRS[name]
    found = pair.certificate
    params = torch.zeros(1, 3, 4, dtype=torch.float64)
    params[..., :2] = found.mu / found.sigma  # the priors are centred at 0
    q = pair.posterior(params)
    torch.testing.assert_close(q.mu, torch.full_like(q.mu, found.mu))
    torch.testing.assert_close(q.sigma[0], pair.sigma_star)
    above = float(pair.rate(q)) - pair.committed_rate
    assert 0 <= above <= 6 * (pair.quadrature_error + 1e-6 * found.lower)
    assert pair.quadrature_error <= 1e-3 * found.lower
    z = pair.to_decoder(q.sample(torch.ones_like(q.mu)))
    torch.testing.assert_close(z, 1 + params[..., :2])


def test_half_precision_keeps_the_floor():
    pair = MeanFieldPair(PRIORS["modes"], n=3, d=2).half()
    assert pair.nodes.dtype == pair.quantiles.dtype == torch.float64
    q = pair.posterior(raw(64, 3, 4, dtype=torch.float16))
    assert q.excess.dtype == torch.float32
    assert float(q.excess.min()) >= 0
    assert not pair.state_dict()


@pytest.mark.parametrize(
    ("bits", "n", "d", "family"),
    [
        (5.0, 8, 8, GaussianMixture()),
        (50.0, 8, 16, GaussianMixture()),
        (500.0, 32, 32, GaussianMixture()),
        (5.0, 8, 8, StudentT()),
        (50.0, 16, 16, StudentT()),
        (500.0, 32, 64, StudentT()),
    ],
)
def test_from_rate_hits_the_rate(bits, n, d, family):
    delta = bits_to_nats(bits)
    pair = MeanFieldPair.from_rate(delta, n, d, family)
    assert pair.committed_rate == pytest.approx(delta, rel=1e-6)
    assert n * d * pair.certificate.upper == pytest.approx(delta, rel=1e-6)
    assert (pair.n, pair.d) == (n, d)


def test_from_rate_says_which_dimensions_would_do():
    with pytest.raises(ValueError, match=r"Laplace has no knob .* n d = 72; got n d = 64") as told:
        MeanFieldPair.from_rate(bits_to_nats(5.0), 8, 8, Laplace())
    assert f"{both_units(72 * LAPLACE)} at n d = 72" in str(told.value)
    pair = MeanFieldPair.from_rate(72 * LAPLACE, 9, 8, Laplace())
    assert pair.committed_rate == pytest.approx(72 * LAPLACE, rel=1e-15)
    with pytest.raises(ValueError, match=r"takes n d from 51 to .* got n d = 50"):
        MeanFieldPair.from_rate(50.5 * math.log(2), 25, 2)
    with pytest.raises(ValueError, match="delta must be above 0, got nan"):
        MeanFieldPair.from_rate(math.nan, 8, 8)
    with pytest.raises(ValueError, match="n and d must be at least 1, got n=0, d=2"):
        MeanFieldPair.from_rate(1.0, 0, 2)
    with pytest.raises(ValueError, match="n and d must be at least 1, got n=1, d=0"):
        MeanFieldPair(Laplace(), 1, 0)


@pytest.mark.parametrize("name", PAIRS)
def test_configuration_rebuilds_the_pair(name):
    pair = PAIRS[name]
    params = raw(2, 3, 4)
    again = MeanFieldPair(**pair.config())
    built = instantiate(
        {"class_path": "deltavae.latents.MeanFieldPair", "init_args": pair.config()}
    )
    for other in (again, built):
        assert other.config() == pair.config()
        assert other.committed_rate == pair.committed_rate
        assert torch.equal(other.rate(other.posterior(params)), pair.rate(pair.posterior(params)))


def test_priors_from_elsewhere_are_refused():
    for path in (
        "sklearn.cluster.KMeans",
        "deltavae.certified.rule",
    ):
        with pytest.raises(
            ValueError, match=r"prior must be a prior of deltavae\.certified, got cla"
        ):
            MeanFieldPair({"class_path": path}, 2, 2)
    spec = {"class_path": "deltavae.certified.StudentT", "init_args": {"nu": 3}}
    with pytest.raises(ValueError, match=r"deltavae\.certified\.StudentT: .*'nu'"):
        MeanFieldPair(spec, 2, 2)


@pytest.mark.parametrize(("name", "law"), [("logistic", logistic), ("cauchy", cauchy)])
def test_draws_follow_the_prior(name, law):
    pair = PAIRS[name]
    z = pair.sample_prior(2000, torch.Generator().manual_seed(4))
    assert (z.shape, z.dtype) == ((2000, 3, 2), torch.float32)
    assert kstest(z.flatten().numpy(), law.cdf).pvalue > 1e-3
    expected = torch.from_numpy(law.logpdf(z.numpy())).sum(dim=(1, 2))
    torch.testing.assert_close(pair.log_prior(z).double(), expected, rtol=1e-5, atol=1e-5)


def test_monte_carlo_of_the_rate():
    """E_q[ln q − ln p] over 200,000 draws, within five standard errors."""
    pair = PAIRS["modes"]
    one = pair.posterior(0.5 * raw(1, 3, 4))
    q = one.map(lambda t: t.expand(200_000, 3, 2))
    z = q.sample(raw(200_000, 3, 2))
    sample = q.log_prob(z) - pair.log_prior(z)
    error = 5 * float(sample.std()) / math.sqrt(len(sample))
    assert error < 0.1
    assert float(sample.mean()) == pytest.approx(float(pair.rate(one)), abs=error + 1e-3)


class Own(ScalarPrior):
    """0.7 N(−2, 1) + 0.3 N(2, 1)."""

    curvature = (-3.0, 1.0)  # V'' = 1 − var(m_J|x), of ±2

    def log_prob(self, x):
        logits = torch.stack([math.log(0.7) - (x + 2) ** 2 / 2, math.log(0.3) - (x - 2) ** 2 / 2])
        return logits.logsumexp(0) - math.log(2 * math.pi) / 2


def test_bring_your_own():
    own = MeanFieldPair(Own(), 4, 2)
    given = MeanFieldPair.from_log_prob(Own().log_prob, 4, 2, curvature=(-3.0, 1.0))
    assert own.certificate.certified
    assert given.committed_rate == own.committed_rate > 0
    assert own.proof.startswith("branch and bound")
    assert "(certified)" in repr(own)
    params = raw(3, 4, 4)
    assert torch.equal(own.posterior(params).excess, given.posterior(params).excess)
    middle = own.posterior(torch.zeros(1, 4, 4)).mu
    below = own.density.log_prob(torch.linspace(-12, float(middle[0, 0, 0]), 20_001)).exp()
    assert float(below.mean()) * (float(middle[0, 0, 0]) + 12) == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(ValueError, match="a prior given as a function cannot be kept"):
        given.config()


def test_without_bounds_the_floor_is_only_found():
    loose = MeanFieldPair.from_log_prob(Own().log_prob, 4, 2)
    assert loose.summary == "prior given as a function"
    proven = MeanFieldPair(Own(), 4, 2)
    assert not loose.certificate.certified
    assert loose.proof.startswith("not proven")
    assert "(not certified)" in repr(loose)
    assert math.isnan(loose.quadrature_error)
    assert 8 * proven.certificate.lower <= loose.committed_rate <= 8 * proven.certificate.upper
    q = loose.posterior(raw(16, 4, 4))
    torch.testing.assert_close(loose.rate(q), loose.direct_rate(q), rtol=1e-3, atol=0)


class Missed(Own):
    """The same, of whose two minima the search has found the higher one."""

    curvature = None

    @property
    def certificate(self):
        return Certificate(1.2, 1.2, 2.0, 1.0, False, "by hand")


def test_the_direct_check_sees_what_the_excess_hides():
    pair = MeanFieldPair(Missed(), 1, 1, panels=64)
    params = torch.tensor([[[-2.0 - pair._centre, 0.0]]])  # σ* = 1
    q = pair.posterior(params)
    assert float(q.excess) == 0
    assert float(pair.direct_rate(q)) < 0.4  # at the mode of weight 0.7: ln(1/0.7) at most
    with pytest.raises(BrokenFloorError, match="below the committed rate"):
        check_floor(pair, params, torch.arange(1), step=1)


def test_a_run_folder_keeps_a_prior_of_ones_own(tmp_path):
    pair = MeanFieldPair(Own(), 4, 2)
    spec = model_specification((1, 4, 4), 5, decoder=DECODER, encoder=ENCODER, latents=pair)
    model, run = instantiate(spec, trust=True), RunFolder(tmp_path)
    run.write_config({"model": spec})
    run.save_weights(model)
    with pytest.raises(ValueError, match='Own" is not a class of deltavae'):
        load(tmp_path)
    loaded = load(tmp_path, trust=True).latents
    assert type(loaded.density) is Own
    assert loaded.config() == pair.config()
    params = raw(3, 4, 4)
    assert torch.equal(loaded.rate(loaded.posterior(params)), pair.rate(pair.posterior(params)))


@pytest.mark.parametrize(("path", "rate"), [("GaussianMixture", 4.0), ("Laplace", None)])
def test_digits_are_learned_above_the_floor(path, rate, tmp_path):
    images = (load_digits().images[:192, None]).astype("uint8")
    data = Dataset("digits", Split(images[:160]), Split(images[160:]), levels=17)
    spec = {
        "class_path": "deltavae.latents.MeanFieldPair",
        "init_args": {"prior": {"class_path": f"deltavae.certified.{path}"}},
    }
    delta_bits = rate or nats_to_bits(16 * LAPLACE)
    pair = build_latents(spec, n=8, d=2, delta_bits=delta_bits)
    torch.manual_seed(0)
    model = instantiate(
        model_specification((1, 8, 8), 17, decoder=DECODER, encoder=ENCODER, latents=pair)
    )
    module = DeltaVAEModule(model, steps=24, log_every=3, warmup_steps=3)
    batches = DeltaVAEDataModule(data, steps=24, batch_size=16)
    train(module, batches, RunFolder(tmp_path), trainer={"accelerator": "cpu"})
    rows = read_log(tmp_path / "log.csv")
    rates = [row["rate_bits"] for row in rows if row.get("rate_bits") is not None]
    assert len(rates) >= 8
    assert min(rates) >= delta_bits * (1 - 1e-6)
    told = [row["distortion_bits"] for row in rows if row.get("distortion_bits") is not None]
    assert told[-1] < told[0]
