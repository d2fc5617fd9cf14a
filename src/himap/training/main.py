"""`himap train`: both phases, then the weights in half precision with a card of how they were made."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from himap.files import write_json
from himap.models.shapes import build_model, build_processor
from himap.training.config import TrainConfig
from himap.training.decoder import train_decoder
from himap.training.tower import train_tower


def run(config: TrainConfig, folder: Path, progress: Callable[..., None]) -> Path:
    """Train the embedded model, going on from checkpoints in `folder`.

    Returns:
        the folder with the finished model in transformers' layout.

    Raises:
        UserError: the checkpoints were made with another recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    started = time.monotonic()
    model, processor = build_model(), build_processor()
    train_tower(model, config, folder, progress)
    train_decoder(model, processor.tokenizer, config, folder, progress)
    finished = folder / "model"
    model.cpu().half().save_pretrained(finished)
    processor.save_pretrained(finished)
    versions = {"torch": torch.__version__, "minutes_since_last_start": (time.monotonic() - started) / 60}
    write_json(finished / "training.json", {"recipe": config.recipe()} | versions)
    return finished
