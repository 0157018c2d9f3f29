"""Bad input: one line that says what is wrong and what is right, status 2, nothing left behind."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from command_line import TINY, fit, run, write_data
from PIL import Image

from deltavae.run_folder import RunFolder, load


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with everything that a user may get wrong."""
    here = tmp_path_factory.mktemp("place")
    rng = np.random.default_rng(0)

    def folder(name, sizes):
        (here / name).mkdir()
        for i, size in enumerate(sizes):
            pixels = rng.integers(0, 256, (size, size), dtype=np.uint8)
            Image.fromarray(pixels).save(here / name / f"{i}.png")

    folder("good", [4] * 6)
    folder("mixed", [4, 5, 4])
    folder("empty", [])
    folder("corrupt", [4, 4, 4])
    cut = here / "corrupt" / "1.png"
    cut.write_bytes(cut.read_bytes()[:40])
    write_data(here / "ok.npz", 40)
    np.savez(here / "float.npz", images=np.zeros((8, 4, 4)))
    gaps = np.zeros((8, 4, 4))
    gaps[3, 2, 1] = np.nan
    np.savez(here / "nan.npz", images=gaps)
    np.savez(here / "range.npz", images=np.full((8, 4, 4), 300))
    np.savez(here / "negative.npz", images=np.full((8, 4, 4), -1))
    np.savez(here / "flat.npz", images=np.zeros((8, 4), np.uint8))
    np.savez(here / "other.npz", pictures=np.zeros((8, 4, 4), np.uint8))
    np.save(here / "objects.npy", np.array([{}], dtype=object))
    (here / "torn.npz").write_bytes((here / "ok.npz").read_bytes()[:100])
    (here / "text.txt").write_text("hello")
    for name, text in {
        "torn": "latents: [1",
        "text": "hello",
        "list": "- 1",
        "unknown": "epoch: 3",
        "dashes": "delta-bits: 3",
        "wrong": "batch_size: 0",
        "null": "seed: null",
        "number": "alpha: 0.9",
        "class": "decoder: {class_path: deltavae.decoders.GatedPixelRNN}",
        "argument": "decoder: {class_path: deltavae.decoders.GatedPixelCNN, "
        "init_args: {chanels: 3}}",
        "model": "model: {class_path: deltavae.latents.Standard, init_args: {n: 4, d: 2}}",
        "model-class": "model: {class_path: deltavae.model.Nothing}",
        "model-argument": "model: {class_path: deltavae.model.DeltaVAE, init_args: {depth: 3}}",
        "trust": "trust: true",
    }.items():
        (here / f"{name}.yaml").write_text(f"{text}\n")
    (here / "binary.yaml").write_bytes(b"\xff\xfe\x00data")
    return here


def in_place(place: Path, words: tuple[str, ...]) -> list[str]:
    return [word.replace("@", f"{place}/") for word in words]


def named(value: object) -> str:
    """The words of a command as the name of a test."""
    return " ".join(value) if isinstance(value, tuple) else ""


DATA = [
    (("digit",), "unknown data set 'digit', did you mean 'digits'?"),
    (("fashion-mnist2",), "did you mean 'fashion_mnist'?"),
    (("@nowhere",), "nowhere' does not exist; permitted: digits, fashion_mnist"),
    (("@text.txt",), "text.txt' is a file of another kind"),
    (("@corrupt",), "corrupt/1.png cannot be read as an image"),
    (("@mixed",), "images of mixed sizes need size (--size): "),
    (("@empty",), "empty has no images"),
    (("@float.npz",), "images: uint8 0..255 expected, got float64"),
    (("@nan.npz",), "images: contains NaN at index (3, 2, 1)"),
    (("@range.npz",), "uint8 0..255 expected, got int64 in 300..300"),
    (("@negative.npz",), "uint8 0..255 expected, got int64 in -1..-1"),
    (("@flat.npz",), "(N, H, W), (N, H, W, C) or (N, C, H, W)"),
    (("@other.npz",), "must have one of the arrays images, x, train, x_train"),
    (("@objects.npy",), "objects.npy cannot be read"),
    (("@torn.npz",), "torn.npz cannot be read"),
    (("@missing.npz",), "missing.npz must be an .npy or .npz file"),
    (("@ok.npz", "--levels", "1"), "--levels: must be in 2..256, got 1"),
    (("@ok.npz", "--levels", "300"), "--levels: must be in 2..256, got 300"),
    (("@ok.npz", "--size", "0"), "--size: must be at least 1, got 0"),
]


