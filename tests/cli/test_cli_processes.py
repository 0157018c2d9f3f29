"""Where the process matters: Ctrl-C, a full disk, and what reaches a user's terminal."""

import re
import resource
import shutil
import signal
import subprocess
import time

import pytest
import torch
import yaml
from command_line import ENVIRONMENT, PROGRAM, TINY

from deltavae import load

EPOCHS = 50  # of 4 steps: long enough to be interrupted, short enough to be resumed


def start(*words, **options):
    return subprocess.Popen(
        [*PROGRAM, *(str(word) for word in words)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for(path, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def interrupted(data, tmp_path_factory):
    """A run that Ctrl-C has ended, and how it ended."""
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    words = ("--data", data, "--run-dir", folder, *TINY, "--delta-bits", 4, "--epochs", EPOCHS)
    process = start("fit", *words)
    wait_for(folder / "log.csv", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    return folder, process.returncode, out, err


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(interrupted):
    folder, status, out, err = interrupted
    assert (status, out) == (130, "")
    assert "Traceback" not in err
    told = re.fullmatch(
        r"stopped at step (\d+); go on with: fit --run-dir (.*) --resume", err.splitlines()[-1]
    )
    assert told
    assert told[2] == str(folder)
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["global_step"] == int(told[1])
    assert 0 < saved["global_step"] < 4 * EPOCHS
    assert yaml.safe_load((folder / "config.yaml").read_text())["epochs"] == EPOCHS
    assert not (folder / "model.safetensors").exists()


# Whatever is printed must be one of these: nothing of Lightning's, no warning, no blank lines.
SAID = (
    r".*tiny\.npz: (no test split found|reduced from 256 to 5 levels).*",
    r".*run: 72 training images \(1, 4, 4\), 5 levels; [\d,]+ parameters; δ = 4\.000 bits"
    r" \(AR1 alpha 0\.\d+ \(2×\), minimiser_units on, innovations on\)",
    r"step \d+/200  [\d.]+ steps/s  distortion [\d.]+  rate [\d.]+  δ 4\.00  aux rate .* bits",
    r"fitting the auxiliary prior to the averaged weights",
    r"evaluating on the test split",
    r"[┏┡└│┃].*[┓┩┘│┃]",
    r"warning: (the rate is committed|the estimate of I\(x;z\)).*",
    r"(encoding|distortion and rate|information|importance weighting|linear probe).*",  # slow
    r"drawing samples (for the report|of run: position \d+ of \d+)",
    r"report: .*report\.html",
)


def test_resumed_run_finishes_and_only_speaks_of_the_run(interrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted[0], folder)
    process = start("fit", "--run-dir", folder, "--resume")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out == ""
    said = [*interrupted[3].splitlines()[:-1], *err.splitlines()]
    foreign = [line for line in said if not any(re.fullmatch(known, line) for known in SAID)]
    assert foreign == []
    assert re.search(r"^step 200/200 ", err, re.MULTILINE)
    assert load(folder).latents.committed_rate > 0
    assert (folder / "report.html").is_file()


def test_full_disk_leaves_the_old_checkpoint_whole(interrupted, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(interrupted[0], folder)
    checkpoint = folder / "checkpoints" / "last.ckpt"
    whole = checkpoint.read_bytes()

    def no_room():  # for a file of more than half a checkpoint, in the child alone
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, len(whole) // 2))

    words = ("--run-dir", folder, "--resume", "--checkpoint-minutes", 0)
    process = start("fit", *words, preexec_fn=no_room)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert "Traceback" not in err
    error = err.splitlines()[-1]
    assert [line for line in err.splitlines() if line.startswith("deltavae: ")] == [error]
    assert error.startswith(f"deltavae: {checkpoint}: the checkpoint could not be written (")
    assert error.endswith("the one before is whole: make room and go on with --resume")
    assert checkpoint.read_bytes() == whole
    assert [file.name for file in checkpoint.parent.iterdir()] == ["last.ckpt"]
    assert torch.load(checkpoint, weights_only=True)["global_step"] > 0


def test_ctrl_c_before_the_training_is_130_too(tmp_path, data):
    code = (
        "import signal; from deltavae.cli import fit, main;"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"  # a background job has none
        "fit.load_dataset = lambda options: signal.raise_signal(signal.SIGINT);"
        f"raise SystemExit(main(['fit', '--data', {str(data)!r}, '--run-dir', 'run']))"
    )
    done = subprocess.run(
        [PROGRAM[0], "-c", code], capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "deltavae: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_reader_of_a_pipe_may_leave_early():
    words = ["rate", "--n", "32", "--d", "4000", "--delta-bits", "80", "--json"]
    process = start(*words)
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) in (0, 1)
