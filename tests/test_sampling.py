"""Steps equal the parallel forward, for every decoder; drawing, completing, choosing among z."""

import math
from functools import partial

import pytest
import torch

from deltavae.decoders import Decoder, GatedPixelCNN, PixelSNAIL, State
from deltavae.likelihoods import Bernoulli, Categorical, DiscretisedLogisticMixture
from deltavae.run_folder import instantiate
from deltavae.sampling import draw, draw_in_batches, resample, score
from runs import tiny_specification

H, W, N, D = 5, 4, 5, 3
LIKELIHOODS = [
    DiscretisedLogisticMixture(1, 256, 2),
    DiscretisedLogisticMixture(3, 256, 2),
    Categorical(1, 5),
    Bernoulli(1),
]
DECODERS = {
    "GatedPixelCNN": partial(GatedPixelCNN, channels=8, layers=3, attend_every=2),
    "GatedPixelCNN-5": partial(GatedPixelCNN, channels=6, layers=2, kernel_size=5, heads=3),
    "PixelSNAIL": partial(PixelSNAIL, channels=8, layers=3, attention_layers=2, attend_every=2),
}
VIEWS = [None, "rows-above", "all"]


@pytest.fixture(params=DECODERS)
def build(request):
    """A function from a likelihood and a view to a decoder, images and latents."""

    def make(likelihood=LIKELIHOODS[1], view="rows-above", dtype=torch.float64, batch=2):
        torch.manual_seed(0)
        latents = {} if view is None else {"latent_shape": (N, D), "latent_view": view}
        shape = (likelihood.channels, H, W)
        decoder = DECODERS[request.param](shape, likelihood, **latents).to(dtype).eval()
        x = torch.randint(0, likelihood.levels, (batch, *shape), dtype=torch.uint8)
        return decoder, x, torch.randn(batch, N, D).to(dtype) if latents else None

    return make


def seed(number):
    return torch.Generator().manual_seed(number)


def without_caches(decoder, monkeypatch):
    """The decoder with the steps of its base class: one full forward each."""
    monkeypatch.setattr(decoder, "init_state", partial(Decoder.init_state, decoder))
    monkeypatch.setattr(decoder, "step", partial(Decoder.step, decoder))
    return decoder


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_steps_equal_the_parallel_forward(build, likelihood, view):
    decoder, x, z = build(likelihood, view)
    with torch.no_grad():
        parallel = decoder(x, z)
    torch.testing.assert_close(score(decoder, x, z), parallel, rtol=0, atol=1e-10)
    decoder, x, z = build(likelihood, view, torch.float32)
    error = (score(decoder, x, z) - parallel.float()).abs().max()
    assert error <= 1e-4 * parallel.abs().max()


@pytest.mark.parametrize("view", VIEWS)
def test_steps_without_caches_equal_the_parallel_forward(build, view, monkeypatch):
    decoder, x, z = build(view=view)
    parallel = decoder(x, z).detach()
    stepwise = score(without_caches(decoder, monkeypatch), x, z)
    torch.testing.assert_close(stepwise, parallel, rtol=0, atol=1e-10)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_caches_change_no_integer_that_is_drawn(build, likelihood, view, monkeypatch):
    decoder, _, z = build(likelihood, view, batch=9)
    cached = draw(decoder, z, 9, generator=seed(3))
    plain = draw(without_caches(decoder, monkeypatch), z, 9, generator=seed(3))
    assert torch.equal(cached, plain)
    assert not torch.equal(cached, draw(decoder, z, 9, generator=seed(4)))


def test_steps_change_no_parameter_and_need_no_gradient(build):
    decoder, x, z = build()
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    sequence, state, previous = decoder.to_sequence(x), decoder.init_state(z, 2), None
    assert isinstance(state, State)
    for i in range(decoder.positions):  # outside of draw, with gradients enabled
        assert state.position == i
        params, state = decoder.step(state, previous)
        previous = sequence[:, i]
    torch.testing.assert_close(params, decoder(x, z)[:, -1], rtol=0, atol=1e-10)
    for name, value in decoder.state_dict().items():
        assert torch.equal(value, before[name]), name
    drawn = draw(decoder, z, 2)
    assert not drawn.is_inference()
    decoder.log_prob(drawn, z).sum().backward()  # what was drawn can be trained on