@pytest.mark.parametrize(("data", "message"), DATA, ids=named)
def test_bad_data(place, tmp_path, data, message):
    ended = run("fit", "--run-dir", tmp_path / "run", "--data", *in_place(place, data))
    assert ended.status == 2
    assert message in ended.error
    assert ended.err.count("\n") == 1
    assert ended.out == ""
    assert not (tmp_path / "run").exists()


OPTIONS = [
    # Names.
    ("--epoch 3", "--epoch: no such option: did you mean --epochs?"),
    ("--delta_bit=3", "--delta-bit: no such option: did you mean --delta-bits?"),
    ("--decoder.chanels 8", "--decoder.chanels: no such option: did you mean --decoder.channels?"),
    (
        "--latents.units 1",
        "units: no such option: there are --latents.innovations, --latents.minimiser-units",
    ),
    ("--latents Standard --latents.minimiser-units true", "there are none"),
    ("--latents GaussianMarkov", "missing: --latents.precision, which this class needs: entries "),
    (
        "--latents ARp --latents.partials 0.9",
        "--latents.partials: must be a list such as [0.7, 0.",
    ),
    (
        "--latents GaussianMarkov --latents.precision 3",
        "--latents.precision: must be a list such as [[1, 0, -0.5]], got 3",
    ),
    ("--latents Tree --latents.depth 30", "depth=30 at branching=2: a tree must have at most"),
    ("--latents none --latents.minimiser-units true", "no such option of the class chosen"),
    ("--objective FreeBitsPerExample --objective.bit 2", "did you mean --objective.bits?"),
    ("--encoder.levels 3", "--encoder.levels: no such option"),
    ("--trainer.device 2", "--trainer.device: no such option: did you mean --trainer.devices?"),
    ("extra", "unexpected argument extra"),
    # Classes.
    ("--encoder anticausal", "--encoder: must be one of anti-causal, non-causal"),
    ("--latents ar1", "got ar1: did you mean AR1?"),
    ("--latents AR2", "must be one of none, zero, AR1, ARp, "),
    ("--decoder PixelCNN", "got PixelCNN: did you mean GatedPixelCNN?"),
    ("--decoder=[1", "--decoder: must be one of GatedPixelCNN"),
    ("--decoder deltavae.latents.AR1", "--decoder: must be one of GatedPixelCNN"),
    ("--likelihood Gauss", "--likelihood: must be one of Bernoulli, Categorical, Discretised"),
    ("--objective Elbo", "got Elbo: did you mean ELBO?"),
    ("--decoder.help Nope", "--decoder: must be one of GatedPixelCNN"),
    # Values.
    ("--epochs", "--epochs: expected one argument"),
    ("--epochs many", "--epochs: must be a number above 0, got many"),
    ("--epochs 0", "--epochs: must be above 0, got 0"),
    ("--epochs -1", "--epochs: must be above 0, got -1"),
    ("--epochs nan", "--epochs: must be above 0, got nan"),
    ("--epochs inf", "--epochs: must be above 0, got inf"),
    ("--batch-size 0", "--batch-size: must be at least 1, got 0"),
    ("--batch-size 1.5", "--batch-size: must be a whole number at least 1, got 1.5"),
    ("--learning-rate -1", "--learning-rate: must be above 0, got -1"),
    ("--warmup-steps -1", "--warmup-steps: must be at least 0, got -1"),
    ("--weight-decay -1", "--weight-decay: must be at least 0, got -1"),
    ("--clip-norm 0", "--clip-norm: must be above 0, got 0"),
    ("--ema-decay 1", "--ema-decay: must be in [0, 1), got 1"),
    ("--log-every 0", "--log-every: must be at least 1, got 0"),
    ("--max-minutes 0", "--max-minutes: must be above 0, got 0"),
    ("--holdout -1", "--holdout: must be at least 0, got -1"),
    ("--holdout 36", "holdout must be in 0..35 for"),
    ("--val-every -1", "--val-every: must be at least 0, got -1"),
    ("--val-every 5", "--val-every must be 0 where no images are held out (holdout), got 5"),
    ("--holdout 5 --val-examples 0", "--val-examples: must be at least 1, got 0"),
    ("--augment turn", "--augment: must be"),
    ("--compile yes", "yes"),
    ("--checkpoint-minutes -1", "--checkpoint-minutes: must be at least 0, got -1"),
    ("--seed -1", "--seed: must be in 0..9223372036854775807, got -1"),
    ("--seed 10000000000000000000", "--seed: must be in 0..9223372036854775807"),
    ("--prior-steps 0", "--prior-steps: must be at least 1, got 0"),
    ("--importance-samples -1", "--importance-samples: must be at least 0, got -1"),
    ("--limit 0", "--limit: must be at least 1, got 0"),
    ("--aux-hidden 0", "--aux-hidden: must be at least 1, got 0"),
    ("--latent-channels 0", "--latent-channels: must be at least 1, got 0"),
    ("--precision 8", "--precision: must be one of 32-true, bf16-mixed, 16-mixed, 64-true, got 8"),
    ("--decoder.channels x", "--decoder.channels: must be a whole number, got x"),
    ("--decoder.channels 0", "channels must be at least 1, got 0"),
    ("--decoder.channels 7", "heads must divide channels = 7, got 2"),
    ("--decoder.latent-view up", "--decoder.latent-view: must be one of rows-above, all, got up"),
    ("--delta-bits 0", "--delta-bits: must be above 0, got 0"),
    ("--delta-bits -2", "--delta-bits: must be above 0, got -2"),
    ("--delta-bits 1000", "d must be at least 96"),
    ("--delta-bits 20 --latents Standard", "--delta-bits=20.0: delta must be 0 for Standard"),
    ("--delta-bits 20 --latents none", "without latents there is no rate to commit"),
    ("--alpha 1.0", "--alpha must be A or LO:HI with every |alpha| < 1"),
    ("--alpha 0.5:1.2", "--alpha must be A or LO:HI with every |alpha| < 1"),
    (
        "--alpha 0.5 --latents Standard",
        "--alpha applies to AR1 and LearnableAR1 only, got it with",
    ),
    ("--likelihood Bernoulli", "made for images of shape (1, 4, 4) with 2 levels"),
    ("--model 3", "--model: must be a mapping, got 3"),
    ("--trainer.accelerator abacus", "--trainer.accelerator: must be one of auto, cpu, gpu"),
    ("--trainer.devices 0", "--trainer: "),
    ("--trainer.strategy teamwork", "teamwork"),
    # Files.
    ("--config @nowhere.yaml", "nowhere.yaml cannot be read: No such file or directory"),
    ("--config @good", "good cannot be read: Is a directory"),
    ("--config @binary.yaml", "binary.yaml is not valid YAML"),
    ("--config @torn.yaml", "torn.yaml is not valid YAML"),
    ("--config @text.yaml", 'text.yaml must hold lines as "epochs: 20"'),
    ("--config @list.yaml", 'list.yaml must hold lines as "epochs: 20"'),
    ("--config @unknown.yaml", 'unknown option "epoch": did you mean epochs?'),
    ("--config @dashes.yaml", 'unknown option "delta-bits": did you mean delta_bits?'),
    ("--config @wrong.yaml", "--batch-size: must be at least 1, got 0"),
    ("--config @null.yaml", "--seed: must not be null"),
    ("--config @number.yaml", "--alpha: must be text (in a YAML file in quotes"),
    ("--config @class.yaml", "--decoder: must be one of GatedPixelCNN"),
    ("--config @argument.yaml", "--decoder.chanels: no such option"),
    ("--config @trust.yaml", "trust can be given as the flag --trust only"),
    ("--run-dir @text.txt", "text.txt is a file"),
    ("--run-dir @text.txt/run", "--run-dir: cannot write to"),
]


