"""Data sets: MNIST and IMDb, fetched once and checked, and two embedded ones without a network.

Each is a function that returns arrays. Mini-batches are the business of `nnsparse.data`.
"""

from ._home import DataUnavailable, data_home
from ._reviews import reviews
from .digits import digits
from .imdb import imdb
from .mnist import mnist

__all__ = ["DataUnavailable", "data_home", "digits", "imdb", "mnist", "reviews"]
