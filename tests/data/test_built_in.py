import gzip
import hashlib
import io
import os
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from deltavae.data import load_data
from deltavae.data.cifar10 import load_cifar10
from deltavae.data.fashion_mnist import DEBIAN, SHA256, load_fashion_mnist, read_idx


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape[0]).integers(0, 256, shape, np.uint8)


# --- digits -----------------------------------------------------------------------------------


def test_digits_are_scikit_learns():
    data = load_data("digits")
    source = sklearn.datasets.load_digits()
    assert data.shape == (1, 8, 8)
    assert data.levels == 17
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert "359 of 1,797" in data.notes[0]
    expected = sorted(
        (image.astype(np.uint8).tobytes(), int(label))
        for image, label in zip(source.images, source.target, strict=True)
    )
    found = sorted(
        (image.tobytes(), int(label))
        for split in (data.train, data.test)
        for image, label in zip(split.images, split.labels, strict=True)
    )
    assert found == expected
    counts = np.bincount(data.test.labels, minlength=10)
    assert counts.min() >= 25  # a fifth of about 180 per class is 36
    assert data.train.images.max() == 16


def test_digits_are_always_the_same():
    # Golden: results on the digits compare across versions only while this holds.
    assert load_data("digits").fingerprint == (
        "847218a327421e71c7990b2220a779259c909e0796023fc535e9a4dcd4e47905"
    )


# --- Fashion-MNIST ----------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    axes = array.ndim
    return struct.pack(f">HBB{axes}I", 0, 8, axes, *array.shape) + array.tobytes()


def write_fashion(folder: Path, *, zipped: bool) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "train-images-idx3-ubyte": pixels(7, 28, 28),
        "train-labels-idx1-ubyte": np.arange(7, dtype=np.uint8),
        "t10k-images-idx3-ubyte": pixels(3, 28, 28),
        "t10k-labels-idx1-ubyte": np.array([9, 0, 4], np.uint8),
    }
    for name, array in arrays.items():
        content = idx(array)
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("subfolder", [".", "fashion_mnist"])
def test_fashion_mnist_round_trips_from_the_users_folder(tmp_path, zipped, subfolder):
    arrays = write_fashion(tmp_path / subfolder, zipped=zipped)
    data = load_data("fashion_mnist", data_dir=tmp_path)
    assert np.array_equal(data.train.images[:, 0], arrays["train-images-idx3-ubyte"])
    assert np.array_equal(data.train.labels, arrays["train-labels-idx1-ubyte"])
    assert np.array_equal(data.test.images[:, 0], arrays["t10k-images-idx3-ubyte"])
    assert np.array_equal(data.test.labels, arrays["t10k-labels-idx1-ubyte"])
    assert data.notes == ()
    assert data.train.images.flags.writeable


def test_fashion_mnist_search_order(tmp_path, monkeypatch):
    for name in ("chosen", "debian", "variable"):
        write_fashion(tmp_path / name, zipped=False)
        marked = np.full((3, 28, 28), len(name), np.uint8)
        (tmp_path / name / "t10k-images-idx3-ubyte").write_bytes(idx(marked))
    monkeypatch.setenv("DELTAVAE_DATA", str(tmp_path / "variable"))

    def found(data_dir: Path | None, debian: str) -> int:
        return load_fashion_mnist(data_dir, debian=tmp_path / debian).test.images.max()

    assert found(tmp_path / "chosen", "debian") == len("chosen")
    assert found(None, "debian") == len("debian")
    assert found(None, "nowhere") == len("variable")


