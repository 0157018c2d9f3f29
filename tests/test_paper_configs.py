"""configs/paper: the published sizes and rates, causality at full size, one training step each."""

import copy
import importlib.util
import math
from functools import cache
from pathlib import Path

import pytest
import torch

from deltavae.cli.parsing import parse
from deltavae.cli.specified import specified_model
from deltavae.data import data_layout
from deltavae.objectives import ELBO
from deltavae.run_folder import instantiate
from deltavae.units import nats_to_bits

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "configs" / "paper"

# Decoder and encoder (layers, hidden units, attention layers), latent channels, ladder, data.
LARGE = (30, 256, 6), (20, 128, 6)
MODELS = {
    "l6-h128-a0-low": ((6, 128, 0), (6, 128, 0), 8, (0.5, 0.95), "cifar10"),
    "l8-h128-a2-low": ((8, 128, 2), (8, 128, 2), 8, (0.5, 0.95), "cifar10"),
    "l8-h128-a2-high": ((8, 128, 2), (8, 128, 2), 64, (0.5, 0.99), "cifar10"),
    "enc-l20-h128-dec-l30-h256-a6-low": (*LARGE, 8, (0.5, 0.95), "cifar10"),
    "table1-cifar10": (*LARGE, 5, (0.5, 0.95), "cifar10"),
    "table1-imagenet32": (*LARGE, 20, (0.5, 0.95), "imagenet32"),
}
GOLDEN_BITS = {  # as the paper prints them, 79.44 and 666.6
    "l6-h128-a0-low": 79.447,
    "l8-h128-a2-low": 79.447,
    "l8-h128-a2-high": 666.629,
    "enc-l20-h128-dec-l30-h256-a6-low": 79.447,
}
# Table 1's rates in bits/dim, as printed.
PUBLISHED_RATE = {"table1-cifar10": 0.02, "table1-imagenet32": 0.08}
N, DIMS = 32, 3 * 32 * 32


def options_of(name, *words):
    return parse("fit", ["--config", str(FOLDER / f"{name}.yaml"), "--run-dir", "r", *words])


def specification_of(name, *words):
    options = options_of(name, *words)
    layout = data_layout(options["data"])
    return specified_model(options, layout.shape, layout.levels)["init_args"]


def size(part):
    arguments = part["init_args"]
    return tuple(arguments[name] for name in ("layers", "channels", "attention_layers"))


def test_every_configuration_is_tested():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_sizes_and_rate_are_the_published_ones(name):
    decoder, encoder, d, (low, high), data = MODELS[name]
    parts = specification_of(name)
    assert (size(parts["decoder"]), size(parts["encoder"])) == (decoder, encoder)
    for part, cls in (("decoder", "PixelSNAIL"), ("encoder", "AntiCausalPixelSNAIL")):
        assert parts[part]["class_path"].endswith(f".{cls}")
        # Kernels of the source: options of another class, the default, must not be inherited.
        assert parts[part]["init_args"]["kernel_size"] == 2
    assert parts["decoder"]["init_args"]["latent_view"] == "rows-above"
    latents = instantiate(parts["latents"])
    alpha = [low + (high - low) * k / (d - 1) for k in range(d)]
    terms = [(N - 2) * math.log(1 + a * a) - math.log(1 - a * a) for a in alpha]
    assert latents.committed_rate == pytest.approx(0.5 * sum(terms), rel=1e-12)
    bits = nats_to_bits(latents.committed_rate)
    if name in GOLDEN_BITS:
        assert round(bits, 3) == GOLDEN_BITS[name]
    else:
        assert bits / DIMS < PUBLISHED_RATE[name]  # a floor lies below the rate
    options = options_of(name)
    assert (options["data"], options["augment"]) == (data, "flip")
    assert options["precision"] == "bf16-mixed"


