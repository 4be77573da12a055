"""Chains of equal operators, and the time of one operator in an engine on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from flatfold.backends import load_backend

LONG, SHORT = 5, 1


class Chain:
    """An ONNX graph under construction, from the value "x" on; constants are random."""

    def __init__(self, shape: Sequence[int], seed: int = 0) -> None:
        self.shape = tuple(shape)
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self.random = np.random.default_rng(seed)
        self._channels = {"x": self.shape[1]}

    def op(self, kind: str, *inputs: str, channels: int = 0, **attributes: object) -> str:
        """Adds a node; returns the name of its output, which has as many channels as its input."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        self._channels[name] = channels or self.channels(inputs[0])
        return name

    def channels(self, value: str) -> int:
        return self._channels[value]

    def const(self, array: npt.ArrayLike) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.const(self.random.standard_normal(shape, dtype=np.float32) / 8)

    def slice(self, x: str, axis: int, begin: int, end: int) -> str:
        kept = end - begin if axis == 1 else 0
        return self.op("Slice", x, *(self.const([n]) for n in (begin, end, axis)), channels=kept)

    def insert(self, graph: GraphProto, x: str) -> str:
        """Adds the nodes of a graph whose one input is `x` here; returns its output."""
        names = {graph.input[0].name: x, "": ""}
        for node in graph.node:
            new = NodeProto.FromString(node.SerializeToString())
            for values in (new.input, new.output):
                values[:] = [names.get(name, f"inner.{name}") for name in values]
            self.nodes.append(new)
        for tensor in graph.initializer:
            new_tensor = TensorProto.FromString(tensor.SerializeToString())
            new_tensor.name = f"inner.{tensor.name}"
            self.constants.append(new_tensor)
        output = graph.output[0].name
        name = names.get(output, f"inner.{output}")
        self._channels[name] = graph.output[0].type.tensor_type.shape.dim[1].dim_value
        return name

    def join(self, values: Sequence[str]) -> str:
        """The channels of the values, one after the other."""
        count = sum(self.channels(value) for value in values)
        return self.op("Concat", *values, axis=1, channels=count)

    def conv(
        self,
        x: str,
        outputs: int,
        kernel: Sequence[int],
        groups: int = 1,
        dilation: int = 1,
        *,
        stride: int = 1,
        bias: bool = True,
        pads: Sequence[int] | None = None,
    ) -> str:
        """A convolution; with an odd kernel and stride 1, of equal input and output size."""
        weight = self.weight(outputs, self.channels(x) // groups, *kernel)
        inputs = [weight, self.weight(outputs)] if bias else [weight]
        attributes = {
            "group": groups,
            "kernel_shape": kernel,
            "dilations": [dilation] * 2,
            "strides": [stride] * 2,
            "pads": [(k - 1) * dilation // 2 for k in kernel] * 2 if pads is None else pads,
        }
        return self.op("Conv", x, *inputs, channels=outputs, **attributes)

    def model(self, value: str) -> ir.Model:
        start = helper.make_tensor_value_info("x", TensorProto.FLOAT, self.shape)
        end = helper.make_tensor_value_info(value, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "chain", [start], [end], self.constants)
        opset = [helper.make_opsetid("", 20)]
        proto = helper.make_model(graph, opset_imports=opset, ir_version=9)
        return ir.from_proto(shape_inference.infer_shapes(proto))


Step = Callable[[Chain, str], str]
"""Adds an operator that reads a value; its output has the same shape."""


def layer(chain: Chain, x: str) -> str:
    """A cheap convolution, then a pooling that no engine fuses with it."""
    channels = chain.shape[1]
    return pass_on(chain, chain.conv(x, channels, (1, 1), channels))


def pass_on(chain: Chain, x: str) -> str:
    """An identity pooling: it keeps the layout of the convolutions and prevents fusion."""
    return chain.op("MaxPool", x, kernel_shape=[1, 1])


def between_layers(step: Step) -> Step:
    """`step` between layers, where an engine may use a layout that the step does not support."""
    return lambda chain, x: pass_on(chain, step(chain, layer(chain, x)))


class Timer:
    """Engines of `target` on one thread, timed by the processor time that the process used.

    Other work on the machine thus has little effect, and the figures are those of one core. On more
    cores all layers get faster by the same factor, but the overhead of a node does not.
    """

    def __init__(self, target: str = "ort-cpu") -> None:
        self.backend = load_backend(target)
        self.options = {**self.backend.timing_options, self.backend.threads: 1}

    def seconds(
        self, steps: Mapping[str, tuple[Sequence[int], Step]], rounds: int
    ) -> dict[str, tuple[float, float]]:
        """(least, median) seconds of each step on a map of its shape.

        It is the difference of a long and a short chain, so the fixed cost of a run cancels. All
        chains run in turn. A disturbance only adds time, so the least is the most reliable.
        """
        runs = {
            (name, length): self._run(shape, step, length)
            for name, (shape, step) in steps.items()
            for length in (LONG, SHORT)
        }
        times: dict[tuple[str, int], list[float]] = {key: [] for key in runs}
        for _ in range(rounds):
            for key, run in runs.items():
                run()  # brings its weights back into the cache
                start = time.process_time()
                run()
                times[key].append(time.process_time() - start)

        def of(name: str, reduce: Callable[[list[float]], float]) -> float:
            long, short = (reduce(times[name, length]) for length in (LONG, SHORT))
            return (long - short) / (LONG - SHORT)

        return {name: (of(name, min), of(name, statistics.median)) for name in steps}

    def _run(self, shape: Sequence[int], step: Step, length: int) -> Callable[[], object]:
        chain, value = Chain(shape), "x"
        for _ in range(length):
            value = step(chain, value)
        return self.prepared(chain.model(value), shape)

    def prepared(self, model: ir.Model, shape: Sequence[int]) -> Callable[[], object]:
        """A run of the model on random numbers of this shape, its one input."""
        engine = self.backend.build(model, self.options)
        x = np.random.default_rng(0).standard_normal(tuple(shape), dtype=np.float32)
        return engine.bind({engine.inputs[0].name: x})
