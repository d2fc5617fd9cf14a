from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from himap.analysis.config import AnalyzeConfig, Disruption, DisruptionConfig, SaliencyConfig
from himap.analysis.summary import summarise_disruption, summarise_saliency
from himap.config.compose import compose
from himap.errors import ConfigError, UserError


def settings(*overrides: str) -> Any:
    return compose("analyze", AnalyzeConfig, overrides).settings


def rows(n: int = 5, n_layers: int = 6) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "tokens": [2, 4, 3],
            "right": i != 0,
            "pairs": [[3, 0, 0], [8, 10, 0], [6, 12, 6]],
            "flow": rng.random((n_layers, 3, 3)).tolist(),
        }
        for i in range(n)
    ]


def curve(outcome: Any, name: str) -> list[float]:
    return [row[2] for row in outcome.tables["saliency"].rows if row[0] == name]


def test_sent_sums_columns_and_received_sums_rows() -> None:
    flow = np.array([row["flow"] for row in rows()]).mean(0)
    sent = summarise_saliency(rows(), settings())
    received = summarise_saliency(rows(), settings("analysis.axis=received"))
    for place, (name, n) in enumerate({"S_sys": 2, "S_img": 4, "S_ins": 3}.items()):
        assert curve(sent, name) == pytest.approx(flow[:, :, place].sum(1) / n)
        assert curve(received, name) == pytest.approx(flow[:, place].sum(1) / n)


def test_pairs_are_image_and_instruction_rows_over_image_columns() -> None:
    flow = np.array([row["flow"] for row in rows()]).mean(0)
    found = summarise_saliency(rows(), settings())
    assert curve(found, "S_vv") == pytest.approx(flow[:, 1, 1] / 10)
    assert curve(found, "S_vt") == pytest.approx(flow[:, 2, 1] / 12)
    summed = summarise_saliency(rows(), settings("analysis.normalise=false"))
    assert curve(summed, "S_vt") == pytest.approx(flow[:, 2, 1])


def test_the_released_preset_is_its_definition() -> None:
    released = settings("analysis=saliency_released")
    assert isinstance(released, SaliencyConfig)
    assert (released.product, released.label, released.axis) == ("squared", "bare", "received")
    found = summarise_saliency(rows(), released)
    values = [value for name in ("S_sys", "S_img", "S_ins") for value in curve(found, name)]
    assert (min(values), max(values)) == (0, 1)
    assert found.n_used == 4
    disrupted = settings("analysis=disruption_released")
    assert (disrupted.scope, disrupted.mode, disrupted.only_correct) == ("from_layer", "pre", True)


def test_places_of_a_disruption() -> None:
    def places(*overrides: str) -> list[tuple[int, int]]:
        found = settings("analysis=disruption", *(f"analysis.{override}" for override in overrides))
        assert isinstance(found, DisruptionConfig)
        return found.ranges(12)

    assert places() == [(layer, layer) for layer in range(1, 13)]
    assert places("scope=window", "width=2", "stride=2") == [
        (1, 2),
        (3, 4),
        (5, 6),
        (7, 8),
        (9, 10),
        (11, 12),
    ]
    assert places("scope=from_layer", "stride=5") == [(1, 12), (6, 12), (11, 12)]
    assert settings("experiment=fig5").ranges(32) == [(1, 5), (28, 32)]
    assert settings("experiment=fig6").disruptions(12)[6] == Disruption("vr", 1, 2)
    with pytest.raises(ConfigError, match=r"analysis.starts=-13: the blocked layers must lie in 1 to 12"):
        places("starts=[-13]")


def test_consistency_and_bias_of_hand_made_scores() -> None:
    """vt costs everything in the first half, vv in the second; the last layer is at the floor for vv."""
    config = settings("analysis=disruption", "analysis.flows=[vt,vv]", "analysis.floor=0.01")
    vt, vv = [0.2, 0.4, 0.9, 0.9, 0.9, 0.8], [0.9, 0.8, 0.8, 0.5, 0.5, 1.0]
    one = {"right": True, "label": [0, 1] * 6, "score": vt + vv}
    found = summarise_disruption([one] * 4, config, 6)
    bias = [row[2] for row in found.tables["bias"].rows]
    assert bias == pytest.approx(
        [float(np.log(max(1 - b, 0.01) / (1 - a))) for a, b in zip(vt, vv, strict=True)]
    )
    (proposal,) = found.suggestions
    assert (proposal.K1, proposal.K2) == (1, 3)
    assert found.metrics["shift"] == pytest.approx(np.mean(bias[2:5]) - np.mean(bias[:2]))
    assert found.metrics["label_consistency_vt"] == pytest.approx(50)
    assert any("E = max(1 - score consistency, 0.01)" in note for note in found.notes)


def test_only_samples_answered_right_are_counted_where_asked() -> None:
    config = settings("analysis=disruption", "analysis.flows=[vt]", "analysis.only_correct=true")
    bad = {"right": False, "label": [0] * 6, "score": [0.0] * 6}
    good = {"right": True, "label": [1] * 6, "score": [1.0] * 6}
    found = summarise_disruption([bad, good], config, 6)
    assert (found.n_used, found.metrics["first_token_accuracy"]) == (1, 50)
    assert found.metrics["label_consistency_vt"] == 100
    with pytest.raises(UserError, match="only_correct=true: the model answers no sample right"):
        summarise_disruption([bad], config, 6)


def test_a_wrong_setting_is_one_line() -> None:
    for override, message in {
        "analysis.mode=after": "analysis.mode=after: unknown",
        "analysis.stride=0": "analysis.stride=0: must be at least 1",
        "analysis.flows=[vx]": "analysis.flows=vx: unknown; did you mean",
        "analysis.top=x": "analysis.top=x: must be a whole number",
        "analysis.floor=0": "analysis.floor=0.0: must be in (0, 1)",
        "analysis.hops=3": "analysis.hops=3: unknown key",
    }.items():
        with pytest.raises(ConfigError) as caught:
            settings("analysis=disruption", override)
        assert str(caught.value).startswith(message)