def test_fashion_mnist_of_debian():
    if not DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    data = load_fashion_mnist(debian=DEBIAN)
    assert (len(data.train), len(data.test), data.shape) == (60_000, 10_000, (1, 28, 28))
    assert np.bincount(data.train.labels).tolist() == [6000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.train.images.mean() / 255 == pytest.approx(0.2860, abs=1e-4)  # as published


def test_fashion_mnist_downloads_only_what_is_published(tmp_path, monkeypatch):
    arrays = write_fashion(tmp_path / "server", zipped=True)
    server, nowhere = (tmp_path / "server").as_uri(), tmp_path / "nowhere"
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz differs from the "):
        load_fashion_mnist(tmp_path / "own", debian=nowhere, url=server)
    assert not list((tmp_path / "own").rglob("*.gz*"))
    for name in SHA256:
        content = (tmp_path / "server" / f"{name}.gz").read_bytes()
        monkeypatch.setitem(SHA256, name, hashlib.sha256(content).hexdigest())
    data = load_fashion_mnist(tmp_path / "own", debian=nowhere, url=server)
    assert np.array_equal(data.train.images[:, 0], arrays["train-images-idx3-ubyte"])
    assert len(list((tmp_path / "own" / "fashion_mnist").iterdir())) == 4
    again = load_fashion_mnist(tmp_path / "own", debian=nowhere, url="file:///nowhere")
    assert again.fingerprint == data.fingerprint


def test_fashion_mnist_says_what_to_do_when_the_download_fails(tmp_path):
    with pytest.raises(ValueError, match=r"download of .* failed .* dataset-fashion-mnist$"):
        load_fashion_mnist(tmp_path, debian=tmp_path, url=(tmp_path / "nowhere").as_uri())


def test_bad_idx_files_are_named(tmp_path):
    write_fashion(tmp_path, zipped=False)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"must have t10k-labels-idx1-ubyte\.gz or t10k"):
        load_data("fashion_mnist", data_dir=tmp_path)
    whole = idx(pixels(2, 3, 3))
    for content, message in [
        (b"", "must be an idx file of unsigned bytes with 3 axes"),
        (idx(pixels(4)), "must be an idx file of unsigned bytes with 3 axes"),
        (whole[:-1], "must have 18 values, got 17"),
        (whole + b"x", "must have 18 values, got 19"),
        (gzip.compress(whole)[:-12], "cannot be read: "),
    ]:
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_idx(tmp_path / "file", axes=3)


# --- CIFAR-10 ---------------------------------------------------------------------------------


def records(n: int) -> tuple[np.ndarray, np.ndarray, bytes]:
    images, labels = pixels(n, 3, 32, 32), (np.arange(n) % 10).astype(np.uint8)
    return images, labels, np.concatenate([labels[:, None], images.reshape(n, -1)], 1).tobytes()


def test_cifar10_round_trips_with_its_test_split(tmp_path, monkeypatch):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    batches = [records(n) for n in (3, 4, 5, 6, 7)]
    for i, (_, _, content) in enumerate(batches, 1):
        (folder / f"data_batch_{i}.bin").write_bytes(content)
    images, labels, content = records(2)
    (folder / "test_batch.bin").write_bytes(content)
    data = load_data("cifar10", data_dir=tmp_path)
    assert np.array_equal(data.train.images, np.concatenate([b[0] for b in batches]))
    assert np.array_equal(data.train.labels, np.concatenate([b[1] for b in batches]))
    assert np.array_equal(data.test.images, images)
    assert np.array_equal(data.test.labels, labels)
    assert data.notes == ()
    assert data.train.images.flags.writeable
    assert load_data("cifar10", data_dir=folder).fingerprint == data.fingerprint
    monkeypatch.setenv("DELTAVAE_DATA", str(tmp_path))
    assert load_data("cifar10").fingerprint == data.fingerprint


def test_cifar10_without_its_test_split_holds_out_the_last_images(tmp_path):
    images, _, content = records(40)
    (tmp_path / "data_batch_1.bin").write_bytes(content)
    data = load_data("cifar10", data_dir=tmp_path)
    assert np.array_equal(data.train.images, images[:36])
    assert np.array_equal(data.test.images, images[36:])
    assert data.notes == (
        "1 of 5 training files found",
        "no test split found: the last 4 of 40 images (in file order) are held out",
    )


