"""A run on disk: exact round trips, what loading refuses, writes that never lose the old file."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml

from deltavae.decoders import GatedPixelCNN
from deltavae.latents import AR1
from deltavae.likelihoods import Categorical
from deltavae.model import DeltaVAE
from deltavae.run_folder import (
    import_class,
    instantiate,
    load,
    provenance,
    specification,
    to_yaml,
    write_atomically,
)
from runs import tiny_specification, write_run


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run", tiny_specification())


def test_loaded_model_gives_the_same_terms_bit_for_bit(run):
    folder, model = run
    x = torch.randint(0, 5, (3, 1, 4, 4), dtype=torch.uint8)
    noise = torch.randn(3, 4, 2)
    loaded = load(folder.path)
    for name in ("distortion", "rate", "aux_rate"):
        assert torch.equal(getattr(loaded(x, noise), name), getattr(model(x, noise), name))
    assert loaded.latents.committed_rate == model.latents.committed_rate
    assert not loaded.training


def test_specification_survives_yaml_exactly(run):
    folder, _ = run
    assert folder.read_config()["model"] == tiny_specification()
    alpha = AR1.from_rate(3.3, 4, 2).config()["alpha"]
    assert yaml.safe_load(to_yaml(alpha)) == alpha


def test_a_list_of_numbers_takes_one_line():
    config = {"boxes": [[0, 0, 4, 4], [0, 4, 4, 4]], "alpha": [0.5, 0.95], "none": [], "δ": 1}
    text = to_yaml(config)
    assert text == "boxes:\n- [0, 0, 4, 4]\n- [0, 4, 4, 4]\nalpha: [0.5, 0.95]\nnone: []\nδ: 1\n"
    assert yaml.safe_load(text) == config


def test_instantiate_builds_nested_parts_and_lists():
    likelihood = specification(Categorical(1, 5), channels=1, levels=5)
    assert instantiate([likelihood, 3]) == (Categorical(1, 5), 3)
    decoder = instantiate(
        {
            "class_path": "deltavae.decoders.GatedPixelCNN",
            "init_args": {"image_shape": [1, 4, 4], "likelihood": likelihood, "channels": 8},
        }
    )
    assert isinstance(decoder, GatedPixelCNN)
    assert isinstance(
        instantiate(
            {
                "class_path": "deltavae.model.DeltaVAE",
                "init_args": {
                    "decoder": specification(decoder, image_shape=[1, 4, 4], likelihood=likelihood)
                },
            }
        ),
        DeltaVAE,
    )


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("os.system", "not a class of deltavae"),
        ("deltavaes.X", "not a class of deltavae"),
        ("DeltaVAE", "not a class of deltavae"),
        ("deltavae.model.Nothing", "is unknown"),
        ("deltavae.nothing.X", "is unknown"),
        ("deltavae.run_folder.load", "must name a class"),
        ("deltavae.run_folder.Path", "not a class of deltavae but of pathlib"),
    ],
)
def test_foreign_and_unknown_classes_are_refused(path, message):
    with pytest.raises(ValueError, match=message):
        import_class(path)


def test_trust_opens_the_door():
    assert (
        import_class("collections.OrderedDict", trust=True)
        is __import__("collections").OrderedDict
    )


def test_wrong_arguments_of_a_class_are_told():
    with pytest.raises(ValueError, match=r"deltavae\.latents\.Standard: "):
        instantiate({"class_path": "deltavae.latents.Standard", "init_args": {"nn": 3}})


def test_missing_and_damaged_files_are_named(run, tmp_path):
    folder, _ = run
    with pytest.raises(ValueError, match="no such run folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no config\.yaml"):
        load(tmp_path / "empty")
    whole = folder.weights.read_bytes()
    for cut in (0, 4, 100, len(whole) - 1):
        folder.weights.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="damaged or truncated"):
            load(folder.path)
    folder.weights.unlink()
    with pytest.raises(ValueError, match="no weights in this run folder"):
        load(folder.path)
    folder.config.write_text("model: [1")
    with pytest.raises(ValueError, match="not valid YAML"):
        load(folder.path)
    folder.config.write_text("seed: 3")
    with pytest.raises(ValueError, match='key "model" is missing'):
        load(folder.path)
    folder.config.write_text(
        "model: {class_path: deltavae.latents.Standard, init_args: {n: 2, d: 1}}"
    )
    with pytest.raises(ValueError, match=r"must be a deltavae\.model\.DeltaVAE"):
        load(folder.path)


def test_weights_that_do_not_fit_the_configuration_are_named(run):
    folder, _ = run
    config = folder.read_config()
    config["model"]["init_args"]["decoder"]["init_args"]["layers"] = 3
    folder.write_config(config)
    with pytest.raises(ValueError, match=r"decoder\.stack\.layers\.2\.\S+ has shape None"):
        load(folder.path)


def test_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half of the ne")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_json_holds_null_for_what_is_not_finite(run):
    folder, _ = run
    folder.write_json(folder.metrics, {"a": math.nan, "b": [1.5, math.inf], "c": {"d": 2}})
    assert json.loads(folder.metrics.read_text()) == {"a": None, "b": [1.5, None], "c": {"d": 2}}
    assert folder.read_json(folder.metrics)["c"] == {"d": 2}
    assert folder.read_json(folder.provenance) == {}
    folder.metrics.write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        folder.read_json(folder.metrics)
    folder.metrics.write_text("[1]")
    with pytest.raises(ValueError, match="must hold a mapping"):
        folder.read_json(folder.metrics)


def test_provenance_names_what_is_needed_to_repeat_a_run():
    origin = provenance(fingerprint="ab", seed=3, train_seconds=1.5)
    assert origin["data_sha256"] == "ab"
    assert origin["seed"] == 3
    assert (
        origin["packages"]["torch"] == torch.__version__.split("+")[0]
        or origin["packages"]["torch"]
    )
    assert origin["commit"] is None or len(origin["commit"].removesuffix("-dirty")) >= 40
