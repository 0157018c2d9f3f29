import math

import numpy as np
import pytest
import torch
from evaluation_toy import POSITIONS, every_event, toy_model
from scipy.stats import binom, chi2

from deltavae.decoders import GatedPixelCNN, PixelSNAIL
from deltavae.encoders import AntiCausalEncoder
from deltavae.evaluation import (
    decode_repeatedly,
    decoding_similarity,
    draw_latents,
    encode_images,
    latent_ablation,
)
from deltavae.latents import AR1, Standard
from deltavae.likelihoods import Bernoulli
from deltavae.model import DeltaVAE


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def copying(gain):
    """A model whose pixel t is 1 with probability σ(gain · z_t)."""
    model = toy_model(Standard(POSITIONS, 1))
    with torch.no_grad():
        model.decoder.a.copy_(gain * torch.eye(POSITIONS)[:, None])
        model.decoder.b.zero_()
    return model


# Decodings of one z.


def test_decodings_follow_the_z_they_share():
    images = every_event().numpy()
    decodings = decode_repeatedly(copying(1e6), images, 3, generator=seeded(1), batch_size=7)
    z = draw_latents(encode_images(copying(1e6), images), seeded(1))
    assert decodings.shape == (16, 3, 1, 1, POSITIONS)
    assert (decodings == (z > 0).numpy().reshape(16, 1, 1, 1, POSITIONS)).all()


def test_decodings_of_one_z_are_different_draws():
    images = every_event().numpy()
    decodings = decode_repeatedly(copying(0.0), images, 200, generator=seeded(1))
    share = decodings.mean()  # of 12,800 fair coins
    assert share == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(decodings.size))
    assert decodings.mean((1, 2, 3, 4)) == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(800))


def test_a_model_without_latents_has_nothing_to_decode():
    with pytest.raises(ValueError, match="no latents"):
        decode_repeatedly(toy_model(None), every_event().numpy(), 2, generator=seeded())
    with pytest.raises(ValueError, match="decodings must be at least 1, got 0"):
        decode_repeatedly(copying(1.0), every_event().numpy(), 0, generator=seeded())


# Their similarity.


