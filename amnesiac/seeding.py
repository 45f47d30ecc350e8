"""Every random draw derives from one seed and a name, so that no draw depends on another's order.

torch is imported when it is first needed: commands that only file and list requests don't wait 2.5 s for it.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, *names: object) -> int:
    """A 63-bit seed for the draw called `names`, e.g. derive_seed(0, "order", epoch)."""
    text = "|".join(map(str, (seed, *names))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def numpy_generator(seed: int, *names: object) -> np.random.Generator:
    """A NumPy generator of its own for one purpose."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, *names)))


def torch_generator(seed: int, *names: object) -> "torch.Generator":
    """A torch (CPU) generator of its own for one purpose."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, *names))
