from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deltavae.data import load_data
from deltavae.data.folder import load_folder


def write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(path)


def pictures(n: int, channels: int = 3, h: int = 5, w: int = 4) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, channels, h, w), np.uint8)


def as_set(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_flat_folder_round_trips_and_holds_out_a_tenth(tmp_path):
    source = pictures(21)
    for i, image in enumerate(source):
        write(tmp_path / f"{i:02}.png", image)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".hidden.png").write_bytes(b"nor this")
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "thumbnail.png").write_bytes(b"nor this")
    data = load_data(str(tmp_path))
    assert data.shape == (3, 5, 4)
    assert (len(data.train), len(data.test)) == (19, 2)
    assert data.train.labels is None
    assert as_set(data.train.images) | as_set(data.test.images) == as_set(source)
    assert data.notes == (
        "no test split found: the last 2 of 21 images (after a fixed permutation) are held out",
    )
    assert data.train.images.flags.writeable
    assert data.fingerprint == load_data(str(tmp_path)).fingerprint


def test_split_folders_round_trip_in_the_order_of_paths(tmp_path):
    source = pictures(7, channels=1)
    names = ["train/b/2.png", "train/a/1.png", "train/a/10.png", "test/b/x.png", "test/a/y.png"]
    for name, image in zip(names, source, strict=False):
        write(tmp_path / name, image)
    data = load_data(str(tmp_path))
    assert data.shape == (1, 5, 4)
    assert np.array_equal(data.train.images, source[[1, 2, 0]])
    assert np.array_equal(data.test.images, source[[4, 3]])
    assert data.train.labels.tolist() == [0, 0, 1]
    assert data.test.labels.tolist() == [0, 1]
    assert data.notes == ()


def test_validation_stands_for_a_missing_test_split(tmp_path):
    for i, image in enumerate(pictures(4)):
        write(tmp_path / ("train" if i else "val") / f"{i}.png", image)
    assert (len(load_data(str(tmp_path)).train), len(load_data(str(tmp_path)).test)) == (3, 1)
    write(tmp_path / "test" / "a.png", pictures(1)[0])
    data = load_data(str(tmp_path))
    assert np.array_equal(data.test.images, pictures(1))
    assert data.notes == ("only train and test are used: 4 of 5 images",)


def test_class_folders_are_labels_only_where_every_image_lies_in_one(tmp_path):
    source = pictures(12)
    for i, image in enumerate(source):
        write(tmp_path / ("dog" if i % 3 else "cat") / "deeper" / f"{i}.png", image)
    data = load_data(str(tmp_path))
    expected = {image.tobytes(): int(i % 3 > 0) for i, image in enumerate(source)}
    for split in (data.train, data.test):
        found = [expected[image.tobytes()] for image in split.images]
        assert split.labels.tolist() == found
    write(tmp_path / "stray.png", pictures(1)[0])
    assert load_data(str(tmp_path)).train.labels is None


def test_a_single_subfolder_is_no_class(tmp_path):
    for i, image in enumerate(pictures(3)):
        write(tmp_path / "images" / f"{i}.png", image)
    assert load_data(str(tmp_path)).train.labels is None


def test_grey_by_content_gives_one_channel_and_one_colour_gives_three(tmp_path):
    for i, image in enumerate(pictures(3, channels=1)):
        write(tmp_path / f"{i}.png", np.repeat(image, 3, axis=0))
    assert load_data(str(tmp_path)).shape == (1, 5, 4)
    write(tmp_path / "colour.png", pictures(1)[0])
    assert load_data(str(tmp_path)).shape == (3, 5, 4)
    assert load_data(str(tmp_path), grey=True).shape == (1, 5, 4)


def test_mixed_sizes_need_size(tmp_path):
    write(tmp_path / "a.png", pictures(1, h=8, w=8)[0])
    write(tmp_path / "b.png", pictures(1, h=4, w=6)[0])
    with pytest.raises(ValueError, match=r"need size .*: .*b\.png is 6×4, .*a\.png is 8×8$"):
        load_data(str(tmp_path))
    data = load_data(str(tmp_path), size=4)
    assert data.shape == (3, 4, 4)
    assert "resized to 4×4 (box filter, aspect ratio not kept)" in data.notes
    assert sum("resized" in note for note in data.notes) == 1


def test_bad_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^data folder '.*/missing' does not exist; permitted: "):
        load_data(str(tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"missing must be a folder of images, there is none$"):
        load_folder(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"has no images \(bmp, .*, png, .*\)$"):
        load_data(str(tmp_path))
    write(tmp_path / "one.png", pictures(1)[0])
    with pytest.raises(ValueError, match="at least 2 images are needed"):
        load_data(str(tmp_path))
    (tmp_path / "two.png").write_bytes((tmp_path / "one.png").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"two\.png cannot be read as an image: "):
        load_data(str(tmp_path))
