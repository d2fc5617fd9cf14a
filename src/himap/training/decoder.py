"""Phase two: projector and decoder learn to answer, on features of the frozen tower."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from himap.models.shapes import N_IMAGE_TOKENS
from himap.training.config import TrainConfig
from himap.training.data import N_JUDGEMENTS, Packed, Packer
from himap.training.loop import Trainer, prefetched
from himap.training.tower import PropertyHeads


def train_decoder(
    model: Any, tokenizer: Any, config: TrainConfig, folder: Path, progress: Callable[..., None]
) -> None:
    """Train everything but the vision tower of `model` in place.

    Three auxiliary losses give the early layers what one-word answers do not tell them. Image tokens are
    asked whether they hold the centre of a thing; then every noun phrase is asked for the properties and the
    place of what it means; and some layers later the second thing of a relation whether the first comes
    before it, each option of a choice whether it is right, and what is counted how often it is there. Without
    them relations, choices and counts stay near chance for a thousand steps. Their heads are thrown away.
    """
    packer = Packer(tokenizer, N_IMAGE_TOKENS, config.text_tokens)
    taps = (config.centre_layer, config.grounding_layer, config.judgement_layer)
    network = _Network(model, taps, packer.image_start)
    width = model.config.text_config.hidden_size
    heads, centre = PropertyHeads(width), nn.Linear(width, 2)
    judges = nn.ModuleList(nn.Linear(width, n) for n in N_JUDGEMENTS)
    modules = nn.ModuleDict(
        {
            "projector": model.model.multi_modal_projector,
            "decoder": model.model.language_model,
            "lm_head": model.lm_head,
            "heads": heads,
            "judges": judges,
            "centre": centre,
        }
    )
    model.to(config.device)
    modules.to(config.device)
    model.model.vision_tower.requires_grad_(False)
    batches = prefetched(lambda step: packer.batch(config.seed, step, config.decoder.images))
    forward = torch.compile(network.forward) if config.compile else network.forward

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        batch = batches(step).to(config.device)
        with torch.autocast(config.device, torch.bfloat16, enabled=config.autocast):
            with torch.no_grad():
                features = model.model.vision_tower(batch.pixels).last_hidden_state[:, 1:]
            first, early, middle, late = forward(features, batch.ids, batch.positions, batch.mask())
        counted = batch.weights > 0
        logits = model.lm_head(late[counted].float())
        answer = F.cross_entropy(logits, batch.labels[counted], reduction="none")
        answer = (answer * batch.weights[counted]).sum() / batch.weights.sum()
        mentions = early[batch.mention_at[:, 0], batch.mention_at[:, 1]].float()
        grounding, right = heads.loss(mentions, batch.mention_labels)
        judgement = _judgement(judges, middle, batch)
        image = first[:, packer.image_start : packer.image_start + N_IMAGE_TOKENS].float()
        # Some four of 144 tokens hold a centre.
        balance = image.new_tensor([1.0, 20.0])
        placing = F.cross_entropy(centre(image).flatten(0, 1), batch.centres.flatten(), balance)
        total = answer + config.auxiliary_weight * (placing + grounding + judgement)
        if (step + 1) % config.log_every:
            return total, {}
        losses = {"answer": answer.item(), "placing": placing.item()}
        losses |= {"grounding": grounding.item(), "judgement": judgement.item()}
        grounded = {"grounded": right.all(1).float().mean().item()}
        return total, losses | grounded | _accuracies(model, batch, late)

    Trainer("decoder", config.decoder, config, modules, loss, folder).run(progress)


class _Network:
    """The decoder's layers with the hidden states after some of them, and nothing else around them."""

    def __init__(self, model: Any, taps: tuple[int, ...], image_start: int) -> None:
        self.projector, self.decoder = model.model.multi_modal_projector, model.model.language_model
        self.taps, self.image_start = taps, image_start

    def forward(
        self, features: torch.Tensor, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor
    ) -> list[torch.Tensor]:
        """Hidden states [B, T, D] after each tapped layer and after the final norm."""
        embedded = self.decoder.embed_tokens(ids)
        image = self.projector(features).to(embedded.dtype)
        # The image tokens stand at the same place in every row: behind the shared start's text.
        first = self.image_start
        hidden = torch.cat([embedded[:, :first], image, embedded[:, first + image.shape[1] :]], dim=1)
        rotary = self.decoder.rotary_emb(hidden, positions)
        tapped = []
        for index, layer in enumerate(self.decoder.layers):
            hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
            if index + 1 in self.taps:
                tapped.append(hidden)
        return [*tapped, self.decoder.norm(hidden)]


def _judgement(judges: nn.ModuleList, hidden: torch.Tensor, batch: Packed) -> torch.Tensor:
    """Mean cross-entropy of the judgements of each kind, summed."""
    at = hidden[batch.judgement_at[:, 0], batch.judgement_at[:, 1]].float()
    total = at.sum() * 0.0
    for kind, judge in enumerate(judges):
        chosen = batch.judgement_kind == kind
        if chosen.any():
            total = total + F.cross_entropy(judge(at[chosen]), batch.judgement_label[chosen])
    return total


@torch.no_grad()
def _accuracies(model: Any, batch: Packed, hidden: torch.Tensor) -> dict[str, float]:
    """Share of answers whose first token is right, by kind."""
    rows, columns = batch.answer_at.T
    right = model.lm_head(hidden[rows, columns].float()).argmax(-1) == batch.labels[rows, columns]
    by_kind: dict[str, list[bool]] = defaultdict(list)
    for kind, value in zip(batch.answer_kind, right.tolist(), strict=True):
        by_kind[kind].append(value)
    return {kind: sum(values) / len(values) for kind, values in sorted(by_kind.items())}
