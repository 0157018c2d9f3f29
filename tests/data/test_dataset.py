import numpy as np
import pytest

from deltavae.data import Dataset, Split
from deltavae.data.dataset import hold_out


def images(n: int = 20, levels: int = 256, shape=(1, 3, 4), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, levels, (n, *shape), np.uint8)


def dataset(**changes) -> Dataset:
    labels = np.arange(20, dtype=np.int64) % 3
    arguments = {"train": Split(images(), labels), "test": Split(images(5, seed=1)), **changes}
    return Dataset("toy", **arguments)


def test_shape_and_dims():
    assert dataset().shape == (1, 3, 4)
    assert dataset().dims == 12
    assert len(dataset().train) == 20


def test_fingerprint_is_stable_and_sensitive_to_every_part():
    assert dataset().fingerprint == dataset().fingerprint
    # A golden number: a change of it silently cuts every run off from its provenance.
    assert dataset().fingerprint.startswith("3de80144cdf527cb")
    changed = images()
    changed[19, 0, 2, 3] ^= 1
    relabelled = np.arange(20, dtype=np.int64) % 3
    relabelled[19] = 0
    variants = [
        dataset(),
        dataset(train=Split(changed, dataset().train.labels)),
        dataset(train=Split(images(), relabelled)),
        dataset(train=Split(images())),
        dataset(test=Split(images(5, seed=2))),
        dataset(train=Split(images() // 2), test=Split(images(5) // 2)),
        dataset(train=Split(images() // 2), test=Split(images(5) // 2), levels=128),
        Dataset("toy", Split(images(shape=(1, 4, 3))), Split(images(5, shape=(1, 4, 3), seed=1))),
    ]
    assert len({variant.fingerprint for variant in variants}) == len(variants)


def test_fingerprint_does_not_depend_on_the_name():
    renamed = Dataset("other", dataset().train, dataset().test)
    assert renamed.fingerprint == dataset().fingerprint


@pytest.mark.parametrize("levels", [2, 4, 17, 255])
def test_reduced_levels_are_the_floor_of_the_scaled_value(levels):
    everything = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    source = Dataset("toy", Split(everything), Split(everything))
    reduced = source.reduce_levels(levels)
    assert reduced.levels == levels
    assert reduced.train.images.ravel().tolist() == [x * levels // 256 for x in range(256)]
    assert set(reduced.train.images.ravel().tolist()) == set(range(levels))
    assert np.array_equal(reduced.test.images, reduced.train.images)


@pytest.mark.parametrize(("source", "threshold"), [(256, 128), (17, 9), (16, 8), (3, 2)])
def test_binarisation_states_its_threshold(source, threshold):
    values = np.arange(source, dtype=np.uint8).reshape(1, 1, 1, -1)
    binary = Dataset("toy", Split(values), Split(values), levels=source).reduce_levels(2)
    assert np.array_equal(binary.train.images, (values >= threshold).astype(np.uint8))
    assert binary.notes == (f"binarised: 1 where x ≥ {threshold}, of {source} levels",)


def test_changes_that_change_nothing_return_the_data_set_itself():
    square = Dataset("toy", Split(images(shape=(1, 4, 4))), Split(images(shape=(1, 4, 4))))
    assert square.reduce_levels(256) is square
    assert square.resize(4) is square
    assert square.to_grey() is square


def test_resize_and_grey_keep_labels_and_add_notes():
    colour = dataset(
        train=Split(images(shape=(3, 4, 4)), dataset().train.labels),
        test=Split(images(5, shape=(3, 4, 4))),
        notes=("first",),
    )
    changed = colour.to_grey().resize(2)
    assert changed.shape == (1, 2, 2)
    assert np.array_equal(changed.train.labels, colour.train.labels)
    assert changed.notes == (
        "first",
        "converted to grey (ITU-R 601 luma)",
        "resized to 2×2 (box filter, aspect ratio not kept)",
    )
    assert changed.fingerprint != colour.fingerprint


@pytest.mark.parametrize("shuffle", [True, False])
def test_hold_out_partitions_deterministically(shuffle):
    everything = Split(images(103), np.arange(103, dtype=np.int64))
    train, test, note = hold_out(everything, shuffle=shuffle)
    again = hold_out(everything, shuffle=shuffle)
    assert np.array_equal(test.images, again[1].images)
    assert len(test) == 10
    assert sorted([*train.labels, *test.labels]) == list(range(103))
    for split in (train, test):
        assert np.array_equal(split.images, everything.images[split.labels])
        assert split.images.flags.writeable
    assert "10 of 103 images" in note
    if shuffle:
        # Golden: the permutation must not change with the version of NumPy.
        assert test.labels.tolist() == [67, 78, 73, 95, 91, 97, 27, 94, 77, 26]
    else:
        assert test.labels.tolist() == list(range(93, 103))


@pytest.mark.parametrize(("n", "held_out"), [(2, 1), (9, 1), (20, 2), (100_050, 10_000)])
def test_hold_out_takes_a_tenth_within_bounds(n, held_out):
    train, test, _ = hold_out(Split(np.zeros((n, 1, 1, 1), np.uint8)))
    assert (len(train), len(test)) == (n - held_out, held_out)
    assert test.labels is None


def test_bad_splits_are_named():
    with pytest.raises(ValueError, match=r"^at least 2 images are needed .*, got 1$"):
        hold_out(Split(images(1)))
    with pytest.raises(ValueError, match=r"^images must be uint8 .* got float64 of shape"):
        Split(images().astype(float))
    with pytest.raises(
        ValueError, match=r"^images must be uint8 .* got uint8 of shape \(20, 3, 4\)"
    ):
        Split(images()[:, 0])
    with pytest.raises(ValueError, match=r"^images must be .* \(N, C, H, W\) in C order, "):
        Split(images().transpose(0, 1, 3, 2))
    with pytest.raises(ValueError, match=r"^images must not be empty"):
        Split(images(0))
    with pytest.raises(ValueError, match=r"^labels must be int64 of shape \(20,\), got int64 of"):
        Split(images(), np.zeros(19, np.int64))
    with pytest.raises(ValueError, match=r"^labels must be int64 .* got int32 of shape \(20,\)"):
        Split(images(), np.zeros(20, np.int32))


def test_bad_data_sets_are_named():
    with pytest.raises(ValueError, match=r"^toy: .* one shape .* \(1, 3, 4\) and \(1, 4, 4\)$"):
        dataset(test=Split(images(shape=(1, 4, 4))))
    with pytest.raises(ValueError, match=r"^toy: values must be in 0\.\.15, got 255$"):
        dataset(test=Split(np.full((2, 1, 3, 4), 255, np.uint8)), levels=16)
    with pytest.raises(ValueError, match=r"^levels must be in 2\.\.256, got 1$"):
        dataset(levels=1)
    with pytest.raises(ValueError, match=r"^levels must be in 2\.\.256 for toy, got 257$"):
        dataset().reduce_levels(257)
    with pytest.raises(ValueError, match=r"^size must be at least 1, got 0$"):
        dataset().resize(0)


def test_both_splits_together_come_back_in_the_order_of_the_source():
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    source = Split(images, np.arange(20, dtype=np.int64))
    train, test, _ = hold_out(source)
    assert not np.array_equal(train.images.ravel(), np.arange(18))
    together = Dataset("x", train, test).in_source_order
    np.testing.assert_array_equal(together.images, images)
    np.testing.assert_array_equal(together.labels, source.labels)


def test_held_out_images_are_the_last_ones_and_the_fingerprint_stays():
    whole = dataset()
    held = whole.hold_out_last(6)
    assert (len(held.train), len(held.val), len(held.test)) == (14, 6, 5)
    assert np.array_equal(held.train.images, whole.train.images[:14])
    assert np.array_equal(held.val.images, whole.train.images[14:])
    assert np.array_equal(held.val.labels, whole.train.labels[14:])
    assert np.shares_memory(held.val.images, whole.train.images)  # nothing is copied
    assert held.fingerprint == whole.fingerprint
    assert held.notes == ("the last 6 of 20 training images are held out of training",)
    assert whole.hold_out_last(0) is whole
    assert whole.val is None
    reduced = held.reduce_levels(4)
    assert np.array_equal(reduced.val.images, held.val.images // 64)
    for count in (-1, 20):
        with pytest.raises(
            ValueError, match=rf"^holdout must be in 0\.\.19 for toy, got {count}$"
        ):
            whole.hold_out_last(count)


def test_held_out_images_come_back_in_the_order_of_the_source():
    images = np.arange(20, dtype=np.uint8).reshape(20, 1, 1, 1)
    train, test, _ = hold_out(Split(images, np.arange(20, dtype=np.int64)))
    together = Dataset("x", train, test).hold_out_last(7).in_source_order
    np.testing.assert_array_equal(together.images, images)
    np.testing.assert_array_equal(together.labels, np.arange(20))
