import json
import math

import numpy as np
import pytest
import torch
from evaluation_toy import every_event, toy_model

from deltavae import evaluation
from deltavae.data import Dataset, Split
from deltavae.evaluation import encode_images, evaluate
from deltavae.latents import (
    AR1,
    BatchNorm,
    Independent,
    LearnableAR1,
    LearnedPrior,
    Matern,
    Quantised,
    Spherical,
    Standard,
)
from deltavae.rates import committed_rate

MEANS = (
    "rate_bits",
    "aux_rate_bits",
    "distortion_bits",
    "elbo_bpd",
    "aux_elbo_bpd",
    "iwae_bpd",
    "aux_iwae_bpd",
    "mutual_information_bits",
    "aggregate_kl_bits",
    "probe_accuracy",
    "probe_draw_accuracy",
    "knn_accuracy",
    "baseline_accuracy",
)
LATENT = (
    "pair",
    "committed_rate_bits",
    "floor",
    "mutual_information_cap_bits",
    "active_units",
    "latent_units",
    "rate_terms_bits",
)
OTHERS = (
    "current_committed_rate_bits",
    "mean_rate_floor_bits",
    "split",
    "examples",
    "dims",
    "params",
    "aux_params",
    "binarisation",
    "iwae_samples",
    "warnings",
)
NAMES = {*MEANS, *(f"{name}_se" for name in MEANS), *LATENT, *OTHERS}
NAMES_WITHOUT_LATENTS = {"distortion_bits", "elbo_bpd", "baseline_accuracy"}


def dataset(labelled=True, notes=()):
    images = every_event(6).numpy()
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    images = images[order]
    labels = images[:, 0, 0, 1].astype(np.int64) if labelled else None  # separable by one pixel
    split = Split(images, labels)
    train, test = split.take(np.arange(60)), split.take(np.arange(60, 96))
    return Dataset("toy", train, test, levels=2, notes=notes)


@pytest.fixture(scope="module")
def full():
    model = toy_model(AR1(3, [0.5, 0.9]), aux=True)
    return model, evaluate(model, dataset(), importance_samples=30, seed=4)


def test_names_and_types(full):
    _, metrics = full
    assert set(metrics) == NAMES
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    null = {"binarisation", "mean_rate_floor_bits", "current_committed_rate_bits"}  # no such thing
    assert [name for name in NAMES - null if metrics[name] is None] == []
    assert (metrics["split"], metrics["examples"], metrics["dims"]) == ("test", 36, 4)


def test_means_and_standard_errors_against_numpy(full):
    model, metrics = full
    x = dataset().test.images
    terms = evaluation.draw_terms(
        model, x, encode_images(model, x), generator=torch.Generator().manual_seed(4)
    )
    bits = {
        "distortion_bits": terms.distortion,
        "rate_bits": terms.rate,
        "aux_rate_bits": terms.aux_rate,
        "elbo_bpd": terms.neg_elbo / 4,
        "aux_elbo_bpd": terms.aux_neg_elbo / 4,
    }
    for name, nats in bits.items():
        values = np.log2(np.exp(nats.numpy()))
        assert metrics[name] == pytest.approx(values.mean(), rel=1e-10)
        assert metrics[f"{name}_se"] == pytest.approx(values.std(ddof=1) / 6, rel=1e-10)


def test_identities_between_the_metrics(full):
    model, m = full
    assert m["committed_rate_bits"] == pytest.approx(
        math.log2(math.exp(model.latents.committed_rate))
    )
    assert m["rate_bits"] >= m["committed_rate_bits"]
    assert m["elbo_bpd"] == pytest.approx((m["distortion_bits"] + m["rate_bits"]) / 4)
    assert m["aux_elbo_bpd"] == pytest.approx((m["distortion_bits"] + m["aux_rate_bits"]) / 4)
    assert m["aggregate_kl_bits"] == pytest.approx(m["rate_bits"] - m["mutual_information_bits"])
    assert np.shape(m["rate_terms_bits"]) == (3, 2)
    assert np.sum(m["rate_terms_bits"]) == pytest.approx(m["rate_bits"])
    assert m["mutual_information_cap_bits"] == pytest.approx(math.log2(36))
    assert m["latent_units"] == 6
    assert m["iwae_samples"] == 30
    assert m["iwae_bpd"] < m["elbo_bpd"]  # by far more than the noise, at this rate
    assert m["params"] == 3 * 4 * 4 + 3 * 2 * 4 + 4  # encoder; decoder
    assert m["aux_params"] == sum(p.numel() for p in model.aux_prior.parameters())


