"""A pruned model as an evaluation runs it: the Pruner's hooks, a growing cache, one operation at a time."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from himap.execution.base import Steps
from himap.models.base import Model
from himap.positions import forget_images, later_positions
from himap.pruning import Pruner
from himap.strategy import Strategy

# The execution whose pruner a model wears now: a model can wear one, and executions take turns.
_wearing: WeakKeyDictionary[nn.Module, Eager] = WeakKeyDictionary()


class Eager:
    """The Pruner and transformers' DynamicCache.

    The pruner stays attached from one prefill to the next, until another execution of the same model takes
    its turn; the first prefill after that attaches it anew (well below a millisecond).

    Args:
        model: a loaded model.
        strategy: what to prune.
        n_new: how many tokens may follow a prompt.
    """

    def __init__(self, model: Model, strategy: Strategy, n_new: int) -> None:
        self._hf = model.hf
        self._pruner = Pruner(model.hf, strategy, image_token_ids=model.image_token_ids)
        self._steps = Steps(n_new)
        self._cache: Any = None
        self._mask: Tensor | None = None

    @property
    def kept(self) -> list[list[Tensor]]:
        """Image tokens kept by the last prefill, as `Pruner.kept` gives them."""
        return self._pruner.kept

    @torch.inference_mode()
    def prefill(self, inputs: dict[str, Tensor]) -> Tensor:
        from transformers import DynamicCache

        if _wearing.get(self._hf) is not self:
            release(self._hf)
            self._pruner.__enter__()
            _wearing[self._hf] = self
        forget_images(self._hf)
        self._cache = DynamicCache(config=self._hf.config.get_text_config())
        output = self._hf(**inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        ids = inputs["input_ids"]
        self._mask = inputs.get("attention_mask", torch.ones_like(ids))
        self._steps.begin()
        return output.logits[:, -1]

    @torch.inference_mode()
    def step(self, token: Tensor) -> Tensor:
        self._steps.take()
        assert self._mask is not None
        self._mask = nn.functional.pad(self._mask, (0, 1), value=1)
        output = self._hf(
            input_ids=token,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **later_positions(self._hf, self._mask.sum(-1, keepdim=True) - 1),
        )
        return output.logits[:, -1]

    def close(self) -> None:
        if _wearing.get(self._hf) is self:
            release(self._hf)

    def _take_off(self) -> None:
        self._pruner.__exit__(None, None, None)
        self._cache = self._mask = None
        self._steps.end()


def release(hf: nn.Module) -> None:
    """Take off the pruner of an eager execution that the model may be wearing."""
    execution = _wearing.pop(hf, None)
    if execution is not None:
        execution._take_off()
