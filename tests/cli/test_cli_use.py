"""Using a run: evaluate, sample, encode, fit-prior, report."""

import json
import math

import numpy as np
import pytest
import torch
import yaml
from command_line import run
from PIL import Image
from safetensors.torch import load_file

from deltavae import load
from deltavae.cli.completion import read_images
from deltavae.data import load_data


def test_evaluate_prints_nothing_but_json(own):
    before = json.loads((own / "metrics.json").read_text())
    ended = run("evaluate", own, "--split", "train", "--importance-samples", 3, "--json")
    assert ended.status == 0, ended.err
    printed = json.loads(ended.out)
    after = json.loads((own / "metrics.json").read_text())
    assert after == {**before, "train": printed}
    assert (printed["split"], printed["examples"], printed["iwae_samples"]) == ("train", 72, 3)
    assert printed["train_seconds"] == before["test"]["train_seconds"]
    assert "evaluating on the train split" in ended.err
    assert f"{printed['elbo_bpd']:.4f}" in ended.err  # the table for people


def test_evaluate_is_a_function_of_its_seed(own):
    words = ("evaluate", own, "--importance-samples", 2, "--json")
    stored = json.loads((own / "metrics.json").read_text())["test"]
    assert json.loads(run(*words).out) == stored
    other = json.loads(run(*words, "--seed", 1).out)
    assert other["rate_bits"] == stored["rate_bits"]  # closed form, no draws
    assert other["distortion_bits"] != stored["distortion_bits"]
    few = json.loads(run(*words, "--limit", 3).out)
    assert few["examples"] == 3
    assert few["mutual_information_cap_bits"] == pytest.approx(math.log2(3))


def test_evaluate_without_latents_prints_null(finished):
    folder, _ = finished("none")
    printed = json.loads(run("evaluate", folder, "--json").out)
    assert printed["rate_bits"] is None
    assert printed["elbo_bpd"] == pytest.approx(printed["distortion_bits"] / 16)


def sampled(folder, out, *words):
    ended = run("sample", folder, "--out", out, *words)
    assert ended.status == 0, ended.err
    assert ended.out == ""
    return ended


def test_sample_writes_a_grid_and_the_levels(trained, tmp_path):
    sampled(trained, tmp_path / "grid.png", "--n", 6, "--seed", 2)
    ended = sampled(trained, tmp_path / "grid.npz", "--n", 6, "--seed", 2)
    assert ended.err == f"{tmp_path / 'grid.npz'}: 6 images\n"
    with np.load(tmp_path / "grid.npz") as arrays:
        images, levels = arrays["images"], arrays["levels"]
    assert (images.shape, images.dtype, int(levels)) == ((6, 1, 4, 4), np.uint8, 5)
    assert images.max() < 5
    model = load(trained)
    by_hand = model.sample(6, generator=torch.Generator().manual_seed(2))
    assert np.array_equal(images, by_hand.numpy())
    with Image.open(tmp_path / "grid.png") as picture:
        shown = set(np.unique(np.asarray(picture.convert("L"))))
    assert {round(int(level) * 255 / 4) for level in np.unique(images)} <= shown


@pytest.mark.parametrize("ending", ["png", "npz"])
def test_same_seed_gives_the_same_bytes(trained, tmp_path, ending):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        sampled(trained, tmp_path / f"{name}.{ending}", "--n", 9, "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.{ending}").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_fixed_latent_repeats_one_z_in_every_row(trained, tmp_path):
    words = ("--n", 5, "--fixed-latent", 3, "--seed", 7, "--temperature", 0.5)
    sampled(trained, tmp_path / "rows.npz", *words, "--prior", "model")
    with np.load(tmp_path / "rows.npz") as arrays:
        images = arrays["images"]
    model, generator = load(trained), torch.Generator().manual_seed(7)
    z = model.sample_latents(3, prior="model", generator=generator)
    by_hand = model.decode(z.repeat_interleave(5, 0), generator=generator, temperature=0.5)
    assert np.array_equal(images, by_hand.numpy())
    sampled(trained, tmp_path / "rows.png", *words)
    with Image.open(tmp_path / "rows.png") as picture:
        width, height = picture.size
    assert width / height == pytest.approx(5 / 3, rel=0.1)  # 3 rows of 5


def test_priors_and_temperature_make_a_difference(trained, tmp_path):
    drawn = {}
    for name, words in {
        "aux": (),
        "model": ("--prior", "model"),
        "cold": ("--temperature", 0.01),
        "cold again": ("--temperature", 0.01, "--seed", 0),
    }.items():
        sampled(trained, tmp_path / "x.npz", "--n", 40, *words)
        with np.load(tmp_path / "x.npz") as arrays:
            drawn[name] = arrays["images"]
    assert not np.array_equal(drawn["aux"], drawn["model"])
    assert np.array_equal(drawn["cold"], drawn["cold again"])
    # At temperature 0 every pixel is the likeliest one: fewer kinds of images are left.
    kinds = {
        name: len(np.unique(images.reshape(40, -1), axis=0)) for name, images in drawn.items()
    }
    assert kinds["cold"] < kinds["aux"]


