"""Executions compute what the pruner computes, ask the device nothing, and refuse what they cannot run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from tiny import IMAGE_ID, MAKERS, MORE_MAKERS, N_PATCHES, Tiny, tiny_llava
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from himap.attention import column_sums
from himap.errors import ConfigError, Unsupported, UserError
from himap.execution import Execution, make
from himap.execution.compiled import traced
from himap.execution.eager import Eager
from himap.execution.front import Front
from himap.execution.program import Program
from himap.execution.slots import make_slots
from himap.execution.static import Function, Static, as_it_is
from himap.layout import Layout
from himap.models.base import Model
from himap.pruning import Pruner, text_decoder
from himap.strategy import Stage, Strategy

N_NEW = 3


def stages(*triples: tuple[int, float, str]) -> Strategy:
    return Strategy("test", tuple(Stage(*t, name=f"s{t[0]}") for t in triples))


HIMAP = stages((2, 0.5, "img2txt"), (4, 0.75, "img2img"))
STRATEGIES = {
    "none": stages(),
    "fastv": stages((2, 0.5, "last2img")),
    "himap": HIMAP,
    "three-stages": stages((1, 0.25, "all2img"), (3, 0.5, "img2txt"), (5, 0.5, "img2img")),
    "controls": stages((2, 0.5, "random"), (4, 0.5, "uniform")),
    "one-idle-stage": stages((2, 0.0, "img2txt"), (3, 0.5, "img2txt")),
}
ALL = {**MAKERS, **MORE_MAKERS}
PROGRAMMED = [name for name in ALL if name != "qwen3-vl"]
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=list(STRATEGIES))


@cache
def tiny(name: str, attn: str = "sdpa") -> Tiny:
    return ALL[name](attn=attn)


def as_model(model: Tiny) -> Model:
    return Model(model.name, "native", model.model, None, model.image_token_ids, ())


def batches(model: Tiny) -> list[dict[str, Tensor]]:
    """Two batches of one shape with other text and other pictures, and the first again."""
    first, second = (model.batch((1, 1), (7, 7), seed=seed) for seed in (0, 4))
    return [first, second, first]


def run(execution: Execution, inputs: dict[str, Tensor], tokens: Tensor) -> list[Tensor]:
    """Logits after the prompt and after each of the given tokens, [B, n]."""
    return [execution.prefill(inputs), *(execution.step(token[:, None]) for token in tokens.T)]


def same(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-5) -> None:
    """Equal to a share of the largest logit: sums in another order differ by that much in float32."""
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


TOKENS = torch.tensor([[5, 6, 7], [11, 60, 33]])


def static(model: Tiny, strategy: Strategy, example: dict[str, Tensor]) -> Static:
    return Static(as_model(model), strategy, example, N_NEW, as_it_is)


def kept(present: tuple[Tensor, ...], ids: Tensor) -> list[list[list[int]]]:
    """Image tokens that each stage left, by sample."""
    image = ids == IMAGE_ID
    return [
        [row[mask].tolist() for row, mask in zip(positions, image.gather(-1, positions), strict=True)]
        for positions in present
    ]


@pytest.mark.parametrize(
    ("name", "attn"),
    [*((name, "sdpa") for name in PROGRAMMED), ("llava-gqa", "eager"), ("qwen2-vl", "eager")],
)
@each_strategy
def test_a_program_computes_what_the_pruner_computes(name: str, attn: str, strategy: Strategy) -> None:
    model = tiny(name, attn)
    theirs = Eager(as_model(model), strategy, N_NEW)
    ours = static(model, strategy, batches(model)[0])
    logits = []
    for inputs in batches(model):
        expected = run(theirs, inputs, TOKENS)
        dropping = [rows for stage, rows in zip(strategy.stages, theirs.kept, strict=True) if stage.drop]
        chosen = [[row.tolist() for row in rows] for rows in dropping]
        logits.append(run(ours, inputs, TOKENS))
        same(logits[-1], expected)
        assert kept(ours.present, inputs["input_ids"]) == chosen
    assert (logits[0][0] - logits[1][0]).abs().max() > 0.1, "other inputs give the same, so nothing is shown"
    same(logits[2], logits[0])
    theirs.close()


def test_results_stay_when_the_next_prompt_is_read() -> None:
    model = tiny("llava-mha")
    execution = static(model, HIMAP, batches(model)[0])
    first = execution.prefill(batches(model)[0])
    before, present = first.clone(), [x.clone() for x in execution.present]
    held = execution.present
    execution.prefill(batches(model)[1])
    assert torch.equal(first, before)
    assert all(map(torch.equal, held, present))


@pytest.mark.parametrize("name", ["llava-mha", "qwen2-vl"])
def test_places_of_the_pictures_may_move_while_their_numbers_stay(name: str) -> None:
    model = tiny(name)
    example = model.batch((2,), (7,))
    ids = example["input_ids"][0].tolist()
    between = ids.index(IMAGE_ID) + N_PATCHES
    moved = {**example, "input_ids": torch.tensor([[*ids[:between], *ids[between + 1 :], ids[between]]])}
    if "mm_token_type_ids" in example:
        moved["mm_token_type_ids"] = (moved["input_ids"] == IMAGE_ID).int()
    ours, theirs = static(model, HIMAP, example), Eager(as_model(model), HIMAP, N_NEW)
    found = []
    for inputs in (example, moved):
        found.append(run(theirs, inputs, TOKENS[:1]))
        same(run(ours, inputs, TOKENS[:1]), found[-1])
    assert (found[0][0] - found[1][0]).abs().max() > 0.1
    theirs.close()


def test_pictures_of_another_form_have_other_positions() -> None:
    model = tiny("qwen2-vl")
    square = batches(model)[0]
    wide = {**square, "image_grid_thw": torch.tensor([[1, 4, 16]] * 2)}
    ours, theirs = static(model, HIMAP, square), Eager(as_model(model), HIMAP, N_NEW)
    found = []
    for inputs in (square, wide, square):
        found.append(run(theirs, inputs, TOKENS))
        same(run(ours, inputs, TOKENS), found[-1])
    assert (found[0][1] - found[1][1]).abs().max() > 0.1
    theirs.close()


def test_each_layer_has_room_for_what_its_stage_leaves() -> None:
    model = tiny("llava-gqa")
    execution = static(model, HIMAP, batches(model)[0])
    n_text = 4 + 7
    sizes = [slots.shape for slots in execution._slots[::2]]
    assert [size[2] - n_text - N_NEW for size in sizes] == [16, 16, 8, 8, 2, 2]
    assert {size[1] for size in sizes} == {2}


def test_eager_decodes_what_generate_decodes() -> None:
    for name in ("llava-mha", "qwen2-vl"):
        model = tiny(name)
        inputs = batches(model)[0]
        with Pruner(model.model, HIMAP, image_token_ids=model.image_token_ids):
            tokens = model.model.generate(**inputs, max_new_tokens=4, do_sample=False, suppress_tokens=None)
        execution = make("eager", as_model(model), HIMAP, inputs, 4)
        logits = execution.prefill(inputs)
        for expected in tokens[:, -4:].T:
            assert logits.argmax(-1).tolist() == expected.tolist()
            logits = execution.step(expected[:, None])
        execution.close()


def function_of(model: Tiny, strategy: Strategy, what: str) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """One of a program's functions and its arguments."""
    inputs = batches(model)[0]
    layout = Layout.from_ids(inputs["input_ids"], model.image_token_ids)
    front = Front(model.model, inputs["input_ids"].shape[1], N_NEW)
    program = Program(as_model(model), strategy, layout, spliced=front.spliced)
    ids, states, cos, sin = front(inputs)
    slots = make_slots(text_decoder(model.model).config, program.lengths, len(ids), N_NEW, like=cos)
    if what == "prefill":
        return program.prefill, (ids, states, cos, sin, *slots)
    return program.step, (ids[:, -1:], torch.tensor([0]), cos, sin, *slots)


