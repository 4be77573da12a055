"""Statistics that training made: the engine reads every digit as the network that was trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from examples.digits import NETS, digits, held_out, stored, train
from flatfold.compiler import Compiler, Options


@pytest.mark.parametrize("name", NETS)
def test_the_engine_says_the_same_of_every_digit(name):
    module, (images, labels) = stored(name), digits()
    with torch.no_grad():
        before = module(images).argmax(1).numpy()
    compiler = Compiler.resolve(module, input_shape=images.shape[1:], dynamic_batch=True)
    result = compiler.optimize(Options())
    after = np.argmax(compiler.build(result, Options("ort-cpu"))(images.numpy()), axis=1)
    assert len(after) == 1797
    assert np.array_equal(before, after)
    assert result.changes and all(change.certified for change in result.changes)
    # "bounded": RepVGG is less exact on constant images, which its original happens to add exactly
    assert result.equivalence.verdict == ("bounded" if name == "repvgg" else "certified")
    assert "BatchNormalization" not in result.after.operators
    kept = held_out(len(labels)).numpy()
    assert np.mean((after == labels.numpy())[kept]) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_training_reaches_what_is_stored(name):
    images, labels = digits()
    kept = held_out(len(labels))
    module = train(name, images[~kept], labels[~kept])
    with torch.no_grad():
        right = (module(images[kept]).argmax(1) == labels[kept]).float().mean()
    assert right > 0.96
