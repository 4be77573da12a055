"""Building for targets trt and trt-rtx in a child process: from ONNX to an engine and its facts."""

from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flatfold.backends.tensorrt.options import (
    DEFAULT_CAPABILITIES,
    EDITIONS,
    FACTS_FILE,
    PLAN_FILE,
    Edition,
    profiles,
)
from flatfold.errors import BuildError, InputError
from flatfold.system.host import nvidia_gpu
from flatfold.system.progress import Progress

LARGEST_BATCH = 32
_LAYER = re.compile(r"^Name: (.*?), LayerType: ([^,\n]*)(.*)", re.MULTILINE)
_ENDS = re.compile(r"(?:In|Out)puts: \[ ?\{.*?\}\]")
_DATATYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: (.*?)\]")
_METADATA = "flatfold."


def build(model: Path, folder: Path, options: Mapping[str, Any], progress: Progress) -> None:
    """Builds the ONNX file `model` for options["target"], and writes engine and facts to `folder`.

    Raises BuildError, with the node that was refused and the nodes that it was made from.
    """
    edition = EDITIONS[options["target"]]
    _show_only(options["device"])
    trt = importlib.import_module(edition.module)
    log = _log(trt)
    builder = trt.Builder(log)
    # From version 11 on every network is strongly typed, and the flag has no effect.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    progress(f"{edition.name}: reading the graph")
    if not parser.parse_from_file(str(model)):
        raise _refused(edition, model, parser, log)
    config = builder.create_builder_config()
    _configure(trt, config, options)
    _add_profile(builder, network, config, options)
    capabilities = _set_capabilities(trt, config, edition, options)
    config.progress_monitor = _monitor(trt, progress)
    _read_timing_cache(config, options)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        message = log.last_error() or "it gave no reason"
        where = _origin(model, message) or f"target {edition.target}"
        raise BuildError(
            f"{edition.name} {trt.__version__} could not build: {message}", where=where
        )
    _write_timing_cache(config, options)
    (folder / PLAN_FILE).write_bytes(plan)
    layers = log.layers() if edition.builds_without_gpu else _inspected(trt, log, plan)
    facts = {"version": trt.__version__, "compute_capabilities": capabilities, "layers": layers}
    (folder / FACTS_FILE).write_text(json.dumps(facts), encoding="utf-8")


def _show_only(device: int) -> None:
    """Hides all GPUs but number `device` from the builder, counted without those hidden already."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else [str(index) for index in range(device + 1)]
    if device < len(names):  # otherwise the builder reports that there is no such GPU
        os.environ["CUDA_VISIBLE_DEVICES"] = names[device]


def _log(trt: Any) -> Any:
    """A logger that prints errors, and keeps them and the list of layers."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self.fused = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
                print(message, file=sys.stderr, flush=True)
            elif message.startswith("Layers:"):
                self.fused = message

        def last_error(self) -> str:
            return " ".join(self.errors[-1].split()) if self.errors else ""

        def layers(self) -> list[dict[str, Any]]:
            """The layers of the engine, from the build log."""
            return [_layer(*match.groups()) for match in _LAYER.finditer(self.fused)]

    return Log()


