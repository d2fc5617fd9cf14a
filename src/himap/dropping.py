"""What a stage does to the tokens of a prefill: score them, drop some, and tell later layers what is left."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from himap import criteria
from himap.attention import column_sums
from himap.layout import Layout
from himap.masks import prefill_mask
from himap.selection import Selection, gather_tokens
from himap.strategy import Stage


def reads_attention(stage: Stage) -> bool:
    """Whether the stage's criterion looks at the attention of the layer before it."""
    return isinstance(criteria.get(stage.criterion), criteria.RowCriterion)


def attention_scores(
    stage: Stage, layout: Layout, selection: Selection, query: Tensor, key: Tensor, scale: float
) -> Tensor:
    """Score the tokens present by the attention that they receive.

    Args:
        stage: of a criterion that reads attention.
        layout: of the prompt.
        selection: the n tokens present.
        query: [B, H, n, D] after RoPE.
        key: [B, H_kv, n, D].
        scale: factor on q.k before the softmax.

    Returns:
        [B, n] float32; only image tokens' scores mean something.
    """
    criterion = criteria.get(stage.criterion)
    assert isinstance(criterion, criteria.RowCriterion)
    return column_sums(
        query,
        key,
        selection.pick(criterion.rows(layout)),
        scale,
        valid=selection.valid,
        n_rows=max(criterion.n_rows(count) for count in selection.counts),
        normalise=stage.normalise,
        exclude_self=stage.exclude_self,
    )


def fixed_scores(stage: Stage, layout: Layout, selection: Selection) -> Tensor:
    """Score the tokens present by a criterion that reads no attention, [B, n]."""
    criterion = criteria.get(stage.criterion)
    assert isinstance(criterion, criteria.FixedCriterion)
    return criterion.scores(layout, stage.seed).gather(-1, selection.positions)


def later_arguments(
    selection: Selection, hidden: Tensor, tables: tuple[Tensor, ...], implementation: str
) -> dict[str, Any]:
    """What the layers after a drop get instead of the model's own arguments.

    Args:
        selection: the n tokens still present.
        hidden: [B, n, D], their states.
        tables: cosines and sines of the whole prompt, each [..., B or 1, T, D].
        implementation: name of the attention function.
    """
    return {
        "position_embeddings": tuple(gather_tokens(table, selection.positions) for table in tables),
        "attention_mask": prefill_mask(selection.valid, hidden, implementation),
        # With gaps they would be taken for several packed sequences; the tables hold the rotation.
        "position_ids": None,
    }