@pytest.mark.parametrize("view", [None, "rows-above"])
def test_batches_draw_what_one_batch_does(build, view):
    decoder, x, z = build(view=view, batch=7)
    told = []
    settings = {"generator": seed(1), "progress": lambda *done: told.append(done)}
    parts = draw_in_batches(decoder, z, 7, batch_size=3, given=x, positions=6, **settings)
    assert torch.equal(parts, draw(decoder, z, 7, given=x, positions=6, generator=seed(1)))
    assert told == [(i + 1, 3 * H * W) for i in range(3 * H * W)]
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        draw_in_batches(decoder, z, 7, batch_size=0)


@pytest.mark.parametrize("positions", [0, 1, W, 2 * W + 3, H * W])
def test_completion_keeps_what_is_given_and_reads_no_further(build, positions):
    decoder, x, z = build(batch=6)
    sequence = decoder.to_sequence(x)
    other = sequence.clone()
    other[:, positions:] += 77
    settings = {"positions": positions, "temperature": 2.0}
    drawn = draw(decoder, z, 6, given=x, generator=seed(0), **settings)
    again = draw(decoder, z, 6, given=decoder.from_sequence(other), generator=seed(0), **settings)
    assert torch.equal(drawn, again)
    assert torch.equal(decoder.to_sequence(drawn)[:, :positions], sequence[:, :positions])
    if positions < H * W:
        assert not torch.equal(drawn, x)
    if positions == 0:
        assert torch.equal(drawn, draw(decoder, z, 6, generator=seed(0), temperature=2.0))


def tiny(decoder_class=GatedPixelCNN):
    torch.manual_seed(0)
    return decoder_class((1, 1, 2), Categorical(1, 3), (1, 2), channels=8, layers=2).double()


def test_drawn_pixels_follow_the_conditionals():
    """Counts of the first two pixels of drawn images against their exact joint distribution."""
    decoder, count = tiny(), 20_000
    z = torch.randn(1, 1, 2, dtype=torch.float64)
    drawn = draw(decoder, z.expand(count, 1, 2), count, generator=seed(0)).flatten(1).long()
    grid = torch.cartesian_prod(torch.arange(3), torch.arange(3)).to(torch.uint8)
    log_prob = decoder.log_prob(grid.reshape(9, 1, 1, 2), z.expand(9, 1, 2))
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    observed = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / count
    # Five standard errors of a share of 1/9 are 0.011.
    torch.testing.assert_close(observed.double(), log_prob.exp(), rtol=0, atol=0.011)


def test_resampling_follows_the_weights():
    decoder, count = tiny(), 40_000
    z = 3.0 * torch.randn(4, 1, 2, dtype=torch.float64)
    x = torch.tensor([[[2, 1]]], dtype=torch.uint8)
    # p(x_1 = 2 | z) by summing the joint over x_2.
    pairs = torch.tensor([[[[2, i]]] for i in range(3)], dtype=torch.uint8)
    likelihood = sum(decoder.log_prob(pair.expand(4, 1, 1, 2), z).exp() for pair in pairs)
    weights = likelihood / likelihood.sum()
    chosen, effective = resample(decoder, z, x, 1, count, generator=seed(0))
    assert effective == pytest.approx(1.0 / weights.square().sum().item(), rel=1e-10)
    shares = torch.bincount(chosen, minlength=4) / count
    # Five standard errors are at most 5 √(¼/40,000) = 0.0125.
    torch.testing.assert_close(shares.double(), weights.detach(), rtol=0, atol=0.0125)
    parts, _ = resample(decoder, z, x, 1, count, generator=seed(0), batch_size=3)
    assert torch.equal(parts, chosen)
    _, effective = resample(decoder, z, x, 0, 1)
    assert effective == pytest.approx(4.0)  # nothing kept says nothing


