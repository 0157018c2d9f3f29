"""Decoders whose latents stand for boxes of pixels: who sees which, in parallel and in steps."""

from functools import partial

import pytest
import torch

from deltavae.decoders import GatedPixelCNN, PixelSNAIL
from deltavae.likelihoods import DiscretisedLogisticMixture
from deltavae.sampling import draw, score

H, W, D = 6, 4, 3
GRID = [[top, left, 2, 2] for top in (0, 2, 4) for left in (0, 2)]
TREE = [[0, 0, 6, 4], [0, 0, 2, 4], [2, 0, 4, 4], [2, 0, 1, 4], [3, 0, 3, 4]]
BOXES = {"grid": GRID, "tree": TREE}
DECODERS = {
    "GatedPixelCNN": partial(GatedPixelCNN, channels=8, layers=3, attend_every=2),
    "PixelSNAIL": partial(PixelSNAIL, channels=8, layers=3, attention_layers=2, attend_every=2),
}
RGB = DiscretisedLogisticMixture(3, 256, 2)


def build(name, boxes, view="rows-above", dtype=torch.float64):
    torch.manual_seed(0)
    shape, latent_shape = (3, H, W), (len(boxes), D)
    decoder = DECODERS[name](shape, RGB, latent_shape, view, boxes=boxes).to(dtype).eval()
    x = torch.randint(0, 256, (2, *shape), dtype=torch.uint8)
    return decoder, x, torch.randn(2, len(boxes), D, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES)
def test_pixel_sees_the_latents_whose_boxes_have_begun(name, boxes):
    decoder, x, z = build(name, boxes)
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder(x, z)[0].sum(1), z)
    depends = jacobian[:, 0].abs().sum(-1) > 0  # (pixel, t)
    first = torch.tensor([top * W + left for top, left, _, _ in boxes])
    assert decoder.visible_from == tuple(first.tolist())
    assert torch.equal(depends, torch.arange(H * W)[:, None] >= first)
    assert decoder.latents_seen == depends.sum(1).tolist()


@pytest.mark.parametrize("name", DECODERS)
def test_pixel_sees_neither_itself_nor_later_pixels(name):
    decoder, x, z = build(name, GRID)
    same = decoder(x, z)
    for position in range(H * W):
        changed = decoder.to_sequence(x).clone()
        changed[:, position] += 100  # modulo 256: every channel changes
        moved = (decoder(decoder.from_sequence(changed), z) != same).any(-1)[0]
        assert not moved[: position + 1].any()
        assert moved[position + 1 : position + 2].all()


@pytest.mark.parametrize("name", DECODERS)
def test_view_of_all_shows_every_box_to_every_pixel(name):
    decoder, x, z = build(name, GRID, "all")
    assert decoder.visible_from == (0,) * len(GRID)
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder(x, z)[0].sum(1), z)
    assert (jacobian[:, 0].abs().sum(-1) > 0).all()


@pytest.mark.parametrize("view", ["rows-above", "all"])
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("boxes", BOXES.values(), ids=BOXES)
def test_steps_equal_the_parallel_forward(name, boxes, view):
    decoder, x, z = build(name, boxes, view)
    with torch.no_grad():
        parallel = decoder(x, z)
    torch.testing.assert_close(score(decoder, x, z), parallel, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_drawn_does_not_depend_on_boxes_that_have_not_begun(name):
    decoder, _, z = build(name, GRID)
    other = z.clone()
    other[:, 2:] = torch.randn(2, len(GRID) - 2, D)  # the first box of the second row of boxes on
    begins = decoder.visible_from[2]
    drawn, again = (
        decoder.to_sequence(draw(decoder, latents, 2, generator=torch.Generator().manual_seed(3)))
        for latents in (z, other)
    )
    assert torch.equal(drawn[:, :begins], again[:, :begins])
    assert not torch.equal(drawn, again)


@pytest.mark.parametrize("name", DECODERS)
def test_boxes_that_are_the_rows_change_nothing(name):
    rows = [[r, 0, 1, W] for r in range(H)]
    boxed, x, z = build(name, rows)
    torch.manual_seed(0)
    plain = DECODERS[name]((3, H, W), RGB, (H, D)).double().eval()
    assert list(plain.state_dict()) == list(boxed.state_dict())
    assert plain.visible_from == boxed.visible_from
    assert torch.equal(plain(x, z), boxed(x, z))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("view", ["rows-above", "all"])
def test_wrong_boxes_are_told(name, view):
    make = partial(DECODERS[name], (3, H, W), RGB)
    with pytest.raises(ValueError, match="one step per box, 6, got 5"):
        make((5, D), view, boxes=GRID)
    with pytest.raises(ValueError, match="raster order of their first pixels"):
        make((6, D), view, boxes=GRID[::-1])
    if view == "rows-above":
        with pytest.raises(ValueError, match="position 0 see at least one latent"):
            make((5, D), view, boxes=GRID[1:])
