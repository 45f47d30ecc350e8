"""Image files (PNG, WebP, JPEG, ...) to arrays: 8-bit grey or RGB, all of one shape."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from amnesiac.data.samples import Where
from amnesiac.errors import DataError
from amnesiac.progress import Progress

DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
REPORT_EVERY = 500


def decode_image(encoded: Any, where: str) -> npt.NDArray[np.uint8]:
    """Pixels `[c, h, w]`: one channel for grey, three for anything in colour (palettes resolved, alpha dropped).

    `encoded` is a buffer with the file's bytes. Raises DataError naming `where` for a corrupt image and for one of
    more than 8 bits a channel, which would lose precision.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mode = image.mode
            pixels = np.asarray(image.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    except UnidentifiedImageError as error:
        raise DataError(f"{where}: corrupt image (unknown format): replace the image, or remove the row") from error
    except Exception as error:  # decoders of damaged bytes raise nearly anything
        raise DataError(f"{where}: corrupt image ({error}): replace the image, or remove the row") from error
    if mode in DEEP_MODES:
        raise DataError(f"{where}: image mode {mode} has more than 8 bits a channel: convert it, or use an npz source")
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def stack_images(
    decoded: Iterable[npt.NDArray[np.uint8]], n: int, where: Where, progress: Progress
) -> npt.NDArray[np.uint8]:
    """`n` images as one array `[n, c, h, w]`; `where(k)` names the k-th. Raises DataError where shapes differ."""
    stacked = np.empty((0, 0, 0, 0), np.uint8)
    for k, image in enumerate(decoded):
        if k == 0:
            stacked = np.empty((n, *image.shape), np.uint8)
        if image.shape != stacked.shape[1:]:
            raise DataError(
                f"{where(k)}: the image is {list(image.shape)} [c, h, w], but {where(0)} is "
                f"{list(stacked.shape[1:])}: bring all images to one size and colour mode"
            )
        stacked[k] = image
        if (k + 1) % REPORT_EVERY == 0 or k + 1 == n:
            progress("decode images", k + 1, n)
    return stacked
