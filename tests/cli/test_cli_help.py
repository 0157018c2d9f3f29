"""What a newcomer asks first: help, version, the resolved options; and how typing errors end."""

import inspect
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from command_line import ENVIRONMENT, PROGRAM, run

from deltavae import __version__, latents
from deltavae.cli import COMMANDS
from deltavae.cli.fit_options import DERIVED

ROOT = Path(__file__).parents[2]


def test_help_lists_every_command_within_a_second_and_without_torch():
    code = (
        "import sys; from deltavae.cli import main; status = main(['--help']);"
        "heavy = {'torch', 'numpy', 'lightning', 'jsonargparse', 'sklearn'} & set(sys.modules);"
        "print(sorted(heavy)); sys.exit(status)"
    )
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT
        )
        seconds.append(time.monotonic() - began)
        if seconds[-1] < 1.0:
            break
    assert min(seconds) < 1.0
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "[]"
    listed = re.findall(r"^  ([a-z-]+) {2,}\w", done.stdout, re.MULTILINE)
    assert listed == list(COMMANDS)


def test_program_and_module_answer_alike():
    done = subprocess.run([*PROGRAM, "--version"], capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stdout) == (0, f"deltavae {__version__}\n")
    assert run("--version").out == done.stdout
    for words in ((), ("--help",), ("-h",), ("help",)):
        ended = run(*words)
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.startswith("usage: deltavae COMMAND")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_teaches(command):
    ended = run(command, "--help")
    assert (ended.status, ended.err) == (0, "")
    text = ended.out
    assert text.startswith(f"usage: deltavae {command} ")
    assert COMMANDS[command].summary.capitalize() in text
    assert f"  deltavae {command} " in text.partition("example")[2]
    assert set(re.findall(r"--\w[\w.-]*_[\w.-]*", text)) == {"--print_config"}
    assert "Namespace" not in text
    assert "default: None" not in text
    entries = re.split(r"^  (?=-)", text, flags=re.MULTILINE)[1:]
    assert len(entries) >= 6
    for entry in entries:  # flag and value, then at least two spaces or a new line, then meaning
        meaning = re.search(r"(?: {2,}|\n +)(\w.*)", entry, re.DOTALL)
        assert meaning, entry
        assert len(meaning[1].split()) >= 3, entry


def test_help_of_a_component_lists_its_own_options_only():
    ended = run("fit", "--decoder.help", "GatedPixelCNN")
    assert ended.status == 0
    assert "--decoder.latent-view" in ended.out
    assert "(type: int, default: 32)" in ended.out
    assert "image-shape" not in ended.out  # follows from the data


PAIRS = {
    name: pair
    for name in latents.__all__
    if isinstance(pair := getattr(latents, name), type)
    and issubclass(pair, latents.Latents)
    and not inspect.isabstract(pair)
}


def test_every_pair_is_named_where_a_user_looks_for_one():
    places = {"fit --help": run("fit", "--help").out}
    for page in ("README.md", "docs/guide/training.md"):
        places[page] = (ROOT / page).read_text(encoding="utf-8")
    assert len(PAIRS) >= 17
    missing = {
        place: [name for name in PAIRS if not re.search(rf"\b{name}\b", text)]
        for place, text in places.items()
    }
    assert not any(missing.values()), missing


def test_the_guide_lists_the_options_of_every_pair():
    text = (ROOT / "docs" / "guide" / "training.md").read_text(encoding="utf-8")
    section = text.partition("\n## Pairs\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| `")]
    listed = {
        row[0].strip(" `"): set(re.findall(r"`([\w-]+)`", row[3])) for row in rows if len(row) == 4
    }
    assert set(listed) - {"--latents"} == set(PAIRS)
    for name, pair in PAIRS.items():
        own = set(inspect.signature(pair).parameters) - set(DERIVED["latents"])
        assert listed[name] == {option.replace("_", "-") for option in own}, name


@pytest.mark.parametrize("command", ["evaluate", "rate", "report"])
def test_light_commands_say_wrong_use_before_they_import_torch(command):
    code = (
        f"import sys; from deltavae.cli import main; status = main(['{command}', '--nonsense']);"
        "print('torch' in sys.modules); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert (done.returncode, done.stdout) == (2, "False\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fti"], "unknown command fti: did you mean fit?"),
        (["samples"], "unknown command samples: did you mean sample?"),
        (["fit_prior"], "unknown command fit_prior: did you mean fit-prior?"),
        (["--data", "digits"], "unknown command --data: there are fit, fit-prior, evaluate"),
        (["xyz"], "unknown command xyz: there are fit, fit-prior, evaluate"),
    ],
)
def test_unknown_command_gets_the_nearest(words, message):
    ended = run(*words)
    assert ended.status == 2
    assert ended.error.startswith(message)
    assert ended.err.count("\n") == 1


