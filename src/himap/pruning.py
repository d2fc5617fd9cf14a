"""The Pruner: attaches a strategy to a model for the length of a `with` block and leaves no trace."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from torch import Tensor, nn

from himap.attention import tap
from himap.deepstack import thinned
from himap.dropping import attention_scores, fixed_scores, later_arguments, reads_attention
from himap.errors import UserError
from himap.layout import Layout
from himap.masks import decode_mask
from himap.selection import Selection, gather_tokens
from himap.strategy import Stage, Strategy
from himap.support import check_cached_call, check_call, check_layout, check_supported, text_decoder

__all__ = ["Pruner", "check_supported", "text_decoder"]

_attached: WeakSet[nn.Module] = WeakSet()


@contextmanager
def alone(model: nn.Module, who: str) -> Iterator[None]:
    """Let nobody else prune the model meanwhile.

    Raises:
        UserError: somebody does already.
    """
    if model in _attached:
        raise UserError(f"{who}: a pruner is attached to this model already (leave its `with` block first).")
    _attached.add(model)
    try:
        yield
    finally:
        _attached.discard(model)


class _Prefill:
    """What one prefill has computed so far."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.selection = Selection.whole(layout)
        self.scores: Tensor | None = None  # [B, n] of the stage that comes next
        self.arguments: dict[
            str, Any
        ] = {}  # what the layers from the last drop on get instead of the model's own
        self.after_stage: list[Selection] = []


