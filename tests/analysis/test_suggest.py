from __future__ import annotations

import numpy as np
import pytest

from himap.analysis.bands import band, resampled_means
from himap.analysis.suggest import crossing, shift, suggest

LAYERS = [1, 2, 3, 4, 5, 6, 7]
NAMES = ("S_vt", "S_vv")
FALLING = np.array([5.0, 9, 7, 4, 2, 1, 1])
RISING = np.array([1.0, 2, 3, 3, 3, 4, 5])


def test_the_stages_stand_at_the_peak_and_at_the_crossing() -> None:
    found = suggest("saliency", LAYERS, FALLING, RISING, NAMES)
    assert (found.K1, found.K2) == (2, 5)
    assert found.reason == "S_vt is strongest in layer 2; from layer 5 on S_vv exceeds S_vt for good"
    assert found.layers == {"K1": 2, "K2": 5}


def test_a_passing_crossing_and_ties_decide_nothing() -> None:
    briefly = np.array([1.0, 2, 8, 3, 3, 4, 5])
    assert suggest("saliency", LAYERS, FALLING, briefly, NAMES).K2 == 5
    tied = np.where(np.arange(7) == 4, FALLING, RISING)
    assert suggest("saliency", LAYERS, FALLING, tied, NAMES).K2 == 6


def test_without_a_crossing_there_is_no_second_stage() -> None:
    found = suggest("disruption", LAYERS, FALLING + 10, RISING, NAMES)
    assert (found.K1, found.K2) == (2, None)
    assert "never comes to exceed" in found.reason


def test_an_image_that_leads_from_the_start_leaves_no_first_stage() -> None:
    found = suggest("disruption", LAYERS, FALLING, RISING + 10, NAMES)
    assert (found.K1, found.K2) == (None, 1)


def test_equal_curves_cross_nowhere() -> None:
    assert crossing(FALLING, FALLING) is None


def test_the_shift_has_the_sign_of_the_change_and_an_interval() -> None:
    rng = np.random.default_rng(0)
    noise = rng.lognormal(0, 0.1, (200, 7))
    vt, vv = FALLING * noise, RISING * noise[::-1]
    moved = shift(vt.mean(0), vv.mean(0), resampled_means(vt), resampled_means(vv))
    assert 0 < moved.low < moved.value < moved.high
    assert moved.crossing_share == 1
    back = shift(vv.mean(0), vt.mean(0), resampled_means(vv), resampled_means(vt))
    assert back.value == pytest.approx(-moved.value)
    assert back.crossing_share == 0


def test_a_band_is_that_of_the_mean() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(3, 2, (400, 2, 3))
    found = band(values)
    assert found.mean.shape == (2, 3)
    np.testing.assert_allclose(found.mean, values.mean(0))
    # Two standard errors on either side, nearly.
    np.testing.assert_allclose(found.high - found.low, 4 * 2 / 20, rtol=0.2)
    with pytest.raises(ValueError, match="no sample"):
        band(np.zeros((0, 3)))
