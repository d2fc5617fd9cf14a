"""Intervals that cover as often as they say, and tests whose p-values can be counted by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from himap.metrics.statistics import bootstrap_difference, bootstrap_mean, bootstrap_statistic, mcnemar


def test_interval_of_a_share_is_near_the_normal_one() -> None:
    interval = bootstrap_mean([1] * 300 + [0] * 100)
    half = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert interval.value == 0.75
    assert interval.low == pytest.approx(0.75 - half, abs=0.004)
    assert interval.high == pytest.approx(0.75 + half, abs=0.004)


def test_counts_and_index_draws_agree() -> None:
    # The same scores, once with few distinct values and once with many, which takes the other way of drawing.
    scores = np.random.default_rng(0).integers(0, 5, 500) / 4
    jittered = scores + np.linspace(0, 1e-9, 500)
    few, many = bootstrap_mean(scores), bootstrap_mean(jittered)
    assert few.low == pytest.approx(many.low, abs=0.004)
    assert few.high == pytest.approx(many.high, abs=0.004)
    assert few.low < few.value < few.high


def test_intervals_cover_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for trial in range(400):
        interval = bootstrap_mean(generator.normal(size=80), n_resamples=400, seed=trial)
        hits += interval.low <= 0 <= interval.high
    assert 0.91 <= hits / 400 <= 0.98


def test_agrees_with_scipy() -> None:
    from scipy.stats import bootstrap

    scores = np.random.default_rng(2).exponential(size=300)
    theirs = bootstrap((scores,), np.mean, method="percentile", rng=3, n_resamples=10_000).confidence_interval
    ours = bootstrap_mean(scores)
    assert (ours.low, ours.high) == (
        pytest.approx(theirs.low, abs=0.01),
        pytest.approx(theirs.high, abs=0.01),
    )


def test_same_seed_same_interval() -> None:
    scores = np.random.default_rng(4).normal(size=200)
    assert bootstrap_mean(scores, seed=1) == bootstrap_mean(scores, seed=1)
    assert bootstrap_mean(scores, seed=1) != bootstrap_mean(scores, seed=2)


def test_constant_scores_have_no_width() -> None:
    assert bootstrap_mean([0.6] * 50) == pytest.approx((0.6, 0.6, 0.6))


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    generator = np.random.default_rng(5)
    first = generator.normal(size=300)
    second = first - 0.1 + generator.normal(scale=0.01, size=300)
    difference = bootstrap_difference(first, second)
    assert difference.value == pytest.approx(0.1, abs=0.003)
    assert 0 < difference.low < 0.1 < difference.high + 0.002
    alone = bootstrap_mean(first)
    assert difference.high - difference.low < (alone.high - alone.low) / 20


def test_a_statistic_s_interval_agrees_with_the_mean_s() -> None:
    scores = np.random.default_rng(6).normal(size=400)
    general = bootstrap_statistic(lambda indices: float(scores[indices].mean()), 400)
    mean = bootstrap_mean(scores)
    assert general.value == pytest.approx(mean.value)
    assert (general.low, general.high) == pytest.approx((mean.low, mean.high), abs=0.015)


def test_groups_are_drawn_whole() -> None:
    groups = [i // 2 for i in range(40)]

    def check(indices: np.ndarray) -> float:
        assert indices.size == 40
        assert sorted(indices[::2] + 1) == sorted(indices[1::2])
        return float(np.unique(indices).size)

    bootstrap_statistic(check, 40, groups=groups, n_resamples=50)


def test_doubled_samples_in_groups_are_no_surer_than_the_samples() -> None:
    scores = np.random.default_rng(7).normal(size=100)
    doubled = np.repeat(scores, 2)
    grouped = bootstrap_statistic(
        lambda i: float(doubled[i].mean()), 200, groups=[i // 2 for i in range(200)]
    )
    alone = bootstrap_mean(scores)
    assert grouped.high - grouped.low == pytest.approx(alone.high - alone.low, rel=0.15)


def test_mcnemar_exact_is_the_binomial_tail() -> None:
    # 8 pairs only the first run got right, 2 only the second: two-sided binomial(10, 1/2).
    first = [True] * 8 + [False] * 2 + [True] * 30 + [False] * 5
    second = [False] * 8 + [True] * 2 + [True] * 30 + [False] * 5
    result = mcnemar(first, second)
    tail = sum(comb(10, k) for k in range(3)) / 2**10
    assert (result.n_only_first, result.n_only_second, result.exact) == (8, 2, True)
    assert result.p_value == pytest.approx(2 * tail)


def test_mcnemar_of_many_pairs_is_the_corrected_chi_square() -> None:
    from scipy.stats import chi2

    result = mcnemar([1] * 40 + [0] * 20, [0] * 40 + [1] * 20)
    assert not result.exact
    assert result.p_value == pytest.approx(float(chi2.sf((40 - 20 - 1) ** 2 / 60, 1)))


def test_mcnemar_of_equal_runs_is_one() -> None:
    assert mcnemar([True, False], [True, False]).p_value == 1.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="NaN"):
        bootstrap_mean([1.0, float("nan")])
    with pytest.raises(ValueError, match="same samples"):
        bootstrap_difference([1, 0], [1])
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_statistic(lambda indices: 0.0, 2, groups=["a"])
    with pytest.raises(ValueError, match="same samples"):
        mcnemar([True], [True, False])
    with pytest.raises(ValueError, match="right/wrong"):
        mcnemar([0.3], [1])  # type: ignore[list-item]
