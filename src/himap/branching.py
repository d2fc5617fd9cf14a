"""Many strategies in one pass: those that begin alike share their layers, up to where they part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from himap.attention import tap
from himap.deepstack import thinned
from himap.dropping import attention_scores, fixed_scores, later_arguments, reads_attention
from himap.entry import Entry
from himap.forked import PathCache
from himap.layout import Counts, Layout
from himap.masks import decode_mask, prefill_mask
from himap.openings import Openings, Shared, Together, Tokens
from himap.positions import forget_images
from himap.pruning import alone
from himap.selection import Selection, gather_tokens, stacked
from himap.strategy import Stage, Strategy
from himap.support import check_layout, check_supported, text_decoder
from himap.trie import Node, Ranking, ranking, trie

# Rows of a batch are cheaper than passes of their own while both are small: on two CPU cores a token cost
# half as much among 480 as among 60, and no less among more.
_STACKED_TOKENS = 512


@dataclass(eq=False)
class Branch:
    """Tokens right behind a fork.

    Attributes:
        node: what goes on with them.
        selection: which they are.
        hidden: [B, n, D], their states.
    """

    node: Node
    selection: Selection
    hidden: Tensor


@dataclass(eq=False)
class Leaf:
    """The end of the prefill of some strategies that keep the same tokens.

    Attributes:
        strategies: their numbers.
        logits: [B, vocabulary] float32, at each prompt's last position.
        cache: keys and values of the prompt; None where a pass was asked for one new token. The model may
            be called on it for as long as the leaf is the walk's current one.
        selection: the tokens kept to the end.
    """

    strategies: list[int]
    logits: Tensor
    cache: PathCache | None
    selection: Selection


class Branches:
    """Runs many strategies on a batch as a walk through the trie of their stages, depth first.

    The layers before the first drop run once for all strategies, a criterion is scored once for all drops
    after the same layer, and strategies with equal first stages stay together until they part. What each one
    computes is what a `Pruner` with it computes.

    Args:
        model: transformers' model, as for `himap.pruning.Pruner`.
        strategies: to run together.
        image_token_ids: ids of the placeholders that visual features replace.

    Raises:
        Unsupported: the model cannot be pruned soundly.
        ConfigError: a stage lies beyond the model's layers.
    """

    def __init__(self, model: Any, strategies: Sequence[Strategy], *, image_token_ids: Sequence[int]) -> None:
        check_supported(model)
        self._model = model
        self._decoder: Any = text_decoder(model)
        self._strategies = list(strategies)
        self._image_token_ids = tuple(image_token_ids)
        for strategy in self._strategies:
            strategy.check_depth(self._n_layers)
        self._stack: ExitStack | None = None
        self._layout: Layout | None = None
        self._cache: PathCache | None = None
        # The tokens in each layer of the current path; what is to be scored in the layer that runs now.
        self._path: list[Selection] = []
        self._current: Tokens | None = None  # in the layer that runs now; None while none does
        self._wanted: list[Stage] = []
        self._scores: dict[Ranking, Tensor] = {}

    @property
    def _n_layers(self) -> int:
        return len(self._decoder.layers)

    @property
    def _implementation(self) -> str:
        name: str = self._decoder.config._attn_implementation
        return name

    @property
    def _deepstack(self) -> bool:
        return hasattr(self._decoder, "_deepstack_process")

    def __enter__(self) -> Branches:
        with ExitStack() as stack:
            stack.enter_context(alone(self._model, "strategies"))
            stages = [stage for strategy in self._strategies for stage in strategy.stages]
            for layer in sorted({stage.layer for stage in stages if reads_attention(stage)}):
                stack.enter_context(tap(self._decoder.layers[layer - 1].self_attn, self._listen))
            for layer in self._decoder.layers:
                hook = layer.register_forward_pre_hook(self._before_step, with_kwargs=True)
                stack.callback(hook.remove)
            hook = self._decoder.layers[-1].mlp.register_forward_pre_hook(self._before_last_mlp)
            stack.callback(hook.remove)
            stack.enter_context(thinned(self._decoder, self._selection))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        self._forget()
        if stack is not None:
            stack.close()

    def run(self, inputs: dict[str, Tensor], n_new: int = 1) -> Iterator[Leaf]:
        """Walk through all strategies; each appears in one leaf.

        Args:
            inputs: an encoded batch, left-padded.
            n_new: tokens of an answer; from 2 on leaves have a cache.

        Raises:
            Unsupported: a prompt ends with an image token.
        """
        layout = Layout.from_ids(inputs["input_ids"], self._image_token_ids, inputs.get("attention_mask"))
        check_layout(layout)
        forget_images(self._model)
        entry = Entry(self._model, inputs)
        self._layout = layout
        self._cache = PathCache.empty(entry.n_layers, n_new) if n_new > 1 else None
        self._path = [Selection.whole(layout)] * entry.n_layers
        root = trie(self._strategies, sorted({count.n_image for count in layout.counts}))
        try:
            yield from self._walk(entry, root, 0, self._enter(entry, layout))
        finally:
            self._forget()

    def _enter(self, entry: Entry, layout: Layout) -> Tokens:
        # Visual features that enter between the layers know the prompt's own order alone.
        if not self._deepstack:
            openings = Openings.find(layout, entry.hidden)
            if openings is not None:
                return Shared(openings, entry, self._implementation)
        return Together(entry.hidden, self._path[0])

    def _walk(self, entry: Entry, node: Node, first: int, tokens: Tokens) -> Iterator[Leaf]:
        """Run a node's tokens from layer `first` (0-based) on, as deep as its strategies need."""
        assert self._layout is not None
        depths = [stage.layer for stage, _ in node.children.values()]
        depth = entry.n_layers if node.strategies else max(depths)
        scores: dict[Ranking, Tensor] = {}
        for index in range(first, depth + 1):
            for alike in self._stacks(self._part(node, index, tokens, scores)):
                if len(alike) > 1:
                    yield from self._finish(entry, index, alike)
                else:
                    (one,) = alike
                    after = self._changes(entry, one.selection, one.hidden)
                    yield from self._walk(entry, one.node, index, Together(one.hidden, one.selection, after))
            if index < depth:
                wanted = [children[0][0] for children in node.rankings(index + 1).values()]
                scores = self._layer(entry, index, tokens, wanted)
        if node.strategies:
            yield from self._leaf(node, entry.head(tokens.last), tokens.selection)

    def _part(self, node: Node, layer: int, tokens: Tokens, scores: dict[Ranking, Tensor]) -> list[Branch]:
        """Drop what the node's children drop behind that many layers."""
        assert self._layout is not None
        branches: list[Branch] = []
        parting = node.rankings(layer)
        if not parting:
            return branches
        hidden, selection = tokens.hidden, tokens.selection
        for key, children in parting.items():
            for stage, child in children:
                ranked = scores.get(key)
                if ranked is None:
                    ranked = fixed_scores(stage, self._layout, selection)
                fewer, places = selection.after(stage, ranked, self._layout)
                branches.append(Branch(child, fewer, gather_tokens(hidden, places)))
        return branches

    def _changes(self, entry: Entry, selection: Selection, hidden: Tensor) -> dict[str, Any]:
        tables = entry.arguments["position_embeddings"]
        return later_arguments(selection, hidden, tables, self._implementation)

    def _stacks(self, branches: Sequence[Branch]) -> Iterator[Sequence[Branch]]:
        """Put branches together that part no more, are equally long and small enough to be faster so."""
        ends: dict[tuple[Counts, ...], list[Branch]] = {}
        for branch in branches:
            if branch.node.children or self._deepstack:
                yield [branch]
            else:
                ends.setdefault(tuple(branch.selection.counts), []).append(branch)
        for alike in ends.values():
            size = max(1, _STACKED_TOKENS // alike[0].selection.positions.numel())
            for start in range(0, len(alike), size):
                yield alike[start : start + size]

    def _finish(self, entry: Entry, first: int, alike: Sequence[Branch]) -> Iterator[Leaf]:
        """Run branches of equal lengths from layer `first` (0-based) to the end, as rows of one batch."""
        selection = stacked([branch.selection for branch in alike])
        hidden = torch.cat([branch.hidden for branch in alike])
        each = [self._changes(entry, branch.selection, branch.hidden) for branch in alike]
        tables = zip(*(changes["position_embeddings"] for changes in each), strict=True)
        changes = {
            **each[0],
            "position_embeddings": tuple(torch.cat(table, dim=-3) for table in tables),
            "attention_mask": prefill_mask(selection.valid, hidden, self._implementation),
        }
        tokens = Together(hidden, selection, changes)
        for index in range(first, entry.n_layers):
            self._layer(entry, index, tokens, [])
        logits, whole = entry.head(tokens.last), self._cache
        for number, (branch, mine) in enumerate(zip(alike, logits.chunk(len(alike)), strict=True)):
            self._path[first:] = [branch.selection] * (entry.n_layers - first)
            if whole is not None:
                self._cache = whole.part(first, number * len(mine), (number + 1) * len(mine))
            yield from self._leaf(branch.node, mine, branch.selection)
        self._cache = whole

    def _leaf(self, node: Node, logits: Tensor, selection: Selection) -> Iterator[Leaf]:
        yield Leaf(node.strategies, logits, self._cache, selection)
        if self._cache is not None:
            self._cache.rewind()

    def _layer(self, entry: Entry, index: int, tokens: Tokens, wanted: list[Stage]) -> dict[Ranking, Tensor]:
        """Let tokens go through a layer; returns the scores of the stages that come right behind it."""
        self._path[index] = tokens.selection
        self._wanted = [stage for stage in wanted if reads_attention(stage)]
        self._scores = {}
        self._current = tokens
        try:
            tokens.step(entry, index, self._cache)
        finally:
            self._current = None
        return self._scores

    def _selection(self) -> Selection | None:
        return None if self._current is None else self._current.selection

    def _listen(self, module: nn.Module, query: Tensor, key: Tensor, scale: float) -> None:
        if self._current is None or not self._wanted:
            return
        whole = self._current.heard(query)
        if whole is not None:
            assert self._layout is not None
            for stage in self._wanted:
                self._scores[ranking(stage)] = attention_scores(
                    stage, self._layout, self._current.selection, whole, key, scale
                )

    def _before_step(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Give a decode step the mask of the tokens that this layer still has."""
        if self._current is not None or self._cache is None:
            return None
        attention: Any = module.self_attn
        selection = self._path[attention.layer_idx]
        if not selection.dropped:
            return None
        n_keys = self._cache.get_seq_length(attention.layer_idx) + 1
        mask = decode_mask(selection.valid, n_keys, args[0], self._implementation)
        return args, {**kwargs, "attention_mask": mask}

    def _before_last_mlp(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        # Only the last position is read; added to the residual of all of them it is still right there.
        return None if self._current is None else (args[0][:, -1:],)

    def _forget(self) -> None:
        self._layout, self._cache, self._path, self._scores = None, None, [], {}
