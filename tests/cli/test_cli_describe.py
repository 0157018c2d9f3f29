"""`deltavae describe`: figures of files, folders and flags, and what it refuses."""

import json
from pathlib import Path

import pytest
import yaml
from command_line import run

from deltavae.rates import committed_rate
from deltavae.run_folder import load
from deltavae.units import nats_to_bits

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ("--decoder.channels", "8", "--decoder.layers", "2", "--encoder.channels", "6")


def described(*words):
    ended = run("describe", *words, "--json")
    assert ended.status == 0, ended.err
    assert ended.err == ""
    return json.loads(ended.out)


def test_file_is_described_and_later_flags_win():
    file = CONFIGS / "demo" / "delta-vae.yaml"
    found = described(file)
    assert found["image_shape"] == [1, 8, 8]
    assert found["levels"] == 17
    assert found["committed_rate_bits"] == pytest.approx(10.0, rel=1e-9)
    assert nats_to_bits(committed_rate(found["alpha"], 8)) == pytest.approx(10.0, rel=1e-9)
    assert (found["latent_steps"], found["latent_channels"]) == (8, 4)
    assert found == described("--config", file)
    deeper = described(file, "--decoder.layers", 6, "--delta-bits", 20)
    assert deeper["committed_rate_bits"] == pytest.approx(20.0, rel=1e-9)
    assert deeper["decoder_sees"]["rows_above"] > found["decoder_sees"]["rows_above"]
    more = deeper["parts"]["decoder"]["parameters"] - found["parts"]["decoder"]["parameters"]
    assert more > 0
    assert deeper["parts"]["encoder"] == found["parts"]["encoder"]


def test_total_and_training_follow_from_the_parts():
    found = described("--data", "digits", *SMALL, "--epochs", 3, "--batch-size", 100)
    parts = dict(found["parts"])
    total = parts.pop("total")
    for name in ("parameters", "forward_flops", "activation_bytes"):
        assert total[name] == sum(part[name] for part in parts.values())
    assert found["training_flops"] == 3 * total["forward_flops"]
    assert found["training_images"] == 1438
    assert found["steps"] == 3 * 14
    assert found["run_flops"] == found["steps"] * 100 * found["training_flops"]
    assert found["state_bytes"] == 5 * 4 * total["parameters"]  # AdamW, gradient, average
    assert found["step_bytes"] == found["state_bytes"] + 100 * total["activation_bytes"]
    without = described("--data", "digits", *SMALL, "--ema-decay", 0)
    assert without["state_bytes"] == 4 * 4 * total["parameters"]


@pytest.mark.parametrize(("precision", "share"), [("64-true", 2.0), ("bf16-mixed", 0.6)])
def test_precision_decides_how_much_is_kept(precision, share):
    plain = described("--data", "digits", "--latents", "none")["parts"]["total"]
    other = described("--data", "digits", "--latents", "none", "--precision", precision)
    kept = other["parts"]["total"]["activation_bytes"] / plain["activation_bytes"]
    assert kept == pytest.approx(share, rel=0.2)
    assert other["parts"]["total"]["forward_flops"] == plain["forward_flops"]


def test_without_latents_only_the_decoder_is_there():
    found = described("--data", "digits", *SMALL, "--latents", "none")
    assert list(found["parts"]) == ["decoder", "total"]
    absent = (
        "latents",
        "latent_steps",
        "latent_channels",
        "committed_rate_bits",
        "alpha",
        "encoder_sees",
    )
    assert [found[name] for name in absent] == [None] * len(absent)
    assert "no latents" in run("describe", "--data", "digits", *SMALL, "--latents", "none").out


def test_without_latents_a_decoder_may_read_z_of_zero():
    words = ("--data", "digits", *SMALL, "--latents", "zero", "--latent-channels", 2)
    found = described(*words)
    assert (found["latents"], found["latent_steps"], found["latent_channels"]) == (None, 8, 2)
    assert found["committed_rate_bits"] is None
    assert "no latents: the decoder reads z = 0 (n = 8, d = 2)" in run("describe", *words).out


def test_data_with_a_name_need_not_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAVAE_DATA", str(tmp_path))
    found = described("--data", "imagenet32", *SMALL, "--size", 16, "--grey", "--holdout", 167)
    assert found["image_shape"] == [1, 16, 16]
    assert found["training_images"] == 1_281_000
    assert list(tmp_path.iterdir()) == []


