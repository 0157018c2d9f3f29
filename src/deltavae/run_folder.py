"""A run on disk: configuration, weights, checkpoints, metrics, provenance.

    config.yaml            the whole configuration; its key `model` alone rebuilds the model
    model.safetensors      averaged weights; loading needs no pickle
    checkpoints/last.ckpt  the state of the training, for --resume
    metrics.json  log.csv  provenance.json  report.html

A component of a configuration is a mapping {class_path, init_args}, as in jsonargparse.
Instantiating a class by its name runs code: only classes of deltavae are taken unless the caller
trusts the file. Every file is written under a temporary name and renamed, so that a full disk or a
kill leaves the old one whole.
"""

import importlib
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from deltavae import __version__
from deltavae.model import DeltaVAE


def instantiate(spec: Any, *, trust: bool = False) -> Any:
    """Build an object from its specification, recursively.

    Args:
        spec: A mapping {class_path, init_args}; a list becomes a tuple, any other value itself.
        trust: Take classes from outside deltavae too.

    Returns:
        The object.

    Raises:
        ValueError: If a class is foreign and not trusted, unknown, or refuses its arguments.
    """
    if isinstance(spec, list):
        return tuple(instantiate(item, trust=trust) for item in spec)
    if not (isinstance(spec, dict) and "class_path" in spec):
        return spec
    cls = import_class(spec["class_path"], trust=trust)
    arguments = spec.get("init_args") or {}
    built = {name: instantiate(value, trust=trust) for name, value in arguments.items()}
    try:
        return cls(**built)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{spec['class_path']}: {error}") from error


def import_class(path: str, *, trust: bool = False) -> type[Any]:
    """Import a class by its dotted path.

    Args:
        path: For example "deltavae.latents.AR1".
        trust: Take classes from outside deltavae too.

    Returns:
        The class.

    Raises:
        ValueError: If it is foreign and not trusted, or unknown.
    """
    module, _, name = str(path).rpartition(".")
    if not trust and module.split(".")[0] != "deltavae":
        raise ValueError(
            f'class_path "{path}" is not a class of deltavae: building it runs foreign code; '
            "say --trust (in Python trust=True) if you trust its source"
        )
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f'class_path "{path}" is unknown: {error}') from error
    if not isinstance(cls, type):
        raise ValueError(f'class_path "{path}" must name a class')
    if not trust and cls.__module__.split(".")[0] != "deltavae":
        raise ValueError(f'class_path "{path}" is not a class of deltavae but of {cls.__module__}')
    return cls


def specification(instance: Any, **init_args: Any) -> dict[str, Any]:
    """Return the {class_path, init_args} of an object whose arguments are known."""
    cls = type(instance)
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": init_args}


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file under a temporary name beside it, then rename it.

    A disk that is full or not writable is an OSError; a file that was there before is unchanged.

    Args:
        path: Where the file belongs.
        write: Called with the temporary path.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _Dumper(yaml.SafeDumper):
    """Writes a list of numbers or words on one line: alphas, the boxes of a grid."""

    def represent_sequence(
        self, tag: str, sequence: Iterable[Any], flow_style: bool | None = None
    ) -> yaml.SequenceNode:
        """Return the node of a list."""
        items = list(sequence)
        plain = not any(isinstance(item, list | dict) for item in items)
        return super().represent_sequence(tag, items, flow_style=plain)


