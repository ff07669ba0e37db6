"""Why int8 is as fast as it is: which operations of the compiled graph run in int8, what share of the time each takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gemini_core.runtimes.base import require
from gemini_core.types import F32

PASSES = 7
ROWS, INNER, OUTER = 2400, 320, 1280
"""Tokens and widths of the most frequent product of MiT-B3: the third stage's feed-forward layers."""
BAR = 6.0
_PRODUCTS = "products of matrices"
_KINDS = {
    "FullyConnected": _PRODUCTS,
    "FullyConnectedQuantizedLegacy": _PRODUCTS,
    "MatMul": _PRODUCTS,
    "Convolution": "convolutions",
    "GroupConvolution": "depth-wise convolutions with GELU",
    "MVN": "norms",
}
_ATTENTION, _REST = "self-attention, scores to values", "element by element, sums, softmax, upsampling, copies"


@dataclass(frozen=True)
class Node:
    """One operation of a compiled graph: its kind, whether it computes in int8, and its shortest time."""

    kind: str
    int8: bool
    milliseconds: float


def nodes(model: Any, images: F32) -> list[Node]:  # noqa: ANN401 - a path or a model of OpenVINO, which has no types
    """Run a graph on one thread, on which others disturb least, and measure every operation."""
    openvino = require("openvino", "openvino", "OpenVINO")
    options = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "PERF_COUNT": True,
    }
    compiled = openvino.Core().compile_model(model, "CPU", options)
    made_of = {node.get_friendly_name(): _layers(node) for node in compiled.get_runtime_model().get_ops()}
    request = compiled.create_infer_request()
    totals = []  # milliseconds of each operation, from the first pass on
    for passes in range(1, PASSES + 1):
        request.infer({0: images})
        entries = request.profiling_info  # times are means over all passes so far
        totals.append([entry.real_time.total_seconds() * 1e3 * passes for entry in entries])
    shortest = np.diff(totals, axis=0).min(axis=0).clip(0.0)
    return [
        Node(_kind(entry.node_type, made_of.get(entry.node_name, "")), entry.exec_type.lower().endswith("i8"), float(time))
        for entry, time in zip(entries, shortest, strict=True)
    ]


def _layers(node: Any) -> str:  # noqa: ANN401 - OpenVINO's own
    """Name the layers of the graph that one operation does."""
    names = node.get_rt_info()["originalLayersNames"]
    return str(getattr(names, "value", names))


def _kind(node_type: str, layers: str) -> str:
    return _ATTENTION if "ScaledDotProductAttention" in layers else _KINDS.get(node_type, _REST)


def by_kind(measured: list[Node]) -> Mapping[str, float]:
    """Add up milliseconds."""
    total: dict[str, float] = defaultdict(float)
    for node in measured:
        total[node.kind] += node.milliseconds
    return total


def product_gain() -> float:
    """How many times faster one product of int8 is than the same of fp32, without what quantises its input."""
    opset = require("openvino.opset13", "openvino", "OpenVINO")
    openvino = require("openvino", "openvino", "OpenVINO")
    rng = np.random.default_rng(0)
    rows, weights = (rng.uniform(-1, 1, shape).astype(np.float32) for shape in ((ROWS, INNER), (OUTER, INNER)))

    def product(*, int8: bool) -> float:
        source = opset.parameter([ROWS, INNER], np.float32)
        left, right = source, opset.constant(weights)
        if int8:
            # One step off the middle, which makes it unsigned: that is what OpenVINO is fastest with.
            left = opset.fake_quantize(left, *_limits(opset, -127 / 128, 1.0), 256)
            right = opset.fake_quantize(right, *_limits(opset, -1.0, 1.0), 255)
        graph = openvino.Model([opset.matmul(left, right, transpose_a=False, transpose_b=True)], [source])
        return by_kind(nodes(graph, rows))[_PRODUCTS]

    return product(int8=False) / product(int8=True)


def _limits(opset: Any, low: float, high: float) -> list[Any]:  # noqa: ANN401 - OpenVINO's own
    return [opset.constant(np.float32(value)) for value in (low, high, low, high)]


def explain(folder: Path, images: F32, reached: float) -> str:
    """Profile the two graphs that ``contenders.exported`` wrote, and say what follows for int8; as Markdown.

    ``reached`` says how many times faster than the reference int8 is.
    """
    exact, low = (nodes(folder / f"openvino-{precision}.xml", images) for precision in ("fp32", "int8"))
    exact_ms, low_ms, in_int8 = by_kind(exact), by_kind(low), by_kind([node for node in low if node.int8])
    total, total_exact = sum(low_ms.values()), sum(exact_ms.values())
    rows = [
        "Where the time goes on one thread, operation by operation, and how much of it computes in int8:",
        "",
        "| operations | fp32, ms | int8, ms | share of int8's time | of it computed in int8 |",
        "|---|---|---|---|---|",
    ]
    for kind in sorted(low_ms, key=lambda kind: -low_ms[kind]):
        share, computed = low_ms[kind] / total, in_int8.get(kind, 0.0) / max(low_ms[kind], 1e-9)
        rows.append(f"| {kind} | {exact_ms.get(kind, 0.0):.0f} | {low_ms[kind]:.0f} | {share:.0%} | {computed:.0%} |")
    rows.append(f"| all | {total_exact:.0f} | {total:.0f} | 100% | {sum(in_int8.values()) / total:.0%} |")
    return "\n".join([*rows, "", what_follows(exact_ms, low_ms, reached)])


def what_follows(exact_ms: Mapping[str, float], low_ms: Mapping[str, float], reached: float) -> str:
    """Do the arithmetic: what int8 could gain; ``reached`` says how many times faster than the reference it is."""
    total, products = sum(low_ms.values()), low_ms[_PRODUCTS]
    gain = exact_ms[_PRODUCTS] / products
    sentences = [
        f"One product of {ROWS}x{INNER} and {INNER}x{OUTER} is {product_gain():.1f} times faster in int8 than in fp32 here,",
        f"all products of the network {gain:.1f} times. They are {products / total:.0%} of what is left: if they took no time",
        f"at all, int8 would be {reached / (1 - products / total):.1f} times faster than the reference.",
    ]
    excess = total * (1 - reached / BAR)  # milliseconds
    if excess > 0:
        sentences += [
            f"The bar of {BAR:.0f} asks for {excess / total:.0%} less time: {excess / (total - products):.0%} of all that is",
            f"no product, or {excess / products:.0%} of the products.",
        ]
    return "\n".join(sentences)
