"""What is compared: lmms-eval's tasks, himap's runs that stand beside them, and why some may differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from made import SEPARATOR
from tables import Made

Replay = Callable[[Made], list[str | None]]


@dataclass(frozen=True)
class Run:
    """himap's side, once.

    Attributes:
        pairs: lmms-eval's metric (or a sum of them) -> himap's.
        overrides: himap's, beside the data.
        reasons: lmms-eval's metric -> why it differs in this run; `""` speaks for all others.
        prompt_reason: why the prompts differ.
        replay: other answers than the recorded ones, None for none; without it lmms-eval's log is read, too.
        note: what is special about this run beside its overrides.
    """

    pairs: Mapping[str, str]
    overrides: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    prompt_reason: str = ""
    replay: Replay | None = None
    note: str = ""

    @property
    def label(self) -> str:
        """Overrides and note, short."""
        short = [override.removeprefix("task.") for override in self.overrides]
        return ", ".join([*short, self.note] if self.note else short)

    def reason(self, metric: str) -> str:
        return self.reasons.get(metric, self.reasons.get("", ""))


@dataclass(frozen=True)
class Case:
    """One of lmms-eval's tasks on made data, and himap's runs on the same.

    Attributes:
        name: of the case.
        made: the data's folder.
        yaml: lmms-eval's own definition, below its tasks folder.
        runs: himap's.
        split: `task.split` where it is not the default, a value of the column that parts the data.
        scale: their unit -> ours.
        score: a document's score in lmms-eval's log, the keys joined by dots; empty where there is none.
        changes: to lmms-eval's definition.
        answers: what lmms-eval hears in place of the recorded answers.
        needs_java: lmms-eval cannot run it without.
        qwen: why Qwen-VL-Chat's prompts differ, empty where they must not; None where lmms-eval has none.
    """

    name: str
    made: str
    yaml: str
    runs: tuple[Run, ...]
    split: str = ""
    scale: float = 100.0
    score: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    answers: Callable[[Made], list[str]] = lambda made: made.answers
    needs_java: bool = False
    qwen: str | None = None


# Why figures differ
_WHEN = (
    "himap normalises only where the ten answers differ, as the official script does, and processes the "
    "prediction before, as LLaVA does; lmms-eval normalises always"
)
_COMMAS = (
    'in "1,,000" the official script sees no decimal comma, because it wants exactly one; lmms-eval takes '
    "any number of them"
)
_LONE = (
    "the release's parser keeps full stops and wants a whole yes or no; lmms-eval drops the stops and takes "
    "a lone y or n"
)
_BARE = "POPE's own parser reads sentences; lmms-eval wants the bare word"
_UNREAD = (
    "lmms-eval leaves answers that are neither yes nor no out of the recall's denominator; himap counts them "
    "as missed"
)
_RATIO = "lmms-eval prints the share of yes in the ground truth, himap of yes predicted"
_LETTER = (
    "LLaVA's parser wants a capital, alone or before a full stop and a space, or one sentence; lmms-eval's a "
    "letter of any case alone, or a capital before a full stop"
)
_SHIFTED = (
    "a line separator in one caption gives all later ones their neighbour's tokens in lmms-eval; himap "
    "blanks it"
)
# Why prompts differ
_OCR = "himap gives the OCR tokens as LLaVA does; lmms-eval's default has none"
_SPACE = "where two spaces precede the request, lmms-eval leaves one of them before the line break"
_STEPS = "lmms-eval asks for reasoning, step by step; MM-Vet and LLaVA send the question alone"
_QWEN_TEXT = "lmms-eval capitalises the question; Qwen-VL's own script leaves it as it is"
_QWEN_MME = (
    'lmms-eval puts "Answer:" in place of the request; Qwen-VL\'s own script keeps the released question'
)

_SHORT = {"pre_prompt": "", "post_prompt": "\nAnswer the question using a single word or phrase."}
_ALWAYS = ("task.options.normalisation=always", "task.options.processor=none")
_ACCURACY = {"exact_match": "accuracy"}
_MME = {
    "mme_perception_score": "perception",
    "mme_cognition_score": "cognition",
    "mme_perception_score+mme_cognition_score": "total",
}
_JAVA, _PYTHON = ("task.options.tokenizer=java",), ("task.options.tokenizer=python",)
_RULE = ("task.judge.prompt={tasks}/llava-in-the-wild/rule.json",)


def _bare_words(made: Made) -> list[str | None]:
    return [text if text.strip().lower() in ("yes", "no") else None for text in made.answers]


def _truth(made: Made) -> list[str | None]:
    return [record["answer"] for record in made.records]


def _recorded(made: Made) -> list[str | None]:
    return [*made.answers]


def _blanked(made: Made) -> list[str]:
    return [text.replace(SEPARATOR, " ") for text in made.answers]


def _pope(name: str, group: str, split: str = "") -> Case:
    names = ("accuracy", "precision", "recall", "f1_score", "yes_ratio")
    pairs = {f"pope_{one}": f"{group}_{one.removesuffix('_score')}" for one in names}
    recall = {one: pairs[one] for one in ("pope_recall", "pope_f1_score")}
    ratio = {"pope_yes_ratio": pairs["pope_yes_ratio"]}
    exact = ("task.options.parser=exact",)
    runs = (
        Run(pairs, reasons={"": _BARE, "pope_yes_ratio": _RATIO}),
        Run(pairs, exact, {**dict.fromkeys(recall, _UNREAD), "pope_yes_ratio": _RATIO}),
        Run(recall, exact, replay=_bare_words, note="bare words alone"),
        Run(ratio, exact, replay=_truth, note="the truth as answers"),
    )
    return Case(name, "pope", f"pope/{name}.yaml", runs, split=split, score="pope_accuracy.score")


def _captions(name: str, made: str, metric: str) -> Case:
    runs = tuple(Run({metric: "cider"}, tokenizer) for tokenizer in (_JAVA, _PYTHON))
    return Case(name, made, f"{made}/{name}.yaml", runs, needs_java=True)


def _separator(name: str, run: Run, answers: Callable[[Made], list[str]]) -> Case:
    yaml = "nocaps/nocaps_val.yaml"
    return Case(name, "nocaps_separator", yaml, (run,), answers=answers, needs_java=True)


CASES = (
    Case(
        "vqav2_val",
        "vqav2",
        "vqav2/vqav2_val.yaml",
        (Run(_ACCURACY, reasons={"": _WHEN}), Run(_ACCURACY, _ALWAYS)),
        score="exact_match",
    ),
    Case(
        "vqav2_val_commas",
        "vqav2_commas",
        "vqav2/vqav2_val.yaml",
        (Run(_ACCURACY, _ALWAYS, {"": _COMMAS}),),
        score="exact_match",
    ),
    Case(
        "textvqa_val",
        "textvqa",
        "textvqa/textvqa_val.yaml",
        (Run(_ACCURACY, prompt_reason=_OCR), Run(_ACCURACY, ("task.options.ocr=false",))),
        score="exact_match",
        qwen=_QWEN_TEXT,
    ),
    Case(
        "textvqa_val_ocr",
        "textvqa",
        "textvqa/textvqa_val.yaml",
        (Run(_ACCURACY),),
        score="exact_match",
        changes={"lmms_eval_specific_kwargs": {"default": {**_SHORT, "ocr": True}}},
    ),
    Case(
        "mme",
        "mme",
        "mme/mme.yaml",
        (
            Run(_MME, reasons={"": _LONE}, prompt_reason=_SPACE),
            Run(_MME, ("task.options.parser=lmms_eval",), prompt_reason=_SPACE),
        ),
        scale=1.0,
        score="mme_perception_score.score|mme_cognition_score.score",
        qwen=_QWEN_MME,
    ),
    _pope("pope", "micro"),
    _pope("pope_adv", "adversarial", "adversarial"),
    _pope("pope_pop", "popular", "popular"),
    _pope("pope_random", "random", "random"),
    Case(
        "scienceqa_img",
        "scienceqa",
        "scienceqa/scienceqa_img.yaml",
        (Run(_ACCURACY, reasons={"": _LETTER}), Run(_ACCURACY, ("task.options.parser=lmms_eval",))),
        score="exact_match",
        qwen="",
    ),
    _captions("nocaps_val", "nocaps", "nocaps_CIDEr"),
    _captions("flickr30k_test", "flickr30k", "flickr_CIDEr"),
    _separator(
        "nocaps_val_separator",
        Run({"nocaps_CIDEr": "cider"}, _JAVA, {"": _SHIFTED}),
        lambda made: made.answers,
    ),
    _separator(
        "nocaps_val_blanked",
        Run({"nocaps_CIDEr": "cider"}, _JAVA, replay=_recorded, note="blanked for lmms-eval alone"),
        _blanked,
    ),
    Case(
        "llava_in_the_wild",
        "llava_bench",
        "llava-in-the-wild/llava-in-the-wild.yaml",
        (Run({f"gpt_eval_llava_{one}": one for one in ("all", "conv", "detail", "complex")}, _RULE),),
        scale=1.0,
    ),
    Case(
        "mmvet",
        "mm_vet",
        "mmvet/mmvet.yaml",
        (Run({"gpt_eval_score": "total"}, prompt_reason=_STEPS),),
        scale=1.0,
    ),
)
