"""LLaVA-1.5 7B and 13B: transformers' classes, with the prompt and the preprocessing of the original code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from himap.models.splice import Spliced
from himap.rules import one_of

if TYPE_CHECKING:
    from himap.config import HardwareConfig, ModelConfig
    from himap.models.base import Model
    from himap.tasks.base import Prompt

# The conversation template vicuna_v1 of LLaVA's repository.
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)

IMAGE_TOKEN = "<image>"
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
"""Mean and standard deviation of CLIP's pixels, for values in [0, 1]."""


class Llava(Spliced):
    """LLaVA in the conversation that Vicuna-v1.5 was tuned on."""

    def pieces(self, prompt: Prompt) -> list[str]:
        if not prompt.images:
            return [f"{SYSTEM} USER: {prompt.text} ASSISTANT:"]
        return [f"{SYSTEM} USER: ", *["\n"] * (len(prompt.images) - 1), f"\n{prompt.text} ASSISTANT:"]

    def option_ids(self, option: str, form: str) -> list[int]:
        # A piece gets a space of its own in front; what follows "ASSISTANT:" has exactly that one.
        return self.piece_ids(option.strip())


def load(config: ModelConfig, hardware: HardwareConfig) -> Model:
    """LLaVA from a checkpoint in the layout of llava-hf, or with random weights.

    Raises:
        UserError: the checkpoint is missing, incomplete or does not fit.
    """
    from himap.models import native
    from himap.models.hub import checkpoint_folder

    if config.weights == "random":
        from himap.models.processors import byte_tokenizer

        hf = native.build_random(config, hardware.device, hardware.dtype)
        tokenizer = byte_tokenizer({IMAGE_TOKEN: hf.config.image_token_id})
    else:
        from transformers import AutoTokenizer

        folder = checkpoint_folder(config.path, config.revision)
        hf = native.load_pretrained(folder, hardware)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    native.attend(hf, hardware)
    vision = hf.config.vision_config
    # Left padding never shows, for it is masked; any id of the vocabulary serves.
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token
    return Llava(
        name=config.name,
        family="llava",
        hf=hf,
        processor=SimpleNamespace(tokenizer=tokenizer),
        image_token_ids=(hf.config.image_token_id,),
        stop_token_ids=(tokenizer.eos_token_id,),
        n_image_tokens=(vision.image_size // vision.patch_size) ** 2,
        image_processor=image_processor(config.options.get("aspect", "pad"), vision.image_size, CLIP),
        bos=(tokenizer.bos_token_id,),
    )


def image_processor(aspect: str, side: int, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    """LLaVA's preprocessing: to a square, shortest edge to `side` (bicubic), the middle, normalised.

    Args:
        aspect: `pad` fills the image up to a square with the mean colour, as LLaVA's evaluation does for all
            but ScienceQA; `crop` cuts the middle out, as it does there.
        side: in pixels.
        statistics: mean and standard deviation of the pixels.

    Raises:
        ConfigError: `aspect` is neither.
    """
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    one_of("model.options.aspect", aspect, ("pad", "crop"))
    mean, std = statistics
    return LlavaImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        do_pad=aspect == "pad",
        image_mean=list(mean),
        image_std=list(std),
    )
