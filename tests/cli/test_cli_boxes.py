"""Latents that stand for tiles or nested rows of an image, through every command."""

import csv
import json

import numpy as np
import pytest
import yaml
from command_line import fit, run

from deltavae import load

TILES = [[0, 0, 2, 2], [0, 2, 2, 2], [2, 0, 2, 2], [2, 2, 2, 2]]
NESTED = [[0, 0, 4, 4], [0, 0, 2, 4], [2, 0, 2, 4]]
PAIRS = {
    "Grid": (("--latents.height", "2", "--latents.width", "2"), TILES, (0, 2, 8, 10)),
    "Tree": (("--latents.depth", "1"), NESTED, (0, 0, 8)),
}


@pytest.fixture(scope="module", params=PAIRS)
def trained(request, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("boxes") / request.param
    words, boxes, begins = PAIRS[request.param]
    words = ("--latents", request.param, *words, "--delta-bits", "4", "--no-report")
    ended = fit(data, folder, *words)
    assert ended.status == 0, ended.err
    return folder, boxes, begins


def test_run_keeps_the_boxes_and_the_floor(trained):
    folder, boxes, begins = trained
    parts = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    assert parts["encoder"]["init_args"]["boxes"] == boxes
    assert parts["decoder"]["init_args"]["boxes"] == boxes
    assert load(folder).decoder.visible_from == begins
    with (folder / "log.csv").open() as file:
        rates = [float(row["rate_bits"]) for row in csv.DictReader(file)]
    assert len(rates) == 4
    assert min(rates) >= 4.0 * (1 - 1e-6)
    metrics = json.loads((folder / "metrics.json").read_text())["test"]
    assert np.shape(metrics["rate_terms_bits"]) == (len(boxes), 2)


def test_every_command_takes_the_run(trained, data, tmp_path):
    folder, boxes, _ = trained
    drawn = tmp_path / "drawn.npz"
    words = {
        "describe": (folder, "--json"),
        "encode": (folder, "--data", data, "--out", tmp_path / "codes.npz"),
        "report": (folder, "--out", tmp_path / "page.html"),
        "fit-prior": (folder, "--steps", "3"),
        "evaluate": (folder, "--importance-samples", "2"),
    }
    ended = {command: run(command, *rest) for command, rest in words.items()}
    assert {command: end.status for command, end in ended.items()} == dict.fromkeys(words, 0)
    figures = json.loads(ended["describe"].out)
    assert figures["latent_steps"] == len(boxes)
    assert figures["encoder_sees"] == {"first_step": 4, "last_step": 2, "rows": 4}
    assert np.load(tmp_path / "codes.npz")["mu"].shape[1:] == (len(boxes), 2)
    assert run("sample", folder, "--out", drawn, "--n", "3", "--fixed-latent", "2").status == 0
    assert np.load(drawn)["images"].shape == (6, 1, 4, 4)
    half = ("--complete-from", data, "--rows", "2", "--candidates", "4")
    assert run("sample", folder, "--out", drawn, "--n", "1", *half).status == 0
    given, completed = np.load(data)["images"] // 52, np.load(drawn)["images"]  # 256 → 5 levels
    np.testing.assert_array_equal(completed[:, :, :2], given[:, :, :2])


def test_tiles_that_cut_pixels_are_told(data, tmp_path):
    ended = fit(data, tmp_path / "run", "--latents", "Grid", "--latents.height", "3")
    assert ended.status == 2
    assert ended.error.endswith(
        "must stand for whole pixels: the image's 4 rows are cut at 1.33333; "
        "the number of equal parts must divide 4: 1, 2, 4"
    )
    assert not (tmp_path / "run").exists()


def test_boxes_follow_from_the_latents(data, tmp_path):
    for part in ("encoder", "decoder"):
        ended = fit(data, tmp_path / "run", f"--{part}.boxes", "[[0, 0, 4, 4]]")
        assert ended.status == 2
        assert "boxes" in ended.error
