"""Data sets: MNIST, fetched once and checked, and embedded digits that need no network.

Each is a function that returns NumPy arrays. Mini-batches are the business of `nnsparse.data`.
"""

from ._home import DataUnavailable, data_home
from .digits import digits
from .mnist import mnist

__all__ = ["DataUnavailable", "data_home", "digits", "mnist"]
