"""Which Keras layers an operator of a `.tflite` file came from, told from the names that the converter leaves behind.

What is known of these names (measured on TensorFlow 2.21 with Keras 3.15):

- A tensor is called after the graph node that it stands for, `functional/stem_1/convolution`; a fused operator joins
  the names of its parts with `;`, and the converter appends digits where a name would come twice.
- Keras opens a layer's name scope once before it traces the call, so the scope of the call always carries one suffix:
  `dense_1/MatMul` is layer `dense`, and `dense_1_2/MatMul` is layer `dense_1`.
- The outputs of the model are called `StatefulPartitionedCall:N` whatever made them; the converter's own QUANTIZE and
  DEQUANTIZE are `tfl.quantize`, `tfl.dequantize`; constants that it merged are `arith.constant`, `Const`.
- A reshape that was folded into its producer gives the producer its own name: then only the weights tell the truth.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

EDGE_OPS = frozenset({"QUANTIZE", "DEQUANTIZE"})
"""Operators that the converter inserts between precisions: they belong to the layer that made them necessary."""

_SUFFIX = re.compile(r"_\d+$")


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of one subgraph, as far as finding its layers needs it.

    Attributes:
        op: builtin name, such as `CONV_2D`.
        reads: tensor indices of all inputs.
        inputs: those that are computed: neither constants nor constants that a DEQUANTIZE unpacks.
        outputs: tensor indices.
        output_names: names of the output tensors.
        constant_names: names of the constants that this operator alone reads.
    """

    op: str
    reads: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    output_names: tuple[str, ...]
    constant_names: tuple[str, ...]


class LayerNames:
    """Finds known layer names in tensor names.

    Args:
        layer_names: in the order of the model. A name with slashes, `backbone/block_1`, is a layer inside a layer and
            wins over the outer one where both are known.
        tensor_names: every name of the file: they show whether its scopes carry Keras' suffix.
    """

    def __init__(self, layer_names: Sequence[str], tensor_names: Iterable[str]) -> None:
        self._order = {name: position for position, name in enumerate(layer_names)}
        scopes = [path.split("/")[:-1] for name in tensor_names for path in name.split(";") if "/" in path]
        self._root = self._find_root(scopes)
        self._suffixed = self._has_suffixes(scopes)

    def in_tensor(self, tensor_name: str) -> set[str]:
        """The known layers whose nodes are in a tensor name; empty when it tells nothing."""
        found = (self._in_path(path.split("/")[:-1]) for path in tensor_name.split(";"))
        return {name for name in found if name is not None}

    def sort(self, names: Iterable[str]) -> tuple[str, ...]:
        """Layer names in the order of the model, without repetition."""
        return tuple(sorted(set(names), key=self._order.__getitem__))

    @property
    def last(self) -> str | None:
        """The last layer of the model."""
        return max(self._order, key=self._order.__getitem__, default=None)

    def _in_path(self, scopes: Sequence[str]) -> str | None:
        """The layer of one node: the outermost scope that is a known layer, or a known layer inside that one."""
        if len(scopes) > 1 and scopes[0] == self._root:
            scopes = scopes[1:]
        readings = [self._read(scope) for scope in scopes]
        for start, reading in enumerate(readings):
            nested = ["/".join(readings[start:end]) for end in range(len(readings), start + 1, -1)]
            known = [name for name in (*nested, reading, scopes[start]) if name in self._order]
            if known:
                return known[0]
        return None

    def _read(self, scope: str) -> str:
        """A scope without the suffix that Keras appended."""
        stripped = _SUFFIX.sub("", scope)
        if (stripped in self._order) == (scope in self._order):
            return stripped if self._suffixed else scope
        return stripped if stripped in self._order else scope

    def _find_root(self, scopes: Sequence[Sequence[str]]) -> str | None:
        """The scope of the model itself, where all names have one: it may be called like a layer."""
        firsts = Counter(path[0] for path in scopes)
        root, count = firsts.most_common(1)[0] if firsts else (None, 0)
        return root if count == len(scopes) and any(len(path) > 1 for path in scopes) else None

    def _has_suffixes(self, scopes: Iterable[Sequence[str]]) -> bool:
        """Whether the scopes that can be read in one way only carry a suffix; the rule, unless most say otherwise."""
        votes: Counter[bool] = Counter()
        for scope in {scope for path in scopes for scope in path}:
            exact, stripped = scope in self._order, _SUFFIX.sub("", scope) in self._order
            if exact != stripped or not _SUFFIX.search(scope):
                votes[stripped and not exact] += exact or stripped
        return votes[True] >= votes[False]