def test_run_folder_is_described_even_without_its_data(trained, own):
    found = described(own)
    model = load(trained)
    assert found["parts"]["total"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["committed_rate_nats"] == model.latents.committed_rate
    config = yaml.safe_load((own / "config.yaml").read_text())
    config["data"] = "nowhere.npz"
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    assert described(own) == found == described(own / "config.yaml")
    assert found["training_images"] is None
    assert found["run_flops"] is None


def test_images_held_out_are_not_counted_as_training_images(own):
    config = yaml.safe_load((own / "config.yaml").read_text())
    config |= {"data": "cifar10", "holdout": 5000, "epochs": 2, "batch_size": 100}
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    found = described(own)
    assert (found["training_images"], found["steps"]) == (45_000, 900)


def test_table_for_people_has_the_numbers_of_the_json():
    words = (CONFIGS / "demo" / "delta-vae.yaml",)
    found, shown = described(*words), run("describe", *words)
    assert (shown.status, shown.err) == (0, "")
    for part in found["parts"].values():
        assert f" {part['parameters']:,} " in shown.out
        assert f" {part['activation_bytes'] / 2**10:.4g} KiB " in shown.out
    assert f"{found['parts']['total']['forward_flops'] / 1e6:.3g} MFLOP" in shown.out
    assert f"{found['training_flops'] / 1e6:.3g} MFLOP per image (3 × forward)" in shown.out
    assert "committed rate δ = 10.000 bits = 6.931 nats (n = 8, d = 4)" in shown.out
    sees = found["decoder_sees"]
    assert f"sees {sees['seen']} of {sees['earlier']} earlier pixels" in shown.out
    assert "made from 8 of 8 rows, the last from 1" in shown.out
    alpha = f"alpha {found['alpha'][0]:.6g} (4×)"  # one number where all channels agree
    assert f"(n = 8, d = 4), {alpha}\n" in shown.out
    snail = ("--decoder", "PixelSNAIL", "--encoder", "AntiCausalPixelSNAIL")
    attending = run("describe", "--data", "digits", *snail, *SMALL, "--alpha", "0.5:0.9")
    assert "the decoder sees all earlier pixels" in attending.out
    assert "alpha 0.5 to 0.9 (8), minimiser_units on, innovations on\n" in attending.out
    words = ("forward", "FLOPs", "activations", "AntiCausalPixelSNAIL", "auxiliary prior")
    assert [word for word in words if word not in attending.out] == []  # in 80 columns


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--data: missing: name a configuration, a run folder or a data set"),
        (("nowhere",), "CONFIG: nowhere: no such file or folder"),
        (("@",), "no config.yaml in this folder"),
        (("@text.yaml",), "text.yaml must hold lines as"),
        (("@unknown.yaml",), 'unknown.yaml: unknown option "epoch": did you mean epochs?'),
        (("--data", "digit"), "unknown data set 'digit', did you mean 'digits'?"),
        (("--data", "digits", "--levels", "20"), "--levels must be in 2..17 for digits, got 20"),
        (("--data", "digits", "--delta-bits", "0"), "--delta-bits: must be above 0, got 0"),
        (("--data", "digits", "--latents", "none", "--alpha", "0.5"), "without latents there is"),
        (("--data", "digits", "--decoder", "evil.Decoder"), "is not a class of deltavae"),
        (("--data", "digits", "--decoder.chanels", "3"), "--decoder.chanels: no such option"),
        (("@model.yaml",), "model must be a deltavae.model.DeltaVAE"),
        (("@model.yaml", "--delta-bits", "3"), "--delta-bits: without effect, the configuration"),
    ],
)
def test_wrong_use_is_one_line(tmp_path, words, message):
    for name, text in {
        "text": "hello",
        "unknown": "epoch: 3",
        "model": "model: {class_path: deltavae.latents.Standard, init_args: {n: 4, d: 2}}",
    }.items():
        (tmp_path / f"{name}.yaml").write_text(f"{text}\n")
    ended = run("describe", *(word.replace("@", f"{tmp_path}/") for word in words))
    assert ended.status == 2
    assert message in ended.error
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_a_configuration_from_elsewhere_is_not_trusted(own):
    config = yaml.safe_load((own / "config.yaml").read_text())
    config["model"]["init_args"]["decoder"]["class_path"] = "evil.Decoder"
    (own / "config.yaml").write_text(yaml.safe_dump(config))
    ended = run("describe", own)
    assert ended.status == 2
    assert "say --trust" in ended.error
