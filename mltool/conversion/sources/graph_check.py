"""The graph of a SavedModel, read without loading it: what it would do to the machine, and what cannot be converted.

Loading a SavedModel runs its initializers, and calling it runs whatever its operators are: they may write files. So
the file is taken for what it is, a program, and looked through first.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mltool import extras
from mltool.errors import ArtifactError, ConversionError

UNSAFE = re.compile(
    r"""(Write|Read)File | (Eager)?PyFunc(Stateless)? | MatchingFiles | .*FileSystem.*
    | Debug(Identity|NanCount|NumericSummary)(V\d)? | Copy(Host)?
    | (Create|Flush|Close|StatsAggregatorSet)?Summary.*Writer | CreateSummaryDbWriter | Write\w*Summary | ImportEvent
    | (TFRecord|TextLine|WholeFile|FixedLengthRecord|LMDB|BigQuery|Identity)Reader(V2)? | RecordInput
    | (Experimental)?(TFRecord|TextLine|FixedLengthRecord|CSV|Sql|LMDB|MatchingFiles|Cache)Dataset(V\d)?
    | (Experimental)?(Save|Load|Snapshot\w*|DataService|Register|Generator|ListSnapshotChunks)Dataset(V\d)?
    | DatasetFromGraph | DeserializeIterator | DumpTensor | CalibrationStatisticsSaver
    | (Experimental)?DatasetToTFRecord | SnapshotDatasetReader | SnapshotNestedDatasetReader | DistributedSave
    | LoadAndRemapMatrix | GenerateVocabRemapping | RemoteCall | RemoteFusedGraphExecute | Rpc\w* | TryRpc
    | LoadLibrary | _\w*Send | _\w*Recv | Send | Recv""",
    re.VERBOSE,
)
"""Operators that read or write files, call Python, reach other machines, or run a graph that a constant hides, of
TensorFlow 2.21's registry.