def to_yaml(config: Any) -> str:
    """Return plain values as YAML, in their order."""
    text: str = yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The configuration's file."""
        return self.path / "config.yaml"

    @property
    def weights(self) -> Path:
        """The averaged weights' file."""
        return self.path / "model.safetensors"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint's file."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """The metrics' file."""
        return self.path / "metrics.json"

    @property
    def log(self) -> Path:
        """The training log's file."""
        return self.path / "log.csv"

    @property
    def provenance(self) -> Path:
        """The provenance's file."""
        return self.path / "provenance.json"

    @property
    def report(self) -> Path:
        """The report's file."""
        return self.path / "report.html"

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the configuration."""
        write_atomically(self.config, lambda path: path.write_text(to_yaml(config)))

    def read_config(self) -> dict[str, Any]:
        """Read the configuration.

        Returns:
            The mapping that `write_config` wrote.

        Raises:
            ValueError: If the folder is no run, or its configuration cannot be read.
        """
        if not self.path.is_dir():
            raise ValueError(f"{self.path}: no such run folder")
        if not self.config.is_file():
            raise ValueError(f"{self.path}: no config.yaml: this is not a run folder")
        try:
            config = yaml.safe_load(self.config.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(
                f"{self.config}: not valid YAML: {' '.join(str(error).split())}"
            ) from error
        if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
            raise ValueError(f'{self.config}: the key "model" is missing')
        return config

    def save_weights(self, model: DeltaVAE) -> None:
        """Write the model's weights."""
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        write_atomically(self.weights, lambda path: save_file(tensors, path))

    def load_model(self, *, trust: bool = False) -> DeltaVAE:
        """Rebuild the model from the configuration and load its weights.

        Args:
            trust: Take classes from outside deltavae too.

        Returns:
            The model in evaluation mode.

        Raises:
            ValueError: If the configuration or the weights are missing, damaged or do not fit.
        """
        model = instantiate(self.read_config()["model"], trust=trust)
        if not isinstance(model, DeltaVAE):
            raise ValueError(f"{self.config}: model must be a deltavae.model.DeltaVAE")
        model.load_state_dict(self._read_weights(model))
        return model.eval()

    def _read_weights(self, model: DeltaVAE) -> dict[str, Tensor]:
        if not self.weights.is_file():
            hint = (
                " (training has not finished: fit --resume)" if self.checkpoint.is_file() else ""
            )
            raise ValueError(f"{self.weights}: no weights in this run folder{hint}")
        try:
            tensors = load_file(self.weights)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{self.weights}: damaged or truncated: {error}") from error
        expected = {name: value.shape for name, value in model.state_dict().items()}
        for name in sorted(expected.keys() | tensors.keys()):
            here = tensors[name].shape if name in tensors else None
            if here != expected.get(name):
                raise ValueError(
                    f"{self.weights}: {name} has shape {here}, the configuration says "
                    f"{expected.get(name)}"
                )
        return tensors

    def write_json(self, path: Path, values: dict[str, Any]) -> None:
        """Write a mapping as JSON, NaN and infinities as null."""
        text = json.dumps(_finite(values), indent=2, allow_nan=False) + "\n"
        write_atomically(path, lambda temporary: temporary.write_text(text))

    def read_json(self, path: Path) -> dict[str, Any]:
        """Read a mapping from JSON.

        Args:
            path: One of this folder's JSON files.

        Returns:
            The mapping; empty where the file does not exist.

        Raises:
            ValueError: If the file is not valid JSON.
        """
        if not path.is_file():
            return {}
        try:
            values = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f"{path}: not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path}: must hold a mapping")
        return values


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load(path: str | Path, *, trust: bool = False) -> DeltaVAE:
    """Load the model of a finished run.

    A folder that is no run, has no weights or damaged ones is a ValueError that says so.

    Args:
        path: The run folder.
        trust: Take classes from outside deltavae too; without it a foreign class is an error.

    Returns:
        The model with its averaged weights, in evaluation mode.
    """
    return RunFolder(Path(path)).load_model(trust=trust)


def provenance(*, fingerprint: str, seed: int, train_seconds: float) -> dict[str, Any]:
    """Describe where a run comes from.

    Args:
        fingerprint: Hash of the data set.
        seed: Seed of the run.
        train_seconds: Wall time of the training.

    Returns:
        Versions, commit of the package's checkout where there is one, data hash, machine.
    """
    packages = ("torch", "lightning", "numpy", "scipy", "scikit-learn", "jsonargparse")
    return {
        "deltavae": __version__,
        "commit": _commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "data_sha256": fingerprint,
        "seed": seed,
        "train_seconds": train_seconds,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    # The commit of this package's own checkout; None for an installed package.
    here = Path(__file__).resolve().parent
    if not (here.parents[1] / ".git").exists():
        return None
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
