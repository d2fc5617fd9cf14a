"""The cache of image features: equal to none, found by others, bounded, whatever lies in its folder."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from shrunk import configured, loaded, picture, prompts, shrunk

from himap import models
from himap.config import EvaluateConfig, HardwareConfig
from himap.config.compose import compose
from himap.features import FeatureCache, open_cache
from himap.features.images import split_inputs
from himap.features.repeated import Once
from himap.features.store import Store
from himap.models.base import Model
from himap.paths import conf_dir
from himap.reuse import Reuse
from himap.search.evaluator import Job
from himap.search.model import ModelEvaluator
from himap.tasks.base import Generation, Prompt

NAMES = sorted(
    file.stem for file in (conf_dir() / "model").glob("*.yaml") if configured(file.stem).adapter != "shapes"
)
MIB = 100.0


@contextmanager
def counted(model: Model) -> Iterator[Counter[str]]:
    """How many times the vision tower runs."""
    owner = model.hf.model if hasattr(model.hf.model, "get_image_features") else model.hf
    names = ("vision_tower", "visual", "vision_model")
    tower = next(getattr(owner, name) for name in names if hasattr(owner, name))
    counter: Counter[str] = Counter()
    hook = tower.register_forward_hook(lambda *_: counter.update(["tower"]))
    yield counter
    hook.remove()


def cache(folder: Path, mib: float = MIB, **key: Any) -> FeatureCache:
    return FeatureCache(folder, {"model": "tiny", **key}, mib)


def logits(model: Model, batch: dict[str, Any], cached: FeatureCache | None) -> torch.Tensor:
    with Reuse(0, cached).attached(model.hf), torch.inference_mode():
        found: torch.Tensor = model.hf(**batch).logits
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_model_reads_the_same_features(name: str, tmp_path: Path) -> None:
    model = loaded(shrunk(name, n_layers=2, weights="random"))
    one, two, _ = prompts()
    batch = model.encode([one, replace(one, images=two.images[:1]), one])
    generation = Generation(max_new_tokens=3)
    expected, answers = logits(model, batch, None), model.generate(batch, generation)
    with counted(model) as calls:
        assert torch.equal(logits(model, batch, cache(tmp_path)), expected), "computed"
        assert calls["tower"] == 1
        assert torch.equal(logits(model, batch, cache(tmp_path)), expected), "from the disk"
        with Reuse(0, cache(tmp_path)).attached(model.hf):
            assert model.generate(batch, generation) == answers
        assert calls["tower"] == 1
        other = model.encode([replace(one, images=(picture(7, (50, 30)),)), one])
        mixed = logits(model, other, cache(tmp_path))
        assert calls["tower"] == 2, "for the new image alone"
        torch.testing.assert_close(mixed, logits(model, other, None), atol=1e-5, rtol=0)
        assert torch.equal(mixed, logits(model, other, cache(tmp_path)))


@pytest.mark.parametrize("name", NAMES)
def test_an_image_of_several_prompts_is_computed_once(name: str) -> None:
    model = loaded(shrunk(name, n_layers=2, weights="random"))
    image, other = picture(0), picture(7, (50, 30))
    batch = model.encode(
        [Prompt(text, (one,)) for text, one in (("A?", image), ("Or b?", image), ("C", other))]
    )
    pixels, grid = batch["pixel_values"], batch.get("image_grid_thw")
    sizes: list[int] = []
    owner = model.hf.model if hasattr(model.hf.model, "get_image_features") else model.hf
    encode = owner.get_image_features

    @functools.wraps(encode)
    def spy(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(kwargs["pixel_values"] if "pixel_values" in kwargs else args[0]))
        return encode(*args, **kwargs)

    with torch.inference_mode():
        plain = model.hf(**batch).logits
    owner.get_image_features = spy
    once = logits(model, batch, None)
    n = len(pixels.flatten(1).unique(dim=0)) if grid is None else grid[0].prod() + grid[2].prod()
    assert sizes == [int(n)]
    torch.testing.assert_close(once, plain, atol=1e-5, rtol=0)


def test_images_that_add_up_to_the_same_are_not_taken_for_one() -> None:
    one = torch.arange(12.0).view(1, 3, 2, 2)
    asked: list[int] = []

    def compute(pixel_values: torch.Tensor) -> torch.Tensor:
        asked.append(len(pixel_values))
        return pixel_values.flatten(2)

    pixels = torch.cat([one, one.flip(-1), one])
    assert torch.equal(Once(compute)(pixels), pixels.flatten(2))
    assert asked == [2]


@pytest.mark.parametrize("name", ["idefics3_8b", "llava_next_7b", "qwen3_vl_8b"])
def test_prompts_with_several_images_or_none_are_right_too(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = loaded(shrunk(name, n_layers=2, weights="random"))
    for chosen in (prompts(), prompts()[:2], prompts()[1:], prompts()[2:]):
        batch = model.encode(chosen)
        expected = logits(model, batch, None)
        for _ in range(2):
            assert torch.equal(logits(model, batch, cache(tmp_path)), expected)
    # Batches that cannot be told apart are computed, and each cache says so once.
    ours = [record.message for record in caplog.records if record.name.startswith("himap")]
    assert len(ours) == (4 if name == "idefics3_8b" else 0)
    assert all("are computed each time" in line for line in ours)


@pytest.mark.parametrize(
    "name", ["llava_next_7b", "idefics3_8b", "mistral3_24b", "qwen2_5_vl_7b", "internvl3_8b"]
)
def test_an_image_is_known_beside_a_larger_one_too(name: str, tmp_path: Path) -> None:
    model = loaded(shrunk(name, n_layers=2, weights="random"))
    small, large = (Prompt("What?", (picture(0, size),)) for size in ((30, 40), (130, 30)))
    logits(model, model.encode([small, large]), cache(tmp_path))
    with counted(model) as calls:
        logits(model, model.encode([small]), cache(tmp_path))
        logits(model, model.encode([large]), cache(tmp_path))
    assert calls["tower"] == 0


def test_images_whose_cut_depends_on_their_prompt_are_left_alone() -> None:
    alone = {"pixel_values": torch.ones(2, 3, 4, 4), "image_sizes": torch.ones(2, 2)}
    assert len(split_inputs({**alone, "batch_num_images": torch.tensor([1, 1])}) or ()) == 2
    assert split_inputs({**alone, "batch_num_images": torch.tensor([2, 0])}) is None
    assert split_inputs({**alone, "something_else": torch.ones(2)}) is None
    assert split_inputs({**alone, "image_sizes": torch.ones(1, 2)}) is None


@pytest.fixture(scope="module")
def model() -> Model:
    return loaded(shrunk("llava_1_5_7b", n_layers=2, weights="random"))


@pytest.fixture
def batch(model: Model) -> dict[str, Any]:
    return model.encode([Prompt("What?", (picture(number),)) for number in range(3)])


def test_an_image_is_known_in_any_batch_and_under_any_question(model: Model, tmp_path: Path) -> None:
    logits(model, model.encode([Prompt("What?", (picture(n),)) for n in (0, 1, 2)]), cache(tmp_path))
    with counted(model) as calls:
        logits(model, model.encode([Prompt("Is it so?", (picture(n),)) for n in (2, 2, 0)]), cache(tmp_path))
    assert calls["tower"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"path": "elsewhere"},
        {"revision": "v2"},
        {"options": {"aspect": "crop"}},
        {"weights": "sha256 of others"},
        {"dtype": "bfloat16"},
        {"device": "cuda:1"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_model_is_another_key(change: dict[str, Any], tmp_path: Path) -> None:
    config = replace(configured("llava_1_5_7b"), options={})
    hardware = HardwareConfig("cpu", "cpu", "float32", 4, feature_cache=str(tmp_path))
    plain: dict[str, Any] = {"weights": "sha256 of these"}

    def folders(**changes: Any) -> int:
        for_model = {key: value for key, value in changes.items() if key in ("path", "revision", "options")}
        for_hardware = {key: value for key, value in changes.items() if key in ("dtype", "device")}
        weights = changes.get("weights", plain["weights"])
        open_cache(replace(config, **for_model), replace(hardware, **for_hardware), weights)
        return len(list(tmp_path.iterdir()))

    assert folders() == folders() == 1
    assert folders(**change) == 2


def test_another_preprocessing_or_size_is_another_image(
    model: Model, batch: dict[str, Any], tmp_path: Path
) -> None:
    logits(model, batch, cache(tmp_path))
    other = {**batch, "pixel_values": batch["pixel_values"] * 1.001}
    with counted(model) as calls:
        assert torch.equal(logits(model, other, cache(tmp_path)), logits(model, other, None))
    assert calls["tower"] == 2


def test_without_a_folder_there_is_no_cache() -> None:
    assert open_cache(configured("llava_1_5_7b"), HardwareConfig("cpu", "cpu", "float32", 4), None) is None


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"), key=os.path.getmtime)


def entry(seed: int, n: int = 1000) -> Any:
    return "list", [torch.randn(n, generator=torch.Generator().manual_seed(seed))]


def store(folder: Path, mib: float = MIB) -> Store:
    return Store(folder, folder, mib)


def test_entries_of_one_run_are_few_files(tmp_path: Path) -> None:
    one = store(tmp_path)
    for number in range(50):
        one.put({f"k{number}": entry(number)})
    assert torch.equal(one.get(["k7"])["k7"][1][0], entry(7)[1][0]), "found before they are on disk"
    one.flush()
    one.flush()
    assert len(files(tmp_path)) == 1


def test_processes_see_what_others_wrote_meanwhile(tmp_path: Path) -> None:
    one, two = store(tmp_path), store(tmp_path)
    assert two.get(["a"]) == {}
    one.put({"a": entry(0)})
    one.flush()
    assert torch.equal(two.get(["a"])["a"][1][0], entry(0)[1][0])


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def damage_head(path: Path) -> None:
    path.write_bytes(b"no tensors at all")


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damage_cut, damage_flip, damage_head, damage_empty])
def test_a_broken_file_is_one_line_and_computed_anew(
    damage: Callable[[Path], None],
    model: Model,
    batch: dict[str, Any],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = logits(model, batch, cache(tmp_path))
    (path,) = files(tmp_path)
    damage(path)
    with counted(model) as calls:
        assert torch.equal(logits(model, batch, cache(tmp_path)), expected)
        assert calls["tower"] == 1
        assert [line for line in caplog.messages if "is broken" in line] == caplog.messages
        assert len(caplog.messages) == 1
        assert torch.equal(logits(model, batch, cache(tmp_path)), expected)
        assert calls["tower"] == 1


def test_a_file_that_goes_while_it_is_known_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = store(tmp_path)
    one.put({"a": entry(0)})
    one.flush()
    files(tmp_path)[0].unlink()
    assert one.get(["a"]) == {}
    assert caplog.messages == []


def test_the_folder_stays_within_its_limit_and_what_rested_longest_goes(tmp_path: Path) -> None:
    def write(key: str, time: float) -> None:
        before = set(files(tmp_path))
        one = store(tmp_path, mib=1)
        one.put({key: entry(0, 100_000)})  # 0.4 MB
        one.flush()
        (new,) = set(files(tmp_path)) - before
        os.utime(new, (time, time))

    write("a", 1e9)
    write("b", 1.1e9)
    assert store(tmp_path).get(["a"]), "used just now"
    write("c", 1.2e9)
    assert sum(path.stat().st_size for path in files(tmp_path)) < 2**20
    assert store(tmp_path).get("abc").keys() == {"a", "c"}


def test_a_disk_that_takes_nothing_costs_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("himap.features.store.write_bytes_atomic", full)
    one = store(tmp_path)
    one.put({"a": entry(0)})
    one.flush()
    assert "No space left" in caplog.text
    assert len(caplog.messages) == 1


def test_beams_do_not_change_what_is_kept(model: Model, batch: dict[str, Any]) -> None:
    """transformers writes the features, repeated for the beams, into the object that it was given."""
    reuse = Reuse(MIB)
    expected = logits(model, batch, None)
    reuse.inputs("batch", lambda: ([], batch))
    for _ in range(2):
        with reuse.attached(model.hf), torch.inference_mode():
            model.generate(batch, Generation(max_new_tokens=3, num_beams=2))
            assert torch.equal(model.hf(**batch).logits, expected)


def test_memory_is_counted_once_for_images_of_one_batch(model: Model) -> None:
    batch = model.encode([Prompt("What?", (picture(number),)) for number in range(8)])
    pixels, width = batch["pixel_values"], model.text_config.hidden_size
    n_image = int((batch["input_ids"] == model.image_token_ids[0]).sum())
    needed = sum(value.nbytes for value in batch.values()) + n_image * width * 4
    reuse = Reuse(1.5 * needed / 2**20)
    assert reuse.inputs("batch", lambda: ([], batch))[1]["pixel_values"] is pixels
    with counted(model) as calls, reuse.attached(model.hf), torch.inference_mode():
        for _ in range(2):
            model.hf(**batch)
    assert calls["tower"] == 1


SHORT = ("model.weights=random", "task.limit=5", "task.generation.max_new_tokens=2", "tracking=none")
EVALUATE = ("evaluate", *SHORT)


@pytest.fixture
def towers(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many times vision towers of models that are loaded from now on run."""
    counter: Counter[str] = Counter()
    load = models.load

    def listening(*args: Any) -> Model:
        made = load(*args)
        made.hf.model.vision_tower.register_forward_hook(lambda *_: counter.update(["tower"]))
        return made

    monkeypatch.setattr(models, "load", listening)
    return counter


