"""Random subsets of a model's coordinates, drawn again from a seed instead of being stored (as the 2024 paper does)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from amnesiac.seeding import numpy_generator


def subset(shapes: Sequence[tuple[int, ...]], fraction: float, *seed: object) -> npt.NDArray[np.int64]:
    """Sorted flat coordinates: `int(numel * fraction)` of each parameter tensor, all of them for fraction 1."""
    sizes = [int(np.prod(shape, dtype=np.int64)) for shape in shapes]
    starts = np.cumsum([0, *sizes[:-1]])
    generator = numpy_generator(0, "coordinates", *seed)
    parts = [start + _draw(generator, size, fraction) for start, size in zip(starts, sizes, strict=True)]
    return np.concatenate(parts)


def _draw(generator: np.random.Generator, size: int, fraction: float) -> npt.NDArray[np.int64]:
    if fraction == 1.0:
        return np.arange(size)
    return np.sort(generator.choice(size, int(size * fraction), replace=False, shuffle=False))