@pytest.mark.parametrize("what", ["prefill", "step"])
@pytest.mark.parametrize("name", ["llava-mha", "qwen2-vl"])
@pytest.mark.parametrize("strategy", [STRATEGIES[name] for name in ("three-stages", "controls")])
def test_nothing_is_asked_of_the_device(name: str, what: str, strategy: Strategy) -> None:
    function, arguments = function_of(tiny(name), strategy, what)
    with torch.no_grad():
        # A fake tensor has no values: reading one back, or a shape that depends on one, raises.
        graph = make_fx(function, tracing_mode="fake", _allow_non_fake_inputs=True)(*arguments)
    # What is made of numbers on the host would be copied to the device, and waited for.
    targets = " ".join(str(node.target) for node in graph.graph.nodes)
    assert "local_scalar_dense" not in targets and "lift_fresh" not in targets


def test_the_trace_sees_a_question_to_the_device() -> None:
    rows = torch.ones(1, 4, dtype=torch.bool)

    def asking(query: Tensor) -> Tensor:
        return column_sums(query, query, rows & (query[:, 0, :, 0] > 0), 1.0)

    with pytest.raises(Exception, match=r"(?i)data.dependent|item"):
        make_fx(asking, tracing_mode="fake", _allow_non_fake_inputs=True)(torch.ones(1, 2, 4, 8))


