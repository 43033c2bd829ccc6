"""Networks of the field, one a file: plain Keras graphs that a spec names as layers (`spec/architectures.py`)."""

from collections.abc import Callable
from typing import Any

from mltool.models.architectures.autoencoder import Autoencoder
from mltool.models.architectures.cnn import CNN
from mltool.models.architectures.cnn1d import CNN1D
from mltool.models.architectures.dscnn import DSCNN
from mltool.models.architectures.inception_time import InceptionTime
from mltool.models.architectures.mlp import MLP
from mltool.models.architectures.mobilenet_v1 import MobileNetV1
from mltool.models.architectures.resnet8 import ResNet8
from mltool.models.architectures.text_transformer import TextTransformer
from mltool.models.architectures.unet import UNet

ARCHITECTURES: dict[str, Callable[..., Any]] = {
    "Autoencoder": Autoencoder,
    "CNN": CNN,
    "CNN1D": CNN1D,
    "DSCNN": DSCNN,
    "InceptionTime": InceptionTime,
    "MLP": MLP,
    "MobileNetV1": MobileNetV1,
    "ResNet8": ResNet8,
    "TextTransformer": TextTransformer,
    "UNet": UNet,
}
"""Name in the spec to what builds it."""