def completing_model(latents="AR1"):
    torch.manual_seed(0)
    model = instantiate(tiny_specification(latents)).double().eval()
    with torch.no_grad():  # untrained, the decoder hardly reads the latents
        for module in model.decoder.attention.values():
            module.read.weight.mul_(8.0)
            module.out.weight.mul_(8.0)
    return model


def test_completion_draws_z_given_what_is_kept():
    """P(the next pixel | the rows kept) by importance sampling with very many z, and counted."""
    model, rows, many = completing_model(), 2, 20_000
    x = torch.randint(0, 5, (1, 1, 4, 4), dtype=torch.uint8)
    z = model.latents.to_decoder(model.sample_latents(many, generator=seed(5)).double())
    with torch.no_grad():
        everyone = x.expand(many, 1, 4, 4)
        log_weight = model.decoder.log_prob(everyone, z, rows * 4)
        next_pixel = model.decoder(everyone, z)[:, rows * 4].softmax(1)
        weight = log_weight.softmax(0)
    expected, under_prior = weight @ next_pixel, next_pixel.mean(0)
    assert (expected - under_prior).abs().max() > 0.05  # the latents matter here
    repeats, draws = 300, 8  # the same candidates are shared by 8 draws only
    completion = model.complete(
        x.expand(repeats, 1, 4, 4), rows * 4, draws, candidates=256, generator=seed(6)
    )
    assert completion.events.shape == (repeats, draws, 1, 4, 4)
    assert torch.equal(
        completion.events[:, :, :, :rows], x[:, None, :, :rows].expand(repeats, draws, 1, rows, 4)
    )
    counts = torch.bincount(completion.events[:, :, 0, rows, 0].flatten().long(), minlength=5)
    # Four standard errors of a share, √(¼/2,400), were all draws independent.
    torch.testing.assert_close((counts / counts.sum()).double(), expected, rtol=0, atol=0.04)
    assert all(1.0 <= number <= 256.0 for number in completion.effective_candidates)


def test_completion_without_latents_needs_no_candidates():
    model = completing_model(None)
    x = torch.randint(0, 5, (2, 1, 4, 4), dtype=torch.uint8)
    completion = model.complete(x, 6, 3, generator=seed(0))
    assert completion.effective_candidates == ()
    by_hand = draw(
        model.decoder, None, 6, given=x.repeat_interleave(3, 0), positions=6, generator=seed(0)
    )
    assert torch.equal(completion.events.flatten(0, 1), by_hand)


def test_model_draws_the_same_in_batches_of_any_size():
    model = completing_model()
    one, many = (
        model.sample(7, generator=seed(0), batch_size=size, temperature=0.7) for size in (2, 64)
    )
    assert torch.equal(one, many)
    assert math.prod(one.shape) == 7 * 16


def test_arguments_out_of_range_are_named(build):
    decoder, x, z = build()
    with pytest.raises(ValueError, match=r"positions must be in 0..20, got 21"):
        draw(decoder, z, 2, given=x, positions=21)
    with pytest.raises(ValueError, match=r"given must have shape \(2, 3, 5, 4\) .*, got None"):
        draw(decoder, z, 2, positions=1)
    with pytest.raises(ValueError, match=r"got \(2, 3, 4, 4\)"):
        draw(decoder, z, 2, given=x[:, :, 1:], positions=1)
    with pytest.raises(ValueError, match="temperature"):
        draw(decoder, z, 2, temperature=0.0)
    with pytest.raises(ValueError, match=r"positions must be in 0..20, got -1"):
        resample(decoder, z, x[0], -1, 1)
    with pytest.raises(ValueError, match=r"batch_size must be at least 1, got 0"):
        resample(decoder, z, x[0], 1, 1, batch_size=0)
    model = completing_model()
    image = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        model.complete(image, 4, 0)
    with pytest.raises(ValueError, match="candidates must be at least 1, got 0"):
        model.complete(image, 4, 1, candidates=0)


def test_empty_batch_is_told():
    model = completing_model()
    told = "count, the events of a batch, must be at least 1, got 0"
    with pytest.raises(ValueError, match=told):
        model.decode(torch.zeros(0, 4, 2))
    with pytest.raises(ValueError, match=told):
        model.complete(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), 4, 2)
