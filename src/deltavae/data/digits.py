"""scikit-learn's handwritten digits: 1,797 grey images of 8×8 pixels with 17 levels, always there.

The test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998,
https://doi.org/10.24432/C50P49, which scikit-learn ships. Its last fifth after a fixed permutation
(359 images) is the test split here.
"""

import numpy as np

from deltavae.data.dataset import Dataset, Split, hold_out


def load_digits() -> Dataset:
    """Load the digits: 1,438 training and 359 test images of shape (1, 8, 8), 17 levels."""
    import sklearn.datasets  # takes a second: only where the digits are wanted

    source = sklearn.datasets.load_digits()
    images = source.images.astype(np.uint8)[:, None]
    everything = Split(images, source.target.astype(np.int64))
    train, test, note = hold_out(everything, count=len(everything) // 5)
    return Dataset("digits", train, test, levels=17, notes=(note,))