def _monitor(trt: Any, progress: Progress) -> Any:
    """A progress monitor that reports the steps of the outermost phases of the build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.outer: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.outer[name] = steps

        def step_complete(self, name: str, step: int) -> bool:
            if name in self.outer:
                progress(f"{name}: {step + 1} of {self.outer[name]}")
            return True

        def phase_finish(self, name: str) -> None:
            self.outer.pop(name, None)

    return Monitor()


def _configure(trt: Any, config: Any, options: Mapping[str, Any]) -> None:
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    (config.set_flag if options["tf32"] else config.clear_flag)(trt.BuilderFlag.TF32)
    if options["workspace_mib"]:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options["workspace_mib"] << 20)
    if options["optimization_level"] >= 0:
        config.builder_optimization_level = options["optimization_level"]
    if options.get("version_compatible"):
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.get("hardware_compatible"):
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS


def _add_profile(builder: Any, network: Any, config: Any, options: Mapping[str, Any]) -> None:
    """Sets the range of each open size: as requested, or batches from 1 to LARGEST_BATCH."""
    requested = profiles(options["shapes"])
    inputs = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
    if unknown := sorted(requested.keys() - inputs.keys()):
        raise InputError(f"option 'shapes': the model has no input {unknown[0]!r}")
    profile = builder.create_optimization_profile()
    for name, tensor in inputs.items():
        shape = tuple(tensor.shape)
        if -1 not in shape:
            continue
        if name not in requested and -1 in shape[1:]:
            raise InputError(
                f"input {name!r} leaves more than its batch open: {list(shape)}",
                hint="give its range with the option shapes, input=min:best:max",
            )
        one, most = (1, *shape[1:]), (LARGEST_BATCH, *shape[1:])
        try:
            profile.set_shape(name, *map(tuple, requested.get(name, (one, one, most))))
        except ValueError as error:
            raise InputError(f"option 'shapes': {name}: {error}") from error
    config.add_optimization_profile(profile)


def _set_capabilities(
    trt: Any, config: Any, edition: Edition, options: Mapping[str, Any]
) -> list[int]:
    """Sets the compute capabilities to build for. Returns them; none for that of the GPU here."""
    requested = options.get("compute_capabilities") or (
        "" if nvidia_gpu() else DEFAULT_CAPABILITIES
    )
    if not edition.builds_without_gpu or not requested:
        return []
    known = {f"SM{n}" for n in range(1000)} & set(dir(trt.ComputeCapability))
    names = [f"SM{part.strip()}" for part in requested.split(",")]
    for name in names:
        if name not in known:
            supported = ", ".join(sorted((k[2:] for k in known), key=int))
            raise InputError(
                f"option 'compute_capabilities': expected some of {supported}, found {name[2:]!r}",
                hint='such as compute_capabilities="86,89"',
            )
    config.num_compute_capabilities = len(names)
    for index, name in enumerate(names):
        config.set_compute_capability(getattr(trt.ComputeCapability, name), index)
    return [int(name[2:]) for name in names]


def _read_timing_cache(config: Any, options: Mapping[str, Any]) -> None:
    path = options.get("timing_cache")
    if path:
        content = Path(path).read_bytes() if os.path.isfile(path) else b""
        # TensorRT ignores a cache of another GPU or version.
        config.set_timing_cache(config.create_timing_cache(content), ignore_mismatch=False)


def _write_timing_cache(config: Any, options: Mapping[str, Any]) -> None:
    path = options.get("timing_cache")
    if path:
        place = Path(f"{path}.{os.getpid()}")
        place.write_bytes(config.get_timing_cache().serialize())
        os.replace(place, path)


def _inspected(trt: Any, log: Any, plan: Any) -> list[dict[str, Any]]:
    """The layers of the engine, from its inspector, which needs a GPU."""
    engine = trt.Runtime(log).deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(f"the engine cannot be read back: {log.last_error()}")
    inspector = engine.create_engine_inspector()
    information = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    return [
        _layer(layer.get("Name", ""), layer.get("LayerType", ""), layer.get("Metadata", ""))
        if isinstance(layer, dict)
        else _layer(str(layer), "", "")
        for layer in information.get("Layers", [])
    ]


def _layer(name: str, kind: str, rest: str) -> dict[str, Any]:
    """A layer with the nodes of the graph that its metadata names, and the types of the first value
    that it reads and of the first that it writes, such as "Half -> Half"."""
    ends = [_DATATYPE.search(part) for part in _ENDS.findall(rest)]
    types = " -> ".join(end[1] for end in ends if end)
    nodes = list(dict.fromkeys(_NODE.findall(rest)))
    return {"name": name, "type": kind, "nodes": nodes, "datatypes": types}


def _refused(edition: Edition, model: Path, parser: Any, log: Any) -> BuildError:
    if not parser.num_errors:
        return BuildError(f"{edition.name} cannot read the graph: {log.last_error()}")
    error = parser.get_error(0)
    name, operator = error.node_name(), error.node_operator()
    return BuildError(
        f"{edition.name} cannot build node {name or error.node()} ({operator}): {error.desc()}",
        where=_origin(model, f"'{name}'") or f"target {edition.target}",
        hint="target ort-cpu runs every graph; `flatfold explain` says which rewrite made a node",
    )


def _origin(model: Path, message: str) -> str:
    """The node that `message` names in quotes, and the nodes and the rewrite that it comes from.

    "" if the message names no node.
    """
    import onnx

    quoted = set(re.findall(r"'([^']+)'", message))
    for node in onnx.load(str(model), load_external_data=False).graph.node:
        if node.name in quoted and node.name:
            facts = [
                f"{entry.key.removeprefix(_METADATA)} {entry.value}"
                for entry in node.metadata_props
                if entry.key.startswith(_METADATA)
            ]
            return ", ".join([f"node {node.name} ({node.op_type})", *facts])
    return ""
