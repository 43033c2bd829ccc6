"""The features of a TFRecord: what `data.source.features` says that every record holds."""

import re
from typing import Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from mltool.spec.section import Section, raise_problem

RECORD_NAME = re.compile(r"\.tfrecords?(-\d+-of-\d+)?(\.gz)?$", re.IGNORECASE)
"""How names of TFRecord files end, those of shards too; a compressed one is told apart when it is read."""

RawType = Literal["uint8", "int8", "uint16", "int16", "int32", "int64", "float16", "float32", "float64"]


class FeatureSpec(Section):
    """One feature of every record, as tf.io.FixedLenFeature has it, or bytes with what they are decoded to."""

    dtype: Literal["float32", "int64", "string"] | None = None
    """Of the values as tf.train.Example stores them."""
    shape: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Strict(False)] = ()
    """Of the values of one record; one value when left out."""
    decode: Literal["image"] | RawType | None = None
    """Instead of dtype: the bytes of a PNG, JPEG, BMP, GIF or WebP file, or raw numbers of this type, the low byte
    first."""

    @model_validator(mode="after")
    def _says_one_type(self) -> "FeatureSpec":
        if (self.dtype is None) == (self.decode is None):
            raise_problem("takes dtype or decode, one of the two", "write {dtype: float32, shape: [4]}", at_key=True)
        if self.decode == "image" and self.shape:
            raise_problem(
                "is told by the images",
                "leave it out; image_size brings them to one size",
                path=("shape",),
                at_key=True,
            )
        return self

    @property
    def is_image(self) -> bool:
        """Whether it holds encoded images."""
        return self.decode == "image"


def misfit_of_features(features: dict[str, FeatureSpec] | None, used: dict[str, Any]) -> tuple[str, str, str] | None:
    """What is wrong with the features of a TFRecord: key, message and hint; None if nothing is.

    Args:
        features: by name.
        used: key of the source to the name of the feature that it takes: target, weight, group.
    """
    if not features:
        return (
            "features",
            "is needed: what every record holds",
            "write features: {x: {dtype: float32, shape: [4]}, ...}",
        )
    if used.get("target") is None:
        return "target", "is needed: the feature with the labels or values", f"one of: {', '.join(features)}"
    for key, name in used.items():
        if name is not None and name not in features:
            return key, f"{name!r} is no feature", f"features has: {', '.join(features)}"
        if name is not None and features[name].is_image:
            return key, f"{name!r} holds images", "take a feature of numbers or text"
    return None
