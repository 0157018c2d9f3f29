from pathlib import Path

import numpy as np
import pytest

from deltavae.data import BUILT_IN, load_data
from deltavae.data.sources import data_root, download

PERMITTED = "permitted: digits, fashion_mnist, cifar10, imagenet32, a folder of images, an "


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("fashon_mnist", "fashion_mnist"),
        ("Fashion-MNIST", "fashion_mnist"),
        ("CIFAR10", "cifar10"),
        ("cifar-10", "cifar10"),
        ("digit", "digits"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, nearest):
    with pytest.raises(ValueError) as error:
        load_data(name)
    assert str(error.value).startswith(
        f"unknown data set {name!r}, did you mean {nearest!r}? {PERMITTED}"
    )


@pytest.mark.parametrize("name", ["xyzzy", ""])
def test_a_strange_name_gets_the_list(name):
    with pytest.raises(ValueError) as error:
        load_data(name)
    assert str(error.value).startswith(f"unknown data set {name!r}; {PERMITTED}")


def test_a_file_of_another_kind_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("1,2")
    with pytest.raises(ValueError, match=r"^data '.*a\.csv' is a file of another kind; "):
        load_data(str(tmp_path / "a.csv"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, r"^size must be at least 1, got 0$"),
        ({"levels": 1}, r"^levels must be in 2\.\.256, got 1$"),
        ({"levels": 300}, r"^levels must be in 2\.\.256, got 300$"),
        ({"levels": 32}, r"^levels must be in 2\.\.17 for digits, got 32$"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_data("digits", **arguments)


def test_changes_are_made_in_order_and_noted(tmp_path):
    source = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    np.save(tmp_path / "a.npy", source)
    data = load_data(str(tmp_path / "a.npy"), size=2, grey=True, levels=2)
    plain = load_data(str(tmp_path / "a.npy"))
    expected = plain.to_grey().resize(2).reduce_levels(2)
    assert data.fingerprint == expected.fingerprint
    assert (data.shape, data.levels) == ((1, 2, 2), 2)
    assert [note.split()[0] for note in data.notes] == ["no", "converted", "resized", "binarised:"]


def test_digits_keep_their_levels_when_resized():
    small = load_data("digits", size=4)
    assert small.levels == 17
    assert small.train.images.max() <= 16


def test_built_in_names_are_what_load_data_takes():
    assert BUILT_IN == ("digits", "fashion_mnist", "cifar10", "imagenet32")


def test_the_folder_for_data_sets(monkeypatch, tmp_path):
    monkeypatch.delenv("DELTAVAE_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert data_root(None) == tmp_path / "deltavae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_root(None) == Path.home() / ".cache" / "deltavae"
    monkeypatch.setenv("DELTAVAE_DATA", "~/sets")
    assert data_root(None) == Path.home() / "sets"
    assert data_root(tmp_path) == tmp_path


def test_a_download_without_a_server_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^the download of .*:9/x failed") as error:
        download("http://127.0.0.1:9/x", "0" * 64, "do something else")
    assert str(error.value).endswith(": do something else")
    assert "\n" not in str(error.value)
