"""Multiply-accumulates of a layer's call, for one sample at inference: a formula a class of Keras.

What counts is a product that is added to a sum: of matrices, convolutions, Fourier transforms; padding counts as values
do. A layer that only scales or multiplies values counts one a value. Biases, activations, and the gates and scales
inside of recurrent layers and attention are left out, as is usual in the field.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from mltool import extras
from mltool.inspection.graph import Call, Shape, Tensor


class NotCountedError(Exception):
    """No number can be told; the message says why, in the words of the user."""


def count_macs(call: Call) -> int:
    """Multiply-accumulates of one call, for one sample.

    Raises:
        NotCountedError: if its class has no formula, or a length of its tensors is not known.
    """
    kind = type(call.operation)
    is_layer = isinstance(call.operation, extras.keras().Layer)
    formulas, zero = (LAYERS, NO_PRODUCTS) if is_layer else (OPERATIONS, OPERATIONS_WITHOUT_PRODUCTS)
    # A class of another library may bear the name of one of Keras.
    if kind.__module__.partition(".")[0] == "keras":
        if kind.__name__ in zero:
            return 0
        if kind.__name__ in formulas:
            return formulas[kind.__name__](call)
    raise NotCountedError(f"no formula for {kind.__name__}")


def _size(shape: Sequence[int | None]) -> int:
    known = [length for length in shape if length is not None]
    if len(known) < len(shape):
        raise NotCountedError("a length of its input or output is not known before it runs")
    return math.prod(known)


def _dense(call: Call) -> int:
    """Outputs times inputs of each: y = x W, W of [inputs, outputs]."""
    return _size(call.gives[0].shape) * _size(call.takes[0].shape[-1:])


def _einsum_dense(call: Call) -> int:
    """Outputs times the lengths of the kernel's axes that are summed over: those that the output has not.

    The equation is in Einstein's notation, as numpy.einsum has it: "ab,bc->ac" sums over b.
    """
    kernel, _, output = call.operation.equation.replace(" ", "").partition(",")[2].partition("->")
    summed = [length for axis, length in zip(kernel, call.operation.kernel.shape, strict=True) if axis not in output]
    return _size(call.gives[0].shape) * _size(summed)


def _convolution(call: Call) -> int:
    """Outputs times the kernel that each sees: [*kernel_size, channels / groups].

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, arXiv:1603.07285; groups:
    Krizhevsky, Sutskever and Hinton, 2012.
    """
    return _size(call.gives[0].shape) * _size(call.operation.kernel.shape[:-1])


def _depthwise(call: Call) -> int:
    """Outputs times kernel_size: each sees one channel.

    Howard et al., "MobileNets", 2017, arXiv:1704.04861, section 3.1.
    """
    return _size(call.gives[0].shape) * _size(call.operation.kernel_size)


def _separable(call: Call) -> int:
    """Positions of the output times the weights of both kernels: each position meets each weight once.

    Howard et al., "MobileNets", 2017, arXiv:1704.04861, section 3.1, equation 5.
    """
    layer = call.operation
    weights = _size(layer.depthwise_kernel.shape) + _size(layer.pointwise_kernel.shape)
    positions: int = _size(call.gives[0].shape) // layer.filters
    return positions * weights


def _transposed(call: Call) -> int:
    """Inputs times [*kernel_size, filters]: each value is spread over so many.

    Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, arXiv:1603.07285, chapter 4.
    """
    return _size(call.takes[0].shape) * _size(call.operation.kernel.shape[:-1])


def _recurrent(call: Call) -> int:
    """Steps times the weights of both kernels, [inputs, g units] and [units, g units]; the gates' products left out.

    g is 1 (SimpleRNN: Elman, "Finding structure in time", 1990), 4 (LSTM: Hochreiter and Schmidhuber, "Long short-term
    memory", 1997, with the forget gate of Gers et al., 2000) or 3 (GRU: Cho et al., 2014, arXiv:1406.1078).
    """
    cell = call.operation.cell
    weights = _size(cell.kernel.shape) + _size(cell.recurrent_kernel.shape)
    return _size(call.takes[0].shape[:1]) * weights


def _convolutional_lstm(call: Call) -> int:
    """Steps times positions times the weights of both kernels.

    Shi et al., "Convolutional LSTM network", 2015, arXiv:1506.04214, equation 3, without its peepholes, as Keras.
    """
    layer, steps = call.operation, _size(call.takes[0].shape[:1])
    positions: int = _size(call.gives[0].shape) // layer.filters // (steps if layer.return_sequences else 1)
    return steps * positions * (_size(layer.cell.kernel.shape) + _size(layer.cell.recurrent_kernel.shape))


def _bidirectional(call: Call) -> int:
    """Both directions; one a value of the output more where they are multiplied.

    Schuster and Paliwal, "Bidirectional recurrent neural networks", 1997.
    """
    layer = call.operation
    total = 0
    for inner in (layer.forward_layer, layer.backward_layer):
        shape = inner.compute_output_shape((None, *call.takes[0].shape))
        first = shape[0] if isinstance(shape, list) or isinstance(shape[0], tuple) else shape
        total += count_macs(replace(call, operation=inner, gives=(Tensor(tuple(first[1:]), "float32"),)))
    return total + (_size(call.gives[0].shape) if layer.merge_mode == "mul" else 0)


def _time_distributed(call: Call) -> int:
    """Steps times the layer that it wraps."""
    takes, gives = (tuple(replace(t, shape=t.shape[1:]) for t in tensors) for tensors in (call.takes, call.gives))
    inner = replace(call, operation=call.operation.layer, takes=takes, gives=gives)
    return _size(call.takes[0].shape[:1]) * count_macs(inner)


def _wrapped(call: Call) -> int:
    """As the layer that it wraps: weights are normalized while training alone.

    Miyato et al., "Spectral normalization for generative adversarial networks", 2018, arXiv:1802.05957.
    """
    return count_macs(replace(call, operation=call.operation.layer))


def _query_value_key(call: Call) -> tuple[Shape, Shape, Shape]:
    """Shapes of what attention takes; the key is the value where it is left out."""
    query, value, *key = (tensor.shape for tensor in call.takes)
    return query, value, key[0] if key else value


def _multi_head_attention(call: Call) -> int:
    """Projections, and scores and weighted sums of every query over the keys.

    With T queries, S keys, h heads of d_k and d_v: T d h d_k + S d h (d_k + d_v) + T S h (d_k + d_v) + T h d_v d.
    Vaswani et al., "Attention is all you need", 2017, arXiv:1706.03762, section 3.2.
    """
    layer = call.operation
    query, value, key = _query_value_key(call)
    per_key: int = layer.num_heads * (layer.key_dim + layer.value_dim)
    projections = sum(
        _size(shape[:-1]) * _size(dense.kernel.shape)
        for shape, dense in (
            (query, layer.query_dense),
            (key, layer.key_dense),
            (value, layer.value_dense),
            (query, layer.output_dense),
        )
    )
    # Axes that are not attended over are as further samples.
    keys = _size([value[axis - 1] for axis in layer.attention_axes])
    return projections + _size(query[:-1]) * keys * per_key


def _group_query_attention(call: Call) -> int:
    """As multi-head attention, with fewer heads of keys and values, each used by a group of queries' heads.

    Ainslie et al., "GQA", 2023, arXiv:2305.13245, section 2.2.
    """
    layer = call.operation
    query, value, key = _query_value_key(call)
    heads: int = layer.num_query_heads * layer.head_dim
    of_query = 3 if layer.use_gate else 2  # in and out again, and the gate
    projections: int = of_query * _size(query) * heads
    projections += (_size(key) + _size(value)) * layer.num_key_value_heads * layer.head_dim
    return projections + 2 * _size(query[:-1]) * _size(value[:-1]) * heads


def _attention(call: Call) -> int:
    """Scores and weighted sums, without projections: T S (d + d_v).

    Luong, Pham and Manning, 2015, arXiv:1508.04025 (dot), Bahdanau, Cho and Bengio, 2014, arXiv:1409.0473 (additive).
    """
    query, value, _ = _query_value_key(call)
    return _size(query[:-1]) * _size(value[-2:-1]) * (_size(query[-1:]) + _size(value[-1:]))


def _dot(call: Call) -> int:
    """Outputs times the length of the axis that is summed over."""
    axes = call.operation.axes
    axis = axes if isinstance(axes, int) else axes[0]
    # Keras counts the samples as axis 0.
    return _size(call.gives[0].shape) * _size((call.takes[0].shape[axis - 1 if axis > 0 else axis],))


def _product(call: Call) -> int:
    """One a value for every factor but the first; a constant is a factor too."""
    return _size(call.gives[0].shape) * max(1, len(call.takes) - 1)


def _scaled(call: Call) -> int:
    """One a value: a x + b, with a and b known before.

    Batch normalization at inference: Ioffe and Szegedy, 2015, arXiv:1502.03167, algorithm 2, step 11.
    """
    return _size(call.gives[0].shape)


def _normalized(call: Call) -> int:
    """Two a value: its square for the variance (or the norm), and scaling.

    Ba, Kiros and Hinton, "Layer normalization", 2016, arXiv:1607.06450; Wu and He, "Group normalization", 2018,
    arXiv:1803.08494; Zhang and Sennrich, "Root mean square layer normalization", 2019, arXiv:1910.07467.
    """
    return 2 * _size(call.gives[0].shape)


_NEIGHBORS = {"nearest": 0, "bilinear": 4, "bicubic": 16}
"""Values that one is interpolated of; bicubic: Keys, "Cubic convolution interpolation", 1981."""


def _resized(call: Call) -> int:
    """Outputs times the neighbors that each is a weighted sum of.

    Raises:
        NotCountedError: if the interpolation is another one.
    """
    way = call.operation.interpolation
    if way not in _NEIGHBORS:
        raise NotCountedError(f"no formula for the interpolation {way!r}")
    return _NEIGHBORS[way] * _size(call.gives[0].shape)


def _looked_up(call: Call) -> int:
    """None; one a value where counts of words are weighed (`tf_idf`: Sparck Jones, 1972)."""
    return _size(call.gives[0].shape) if call.operation.get_config().get("output_mode") == "tf_idf" else 0


def _matrix_product(call: Call) -> int:
    """Outputs times the length that is summed over, the last of the first factor, which may be a constant."""
    return _size(call.gives[0].shape) * _size((call.operands[0].shape[-1],))


def _fourier(call: Call) -> int:
    """N log2 N for each transform of N real values, an estimate.

    (N / 2) log2 N butterflies, a complex product each (Cooley and Tukey, 1965), of four real ones; half of them,
    because N real values are transformed as N / 2 complex ones (Sorensen et al., "Real-valued fast Fourier transform
    algorithms", IEEE Trans. ASSP 35(6), 1987).
    """
    length = call.operation.fft_length or _size(call.takes[0].shape[-1:])
    return round(_size(call.takes[0].shape[:-1]) * length * math.log2(length))


Formula = Callable[[Call], int]


def _ranks(name: str) -> list[str]:
    return [name.replace("*", str(rank)) for rank in (1, 2, 3)]


LAYERS: dict[str, Formula] = {
    "Dense": _dense,
    "EinsumDense": _einsum_dense,
    **dict.fromkeys(_ranks("Conv*D"), _convolution),
    **dict.fromkeys(_ranks("Conv*DTranspose"), _transposed),
    "DepthwiseConv1D": _depthwise,
    "DepthwiseConv2D": _depthwise,
    "SeparableConv1D": _separable,
    "SeparableConv2D": _separable,
    "SimpleRNN": _recurrent,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    **dict.fromkeys(_ranks("ConvLSTM*D"), _convolutional_lstm),
    "Bidirectional": _bidirectional,
    "TimeDistributed": _time_distributed,
    "SpectralNormalization": _wrapped,
    "MultiHeadAttention": _multi_head_attention,
    "GroupedQueryAttention": _group_query_attention,
    "Attention": _attention,
    "AdditiveAttention": _attention,
    "Dot": _dot,
    "Multiply": _product,
    "BatchNormalization": _scaled,
    "Normalization": _scaled,
    "Rescaling": _scaled,
    "GroupNormalization": _normalized,
    "LayerNormalization": _normalized,
    "RMSNormalization": _normalized,
    "UnitNormalization": _normalized,
    "Resizing": _resized,
    "UpSampling2D": _resized,
    "CategoryEncoding": _looked_up,
    "Discretization": _looked_up,
    "IntegerLookup": _looked_up,
    "StringLookup": _looked_up,
    "TextVectorization": _looked_up,
}
"""Class of Keras to the formula of its multiply-accumulates."""

NO_PRODUCTS = frozenset(
    (
        *("InputLayer", "Identity", "Flatten", "Reshape", "Permute", "RepeatVector", "Masking"),
        *_ranks("Cropping*D"),
        *_ranks("ZeroPadding*D"),
        *("UpSampling1D", "UpSampling3D"),
        *("Add", "Average", "Concatenate", "Maximum", "Minimum", "Subtract"),
        *("Activation", "ELU", "LeakyReLU", "PReLU", "ReLU", "Softmax"),
        *(
            pooling
            for name in ("Average", "Max")
            for before in ("", "Global", "Adaptive")
            for pooling in _ranks(f"{before}{name}Pooling*D")
        ),
        # Rows of a table.
        *("Embedding", "ReversibleEmbedding", "Hashing", "HashedCrossing"),
        # These do nothing but while training.
        *("ActivityRegularization", "AlphaDropout", "Dropout", "GaussianDropout", "GaussianNoise"),
        *_ranks("SpatialDropout*D"),
        *("RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom"),
    )
)
"""Classes of Keras that multiply nothing; activations are not counted in any layer."""

OPERATIONS: dict[str, Formula] = {
    "Matmul": _matrix_product,
    "RFFT": _fourier,
    "Multiply": _product,
    "Square": _scaled,
}
"""The same for operations of `keras.ops`, of which the blocks are made."""

OPERATIONS_WITHOUT_PRODUCTS = frozenset(
    ("Add", "ExpandDims", "Log", "NotEqual", "Pad", "Reshape", "Take", "Transpose", "Where")
)
"""Operations of the blocks that multiply nothing."""
