"""`deltavae fit` from one end to the other: what is in the folder, and how it goes on."""

import csv
import json
import re
import shutil

import pytest
import torch
import yaml
from command_line import KINDS, TINY, fit, run
from safetensors.torch import load_file

from deltavae import load
from deltavae.cli.fit import _seed_process
from deltavae.configuration import WITHOUT_LATENTS
from deltavae.data import load_data
from deltavae.decoders import GatedPixelCNN
from deltavae.run_folder import instantiate

FILES = {
    *("config.yaml", "model.safetensors", "checkpoints/last.ckpt", "metrics.json", "log.csv"),
    *("provenance.json", "report.html"),
}

# interface.md's names; whatever is a mean has its standard error beside it.
MEANS = {
    *("rate_bits", "aux_rate_bits", "distortion_bits", "elbo_bpd", "aux_elbo_bpd"),
    *("iwae_bpd", "aux_iwae_bpd", "mutual_information_bits", "aggregate_kl_bits"),
    *("probe_accuracy", "probe_draw_accuracy", "knn_accuracy", "baseline_accuracy"),
}
FACTS = {
    *("examples", "dims", "params", "train_seconds", "committed_rate_bits", "iwae_samples"),
    *("mutual_information_cap_bits", "active_units", "latent_units"),
}
BESIDE = {
    *("split", "aux_params", "binarisation", "rate_terms_bits", "warnings"),
    *("floor", "mean_rate_floor_bits", "pair", "current_committed_rate_bits"),
}
OF_LATENTS = {*MEANS, *(f"{m}_se" for m in MEANS), *FACTS, "rate_terms_bits", "floor", "pair"} - {
    *("distortion_bits", "distortion_bits_se", "elbo_bpd", "elbo_bpd_se"),
    *("baseline_accuracy", "baseline_accuracy_se"),
    *("examples", "dims", "params", "train_seconds", "iwae_samples"),
}


def metrics_of(folder, split="test"):
    return json.loads((folder / "metrics.json").read_text())[split]


