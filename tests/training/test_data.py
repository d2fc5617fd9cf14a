"""Packed training rows: what each token sees, and that it equals the question asked alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from himap.models.shapes import N_IMAGE_TOKENS, build_model, build_processor, build_tokenizer, format_prompt
from himap.shapes import language
from himap.shapes.drawing import draw
from himap.shapes.scene import sample_scene
from himap.training.data import COUNT, IGNORE, OPTION, RELATION, Packed, Packer, pixels, tower_batch
from himap.training.decoder import _Network


@pytest.fixture(scope="module")
def packed() -> Packed:
    return Packer(build_tokenizer(), N_IMAGE_TOKENS, 138).batch(seed=3, step=0, n_images=3)


def test_nothing_said_in_training_is_unknown_to_the_tokenizer(packed: Packed) -> None:
    tokenizer = build_tokenizer()
    for index in range(200):
        rng = np.random.default_rng([5, index])
        scene = sample_scene(rng)
        texts = [*language.captions(scene), language.count(scene, rng).text, format_prompt("is there?")]
        for text in texts:
            assert tokenizer.unk_token_id not in tokenizer(text).input_ids
    assert not (packed.ids == tokenizer.unk_token_id).any()


def test_text_survives_the_tokenizer() -> None:
    tokenizer = build_tokenizer()
    text = "a small red circle, an orange ring and a blue star."
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_pixels_equal_the_processors() -> None:
    picture = draw(sample_scene(np.random.default_rng(1)))
    ours = pixels(picture[None])
    theirs = build_processor().image_processor(images=[picture], return_tensors="pt")["pixel_values"]
    assert torch.allclose(ours, torch.as_tensor(theirs), atol=1e-6)


def test_equal_steps_give_equal_batches() -> None:
    for a, b in zip(tower_batch(1, 5, 2), tower_batch(1, 5, 2), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(tower_batch(1, 5, 2)[0], tower_batch(1, 6, 2)[0])


def test_a_question_sees_the_picture_and_itself_only(packed: Packed) -> None:
    mask = packed.mask()[:, 0]
    segment = packed.segment
    for row in range(len(segment)):
        first = int((segment[row] == 2).nonzero()[0])
        seen = segment[row][mask[row, first]]
        assert set(seen.tolist()) == {0, 2}
        assert (seen == 2).sum() == 1  # itself, nothing later


def test_a_packed_question_equals_the_same_question_alone(packed: Packed) -> None:
    torch.manual_seed(0)
    model = build_model().eval()
    packer = Packer(build_tokenizer(), N_IMAGE_TOKENS, 138)
    network = _Network(model, (4,), packer.image_start)
    with torch.no_grad():
        features = model.model.vision_tower(packed.pixels).last_hidden_state[:, 1:]
        _, together = network.forward(features, packed.ids, packed.positions, packed.mask())
        alone = (packed.segment[0] == 0) | (packed.segment[0] == 3)
        out = model(input_ids=packed.ids[:1, alone], pixel_values=packed.pixels[:1])
        expected = model.lm_head(together[:1, alone])
    assert torch.allclose(out.logits, expected, atol=1e-4)


def test_labels_are_the_answers(packed: Packed) -> None:
    tokenizer = build_tokenizer()
    for row in range(len(packed.ids)):
        for number in packed.segment[row][packed.segment[row] > 0].unique():
            here = packed.segment[row] == number
            words = tokenizer.convert_ids_to_tokens(packed.ids[row][here].tolist())
            answer = words[words.index("ASSISTANT:") + 1 :]
            labels = packed.labels[row][here]
            assert tokenizer.convert_ids_to_tokens(labels[labels != IGNORE].tolist()) == answer
            assert answer[-1] == "</s>"


def test_judgements_stand_where_they_can_be_made(packed: Packed) -> None:
    tokenizer = build_tokenizer()
    for (row, column), kind, label in zip(
        packed.judgement_at.tolist(),
        packed.judgement_kind.tolist(),
        packed.judgement_label.tolist(),
        strict=True,
    ):
        words = tokenizer.convert_ids_to_tokens(packed.ids[row].tolist())
        here = packed.segment[row] == packed.segment[row, column]
        question = tokenizer.convert_ids_to_tokens(packed.ids[row][here].tolist())
        answer = question[question.index("ASSISTANT:") + 1]
        if kind == OPTION:
            assert (words[column - 2] == answer) == bool(label) and words[column - 1] == "."
        elif kind == COUNT:
            assert words[column + 1] == "are" and language.NUMBERS[label] == answer
        else:
            assert kind == RELATION and (answer in ("left", "above")) == bool(label)


def test_centres_are_where_the_patches_of_things_are(packed: Packed) -> None:
    assert packed.centres.sum(-1).min() >= 2 and packed.centres.sum(-1).max() <= 5
    _, labels = tower_batch(1, 0, 4)
    own = torch.arange(144)
    holds = (labels[..., 3] == own % 12) & (labels[..., 4] == own // 12)
    assert holds.sum(-1).min() >= 2 and holds.sum(-1).max() <= 5
