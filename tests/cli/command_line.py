"""The command line in process, tiny runs, and what their folders hold."""

import io
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deltavae.cli import main
from runs import tiny_data

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
PROGRAM = [sys.executable, "-m", "deltavae"]

LEVELS = 5
TINY = (
    *("--decoder.channels", "8", "--decoder.layers", "2"),
    *("--encoder.channels", "6", "--encoder.layers", "1", "--aux-hidden", "6"),
    *("--levels", str(LEVELS), "--latent-channels", "2", "--log-every", "3"),
    *("--epochs", "3", "--batch-size", "16", "--prior-steps", "5", "--importance-samples", "2"),
)

KINDS = {
    "AR1": ("--delta-bits", "4"),
    "Standard": ("--latents", "Standard"),
    "none": ("--latents", "none"),
    "zero": ("--latents", "zero"),
}


class Ended(NamedTuple):
    """Exit status and what was printed."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error: the last, and the only one of its kind."""
        lines = self.err.splitlines()
        assert lines, "nothing was said"
        assert "Traceback" not in self.err
        assert [line for line in lines if line.startswith("deltavae: ")] == lines[-1:]
        return lines[-1].removeprefix("deltavae: ")


class Text(io.StringIO):
    """What is printed; a test may make a terminal of it."""


def run(*words: object) -> Ended:
    """Run a command in this process."""
    out, err = Text(), Text()
    with redirect_stdout(out), redirect_stderr(err):
        status = main([str(word) for word in words])
    return Ended(status, out.getvalue(), err.getvalue())


def write_data(path: Path, examples: int = 80) -> Path:
    """Write 4 × 4 images of 256 levels that --levels 5 takes back to five, with labels."""
    split = tiny_data(examples).train
    np.savez(path, images=split.images * 51 + 25, labels=split.labels)
    return path


def fit(data: Path, folder: Path, *words: object) -> Ended:
    """Train a tiny model."""
    return run("fit", "--data", data, "--run-dir", folder, *TINY, *words)