@pytest.mark.parametrize(("words", "message"), OPTIONS)
def test_bad_options(place, tmp_path, words, message):
    left = {"--config @wrong.yaml": "--batch-size", "--config @null.yaml": "--seed"}.get(words)
    tiny = list(TINY)
    if left in tiny:  # what a flag says would win over the file
        del tiny[tiny.index(left) : tiny.index(left) + 2]
    here = ("fit", "--run-dir", str(tmp_path / "run"), "--data", "@ok.npz", *tiny)
    ended = run(*in_place(place, (*here, *words.split())))
    assert ended.status == 2
    assert message in ended.error
    assert ended.out == ""
    notes = ended.err.splitlines()[:-1]  # what was done to the data, and nothing else
    assert all(note.startswith(f"{place}/ok.npz: ") for note in notes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model", "model must be a deltavae.model.DeltaVAE"),
        ("model-class", 'class_path "deltavae.model.Nothing" is unknown'),
        ("model-argument", "deltavae.model.DeltaVAE: "),
    ],
)
def test_bad_models_in_a_file(place, tmp_path, name, message):
    words = ("--data", f"{place}/ok.npz", "--config", f"{place}/{name}.yaml")
    ended = run("fit", "--run-dir", tmp_path / "run", *words)
    assert ended.status == 2
    assert message in ended.error
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs a folder that nobody can write to")
@pytest.mark.parametrize("command", ["fit", "sample"])
def test_place_that_cannot_be_written_to_is_told_at_once(data, trained, command):
    words = {
        "fit": ("--data", data, "--run-dir", "/proc/run"),
        "sample": (trained, "--out", "/proc/x.png"),
    }
    ended = run(command, *words[command])
    assert ended.status == 2
    assert "cannot write to /proc" in ended.error
    assert ended.err.count("\n") == 1