def test_the_probe_reads_what_the_labels_are(full):
    _, m = full
    assert m["baseline_accuracy"] == 1.0
    assert m["baseline_accuracy_se"] == 0.0
    p = m["probe_accuracy"]
    assert m["probe_accuracy_se"] == pytest.approx(math.sqrt(p * (1 - p) / 35))  # binomial


def test_a_probe_on_draws_shows_the_collapse_that_a_probe_on_means_hides():
    model, data = toy_model(Standard(2, 2)), dataset()
    with torch.no_grad():
        model.encoder.w[:, 2:].zero_()  # σ = 1
        model.encoder.w.mul_(20.0)
    open_eyed = evaluate(model, data)
    assert open_eyed["probe_draw_accuracy"] > 0.9
    with torch.no_grad():
        model.encoder.w.mul_(1e-5)
    collapsed = evaluate(model, data)
    assert collapsed["mutual_information_bits"] < 1e-3
    assert collapsed["probe_accuracy"] == open_eyed["probe_accuracy"] > 0.9
    assert collapsed["knn_accuracy"] > 0.9
    assert collapsed["probe_draw_accuracy"] == pytest.approx(0.5, abs=4 * 0.5 / 6)  # chance


def test_metrics_are_a_function_of_the_seed_and_not_of_the_batch_size():
    model = toy_model(AR1(3, [0.5, 0.9]), aux=True)

    def run(seed, batch_size):
        return evaluate(model, dataset(), importance_samples=3, seed=seed, batch_size=batch_size)

    first = run(1, 256)
    assert run(1, 256) == first
    numbers = {k: v for k, v in first.items() if isinstance(v, float)}
    assert {k: v for k, v in run(1, 7).items() if k in numbers} == pytest.approx(numbers)
    other = run(2, 256)
    assert other["rate_bits"] == first["rate_bits"]
    drawn = [f"{name}_bpd" for name in ("elbo", "aux_elbo", "iwae", "aux_iwae")]
    assert all(other[name] != first[name] for name in (*drawn, "mutual_information_bits"))


def test_information_does_not_depend_on_the_importance_samples():
    model = toy_model(AR1(3, [0.5, 0.9]), aux=True)
    without, with_samples = (
        evaluate(model, dataset(), importance_samples=k, probe=False) for k in (0, 5)
    )
    changed = {k for k in NAMES if without[k] != with_samples[k]}
    assert changed == {
        "iwae_samples",
        "iwae_bpd",
        "iwae_bpd_se",
        "aux_iwae_bpd",
        "aux_iwae_bpd_se",
    }
    assert without["iwae_bpd"] is None
    assert without["iwae_samples"] == 0


def test_without_latents():
    model = toy_model(None)
    data = dataset()
    m = evaluate(model, data, importance_samples=10)
    assert set(m) == NAMES
    with torch.no_grad():
        log_prob = model.decoder.log_prob(torch.from_numpy(data.test.images), None).numpy()
    assert m["elbo_bpd"] == pytest.approx(-log_prob.mean() / np.log(16.0), rel=1e-12)
    for name in MEANS:
        for key in (name, f"{name}_se"):
            assert (m[key] is None) == (name not in NAMES_WITHOUT_LATENTS), key
    assert all(m[name] is None for name in LATENT)
    assert (m["iwae_samples"], m["warnings"]) == (0, [])


def test_without_an_auxiliary_prior():
    m = evaluate(toy_model(Standard(2, 1)), dataset(), importance_samples=2)
    assert m["iwae_bpd"] is not None
    assert (m["aux_rate_bits"], m["aux_elbo_bpd"], m["aux_iwae_bpd"]) == (None, None, None)
    assert m["aux_params"] == 0
    assert m["committed_rate_bits"] == 0.0


def test_split_and_limit():
    model, data = toy_model(Standard(2, 1)), dataset()
    train = evaluate(model, data, split="train", probe=False)
    assert (train["split"], train["examples"]) == ("train", 60)
    few = evaluate(model, data, limit=5, probe=False)
    with torch.no_grad():
        rate = model.latents.rate(model.encode(torch.from_numpy(data.test.images[:5])))
    assert few["examples"] == 5
    assert few["rate_bits"] == pytest.approx(math.log2(math.exp(float(rate.mean()))))
    assert evaluate(model, data, limit=1000, probe=False)["examples"] == 36


def test_one_example_has_no_standard_error():
    m = evaluate(toy_model(Standard(2, 1)), dataset(), limit=1, probe=False)
    assert m["rate_bits"] > 0
    assert m["rate_bits_se"] is None
    assert "saturated" in m["warnings"][0]  # the cap is 0 bits


