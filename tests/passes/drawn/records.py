"""What a random graph is made of: small records, one for each step, that shrink towards zero.

A record holds choices, not shapes. Whether a step fits the value it reads is found out when the
graph is built (`build.py`); one that does not is left out, so a list of records without some of
its steps is a graph as well, and hypothesis can shrink a graph by dropping steps.

Fields with one number for each spatial axis have three; a graph of fewer axes reads the first.
`at` counts values from the newest, which is 0; `seed` is that of the numbers of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Step:
    at: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Conv(Step):
    out: int = 4
    kernel: Triple = (1, 1, 1)
    strides: Triple = (1, 1, 1)
    dilations: Triple = (1, 1, 1)
    pads: str | tuple[Triple, Triple] = "none"
    groups: str = "1"  # or "2", or "all" channels apart
    bias: bool = False
    taps: str = "dense"


@dataclass(frozen=True)
class Transposed(Step):
    kernel: Triple = (1, 1, 1)
    strides: Triple = (1, 1, 1)
    pads: tuple[Triple, Triple] = ((0, 0, 0), (0, 0, 0))
    more: int = 0  # output_padding
    groups: int = 1
    bias: bool = False


@dataclass(frozen=True)
class Norm(Step):
    """BatchNormalization, some of its gammas negative or zero."""


@dataclass(frozen=True)
class Affine(Step):
    """One operator with a constant: a number, one per channel, a row, or a whole map."""

    kind: str = "Mul"
    extent: str = "channel"
    swapped: bool = False


@dataclass(frozen=True)
class Act(Step):
    kind: str = "Relu"
    amount: float = 0.5


@dataclass(frozen=True)
class Pool(Step):
    kind: str = "AveragePool"
    kernel: Triple = (1, 1, 1)
    stride: int = 1
    pad: int = 0
    include: bool = False
    ceil: bool = False


@dataclass(frozen=True)
class Arm:
    """One branch. `kind` may be Conv, Same, Pool, Shift, Max or Relu."""

    kind: str = "Conv"
    size: int = 1
    dilation: int = 1
    groups: str = "1"
    bias: bool = False
    then: bool = False  # a pointwise convolution follows
    norm: bool = False
    gain: bool = False
    minus: bool = False
    elsewhere: bool = False  # reads another value of the same shape, if there is one


@dataclass(frozen=True)
class Branches(Step):
    arms: tuple[Arm, ...] = (Arm(), Arm())
    nesting: str = "left"
    stride: int = 1
    out: int = 0  # 0: as many channels as the value has


@dataclass(frozen=True)
class Total(Step):
    """A sum of values of one shape, or of one that broadcasts to it; some of them repeated."""

    others: tuple[int, ...] = (0,)
    minus: bool = False
    nesting: str = "left"


@dataclass(frozen=True)
class Edge(Step):
    """Zero padding, or a crop where `crop`."""

    begin: Triple = (0, 0, 0)
    end: Triple = (0, 0, 0)
    crop: bool = False


@dataclass(frozen=True)
class Shift(Step):
    """Pad then Slice, Slice then Pad, or a roll."""

    kind: str = "PadSlice"
    axis: int = 0
    amount: int = 1
    forward: bool = True


@dataclass(frozen=True)
class Pick(Step):
    """Channels first::step of a value by Slice, or those at `indices` by Gather."""

    kind: str = "Slice"
    first: int = 0
    step: int = 1
    indices: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Parts(Step):
    """Split into even parts; those in `order` are concatenated, the ones in `bent` behind Relu."""

    count: int = 2
    order: tuple[int, ...] = (0,)
    bent: tuple[int, ...] = ()
    mapped: tuple[int, ...] = ()  # these go through a convolution


@dataclass(frozen=True)
class Join(Step):
    """Concat of values of one size along the channels."""

    others: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Shuffle(Step):
    """Reshape, Transpose, Reshape; `batch` is how the batch is written in the shapes."""

    groups: int = 2
    batch: str = "-1"


@dataclass(frozen=True)
class Partial(Step):
    """The identity added to some of the channels."""

    keep: int = 1
    other: int = 1
    masked: bool = False


@dataclass(frozen=True)
class ChannelsLast(Step):
    """Transpose, steps along the last axis, Transpose back."""

    inside: tuple[str, ...] = ("MatMul",)
    skip: bool = False


@dataclass(frozen=True)
class LastAxis(Step):
    """An operator along the last axis of a value that is not in channels-last order."""

    kind: str = "MatMul"


@dataclass(frozen=True)
class Dense:
    out: int = 4
    kind: str = "Gemm"
    trans: bool = False
    scaled: bool = False
    bias: bool = False


@dataclass(frozen=True)
class Head:
    """Pool, flatten, maps on [N, C], matrices; `seed` is that of its numbers."""

    seed: int = 0
    pool: str = "GlobalAveragePool"
    flat: str = "Flatten"
    maps: tuple[str, ...] = ()
    layers: tuple[Dense, ...] = (Dense(),)
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """`open`: nothing, the batch, or the sizes too are left open in the input's shape.

    `outputs` are values, counted from the newest, that are graph outputs besides the newest;
    where `leaves`, so is every value that nothing reads.
    """

    channels: int = 4
    sizes: tuple[int, ...] = (3, 3)
    open: str = "nothing"
    steps: tuple[Step, ...] = ()
    head: Head | None = None
    outputs: tuple[int, ...] = ()
    leaves: bool = False
