"""The layout of a data set is that of the images that would be loaded."""

import numpy as np
import pytest

from deltavae.data import BUILT_IN, data_layout, load_data
from deltavae.data.layout import PUBLISHED


def test_every_built_in_data_set_has_its_published_layout():
    assert tuple(PUBLISHED) == BUILT_IN
    assert {name: data_layout(name).shape for name in BUILT_IN} == {
        "digits": (1, 8, 8),
        "fashion_mnist": (1, 28, 28),
        "cifar10": (3, 32, 32),
        "imagenet32": (3, 32, 32),
    }
    assert data_layout("imagenet32").training_images == 1_281_167


CHANGES = [
    {},
    {"size": 4},
    {"grey": True},
    {"levels": 2},
    {"holdout": 100},
    {"size": 5, "levels": 3, "holdout": 1},
]


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("source", ["digits", "array"])
def test_layout_is_that_of_the_loaded_images(tmp_path, source, changes):
    if source == "array":
        source = str(tmp_path / "x.npy")
        np.save(source, np.arange(200 * 6 * 6 * 3, dtype=np.int64).reshape(200, 6, 6, 3) % 256)
    data = load_data(source, **changes)
    layout = data_layout(source, **changes)
    assert (layout.shape, layout.levels) == (data.shape, data.levels)
    assert layout.training_images == len(data.train)


@pytest.mark.parametrize(
    "changes", [{"size": 0}, {"levels": 1}, {"levels": 18}, {"holdout": -1}, {"holdout": 1438}]
)
def test_bad_changes_are_told_as_by_loading(changes):
    with pytest.raises(ValueError) as loading:
        load_data("digits", **changes)
    with pytest.raises(ValueError) as asking:
        data_layout("digits", **changes)
    (name,) = changes
    for error in (loading, asking):
        assert f"{name} must be" in str(error.value)