What reads an asset into a table of words
(`InitializeTableFromTextFile`) is not among them: nothing comes out of it but the words.
"""

_WRITES = frozenset({"SaveV2", "Save", "SaveSlices", "MergeV2Checkpoints"})
_READS = frozenset({"RestoreV2", "Restore", "RestoreSlice", "ShardedFilename", "ShardedFilespec"})
"""What every SavedModel holds for its weights; harmful only where something beside the saver reaches it."""

_NOT_COMPUTING = frozenset(
    {"Const", "Identity", "IdentityN", "Cast", "NoOp", "Placeholder", "ReadVariableOp", "VarHandleOp", "VariableV2"}
    | {"StatefulPartitionedCall", "PartitionedCall", "StopGradient", "Assert", "PreventGradient"}
)


MAX_GRAPH_BYTES = 2 << 30
"""Protocol buffers end there."""


def read_saved_model(folder: Path) -> Any:
    """The SavedModel message of a folder.

    Raises:
        ArtifactError: if it is missing, damaged or too large.
    """
    file = folder / "saved_model.pb"
    decode_error = extras.require("google.protobuf.message").DecodeError
    proto = extras.require("tensorflow.core.protobuf.saved_model_pb2").SavedModel()
    try:
        if file.stat().st_size > MAX_GRAPH_BYTES:
            raise ArtifactError(f"{file} has more than {MAX_GRAPH_BYTES:,} bytes", "it is not opened")
        proto.ParseFromString(file.read_bytes())
    except (OSError, decode_error) as error:
        what = f"cannot be read: {error.strerror}" if isinstance(error, OSError) else f"is damaged: {error}"
        raise ArtifactError(f"{file} {what}", "copy the folder again") from error
    if not proto.meta_graphs:
        raise ArtifactError(f"{file} is damaged: it holds no graph", "copy the folder again")
    return proto


def serving_graph(folder: Path, proto: Any) -> Any:
    """The MetaGraphDef for serving, a part of the message.

    Args:
        folder: in messages.
        proto: that `read_saved_model` gave.

    Raises:
        ConversionError: if there is none.
    """
    for graph in proto.meta_graphs:
        if "serve" in graph.meta_info_def.tags:
            return graph
    tags = ", ".join("+".join(sorted(graph.meta_info_def.tags)) or "none" for graph in proto.meta_graphs)
    raise ConversionError(f"{folder} has no graph for serving: its tags are {tags}", "export it with the tag serve")


@dataclass(frozen=True)
class Node:
    """One operator that can be reached.

    Attributes:
        name: inside of its graph or function.
        op: its kind.
        proto: the NodeDef.
    """

    name: str
    op: str
    proto: Any


class SavedGraph:
    """One meta graph, and what of it can be reached.

    Args:
        meta_graph: a MetaGraphDef.
    """

    def __init__(self, meta_graph: Any) -> None:
        self._graph = meta_graph.graph_def
        self._meta = meta_graph
        self.is_version_1 = not meta_graph.HasField("object_graph_def")

    @cached_property
    def _functions(self) -> dict[str, Any]:
        return {function.signature.name: function for function in self._graph.library.function}

    @cached_property
    def _nodes(self) -> dict[str, Any]:
        return {node.name: node for node in self._graph.node}

    def all_nodes(self) -> Iterator[Node]:
        """Every operator, reached or not."""
        bodies = [self._graph.node, *(function.node_def for function in self._functions.values())]
        return (Node(node.name, node.op, node) for body in bodies for node in body)

    def unsafe_ops(self) -> list[str]:
        """Kinds of operators that do something to the machine beside computing; sorted."""
        found = {node.op for node in self.all_nodes() if UNSAFE.fullmatch(node.op) or _prints_to_file(node)}
        found |= {node.op for node in self.reached_when_used() if node.op in _WRITES | _READS}
        # TensorFlow 1 runs, to restore the weights, whatever operator is said to do it.
        restore = self._meta.saver_def.restore_op_name
        found |= {node.op for node in self._reach([restore], ()) if node.op in _WRITES}
        return sorted(found)

    def unknown_ops(self, known: Iterable[str]) -> list[str]:
        """Kinds of operators that are neither known nor functions of the graph; sorted."""
        names = {node.op for node in self.all_nodes()} - set(self._functions) - set(known)
        return sorted(names)

    def reached_when_used(self) -> list[Node]:
        """What loading the model, or calling any of its signatures or functions, may run."""
        signatures = [one for key, one in self._meta.signature_def.items() if key != "__saved_model_train_op"]
        tensors = [info.name for one in signatures for info in one.outputs.values()]
        initial = self._meta.collection_def.get("main_op") or self._meta.collection_def.get("legacy_init_op")
        tensors += list(initial.node_list.value) if initial is not None else []
        return list(self._reach(tensors, self._meta.object_graph_def.concrete_functions))

    def reached_by(self, signature: Any) -> list[Node]:
        """What a call of one signature may run, in the order of the graph as far as it has one."""
        nodes = list(self._reach([info.name for info in signature.outputs.values()], ()))
        return nodes[::-1]

    def _reach(self, tensors: Sequence[str], functions: Iterable[str]) -> Iterator[Node]:
        """Nodes of the graph behind tensors, and the bodies of functions that they name; every one once."""
        waiting = [tensor.lstrip("^").partition(":")[0] for tensor in tensors]
        called = list(functions)
        seen_nodes: set[str] = set()
        seen_functions: set[str] = set()
        while waiting or called:
            if waiting:
                name = waiting.pop()
                node = self._nodes.get(name)
                if node is None or name in seen_nodes:
                    continue
                seen_nodes.add(name)
                waiting += [given.lstrip("^").partition(":")[0] for given in node.input]
                called += self._called_by(node)
                yield Node(node.name, node.op, node)
                continue
            name = called.pop()
            function = self._functions.get(name)
            if function is None or name in seen_functions:
                continue
            seen_functions.add(name)
            for node in reversed(function.node_def):
                called += self._called_by(node)
                yield Node(node.name, node.op, node)

    def _called_by(self, node: Any) -> list[str]:
        """Functions that an operator names: its own kind, and those among its attributes."""
        found = [node.op] if node.op in self._functions else []
        for value in node.attr.values():
            found += [value.func.name] if value.HasField("func") else []
            found += [one.name for one in value.list.func]
        return found


def first_of_type(nodes: Iterable[Node], enum: int) -> Node | None:
    """The first operator that computes in an element type.

    Args:
        nodes: in the order of the graph.
        enum: of the type, as the protocol buffers number it.
    """
    for node in nodes:
        attributes = node.proto.attr
        if node.op in _NOT_COMPUTING or node.op.startswith("_"):
            continue
        if any(attributes[key].type == enum for key in ("T", "dtype", "DstT") if key in attributes):
            return node
    return None


def _prints_to_file(node: Node) -> bool:
    """`tf.print` takes a file too, as an attribute."""
    return node.op == "PrintV2" and node.proto.attr["output_stream"].s.startswith(b"file:")


def is_computing(node: Node) -> bool:
    """Whether an operator is more than plumbing."""
    return node.op not in _NOT_COMPUTING and not node.op.startswith("_")