def coloured(rng, m, k, shared):
    """Pictures of 256 levels: a part that all decodings of a z share, and one of their own."""
    common, own = rng.standard_normal((m, 1, 3, 4, 4)), rng.standard_normal((m, k, 3, 4, 4))
    mixed = math.sqrt(shared) * common + math.sqrt(1 - shared) * own
    return np.clip(128 + 30 * mixed, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("measure", ["squared", "correlation"])
def test_similarity_against_all_pairs(measure):
    y = coloured(np.random.default_rng(0), 5, 3, 0.3)
    y[0, 0] = 7  # constant: no correlation with anything

    def s(a, b):
        a, b = a.ravel() / 255.0, b.ravel() / 255.0
        if measure == "squared":
            return -np.mean((a - b) ** 2)
        return 0.0 if np.ptp(a) == 0 or np.ptp(b) == 0 else np.corrcoef(a, b)[0, 1]

    def difference(zs):
        index = [(m, k) for m in zs for k in range(3)]
        pairs = [(a, b) for a in index for b in index if a != b]
        within = np.mean([s(y[a], y[b]) for a, b in pairs if a[0] == b[0]])
        between = np.mean([s(y[a], y[b]) for a, b in pairs if a[0] != b[0]])
        return within, between, within - between

    found = decoding_similarity(y, 256, measure=measure, permutations=1, generator=seeded())
    assert (found.within, found.between, found.difference) == pytest.approx(difference(range(5)))
    left_out = np.array([difference([m for m in range(5) if m != out])[2] for out in range(5)])
    assert found.error == pytest.approx(
        math.sqrt(4 / 5 * np.sum((left_out - left_out.mean()) ** 2))
    )


@pytest.mark.parametrize("measure", ["squared", "correlation"])
def test_p_value_is_uniform_where_the_decoder_ignores_z(measure):
    rng, trials, n = np.random.default_rng(1), 500, 19
    found = [
        decoding_similarity(
            coloured(rng, 4, 2, 0.0), 256, measure=measure, permutations=n, generator=seeded(trial)
        ).p_value
        for trial in range(trials)
    ]
    ranks = np.bincount(np.rint(np.array(found) * (n + 1)).astype(int) - 1, minlength=n + 1)
    # 8 pictures make 105 sets of 4 pairs. T is as likely the first of them as any other, and a
    # relabelling is at least as high as the j-th with probability j/105.
    highest = np.arange(1, 106)[:, None] / 105
    expected = trials * binom.pmf(np.arange(n + 1), n, highest).mean(0)
    assert expected == pytest.approx(trials / (n + 1), rel=0.1)  # uniform, but for ties
    assert np.sum((ranks - expected) ** 2 / expected) < chi2.isf(1e-3, n)


def test_a_real_model_that_ignores_z_is_not_found_guilty():
    # 2 levels and 4 pixels: many ties, which only make the test more careful.
    values = [
        decoding_similarity(
            decode_repeatedly(copying(0.0), every_event().numpy()[:6], 3, generator=g),
            2,
            permutations=39,
            generator=g,
        )
        for g in map(seeded, range(120))
    ]
    p = np.array([found.p_value for found in values])
    for u in (0.025, 0.1, 0.5):
        assert (p <= u).mean() < u + 4 * math.sqrt(u * (1 - u) / 120)
    t = np.array([found.difference for found in values])
    assert abs(t.mean()) < 4 * t.std() / math.sqrt(120)
    # The jackknife's standard error against the spread over repetitions, known to 7 %.
    errors = np.array([found.error for found in values])
    assert math.sqrt((errors**2).mean()) == pytest.approx(t.std(), rel=0.35)


def test_p_value_is_at_its_minimum_where_the_decoder_copies_z():
    images = every_event().numpy()
    decodings = decode_repeatedly(copying(1e6), images, 3, generator=seeded(1))
    found = decoding_similarity(decodings, 2, permutations=999, generator=seeded(2))
    assert (found.within, found.p_value, found.permutations) == (0.0, 1 / 1000, 999)
    # Two pictures whose pixels are fair coins differ in half of them.
    assert found.between == pytest.approx(-0.5, abs=0.1)
    assert found.difference > 5 * found.error


def test_difference_is_the_share_of_variance_that_z_explains():
    # s = −(a − b)²: within −2 v (1 − shared), between −2 v with v = (30/255)².
    y = coloured(np.random.default_rng(2), 300, 3, 0.2)
    found = decoding_similarity(y, 256, permutations=99, generator=seeded())
    assert found.difference == pytest.approx(2 * (30 / 255) ** 2 * 0.2, abs=4 * found.error)
    assert found.error < 0.1 * found.difference
    alike = decoding_similarity(y, 256, measure="correlation", permutations=99, generator=seeded())
    # 48 values, their own mean taken off: correlation 0.2 within, 0 between, up to O(1/48).
    assert alike.difference == pytest.approx(0.2, abs=4 * alike.error + 0.2 / 48)


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        ((2, 2), {}, "at least 3 z's, 2 decodings each, got 2 and 2"),
        ((3, 1), {}, "at least 3 z's, 2 decodings each, got 3 and 1"),
        ((3, 2), {"permutations": 0}, "permutations must be at least 1, got 0"),
        ((3, 2), {"levels": 1}, "levels must be at least 2, got 1"),
    ],
)
def test_bad_arguments_of_the_similarity(shape, changes, message):
    arguments = {"levels": 2, "generator": seeded()} | changes
    with pytest.raises(ValueError, match=message):
        decoding_similarity(np.zeros((*shape, 1, 2, 2), np.uint8), **arguments)


