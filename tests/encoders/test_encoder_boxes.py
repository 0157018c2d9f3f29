"""Encoders whose latent steps stand for boxes of pixels: what each step is made from."""

import pytest
import torch

from deltavae.encoders import (
    AntiCausalEncoder,
    AntiCausalPixelSNAIL,
    NonCausalEncoder,
    NonCausalPixelSNAIL,
)
from deltavae.nn.boxes import row_boxes

H, W, LEVELS = 6, 4, 7
GRID = [[top, left, 2, 2] for top in (0, 2, 4) for left in (0, 2)]
TREE = [[0, 0, 6, 4], [0, 0, 2, 4], [2, 0, 4, 4], [2, 0, 1, 4], [3, 0, 3, 4]]
BOXES = {"grid": GRID, "tree": TREE}
ANTI_CAUSAL = {
    AntiCausalEncoder: {"channels": 6, "layers": 3, "kernel_size": 5},
    AntiCausalPixelSNAIL: {"channels": 8, "layers": 2, "attention_layers": 1},
}
NON_CAUSAL = {
    NonCausalEncoder: {"channels": 6, "layers": 1, "kernel_size": 3},
    NonCausalPixelSNAIL: {"channels": 8, "layers": 1},
}


def build(cls, boxes, seed=0):
    torch.manual_seed(seed)
    sizes = {**ANTI_CAUSAL, **NON_CAUSAL}[cls]
    return cls((2, H, W), LEVELS, 4, **sizes, boxes=boxes).double()


def influence(encoder):
    """True at (pixel, t) where a pixel changes the output of step t: exact comparison."""
    x = torch.randint(0, LEVELS, (1, 2, H, W), dtype=torch.uint8)
    changed = x.repeat(H * W, 1, 1, 1).flatten(2)
    for i in range(H * W):
        changed[i, :, i] = (changed[i, :, i] + 3) % LEVELS
    with torch.no_grad():
        same = encoder(x.repeat(H * W, 1, 1, 1))
        return (encoder(changed.view(-1, 2, H, W)) != same).any(2)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("cls", ANTI_CAUSAL)
@pytest.mark.parametrize("name", BOXES)
def test_anti_causal_step_is_made_from_the_first_pixel_of_its_box_on(cls, name, seed):
    first = torch.tensor([top * W + left for top, left, _, _ in BOXES[name]])
    expected = torch.arange(H * W)[:, None] >= first
    assert torch.equal(influence(build(cls, BOXES[name], seed)), expected)


@pytest.mark.parametrize("name", BOXES)
def test_with_a_summary_one_layer_sees_all_from_the_first_pixel_of_its_box_on(name):
    torch.manual_seed(0)
    sizes = {"channels": 6, "layers": 1, "kernel_size": 3, "summary": True}
    encoder = AntiCausalEncoder((2, H, W), LEVELS, 4, boxes=BOXES[name], **sizes).double()
    first = torch.tensor([top * W + left for top, left, _, _ in BOXES[name]])
    found, allowed = influence(encoder), torch.arange(H * W)[:, None] >= first
    assert not found[~allowed].any()
    last = max(row for row, *_ in BOXES[name]) * W  # the boxes that begin last
    assert found[last + W :].all()


@pytest.mark.parametrize("cls", NON_CAUSAL)
@pytest.mark.parametrize("name", BOXES)
def test_non_causal_step_is_made_from_the_whole_image(cls, name):
    assert influence(build(cls, BOXES[name])).all()


@pytest.mark.parametrize("cls", [*ANTI_CAUSAL, *NON_CAUSAL])
def test_boxes_that_are_the_rows_change_nothing(cls):
    plain, boxed = build(cls, None), build(cls, row_boxes(H, W))
    assert list(plain.state_dict()) == list(boxed.state_dict())
    x = torch.randint(0, LEVELS, (3, 2, H, W), dtype=torch.uint8)
    torch.testing.assert_close(boxed(x), plain(x), rtol=0, atol=1e-13)


@pytest.mark.parametrize("cls", [*ANTI_CAUSAL, *NON_CAUSAL])
def test_every_parameter_gets_a_gradient_and_one_step_per_box_comes_out(cls):
    encoder = build(cls, GRID)
    out = encoder(torch.randint(0, LEVELS, (3, 2, H, W), dtype=torch.uint8))
    assert out.shape == (3, len(GRID), 4)
    out.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


GOLDEN = {  # of one step per row, from before there were boxes
    AntiCausalEncoder: 9.413814322662242,
    NonCausalEncoder: 1.9424791225245817,
    AntiCausalPixelSNAIL: 6.780996416999043,
    NonCausalPixelSNAIL: 1.6278501818012308,
}


@pytest.mark.parametrize("cls", GOLDEN)
def test_one_step_per_row_gives_the_golden_value(cls):
    torch.manual_seed(0)
    encoder = cls((2, 6, 5), LEVELS, 4, channels=8, layers=2).double()
    x = torch.randint(0, LEVELS, (3, 2, 6, 5), dtype=torch.uint8)
    assert encoder(x).square().sum().item() == pytest.approx(GOLDEN[cls], rel=1e-12)
