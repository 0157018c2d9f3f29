"""Large data sets, converted once: uint8 arrays in files that are mapped into memory.

What takes long to read, a folder of a million images or archives of several gigabytes, is written
once, split by split, into

    <data folder>/converted/<name>-<key>/train.npy  test.npy  labels.npz  facts.json

and mapped from then on: a start takes no time, several processes share one copy, and the system
keeps in memory what fits. The key is a hash of where the source really lies, however it was named,
of its files' names, sizes and times, and of what was done to the images: a source that changes is
converted anew. The folder appears by one renaming, so that no half of it is ever read, and of two
processes that convert at once the first counts; it may be removed at any time. What a conversion
that was killed has left behind (.part-…) is removed by one that comes a day later. A mapped image
that is changed changes in memory only.
"""

import contextlib
import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deltavae.data.dataset import Dataset, Split
from deltavae.data.pixels import one_line

LARGE = 2**28  # bytes of pixels from which a data set is converted: 256 MiB
_FORMAT = 2  # counted up when the files' meaning changes
_PART = ".part-"  # how the names of unfinished conversions begin
_ABANDONED = 86_400.0  # seconds without a write after which nobody is at work on one


def converted(
    name: str,
    origin: str,
    sources: Sequence[Path],
    settings: Mapping[str, Any],
    roots: Sequence[Path],
    build: Callable[[], Dataset],
    progress: Callable[[str], None] | None = None,
) -> Dataset:
    """Map a converted data set, or else build it and, if it is large, convert it.

    A damaged conversion, or what `build` refuses, is a ValueError.

    Args:
        name: Name of the data set, as the user gave it.
        origin: What it names: the resolved path of a folder or file, or a name again.
        sources: The files that it is made of, by their resolved paths.
        settings: What is done to the images: values that JSON can hold.
        roots: Folders for data sets, the best first: the first that can be written to is taken.
        build: Makes the data set in memory.
        progress: Called with a line of text when a conversion begins.

    Returns:
        The data set. Where no folder can be written to it stays in memory, and a note says so.
    """
    stem = re.sub(r"\W+", "-", Path(origin).name) or "images"
    places = [root / "converted" / f"{stem}-{_key(origin, sources, settings)}" for root in roots]
    for folder in places:
        if folder.is_dir():
            return _read(folder, name)
    dataset = build()
    if sum(split.images.nbytes for split in dataset.splits) < LARGE:
        return dataset
    failures = []
    for folder in places:
        if progress is not None:
            progress(f"{name}: converting to {folder}, once")
        try:
            _write(folder, dataset)
        except OSError as error:
            failures.append(f"{folder.parent} ({one_line(error)})")
        else:
            return _read(folder, name)
    note = f"read anew in every run: no conversion could be written to {', '.join(failures)}"
    return replace(dataset, notes=(*dataset.notes, note))


def _key(origin: str, sources: Sequence[Path], settings: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([_FORMAT, origin, dict(settings)]).encode())
    for path in sources:
        facts = path.stat()
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _write(folder: Path, dataset: Dataset) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(folder.parent)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=_PART) as name:
        part = Path(name) / folder.name
        part.mkdir()
        rest: dict[str, Any] = {}
        for key, split in (("train", dataset.train), ("test", dataset.test)):
            np.save(part / f"{key}.npy", split.images)
            arrays = {"labels": split.labels, "places": split.places}
            rest |= {f"{key}_{kind}": a for kind, a in arrays.items() if a is not None}
        with (part / "labels.npz").open("wb") as file:
            np.savez(file, **rest)
        facts = {"levels": dataset.levels, "notes": dataset.notes}
        (part / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise


def _remove_abandoned(parent: Path) -> None:
    for part in parent.glob(f"{_PART}*"):
        with contextlib.suppress(OSError):  # somebody else may be removing it
            latest = max(path.stat().st_mtime for path in (part, *part.rglob("*")))
            if time.time() - latest > _ABANDONED:
                shutil.rmtree(part)


def _read(folder: Path, name: str) -> Dataset:
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        with np.load(folder / "labels.npz") as archive:
            rest = dict(archive)
        train, test = (
            Split(
                np.load(folder / f"{key}.npy", mmap_mode="c"),
                rest.get(f"{key}_labels"),
                rest.get(f"{key}_places"),
            )
            for key in ("train", "test")
        )
        return Dataset(name, train, test, facts["levels"], tuple(facts["notes"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder} is damaged ({one_line(error)}): remove it, and it is made again"
        ) from error
