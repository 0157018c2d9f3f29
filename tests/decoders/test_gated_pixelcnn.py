"""The decoder's causality in pixels and latents; its steps are in tests/test_sampling.py."""

import pytest
import torch

from deltavae.decoders import GatedPixelCNN
from deltavae.likelihoods import DiscretisedLogisticMixture

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
