import sys
import types

import numpy as np
import pytest
from PIL import Image as PillowImage

from deltavae.data import load_data
from deltavae.data.huggingface import from_splits


class Image:
    """Stands for datasets.Image: features are told apart by the name of their type."""


class ClassLabel:
    pass


class Value:
    pass


class FakeSplit:
    """What is used of a datasets.Dataset: features, length and columns."""

    def __init__(self, images: np.ndarray, labels: list[int] | None = None) -> None:
        self.features = {"id": Value(), "img": Image()}
        planes = [x[0] if len(x) == 1 else x.transpose(1, 2, 0) for x in images]
        self.columns: dict[str, list[object]] = {
            "id": list(range(len(images))),
            "img": [PillowImage.fromarray(np.ascontiguousarray(x)) for x in planes],
        }
        if labels is not None:
            self.features["fine"] = ClassLabel()
            self.columns["fine"] = list(labels)

    def __len__(self) -> int:
        return len(self.columns["id"])

    def __getitem__(self, column: str) -> list[object]:
        return self.columns[column]


def images(n: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8)


def test_splits_round_trip():
    train, test = images(4, 3, 5, 6), images(2, 3, 5, 6)
    data = from_splits("x", {"train": FakeSplit(train, [3, 1, 0, 2]), "test": FakeSplit(test)})
    assert np.array_equal(data.train.images, train)
    assert np.array_equal(data.test.images, test)
    assert data.train.labels.tolist() == [3, 1, 0, 2]
    assert data.test.labels is None
    assert data.notes == ()


def test_validation_or_a_cut_stand_for_a_missing_test_split():
    train, valid = images(10, 1, 4, 4), images(3, 1, 4, 4)
    data = from_splits("x", {"train": FakeSplit(train), "validation": FakeSplit(valid)})
    assert np.array_equal(data.test.images, valid)
    data = from_splits("x", {"train": FakeSplit(train)}, size=2, grey=True)
    assert (len(data.train), len(data.test), data.shape) == (9, 1, (1, 2, 2))
    assert "1 of 10 images" in data.notes[-1]


def test_unknown_classes_mean_no_labels():
    test = FakeSplit(images(2, 1, 4, 4), [-1, -1])
    data = from_splits("x", {"train": FakeSplit(images(3, 1, 4, 4), [0, 1, 2]), "test": test})
    assert data.test.labels is None


def test_bad_splits_are_named():
    split = FakeSplit(images(3, 1, 4, 4))
    with pytest.raises(ValueError, match=r"^x must have a split 'train', it has \['test'\]$"):
        from_splits("x", {"test": split})
    del split.features["img"]
    with pytest.raises(ValueError, match=r"^x train must have a column of images, .* \['id'\]$"):
        from_splits("x", {"train": split})
    deep = FakeSplit(images(2, 1, 4, 4))
    deep.columns["img"][1] = PillowImage.fromarray(np.zeros((4, 4), np.uint16))
    with pytest.raises(ValueError, match=r"^x train\[1\]: it must have 8 bits per channel"):
        from_splits("x", {"train": deep})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"^hf:mnist needs .*: pip install 'deltavae\[hf\]'$"):
        load_data("hf:mnist")


def test_load_dataset_is_called_and_its_errors_are_named(monkeypatch):
    fake = types.ModuleType("datasets")
    fake.load_dataset = lambda name: {"train": FakeSplit(images(5, 1, 4, 4))}
    monkeypatch.setitem(sys.modules, "datasets", fake)
    assert load_data("hf:someone/pictures").name == "hf:someone/pictures"

    def fails(name: str) -> None:
        raise FileNotFoundError(f"no\n{name}")

    fake.load_dataset = fails
    with pytest.raises(ValueError, match=r"^hf:nothing cannot be loaded: no nothing$"):
        load_data("hf:nothing")


def test_the_package_itself():
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    source = images(6, 3, 5, 6)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    rows = {
        "image": [PillowImage.fromarray(x.transpose(1, 2, 0).copy()) for x in source],
        "label": [0, 1, 1, 0, 1, 0],
    }
    split = datasets.Dataset.from_dict(rows, features=features)
    data = from_splits("x", datasets.DatasetDict({"train": split, "test": split}))
    assert np.array_equal(data.train.images, source)
    assert data.test.labels.tolist() == rows["label"]