# Ablation.


def bernoulli_log2(x, logits):
    p = 1 / (1 + np.exp(-logits))
    return np.log2(np.where(x > 0, p, 1 - p))


def test_ablation_of_two_events_by_hand():
    # Of two events each is the other's donor.
    model = toy_model(AR1(3, [0.5, 0.9], minimiser_units=False))
    x = every_event().numpy()[[3, 9]]
    found = latent_ablation(model, x, spans=2, generator=seeded(5))
    z = draw_latents(encode_images(model, x), seeded(5))
    a, b = model.decoder.a.detach(), model.decoder.b.detach()
    for t in range(3):
        changed = z.clone()
        changed[:, t] = z.flip(0)[:, t]
        before, after = (
            bernoulli_log2(x.reshape(2, 4), (torch.einsum("bnd,ndp->bp", u, a) + b).numpy())
            for u in (z, changed)
        )
        extra = (before - after).reshape(2, 2, 2).sum(2)  # spans of two positions
        assert found.bits[t] == pytest.approx(extra.mean(0), rel=1e-9)
        assert found.error[t] == pytest.approx(extra.std(0, ddof=1) / math.sqrt(2), rel=1e-9)


def test_ablation_is_the_mean_over_all_other_events():
    model = copying(1.5)
    x = every_event(40).numpy()
    found = latent_ablation(model, x, spans=POSITIONS, generator=seeded(5), batch_size=100)
    z = draw_latents(encode_images(model, x), seeded(5))[..., 0].numpy()
    pixels = x.reshape(-1, POSITIONS)
    other = ~np.eye(len(x), dtype=bool)
    for t in range(POSITIONS):
        own = bernoulli_log2(pixels[:, t], 1.5 * z[:, t])
        theirs = bernoulli_log2(pixels[:, None, t], 1.5 * z[None, :, t])
        extra = (own[:, None] - theirs)[other].mean()
        assert found.bits[t, t] == pytest.approx(extra, abs=4 * found.error[t, t])
        assert found.error[t, t] < 0.15
    off = ~np.eye(POSITIONS, dtype=bool)
    assert (found.bits[off] == 0).all()
    assert (found.error[off] == 0).all()


@pytest.mark.parametrize("kind", [GatedPixelCNN, PixelSNAIL])
@pytest.mark.parametrize("view", ["rows-above", "all"])
def test_ablation_is_exactly_zero_where_a_row_may_not_see_the_step(kind, view):
    torch.manual_seed(0)
    rows, latents = 4, AR1(4, [0.5, 0.8])
    shape = (1, rows, 3)
    sizes = {"channels": 8, "layers": 2, "heads": 2}
    decoder = kind(shape, Bernoulli(), (rows, 2), latent_view=view, **sizes)
    encoder = AntiCausalEncoder(shape, 2, latents.params_per_step, channels=8, layers=1)
    model = DeltaVAE(decoder, encoder, latents)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    x = torch.randint(0, 2, (20, *shape), generator=seeded(), dtype=torch.uint8).numpy()
    found = latent_ablation(model, x, generator=seeded(1), batch_size=8)
    t, r = np.indices((rows, rows))
    hidden = (r < t) & (view == "rows-above")
    assert (found.bits[hidden] == 0).all()
    assert (found.error[hidden] == 0).all()
    assert (np.abs(found.bits[~hidden]) > 1e-6).all()


def test_bad_arguments_of_the_ablation():
    model, x = copying(1.0), every_event().numpy()
    with pytest.raises(ValueError, match="images must be at least 2, got 1"):
        latent_ablation(model, x[:1], generator=seeded())
    with pytest.raises(ValueError, match="spans must divide 4 positions, got 3"):
        latent_ablation(model, x, spans=3, generator=seeded())
    with pytest.raises(ValueError, match="no latents"):
        latent_ablation(toy_model(None), x, generator=seeded())