@pytest.mark.parametrize("case", ["no labels", "not wanted", "one class"])
def test_no_probe(case):
    data = dataset(labelled=case != "no labels")
    if case == "one class":
        data.train.labels[:] = 1
    m = evaluate(toy_model(Standard(2, 1)), data, probe=case != "not wanted")
    assert {m[name] for name in m if "accuracy" in name} == {None}


def test_binarisation_is_stated():
    note = "binarised: 1 where x ≥ 128, of 256 levels"
    model = toy_model(None)
    assert evaluate(model, dataset(notes=("cut", note)))["binarisation"] == note
    assert evaluate(model, dataset())["binarisation"].startswith("none")


def test_progress_says_every_stage():
    lines = []
    model = toy_model(Standard(2, 1))
    evaluate(model, dataset(), importance_samples=2, progress=lines.append)
    assert lines == [
        "encoding 36 examples",
        "distortion and rate",
        "information",
        "importance weighting, draw 1 of 2",
        "importance weighting, draw 2 of 2",
        "linear probe and nearest neighbours",
    ]


def test_bad_arguments():
    model, data = toy_model(Standard(2, 1)), dataset()
    with pytest.raises(ValueError, match="importance_samples must be at least 0, got -1"):
        evaluate(model, data, importance_samples=-1)
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        evaluate(model, data, limit=0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        evaluate(model, data, batch_size=0)
    wide = Split(np.zeros((3, 1, 1, 5), np.uint8))
    with pytest.raises(ValueError, match=r"shape \(1, 1, 4\) for this model, got \(1, 1, 5\)"):
        evaluate(model, Dataset("wide", wide, wide, levels=2))
    with pytest.raises(ValueError, match="2 levels for this model, got 17"):
        evaluate(model, Dataset("deep", data.train, data.test, levels=17))


# The verdict.


def verdict(delta, rate, information, *, se=0.0, rate_se=0.0, cap=13.0, floor="example"):
    return evaluation.warnings(
        {
            "examples": round(2**cap),
            "committed_rate_bits": delta if floor == "example" else 0.0,
            "floor": floor,
            "mean_rate_floor_bits": delta if floor == "mean" else None,
            "rate_bits": rate,
            "rate_bits_se": rate_se,
            "mutual_information_bits": information,
            "mutual_information_bits_se": se,
            "mutual_information_cap_bits": cap,
        }
    )


COMMITTED = "the rate is committed, the information is not"


@pytest.mark.parametrize(
    ("figures", "warned"),
    [
        ((10.0, 10.4, 0.4), True),
        ((10.0, 10.6, 0.4), False),  # above the floor
        ((10.0, 10.4, 0.6), False),  # 5 % of δ is information
        ((1.0, 1.0, 0.09), True),  # 5 % of δ would be 0.05: 0.1 bit is little anyway
        ((1.0, 1.0, 0.11), False),
        ((100.0, 104.0, 0.9), True),  # 5 % of δ would be 5 bits: more than 1 is not little
        ((100.0, 104.0, 1.1), False),
    ],
)
def test_committed_rate_without_information(figures, warned):
    assert [COMMITTED in text for text in verdict(*figures)] == [True] * warned


def test_two_standard_errors_are_granted():
    assert verdict(10.0, 10.6, 0.4, rate_se=0.1) != []
    assert verdict(10.0, 10.4, 0.6, se=0.1) != []
    assert verdict(10.0, 10.8, 0.4, rate_se=0.1) == []
    assert verdict(10.0, 10.4, 0.8, se=0.1) == []


def test_saturated_estimate():
    (text,) = verdict(10.0, 30.0, 12.6)
    assert "saturated" in text
    assert verdict(10.0, 30.0, 12.4) == []
    (text,) = verdict(10.0, 10.0, 0.0, cap=0.0)  # one example cannot tell
    assert "saturated" in text


def test_ordinary_collapse():
    (text,) = verdict(0.0, 0.05, 0.01)
    assert "collapsed" in text
    assert verdict(0.0, 0.5, 0.01) == []
    assert verdict(0.0, 2.0, 1.9) == []


def test_a_model_at_its_floor_is_warned_of():
    model = toy_model(AR1(3, [0.5, 0.9]))
    assert evaluate(model, dataset(), probe=False)["warnings"] == []
    with torch.no_grad():
        model.encoder.w.zero_()
    m = evaluate(model, dataset(), probe=False)
    assert m["rate_bits"] == m["committed_rate_bits"]
    assert m["mutual_information_bits"] == pytest.approx(0.0, abs=1e-12)
    assert m["aggregate_kl_bits"] == pytest.approx(m["committed_rate_bits"])
    assert m["active_units"] == 0
    assert COMMITTED in m["warnings"][0]


def test_a_learned_prior_is_judged_by_the_floor_that_it_has_come_to():
    pair = LearnableAR1(3, [0.5, 0.9])
    with torch.no_grad():
        pair.weight.fill_(3.0)  # far above the floor that was asked for
    model = toy_model(pair)
    assert evaluate(model, dataset(), probe=False)["warnings"] == []
    with torch.no_grad():
        model.encoder.w.zero_()
    m = evaluate(model, dataset(), probe=False)
    present = committed_rate(pair.alpha.detach(), 3) / math.log(2)
    assert m["current_committed_rate_bits"] == pytest.approx(present, rel=1e-12)
    assert m["rate_bits"] == pytest.approx(present, rel=1e-6)
    assert present > 1.5 * m["committed_rate_bits"]
    (text,) = m["warnings"]
    assert COMMITTED in text
    assert f"the floor of the prior that it learned {present:.2f} bits" in text


@pytest.mark.parametrize(
    ("pair", "advice"),
    [
        (None, "a longer training, another δ, or a weaker decoder"),
        (
            AR1(3, [0.5], False, False),
            "a longer training, another δ, minimiser_units, innovations, or a weaker decoder",
        ),
        (
            AR1(3, [0.5, 0.5], innovations=False),
            "a longer training, another δ, fewer channels, innovations, or a weaker decoder",
        ),
        (AR1(3, [0.5]), "a longer training, another δ, or a weaker decoder"),
        (
            Matern(3, 4.0, 1.5),
            "a longer training, another δ, minimiser_units, or a weaker decoder",
        ),
        (Independent(3, 1, 2.0), "a longer training, another δ, or a weaker decoder"),
        (Quantised(3, [2]), "a longer training, or a weaker decoder"),
        (Spherical(3, 2, 5.0), "a longer training, or a weaker decoder"),
    ],
)
def test_advice_is_what_the_pair_can_follow(pair, advice):
    figures = {"rate_bits": 10.0, "committed_rate_bits": 10.0, "examples": 999}
    names = ("mutual_information_bits", "mutual_information_bits_se", "rate_bits_se")
    figures |= {**dict.fromkeys(names, 0.0), "mutual_information_cap_bits": 9.0}
    (text,) = evaluation.warnings(figures, pair)
    assert text.endswith(f"; try {advice}")


def test_floor_of_a_batch_mean_is_told_apart():
    figures = (10.0, 10.4, 0.4)
    (text,) = verdict(*figures, floor="mean")
    assert COMMITTED in text
    assert "its floor in training 10.00 bits" in text
    (text,) = verdict(10.0, 9.0, 5.0, floor="mean")
    assert "lies below the floor of 10.00 bits, which holds in training only" in text
    assert verdict(10.0, 9.0, 5.0, rate_se=0.6, floor="mean") == []
    model = toy_model(BatchNorm.from_rate(5.0, n=2, d=1))
    m = evaluate(model, dataset(), probe=False)
    assert (m["floor"], m["committed_rate_bits"]) == ("mean", 0.0)
    assert m["mean_rate_floor_bits"] == pytest.approx(5 / math.log(2))
    assert evaluate(toy_model(Standard(2, 1)), dataset())["mean_rate_floor_bits"] is None


def test_rate_under_a_learned_prior_is_that_of_the_draw_and_so_are_the_bounds():
    latents = LearnedPrior(2, 1, hidden=3)
    generator = torch.Generator().manual_seed(0)
    for p in latents.parameters():
        p.data = 0.5 * torch.randn(p.shape, generator=generator)
    model, data = toy_model(latents), dataset()
    m = evaluate(model, data, importance_samples=50, probe=False)
    # Exact −log p(x) by a grid over z: below both bounds, and near the importance-weighted one.
    axis = torch.linspace(-9, 9, 181, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)[..., None]
    log_p = []
    with torch.no_grad():
        prior = model.latents.log_prior(grid) + 2 * math.log(0.1)
        for x in torch.from_numpy(data.test.images):
            many = x.expand(len(grid), *x.shape)
            log_p.append(torch.logsumexp(model.decoder.log_prob(many, grid) + prior, 0))
    exact = -torch.stack(log_p).mean().item() / (4 * math.log(2))
    assert exact < m["iwae_bpd"] < m["elbo_bpd"]
    assert m["iwae_bpd"] == pytest.approx(exact, abs=4 * m["iwae_bpd_se"])
    assert m["committed_rate_bits"] == 0.0
    assert m["rate_bits"] > 0
