"""The Sparse DNN Graph Challenge: its networks, its files and its inputs.

`networks` makes the official networks exactly, `tsv` reads and writes the official files, `images` makes inputs from
MNIST, `inference` leads them through a network.
"""

from .images import challenge_blocks, challenge_images
from .inference import VARIANTS, Result, run
from .networks import BIAS, Layer, Network, network
from .tsv import (
    folder,
    read_categories,
    read_image_blocks,
    read_images,
    read_layer,
    write_categories,
    write_images,
    write_layer,
)

__all__ = [
    "BIAS",
    "VARIANTS",
    "Layer",
    "Network",
    "Result",
    "challenge_blocks",
    "challenge_images",
    "folder",
    "network",
    "read_categories",
    "read_image_blocks",
    "read_images",
    "read_layer",
    "run",
    "write_categories",
    "write_images",
    "write_layer",
]