COMPLETE = ("sample", "@good", "--out", "@x.png", "--complete-from", "@good/0.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fit",), "missing: --run-dir, --data (see deltavae fit --help)"),
        (("fit", "--data", "digits"), "missing: --run-dir"),
        (("fit", "--run-dir", "@run", "--resume"), "no config.yaml to resume from"),
        (("evaluate",), "missing: RUN (see deltavae evaluate --help)"),
        (("evaluate", "@nowhere"), "nowhere: no such run folder"),
        (("evaluate", "@good"), "good: no config.yaml: this is not a run folder"),
        (("evaluate", "@good", "--split", "valid"), "--split: must be one of train, val, test"),
        (("evaluate", "@good", "--limit", "0"), "--limit: must be at least 1, got 0"),
        (("fit-prior", "@good", "--steps", "0"), "--steps: must be at least 1, got 0"),
        (("fit-prior", "@good", "--hidden", "-1"), "--hidden: must be at least 1, got -1"),
        (("sample", "@good"), "missing: --out"),
        (("sample", "@nowhere", "--out", "@x.png"), "nowhere: no such run folder"),
        (("sample", "@good", "--out", "@x.gif"), "--out: must end in .png or .npz, got"),
        (("sample", "@good", "--out", "@no/x.png"), "no/x.png does not exist"),
        (("sample", "@good", "--out", "@text.txt/x.png"), "text.txt/x.png does not exist"),
        (("sample", "@good", "--out", "@x.png", "--n", "0"), "--n: must be at least 1, got 0"),
        (
            ("sample", "@good", "--out", "@x.png", "--temperature", "0"),
            "--temperature: must be above 0, got 0",
        ),
        (
            ("sample", "@good", "--out", "@x.png", "--fixed-latent", "0"),
            "--fixed-latent: must be at least 1, got 0",
        ),
        (
            ("sample", "@good", "--out", "@x.png", "--batch-size", "0"),
            "--batch-size: must be at least 1, got 0",
        ),
        ((*COMPLETE,), "missing: --rows, the number of rows that --complete-from is to keep"),
        (
            ("sample", "@good", "--out", "@x.png", "--rows", "2"),
            "--rows: only with --complete-from",
        ),
        (
            ("sample", "@good", "--out", "@x.png", "--candidates", "64"),  # the default, but said
            "--candidates: only with --complete-from",
        ),
        (
            ("describe", "--epochs", "3", "@good"),
            "good: CONFIG comes first, ahead of the options",
        ),
        (
            (*COMPLETE, "--rows", "2", "--fixed-latent", "2"),
            "--fixed-latent: not with --complete-from",
        ),
        ((*COMPLETE, "--rows", "-1"), "--rows: must be at least 0, got -1"),
        (
            (*COMPLETE, "--rows", "2", "--candidates", "0"),
            "--candidates: must be at least 1, got 0",
        ),
        (
            ("sample", "@good", "--out", "@x.png", "--prior", "modle"),
            "--prior: must be one of aux, model, got modle: did you mean model?",
        ),
        (("encode", "@good", "--out", "@z.npz"), "missing: --data"),
        (("encode", "@good", "--data", "@good", "--out", "@z.npy"), "--out: must end in .npz"),
        (("report", "@good", "--out", "@x.pdf"), "--out: must end in .html, got"),
        (("report", "--out", "@x.html"), "missing: RUNS"),
        (("report", "@nowhere", "--out", "@x.html"), "nowhere: no such run folder"),
    ],
    ids=named,
)
def test_bad_use_of_the_other_commands(place, words, message):
    ended = run(*in_place(place, words))
    assert ended.status == 2
    assert message in ended.error
    assert ended.err.count("\n") == 1
    assert ended.out == ""