def test_sample_without_latents(finished, tmp_path):
    folder, _ = finished("none")
    sampled(folder, tmp_path / "x.png", "--n", 2)
    ended = run("sample", folder, "--out", tmp_path / "y.png", "--fixed-latent", 2)
    assert ended.status == 2
    assert ended.error == f"--fixed-latent: the model of {folder} has no latents"


def test_batches_are_a_matter_of_memory_only(trained, tmp_path):
    images = {}
    for size in (2, 64):
        sampled(trained, tmp_path / "x.npz", "--n", 5, "--seed", 1, "--batch-size", size)
        with np.load(tmp_path / "x.npz") as arrays:
            images[size] = arrays["images"]
    assert np.array_equal(images[2], images[64])


@pytest.mark.parametrize("kind", ["AR1", "none"])
def test_completion_keeps_the_top_rows(finished, tmp_path, kind):
    folder, _ = finished(kind)
    given = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "given.npy", given)
    levels = (given.astype(int) * 5 // 256).astype(np.uint8)  # as the run's --levels 5 does
    words = ("--complete-from", tmp_path / "given.npy", "--n", 6, "--candidates", 8, "--seed", 4)
    ended = sampled(folder, tmp_path / "x.npz", *words, "--rows", 3)
    assert ("of 8 candidates in effect" in ended.err) == (kind == "AR1")
    with np.load(tmp_path / "x.npz") as arrays:
        completed, top = arrays["images"].reshape(3, 6, 4, 4), int(arrays["levels"])
    assert top == 5
    assert np.array_equal(completed[:, :, :3], np.repeat(levels[:, None, :3], 6, axis=1))
    assert len(np.unique(completed[:, :, 3].reshape(-1, 4), axis=0)) > 3
    model = load(folder)
    by_hand = model.complete(
        torch.from_numpy(levels[:, None]),
        12,
        6,
        candidates=8,
        generator=torch.Generator().manual_seed(4),
    )
    assert np.array_equal(completed, by_hand.events[:, :, 0].numpy())


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_to_complete_may_have_its_channels_last(channels, tmp_path):
    given = np.random.default_rng(2).integers(0, 256, (4, 6, channels), dtype=np.uint8)
    np.save(tmp_path / "given.npy", given)
    for wanted in (channels, 3):
        read = read_images(tmp_path / "given.npy", (wanted, 4, 6), 256)
        assert np.array_equal(read, given.transpose(2, 0, 1)[None].repeat(wanted // channels, 1))


def test_picture_of_completions_shows_original_kept_part_and_completions(trained, tmp_path):
    colour = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(colour).save(tmp_path / "given.png")
    words = ("--complete-from", tmp_path / "given.png", "--n", 2)
    sampled(trained, tmp_path / "x.png", *words, "--rows", 1)
    sampled(trained, tmp_path / "x.npz", *words, "--rows", 4)
    with np.load(tmp_path / "x.npz") as arrays:
        original = arrays["images"][0, 0]  # every row is kept: the image as the model has it
    grey = np.asarray(Image.fromarray(colour).convert("L"), float)
    mean = np.rint(grey.reshape(4, 2, 4, 2).mean((1, 3))).astype(int)
    assert np.array_equal(original, mean * 5 // 256)
    kept = np.where(np.arange(4)[:, None] < 1, original, 2)  # the rest in the middle level
    with Image.open(tmp_path / "x.png") as picture:
        shown = np.asarray(picture.convert("L"))
    side = shown.shape[0]
    for column, expected in enumerate((original, kept)):
        left = column * (shown.shape[1] - side) // 3  # four images in a row, lines between them
        points = (np.arange(4) + 0.5) * side / 4
        pixels = shown[points.astype(int)][:, left + points.astype(int)]
        assert np.array_equal(pixels, np.rint(expected * (255 / 4)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Images in two classes, written in an order that is not the sorted one."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(3)
    files = {}
    for name in ("b/2", "a/9", "b/10", "a/1", "a/10", "b/1", "a/2"):
        files[name] = rng.integers(0, 256, (4, 4), dtype=np.uint8)
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(files[name]).save(folder / f"{name}.png")
    return folder, [
        (name, files[name]) for name in ("a/1", "a/10", "a/2", "a/9", *["b/1", "b/10", "b/2"])
    ]


def test_encode_keeps_the_order_of_the_sorted_files(trained, pictures, tmp_path):
    folder, in_order = pictures
    ended = run("encode", trained, "--data", folder, "--out", tmp_path / "z.npz")
    assert ended.status == 0, ended.err
    assert f"{tmp_path / 'z.npz'}: 7 posteriors of shape (4, 2)\n" in ended.err
    with np.load(tmp_path / "z.npz") as arrays:
        mu, sigma, labels = arrays["mu"], arrays["sigma"], arrays["labels"]
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    model = load(trained)
    for i, (name, pixels) in enumerate(in_order):
        levels = (pixels.astype(int) * 5 // 256).astype(np.uint8)  # as the run's --levels 5 does
        with torch.no_grad():
            q = model.encode(torch.from_numpy(levels[None, None]))
        np.testing.assert_allclose(mu[i], q.mu[0], rtol=1e-4, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(sigma[i], q.sigma[0], rtol=1e-4, atol=1e-6, err_msg=name)
    assert len(np.unique(mu.reshape(7, -1), axis=0)) == 7


def test_encode_takes_one_split(trained, data, tmp_path):
    mu = {}
    for split, count in (("all", 80), ("train", 72), ("test", 8)):
        words = ("--data", data, "--split", split, "--out", tmp_path / f"{split}.npz")
        assert run("encode", trained, *words).status == 0
        with np.load(tmp_path / f"{split}.npz") as arrays:
            mu[split] = arrays["mu"]
            assert (mu[split].shape, arrays["labels"].shape) == ((count, 4, 2), (count,))
    source = load_data(str(data), levels=5)
    for split, part in (("train", source.train), ("test", source.test)):
        np.testing.assert_allclose(mu[split], mu["all"][part.places], rtol=1e-4, atol=1e-6)


def test_encode_refuses_other_images(trained, tmp_path, finished):
    out = ("--out", tmp_path / "z.npz")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "large.npz", images=rng.integers(0, 256, (9, 5, 5)).astype(np.uint8))
    ended = run("encode", trained, "--data", tmp_path / "large.npz", *out)
    assert ended.status == 2
    assert "--data: images of shape (1, 5, 5) with 5 levels" in ended.error
    assert "was trained on shape (1, 4, 4) with 5 levels" in ended.error
    ended = run("encode", trained, "--data", "digits", *out)
    assert ended.status == 2
    assert "images of shape (1, 8, 8)" in ended.error
    folder, _ = finished("none")
    ended = run("encode", folder, "--data", tmp_path / "large.npz", *out)
    assert ended.status == 2
    assert "this model has no latents: there is nothing to encode" in ended.error
    assert not (tmp_path / "z.npz").exists()


def test_encode_refuses_images_of_more_levels_than_the_run_had(own, pictures, tmp_path):
    config = yaml.safe_load((own / "config.yaml").read_text())
    (own / "config.yaml").write_text(yaml.safe_dump({**config, "levels": None}))
    ended = run("encode", own, "--data", pictures[0], "--out", tmp_path / "z.npz")
    assert ended.status == 2
    assert "images of shape (1, 4, 4) with 256 levels" in ended.error


def test_prior_is_fitted_anew_and_nothing_else(own, trained):
    ended = run("fit-prior", own, "--hidden", 5, "--steps", 60, "--examples", 50, "--seed", 1)
    assert ended.status == 0, ended.err
    assert f"measure it with: deltavae evaluate {own}" in ended.err
    before, after = (load_file(f / "model.safetensors") for f in (trained, own))
    model = {name for name in before if not name.startswith("aux_prior.")}
    assert {name for name in after if not name.startswith("aux_prior.")} == model
    assert all(torch.equal(before[name], after[name]) for name in model)
    spec = yaml.safe_load((own / "config.yaml").read_text())["model"]["init_args"]["aux_prior"]
    assert spec["init_args"] == {"n": 4, "d": 2, "hidden": 5}
    stored = json.loads((own / "metrics.json").read_text())["test"]
    measured = json.loads(run("evaluate", own, "--importance-samples", 2, "--json").out)
    assert measured["rate_bits"] == stored["rate_bits"]
    assert measured["aux_rate_bits"] < stored["aux_rate_bits"]  # of 5 steps, in training
    whole = (own / "model.safetensors").read_bytes()
    resumed = run("fit", "--run-dir", own, "--resume")
    assert resumed.status == 0, resumed.err  # though its checkpoint has the old prior
    assert (own / "model.safetensors").read_bytes() == whole


def test_prior_keeps_its_size_unless_told(own):
    assert run("fit-prior", own, "--steps", 3).status == 0
    spec = yaml.safe_load((own / "config.yaml").read_text())["model"]["init_args"]["aux_prior"]
    assert spec["init_args"]["hidden"] == 6
    weights = load_file(own / "model.safetensors")
    assert run("fit-prior", own, "--steps", 3).status == 0
    again = load_file(own / "model.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in weights.items())


def test_prior_needs_latents(finished):
    folder, _ = finished("none")
    ended = run("fit-prior", folder)
    assert ended.status == 2
    assert ended.error == f"{folder}: this model has no latents"


def test_report_sets_runs_side_by_side(finished, tmp_path):
    folders = [finished(kind)[0] for kind in ("AR1", "none", "Standard")]
    ended = run("report", *folders, "--out", tmp_path / "page.html")
    assert (ended.status, ended.out) == (0, "")
    assert ended.err == f"report: {tmp_path / 'page.html'}\n"
    page = (tmp_path / "page.html").read_text()
    for folder in folders:
        metrics = json.loads((folder / "metrics.json").read_text())["test"]
        assert folder.name in page
        assert f"{metrics['elbo_bpd']:.4f} ±" in page
    ended = run("report", folders[0], folders[0], "--out", tmp_path / "twice.html")
    assert ended.status == 2
    assert "every run folder once" in ended.error
