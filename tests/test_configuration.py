"""From a user's choices to a model: the rate asked for, and parts that fit each other."""

import json
from typing import ClassVar

import numpy as np
import pytest
import torch

from deltavae.configuration import (
    DEFAULT_CHANNELS,
    DEFAULT_RATE_BITS,
    ENCODERS,
    build_latents,
    ladder_rate,
    model_specification,
    parse_alpha,
)
from deltavae.latents import AR1, Independent
from deltavae.rates import committed_rate
from deltavae.run_folder import instantiate
from deltavae.units import bits_to_nats, nats_to_bits
from runs import DECODER, ENCODER

PAIR = {"class_path": "deltavae.latents.AR1"}


def test_alpha_is_one_number_or_a_ladder():
    assert parse_alpha("0.5") == (0.5, 0.5)
    assert parse_alpha("0.5:0.95") == (0.5, 0.95)
    for text in ("1.0", "0.5:1", "a", "0.1:0.2:0.3", "-1:0.5", "nan"):
        with pytest.raises(ValueError, match="alpha must be A or LO:HI with every"):
            parse_alpha(text)


@pytest.mark.parametrize("bits", [5.0, 50.0, 500.0])
@pytest.mark.parametrize("alpha", [None, "0.3:0.9"])
def test_prior_hits_the_rate_in_bits_or_nats(bits, alpha):
    for asked in ({"delta_bits": bits}, {"delta_nats": bits_to_nats(bits)}):
        found = ladder_rate(28, 64, alpha=alpha, **asked)
        assert nats_to_bits(committed_rate(found, 28)) == pytest.approx(bits, rel=1e-9)
    rising = found[1:] - found[:-1]
    assert (rising > 0).all() if alpha else (rising == 0).all()


def test_ladder_alone_is_taken_as_it_stands():
    assert ladder_rate(8, 3, alpha="0.2:0.6").tolist() == pytest.approx([0.2, 0.4, 0.6])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give delta_bits, delta_nats or alpha"),
        ({"delta_bits": 1.0, "delta_nats": 1.0}, "give one of them"),
        ({"delta_bits": 0.0}, "delta_bits must be above 0, got 0"),
        ({"delta_nats": -1.0}, "delta_nats must be above 0"),
        ({"delta_bits": float("nan")}, "delta_bits must be above 0"),
    ],
)
def test_contradictions_are_told(options, message):
    with pytest.raises(ValueError, match=message):
        ladder_rate(8, 2, **options)


def test_channels_are_few_by_default():
    assert len(ladder_rate(28, delta_bits=20.0)) == 2
    assert len(ladder_rate(28, delta_nats=5.0)) == 1
    assert float(ladder_rate(14, delta_bits=40.0).max()) <= 0.8
    assert len(ladder_rate(28, alpha="0.5:0.9")) == DEFAULT_CHANNELS
    assert len(ladder_rate(28, delta_bits=20.0, alpha="0.5:0.9")) == DEFAULT_CHANNELS
    with pytest.raises(ValueError, match="n must be at least 2"):
        ladder_rate(1, delta_bits=20.0)
    learned = {"class_path": "deltavae.latents.LearnableAR1"}
    assert [build_latents(spec, n=32, delta_bits=100.0).d for spec in (PAIR, learned)] == [9, 9]
    for name in ("Matern", "Independent", "Standard"):
        pair = {"class_path": f"deltavae.latents.{name}"}
        assert build_latents(pair, n=32).d == DEFAULT_CHANNELS


def test_pairs_are_built_with_the_rate_asked_for():
    assert build_latents(PAIR, n=8, d=2, delta_bits=7.0).committed_rate == pytest.approx(
        bits_to_nats(7.0), rel=1e-9
    )
    default = build_latents(PAIR, n=8, d=2)
    assert nats_to_bits(default.committed_rate) == pytest.approx(DEFAULT_RATE_BITS, rel=1e-9)
    given = build_latents(PAIR, n=8, d=2, alpha="0.5:0.7")
    assert isinstance(given, AR1)
    assert given.config()["alpha"] == pytest.approx([0.5, 0.7])
    other = {"class_path": "deltavae.latents.Independent"}
    independent = build_latents(other, n=8, d=2, delta_bits=7.0)
    assert isinstance(independent, Independent)
    assert independent.committed_rate == pytest.approx(bits_to_nats(7.0), rel=1e-12)
    learned = build_latents(
        {"class_path": "deltavae.latents.LearnableAR1"}, n=8, d=2, delta_bits=7.0, alpha="0.5:0.7"
    )
    assert learned.committed_rate == pytest.approx(bits_to_nats(7.0), rel=1e-9)
    assert learned.config()["alpha"][0] < learned.config()["alpha"][1]
    with pytest.raises(ValueError, match=r"alpha applies to AR1 and .* got it with Independent"):
        build_latents(other, n=8, d=2, alpha="0.5")
    with pytest.raises(ValueError, match="delta_bits must be above 0, got -1"):
        build_latents(PAIR, n=8, d=2, delta_bits=-1.0)
    with pytest.raises(ValueError, match=r'must be a Latents, got "deltavae\.objectives\.ELBO"'):
        build_latents({"class_path": "deltavae.objectives.ELBO"}, n=8, d=2)
    standard = build_latents({"class_path": "deltavae.latents.Standard"}, n=8, d=2)
    assert standard.committed_rate == 0.0
    with pytest.raises(ValueError):
        build_latents({"class_path": "deltavae.latents.Standard"}, n=8, d=2, delta_bits=3.0)


