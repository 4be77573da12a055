"""The options that several verbs share: their types, their meaning, and shell completion."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from flatfold.errors import UnknownName

SHAPE = re.compile(r"(?:(.+):)?(\d{1,9}(?:x\d{1,9})*)")
SIZE = re.compile(r"\d{1,6}(x\d{1,6}){0,2}")
MODEL_FORMS = "A zoo name, an .onnx file, package.module:factory or timm:NAME."


def complete_model(incomplete: str) -> list[str]:
    """Names of the zoo, and .onnx files and folders."""
    from flatfold.models import ZOO

    folder, start = os.path.split(incomplete)
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        entries = []
    files = [
        os.path.join(folder, entry.name) + (os.sep if entry.is_dir() else "")
        for entry in entries
        if entry.name.startswith(start) and (entry.is_dir() or entry.name.endswith(".onnx"))
    ]
    return [name for name in ZOO if name.startswith(incomplete)] + files


def complete_target(incomplete: str) -> list[str]:
    from flatfold.backends import TARGETS

    return [name for name in ("auto", *TARGETS) if name.startswith(incomplete)]


def complete_precision(incomplete: str) -> list[str]:
    from flatfold.precision import PRECISIONS

    return [name for name in PRECISIONS if name.startswith(incomplete)]


def _size(text: str) -> str:
    if not SIZE.fullmatch(text) or 0 in _numbers(text):
        raise typer.BadParameter(f"expected 224, 224x160 or 3x224x160, found {text!r}")
    return text


Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", help=MODEL_FORMS, autocompletion=complete_model),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="S|HxW|CxHxW",
        callback=lambda text: text if text is None else _size(text),
        help="Size of the input image.",
    ),
]
Shape = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME:]1x3x320x320",
        help="Shape of an input, of any kind and rank. May be repeated.",
    ),
]
Batch = Annotated[int | None, typer.Option(min=1, metavar="N", help="Images in one run.")]
DynamicBatch = Annotated[bool, typer.Option("--dynamic-batch", help="Leave the batch size open.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="A .safetensors file or a state dict saved by torch."),
]
Target = Annotated[
    str,
    typer.Option(
        "--target",
        "-t",
        metavar="NAME",
        autocompletion=complete_target,
        help="The engine it is for; auto is the best one present.",
    ),
]
Verify = Annotated[str, typer.Option(metavar="off|sample|bound|certify", help="How much to prove.")]
Passes = Annotated[
    str | None, typer.Option(metavar="A,B", help="Use these rewrites only; default all.")
]
Skip = Annotated[str | None, typer.Option(metavar="A,B", help="Use all rewrites but these.")]
Simplify = Annotated[bool, typer.Option("--simplify", help="Run onnxsim after the rewrites.")]
MaxWeights = Annotated[
    float | None,
    typer.Option(min=0, metavar="GIB", help="Weights that an .onnx file may have; default 16."),
]
LinksInside = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Weights may be symbolic links to files below DIR."),
]
Precision = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="fp32|fp16|bf16|int8|mixed",
        help="How the engine computes.",
        autocompletion=complete_precision,
    ),
]
KeepFloat = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Nodes, values or operators that keep float32, such as 'head.*'."
    ),
]
NarrowIo = Annotated[
    bool, typer.Option("--narrow-io", help="Inputs and outputs have the precision, too.")
]
Calibration = Annotated[
    str | None,
    typer.Option(
        metavar="FILE|DIR|random",
        help="Samples in an .npz or .npy file, or a folder of images, to see ranges on.",
    ),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="How many inputs may get another largest score in 8 bits, such as 0.005.",
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="R,G,B", help="Taken off images whose pixels go from 0 to 1; default 0,0,0."
    ),
]
Std = Annotated[
    str | None, typer.Option(metavar="R,G,B", help="What they are divided by; default 1,1,1.")
]
ConstantDefaults = Annotated[
    bool,
    typer.Option(
        "--constant-defaults", help="Inputs of an .onnx file with default values become constants."
    ),
]
CacheDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Where engines are kept; default $FLATFOLD_CACHE."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def calibration_data(path: str | None, mean: str | None, std: str | None) -> Any:
    """What --calibration, --mean and --std stand for."""
    if mean is None and std is None:
        return path
    if path is None or not os.path.isdir(path):
        raise typer.BadParameter("--mean and --std need a folder of images as --calibration")
    from flatfold.images import Images

    return Images(path, _of_channels(mean, "0"), _of_channels(std, "1"))


def _of_channels(text: str | None, default: str) -> tuple[float, ...]:
    """One number for all channels, or one for each."""
    try:
        return tuple(float(number) for number in (text or default).split(","))
    except ValueError:
        raise typer.BadParameter(f"expected numbers such as 0.5,0.5,0.5, found {text!r}") from None


def image_shape(size: str | None) -> tuple[int, ...] | None:
    """(H, W) or (C, H, W): "64" is (64, 64)."""
    if size is None:
        return None
    numbers = _numbers(size)
    return numbers * 2 if len(numbers) == 1 else numbers


def shapes_by_name(texts: Sequence[str]) -> Any:
    """The shape in 1x3x320x320, or a mapping from those in NAME:1x3x320x320."""
    shapes = {}
    for text in texts:
        match = SHAPE.fullmatch(text)
        if match is None or (match[1] is None and len(texts) > 1):
            raise typer.BadParameter(f"expected NAME:1x3x320x320, found {text!r}")
        shapes[match[1]] = _numbers(match[2])
    return shapes.get(None, shapes)


def input_shape(
    model: str,
    batch: int | None,
    size: str | None,
    dynamic_batch: bool,
    shapes: Sequence[str] | None = None,
) -> Any:
    """The input_shape for `optimize`; None lets it decide."""
    from flatfold.sources import is_graph

    if shapes:
        if batch is not None or size is not None:
            raise typer.BadParameter("expected --shape, or --size and --batch, found both")
        return shapes_by_name(shapes)
    if size is None and (batch is None or dynamic_batch):
        return None
    shape = image_shape(size)
    if is_graph(model):
        return batch, ..., *(shape or ())
    if shape is None or len(shape) == 2:
        preferred = _preferred_shape(model)
        if shape is None and preferred is None:
            raise typer.BadParameter("the input size of this model is not known; give --size too")
        channels, *sizes = preferred or (3,)
        shape = (channels, *(shape or sizes))
    return shape if batch is None or dynamic_batch else (batch, *shape)


def _preferred_shape(model: str) -> tuple[int, ...] | None:
    from flatfold.models import ZOO

    return ZOO[model].input_shape if model in ZOO else None


def chosen_passes(passes: str | None, skip: str | None) -> list[str] | None:
    """Names of the rewrites to use, None for all. Raises UnknownName, with near names."""
    if passes is None and skip is None:
        return None
    from flatfold.passes import PIPELINE

    known = [rewrite.name for rewrite in PIPELINE]
    used = known if passes is None else _known(_names(passes), known)
    left_out = _known(_names(skip or ""), known)
    return [name for name in used if name not in left_out]


def _known(names: Sequence[str], known: Iterable[str]) -> Sequence[str]:
    for name in names:
        if name not in known:
            raise UnknownName("pass", name, known)
    return names


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(size: str) -> tuple[int, ...]:
    return tuple(int(number) for number in size.split("x"))


def engine_options(target: str, threads: int | None, written: Sequence[str] = ()) -> dict[str, Any]:
    """The options of `target`: `written` as NAME=VALUE, and its number of threads."""
    from flatfold.backends import load_backend, read_options

    backend = load_backend(target)
    options = read_options(backend.options, written, target)
    if threads is None:
        return options
    if not backend.threads:
        raise typer.BadParameter(f"target {target} has no number of threads to set")
    return {backend.threads: threads, **options}
