"""Train a network to tell which photograph a small piece is from.

    python -m examples.photographs            # train, some minutes on a CPU
    python -m examples.photographs --store    # and store the weights next to this file

The photographs are those that scikit-learn and scikit-image come with, in shades of grey. Each is
cut into tiles, every fourth of which is held out of the training; pieces lie within one tile. The
network is a RepVGG of eleven convolutions, each of two or three branches in training form. Without
colours many scores are close, so that rounding shows in them sooner than in those of digits. Pieces
of the sky, on which there is nothing to see, are left out: they may be from any photograph.
"""

from __future__ import annotations

import argparse
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor, nn

from flatfold.frontend.pytorch.weights import load_weights
from flatfold.models.repvgg import repvgg

STORED = Path(__file__).with_name("photographs") / "repvgg.safetensors"
SHIPPED = (  # with scikit-image; the two of scikit-learn are in colour, and come last
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png"),
    *("grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "rocket.jpg"),
)
TILE, SIZE, HELD_OUT = 64, 48, 4
LEAST = 0.15  # deviation of a piece on which there is something to see; that of a photograph is 1
STEPS, BATCH, RATE = 2000, 96, 8e-3
PIECES = 180  # of each photograph that are held out


def photographs() -> list[npt.NDArray[np.float32]]:
    """Each photograph in shades of grey, with mean 0 and deviation 1."""
    return list(_photographs())


@cache
def _photographs() -> tuple[npt.NDArray[np.float32], ...]:
    from PIL import Image
    from sklearn.datasets import load_sample_images

    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the photographs need scikit-image: pip install scikit-image")
    folder = Path(spec.origin).with_name("data")
    pictures = [Image.open(folder / name) for name in SHIPPED]
    pictures += [Image.fromarray(picture) for picture in load_sample_images().images]
    grey = [np.asarray(picture.convert("L"), np.float32) for picture in pictures]
    return tuple((one - one.mean()) / one.std() for one in grey)


def pieces(count: int, *, held_out: bool, seed: int) -> tuple[Tensor, Tensor]:
    """`count` pieces [count, 3, SIZE, SIZE] and which photograph each is from, [count].

    They are taken from the photographs in turn, at random places of random tiles, all of which are
    held out of the training or none.
    """
    rng = np.random.default_rng(seed)
    pictures = photographs()
    labels = np.arange(count) % len(pictures)
    images = np.zeros((count, SIZE, SIZE), np.float32)
    for index, label in enumerate(labels):
        tiles = _tiles(pictures[label].shape, held_out)
        while images[index].std() < LEAST:
            images[index] = _piece(pictures[label], tiles, rng)
    return torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1), torch.from_numpy(labels)


def _tiles(shape: tuple[int, ...], held_out: bool) -> npt.NDArray[np.intp]:
    """[tiles, 2], the tops and the left sides of the tiles that are held out, or of the others."""
    rows, columns = np.indices((shape[0] // TILE, shape[1] // TILE))
    chosen = ((rows + 2 * columns) % HELD_OUT == 0) == held_out
    return TILE * np.stack((rows[chosen], columns[chosen]), axis=1)


def _piece(
    picture: npt.NDArray[np.float32], tiles: npt.NDArray[np.intp], rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """A piece of one of the tiles, turned and mirrored at random."""
    top, left = rng.choice(tiles) + rng.integers(TILE - SIZE + 1, size=2)
    piece = picture[top : top + SIZE, left : left + SIZE]
    return np.rot90(piece if rng.integers(2) else piece.T, rng.integers(4))


def held_out() -> tuple[Tensor, Tensor]:
    """PIECES pieces of each photograph, of tiles that the training has not seen."""
    return pieces(PIECES * len(photographs()), held_out=True, seed=1)


def network() -> nn.Module:
    """The network in training form, with weights that are drawn."""
    classes = len(SHIPPED) + 2
    return repvgg(depths=(2, 3, 4, 1), widths=(16, 24, 32, 48), num_classes=classes)


def train(seed: int = 0) -> nn.Module:
    """The network in training form, trained with AdamW and one cycle of the rate."""
    torch.manual_seed(seed)
    module = network()
    images, labels = pieces(BATCH * STEPS // 4, held_out=False, seed=seed)
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=0.05)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, STEPS)
    module.train()
    batches = [chosen for _ in range(4) for chosen in torch.randperm(len(images)).split(BATCH)]
    for chosen in track(batches, "training repvgg", transient=True):
        scores = module(moved(images[chosen]))
        loss = F.cross_entropy(scores, labels[chosen], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
    return module.eval()


def moved(images: Tensor) -> Tensor:
    """The images, brighter or darker and with more or less contrast by a little."""
    brighter, contrast = torch.randn(2, len(images), 1, 1, 1)
    return images * (1 + 0.1 * contrast) + 0.1 * brighter


def stored() -> nn.Module:
    """The network with the weights that an earlier run of this file has stored."""
    module = network().eval()
    load_weights(module, STORED)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--store", action="store_true", help="store the weights after training")
    options = parser.parse_args()
    module = train()
    if options.store:
        STORED.parent.mkdir(exist_ok=True)
        save_file(module.state_dict(), STORED)
    images, labels = held_out()
    with torch.no_grad():
        right = module(images).argmax(1) == labels
    print(f"{right.float().mean():.1%} of {len(labels)} pieces that were held out")


if __name__ == "__main__":
    main()
