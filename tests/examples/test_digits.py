"""Trained networks and their engines classify each digit alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.digits import NETS, digits, held_out, stored, train
from flatfold.compiler import Compiler, Options


@pytest.mark.parametrize("name", NETS)
def test_the_engine_classifies_every_digit_alike(name):
    module, (images, labels) = stored(name), digits()
    with torch.no_grad():
        before = module(images).argmax(1).numpy()
    compiler = Compiler.resolve(module, input_shape=images.shape[1:], dynamic_batch=True)
    result = compiler.optimize(Options())
    after = np.argmax(compiler.build(result, Options("ort-cpu"))(images.numpy()), axis=1)
    assert len(after) == 1797
    assert np.array_equal(before, after)
    assert result.changes and all(change.certified for change in result.changes)
    assert result.equivalence.verdict == "certified"
    assert "BatchNormalization" not in result.after.operators
    test = held_out(len(labels)).numpy()
    assert np.mean((after == labels.numpy())[test]) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_training_reaches_the_accuracy_of_the_stored_weights(name):
    images, labels = digits()
    test = held_out(len(labels))
    module = train(name, images[~test], labels[~test])
    with torch.no_grad():
        accuracy = (module(images[test]).argmax(1) == labels[test]).float().mean()
    assert accuracy > 0.96