@pytest.mark.parametrize("kind", KINDS)
def test_run_folder_holds_what_is_promised(finished, kind):
    folder, ended = finished(kind)
    assert (ended.status, ended.out) == (0, "")
    there = {str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()}
    assert there >= FILES
    rest = there - FILES
    assert all(name.startswith("tensorboard/") for name in rest)
    assert any("events.out.tfevents" in name for name in rest)
    origin = json.loads((folder / "provenance.json").read_text())
    assert origin["seed"] == 0
    assert origin["steps"] == 12  # 3 epochs of 72 // 16 batches
    assert re.fullmatch("[0-9a-f]{64}", origin["data_sha256"])
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [3, 6, 9, 12]
    assert ("rate_bits" in rows[0]) == (kind not in WITHOUT_LATENTS)
    page = (folder / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_have_the_names_that_are_promised(finished, kind):
    metrics = metrics_of(finished(kind)[0])
    assert set(metrics) == MEANS | {f"{name}_se" for name in MEANS} | FACTS | BESIDE
    null = {name for name, value in metrics.items() if value is None}
    null -= {"binarisation", "mean_rate_floor_bits", "current_committed_rate_bits"}
    assert null == (OF_LATENTS if kind in WITHOUT_LATENTS else set())
    assert (metrics["examples"], metrics["dims"]) == (8, 16)
    assert metrics["train_seconds"] > 0
    rate = metrics["rate_bits"] or 0.0
    assert metrics["elbo_bpd"] == pytest.approx((metrics["distortion_bits"] + rate) / 16)


def test_rate_keeps_above_the_floor_that_was_asked_for(finished):
    metrics = metrics_of(finished("AR1")[0])
    assert metrics["committed_rate_bits"] == pytest.approx(4.0, rel=1e-9)
    assert metrics["rate_bits"] >= 4.0 * (1 - 2**-23)
    assert metrics["latent_units"] == 4 * 2
    assert metrics_of(finished("Standard")[0])["committed_rate_bits"] == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_configuration_alone_rebuilds_the_model(finished, kind, tmp_path):
    folder = finished(kind)[0]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    weights = load_file(folder / "model.safetensors")
    built = instantiate(config["model"]).state_dict()
    assert {n: v.shape for n, v in built.items()} == {n: v.shape for n, v in weights.items()}
    for name in ("config.yaml", "model.safetensors"):
        shutil.copy(folder / name, tmp_path)
    model = load(tmp_path)
    assert isinstance(model.decoder, GatedPixelCNN)
    assert type(model.latents).__name__ == dict.fromkeys(WITHOUT_LATENTS, "NoneType").get(
        kind, kind
    )
    assert (model.decoder.latent_shape is None) == (kind == "none")
    assert all(torch.equal(v, weights[n]) for n, v in model.state_dict().items())
    assert not model.training


def test_configuration_repeats_the_run_to_the_bit(trained, tmp_path):
    ended = run("fit", "--config", trained / "config.yaml", "--run-dir", tmp_path / "again")
    assert ended.status == 0, ended.err
    for name in ("config.yaml", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (trained / name).read_bytes()
    first, again = metrics_of(trained), metrics_of(tmp_path / "again")
    assert {**first, "train_seconds": 0} == {**again, "train_seconds": 0}


def test_other_seed_is_another_run(trained, tmp_path):
    words = ("--config", trained / "config.yaml", "--run-dir", tmp_path / "other", "--seed", 1)
    assert run("fit", *words).status == 0
    ours, theirs = (load_file(f / "model.safetensors") for f in (trained, tmp_path / "other"))
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())
    assert metrics_of(tmp_path / "other")["elbo_bpd"] != metrics_of(trained)["elbo_bpd"]


def test_second_run_into_the_same_folder_is_refused(data, trained):
    before = (trained / "config.yaml").read_bytes()
    ended = fit(data, trained, "--delta-bits", 9)
    assert ended.status == 2
    assert ended.error == (
        f"{trained}: there is a run already: add --resume to go on, or take another --run-dir"
    )
    assert ended.err.count("\n") == 1
    assert (trained / "config.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--delta-bits", 9), "--delta-bits"),
        (("--latents", "AR1"), "--latents"),  # the default, but said
        (("--decoder.channels=16", "--aux-hidden", 4), "--decoder, --aux-hidden"),
        (("--encoder", "non-causal"), "--encoder"),
        (("--resume", "--latent-channels", 8), "--latent-channels"),
    ],
)
def test_model_options_beside_a_complete_model_are_refused(trained, own, words, told):
    folder = own if "--resume" in words else own / "new"
    ended = run("fit", "--config", trained / "config.yaml", "--run-dir", folder, *words)
    assert ended.status == 2
    assert f"{told}: without effect, the configuration holds a complete model" in ended.error


def test_resuming_a_finished_run_makes_what_is_missing_and_no_other_weights(own):
    stamp = (own / "model.safetensors").stat().st_mtime_ns
    whole = (own / "model.safetensors").read_bytes()
    first = metrics_of(own)
    for name in ("metrics.json", "report.html"):
        (own / name).unlink()
    ended = run("fit", "--run-dir", own, "--resume")
    assert ended.status == 0, ended.err
    assert "trained already, 12 steps" in ended.err
    assert (own / "model.safetensors").read_bytes() == whole
    assert (own / "model.safetensors").stat().st_mtime_ns == stamp
    assert metrics_of(own) == first
    assert (own / "report.html").is_file()


def test_resuming_a_run_whose_weights_are_missing_makes_the_same(own):
    whole = (own / "model.safetensors").read_bytes()
    (own / "model.safetensors").unlink()
    assert run("fit", "--run-dir", own, "--resume").status == 0
    assert (own / "model.safetensors").read_bytes() == whole


def test_resuming_a_run_that_ended_by_the_clock_changes_nothing(data, tmp_path):
    folder = tmp_path / "run"
    ended = fit(data, folder, "--epochs", 100_000, "--max-minutes", 0.005, "--delta-bits", 4)
    assert ended.status == 0, ended.err
    steps = json.loads((folder / "provenance.json").read_text())["steps"]
    assert 0 < steps < 400_000
    whole = (folder / "model.safetensors").read_bytes()
    ended = run("fit", "--run-dir", folder, "--resume")
    assert ended.status == 0, ended.err
    assert f"trained already, {steps} steps" in ended.err
    assert (folder / "model.safetensors").read_bytes() == whole


