"""Data sets as uint8 images: digits, Fashion-MNIST, CIFAR-10, ImageNet 32×32, folders, arrays."""

from deltavae.data.dataset import Dataset, Split
from deltavae.data.layout import Layout, data_layout
from deltavae.data.load import BUILT_IN, load_data

__all__ = ["BUILT_IN", "Dataset", "Layout", "Split", "data_layout", "load_data"]
