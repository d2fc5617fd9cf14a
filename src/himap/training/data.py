"""Training batches: drawn scenes with dense labels, and many questions about one picture in one sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from himap.models.shapes import MEAN, PATCH, STD, SYSTEM
from himap.shapes import language
from himap.shapes.drawing import draw, patch_labels
from himap.shapes.language import Question
from himap.shapes.scene import COLOURS, SHAPES, SIDE, SIZES, Scene, pick, sample_scene

TRAINING_STREAM = 0
"""First word of every training seed; the tasks' splits use others (see `himap.tasks.shapes`)."""

IGNORE = -100
RELATION, OPTION, COUNT = range(3)
N_JUDGEMENTS = (2, 2, len(language.NUMBERS))
"""Number of classes of each kind of judgement: before or not, right or not, how many."""
_TOWER, _DECODER = 0, 1
# A caption has some twenty answer tokens, the other kinds one; this keeps it from drowning them.
_WEIGHTS = {"short": 1.0, "yesno": 1.0, "choice": 1.0, "caption": 0.2}
_CATEGORIES = ("random", "popular", "adversarial")


def pixels(pictures: np.ndarray) -> torch.Tensor:
    """uint8 [B, 96, 96, 3] -> float32 [B, 3, 96, 96], normalised as the model's processor does it."""
    scaled = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (scaled - MEAN) / STD


def properties(scene: Scene) -> np.ndarray:
    """What is true of each thing, [N, 5]: shape, colour, size, column and row of its centre in patches."""
    return np.array(
        [
            (
                SHAPES.index(thing.shape),
                COLOURS.index(thing.colour),
                SIZES.index(thing.size),
                int(thing.x) // PATCH,
                int(thing.y) // PATCH,
            )
            for thing in scene.things
        ]
    )