def test_it_compiles_to_one_graph_without_breaks() -> None:
    model, strategy = tiny_llava(kv_heads=2, n_layers=3), stages((1, 0.5, "img2txt"), (2, 0.75, "img2img"))

    def prepare(function: Function, given: tuple[Tensor, ...]) -> Function:
        return torch.compile(traced(function, given), fullgraph=True, backend="eager")

    theirs = Eager(as_model(model), strategy, N_NEW)
    ours = Static(as_model(model), strategy, batches(model)[0], N_NEW, prepare)
    for inputs in batches(model):
        same(run(ours, inputs, TOKENS), run(theirs, inputs, TOKENS))
    theirs.close()


@pytest.mark.slow
def test_compiled_executions_of_one_model_keep_apart() -> None:
    model = tiny("llava-gqa")
    first = batches(model)[0]
    names = ("none", "himap")
    made = {name: make("compiled", as_model(model), STRATEGIES[name], first, N_NEW) for name in names}
    for inputs in batches(model):
        for name in names:
            theirs = Eager(as_model(model), STRATEGIES[name], N_NEW)
            expected = run(theirs, inputs, TOKENS)
            same(run(made[name], inputs, TOKENS), expected)
            theirs.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["graphs", "compiled"])
@pytest.mark.parametrize("name", ["llava-mha", "llava-gqa", "qwen2-vl"])
def test_captured_executions_compute_what_the_pruner_computes(name: str, kind: str) -> None:
    model = ALL[name]()
    model.model.cuda()
    move = [{key: value.cuda() for key, value in inputs.items()} for inputs in batches(model)]
    for strategy in STRATEGIES.values():
        theirs = Eager(as_model(model), strategy, N_NEW)
        ours = make(kind, as_model(model), strategy, move[0], N_NEW)
        held = []
        for inputs in move:
            expected = run(theirs, inputs, TOKENS.cuda())
            held.append(run(ours, inputs, TOKENS.cuda()))
            same(held[-1], expected, tolerance=1e-3)
        assert torch.equal(held[0][0], held[2][0]), "a result was overwritten, or an input is stale"
        ours.close()
        theirs.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("what", ["prefill", "step"])
