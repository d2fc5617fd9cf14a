"""The weights as part of what a sweep is: trials of retrained ones do not belong on the same front."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from himap.config import ModelConfig
from himap.search.outcome import is_sweep, read_study
from himap.search.study import Sweep

log = logging.getLogger(__name__)


def with_weights(sweep: Sweep, model: ModelConfig, folder: Path) -> Sweep:
    """The sweep with its weights among the settings that must stay the same.

    Raises:
        UserError: the weights are missing, incomplete or out of reach.
    """
    from himap.models.fingerprint import identified

    named = replace(sweep, identity=identified(sweep.identity, model))
    if "weights" in named.identity and is_sweep(folder) and "weights" not in read_study(folder)["identity"]:
        log.warning(
            "%s: was begun before himap recorded the weights; whether they are the same cannot be told.",
            folder,
        )
        return sweep
    return named