@pytest.mark.parametrize(
    ("image", "rows", "message"),
    [
        ("good/0.png", 5, "--rows: must be in 0..4, got 5"),
        ("nowhere.png", 2, "--complete-from: no such file: "),
        ("good", 2, "--complete-from: must be a file, got the folder "),
        ("text.txt", 2, "text.txt cannot be read as an image"),
        ("corrupt/1.png", 2, "1.png cannot be read as an image"),
        ("float.npz", 2, "uint8 0..255 expected, got float64; multiply and cast"),
        ("other.npz", 2, "must have the array 'images', it has ['pictures']"),
        ("torn.npz", 2, "torn.npz cannot be read"),
        ("objects.npy", 2, "objects.npy cannot be read"),
        ("few.npz", 2, "images of 3 levels, the run needs 5"),
        ("above.npz", 2, "values must be in 0..2, got 3"),
    ],
)
def test_image_to_complete_is_checked(trained, place, tmp_path, image, rows, message):
    np.savez(place / "few.npz", images=np.zeros((2, 4, 4), np.uint8), levels=3)
    np.savez(place / "above.npz", images=np.full((2, 4, 4), 3, np.uint8), levels=3)
    out = tmp_path / "x.png"
    ended = run("sample", trained, "--complete-from", place / image, "--rows", rows, "--out", out)
    assert ended.status == 2
    assert message in ended.error
    assert ended.error.startswith("--")
    assert ended.err.count("\n") == 1
    assert not out.exists()


def everyone(folder: Path, out: Path) -> list[list[object]]:
    return [
        ["evaluate", folder],
        ["fit-prior", folder],
        ["sample", folder, "--out", out / "x.png"],
        ["encode", folder, "--data", "digits", "--out", out / "z.npz"],
        ["report", folder, "--out", out / "x.html"],
    ]


def no_weights(folder):
    (folder / "model.safetensors").unlink()
    return "model.safetensors: no weights in this run folder (training has not finished"


def truncated_weights(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    return "model.safetensors: damaged or truncated"


def unknown_class(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("GatedPixelCNN", "GatedPixelRNN"))
    return 'class_path "deltavae.decoders.GatedPixelRNN" is unknown'


def foreign_class(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("deltavae.decoders.G", "evil.G"))
    return 'class_path "evil.GatedPixelCNN" is not a class of deltavae'


def other_layers(folder):
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("layers: 2", "layers: 3"))
    return "has shape None, the configuration says"


def broken_config(folder):
    (folder / "config.yaml").write_text("model: [1")
    return "config.yaml: not valid YAML"


def no_model(folder):
    (folder / "config.yaml").write_text("data: digits")
    return 'config.yaml: the key "model" is missing'


@pytest.mark.parametrize(
    "damage",
    [
        no_weights,
        truncated_weights,
        unknown_class,
        foreign_class,
        other_layers,
        broken_config,
        no_model,
    ],
)
def test_damaged_run_folders(own, tmp_path, damage):
    message = damage(own)
    before = {file: file.read_bytes() for file in own.iterdir() if file.is_file()}
    for words in everyone(own, tmp_path):
        ended = run(*words)
        assert ended.status == 2
        assert message in ended.error
        assert ended.err.count("\n") == 1
    assert before == {file: file.read_bytes() for file in own.iterdir() if file.is_file()}


def test_run_without_its_data_or_its_metrics(own, tmp_path):
    config = RunFolder(own).read_config()
    (own / "metrics.json").unlink()
    ended = run("report", own, "--out", tmp_path / "x.html")
    assert ended.status == 2
    assert "no metrics.json: run deltavae evaluate first" in ended.error
    for data, message in ((None, 'the key "data" is missing'), ("digts", "did you mean 'digits'")):
        RunFolder(own).write_config({"model": config["model"]} | ({"data": data} if data else {}))
        for command in ("evaluate", "fit-prior"):
            ended = run(command, own)
            assert ended.status == 2
            assert message in ended.error
    assert run("sample", own, "--out", tmp_path / "x.png", "--n", 1).status == 0  # needs no data


