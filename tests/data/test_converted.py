"""Large data sets are converted once and mapped: the same images, read anew if they change."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deltavae.data import converted as module
from deltavae.data import load_data


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "LARGE", 1)
    monkeypatch.setenv("DELTAVAE_DATA", str(tmp_path / "root"))


def conversions(root):
    return sorted((root / "converted").glob("*")) if root.exists() else []


def is_mapped(array):
    while array is not None and not isinstance(array, np.memmap):
        array = array.base
    return array is not None


def write_folder(folder, n=23, labelled=True):
    rng = np.random.default_rng(0)
    for i in range(n):
        place = folder / ("dog" if i % 3 else "cat") if labelled else folder
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (6, 5, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{i:02}.png")


def write_array(folder):
    folder.mkdir()
    np.save(folder / "a.npy", np.random.default_rng(0).integers(0, 256, (30, 6, 6, 3), np.uint8))


def write_imagenet(folder):
    folder.mkdir()
    for name, n in {"train_data_batch_1": 12, "train_data_batch_2": 10, "val_data": 3}.items():
        data = np.random.default_rng(n).integers(0, 256, (n, 3072), np.uint8)
        np.savez(folder / f"{name}.npz", data=data, labels=np.arange(1, n + 1))


SOURCES = {
    "folder": (write_folder, "{}"),
    "array": (write_array, "{}/a.npy"),
    "imagenet32": (write_imagenet, "imagenet32"),
}


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("settings", [{}, {"size": 4, "grey": True, "levels": 8}])
def test_mapped_data_set_is_the_one_in_memory(tmp_path, monkeypatch, kind, settings):
    write, name = SOURCES[kind]
    source, root = tmp_path / "source", tmp_path / "root"
    write(source)
    name = name.format(source)
    data_dir = source if kind == "imagenet32" else None
    with monkeypatch.context() as patch:
        patch.setattr(module, "LARGE", 2**28)
        plain = load_data(name, data_dir=data_dir, **settings)
    assert conversions(root) == []
    assert not is_mapped(plain.train.images) or kind == "array"
    said = []
    first = load_data(name, data_dir=data_dir, progress=said.append, **settings)
    place = (source if data_dir else root) / "converted"
    assert said[-1].startswith(f"{name}: converting to {place}")
    for reader in ("load_folder", "load_arrays", "load_imagenet32"):
        monkeypatch.setattr(f"deltavae.data.load.{reader}", pytest.fail)  # not read again
    again = load_data(name, data_dir=data_dir, holdout=5, **settings)
    for data in (first, again):
        assert data.fingerprint == plain.fingerprint
        assert (data.levels, data.notes[: len(plain.notes)]) == (plain.levels, plain.notes)
        assert all(is_mapped(split.images) for split in data.splits)
    both = plain.in_source_order
    np.testing.assert_array_equal(again.in_source_order.images, both.images)
    np.testing.assert_array_equal(again.in_source_order.labels, both.labels)


def test_change_of_a_source_or_a_setting_is_another_conversion(tmp_path):
    write_folder(tmp_path / "images", labelled=False)
    name = str(tmp_path / "images")
    first = load_data(name)
    assert len(conversions(tmp_path / "root")) == 1
    load_data(name, size=3)
    assert len(conversions(tmp_path / "root")) == 2
    Image.fromarray(np.zeros((6, 5, 3), np.uint8)).save(tmp_path / "images" / "00.png")
    os.utime(tmp_path / "images" / "00.png", ns=(1, 1))
    changed = load_data(name)
    assert changed.fingerprint != first.fingerprint
    assert len(conversions(tmp_path / "root")) == 3


def test_change_of_mapped_images_stays_in_memory(tmp_path):
    write_folder(tmp_path / "images")
    data = load_data(str(tmp_path / "images"))
    before = data.fingerprint
    data.train.images[:] = 0
    assert data.train.images.max() == 0
    assert load_data(str(tmp_path / "images")).fingerprint == before


def test_small_data_sets_are_not_converted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGE", 23 * 6 * 5 * 3 + 1)
    write_folder(tmp_path / "images")
    assert not is_mapped(load_data(str(tmp_path / "images")).train.images)
    assert conversions(tmp_path / "root") == []


def test_place_that_cannot_be_written_to_costs_a_note_only(tmp_path):
    write_folder(tmp_path / "images")
    (tmp_path / "root").write_text("a file where a folder should be")
    data = load_data(str(tmp_path / "images"))
    assert len(data.train) == 21
    assert data.notes[-1].startswith("read anew in every run: no conversion could be written to ")


def test_half_a_conversion_is_never_read_and_a_damaged_one_is_named(tmp_path, monkeypatch):
    write_folder(tmp_path / "images")
    name = str(tmp_path / "images")

    def full(*args, **arrays):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)  # after the images
        assert "No space left" in load_data(name).notes[-1]
    assert conversions(tmp_path / "root") == []
    load_data(name)
    (folder,) = conversions(tmp_path / "root")
    whole = (folder / "train.npy").read_bytes()
    (folder / "train.npy").write_bytes(whole[:200])
    with pytest.raises(ValueError, match=r"is damaged \(.*\): remove it, and it is made again$"):
        load_data(name)


def test_source_by_any_name_is_converted_once(tmp_path, monkeypatch):
    write_folder(tmp_path / "images")
    (tmp_path / "link").symlink_to(tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "images"), "images", "./images/", "images/../images", "link"):
        assert load_data(name).name == name
    monkeypatch.chdir(tmp_path / "images")
    assert load_data(".").name == "."
    assert len(conversions(tmp_path / "root")) == 1


def test_one_name_in_two_places_is_two_sources(tmp_path, monkeypatch):
    for place, n in (("a", 23), ("b", 33)):
        write_folder(tmp_path / place / "images", n)
        monkeypatch.chdir(tmp_path / place)
        assert len(load_data("images").in_source_order) == n


def test_folder_and_its_only_subfolder_are_not_the_same(tmp_path):
    write_folder(tmp_path / "images" / "train")
    assert load_data(str(tmp_path / "images")).train.labels is None
    assert load_data(str(tmp_path / "images" / "train")).train.labels is not None


def test_of_two_that_convert_at_once_the_first_counts(tmp_path, monkeypatch):
    write_folder(tmp_path / "images")
    name = str(tmp_path / "images")
    with monkeypatch.context() as patch:
        patch.setenv("DELTAVAE_DATA", str(tmp_path / "elsewhere"))
        plain = load_data(name)
    (other,) = conversions(tmp_path / "elsewhere")
    shutil.copytree(other, tmp_path / "other")

    def late(move):  # the other process is done just before
        def call(part, target):
            shutil.copytree(tmp_path / "other", target)
            return move(part, target)

        return call

    monkeypatch.setattr(Path, "rename", late(Path.rename))
    monkeypatch.setattr(shutil, "move", late(shutil.move))
    data = load_data(name)
    assert data.fingerprint == plain.fingerprint
    (folder,) = conversions(tmp_path / "root")
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        ["train.npy", "test.npy", "labels.npz", "facts.json"]
    )


def test_what_a_killed_conversion_left_is_removed_a_day_later(tmp_path):
    write_folder(tmp_path / "images")
    parts = [tmp_path / "root" / "converted" / f".part-{name}" for name in ("old", "new")]
    for part in parts:
        (part / "half").mkdir(parents=True)
        (part / "half" / "train.npy").write_bytes(b"half")
    day = time.time() - 90_000
    for path in (*parts[0].rglob("*"), parts[0]):
        os.utime(path, (day, day))
    load_data(str(tmp_path / "images"))
    assert not parts[0].exists()
    assert (parts[1] / "half" / "train.npy").exists()  # somebody may be at work on it