def test_printed_configuration_is_taken_back_and_later_flags_win(tmp_path):
    words = ("--data", "digits", "--run-dir", "r", "--delta-bits", 12.5, "--epochs", 3)
    more = ("--decoder.channels", 48, "--encoder=non-causal", "--alpha", "0:0.5")
    first = run(
        "fit", *words, *more, "--objective", "Beta", "--objective.beta=2", "--print_config"
    )
    assert (first.status, first.err) == (0, "")
    options = yaml.safe_load(first.out)
    assert options["delta_bits"] == 12.5
    assert options["alpha"] == "0:0.5"  # and not a number in base 60, as YAML may read it
    assert options["decoder"]["init_args"]["channels"] == 48
    assert options["encoder"]["class_path"].endswith(".NonCausalEncoder")
    assert options["objective"]["init_args"] == {"beta": 2.0}
    assert options["batch_size"] == 64  # a default
    file = tmp_path / "printed.yaml"
    file.write_text(first.out)
    assert run("fit", "--config", file, "--print_config").out == first.out
    later = yaml.safe_load(
        run(
            *("fit", "--config", file, "--delta-bits", 7, "--decoder.layers", 3),
            *("--latents.minimiser-units", "false", "--print-config"),
        ).out
    )
    assert later["delta_bits"] == 7.0
    assert later["decoder"]["init_args"] == {**options["decoder"]["init_args"], "layers": 3}
    assert later["latents"]["init_args"] == {"minimiser_units": False, "innovations": True}
    assert {k: v for k, v in later.items() if k not in ("delta_bits", "decoder", "latents")} == {
        k: v for k, v in options.items() if k not in ("delta_bits", "decoder", "latents")
    }


def test_later_of_two_files_wins(tmp_path):
    for name, text in (("a", "epochs: 1\nseed: 1\n"), ("b", "seed: 2\nbatch_size: 8\n")):
        (tmp_path / name).write_text(f"data: digits\nrun_dir: r\n{text}")
    files = [f"--config={tmp_path / name}" for name in ("a", "b")]
    options = yaml.safe_load(run("fit", *files, "--print_config").out)
    assert (options["epochs"], options["seed"], options["batch_size"]) == (1.0, 2, 8)
    assert yaml.safe_load(run("fit", *files[::-1], "--print_config").out)["seed"] == 1
    for words in (["--seed", 3, *files], [*files, "--seed", 3]):  # a flag wins over every file
        assert yaml.safe_load(run("fit", *words, "--print_config").out)["seed"] == 3


def test_value_may_be_the_name_of_an_option():
    words = ("--data", "digits", "--run-dir", "encoder", "--seed", 1, "--decoder", "PixelSNAIL")
    options = yaml.safe_load(run("fit", *words, "--print_config").out)
    assert (options["run_dir"], options["seed"]) == ("encoder", 1)
    assert options["encoder"]["class_path"].endswith(".AntiCausalEncoder")
    assert options["decoder"]["class_path"].endswith(".PixelSNAIL")
    ended = run("fit", "--data", "digits", "--run-dir", "r", "--decoder", "--seed", 1)
    assert (ended.status, ended.error[:40]) == (2, "--decoder: must be one of GatedPixelCNN,")


def test_a_named_class_takes_its_own_defaults(tmp_path):
    (tmp_path / "f").write_text("decoder: {class_path: PixelSNAIL, init_args: {channels: 16}}\n")
    base = ("fit", "--data", "digits", "--run-dir", "r")
    for words, sizes in (
        (["--decoder", "PixelSNAIL"], (64, 8, 2)),
        (["--decoder.layers", 3, "--decoder", "PixelSNAIL"], (64, 3, 2)),
        (["--decoder.layers", 3, "--config", tmp_path / "f"], (16, 3, 2)),
        (["--decoder.layers", 3], (32, 3, 3)),
    ):
        decoder = yaml.safe_load(run(*base, *words, "--print_config").out)["decoder"]
        given = decoder["init_args"]
        assert (given["channels"], given["layers"], given["kernel_size"]) == sizes
