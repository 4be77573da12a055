"""How hypothesis draws a graph: what comes first in a list of choices is what it shrinks to."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from tests.passes.drawn import records as r

AT = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 5])
SEED = st.integers(0, 50)
OFTEN_NOT = st.sampled_from([False, False, True])
YES_NO = st.booleans()
NESTING = st.sampled_from(["left", "right", "pairs", "Sum"])
GROUPS = st.sampled_from(["1", "1", "2", "all"])
INDICES = st.lists(st.integers(0, 11), min_size=1, max_size=5).map(tuple)


def each(*values: int) -> SearchStrategy[tuple[int, ...]]:
    """One of `values` for each axis, more often the same one for all."""
    one = st.sampled_from(values)
    return st.one_of(one.map(lambda n: (n, n, n)), st.tuples(one, one, one))


def step(record: type[r.Step], /, **fields: SearchStrategy) -> SearchStrategy[r.Step]:
    return st.builds(record, at=AT, seed=SEED, **fields)


def some(values: SearchStrategy, low: int, high: int) -> SearchStrategy[tuple]:
    return st.lists(values, min_size=low, max_size=high).map(tuple)


CONV = step(
    r.Conv,
    out=st.sampled_from([4, 4, 2, 6, 3, 1]),
    kernel=each(1, 3, 2, 5),
    strides=each(1, 1, 1, 2, 3),
    dilations=each(1, 1, 1, 2),
    pads=st.one_of(
        st.sampled_from(["none", "same", "same", "same", "VALID", "SAME_UPPER", "SAME_LOWER"]),
        st.tuples(each(0, 1, 2), each(0, 1, 2)),
    ),
    groups=GROUPS,
    bias=OFTEN_NOT,
    taps=st.sampled_from(["dense", "dense", "dense", "one tap", "no rim", "dead rows", "zeros"]),
)
TRANSPOSED = step(
    r.Transposed,
    kernel=each(1, 2, 3),
    strides=each(1, 2),
    pads=st.tuples(each(0, 0, 1), each(0, 0, 1)),
    more=st.sampled_from([0, 0, 1]),
    groups=st.sampled_from([1, 2]),
    bias=OFTEN_NOT,
)
AFFINE = step(
    r.Affine,
    kind=st.sampled_from(["Mul", "Add", "Sub", "Div", "Neg", "Identity", "Dropout"]),
    extent=st.sampled_from(["channel", "channel", "number", "row", "map", "zero map"]),
    swapped=YES_NO,
)
AVERAGE = step(
    r.Pool,
    kernel=each(1, 2, 3),
    stride=st.sampled_from([1, 2, 2, 3]),
    pad=st.sampled_from([0, 1]),
    include=YES_NO,
    ceil=OFTEN_NOT,
)
LARGEST = step(
    r.Pool,
    kind=st.just("MaxPool"),
    kernel=each(1, 2, 3),
    stride=st.sampled_from([1, 2]),
    pad=st.sampled_from([0, 1]),
)
BENDS = ["Relu", "Relu", "Sigmoid", "Gate", "Square", "Clip", "HardSwish"]
ACT = step(
    r.Act,
    kind=st.sampled_from([*BENDS, "LeakyRelu", "LeakyRelu", "PRelu", "PRelu", "Mix", "Mix"]),
    amount=st.sampled_from([0.5, 0.0, 1.0, 1.0, 1.0]),
)
EDGE = step(r.Edge, begin=each(0, 1, 2), end=each(0, 1, 2), crop=YES_NO)
SHIFT = step(
    r.Shift,
    kind=st.sampled_from(["PadSlice", "SlicePad", "Roll"]),
    axis=st.integers(0, 2),
    amount=st.integers(1, 3),
    forward=YES_NO,
)
PICK = step(
    r.Pick,
    kind=st.sampled_from(["Slice", "Gather"]),
    first=st.integers(0, 3),
    step=st.sampled_from([1, 1, 2]),
    indices=INDICES,
)
JOIN = step(r.Join, others=some(st.integers(0, 3), 1, 2))
SHUFFLE = step(
    r.Shuffle, groups=st.sampled_from([2, 3]), batch=st.sampled_from(["-1", "0", "number"])
)
PARTIAL = step(r.Partial, keep=st.integers(1, 3), other=st.integers(0, 3), masked=YES_NO)
LAST_AXIS = step(r.LastAxis, kind=st.sampled_from(["MatMul", "Mul", "Add"]))
PIECES = some(st.integers(0, 2), 0, 2)


@st.composite
def chosen(draw, choices: list[SearchStrategy]) -> r.Step:
    """One of `choices`, each as often as it is there; one_of would take it once."""
    return draw(choices[draw(st.sampled_from(range(len(choices))))])


@st.composite
def droppable(draw, record: SearchStrategy) -> object:
    """A record, or None.

    A single choice behind the others drops a record and leaves what follows it as it is. Deleting
    the choices of a record from a list, as hypothesis does, seldom succeeds where they are many.
    """
    drawn = draw(record)
    return drawn if draw(st.sampled_from([False] + [True] * 19)) else None


def kept(record: SearchStrategy, low: int, high: int) -> SearchStrategy[tuple]:
    """Those of a list that are not dropped."""
    return some(droppable(record), low, high).map(lambda all: tuple(r for r in all if r))


def parts(affine: bool) -> SearchStrategy[r.Step]:
    return step(
        r.Parts,
        count=st.sampled_from([2, 2, 3]),
        order=some(st.integers(0, 2), 1, 3),
        bent=st.just(()) if affine else PIECES,
        mapped=PIECES,
    )


def branches(affine: bool) -> SearchStrategy[r.Step]:
    kinds = ["Conv", "Conv", "Conv", "Same", "Pool", "Shift"]
    arm = st.builds(
        r.Arm,
        kind=st.sampled_from(kinds if affine else [*kinds, "Max", "Relu"]),
        size=st.sampled_from([1, 3, 3, 2, 5]),
        dilation=st.sampled_from([1, 1, 1, 2]),
        groups=GROUPS,
        bias=OFTEN_NOT,
        then=OFTEN_NOT,
        norm=YES_NO,
        gain=OFTEN_NOT,
        minus=OFTEN_NOT,
        elsewhere=st.sampled_from([False, False, False, True]),
    )
    return step(
        r.Branches,
        arms=kept(arm, 2, 4),
        nesting=NESTING,
        stride=st.sampled_from([1, 1, 2]),
        out=st.sampled_from([0, 0, 0, 4, 6]),
    )


def channels_last(affine: bool) -> SearchStrategy[r.Step]:
    kinds = ["MatMul", "MatMul", "Add", "Mul"]
    inside = st.sampled_from(kinds if affine else [*kinds, "LayerNormalization", "Relu"])
    return step(r.ChannelsLast, inside=some(inside, 0, 4), skip=OFTEN_NOT)


def head(affine: bool) -> SearchStrategy[r.Head]:
    layer = st.builds(
        r.Dense,
        out=st.sampled_from([4, 3, 1]),
        kind=st.sampled_from(["Gemm", "MatMul"]),
        trans=YES_NO,
        scaled=OFTEN_NOT,
        bias=YES_NO,
    )
    maps = st.sampled_from(["BatchNormalization", "Mul", "Add"] + ["Relu"] * (not affine))
    return st.builds(
        r.Head,
        seed=SEED,
        pool=st.sampled_from(["GlobalAveragePool", "keepdims 0", "keepdims 1", "none"]),
        flat=st.sampled_from(["Flatten", "Reshape", "Squeeze"]),
        maps=some(maps, 0, 2),
        layers=some(layer, 1, 2),
        after=some(maps, 0, 2),
    )


def steps(affine: bool) -> SearchStrategy[r.Step]:
    norm, total = (
        step(r.Norm),
        step(r.Total, others=some(st.integers(0, 4), 1, 3), minus=YES_NO, nesting=NESTING),
    )
    often = [CONV, norm, AFFINE, branches(affine)] + [ACT] * (not affine)
    linear = [AVERAGE, total, EDGE, SHIFT, TRANSPOSED, PICK, parts(affine), JOIN, SHUFFLE, PARTIAL]
    linear += [LAST_AXIS, channels_last(affine), step(r.Act, kind=st.just("AddMean"))]
    return chosen([*often * 3, *linear, *[LARGEST] * (not affine)])


@st.composite
def graphs(draw, affine: bool = False) -> r.Graph:
    """A graph; one of affine operators only, small and with an open batch, where `affine`."""
    sizes = st.sampled_from([3, 4, 2, 1, 5] if affine else [4, 5, 3, 7, 2, 1, 8])
    axes = draw(st.sampled_from([2, 2, 1] if affine else [2, 2, 2, 1, 3]))
    drawn = draw(st.lists(sizes, min_size=axes, max_size=axes))
    return r.Graph(
        channels=draw(st.sampled_from([4, 4, 2, 6, 3, 1])),
        sizes=tuple(min(n, 5) if axes == 3 else n for n in drawn),
        open=draw(st.sampled_from(["batch", "sizes"] if affine else ["nothing", "batch", "sizes"])),
        outputs=draw(some(st.integers(0, 4), 0, 1)),
        leaves=draw(YES_NO),
        steps=draw(kept(STEPS[affine], 1, 8 if affine else 14)),
        head=draw(st.one_of(st.none(), st.none(), HEADS[affine])),
    )


STEPS = {affine: steps(affine) for affine in (False, True)}
HEADS = {affine: head(affine) for affine in (False, True)}
