import re

import numpy as np
import pytest

from deltavae.data import load_data
from deltavae.data.arrays import as_images


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((6, 5, 4), None, (6, 1, 5, 4)),
        ((6, 5, 4, 3), (0, 3, 1, 2), (6, 3, 5, 4)),
        ((6, 5, 4, 1), (0, 3, 1, 2), (6, 1, 5, 4)),
        ((6, 3, 5, 4), (0, 1, 2, 3), (6, 3, 5, 4)),
        ((6, 1, 5, 4), (0, 1, 2, 3), (6, 1, 5, 4)),
        ((6, 3, 5, 3), (0, 3, 1, 2), (6, 3, 3, 5)),  # ambiguous: the last axis wins
    ],
)
def test_every_layout_is_brought_into_one_order(shape, axes, expected):
    source = images(*shape)
    result = as_images(source, "x")
    assert result.shape == expected
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert np.array_equal(result, source[:, None] if axes is None else source.transpose(axes))


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.int16, ">i4"])
def test_integers_within_range_are_taken(dtype):
    source = images(3, 2, 2)
    assert np.array_equal(as_images(source.astype(dtype), "x")[:, 0], source)


def test_npy_round_trips(tmp_path):
    source = images(30, 4, 5, 3)
    np.save(tmp_path / "a.npy", source)
    data = load_data(str(tmp_path / "a.npy"))
    assert (len(data.train), len(data.test)) == (27, 3)
    both = np.concatenate([data.train.images, data.test.images])
    assert {x.tobytes() for x in both} == {
        x.tobytes() for x in source.transpose(0, 3, 1, 2).copy()
    }
    assert "3 of 30 images" in data.notes[0]


@pytest.mark.parametrize(
    "keys",
    [
        ("images", "labels", "test", "test_labels"),
        ("x", "y", "test_images", "y_test"),
        ("train", "labels", "test", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
    ],
)
def test_npz_round_trips_with_labels_and_test_split(tmp_path, keys):
    arrays = [images(6, 4, 4), np.arange(6), images(2, 4, 4), np.array([[1], [0]])]
    np.savez(tmp_path / "a.npz", **dict(zip(keys, arrays, strict=True)))
    data = load_data(str(tmp_path / "a.npz"))
    assert np.array_equal(data.train.images[:, 0], arrays[0])
    assert np.array_equal(data.test.images[:, 0], arrays[2])
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.test.labels.tolist() == [1, 0]
    assert data.notes == ()
    assert data.levels == 256


def test_npz_without_test_split_keeps_labels_with_their_images(tmp_path):
    source = np.arange(50, dtype=np.uint8).reshape(50, 1, 1)
    np.savez_compressed(tmp_path / "a.npz", images=source, labels=np.arange(50, dtype=np.uint8))
    data = load_data(str(tmp_path / "a.npz"))
    for split in (data.train, data.test):
        assert np.array_equal(split.images.ravel(), split.labels)
    assert len(data.test) == 5


def test_npz_may_say_its_levels(tmp_path):
    np.savez(tmp_path / "a.npz", images=images(6, 4, 4) % 4, levels=4)
    assert load_data(str(tmp_path / "a.npz")).levels == 4
    np.savez(tmp_path / "b.npz", images=images(6, 4, 4), levels=4)
    with pytest.raises(ValueError, match=r"b\.npz: values must be in 0\.\.3, got 2\d\d$"):
        load_data(str(tmp_path / "b.npz"))
    np.savez(tmp_path / "c.npz", images=images(6, 4, 4), levels=4.0)
    with pytest.raises(ValueError, match=r"c\.npz: levels must be one integer .*, got float64$"):
        load_data(str(tmp_path / "c.npz"))
    np.savez(tmp_path / "d.npz", images=images(6, 4, 4), levels=300)
    with pytest.raises(ValueError, match=r"d\.npz: levels must be in 2\.\.256, got 300$"):
        load_data(str(tmp_path / "d.npz"))


def nan_array() -> np.ndarray:
    array = np.zeros((4, 3, 3), np.float32)
    array[2, 1, 0] = np.nan
    return array


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            np.zeros((4, 3, 3), np.float32),
            r"uint8 0\.\.255 expected, got float32; multiply and cast$",
        ),
        (nan_array(), r"contains NaN at index \(2, 1, 0\), uint8 0\.\.255 expected$"),
        (np.full((4, 3, 3), 300), r"uint8 0\.\.255 expected, got int64 in 300\.\.300$"),
        (np.array([[[-1, 7]]]), r"uint8 0\.\.255 expected, got int64 in -1\.\.7$"),
        (np.zeros((4, 3, 3), bool), r"uint8 0\.\.255 expected, got bool$"),
        (np.zeros((4, 3, 3), complex), r"uint8 0\.\.255 expected, got complex128$"),
        (np.zeros((4, 3), np.uint8), r"shape \(N, H, W\).* expected, got \(4, 3\)$"),
        (np.zeros((4, 2, 5, 2), np.uint8), r"shape .* C = 1 or 3 expected, got \(4, 2, 5, 2\)$"),
        (
            np.zeros((0, 3, 3), np.uint8),
            r"images expected, got an empty array of shape \(0, 3, 3\)$",
        ),
    ],
)
def test_bad_arrays_are_named(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/a\.npy: {message}"):
        load_data(str(tmp_path / "a.npy"))
    np.savez(tmp_path / "a.npz", images=images(3, 2, 2), test=array)
    with pytest.raises(ValueError, match=rf"^{tmp_path}/a\.npz: test: {message}"):
        load_data(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(5), r"labels: integers of shape \(6,\) expected, got int64 of shape \(5,\)$"),
        (np.zeros(6), r"labels: integers of shape \(6,\) expected, got float64"),
        (np.full(6, -1), r"labels: classes from 0 expected, got -1$"),
    ],
)
def test_bad_labels_are_named(tmp_path, labels, message):
    np.savez(tmp_path / "a.npz", images=images(6, 2, 2), labels=labels)
    with pytest.raises(ValueError, match=message):
        load_data(str(tmp_path / "a.npz"))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_nothing_is_unpickled(tmp_path):
    objects = np.array([Bomb()], dtype=object)
    np.save(tmp_path / "a.npy", objects)
    np.savez(tmp_path / "a.npz", images=objects)
    with pytest.raises(ValueError, match=r"a\.npy cannot be read: .*Python objects"):
        load_data(str(tmp_path / "a.npy"))
    with pytest.raises(ValueError, match=r"a\.npz: images cannot be read: .*allow_pickle"):
        load_data(str(tmp_path / "a.npz"))


