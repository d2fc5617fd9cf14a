"""Image features as transformers' models read them, without the tower's inner states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers.modeling_outputs import BaseModelOutputWithPooling


@dataclass
class ImageFeatures(BaseModelOutputWithPooling):
    """What `get_image_features` returns, as far as a model reads it.

    Attributes:
        pooler_output: a tensor [image tokens, D] for each image, or [n, image tokens, D].
        deepstack_features: the same for each layer that gets visual features again (Qwen3-VL).
    """

    deepstack_features: Any = None