def test_no_function_waits_for_the_gpu(what: str) -> None:
    model = ALL["llava-gqa"]()
    function, arguments = function_of(model, HIMAP, what)
    model.model.cuda()
    arguments = tuple(tensor.cuda() for tensor in arguments)
    with torch.inference_mode():
        function(*arguments)
        torch.cuda.set_sync_debug_mode("error")
        try:
            function(*arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_executions_of_one_model_take_turns() -> None:
    model = tiny("llava-mha")
    inputs = batches(model)[0]
    first, second = (Eager(as_model(model), STRATEGIES[name], N_NEW) for name in ("himap", "none"))
    third = static(model, HIMAP, inputs)
    alone = [run(one, inputs, TOKENS) for one in (first, second)]
    third.prefill(inputs)
    with pytest.raises(UserError, match="call prefill first"):
        second.step(TOKENS[:, :1])
    for one, expected in zip((first, second), alone, strict=True):
        for ours, theirs in zip(run(one, inputs, TOKENS), expected, strict=True):
            assert torch.equal(ours, theirs)
    second.close()
    with Pruner(model.model, HIMAP, image_token_ids=model.image_token_ids):
        pass  # nothing is left attached


@pytest.mark.parametrize("kind", ["eager", "static"])
def test_steps_need_a_prompt_and_have_an_end(kind: str) -> None:
    model = tiny("llava-mha")
    inputs = batches(model)[0]
    execution: Execution = (
        static(model, HIMAP, inputs)
        if kind == "static"
        else make("eager", as_model(model), HIMAP, inputs, N_NEW)
    )
    with pytest.raises(UserError, match="call prefill first"):
        execution.step(TOKENS[:, :1])
    run(execution, inputs, TOKENS)
    with pytest.raises(UserError, match="n_new=3: no room"):
        execution.step(TOKENS[:, :1])
    execution.prefill(inputs)
    execution.step(TOKENS[:, :1])
    execution.close()


def test_uneven_batches_are_refused_and_so_are_other_prompts_later() -> None:
    model = tiny("llava-mha")
    with pytest.raises(Unsupported, match=r"prompt 1 has 23 tokens.*without padding"):
        static(model, HIMAP, model.batch((1, 1), (7, 3)))
    with pytest.raises(Unsupported, match=r"16 of them image tokens.*prompt 0 of 45 tokens has 32"):
        static(model, HIMAP, model.batch((2, 1), (7, 25)))
    execution = static(model, HIMAP, model.batch((1,), (7,)))
    with pytest.raises(UserError, match="other numbers of tokens than the example"):
        execution.prefill(model.batch((1,), (8,)))
    execution.close()
    with pytest.raises(UserError, match="is closed"):
        execution.prefill(model.batch((1,), (7,)))


def test_what_has_no_program_is_refused_in_one_line() -> None:
    deep = tiny("qwen3-vl")
    with pytest.raises(Unsupported, match=r"qwen3-vl.*execution eager"):
        static(deep, HIMAP, batches(deep)[0])
    model = tiny("llava-mha")
    inputs = batches(model)[0]
    with pytest.raises(ConfigError, match="layer=6: must be below"):
        static(model, stages((6, 0.5, "img2txt")), inputs)
    with pytest.raises(ConfigError, match="execution=graph: unknown; did you mean graphs"):
        make("graph", as_model(model), HIMAP, inputs, 1)
    with pytest.raises(UserError, match="n_new=-1: must not be negative"):
        make("eager", as_model(model), HIMAP, inputs, -1)
    with pytest.raises(UserError, match=r"execution=graphs: needs a CUDA device.*use compiled"):
        make("graphs", as_model(model), HIMAP, inputs, 1)
    flash = tiny("llava-mistral")
    flash.model.model.language_model.config._attn_implementation = "flash_attention_2"
    try:
        with pytest.raises(Unsupported, match="flash_attention_2: has no program"):
            static(flash, HIMAP, batches(flash)[0])
    finally:
        flash.model.model.language_model.config._attn_implementation = "sdpa"