def test_the_rate_as_given_is_told_only_where_the_rate_is_at_fault():
    matern = {"class_path": "deltavae.latents.Matern", "init_args": {"nu": 2.0}}
    with pytest.raises(ValueError, match=r"^nu must be one of"):
        build_latents(matern, n=8, d=2, delta_bits=3.0)
    with pytest.raises(ValueError, match=r"^delta_bits=9000.0: delta=6238.32 nats = 9000 bits is"):
        build_latents({**matern, "init_args": {}}, n=8, d=2, delta_bits=9000.0)


def test_a_decoder_without_information_keeps_its_layers_if_asked():
    latents = build_latents(PAIR, n=4, d=2, delta_bits=4.0)
    parts = {"decoder": DECODER, "encoder": ENCODER}
    full = instantiate(model_specification((1, 4, 4), 5, **parts, latents=latents))
    zero = instantiate(model_specification((1, 4, 4), 5, decoder=DECODER, zero_channels=2))
    alone = instantiate(model_specification((1, 4, 4), 5, decoder=DECODER))
    names = {
        name: set(model.decoder.state_dict()) for name, model in (("full", full), ("zero", zero))
    }
    assert names["full"] == names["zero"] > set(alone.decoder.state_dict())
    assert (zero.latents, zero.encoder, zero.decoder.latent_shape) == (None, None, (4, 2))
    x = torch.randint(0, 5, (3, 1, 4, 4), dtype=torch.uint8)
    z = torch.zeros(3, 4, 2)
    torch.testing.assert_close(zero(x).distortion, -zero.decoder.log_prob(x, z), rtol=0, atol=0)
    assert zero.sample(2, generator=torch.Generator().manual_seed(0)).shape == (2, 1, 4, 4)


def test_non_causal_encoder_opens_every_latent_to_every_pixel():
    latents = build_latents(PAIR, n=4, d=2, delta_bits=4.0)
    views = {}
    for name, path in ENCODERS.items():
        encoder = {**ENCODER, "class_path": path}
        spec = model_specification((1, 4, 4), 5, decoder=DECODER, encoder=encoder, latents=latents)
        views[name] = instantiate(spec).decoder.visible_from
    assert views == {"anti-causal": (0, 4, 8, 12), "non-causal": (0, 0, 0, 0)}


class Tiles(Independent):
    """Two by two tiles of an image, in raster order; nothing to be trained with beside that."""

    parts: ClassVar[tuple[int, int]] = (2, 2)

    @classmethod
    def steps(cls, rows, **options):
        return cls.parts[0] * cls.parts[1]

    def extents(self):
        high, wide = self.parts
        corners = np.array([(r, c) for r in range(high) for c in range(wide)])
        return np.stack([corners, corners + 1], axis=2) / np.array([[high], [wide]])


class Sixths(Tiles):
    """Six parts of the rows."""

    parts = (6, 1)


TILES = {"class_path": f"{__name__}.Tiles"}


@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoder_and_decoder_learn_which_pixels_a_step_stands_for(encoder):
    latents = build_latents(TILES, n=4, d=2, delta_bits=4.0, trust=True)
    assert (latents.n, latents.committed_rate) == (4, pytest.approx(bits_to_nats(4.0)))
    spec = model_specification(
        (1, 8, 6),
        5,
        decoder=DECODER,
        encoder={**ENCODER, "class_path": ENCODERS[encoder]},
        latents=latents,
    )
    assert json.loads(json.dumps(spec)) == spec
    boxes = [[0, 0, 4, 3], [0, 3, 4, 3], [4, 0, 4, 3], [4, 3, 4, 3]]
    parts = spec["init_args"]
    assert parts["encoder"]["init_args"]["boxes"] == boxes
    assert parts["decoder"]["init_args"]["boxes"] == boxes
    model = instantiate(spec, trust=True)
    begins = (0, 3, 24, 27) if encoder == "anti-causal" else (0, 0, 0, 0)
    assert model.decoder.visible_from == begins
    terms = model(torch.zeros(3, 1, 8, 6, dtype=torch.uint8), torch.randn(3, 4, 2))
    assert (terms.rate >= bits_to_nats(4.0) * (1 - 1e-6)).all()


def test_rows_are_told_to_nobody():
    latents = build_latents(PAIR, n=8, d=2)
    spec = model_specification((1, 8, 6), 5, decoder=DECODER, encoder=ENCODER, latents=latents)
    for part in ("encoder", "decoder"):
        assert "boxes" not in spec["init_args"][part]["init_args"]


def test_parts_of_pixels_are_refused():
    sixths = {"class_path": f"{__name__}.Sixths"}
    latents = build_latents(sixths, n=8, d=2, delta_bits=4.0, trust=True)
    with pytest.raises(ValueError, match=r"image's 8 rows are cut at 1.33333; .*: 1, 2, 4, 8"):
        model_specification((1, 8, 6), 5, decoder=DECODER, encoder=ENCODER, latents=latents)


@pytest.mark.parametrize("name", ["Bernoulli", "Categorical", "DiscretisedLogisticMixture"])
def test_likelihood_gets_channels_and_levels_from_the_data(name):
    likelihood = {"class_path": f"deltavae.likelihoods.{name}"}
    levels = 2 if name == "Bernoulli" else 7
    spec = model_specification((1, 4, 4), levels, decoder=DECODER, likelihood=likelihood)
    built = instantiate(spec).decoder.likelihood
    assert type(built).__name__ == name
    assert (built.channels, built.levels) == (1, levels)
