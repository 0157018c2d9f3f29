import numpy as np
import pytest

from deltavae.evaluation import linear_probe, nearest_neighbours


def clusters(rng, count, spread):
    labels = rng.integers(0, 3, count)
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
    return (centres[labels] + spread * rng.standard_normal((count, 2)))[:, None], labels


def test_separable_classes_are_all_found():
    rng = np.random.default_rng(0)
    train, test = clusters(rng, 300, 0.3), clusters(rng, 200, 0.3)
    right = linear_probe(*train, *test)
    assert right.shape == (200,)
    assert right.mean() == 1.0


def test_overlapping_classes_reach_the_optimum_of_bayes():
    # Two classes N(±1, 1): the best accuracy is Φ(1) = 0.841.
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 24_000)
    x = (2.0 * labels - 1 + rng.standard_normal(24_000))[:, None]
    right = linear_probe(x[:4000], labels[:4000], x[4000:], labels[4000:])
    assert set(right) == {0.0, 1.0}
    assert right.mean() == pytest.approx(0.8413, abs=4 * np.sqrt(0.841 * 0.159 / 20_000))


def test_labels_independent_of_x_are_met_by_chance():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((6000, 5)), rng.integers(0, 10, 6000)
    right = linear_probe(x[:2000], labels[:2000], x[2000:], labels[2000:])
    assert right.mean() == pytest.approx(0.1, abs=4 * np.sqrt(0.1 * 0.9 / 4000))


def test_the_units_of_a_feature_do_not_matter():
    rng = np.random.default_rng(0)
    (x, labels), (u, truth) = clusters(rng, 300, 2.0), clusters(rng, 200, 2.0)
    scale = np.array([1e-3, 1e3])
    right = linear_probe(x, labels, u, truth)
    moved = linear_probe(scale * x, labels, scale * u, truth)
    assert (right != moved).mean() <= 0.01
    assert 0.5 < right.mean() < 1.0


def test_pixels_are_features_and_constant_ones_do_no_harm():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    images = np.zeros((200, 1, 4, 4), np.uint8)
    images[:, 0, 2, 1] = 200 * labels + rng.integers(0, 50, 200)
    assert linear_probe(images[:100], labels[:100], images[100:], labels[100:]).mean() == 1.0


def test_one_class_is_no_problem_to_solve():
    x, labels = np.zeros((4, 2)), np.zeros(4, np.int64)
    with pytest.raises(ValueError, match="train_labels must have at least 2 classes"):
        linear_probe(x, labels, x, labels)


# Nearest neighbours.


def test_neighbours_vote_as_counted_by_hand():
    rng = np.random.default_rng(0)
    (x, labels), (u, truth) = clusters(rng, 300, 2.0), clusters(rng, 100, 2.0)
    mean, spread = x.mean(0), x.std(0)
    distance = np.linalg.norm(((u - mean) / spread)[:, None] - (x - mean) / spread, axis=(2, 3))
    votes = labels[np.argsort(distance, axis=1)[:, :7]]
    counts = np.stack([(votes == c).sum(1) for c in range(3)], axis=1)
    right = nearest_neighbours(x, labels, u, truth, 7)
    clear = (counts == counts.max(1, keepdims=True)).sum(1) == 1  # no tie to break
    assert clear.mean() > 0.8
    np.testing.assert_array_equal(right[clear], (counts.argmax(1) == truth)[clear])


def test_neighbours_find_what_no_hyperplane_does():
    rng = np.random.default_rng(0)
    radius, labels = np.array([1.0, 3.0]), rng.integers(0, 2, 900)
    angle = rng.uniform(0, 2 * np.pi, 900)
    x = (radius[labels] + 0.1 * rng.standard_normal(900))[:, None] * np.stack(
        [np.cos(angle), np.sin(angle)], axis=1
    )
    split = (x[:600], labels[:600], x[600:], labels[600:])
    assert nearest_neighbours(*split).mean() == 1.0
    assert linear_probe(*split).mean() < 0.7


def test_neighbours_out_of_range():
    x, labels = np.zeros((4, 2)), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match=r"neighbours must be in 1\.\.4, got 5"):
        nearest_neighbours(x, labels, x, labels, 5)
    with pytest.raises(ValueError, match="at least 2 classes"):
        nearest_neighbours(x, 0 * labels, x, labels, 1)