@pytest.mark.parametrize(("name", "kind"), [("a.npz", "archive"), ("a.npy", "file")])
@pytest.mark.parametrize("content", [b"1 2 3\n4 5 6\n", b""])
def test_text_is_no_array(tmp_path, name, kind, content):
    (tmp_path / name).write_bytes(content)
    told = f"{tmp_path / name} cannot be read: it is not an {name[1:]} {kind}"
    with pytest.raises(ValueError, match=f"^{re.escape(told)}$"):
        load_data(str(tmp_path / name))


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.npz must be an \.npy or \.npz file, there is"):
        load_data(str(tmp_path / "none.npz"))
    np.savez(tmp_path / "keys.npz", pictures=images(3, 2, 2))
    with pytest.raises(ValueError, match=r"images, x, train, x_train, it has \['pictures'\]$"):
        load_data(str(tmp_path / "keys.npz"))
    np.save(tmp_path / "single.npy", images(3, 2, 2))
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    with pytest.raises(ValueError, match=r"single\.npz must be an \.npz archive"):
        load_data(str(tmp_path / "single.npz"))
    np.savez(tmp_path / "archive.npz", images=images(3, 2, 2))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    with pytest.raises(ValueError, match=r"archive\.npy must hold a single array"):
        load_data(str(tmp_path / "archive.npy"))
    np.savez(tmp_path / "whole.npz", images=images(300, 8, 8))
    content = (tmp_path / "whole.npz").read_bytes()
    for name, data in {
        "text.npz": b"no archive",
        "empty.npz": b"",
        "cut.npz": content[: len(content) // 2],
        "flipped.npz": content[:5000] + bytes(100) + content[5100:],
        "text.npy": b"no array",
        "cut.npy": b"\x93NUMPY\x01\x00",
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}.* cannot be read: ") as error:
            load_data(str(tmp_path / name))
        assert "\n" not in str(error.value)