def find_layers(nodes: Sequence[Node], names: LayerNames, outputs: Sequence[int]) -> list[tuple[str, ...]]:
    """The layers of every operator of one subgraph.

    An operator belongs to the layers in the name of its output and in the names of its own constants. Where these are
    silent it belongs with its neighbours: QUANTIZE and DEQUANTIZE with the float side (the layer that needed them),
    others with what feeds them. The operator that makes the only output also belongs to the last layer.

    Args:
        nodes: operators in execution order.
        names: finds layers in names.
        outputs: tensor indices of the subgraph's outputs.

    Returns:
        For every operator, names in the order of the model; empty only where nothing in the file tells.
    """
    found = [names.in_tensor(";".join((*node.output_names, *node.constant_names))) for node in nodes]
    producer = {tensor: index for index, node in enumerate(nodes) for tensor in node.outputs}
    consumers: dict[int, list[int]] = {}
    for index, node in enumerate(nodes):
        for tensor in node.reads:
            consumers.setdefault(tensor, []).append(index)
    _add_last_layer(nodes, found, names, producer, outputs)
    for index, node in enumerate(nodes):
        if not found[index] and node.op not in EDGE_OPS:
            found[index] = _of_producers(index, nodes, found, producer)
    for index, node in enumerate(nodes):
        if node.op in EDGE_OPS and not _from_constant(node):
            found[index] = _of_edge(index, nodes, found, producer, consumers)
    for index in reversed(range(len(nodes))):
        if not found[index]:
            found[index] = _of_consumers(index, nodes, found, consumers)
    return [names.sort(layers) for layers in found]


def _add_last_layer(
    nodes: Sequence[Node],
    found: list[set[str]],
    names: LayerNames,
    producer: Mapping[int, int],
    outputs: Sequence[int],
) -> None:
    """Gives the operator that makes the only output to the last layer, unless that one has operators of its own."""
    index = producer.get(outputs[0]) if len(outputs) == 1 else None
    while index is not None and nodes[index].op in EDGE_OPS and nodes[index].inputs:
        index = producer.get(nodes[index].inputs[0])
    if index is None or names.last is None:
        return
    silent = not found[index]
    if silent or not any(names.last in layers for layers in found):
        found[index] |= {names.last}


def _of_producers(
    index: int, nodes: Sequence[Node], found: Sequence[set[str]], producer: Mapping[int, int]
) -> set[str]:
    """The layers of the nearest operators upstream that are known."""
    result: set[str] = set()
    for tensor in nodes[index].inputs:
        source = producer.get(tensor)
        while source is not None and not found[source] and nodes[source].inputs:
            source = producer.get(nodes[source].inputs[0])
        result |= found[source] if source is not None else set()
    return result


def _of_consumers(
    index: int, nodes: Sequence[Node], found: Sequence[set[str]], consumers: Mapping[int, Sequence[int]]
) -> set[str]:
    """The layers of the operators that read what this one makes."""
    readers = [reader for tensor in nodes[index].outputs for reader in consumers.get(tensor, ())]
    return {layer for reader in readers for layer in found[reader]}


def _of_edge(
    index: int,
    nodes: Sequence[Node],
    found: Sequence[set[str]],
    producer: Mapping[int, int],
    consumers: Mapping[int, Sequence[int]],
) -> set[str]:
    """The layers of a QUANTIZE or DEQUANTIZE: those on its float side, else those on the other."""
    before = _of_producers(index, nodes, found, producer)
    after = _of_consumers(index, nodes, found, consumers)
    return (after or before) if nodes[index].op == "DEQUANTIZE" else (before or after)


def _from_constant(node: Node) -> bool:
    """Whether it unpacks a stored constant, as every weight of a float16 file is unpacked."""
    return not node.inputs
