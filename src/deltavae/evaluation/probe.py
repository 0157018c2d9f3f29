"""Probes: what a simple classifier reads from a representation u, standardised.

Both are fitted on examples of the training split; reported is the share of other examples that
they classify rightly. The linear probe is a multinomial logistic regression,

    min_{W,b}  ½ ‖W‖² + C Σ_i −log softmax(W u_i + b)_{y_i};

the k nearest neighbours vote, Euclidean distance, each with the same weight: what is near in z
should be alike, also where no hyperplane tells the classes apart.

A probe on μ is high even for a collapsed VAE: it reads μ without the posterior's noise, and
standardising makes a mean that moves by a thousandth of σ as large as any other. The probe on
draws z ~ q(z|x) sees what the decoder sees, and is at chance where z says nothing about x.

C = 0.1 for all: with scikit-learn's default, 1, the probe on 10,000 raw images overfits
(Fashion-MNIST: accuracy 0.80 in the place of 0.83), which would flatter the latents.
"""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped

PROBE_EXAMPLES = 10_000  # training examples that are enough, the first ones
NEIGHBOURS = 10  # that vote
_INVERSE_REGULARISATION = 0.1  # C
_TOLERANCE = 1e-3  # largest gradient entry; less takes longer and changes no figure
_MAX_ITERATIONS = 1000


def linear_probe(
    train: Shaped[np.ndarray, "m ..."],
    train_labels: Int64[np.ndarray, " m"],
    test: Shaped[np.ndarray, "k ..."],
    test_labels: Int64[np.ndarray, " k"],
) -> Float64[np.ndarray, " k"]:
    """Fit the linear probe and apply it; fewer than 2 classes to fit it to are a ValueError.

    Args:
        train: Representations to fit it to, flattened here.
        train_labels: Their classes, at least 2 of them.
        test: Representations to classify, of the same shape per example.
        test_labels: Their classes.

    Returns:
        1 where the classifier is right and 0 where it is wrong, for every test example: the mean
        is the accuracy, and the standard error of that mean the binomial one.
    """
    # Here and not above: the import takes a second.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    _check(train_labels)
    classifier = LogisticRegression(
        C=_INVERSE_REGULARISATION, tol=_TOLERANCE, max_iter=_MAX_ITERATIONS, solver="lbfgs"
    )
    with warnings.catch_warnings():
        # Out of iterations, the classifier is a regularised one: of use as a probe all the same.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return _right(classifier, train, train_labels, test, test_labels)


def nearest_neighbours(
    train: Shaped[np.ndarray, "m ..."],
    train_labels: Int64[np.ndarray, " m"],
    test: Shaped[np.ndarray, "k ..."],
    test_labels: Int64[np.ndarray, " k"],
    neighbours: int = NEIGHBOURS,
) -> Float64[np.ndarray, " k"]:
    """Classify by the vote of the nearest training examples.

    Args:
        train: Representations among which neighbours are looked for, flattened here.
        train_labels: Their classes, at least 2 of them.
        test: Representations to classify, of the same shape per example.
        test_labels: Their classes.
        neighbours: Neighbours that vote, in 1..m.

    Returns:
        1 where the vote is right and 0 where it is wrong, for every test example.

    Raises:
        ValueError: If neighbours is out of its range.
    """
    from sklearn.neighbors import KNeighborsClassifier

    _check(train_labels)
    if not 1 <= neighbours <= len(train):
        raise ValueError(f"neighbours must be in 1..{len(train)}, got {neighbours}")
    classifier = KNeighborsClassifier(neighbours, algorithm="brute")  # no tree pays at n·d > 20
    return _right(classifier, train, train_labels, test, test_labels)


def _check(train_labels: Int64[np.ndarray, " m"]) -> None:
    if len(np.unique(train_labels)) < 2:
        raise ValueError(f"train_labels must have at least 2 classes, got {set(train_labels)}")


def _right(
    classifier: Any,
    train: Shaped[np.ndarray, "m ..."],
    train_labels: Int64[np.ndarray, " m"],
    test: Shaped[np.ndarray, "k ..."],
    test_labels: Int64[np.ndarray, " k"],
) -> Float64[np.ndarray, " k"]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    standardised = make_pipeline(StandardScaler(), classifier)
    standardised.fit(_features(train), train_labels)
    right: np.ndarray = standardised.predict(_features(test)) == test_labels
    return right.astype(np.float64)


def _features(x: Shaped[np.ndarray, "m ..."]) -> np.ndarray:
    return x.reshape(len(x), -1).astype(np.float32)