def test_metrics_that_are_no_json_are_told_and_kept(own):
    (own / "metrics.json").write_text("{")
    ended = run("evaluate", own, "--importance-samples", 0)
    assert ended.status == 2
    assert "metrics.json: not valid JSON" in ended.error
    assert (own / "metrics.json").read_text() == "{"


EVIL = """
import pathlib
pathlib.Path(__file__).with_name("was-here").touch()
from deltavae.decoders import GatedPixelCNN

class Decoder(GatedPixelCNN):
    pass
"""


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A foreign module that leaves a trace when it is imported, whose Decoder is a good one."""
    home = tmp_path / "foreign"
    home.mkdir()
    (home / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(home)
    yield home / "was-here"
    sys.modules.pop("evil", None)


FOREIGN = [
    "decoder: evil.Decoder",
    "decoder: {class_path: evil.Decoder}",
    "decoder.class_path: evil.Decoder",
    "decoder: {class_path: deltavae.decoders.GatedPixelCNN, init_args: {channels: evil.Decoder}}",
    "decoder: {init_args: {likelihood: {class_path: evil.Decoder}}}",
    "latents: evil.Decoder",
    "encoder: {class_path: evil.Decoder, init_args: {channels: 3}}",
    "likelihood: {class_path: evil.Decoder}",
    "objective: {class_path: evil.Decoder}",
    "objective: [evil.Decoder]",
    "trainer: {class_path: evil.Decoder}",
    "model: {class_path: evil.Decoder}",
    "model: {class_path: deltavae.model.DeltaVAE, init_args: {decoder: "
    "{class_path: evil.Decoder}}}",
    "config: evil.yaml",
    "trust: true\ndecoder: evil.Decoder",
]


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_class_in_a_configuration_is_refused_unseen(data, tmp_path, evil, text):
    (tmp_path / "from-elsewhere.yaml").write_text(f"{text}\n")
    (tmp_path / "evil.yaml").write_text("decoder: evil.Decoder\n")
    words = ("--data", data, "--run-dir", tmp_path / "run", "--levels", 5)
    ended = run("fit", *words, "--config", tmp_path / "from-elsewhere.yaml")
    assert ended.status == 2
    assert re_matches(ended.error)
    assert "evil" not in sys.modules
    assert not evil.exists()
    assert not (tmp_path / "run").exists()


def re_matches(error: str) -> bool:
    told = (
        "is not a class of deltavae: building it runs foreign code; say --trust",
        "--trust only",
    )
    return any(words in error for words in told) or 'unknown option "config"' in error


@pytest.mark.parametrize(
    "words",
    [
        ("--decoder", "evil.Decoder"),
        ("--decoder=evil.Decoder",),
        ("--decoder.class_path", "evil.Decoder"),
        ("--decoder={class_path: evil.Decoder}",),
        ("--decoder.help", "evil.Decoder"),
        ("--objective", "evil.Decoder"),
    ],
)
def test_foreign_class_in_a_flag_needs_trust_too(data, tmp_path, evil, words):
    ended = run("fit", "--data", data, "--run-dir", tmp_path / "run", *words)
    assert ended.status == 2
    assert re_matches(ended.error)
    assert "evil" not in sys.modules
    assert not evil.exists()


def test_trust_lets_a_foreign_class_through(data, tmp_path, evil):
    (tmp_path / "mine.yaml").write_text("decoder: evil.Decoder\n")
    folder = tmp_path / "run"
    words = ("--config", tmp_path / "mine.yaml", "--latents", "none")
    ended = fit(data, folder, *words, "--trust")
    assert ended.status == 0, ended.err
    assert evil.exists()
    spec = RunFolder(folder).read_config()["model"]["init_args"]["decoder"]
    assert spec["class_path"] == "evil.Decoder"
    assert spec["init_args"]["channels"] == 8  # of TINY
    assert "trust" not in yaml.safe_load((folder / "config.yaml").read_text())
    sys.modules.pop("evil")
    evil.unlink()
    for command in everyone(folder, tmp_path):
        refused = run(*command)
        assert refused.status == 2
        assert "say --trust" in refused.error
    resumed = run("fit", "--run-dir", folder, "--resume")
    assert resumed.status == 2
    assert "say --trust" in resumed.error
    assert not evil.exists()
    assert run("sample", folder, "--n", 1, "--out", tmp_path / "x.png", "--trust").status == 0
    assert type(load(folder, trust=True).decoder).__name__ == "Decoder"
    shutil.rmtree(folder)