@pytest.mark.parametrize("name", GOLDEN_BITS)
def test_non_causal_rows_of_the_table_differ_in_what_is_seen_only(name):
    causal = specification_of(name)
    other = specification_of(name, "--encoder", "NonCausalPixelSNAIL")
    assert other["encoder"]["class_path"].endswith(".NonCausalPixelSNAIL")
    assert other["encoder"]["init_args"] == causal["encoder"]["init_args"]
    assert other["decoder"]["init_args"].pop("latent_view") == "all"
    assert causal["decoder"]["init_args"].pop("latent_view") == "rows-above"
    for part in ("decoder", "latents", "aux_prior"):
        assert other[part] == causal[part]


@pytest.mark.parametrize("name", MODELS)
def test_rival_is_the_same_decoder_without_latents(name):
    with_latents = specification_of(name)["decoder"]["init_args"]
    rival = specification_of(name, "--latents", "none", "--alpha", "null")
    assert list(rival) == ["decoder"]
    differing = {"latent_shape", "latent_view"}
    found = rival["decoder"]["init_args"]
    assert found["latent_shape"] is None
    for key in (found.keys() | with_latents.keys()) - differing:
        assert found[key] == with_latents[key]


@cache
def built(name):
    """The model at full size, no weight at a special start, and two images with their latents."""
    torch.manual_seed(0)
    model = instantiate(
        {"class_path": "deltavae.model.DeltaVAE", "init_args": specification_of(name)}
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    x = torch.randint(0, 256, (1, 3, N, N), dtype=torch.uint8)
    z = torch.randn(1, N, model.latents.d)
    return model.eval(), x, z


def at_full_size(names):
    """Parameters of a test: the large models are slow."""
    large = [name for name in names if MODELS[name][:2] == LARGE]
    return [pytest.param(n, marks=pytest.mark.slow if n in large else ()) for n in names]


# Table 1's models are that of Table 6's last column with other latents.
DISTINCT = [name for name in MODELS if not name.startswith("table1")]


@pytest.mark.parametrize("name", at_full_size(DISTINCT))
@torch.no_grad()
def test_decoder_sees_earlier_pixels_and_latents_of_earlier_rows_only(name):
    model, x, z = built(name)
    decoder = model.decoder
    same = decoder(x, z)[0]
    for position in (0, 517, 1023):  # the first, one in the middle, the last
        sequence = decoder.to_sequence(x).clone()
        sequence[:, position:] = 255 - sequence[:, position:]
        moved = (decoder(decoder.from_sequence(sequence), z)[0] != same).any(1)
        assert not moved[: position + 1].any()
        assert moved[position + 1 : position + 3].all()
    for row in (0, 16, 31):
        other = z.clone()
        other[:, row] += 1.0
        moved = (decoder(x, other)[0] != same).any(1).view(N, N)
        assert not moved[:row].any()
        assert moved[row:].any(1).all()
        assert moved[row].all()


@pytest.mark.parametrize("name", at_full_size(DISTINCT))
@torch.no_grad()
def test_latents_are_made_from_their_own_and_later_rows_only(name):
    model, x, _ = built(name)
    same = model.encoder(x)[0]
    for row in (0, 16, 31):
        other = x.clone()
        other[:, :, row] = 255 - other[:, :, row]
        moved = (model.encoder(other)[0] != same).any(1)
        assert moved[row]
        assert not moved[row + 1 :].any()


@pytest.mark.parametrize("name", at_full_size(MODELS))
def test_one_training_step_reaches_every_parameter(name):
    model, x, z = built(name)
    model = copy.deepcopy(model).train()
    with torch.autocast("cpu", torch.bfloat16):
        terms = model(x, torch.randn_like(z))
    loss = ELBO()(terms, 0) + terms.aux_rate.mean()
    assert loss.isfinite()
    assert terms.rate.item() > model.latents.committed_rate
    loss.backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
    before = copy.deepcopy(model.state_dict())
    torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True).step()
    moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert len(moved) == len(list(model.parameters()))


@pytest.mark.slow
def test_tables_of_the_page_are_what_describe_says():
    spec = importlib.util.spec_from_file_location(
        "paper_models", ROOT / "benchmarks" / "paper_models.py"
    )
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    assert set(written.CONFIGS) == set(MODELS)
    text = written.PAGE.read_text()
    assert written.page(text) == text
