"""The one interface of a model: encode prompts, answer or rank options, and hand its parts to the pruner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from himap.tasks.base import Generation, Prompt


@dataclass
class Model:
    """A loaded multimodal LLM with what it needs to be asked and pruned.

    Adapters (one file each) subclass it and override `format`, and `encode` where preprocessing is special.

    Attributes:
        name: the configuration's name.
        family: which prompt of a task fits (`llava`, `qwen_vl_chat`, `internvl_chat`, `native`, `shapes`).
        hf: transformers' model in eval mode.
        processor: callable text + images -> tensors, with a `tokenizer`.
        image_token_ids: ids whose positions are image tokens.
        stop_token_ids: ids that end an answer.
    """

    name: str
    family: str
    hf: Any
    processor: Any
    image_token_ids: tuple[int, ...]
    stop_token_ids: tuple[int, ...]

    @property
    def device(self) -> torch.device:
        return self.hf.device

    @property
    def text_config(self) -> Any:
        """The text decoder's transformers configuration."""
        return self.hf.config.get_text_config()

    def format(self, prompt: Prompt) -> str:
        """The whole prompt in the model's own format, with image placeholders, as one string."""
        raise NotImplementedError

    def encode(self, prompts: Sequence[Prompt]) -> dict[str, torch.Tensor]:
        """Prompts -> a left-padded batch on the model's device, ready for `forward` and `generate`."""
        images = [image for prompt in prompts for image in prompt.images]
        batch = self.processor(
            text=[self.format(prompt) for prompt in prompts],
            images=images or None,
            padding=True,
            padding_side="left",
            # Not for the text, whose ids transformers would count one by one in Python before.
            images_kwargs={"return_tensors": "pt"},
        )
        return {key: self._place(value) for key, value in batch.items()}

    def _place(self, value: torch.Tensor | list[list[int]]) -> torch.Tensor:
        import torch

        value = torch.as_tensor(value)
        if value.is_floating_point():
            return value.to(self.device, self.hf.dtype)
        return value.to(self.device)

    def stop_for(self, form: str) -> tuple[int, ...]:
        """The ids that end an answer to a prompt of that form."""
        return self.stop_token_ids

    def generate(
        self, batch: dict[str, torch.Tensor], generation: Generation, form: str = "chat"
    ) -> list[str]:
        """Decode an answer for each row of an encoded batch.

        Args:
            batch: from `encode`.
            generation: how to decode.
            form: of the prompts; decides what ends an answer where a model has several forms.

        Returns:
            the new text of each row, special tokens left out, stripped.
        """
        import torch

        with torch.inference_mode():
            tokens = self.hf.generate(
                **batch,
                do_sample=False,
                num_beams=generation.num_beams,
                max_new_tokens=generation.max_new_tokens,
                min_new_tokens=generation.min_new_tokens or None,
                length_penalty=generation.length_penalty if generation.num_beams > 1 else None,
                eos_token_id=list(self.stop_for(form)),
                pad_token_id=self.processor.tokenizer.pad_token_id,
            )
        return self._texts(tokens[:, batch["input_ids"].shape[1] :])

    def go_on(
        self,
        batch: dict[str, torch.Tensor],
        prefilled: tuple[torch.Tensor, Any],
        generation: Generation,
        form: str = "chat",
    ) -> list[str]:
        """`generate` from prompts that the model has read already; needs `greedy.is_plain`.

        Args:
            batch: from `encode`.
            prefilled: logits [B, vocabulary] behind the prompts, and the cache that they filled.
            generation: how to decode.
            form: of the prompts.
        """
        import torch

        from himap.models.greedy import decode

        pad_id = self.processor.tokenizer.pad_token_id
        with torch.inference_mode():
            return self._texts(decode(self.hf, batch, *prefilled, generation, self.stop_for(form), pad_id))

    def _texts(self, tokens: torch.Tensor) -> list[str]:
        texts = self.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def option_ids(self, option: str, form: str) -> list[int]:
        """An option's tokens as they go on behind a prompt of that form."""
        ids: list[int] = self.processor.tokenizer.encode(option, add_special_tokens=False)
        return ids

    def rank(
        self,
        batch: dict[str, torch.Tensor],
        prompts: Sequence[Prompt],
        prefilled: tuple[torch.Tensor, Any] | None = None,
    ) -> list[str]:
        """The likeliest of each prompt's options: lowest mean negative log-likelihood of its tokens.

        Args:
            batch: from `encode`, of these prompts.
            prompts: with their options.
            prefilled: logits behind the prompts and the cache that they filled, where they were read already.

        One prefill, then the options one after the other on its cache; of equals the first wins.
        Source: the multiple-choice evaluation of Qwen-VL's repository.
        """
        from himap.models.ranking import option_nlls

        options = [[self.option_ids(text, prompt.form) for text in prompt.options] for prompt in prompts]
        losses = option_nlls(self.hf, batch, options, prefilled)
        return [
            prompt.options[min(range(len(row)), key=row.__getitem__)]
            for prompt, row in zip(prompts, losses, strict=True)
        ]
