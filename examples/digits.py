"""Train small networks on handwritten digits, compile each, and compare the two forms.

    python examples/digits.py            # train all, some minutes on a CPU
    python examples/digits.py repvgg     # train one
    python examples/digits.py --stored   # use the weights stored next to this file

The 1,797 digits of scikit-learn, 8 x 8 pixels, are enlarged to 32 x 32. A quarter of them is held
out of the training. Printed are the accuracy on that quarter, in the training form and in the
engine; on how many of all digits the two agree; parameters; and the time for one image.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor, nn

import flatfold
from flatfold.backends import load_backend
from flatfold.frontend.pytorch.weights import load_weights
from flatfold.models.convnext import convnext
from flatfold.models.mobileone import mobileone
from flatfold.models.repvgg import repvgg
from flatfold.models.schedule import SlopeSchedule
from flatfold.models.swnet import swnet
from flatfold.models.vanillanet import vanillanet
from flatfold.timing import interleaved_ratio, measure

STORED = Path(__file__).with_name("digits")
SIZE, CLASSES, HELD_OUT = 32, 10, 4
EPOCHS, BATCH, RATE = 24, 64, 1e-2

NETS: dict[str, Callable[[], nn.Module]] = {
    "repvgg": lambda: repvgg(depths=(1, 2, 2, 1), widths=(12, 16, 24, 32), num_classes=CLASSES),
    "vanillanet": lambda: vanillanet(
        widths=(24, 32, 48), pools=(2, 2), reach=1, num_classes=CLASSES
    ),
    "mobileone": lambda: mobileone(
        widths=(32, 48, 64, 96), depths=(1, 1, 1, 1), branches=2, num_classes=CLASSES
    ),
    "swnet": lambda: swnet(
        version=2,
        widths=(12, 16, 24, 32),
        depths=(1, 1, 1, 1),
        big=(13, 9, 7, 5),
        num_classes=CLASSES,
    ),
    "convnext": lambda: convnext(widths=(12, 16, 24, 32), depths=(1, 1, 2, 1), num_classes=CLASSES),
}


def digits() -> tuple[Tensor, Tensor]:
    """Images [1797, 3, 32, 32] with values around 0, and labels [1797]."""
    dataset = load_digits()
    images = torch.from_numpy(dataset.images).float()[:, None] / 8 - 1
    images = F.interpolate(images, (SIZE, SIZE), mode="bilinear", align_corners=False)
    return images.repeat(1, 3, 1, 1), torch.from_numpy(dataset.target)


def held_out(count: int) -> Tensor:
    """Which of `count` images are kept out of the training."""
    return torch.arange(count) % HELD_OUT == 0


def train(name: str, images: Tensor, labels: Tensor, seed: int = 0) -> nn.Module:
    """The network `name` in training form, trained with AdamW and one cycle of the rate."""
    torch.manual_seed(seed)
    module = NETS[name]()
    schedule = SlopeSchedule(decay_epochs=EPOCHS // 2) if hasattr(module, "slope") else None
    optimizer = torch.optim.AdamW(module.parameters(), RATE, weight_decay=0.05)
    steps = EPOCHS * -(-len(images) // BATCH)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps)
    module.train()
    if schedule is not None:
        schedule.apply(module)
    for _ in track(range(EPOCHS), f"training {name}", transient=True):
        for chosen in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(
                module(moved(images[chosen])), labels[chosen], label_smoothing=0.1
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
        if schedule is not None:
            schedule.step(module)
    return module.eval()


def moved(images: Tensor) -> Tensor:
    """The images moved by up to three pixels."""
    down, right = torch.randint(-3, 4, (2,)).tolist()
    return torch.roll(F.pad(images, (3, 3, 3, 3), value=-1.0), (down, right), (2, 3))[
        :, :, 3:-3, 3:-3
    ]


def row(name: str, module: nn.Module, images: Tensor, labels: Tensor) -> tuple[str, ...]:
    """One line of the table: both forms of a trained network, side by side."""
    result = flatfold.optimize(module, input_shape=images.shape[1:], dynamic_batch=True)
    backend, x = load_backend("ort-cpu"), images.numpy()
    with backend.build(result.training, {}) as training, backend.build(result.graph, {}) as engine:
        with torch.no_grad():
            before = module(images).argmax(1).numpy()
        after = np.argmax(engine(x), axis=1)
        one = {engine.inputs[0].name: x[:1]}
        times = measure({"a": training.bind(one), "b": engine.bind(one)}, budget_s=2.0)
    faster = interleaved_ratio(times["a"], times["b"])
    kept = held_out(len(labels)).numpy()
    shares = [np.mean((classes == labels.numpy())[kept]) for classes in (before, after)]
    return (
        name,
        " -> ".join(f"{share:.1%}" for share in shares),
        f"{np.sum(before == after)} of {len(labels)}",
        f"{result.before.parameters:,} -> {result.after.parameters:,}",
        " -> ".join(f"{times[form].median * 1e6:.0f}" for form in "ab"),
        "{:.2f} [{:.2f}, {:.2f}]".format(faster.value, *faster.interval),
        result.equivalence.verdict,
    )


def stored(name: str) -> nn.Module:
    """The network `name` with the weights that an earlier run of this file has stored."""
    module = NETS[name]().eval()
    load_weights(module, STORED / f"{name}.safetensors")
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nets", nargs="*", metavar="NET", help=", ".join(NETS))
    parser.add_argument("--stored", action="store_true", help="do not train, take stored weights")
    parser.add_argument("--store", action="store_true", help="store the weights after training")
    options = parser.parse_args()
    unknown = set(options.nets) - set(NETS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}, only {', '.join(NETS)}")
    images, labels = digits()
    kept = held_out(len(labels))
    table = Table(
        "net", "accuracy", "agree", "parameters", "µs for one", "faster", "proof", box=None
    )
    for name in options.nets or NETS:
        module = stored(name) if options.stored else train(name, images[~kept], labels[~kept])
        if options.store:
            STORED.mkdir(exist_ok=True)
            save_file(module.state_dict(), STORED / f"{name}.safetensors")
        table.add_row(*row(name, module, images, labels))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
