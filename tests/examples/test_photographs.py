"""The network trained on pieces of photographs tells them apart."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from torch import nn

from examples.photographs import HELD_OUT, LEAST, SIZE, TILE, _tiles, held_out, stored, train

pytestmark = pytest.mark.skipif(
    find_spec("skimage") is None, reason="scikit-image is not installed"
)


def accuracy(module: nn.Module) -> float:
    images, labels = held_out()
    with torch.no_grad():
        return float((module(images).argmax(1) == labels).float().mean())


def test_the_stored_weights_tell_pieces_apart_that_were_held_out() -> None:
    assert accuracy(stored()) > 0.9  # of fourteen photographs


def test_pieces_have_something_to_see_on_them() -> None:
    images, labels = held_out()
    assert images.shape == (2520, 3, SIZE, SIZE) and set(labels.tolist()) == set(range(14))
    assert float(images[:, 0].std(dim=(1, 2), correction=0).min()) >= LEAST - 1e-5


def test_tiles_are_held_out_or_trained_on() -> None:
    shape = (8 * TILE + 3, 5 * TILE + 1)
    held, seen = (set(map(tuple, _tiles(shape, which))) for which in (True, False))
    assert len(held) * HELD_OUT == 40 and not held & seen
    assert np.max(list(held | seen), axis=0).tolist() == [7 * TILE, 4 * TILE]


@pytest.mark.slow
def test_training_reaches_the_accuracy_of_the_stored_weights() -> None:
    assert accuracy(train()) > 0.88
