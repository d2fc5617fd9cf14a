"""The criteria that rank image tokens, one small file each."""

from __future__ import annotations

from himap.criteria.all2img import All2Img
from himap.criteria.base import Criterion, FixedCriterion, RowCriterion
from himap.criteria.img2img import Img2Img
from himap.criteria.img2txt import Img2Txt
from himap.criteria.last2img import Last2Img
from himap.criteria.random import Random
from himap.criteria.uniform import Uniform
from himap.errors import ConfigError

_CRITERIA: dict[str, Criterion] = {
    criterion.name: criterion
    for criterion in (Img2Txt(), Img2Img(), All2Img(), Last2Img(), Random(), Uniform())
}


def get(name: str) -> Criterion:
    """The criterion of that name.

    Raises:
        ConfigError: no criterion has it.
    """
    if name not in _CRITERIA:
        raise ConfigError(f"criterion={name}: unknown; choose one of {', '.join(_CRITERIA)}.")
    return _CRITERIA[name]


__all__ = ["Criterion", "FixedCriterion", "RowCriterion", "get"]