def test_a_second_run_pays_nothing_for_the_tower(himap: Any, tmp_path: Path, towers: Counter[str]) -> None:
    def run(folder: str, *words: str) -> str:
        done = himap(*EVALUATE, *words, f"hydra.run.dir={folder}")
        assert done.code == 0, done.err
        return (tmp_path / folder / "answers.jsonl").read_text()

    plain = {name: run(name, f"pruning={name}") for name in ("none", "himap")}
    assert plain["none"] != plain["himap"]
    towers.clear()
    cached = "hardware.feature_cache=features"
    assert run("first", cached, "pruning=none") == plain["none"]
    assert towers["tower"] == 1
    assert run("second", cached, "pruning=himap", "hardware.batch_size=2") == plain["himap"]
    assert towers["tower"] == 1
    assert len(files(tmp_path / "features")) == 1


def test_a_group_of_trials_reads_what_evaluations_have_kept(
    himap: Any, tmp_path: Path, towers: Counter[str]
) -> None:
    words = ("hardware.feature_cache=features", "pruning=none", "hydra.run.dir=run")
    assert himap(*EVALUATE, *words).code == 0
    config = compose("evaluate", EvaluateConfig, [*SHORT, words[0]])
    evaluator = ModelEvaluator(config.model, config.task, config.hardware, None)
    chosen = [compose("evaluate", EvaluateConfig, [f"pruning={name}"]).pruning for name in ("fastv", "himap")]
    jobs = [Job(one.strategy(), tmp_path / one.name) for one in chosen]
    replies = evaluator(jobs, "search", lambda _: None)
    assert [reply["n_samples"] for reply in replies if isinstance(reply, dict)] == [5, 5]
    assert towers["tower"] == 1


@pytest.mark.parametrize("folder", ["/proc/features", "a_file/features"])
def test_a_folder_that_takes_nothing_is_one_line(himap: Any, tmp_path: Path, folder: str) -> None:
    (tmp_path / "a_file").touch()
    done = himap(*EVALUATE, f"hardware.feature_cache={folder}", "hydra.run.dir=run")
    assert done.code == 1
    assert done.err[-1].startswith(f"hardware.feature_cache={folder}: cannot be written")
    assert len(done.err) == 1
