"""Where the configuration lies: an environment variable, the checkout, or the installed package."""

from __future__ import annotations

import os
from pathlib import Path

from himap.errors import UserError

_PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The folder of Hydra's configuration: `HIMAP_CONF`, else conf/ of the checkout, else the package's copy.

    Raises:
        UserError: `HIMAP_CONF` names no folder of root configurations.
    """
    chosen = os.environ.get("HIMAP_CONF")
    if chosen:
        if not (Path(chosen) / "evaluate.yaml").is_file():
            raise UserError(f"HIMAP_CONF={chosen}: holds no evaluate.yaml (copy conf/, or use --config-dir).")
        return Path(chosen).resolve()
    for folder in (_PACKAGE.parents[1] / "conf", _PACKAGE / "conf"):
        if (folder / "evaluate.yaml").is_file():
            return folder
    raise UserError("conf: not found beside the source or in the package (install himap again).")
