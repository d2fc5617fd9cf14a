"""From two curves over the layers to a proposal for K1 and K2, with its reason. No torch in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from himap.analysis.bands import Array, limits


@dataclass(frozen=True)
class Shift:
    """Whether visual information moves from the instruction to the image itself as layers go deeper.

    Attributes:
        value: mean of log(vv / vt) over the deeper half of the layers, less that over the shallower half;
            positive where the flow shifts to the image.
        low: lower end of its 95 % interval over samples.
        high: upper end.
        crossing_share: share of the resamples in which vv comes to exceed vt for good.
    """

    value: float
    low: float
    high: float
    crossing_share: float


@dataclass(frozen=True)
class Suggestion:
    """Layers for the two stages of a strategy, 1 <= K1 < K2 < L; None where the curves name none."""

    source: str
    K1: int | None
    K2: int | None
    reason: str

    @property
    def layers(self) -> dict[str, int]:
        """The layers that are there, by name."""
        named = {"K1": self.K1, "K2": self.K2}
        return {name: layer for name, layer in named.items() if layer is not None}


def crossing(vt: Array, vv: Array) -> int | None:
    """Index from which vv exceeds vt to the end; layers where both are equal decide nothing."""
    above = np.sign(vv - vt)
    decided = np.flatnonzero(above)
    below = decided[above[decided] < 0]
    start = below[-1] + 1 if len(below) else 0
    later = decided[decided >= start]
    return int(later[0]) if len(later) else None


def suggest(source: str, layers: Sequence[int], vt: Array, vv: Array, names: tuple[str, str]) -> Suggestion:
    """Propose K1 and K2.

    K2 is the first layer from which the flow within the image exceeds that to the instruction for good: from
    there on, ranking by `img2img` asks about what still happens. K1 is the layer before it where the flow to
    the instruction is strongest: there, ranking by `img2txt` sees most of it.

    Args:
        source: what the curves show.
        layers: the layer that each point stands for, in order, all below the model's last one.
        vt: strength of the flow from image to instruction at each of them.
        vv: strength of the flow within the image.
        names: of the two curves, for the reason.
    """
    at = crossing(vt, vv)
    text, image = names
    if at is None:
        peak = layers[int(vt.argmax())]
        return Suggestion(
            source,
            peak,
            None,
            f"{text} is strongest in layer {peak}; {image} never comes to exceed it for good, "
            "so nothing speaks for a second stage",
        )
    if at == 0:
        reason = f"{image} exceeds {text} from the first layer on, so nothing speaks for a first stage"
        return Suggestion(source, None, layers[0], reason)
    peak = layers[int(vt[:at].argmax())]
    reason = (
        f"{text} is strongest in layer {peak}; from layer {layers[at]} on {image} exceeds {text} for good"
    )
    return Suggestion(source, peak, layers[at], reason)


def shift(vt: Array, vv: Array, resampled_vt: Array, resampled_vv: Array) -> Shift:
    """Measure the shift of the flow.

    Args:
        vt: positive, [L]; of layers below the last, where nothing flows within the image any more.
        vv: likewise.
        resampled_vt: the same from resampled data, [R, L].
        resampled_vv: likewise.
    """
    low, high = limits(_halves(resampled_vt, resampled_vv))
    crossed = [crossing(*pair) is not None for pair in zip(resampled_vt, resampled_vv, strict=True)]
    return Shift(float(_halves(vt, vv)), float(low), float(high), float(np.mean(crossed)))


def _halves(vt: Array, vv: Array) -> Array:
    tiny = np.finfo(np.float64).tiny
    ratio = np.log(np.maximum(vv, tiny) / np.maximum(vt, tiny))
    half = ratio.shape[-1] // 2
    if half == 0:
        return np.zeros(ratio.shape[:-1])
    return np.asarray(ratio[..., half:].mean(-1) - ratio[..., :half].mean(-1))
