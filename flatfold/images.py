"""A folder of images, as data that a model is run on. It imports NumPy and Pillow as it reads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flatfold.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from flatfold.proof.network.inputs import InputSpec

MOST_RUNS = 64  # of a model: ranges hardly grow any more
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Images:
    """The images in a folder, as inputs [1, C, H, W] or [1, H, W, C] of one or three channels.

    Pixels go from 0 to 1; from each channel `mean` is taken off, and the rest is divided by `std`.
    An image is scaled so that its shorter side fits, and the middle of it is taken. `size` is
    (H, W), by default that of the input.
    """

    folder: str | os.PathLike[str]
    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    size: tuple[int, int] | None = None

    def read(self, specs: Sequence[InputSpec]) -> list[np.ndarray]:
        """At most MOST_RUNS images, evenly spaced in the order of their names.

        Raises InputError where the model takes no images, or the folder has none.
        """
        last, channels, size = self._layout(specs)
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (1, channels):
                raise InputError(f"expected {channels} numbers as {name}, found {len(numbers)}")
        files = sorted(p for p in Path(self.folder).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise InputError(
                f"expected images ({', '.join(SUFFIXES)}) in the folder, found none",
                where=str(self.folder),
            )
        import numpy as np

        chosen = np.linspace(0, len(files) - 1, min(len(files), MOST_RUNS)).astype(int)
        arrays = [self._pixels(files[index], channels, size) for index in chosen]
        arrays = [array if last else array.transpose(2, 0, 1) for array in arrays]
        return [array[None].astype(specs[0].dtype) for array in arrays]

    def _layout(self, specs: Sequence[InputSpec]) -> tuple[bool, int, tuple[int, int]]:
        """Whether channels come last, how many there are, and the size of the images."""
        shape = specs[0].shape if len(specs) == 1 else ()
        last = len(shape) == 4 and shape[1] not in (1, 3) and shape[3] in (1, 3)
        channels = (shape[3] if last else shape[1]) if len(shape) == 4 else None
        if channels not in (1, 3):
            raise InputError(
                "expected one input of images with 1 or 3 channels for a folder of images",
                hint="give arrays by name of the input",
            )
        own = shape[1:3] if last else shape[2:]
        height, width = self.size or own
        if not isinstance(height, int) or not isinstance(width, int):
            raise InputError(
                "expected a size for the images, as the model leaves that open",
                hint="give flatfold.Images(folder, size=(224, 224))",
            )
        return last, channels, (height, width)

    def _pixels(self, path: Path, channels: int, size: tuple[int, int]) -> np.ndarray:
        """[H, W, C] of one file."""
        import numpy as np

        image_type = _pillow()
        height, width = size
        try:
            with image_type.open(path) as file:
                image = file.convert("L" if channels == 1 else "RGB")
        except (OSError, ValueError) as why:
            raise InputError(f"expected an image: {why}", where=str(path)) from None
        scale = max(height / image.height, width / image.width)
        sizes = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        image = image.resize(sizes)
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
        pixels = np.asarray(image, np.float64).reshape(height, width, channels) / 255
        return np.asarray((pixels - np.asarray(self.mean)) / np.asarray(self.std))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise InputError(
            "images are read by Pillow, which is not installed", hint="pip install pillow"
        ) from None
    return Image
