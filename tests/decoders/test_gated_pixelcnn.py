"""The decoder's causality in pixels and latents, and its incremental interface."""

import pytest
import torch

from deltavae.decoders import Decoder, GatedPixelCNN
from deltavae.likelihoods import Categorical, DiscretisedLogisticMixture
from deltavae.sampling import draw, score

H, W, N, D = 5, 4, 5, 3
GREY = DiscretisedLogisticMixture(1, 256, 2)
RGB = DiscretisedLogisticMixture(3, 256, 2)


def make(likelihood=RGB, latent_view="rows-above", latents=True, seed=0):
    torch.manual_seed(seed)
    shape = (likelihood.channels, H, W)
    latent_shape = (N, D) if latents else None
    sizes = {"channels": 8, "layers": 3, "attend_every": 2}
    decoder = GatedPixelCNN(shape, likelihood, latent_shape, latent_view, **sizes).double()
    x = torch.randint(0, likelihood.levels, (2, *shape), dtype=torch.uint8)
    z = torch.randn(2, N, D, dtype=torch.float64) if latents else None
    return decoder, x, z


@pytest.mark.parametrize("seed", range(3))
def test_row_sees_the_latents_of_its_own_and_earlier_rows_only(seed):
    decoder, x, z = make(seed=seed)
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder(x, z)[0].sum(1), z)
    seen = jacobian[:, 0].abs().sum(-1).reshape(H, W, N)  # (row, column, t)
    for r in range(H):
        assert (seen[r, :, r + 1 :] == 0).all()
        assert (seen[r, :, : r + 1] > 0).all()


def test_unmasked_view_shows_every_latent_to_every_pixel():
    decoder, x, z = make(latent_view="all")
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder(x, z)[0].sum(1), z)
    assert (jacobian[:, 0].abs().sum(-1) > 0).all()
    assert decoder.visible_from == (0,) * N


@pytest.mark.parametrize("latents", [True, False])
def test_pixel_sees_neither_itself_nor_later_pixels(latents):
    decoder, x, z = make(latents=latents)
    same = decoder(x, z)
    for position in range(H * W):
        changed = decoder.to_sequence(x).clone()
        changed[:, position] += 100  # modulo 256: every channel changes
        moved = (decoder(decoder.from_sequence(changed), z) != same).any(-1)[0]
        assert not moved[: position + 1].any()
        if position % W < W - 1:
            assert moved[position + 1]
        if position + W < H * W:
            assert moved[position + W]


def test_visible_from_names_the_first_pixel_of_the_row():
    decoder, _, _ = make()
    assert decoder.visible_from == tuple(t * W for t in range(N))
    assert decoder.visible.sum(1).tolist() == [1 + i // W for i in range(H * W)]


@pytest.mark.parametrize("likelihood", [GREY, RGB, Categorical(1, 5)])
@pytest.mark.parametrize("latents", [True, False])
def test_stepwise_scores_equal_the_parallel_forward(likelihood, latents):
    decoder, x, z = make(likelihood, latents=latents)
    torch.testing.assert_close(score(decoder, x, z), decoder(x, z), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_cached_steps_equal_the_default_of_one_full_forward_each(kernel_size):
    torch.manual_seed(0)
    sizes = {"channels": 8, "layers": 3, "kernel_size": kernel_size, "attend_every": 2}
    decoder = GatedPixelCNN((3, H, W), RGB, (N, D), **sizes).double()
    x = torch.randint(0, 256, (2, 3, H, W), dtype=torch.uint8)
    z = torch.randn(2, N, D, dtype=torch.float64)
    cached, plain = decoder.init_state(z, 2), Decoder.init_state(decoder, z, 2)
    previous = None
    for i in range(H * W):
        fast, cached = decoder.step(cached, previous)
        full, plain = Decoder.step(decoder, plain, previous)
        torch.testing.assert_close(fast, full, rtol=1e-10, atol=1e-10)
        previous = decoder.to_sequence(x)[:, i]
    assert torch.equal(cached.sequence, plain.sequence)


def test_drawn_pixels_follow_the_conditionals():
    """Counts of the first two pixels of drawn images against their exact joint distribution."""
    torch.manual_seed(0)
    decoder = GatedPixelCNN((1, 1, 2), Categorical(1, 3), (1, 2), channels=8, layers=2).double()
    z = torch.randn(1, 1, 2, dtype=torch.float64)
    count = 20_000
    generator = torch.Generator().manual_seed(0)
    drawn = draw(decoder, z.expand(count, 1, 2), count, generator=generator).flatten(1).long()
    grid = torch.cartesian_prod(torch.arange(3), torch.arange(3)).to(torch.uint8)
    log_prob = decoder.log_prob(grid.reshape(9, 1, 1, 2), z.expand(9, 1, 2))
    assert log_prob.exp().sum().item() == pytest.approx(1.0, abs=1e-12)
    observed = torch.bincount(drawn[:, 0] * 3 + drawn[:, 1], minlength=9) / count
    # Five standard errors of a share of 1/9 are 0.011.
    torch.testing.assert_close(observed.double(), log_prob.exp(), rtol=0, atol=0.011)


def test_same_seed_draws_the_same_integers_and_temperature_is_checked():
    decoder, _, z = make()
    first = draw(decoder, z, 2, generator=torch.Generator().manual_seed(3))
    again = draw(decoder, z, 2, generator=torch.Generator().manual_seed(3))
    other = draw(decoder, z, 2, generator=torch.Generator().manual_seed(4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with pytest.raises(ValueError, match="temperature"):
        draw(decoder, z, 2, temperature=0.0)


@pytest.mark.parametrize("latents", [True, False])
def test_every_parameter_gets_a_gradient(latents):
    decoder, x, z = make(latents=latents)
    decoder.log_prob(x, z).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_sequence_is_the_raster_order():
    decoder, x, _ = make()
    sequence = decoder.to_sequence(x)
    assert torch.equal(sequence[:, 1 * W + 2], x[:, :, 1, 2])
    assert torch.equal(decoder.from_sequence(sequence), x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_shape": (4, 2)}, "one step per row, 5, got 4"),
        ({"attend_every": 0}, "attend_every must be at least 1"),
        ({"heads": 5, "latent_shape": (5, 2)}, "heads must divide"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GatedPixelCNN((1, H, W), GREY, **arguments)
