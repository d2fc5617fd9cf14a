"""Qwen2's decoder with Qwen-VL's visual module, as one transformers model for generation."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from himap.models.qwen_vl_visual import QwenVisual


class QwenVLForCausalLM(Qwen2ForCausalLM):
    """Qwen2 for generation whose placeholders take the image tokens' features.

    Args:
        config: Qwen2's, with `visual` (the published block) and `image_token_id`.
    """

    def __init__(self, config: Qwen2Config) -> None:
        super().__init__(config)
        settings: Any = config
        self.visual = QwenVisual(settings.visual)
        self.post_init()

    def get_image_features(self, pixel_values: Tensor, **_: Any) -> Tensor:
        """Image tokens [n, 256, D] of pixels [n, 3, S, S], under the name that transformers' models use."""
        features: Tensor = self.visual(pixel_values)
        return features

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        # generate() looks for these names before it passes them.
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> Any:
        """As Qwen2's; `pixel_values` [n, 3, S, S] fill the places of `image_token_id` in their order."""
        if pixel_values is not None and input_ids is not None:
            inputs_embeds = self.model.embed_tokens(input_ids)
            features = self.get_image_features(pixel_values).to(inputs_embeds)
            settings: Any = self.config
            places = (input_ids == settings.image_token_id)[..., None].expand_as(inputs_embeds)
            if places.sum() != features.numel():
                raise ValueError(
                    f"{int(places.sum()) // features.shape[-1]} placeholders for {features.shape[0]} images"
                )
            inputs_embeds = inputs_embeds.masked_scatter(places, features)
            input_ids = None
        return super().forward(
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Any, *, pixel_values: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """As Qwen2's; only a forward that reads the whole prompt gets its images."""
        inputs = super().prepare_inputs_for_generation(input_ids, **kwargs)  # type: ignore[misc]
        if kwargs.get("is_first_iteration") or not kwargs.get("use_cache", True):
            inputs["pixel_values"] = pixel_values
        return inputs
