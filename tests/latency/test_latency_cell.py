"""What a cell of a benchmark holds: on a clock that counts calls instead of seconds."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch
from fakes import TinyModel

from himap import models
from himap.config import PruningConfig, StageConfig
from himap.config.compose import compose
from himap.errors import UserError
from himap.flops import DecoderShape
from himap.latency import cell, clock, energy
from himap.latency.cell import Raw, measure, n_steps
from himap.latency.clock import Job, rounds
from himap.latency.config import BenchmarkConfig, LatencyConfig
from himap.latency.outcome import summarise
from himap.latency.shape import Shape

CPU = torch.device("cpu")
SHAPE = Shape(batch_size=1, n_system=3, n_image=16, n_instruction=5, n_new=4)
PRUNING = {
    "none": PruningConfig("none"),
    "img2txt": PruningConfig("img2txt", {"shallow": StageConfig(2, 0.5, "img2txt")}),
    "uniform": PruningConfig("uniform", {"shallow": StageConfig(2, 0.5, "uniform")}),
}


def config(**changes: Any) -> LatencyConfig:
    values = {
        "name": "test",
        "execution": ["eager"],
        "batch_size": [1],
        "n_image": [16],
        "n_new": [4],
        "rounds": 6,
        "warmup": 1,
        "energy_s": 1.0,
        "reference": "none",
        "seed": 0,
        "pruning": PRUNING,
    }
    return LatencyConfig(**{**values, **changes})


class Ticking:
    """An execution on a made-up clock: a prefill and a step take so many ms each."""

    now = 0.0

    def __init__(
        self, prefill_ms: float, step_ms: float, log: list[str] | None = None, name: str = ""
    ) -> None:
        self._prefill_ms, self._step_ms, self._log, self._name = prefill_ms, step_ms, log, name

    def prefill(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        Ticking.now += self._prefill_ms / 1000
        if self._log is not None:
            self._log.append(self._name)
        return torch.zeros(1, 5)

    def step(self, token: torch.Tensor) -> torch.Tensor:
        Ticking.now += self._step_ms / 1000
        return torch.zeros(1, 5)

    def close(self) -> None:
        pass


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_now", lambda device: Ticking.now)


def test_prefill_and_decoding_are_told_apart(ticking: None) -> None:
    job = Job("none", "eager", Ticking(30.0, 7.0), torch.zeros(3, 1, 1, dtype=torch.long))
    job.time({}, CPU)
    assert job.prefill_ms == [pytest.approx(30.0)]
    assert job.decode_ms == [pytest.approx(21.0)]


def test_only_a_short_run_follows_an_untimed_one(ticking: None) -> None:
    for prefill_ms, n_calls in ((30.0, 8), (900.0, 5)):
        log: list[str] = []
        job = Job("none", "eager", Ticking(prefill_ms, 1.0, log), torch.empty(0))
        for _ in range(4):
            job.time({}, CPU)
        assert len(log) == n_calls, prefill_ms
        assert job.prefill_ms == [pytest.approx(prefill_ms)] * 4


def test_strategies_take_turns_in_random_order(ticking: None) -> None:
    log: list[str] = []
    jobs = {
        name: [Job(name, "eager", Ticking(500.0, 1.0, log, name), torch.empty(0), [500.0])] for name in "abc"
    }
    rounds(jobs, {}, CPU, 40, random.Random(0), lambda: log.append("|"))
    turns = "".join(log).split("|")[:-1]
    assert len(turns) == 40
    assert all(sorted(turn) == ["a", "b", "c"] for turn in turns), "a round times each once"
    first = Counter(turn[0] for turn in turns)
    assert min(first[name] for name in "abc") >= 5, "none always comes first"


def test_a_cell_has_a_value_of_each_round() -> None:
    steps = count()
    raw = measure(TinyModel(), config(rounds=7), SHAPE, lambda: next(steps))
    assert next(steps) == n_steps(config(rounds=7))
    assert set(raw.jobs) == {(name, "eager") for name in PRUNING}
    for prefill, decode in raw.jobs.values():
        assert len(prefill) == len(decode) == 7
        assert min(*prefill, *decode) > 0
    assert len(raw.tower_ms) == 7
    assert set(raw.fixed_ms) == {"img2txt"}, "what asks no attention has nothing to score"
    assert len(raw.fixed_ms["img2txt"]) == 7
    assert raw.peak_bytes["none", "eager"] > raw.peak_bytes["img2txt", "eager"] > 0  # type: ignore[operator]


def test_an_execution_that_refuses_is_named_and_the_others_go_on() -> None:
    raw = measure(TinyModel(), config(execution=["graphs", "eager"]), SHAPE, lambda: None)
    if torch.cuda.is_available():
        pytest.skip("CUDA graphs run here")
    assert "graphs" in raw.refused["graphs"] or "CUDA" in raw.refused["graphs"]
    assert {kind for _, kind in raw.jobs} == {"eager"}
    with pytest.raises(UserError, match=r"^benchmark.execution=\[graphs\]: none cannot be run: graphs: "):
        measure(TinyModel(), config(execution=["graphs"]), SHAPE, lambda: None)


def test_an_execution_that_breaks_does_not_lose_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    make = cell._make

    def without_compiler(kind: str, *rest: Any) -> Any:
        if kind == "compiled":
            raise RuntimeError("no C++ compiler\nwas found")
        return make(kind, *rest)

    monkeypatch.setattr(cell, "_make", without_compiler)
    raw = measure(TinyModel(), config(execution=["compiled", "eager"]), SHAPE, lambda: None)
    assert raw.refused == {"compiled": "uniform: RuntimeError: no C++ compiler was found"}
    assert {kind for _, kind in raw.jobs} == {"eager"}
    with pytest.raises(UserError, match=r"none cannot be run: compiled: .*RuntimeError: no C"):
        measure(TinyModel(), config(execution=["compiled"]), SHAPE, lambda: None)


def test_the_model_is_left_as_it_was() -> None:
    model = TinyModel()
    measure(model, config(), SHAPE, lambda: None)
    with pytest.raises(UserError):
        measure(model, config(), replace(SHAPE, n_image=17), lambda: None)
    raw = measure(model, config(execution=["released"]), SHAPE, lambda: None)
    assert {kind for _, kind in raw.jobs} == {"released"}
    assert model.text_config._attn_implementation == "sdpa"
    assert not any(module._forward_pre_hooks for module in model.hf.modules())
    assert "get_image_features" not in vars(model.hf.model)


def raw(**jobs: tuple[float, float]) -> Raw:
    """Six rounds of (prefill, decoding), a little slower each; names are strategy_execution."""
    found = Raw(SHAPE, tower_ms=[2.0] * 6)
    for name, (prefill, decode) in jobs.items():
        strategy, _, kind = name.partition("_")
        slower = [1 + 0.1 * number for number in range(6)]
        found.jobs[strategy, kind] = [prefill * s for s in slower], [decode * s for s in slower]
        found.peak_bytes[strategy, kind] = 2**20
    return found


def summary(found: Raw) -> dict[str, Any]:
    strategies = {name: PRUNING[name].strategy() for name, _ in found.jobs}
    decoder = DecoderShape.from_config(TinyModel().hf.config)
    return summarise(found, strategies, "none", decoder, weights=3 * 2**20, n_bytes=4)


def test_each_measure_takes_the_fastest_execution_of_either() -> None:
    cell = summary(
        raw(none_eager=(40, 30), none_graphs=(20, 60), img2txt_eager=(10, 33), img2txt_graphs=(12, 9))
    )
    none, pruned = cell["strategies"]["none"], cell["strategies"]["img2txt"]
    assert (none["prefill_ms"]["execution"], none["per_token_ms"]["execution"]) == ("graphs", "eager")
    assert (pruned["prefill_ms"]["execution"], pruned["per_token_ms"]["execution"]) == ("eager", "graphs")
    assert none["prefill_ms"]["median"] == pytest.approx(20 * 1.25)
    assert pruned["prefill_ms"]["ratio"] == pytest.approx({"median": 0.5, "low": 0.5, "high": 0.5})
    assert none["per_token_ms"]["median"] == pytest.approx(10 * 1.25)
    assert set(none["prefill_ms"]["executions"]) == {"eager", "graphs"}
    assert none["end_to_end_ms"]["median"] == pytest.approx(2 + 70 * 1.25)
    assert none["first_token_ms"]["median"] == pytest.approx(2 + 20 * 1.25)
    shares = pruned["flops"]
    assert shares["prefill_share"] < shares["answer_share"] < shares["later_share"] < 1
    assert none["peak_mib"] == 4.0


def test_one_new_token_has_no_decoding() -> None:
    found = raw(none_eager=(40, 0))
    found.shape = replace(SHAPE, n_new=1)
    row = summary(found)["strategies"]["none"]
    assert "per_token_ms" not in row
    assert "later_share" not in row["flops"]
    assert row["flops"]["prefill_tflops"] == row["flops"]["answer_tflops"]


def test_scoring_is_what_the_double_saves() -> None:
    found = raw(none_eager=(40, 30), img2txt_eager=(10, 30))
    found.fixed_kind["img2txt"] = "eager"
    found.fixed_ms["img2txt"] = [value - 1 for value in found.jobs["img2txt", "eager"][0]]
    rows = summary(found)["strategies"]
    assert rows["none"]["scoring"] is None
    assert rows["img2txt"]["scoring"]["median"] == pytest.approx(1.0)
    assert rows["img2txt"]["scoring"]["share"]["median"] == pytest.approx(1 / (40 * 1.25), rel=0.01)


def test_without_a_cache_none_is_counted() -> None:
    cell = summary(raw(none_released=(40, 30), img2txt_released=(10, 30)))
    assert [row["kv_cache_mib"] for row in cell["strategies"].values()] == [0, 0]
    cached = summary(raw(none_eager=(40, 30), img2txt_eager=(10, 30)))
    large, small = (row["kv_cache_mib"] for row in cached["strategies"].values())
    assert large > small > 0


class Nvml:
    """A driver whose counter moves by 50 J with every run."""

    NVMLError = OSError
    joules = 0.0

    @staticmethod
    def nvmlInit() -> None: ...

    @staticmethod
    def nvmlDeviceGetHandleByUUID(name: str) -> str:
        assert name == "GPU-1234"
        return name

    @classmethod
    def nvmlDeviceGetTotalEnergyConsumption(cls, handle: str) -> int:
        return int(1000 * cls.joules)


def test_energy_is_the_counters_difference_over_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", Nvml)
    monkeypatch.setattr(energy, "_uuid", lambda device: "GPU-1234")
    counter = energy.Counter(torch.device("cuda"))
    assert counter.missing == ""

    def run() -> None:
        Nvml.joules += 50.0

    assert counter.per_run(run, 0.02) == pytest.approx(50.0)


def test_a_driver_that_does_not_tell_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(handle: str) -> int:
        raise OSError("not supported")

    monkeypatch.setitem(__import__("sys").modules, "pynvml", Nvml)
    monkeypatch.setattr(energy, "_uuid", lambda device: "GPU-1234")
    monkeypatch.setattr(Nvml, "nvmlDeviceGetTotalEnergyConsumption", silent)
    assert energy.Counter(torch.device("cuda")).missing == "energy: the driver does not tell (not supported)"
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    assert "nvidia-ml-py" in energy.Counter(torch.device("cuda")).missing
    assert energy.Counter(CPU).missing == "energy: no counter is read on cpu"


def test_energy_is_read_for_every_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted:
        missing = ""

        def __init__(self, device: torch.device) -> None: ...

        def per_run(self, run: Any, seconds: float) -> float:
            return float(seconds)

    monkeypatch.setattr(cell, "Counter", Counted)
    found = measure(TinyModel(), config(energy_s=0.5), SHAPE, lambda: None)
    assert found.energy_j == {name: [0.5, 0.5, 0.5] for name in PRUNING}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_runs_both_executions() -> None:
    words = ["hardware=cuda", "benchmark.rounds=6", "benchmark.n_new=[3]"]
    whole = compose("benchmark", BenchmarkConfig, words)
    model = models.load(whole.model, whole.hardware)
    (shape,) = whole.benchmark.shapes(whole.model)
    found = measure(model, whole.benchmark, shape, lambda: None)
    assert {kind for _, kind in found.jobs} == {"eager", "graphs"}
    assert not found.refused
    for kind in ("eager", "graphs"):
        assert found.peak_bytes["himap", kind] <= found.peak_bytes["none", kind]  # type: ignore[operator]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_counts_its_memory() -> None:
    from himap.latency.memory import peak

    with peak(torch.device("cuda")) as found:
        torch.ones(2**20, device="cuda")
    assert found.n_bytes == 2**22