def test_finished_run_cannot_be_prolonged(own):
    ended = run("fit", "--run-dir", own, "--resume", "--epochs", 5)
    assert ended.status == 2
    assert "was trained to its end, 12 steps, and cannot be prolonged" in ended.error
    assert yaml.safe_load((own / "config.yaml").read_text())["epochs"] == 3.0


def test_more_time_prolongs_a_run_that_ended_by_the_clock(data, tmp_path):
    folder, words = tmp_path / "run", ("--epochs", 100_000, "--max-minutes", 0.002)
    assert fit(data, folder, *words, "--delta-bits", 4).status == 0
    first = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()  # killed before they were written
    ended = run("fit", "--run-dir", folder, "--resume")
    assert "trained already" in ended.err
    assert (folder / "model.safetensors").read_bytes() == first
    origin = json.loads((folder / "provenance.json").read_text())
    longer = (origin["train_seconds"] + 0.3) / 60
    assert run("fit", "--run-dir", folder, "--resume", "--max-minutes", longer).status == 0
    assert json.loads((folder / "provenance.json").read_text())["steps"] > origin["steps"]
    assert (folder / "model.safetensors").read_bytes() != first


def test_checkpoint_that_cannot_be_continued_is_told(own):
    checkpoint = own / "checkpoints" / "last.ckpt"
    whole = checkpoint.read_bytes()
    for cut in (0, 10, len(whole) // 2):
        checkpoint.write_bytes(whole[:cut])
        ended = run("fit", "--run-dir", own, "--resume")
        assert ended.status == 2
        assert "last.ckpt: damaged or truncated" in ended.error
    checkpoint.write_bytes(whole)
    config = own / "config.yaml"
    config.write_text(config.read_text().replace("kernel_size: 5", "kernel_size: 3"))
    (own / "model.safetensors").unlink()
    ended = run("fit", "--run-dir", own, "--resume")
    assert ended.status == 2
    assert "last.ckpt: of another model than" in ended.error


def test_checkpoint_of_another_version_is_told(own):
    checkpoint = own / "checkpoints" / "last.ckpt"
    state = torch.load(checkpoint, weights_only=True)
    for old in ({k: v for k, v in state.items() if k != "average"}, [1, 2]):
        torch.save(old, checkpoint)
        ended = run("fit", "--run-dir", own, "--resume")
        assert ended.status == 2
        assert "last.ckpt: written by another version of deltavae" in ended.error
        assert ended.error.endswith("or train anew in another --run-dir")


@pytest.mark.parametrize("holdout", [0, 6])
def test_run_is_not_continued_with_another_holdout(own, holdout):
    config = own / "config.yaml"
    config.write_text(config.read_text().replace("holdout: 0", "holdout: 5"))
    before = (own / "report.html").read_bytes()
    ended = run("fit", "--run-dir", own, "--resume", "--holdout", holdout)
    assert ended.status == 2
    assert ended.error.startswith(f"--holdout: {own} holds out 5 images, got {holdout}: ")
    assert ended.err.count("\n") == 1
    assert (own / "report.html").read_bytes() == before
    config.write_text(config.read_text().replace("holdout: 5", "holdout: 0"))
    assert run("fit", "--run-dir", own, "--resume", "--holdout", 0).status == 0  # as it was


def test_run_is_not_continued_on_images_of_another_shape(own):
    ended = run("fit", "--run-dir", own, "--resume", "--data", "digits")
    assert ended.status == 2
    assert "made for images of shape (1, 4, 4) with 5 levels" in ended.error


def test_divergence_is_a_failure_that_names_step_and_checkpoint(data, tmp_path):
    words = ("--learning-rate", 1e30, "--warmup-steps", 0, "--checkpoint-minutes", 0)
    ended = fit(data, tmp_path / "run", *words, "--log-every", 1, "--epochs", 10)
    assert ended.status == 1
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    told = re.fullmatch(
        r"the loss is not finite at step (\d+) \(.*\); try a lower learning rate; "
        r"the last good checkpoint is (.*)",
        ended.error,
    )
    assert told
    assert told[2] == str(checkpoint)
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["global_step"] == int(told[1]) - 1
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_ctrl_c_inside_lightning_before_the_first_step(data, tmp_path, monkeypatch):
    def stop(*args, **options):
        raise SystemExit(1)  # how Lightning answers

    monkeypatch.setattr("deltavae.cli.fit.train", stop)
    ended = fit(data, tmp_path / "run")
    assert ended.status == 130
    assert ended.error == "interrupted"
    assert not (tmp_path / "run").exists()


def test_terminal_gets_one_line_that_moves(data, tmp_path, monkeypatch):
    monkeypatch.setattr("command_line.Text.isatty", lambda _: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    ended = fit(data, tmp_path / "run", "--delta-bits", 4)
    assert ended.status == 0, ended.err
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ended.err)
    assert re.search(
        r"step 12/12 .*distortion [\d.]+  rate [\d.]+  δ 4\.00  aux rate [\d.]+ bits", plain
    )
    assert "steps/s" not in plain  # that is for logs
    assert "\x1b[?25h" in ended.err  # the cursor is back


def test_components_and_objective_are_chosen_by_name(data, tmp_path):
    folder = tmp_path / "run"
    words = ("--latents", "Independent", "--encoder", "NonCausalEncoder", "--delta-bits", 6)
    more = ("--objective", "FreeBitsPerExample", "--objective.bits", 3, "--likelihood")
    ended = fit(data, folder, *words, *more, "DiscretisedLogisticMixture")
    assert ended.status == 0, ended.err
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["objective"]["init_args"] == {"bits": 3.0}
    model = load(folder)
    assert type(model.encoder).__name__ == "NonCausalEncoder"
    assert type(model.decoder.likelihood).__name__ == "DiscretisedLogisticMixture"
    assert model.decoder.visible_from == (0, 0, 0, 0)
    assert metrics_of(folder)["committed_rate_bits"] == pytest.approx(6.0, rel=1e-9)


def test_report_can_be_left_for_later(data, tmp_path):
    folder = tmp_path / "run"
    assert fit(data, folder, "--no-report").status == 0
    assert not (folder / "report.html").exists()
    assert metrics_of(folder)["elbo_bpd"] > 0


def test_ladder_of_alphas_reaches_the_model(data, tmp_path):
    ended = fit(data, tmp_path / "run", "--alpha", "-0.5:0.9", "--precision", "bf16-mixed")
    assert ended.status == 0, ended.err
    assert load(tmp_path / "run").latents.alpha.tolist() == pytest.approx([-0.5, 0.9])


def test_held_out_images_are_logged_and_measured(data, tmp_path):
    folder = tmp_path / "run"
    words = ("--holdout", 8, "--val-every", 3, "--val-examples", 5, "--augment", "flip")
    ended = fit(data, folder, "--delta-bits", 4, *words)
    assert ended.status == 0, ended.err
    assert "the last 8 of 72 training images are held out of training" in ended.err
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = ("elbo_bpd", "distortion_bits", "rate_bits", "aux_rate_bits")
    assert all(float(row[f"val_{name}"]) > 0 for row in rows for name in names)
    ended = run("evaluate", folder, "--split", "val", "--importance-samples", 0)
    assert ended.status == 0, ended.err
    assert metrics_of(folder, "val")["examples"] == 8
    assert metrics_of(folder, "test")["examples"] == 8
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["holdout"], config["augment"], config["compile"]) == (8, "flip", False)
    origin = json.loads((folder / "provenance.json").read_text())
    assert origin["data_sha256"] == load_data(str(data), levels=5).fingerprint


def test_split_that_was_not_held_out_is_told(trained):
    ended = run("evaluate", trained, "--split", "val")
    assert ended.status == 2
    assert ended.error == (
        "--split must be one of train, test, got val: no images were held out of training "
        "(holdout)"
    )


def test_tiny_options_are_all_flags_of_the_help():
    text = run("fit", "--help").out
    own = ("--decoder.", "--encoder.")
    for flag in (word for word in TINY if word.startswith("--") and not word.startswith(own)):
        assert f"  {flag} " in text


def test_processes_draw_their_dropout_apart():
    def draw(rank):
        torch.manual_seed(3)
        _seed_process(3, rank)
        return torch.rand(()).item()

    torch.manual_seed(3)
    alone = torch.rand(()).item()
    assert draw(0) == alone
    assert len({draw(rank) for rank in range(3)}) == 3