class Pruner:
    """Drops image tokens inside a model, as a strategy says, while the `with` block lasts.

    `forward()` and `generate()` of the model work as before (greedy, beam, sampling, streamer). Tokens are
    ranked once, in the prefill, by the prompt's own rows; decode steps run on the shortened cache. Without a
    cache every forward is a prefill of its own and ranks anew, counting the tokens generated so far as
    instruction (as the released code of HiMAP does). After a prefill that dropped something the logits are
    those of the tokens kept, right-aligned: `logits[:, -1]` belongs to each sample's last token.

    With a strategy without stages nothing is attached at all.

    Args:
        model: a transformers model with a causal decoder: `...ForConditionalGeneration` or `...ForCausalLM`.
        strategy: the stages.
        image_token_ids: ids of the placeholders that visual features replace.

    Raises:
        Unsupported: the model cannot be pruned soundly; the message says why.
        ConfigError: a stage lies beyond the model's layers.
    """

    def __init__(self, model: nn.Module, strategy: Strategy, *, image_token_ids: Sequence[int]) -> None:
        self.model = model
        self.strategy = strategy
        self.image_token_ids = tuple(image_token_ids)
        self._stack: ExitStack | None = None
        self._prefill: _Prefill | None = None
        self._last: _Prefill | None = None
        self._cached: WeakKeyDictionary[Any, list[Selection]] = WeakKeyDictionary()
        if strategy.stages:
            check_supported(model)
            self._decoder: Any = text_decoder(model)
            strategy.check_depth(len(self._layers))
            self._parameters = list(inspect.signature(model.forward).parameters)

    @property
    def _layers(self) -> nn.ModuleList:
        return self._decoder.layers

    @property
    def kept(self) -> list[list[Tensor]]:
        """Image tokens kept by the last prefill: per stage, per sample, sorted positions in the prompt.

        Positions count from the sample's first token; padding is not counted. Empty before the first prefill.
        """
        if self._last is None:
            return []
        layout = self._last.layout
        ordinal = layout.present.cumsum(-1) - 1
        result = []
        for selection in self._last.after_stage:
            image = selection.pick(layout.image)
            place = ordinal.gather(-1, selection.positions)
            result.append([row[mask] for row, mask in zip(place, image, strict=True)])
        return result

    def __enter__(self) -> Pruner:
        with ExitStack() as stack:
            stack.enter_context(alone(self.model, f"pruning={self.strategy.name}"))
            if self.strategy.stages:
                self._attach(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        self._prefill = None
        self._cached.clear()
        if stack is not None:
            stack.close()

    def _attach(self, stack: ExitStack) -> None:
        stages = self.strategy.stages
        before = self.model.register_forward_pre_hook(self._before_model, with_kwargs=True)
        stack.callback(before.remove)
        # Always called, so that a forward that failed half-way leaves no tensors behind.
        after = self.model.register_forward_hook(self._after_model, always_call=True)
        stack.callback(after.remove)
        stack.enter_context(thinned(self._decoder, self._selection))
        for number, stage in enumerate(stages):
            if reads_attention(stage):
                attention: Any = self._layers[stage.layer - 1].self_attn
                stack.enter_context(tap(attention, partial(self._score, stage)))
            end = stages[number + 1].layer if number + 1 < len(stages) else len(self._layers)
            for index in range(stage.layer, end):
                hook = partial(self._before_layer, number, index == stage.layer)
                handle = self._layers[index].register_forward_pre_hook(hook, with_kwargs=True)
                stack.callback(handle.remove)

    def _before_model(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = {**dict(zip(self._parameters, args, strict=False)), **kwargs}
        check_call(call)
        cache = call.get("past_key_values")
        if cache is not None and cache.get_seq_length() > 0:
            check_cached_call(call, known=cache in self._cached)
            return
        layout = Layout.from_ids(call["input_ids"], self.image_token_ids, call.get("attention_mask"))
        check_layout(layout)
        self._prefill = self._last = _Prefill(layout)

    def _after_model(self, module: nn.Module, args: Any, output: Any) -> None:
        self._prefill = None

    def _selection(self) -> Selection | None:
        return None if self._prefill is None else self._prefill.selection

    def _score(self, stage: Stage, module: nn.Module, query: Tensor, key: Tensor, scale: float) -> None:
        prefill = self._prefill
        if prefill is None or not prefill.selection.drops(stage):
            return
        prefill.scores = attention_scores(stage, prefill.layout, prefill.selection, query, key, scale)

    def _before_layer(
        self, number: int, at_stage: bool, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Hand a layer after stage `number` its tokens; `at_stage`: the stage drops right before it."""
        hidden, *rest = args
        prefill = self._prefill
        if prefill is None:
            return self._before_cached_layer(number, module, args, kwargs)
        if at_stage:
            hidden = self._drop(prefill, self.strategy.stages[number], hidden, kwargs)
            cache = kwargs.get("past_key_values")
            if cache is not None:
                self._cached[cache] = prefill.after_stage
        return (hidden, *rest), {**kwargs, **prefill.arguments}

    def _drop(self, prefill: _Prefill, stage: Stage, hidden: Tensor, kwargs: Mapping[str, Any]) -> Tensor:
        """Apply a stage: return the kept tokens' hidden states and prepare the later layers' arguments."""
        selection = prefill.selection
        if selection.drops(stage):
            scores, prefill.scores = prefill.scores, None
            if scores is None:
                scores = fixed_scores(stage, prefill.layout, selection)
            selection, index = selection.after(stage, scores, prefill.layout)
            hidden = gather_tokens(hidden, index)
            prefill.selection = selection
            implementation = self._decoder.config._attn_implementation
            prefill.arguments = later_arguments(
                selection, hidden, kwargs["position_embeddings"], implementation
            )
        prefill.after_stage.append(selection)
        return hidden

    def _before_cached_layer(
        self, number: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        cache: Any = kwargs.get("past_key_values")
        selections = None if cache is None else self._cached.get(cache)
        if selections is None:
            raise UserError(
                f"pruning={self.strategy.name}: the decoder was called past the model that the pruner is "
                "attached to (call that model itself)."
            )
        selection = selections[number]
        if not selection.dropped:
            return None
        hidden: Tensor = args[0]
        attention: Any = module.self_attn
        n_keys = cache.get_seq_length(attention.layer_idx) + 1
        mask = decode_mask(selection.valid, n_keys, hidden, self._decoder.config._attn_implementation)
        return args, {**kwargs, "attention_mask": mask}
