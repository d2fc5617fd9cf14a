"""Which image tokens a strategy keeps, without running the layers after its last stage."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from himap.layout import Layout
from himap.pruning import Pruner
from himap.strategy import Strategy
from himap.support import text_decoder


class _Seen(Exception):
    """The last stage has dropped its tokens; nothing that comes later is asked for."""


def survivors(
    model: Any, inputs: dict[str, Tensor], layout: Layout, strategy: Strategy
) -> list[list[list[int]]]:
    """Run a prefill up to the strategy's last stage.

    Args:
        model: transformers' model, in eval mode.
        inputs: of its forward.
        layout: of the tokens.
        strategy: one or more stages.

    Returns:
        per sample, per stage: ordinals of the image tokens kept, counted from 0 over all the sample's images.
    """
    image_ids = inputs["input_ids"][layout.image].unique().tolist()
    with Pruner(model, strategy, image_token_ids=image_ids) as pruner, torch.inference_mode():
        # Registered after the pruner's own hook at this layer, so it runs when the tokens are gone.
        decoder: Any = text_decoder(model)
        layer = decoder.layers[strategy.stages[-1].layer]
        handle = layer.register_forward_pre_hook(_stop)
        try:
            model(**inputs, use_cache=False, logits_to_keep=1)
        except _Seen:
            pass
        finally:
            handle.remove()
        stages = pruner.kept
    found: list[list[list[int]]] = []
    for sample, image in enumerate(layout.image):
        # Positions count the sample's tokens, without padding.
        place = image[layout.present[sample]].cumsum(0) - 1
        found.append([place[stage[sample].to(place.device)].tolist() for stage in stages])
    return found


def _stop(module: Any, args: Any) -> None:
    raise _Seen
