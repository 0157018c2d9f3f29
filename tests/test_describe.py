"""What a model costs, against counts by hand; what it sees, against changing every pixel."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from deltavae.configuration import ENCODERS, model_specification
from deltavae.decoders import Decoder
from deltavae.describe import PixelsSeen, RowsSeen, costs, dependence, pixels_seen, rows_seen
from deltavae.latents import AR1
from deltavae.likelihoods import Categorical
from deltavae.model import DeltaVAE
from deltavae.run_folder import instantiate
from every_pair import EVERY_PAIR
from runs import DECODER, ENCODER, tiny_specification

SIDE, LEVELS, WIDTH = 4, 5, 6
P = SIDE * SIDE
CATEGORICAL = {
    "class_path": "deltavae.likelihoods.Categorical",
    "init_args": {"channels": 1, "levels": LEVELS},
}


class OneAttention(Decoder):
    """Two linear layers around one attention: costs that can be counted by hand."""

    def __init__(self):
        super().__init__((1, SIDE, SIDE), P, Categorical(1, LEVELS), None, ())
        self.embed = nn.Linear(1, WIDTH)
        self.out = nn.Linear(WIDTH, LEVELS)

    def forward(self, x, z):
        h = self.embed(x.flatten(2).transpose(1, 2).to(self.embed.weight.dtype))[:, None]
        return self.out(F.scaled_dot_product_attention(h, h, h, is_causal=True)[:, 0])

    def to_sequence(self, x):
        return x.flatten(2).transpose(1, 2)

    def from_sequence(self, sequence):
        return sequence.transpose(1, 2).reshape(-1, 1, SIDE, SIDE)


@pytest.mark.parametrize(("autocast", "width"), [(None, 4), (torch.bfloat16, 2)])
def test_costs_of_a_small_decoder_by_hand(autocast, width):
    found = costs(DeltaVAE(OneAttention()), autocast)
    assert list(found) == ["decoder"]
    cost = found["decoder"]
    assert cost.parameters == 2 * WIDTH + (WIDTH + 1) * LEVELS
    assert cost.forward_flops == 2 * P * WIDTH + 2 * (2 * P * P * WIDTH) + 2 * P * WIDTH * LEVELS
    kept = [
        P * width,  # pixels, for the weights of the first layer
        P * WIDTH * width,  # q, k and v: one storage
        P * WIDTH * width,  # what attention gives, kept once for itself and for the last layer
        P * 4,  # log Σ exp of the scores
        P * LEVELS * 4,  # log softmax, in float32 always
        P * 8,  # x as an index
    ]
    assert cost.activation_bytes == sum(kept)


def model_of(decoder, latents="AR1", **sizes) -> DeltaVAE:
    spec = tiny_specification(latents)
    arguments = spec["init_args"]["decoder"]
    arguments["class_path"] = f"deltavae.decoders.{decoder}"
    arguments["init_args"].update(sizes)
    return instantiate(spec)


def kept_for_real(model, x, noise) -> int:
    """Bytes of storages that a real forward pass keeps."""
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        terms = model(x, noise)
    assert terms.distortion.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("decoder", ["GatedPixelCNN", "PixelSNAIL"])
def test_activations_are_those_of_a_real_step(decoder):
    model = model_of(decoder)
    x = torch.randint(0, LEVELS, (5, 1, SIDE, SIDE), dtype=torch.uint8)
    noise = torch.randn(5, SIDE, 2)
    few = x[:3].clone(), noise[:3].clone()
    real = kept_for_real(model, x, noise) - kept_for_real(model, *few)
    assert sum(cost.activation_bytes for cost in costs(model).values()) == real / 2


def test_mixed_precision_keeps_about_half():
    model = model_of("GatedPixelCNN", channels=32)
    plain, mixed = costs(model)["decoder"], costs(model, torch.bfloat16)["decoder"]
    assert mixed.forward_flops == plain.forward_flops
    assert 0.45 < mixed.activation_bytes / plain.activation_bytes < 0.7


def test_checkpointing_keeps_one_image_of_features_per_layer():
    sizes = {"channels": 8, "attention_layers": 0}

    def decoder(layers, checkpointing):
        built = model_of("PixelSNAIL", layers=layers, checkpointing=checkpointing, **sizes)
        return costs(built)["decoder"]

    assert decoder(3, True).forward_flops == decoder(3, False).forward_flops
    more = decoder(3, True).activation_bytes - decoder(2, True).activation_bytes
    assert more == 4 * P * 8
    assert decoder(3, False).activation_bytes - decoder(2, False).activation_bytes > 4 * more


def test_parts_are_those_of_the_model_and_the_lstm_is_counted():
    model = model_of("GatedPixelCNN")
    found = costs(model)
    assert list(found) == ["encoder", "latents", "decoder", "aux_prior"]
    total = sum(cost.parameters for cost in found.values())
    assert total == sum(p.numel() for p in model.parameters())
    n, d, hidden = SIDE, 2, 6
    of_lstm, of_output = 2 * 4 * hidden * (d + hidden), 2 * hidden * 2 * d
    assert found["aux_prior"].forward_flops == n * (of_lstm + of_output)
    assert found["latents"].forward_flops == 0
    assert list(costs(model_of("GatedPixelCNN", None))) == ["decoder"]


def test_training_costs_about_three_forward_passes():
    model = model_of("GatedPixelCNN", None, channels=16, layers=8)
    x = torch.randint(0, LEVELS, (2, 1, SIDE, SIDE), dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter:
        model(x).distortion.sum().backward()
    ratio = counter.get_total_flops() / 2 / costs(model)["decoder"].forward_flops
    assert 2.9 < ratio <= 3.0  # nothing is sent back to the image


def test_a_described_model_is_left_as_it_was():
    model = model_of("PixelSNAIL", dropout=0.5).eval()
    before = copy.deepcopy(model.state_dict())
    rng = torch.get_rng_state()
    costs(model)
    pixels_seen(tiny_specification()["init_args"]["decoder"])
    assert not model.training
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def computed(model, x) -> list[torch.Tensor]:
    """What a forward pass and a draw of the prior return, by fixed noise."""
    noise = torch.linspace(-1, 1, len(x) * model.latents.n * model.latents.d)
    noise = noise.view(len(x), model.latents.n, model.latents.d)
    terms = model(x, noise)
    drawn = model.latents.prior_from_noise(noise)
    return [terms.distortion, terms.rate, terms.rate_terms, terms.aux_rate, drawn]


@pytest.mark.parametrize("make", EVERY_PAIR.values(), ids=EVERY_PAIR)
def test_every_pair_computes_the_same_after_it_was_described(make):
    shape = (1, 12, 3)
    parts = {"decoder": DECODER, "encoder": ENCODER, "latents": make(), "aux_hidden": 4}
    model = instantiate(model_specification(shape, LEVELS, **parts)).eval()
    x = torch.randint(0, LEVELS, (2, *shape), dtype=torch.uint8)
    described = copy.deepcopy(model)  # of what a first use makes and keeps it has nothing yet
    costs(described)
    for after, expected in zip(computed(described, x), computed(model, x), strict=True):
        assert type(after) is torch.Tensor
        assert torch.equal(after, expected)


H, W = 7, 6


def decoder_spec(name, **sizes):
    known = {"image_shape": [1, H, W], "likelihood": CATEGORICAL, "latent_shape": [H, 2]}
    return {"class_path": f"deltavae.decoders.{name}", "init_args": {**known, **sizes}}


DECODERS = [
    ("GatedPixelCNN", {"layers": 1}),
    ("GatedPixelCNN", {"layers": 2, "kernel_size": 5}),
    ("PixelSNAIL", {"layers": 1, "attention_layers": 0}),
    ("PixelSNAIL", {"layers": 1, "attention_layers": 0, "kernel_size": 3}),
    ("PixelSNAIL", {"layers": 1, "attention_layers": 1}),
]


@pytest.mark.parametrize(("name", "sizes"), DECODERS)
def test_decoder_sees_the_pixels_that_change_its_output(name, sizes):
    decoder = instantiate(decoder_spec(name, channels=8, **sizes)).double().eval()
    position = (H - 1) * W + W // 2
    x = torch.randint(0, LEVELS, (1, 1, H, W), dtype=torch.uint8)
    changed = x.flatten(1).repeat(H * W, 1)
    changed += (torch.eye(H * W) * 2).to(torch.uint8)
    batch = torch.cat([x, changed.view(-1, 1, H, W) % LEVELS])
    out = decoder(batch, torch.randn(1, H, 2, dtype=torch.float64).expand(len(batch), -1, -1))
    moved = (out[1:, position] != out[0, position]).any(1).view(H, W)
    rows, columns = moved.nonzero().unbind(1)
    assert pixels_seen(decoder_spec(name, channels=64, **sizes)) == PixelsSeen(
        seen=int(moved.sum()),
        earlier=position,
        rows_above=int(H - 1 - rows.min()),
        columns_left=int(W // 2 - columns.min()),
        columns_right=int(columns.max() - W // 2),
    )


@pytest.mark.parametrize(("layers", "kernel_size"), [(1, 3), (6, 3), (2, 5)])
def test_reach_of_the_gated_stacks_by_arithmetic(layers, kernel_size):
    sizes = {"layers": layers, "kernel_size": kernel_size, "image_shape": [1, 32, 32]}
    seen = pixels_seen(decoder_spec("GatedPixelCNN", **sizes, latent_shape=None))
    reach = kernel_size // 2 * (layers + 1)  # of all kernels one after the other
    assert seen is not None
    assert (seen.rows_above, seen.columns_left, seen.columns_right) == (
        1 + reach,
        1 + reach,
        reach,
    )


@pytest.mark.parametrize("layers", [1, 3])
def test_attention_sees_every_earlier_pixel_at_any_depth(layers):
    seen = pixels_seen(decoder_spec("PixelSNAIL", layers=layers, attention_layers=1))
    assert seen is not None
    assert seen.seen == seen.earlier == (H - 1) * W + W // 2


@pytest.mark.parametrize("name", ["GatedPixelCNN", "PixelSNAIL"])
def test_the_only_pixel_of_an_image_sees_none(name):
    assert pixels_seen(decoder_spec(name, image_shape=[1, 1, 1], latent_shape=[1, 2])) is None


def encoder_spec(name, **sizes):
    known = {"image_shape": [1, H, W], "levels": LEVELS, "params_per_step": 4}
    return {"class_path": f"deltavae.encoders.{name}", "init_args": {**known, **sizes}}


@pytest.mark.parametrize(
    ("spec", "first", "last"),
    [
        (encoder_spec("AntiCausalEncoder", layers=1, kernel_size=3), 4, 1),  # own, 1 + 2 below
        (encoder_spec("AntiCausalEncoder", layers=4), H, 1),
        (encoder_spec("NonCausalEncoder", layers=1), H, H),
        (encoder_spec("AntiCausalPixelSNAIL", layers=1), 4, 1),  # 1 + 2 · 1 below
        (encoder_spec("AntiCausalPixelSNAIL", layers=1, attention_layers=1), H, 1),
        (encoder_spec("NonCausalPixelSNAIL", layers=1), H, H),
    ],
)
def test_rows_that_latents_are_made_from(spec, first, last):
    assert rows_seen(spec) == RowsSeen(first, last, H)


def test_a_mean_by_innovations_is_made_from_the_rows_of_all_later_steps():
    spec = encoder_spec("AntiCausalEncoder", layers=1, kernel_size=3)
    assert rows_seen(spec, AR1(H, [0.5, 0.9])) == RowsSeen(H, 1, H)
    assert rows_seen(spec, AR1(H, [0.5, 0.9], innovations=False)) == RowsSeen(4, 1, H)


def test_every_encoder_with_a_short_name_can_be_described():
    for path in ENCODERS.values():
        assert rows_seen(encoder_spec(path.rpartition(".")[2])) is not None


def test_dependence_is_unknown_where_integers_are_looked_up():
    table = nn.Embedding(LEVELS, 3).double()
    x = torch.ones(1, 1, 2, 2, dtype=torch.uint8)
    assert dependence(lambda x: table(x.long()), x) is None
    seen = dependence(lambda x: table(x.long()).sum() + x.double()[:, :, 0].sum(), x)
    assert seen.tolist() == [[[[True, True], [False, False]]]]
