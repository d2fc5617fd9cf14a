"""Any family that transformers has and `processors` knows: a YAML names it, nothing else is needed."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from himap.errors import UserError
from himap.models.base import Model
from himap.models.checkpoint import refuse_keys
from himap.models.hub import checkpoint_folder, read_json, shards
from himap.support import refuse_family

if TYPE_CHECKING:
    from himap.config import HardwareConfig, ModelConfig
    from himap.tasks.base import Prompt


@dataclass
class Native(Model):
    """A model of transformers with its own processor.

    Attributes:
        template: a chat template (Jinja) in place of the checkpoint's own; empty for its own.
        system: text of a system turn; empty for none.
    """

    template: str = ""
    system: str = ""

    def format(self, prompt: Prompt) -> str:
        content = [{"type": "image"} for _ in prompt.images] + [{"type": "text", "text": prompt.text}]
        turns: list[dict[str, Any]] = [{"role": "user", "content": content}]
        if self.system:
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system}]})
        text: str = self.processor.apply_chat_template(
            turns, chat_template=self.template or None, add_generation_prompt=True, tokenize=False
        )
        return text


def load(config: ModelConfig, hardware: HardwareConfig) -> Model:
    """The checkpoint at `model.path`, or the architecture in `model.options.config` with random weights.

    Raises:
        Unsupported: the family cannot be pruned soundly, or no processor is known for it.
        UserError: the checkpoint is missing, incomplete or does not fit.
    """
    from himap.models import processors

    if config.weights == "random":
        hf = build_random(config, hardware.device, hardware.dtype)
        processor = processors.from_config(hf.config)
    else:
        folder = checkpoint_folder(config.path, config.revision)
        processor = processors.from_folder(folder, read_config(folder).model_type)
        hf = load_pretrained(folder, hardware)
    attend(hf, hardware)
    prompt = dict(config.prompt)
    return Native(
        name=config.name,
        family="native",
        hf=hf,
        processor=processor,
        image_token_ids=placeholder_ids(hf.config),
        stop_token_ids=stop_ids(hf, processor.tokenizer),
        template=str(prompt.pop("template", "")),
        system=str(prompt.pop("system", "")),
    )


def read_config(folder: Path) -> Any:
    """The checkpoint's config as transformers reads it; families that cannot be pruned are refused here.

    Raises:
        Unsupported: by name, with the reason.
        UserError: transformers does not know the family.
    """
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    content = read_json(folder, "config.json")
    refuse_family(content.get("model_type", ""), content.get("text_config", {}).get("model_type", ""))
    if content.get("model_type") not in CONFIG_MAPPING:
        raise UserError(
            f"model.path={folder}: model_type={content.get('model_type')} is unknown to this transformers "
            "(a newer one may know it; code from the hub is never run)."
        )
    return AutoConfig.from_pretrained(folder, local_files_only=True)


def load_pretrained(folder: Path, hardware: HardwareConfig) -> Any:
    """A model of transformers from a folder, onto the device.

    Raises:
        UserError: files or keys are missing, or do not fit.
    """
    import torch
    from transformers import AutoModelForImageTextToText

    shards(folder)  # refuses an incomplete folder before anything is read
    config = read_config(folder)
    place: dict[str, Any] = {}
    if hardware.device != "cpu" and find_spec("accelerate"):
        # Straight to the device, shard by shard; without accelerate transformers fills host memory first.
        place["device_map"] = {"": torch.device(hardware.device)}
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder,
        config=config,
        dtype=getattr(torch, hardware.dtype),
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # reported below, by name
        weights_only=True,
        **place,
    )
    hf, report = loaded
    refuse_keys(
        folder,
        missing=sorted(report["missing_keys"]),
        unexpected=sorted(report["unexpected_keys"]),
        misshaped=[str(key[0]) for key in report["mismatched_keys"]],
    )
    return hf.to(hardware.device).eval()


def build_random(config: ModelConfig, device: str, dtype: str) -> Any:
    """The architecture that `model.options.config` describes (the fields of a config.json), with random
    weights made on the device; the meta device takes no memory.

    Raises:
        UserError: the configuration has no such block.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    if "config" not in config.options:
        raise UserError(
            f"model.weights=random: {config.name} has no model.options.config (fields of its config.json)."
        )
    fields = dict(config.options["config"])
    refuse_family(fields["model_type"], fields["text_config"].get("model_type", ""))
    torch.manual_seed(0)
    with torch.device(device):
        hf = AutoModelForImageTextToText.from_config(
            AutoConfig.for_model(fields.pop("model_type"), **fields), dtype=getattr(torch, dtype)
        )
    return hf.eval()


def attend(hf: Any, hardware: HardwareConfig) -> None:
    """Set the text decoder's attention, and plain decoding in place of what the checkpoint would sample."""
    from transformers import GenerationConfig

    composite = hf.config.get_text_config() is not hf.config
    hf.set_attn_implementation({"text_config": hardware.attention} if composite else hardware.attention)
    given = hf.generation_config
    hf.generation_config = GenerationConfig(
        eos_token_id=given.eos_token_id, bos_token_id=given.bos_token_id, pad_token_id=given.pad_token_id
    )


def placeholder_ids(config: Any) -> tuple[int, ...]:
    """The ids whose places the visual features take."""
    names = ("image_token_id", "video_token_id")
    return tuple(value for name in names if (value := getattr(config, name, None)) is not None)


def stop_ids(hf: Any, tokenizer: Any) -> tuple[int, ...]:
    """The ids that end an answer: the checkpoint's, with the tokenizer's end of text."""
    given = hf.generation_config.eos_token_id
    ids = [*(given if isinstance(given, list) else [given]), tokenizer.eos_token_id]
    return tuple(dict.fromkeys(number for number in ids if number is not None))
