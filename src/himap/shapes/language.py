"""What can be asked about a scene, and what is right: the sentences of the four embedded tasks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from himap.shapes.scene import COLOURS, SHAPES, Scene, Thing, pick

NUMBERS = ("zero", "one", "two", "three", "four", "five")
LETTERS = ("A", "B", "C", "D")
CAPTION_REQUEST = "describe the picture."
CHOICE_REQUEST = "answer with the letter."

# Two things whose centres are closer than this (pixels) are neither left nor right of each other.
_CLEAR = 12.0


@dataclass(frozen=True)
class Mention:
    """A noun phrase in a question: where it ends (characters) and which thing it means, -1 for none."""

    end: int
    thing: int


@dataclass(frozen=True)
class Question:
    """A question about a scene with its right answer.

    Attributes:
        mentions: noun phrases that mean one thing; training uses them, evaluation does not.
    """

    kind: str
    text: str
    answer: str
    category: str
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    mentions: tuple[Mention, ...] = ()


Ask = Callable[[Scene, np.random.Generator], Question | None]
"""Makes a question about a scene, or None where the scene does not allow one."""


class _Sentence:
    """Builds a sentence and remembers where its mentions end."""

    def __init__(self, scene: Scene) -> None:
        self.scene, self.text, self.mentions = scene, "", []  # type: Scene, str, list[Mention]

    def add(self, text: str) -> _Sentence:
        self.text += text
        return self

    def mention(self, text: str, thing: Thing | None) -> _Sentence:
        self.text += text
        index = -1 if thing is None else self.scene.things.index(thing)
        self.mentions.append(Mention(len(self.text), index))
        return self

    def ask(self, kind: str, category: str, answer: str) -> Question:
        return Question(kind, self.text, answer, category, mentions=tuple(self.mentions))


def colour(scene: Scene, rng: np.random.Generator) -> Question | None:
    """What colour is the circle?"""
    thing = _unique(scene, rng, "shape")
    if thing is None:
        return None
    sentence = _Sentence(scene).add("what colour is the ").mention(thing.shape, thing).add("?")
    return sentence.ask("short", "colour", thing.colour)


def shape(scene: Scene, rng: np.random.Generator) -> Question | None:
    """What shape is the red object?"""
    thing = _unique(scene, rng, "colour")
    if thing is None:
        return None
    sentence = _Sentence(scene).add("what shape is the ").mention(f"{thing.colour} object", thing).add("?")
    return sentence.ask("short", "shape", thing.shape)


def count(scene: Scene, rng: np.random.Generator) -> Question:
    """How many red objects are there?  How many circles are there?"""
    counts = {f"{name} objects": sum(t.colour == name for t in scene.things) for name in COLOURS}
    counts |= {plural(name): sum(t.shape == name for t in scene.things) for name in SHAPES}
    # Equal chances for each number that occurs: otherwise nearly every answer is zero.
    number = int(rng.choice(sorted(set(counts.values()))))
    what = pick(rng, tuple(name for name, n in counts.items() if n == number))
    return Question("short", f"how many {what} are there?", NUMBERS[number], "count")


def relation(scene: Scene, rng: np.random.Generator) -> Question | None:
    """Is the red circle left or right of the blue square?"""
    axis = pick(rng, ("x", "y"))
    pairs = [
        (a, b)
        for a in scene.things
        for b in scene.things
        if a is not b and abs(getattr(a, axis) - getattr(b, axis)) >= _CLEAR
    ]
    if not pairs:
        return None
    first, second = pairs[int(rng.integers(len(pairs)))]
    before, after, words = ("left", "right", " left or right of the ")
    if axis == "y":
        before, after, words = ("above", "below", " above or below the ")
    answer = before if getattr(first, axis) < getattr(second, axis) else after
    sentence = _Sentence(scene).add("is the ").mention(first.name, first).add(words)
    return sentence.mention(second.name, second).add("?").ask("short", "relation", answer)


def existence(scene: Scene, rng: np.random.Generator, category: str, present: bool) -> Question | None:
    """Is there a red circle in the picture?

    Negatives by difficulty, after POPE (arXiv 2305.10355): `random` shares neither colour nor shape with any
    object, `popular` shares one of them, `adversarial` shares both, with different objects.
    """
    colours = {thing.colour for thing in scene.things}
    shapes = {thing.shape for thing in scene.things}
    names = {thing.name for thing in scene.things}
    thing = None
    if present:
        thing = scene.things[int(rng.integers(len(scene.things)))]
        name = thing.name
    else:
        shared = {"random": (0,), "popular": (1,), "adversarial": (2,)}[category]
        options = tuple(
            f"{c} {s}"
            for c in COLOURS
            for s in SHAPES
            if (c in colours) + (s in shapes) in shared and f"{c} {s}" not in names
        )
        if not options:
            return None
        name = pick(rng, options)
    sentence = _Sentence(scene).add(f"is there {article(name)} ").mention(name, thing).add(" in the picture?")
    return sentence.ask("yesno", category, "yes" if present else "no")


def choice(scene: Scene, rng: np.random.Generator, ask: Ask) -> Question | None:
    """A short question with four options; the wrong ones are taken from the same scene where it has some."""
    question = ask(scene, rng)
    if question is None:
        return None
    pool: Sequence[str] = {"colour": COLOURS, "shape": SHAPES}[question.category]
    seen = {thing.colour for thing in scene.things} | {thing.shape for thing in scene.things}
    wrong = [str(word) for word in rng.permutation([word for word in pool if word != question.answer])]
    wrong.sort(key=lambda word: word not in seen)
    options = [str(word) for word in rng.permutation([question.answer, *wrong[: len(LETTERS) - 1]])]
    letter = LETTERS[options.index(question.answer)]
    return Question(
        "choice", question.text, letter, question.category, tuple(options), mentions=question.mentions
    )


def choice_text(question: str, choices: Sequence[str]) -> str:
    """A multiple-choice question as it is put to the model."""
    options = " ".join(f"{letter}. {word}" for letter, word in zip(LETTERS, choices, strict=True))
    return f"{question} {options} {CHOICE_REQUEST}"


def caption(scene: Scene, rng: np.random.Generator) -> Question:
    """Describe the picture: five references, of which training takes one at random."""
    references = captions(scene)
    return Question("caption", CAPTION_REQUEST, pick(rng, references), "caption", references=references)


def captions(scene: Scene) -> tuple[str, ...]:
    """Five descriptions of a scene in different words and orders."""
    across, down = scene.left_to_right, scene.top_to_bottom
    plain = [t.name for t in across]
    sized = [f"{t.size} {t.name}" for t in across]
    return (
        enumerate_things(plain),
        enumerate_things(sized),
        f"there is {enumerate_things(plain)}",
        f"the picture shows {enumerate_things(sized)}",
        f"from top to bottom there is {enumerate_things([t.name for t in down])}",
    )


def enumerate_things(names: Sequence[str]) -> str:
    """a red circle, a blue square and an orange star"""
    phrases = [f"{article(name)} {name}" for name in names]
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def plural(name: str) -> str:
    return name + ("es" if name.endswith("s") else "s")


def _unique(scene: Scene, rng: np.random.Generator, attribute: str) -> Thing | None:
    """A thing that shares its `attribute` with no other."""
    values = [getattr(thing, attribute) for thing in scene.things]
    alone = [thing for thing in scene.things if values.count(getattr(thing, attribute)) == 1]
    return alone[int(rng.integers(len(alone)))] if alone else None