N_CLASSES = (len(SHAPES), len(COLOURS), len(SIZES), SIDE // PATCH, SIDE // PATCH)
"""Number of classes of each property, in the order of `properties`."""


def tower_batch(seed: int, step: int, n_images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and the properties of the thing that each patch shows.

    Returns:
        pixels [B, 3, 96, 96]; labels [B, 144, 5], `IGNORE` on the background.
    """
    rng = np.random.default_rng([TRAINING_STREAM, _TOWER, seed, step])
    scenes = [sample_scene(rng) for _ in range(n_images)]
    labels = np.full((n_images, (SIDE // PATCH) ** 2, len(N_CLASSES)), IGNORE)
    for row, scene in zip(labels, scenes, strict=True):
        thing = patch_labels(scene, PATCH).reshape(-1)
        row[thing >= 0] = properties(scene)[thing[thing >= 0]]
    return pixels(np.stack([draw(scene) for scene in scenes])), torch.from_numpy(labels)


@dataclass
class Packed:
    """Several questions about each picture in one row, each seeing the picture and itself only.

    Attributes:
        pixels: [B, 3, 96, 96].
        ids: [B, T] token ids; the image's places hold the image token's id.
        labels: [B, T] the next token where an answer is to be learned, else `IGNORE`.
        weights: [B, T] how much each label counts.
        positions: [B, T] each question goes on from the end of the shared start.
        segment: [B, T] 0 for the shared start, 1.. for the questions, -1 for padding.
        mention_at: [M, 2] row and column of the last token of each noun phrase.
        mention_labels: [M, 5] properties of the thing meant, `IGNORE` where there is none.
        judgement_at: [J, 2] row and column of the second noun phrase of a relation, of each option, and of
            what is to be counted.
        judgement_kind: [J] `RELATION`, `OPTION` or `COUNT`.
        judgement_label: [J] whether the first thing comes before the second; whether the option is right; how
            many there are.
        centres: [B, V] 1 where an image token holds the centre of a thing, else 0.
        answer_at: [A, 2] row and column where the first token of each answer is predicted.
        answer_kind: what each of these answers belongs to, for the log.
    """

    pixels: torch.Tensor
    ids: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    positions: torch.Tensor
    segment: torch.Tensor
    mention_at: torch.Tensor
    mention_labels: torch.Tensor
    judgement_at: torch.Tensor
    judgement_kind: torch.Tensor
    judgement_label: torch.Tensor
    centres: torch.Tensor
    answer_at: torch.Tensor
    answer_kind: list[str]

    def to(self, device: str) -> Packed:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **moved)

    def mask(self) -> torch.Tensor:
        """[B, 1, T, T], true where a row may look: earlier in its own question, or in the shared start."""
        n = self.segment.shape[1]
        rows, columns = self.segment[:, :, None], self.segment[:, None, :]
        causal = torch.ones(n, n, dtype=torch.bool, device=rows.device).tril()
        own = torch.eye(n, dtype=torch.bool, device=rows.device)
        # Padding looks at itself: a row that sees nothing would turn into NaN.
        return (((rows == columns) | (columns == 0)) & causal | own)[:, None]


def ask_anything(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """One round of questions about a scene in random order; the harder kinds come more often."""
    yes = rng.random(2) < 0.5
    questions = [
        language.colour(scene, rng),
        language.shape(scene, rng),
        *(language.count(scene, rng) for _ in range(3)),
        language.relation(scene, rng),
        *(language.existence(scene, rng, pick(rng, _CATEGORIES), bool(present)) for present in yes),
        language.choice(scene, rng, language.colour),
        language.choice(scene, rng, language.shape),
        language.caption(scene, rng),
    ]
    known = [question for question in questions if question is not None]
    return [known[int(index)] for index in rng.permutation(len(known))]


class Packer:
    """Turns pictures and questions into `Packed` rows of a fixed length.

    Args:
        tokenizer: the embedded model's.
        n_image: image tokens a picture.
        n_text: tokens a row has for questions; what does not fit is left out.
    """

    def __init__(self, tokenizer: Any, n_image: int, n_text: int) -> None:
        self.tokenizer, self.n_image, self.n_text = tokenizer, n_image, n_text
        image = tokenizer.convert_tokens_to_ids("<image>")
        text = tokenizer(f"{SYSTEM} USER:").input_ids
        self.image_start = len(text)
        self.start = [*text, *[image] * n_image]
        self.end = tokenizer.eos_token_id

    def batch(self, seed: int, step: int, n_images: int) -> Packed:
        """The decoder's training batch of a step; equal seeds and steps give equal batches."""
        rng = np.random.default_rng([TRAINING_STREAM, _DECODER, seed, step])
        scenes = [sample_scene(rng) for _ in range(n_images)]
        length = len(self.start) + self.n_text
        ids = np.full((n_images, length), self.tokenizer.pad_token_id)
        labels, segment = np.full_like(ids, IGNORE), np.full_like(ids, -1)
        positions = np.zeros_like(ids)
        mention_at: list[tuple[int, int]] = []
        mention_labels: list[np.ndarray] = []
        judgements: list[tuple[int, int, int, int]] = []
        answer_at: list[tuple[int, int]] = []
        answer_kind: list[str] = []
        weights = np.zeros(ids.shape, dtype=np.float32)
        centres = np.zeros((n_images, self.n_image), dtype=np.int64)
        for row, scene in enumerate(scenes):
            n = len(self.start)
            ids[row, :n], segment[row, :n], positions[row, :n] = self.start, 0, np.arange(n)
            known = properties(scene)
            centres[row, known[:, 4] * (SIDE // PATCH) + known[:, 3]] = 1
            for number, question in enumerate(ask_anything(scene, rng), start=1):
                tokens, n_prompt, last = self._tokens(question)
                stop = n + len(tokens)
                if stop > length:
                    continue
                ids[row, n:stop], segment[row, n:stop] = tokens, number
                positions[row, n:stop] = len(self.start) + np.arange(len(tokens))
                labels[row, n + n_prompt - 1 : stop - 1] = tokens[n_prompt:]
                weights[row, n + n_prompt - 1 : stop - 1] = _WEIGHTS[question.kind]
                answer_at.append((row, n + n_prompt - 1))
                answer_kind.append(f"{question.kind}/{question.category}")
                judgements += [(row, n + last[end], kind, label) for end, kind, label in _judged(question)]
                for mention in question.mentions:
                    mention_at.append((row, n + last[mention.end]))
                    none = np.full(len(N_CLASSES), IGNORE)
                    mention_labels.append(none if mention.thing < 0 else known[mention.thing])
                n = stop
        return Packed(
            pixels=pixels(np.stack([draw(scene) for scene in scenes])),
            ids=torch.from_numpy(ids),
            labels=torch.from_numpy(labels),
            positions=torch.from_numpy(positions),
            segment=torch.from_numpy(segment),
            mention_at=torch.tensor(mention_at),
            mention_labels=torch.from_numpy(np.stack(mention_labels)),
            judgement_at=torch.tensor([(row, column) for row, column, _, _ in judgements]),
            judgement_kind=torch.tensor([kind for _, _, kind, _ in judgements]),
            judgement_label=torch.tensor([label for _, _, _, label in judgements]),
            centres=torch.from_numpy(centres),
            weights=torch.from_numpy(weights),
            answer_at=torch.tensor(answer_at),
            answer_kind=answer_kind,
        )

    def _tokens(self, question: Question) -> tuple[list[int], int, dict[int, int]]:
        """Ids of a question with its answer, length of its prompt, and the token that ends at a character."""
        text = f"{_text(question)} ASSISTANT:"
        prompt = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        answer = self.tokenizer(question.answer, add_special_tokens=False).input_ids
        last = {stop: index for index, (_, stop) in enumerate(prompt.offset_mapping)}
        return [*prompt.input_ids, *answer, self.end], len(prompt.input_ids), last


def _text(question: Question) -> str:
    return language.choice_text(question.text, question.choices) if question.choices else question.text


def _judged(question: Question) -> list[tuple[int, int, int]]:
    """What can be judged before the answer: (where a phrase ends in the text, kind, label)."""
    if question.category == "relation":
        return [(question.mentions[1].end, RELATION, int(question.answer in ("left", "above")))]
    if question.category == "count":
        end = question.text.index(" are there")
        return [(end, COUNT, language.NUMBERS.index(question.answer))]
    text, judged, at = _text(question), [], len(question.text)
    for letter, word in zip(language.LETTERS, question.choices, strict=False):
        at = text.index(f"{letter}. {word}", at) + len(f"{letter}. {word}")
        judged.append((at, OPTION, int(letter == question.answer)))
    return judged
