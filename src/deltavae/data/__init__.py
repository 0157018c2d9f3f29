"""Data sets as uint8 images: digits, Fashion-MNIST, CIFAR-10, ImageNet 32×32, folders, arrays."""

from deltavae.data.dataset import Dataset, Split
from deltavae.data.load import BUILT_IN, load_data

__all__ = ["BUILT_IN", "Dataset", "Split", "load_data"]
