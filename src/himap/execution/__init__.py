"""Ways to run a pruned model again and again: what a latency is measured on."""

from __future__ import annotations

from himap.execution.base import Execution
from himap.execution.make import KINDS, make

__all__ = ["KINDS", "Execution", "make"]