def test_cifar10_itself():
    root = os.environ.get("DELTAVAE_DATA")
    if root is None or not list(Path(root).glob("**/data_batch_5.bin")):
        pytest.skip("$DELTAVAE_DATA has no CIFAR-10 in the binary layout")
    data = load_data("cifar10")
    assert len(data.train) + len(data.test) in (50_000, 60_000)
    assert data.train.images.mean((0, 2, 3)) / 255 == pytest.approx(
        [0.491, 0.482, 0.447], abs=2e-3
    )
    assert data.train.labels[:5].tolist() == [6, 9, 9, 4, 1]


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_cifar10_downloads_only_what_is_published(tmp_path):
    images, _, content = records(5)
    packed = archive(
        {
            "cifar-10-batches-bin/data_batch_1.bin": content,
            "cifar-10-batches-bin/test_batch.bin": content,
            "../../escape.bin": content,
            "cifar-10-batches-bin/readme.html": b"text",
        }
    )
    (tmp_path / "a.tar.gz").write_bytes(packed)
    url, own = (tmp_path / "a.tar.gz").as_uri(), tmp_path / "below" / "own"
    with pytest.raises(ValueError, match="differs from the published file: put CIFAR-10's"):
        load_cifar10(own, url=url)
    assert not own.exists()
    data = load_cifar10(own, url=url, sha256=hashlib.sha256(packed).hexdigest())
    assert np.array_equal(data.test.images, images)
    assert {path.parent for path in tmp_path.rglob("*.bin")} == {own / "cifar-10-batches-bin"}
    with pytest.raises(ValueError, match=r"download of .* failed .* or set \$DELTAVAE_DATA to"):
        load_cifar10(tmp_path / "other", url=(tmp_path / "nowhere").as_uri())


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    _, _, content = records(2)
    packed = archive({"data_batch_1.bin": content})
    (tmp_path / "a.tar.gz").write_bytes(packed)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ValueError, match=r"data_batch_1\.bin cannot be written .*: set data_dir"):
        load_cifar10(
            tmp_path / "file",
            url=(tmp_path / "a.tar.gz").as_uri(),
            sha256=hashlib.sha256(packed).hexdigest(),
        )


def test_bad_cifar10_files_are_named(tmp_path):
    _, _, content = records(4)
    (tmp_path / "data_batch_1.bin").write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"data_batch_1\.bin must be .* 3073 bytes, got 12291"):
        load_data("cifar10", data_dir=tmp_path)
    (tmp_path / "data_batch_1.bin").write_bytes(b"\x0a" + content[1:])
    with pytest.raises(ValueError, match=r"data_batch_1\.bin must have labels in 0\.\.9, got 10$"):
        load_data("cifar10", data_dir=tmp_path)


# --- ImageNet 32×32 ---------------------------------------------------------------------------


def test_imagenet32_round_trips(tmp_path):
    folder = tmp_path / "imagenet32"
    folder.mkdir()
    parts = {"train_data_batch_1": 12, "train_data_batch_2": 10, "val_data": 3}
    source = {name: pixels(n, 3, 32, 32) for name, n in parts.items()}
    for name, images in source.items():
        np.savez(
            folder / f"{name}.npz",
            data=images.reshape(len(images), -1),
            labels=np.arange(1, len(images) + 1),
            mean=np.zeros(3072),
        )
    data = load_data("imagenet32", data_dir=tmp_path)
    train = [source["train_data_batch_1"], source["train_data_batch_2"]]
    assert np.array_equal(data.train.images, np.concatenate(train))
    assert data.train.labels.tolist() == [*range(12), *range(10)]
    assert np.array_equal(data.test.images, source["val_data"])
    (folder / "val_data.npz").unlink()
    data = load_data("imagenet32", data_dir=tmp_path)
    assert (len(data.train), len(data.test)) == (20, 2)
    assert "2 of 22 images" in data.notes[0]


def test_bad_imagenet32_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^imagenet32 is not in .*: put train_data_batch"):
        load_data("imagenet32", data_dir=tmp_path)
    path = tmp_path / "train_data_batch_1.npz"
    good = {"data": pixels(2, 3072), "labels": np.array([1, 1000])}
    for change, message in [
        ({"labels": np.array([0, 1])}, "labels must be integers from 1"),
        (
            {"data": pixels(2, 3071)},
            r"data must be uint8 of shape \(2, 3072\), got uint8 of",
        ),
        ({"data": np.zeros((2, 3072))}, r"data must be uint8 of shape \(2, 3072\), got float64"),
    ]:
        np.savez(path, **{**good, **change})
        with pytest.raises(ValueError, match=rf"train_data_batch_1\.npz: {message}"):
            load_data("imagenet32", data_dir=tmp_path)
    np.savez(path, data=good["data"])
    with pytest.raises(ValueError, match=r"must have the array 'labels', it has \['data'\]$"):
        load_data("imagenet32", data_dir=tmp_path)
