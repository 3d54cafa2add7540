"""Answers across windows against a slow search over all of them, and model folders that do not fit together."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.artifacts import read_json, write_json
from pipeline.data.examples.questions import question_examples
from pipeline.data.question_records import Question
from pipeline.inference.answering import SETTINGS, Answerer, AnswererSettings, open_answerer
from pipeline.models.bert import Bert, BertConfig, BertForPretraining
from pipeline.models.heads import SpanHead
from pipeline.models.huggingface.bert import bert_to_huggingface, span_head_to_huggingface
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_wordpiece
from tests.folders import save_folder
from tests.parity.hf import spread
from tests.stages.riddles import tokenizer

SETTING = AnswererSettings(max_length=14, stride=4, max_question_tokens=4, max_answer_tokens=3)
PASSAGES = [
    "It was Red, and the Young dog went by.",
    "then so again\n\nthere it   was on BLUE and by pale Cat then was so it on again there. And so by it went!",
    "Hórse",
]
QUESTIONS = [
    Question(f"{i}-{j}", question, passage)
    for i, passage in enumerate(PASSAGES)
    for j, question in enumerate(["Which colour?", "Which animal was there, and by what did it go on?"])
]


def model(words: Tokenizer, *, positions: int = 16) -> SpanHead:
    """Random weights, spread so far that scores differ."""
    torch.manual_seed(0)
    shape = BertConfig(
        vocab_size=words.vocab_size, d_model=16, num_layers=1, num_heads=2, d_ff=32, max_length=positions, dropout=0.0
    )
    found = SpanHead(Bert(shape))
    spread(found)
    return found.eval()


def settings(**changes: object) -> AnswererSettings:
    return AnswererSettings.model_validate(SETTING.model_dump() | changes)


def slow_answers(answerer: Answerer, question: Question) -> tuple[list[tuple[float, str]], float, float]:
    """Every allowed span of every window by itself: (score, text) best first; the null score, and log of the total."""
    words, limits = answerer.tokenizer, answerer.settings
    asked = words.encode(question.question)[: limits.max_question_tokens]
    placed = words.encode_placed([question.passage])[0]
    room = limits.max_length - len(asked) - 3
    windows = [(0, placed.ids[:room])]
    while windows[-1][0] + room < len(placed.ids):
        start = windows[-1][0] + limits.stride
        windows.append((start, placed.ids[start : start + room]))
    spans, null_score = [], math.inf
    for number, (start, part) in enumerate(windows):
        ids = [words.id_of("cls"), *asked, words.id_of("sep"), *part, words.id_of("sep")]
        types = torch.tensor([[0] * (len(asked) + 2) + [1] * (len(part) + 1)])
        with torch.no_grad():
            scores = answerer.model(torch.tensor([ids]), types, torch.ones_like(types, dtype=torch.bool))
        begin, end = scores.start[0].tolist(), scores.end[0].tolist()
        null_score = min(null_score, begin[0] + end[0])
        for first in range(len(part)):
            token = start + first
            context = [
                min(token - other, other + len(ids_) - 1 - token) + 0.01 * len(ids_)
                if other <= token < other + len(ids_)
                else -math.inf
                for other, ids_ in windows
            ]
            if context.index(max(context)) != number:
                continue
            for last in range(first, min(first + limits.max_answer_tokens, len(part))):
                at = len(asked) + 2
                text = question.passage[placed.offsets[token][0] : placed.offsets[start + last][1]]
                spans.append((begin[at + first] + end[at + last], text))
    scores_of_all = [score for score, _ in spans] + ([null_score] if limits.unanswerable else [])
    return sorted(spans, reverse=True), null_score, math.log(sum(math.exp(score) for score in scores_of_all))


@pytest.mark.parametrize("unanswerable", [False, True])
def test_answers_are_those_of_a_slow_search_over_all_windows(unanswerable: bool) -> None:
    words = tokenizer()
    answerer = Answerer(model(words), words, settings(unanswerable=unanswerable))
    examples = question_examples(QUESTIONS, words, answerer.settings)
    assert np.bincount(examples.windows.question).max() > 4
    for question, found in zip(QUESTIONS, answerer.answer(QUESTIONS, num_best=4), strict=True):
        spans, null_score, total = slow_answers(answerer, question)
        best = list(dict.fromkeys(text for _, text in spans))[:4]
        highest = {text: score for score, text in reversed(spans)}
        assert [one.text for one in found.answers] == best
        assert [one.score for one in found.answers] == pytest.approx([highest[text] for text in best], abs=1e-4)
        for one in found.answers:
            assert question.passage[one.start : one.start + len(one.text)] == one.text
            assert one.probability == pytest.approx(math.exp(one.score - total), rel=1e-3)
        assert found.no_answer == pytest.approx(null_score - spans[0][0], abs=1e-4)
        assert found.no_answer_probability == pytest.approx(math.exp(null_score - total) * unanswerable, rel=1e-3)
        is_left = unanswerable and null_score > spans[0][0]
        assert found.text == ("" if is_left else spans[0][1])


def test_a_threshold_decides_what_is_left_unanswered() -> None:
    words = tokenizer()
    free = Answerer(model(words), words, settings(unanswerable=True)).answer(QUESTIONS)
    # That of a question, which is then answered.
    middle = sorted(one.no_answer for one in free)[2]
    found = Answerer(model(words), words, settings(unanswerable=True, no_answer_threshold=middle)).answer(QUESTIONS)
    assert [one.text == "" for one in found] == [one.no_answer > middle for one in free]
    assert sum(one.text == "" for one in found) == 3
    for one in found:
        assert one.probability == (one.answers[0].probability if one.text else one.no_answer_probability)


def test_what_is_answered_does_not_depend_on_the_other_questions() -> None:
    words = tokenizer()
    answerer = Answerer(model(words), words, SETTING)
    together = answerer.answer(QUESTIONS)
    alone = [answerer.answer([question])[0] for question in QUESTIONS]
    assert [one.text for one in together] == [one.text for one in alone]
    assert [one.probability for one in together] == pytest.approx([one.probability for one in alone], rel=1e-4)
    assert answerer.answer([]) == []


def test_a_passage_without_a_token_has_no_answer() -> None:
    words = tokenizer()
    for unanswerable in (False, True):
        answerer = Answerer(model(words), words, settings(unanswerable=unanswerable))
        (found,) = answerer.answer([Question("a", "Which colour?", "\u200b")])
        assert (found.text, found.answers, found.no_answer) == ("", (), math.inf)
        assert found.probability == pytest.approx(1.0)


def write_folder(folder: Path, **changes: object) -> Path:
    """A model folder with the settings changed."""
    words = tokenizer()
    save_folder(folder, span_head_to_huggingface(model(words), pad_token_id=words.pad_id), words)
    write_json(folder / SETTINGS, SETTING.model_dump() | changes)
    return folder


def test_a_folder_is_opened_with_its_settings_and_one_without_them_by_those_of_the_paper(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", unanswerable=True, no_answer_threshold=-1.5)
    assert open_answerer(folder).settings == settings(unanswerable=True, no_answer_threshold=-1.5)
    (folder / SETTINGS).unlink()
    found = open_answerer(folder).settings
    assert (found.max_length, found.max_answer_tokens, found.unanswerable) == (16, 30, False)
    words = tokenizer()
    long = span_head_to_huggingface(model(words, positions=512), pad_token_id=words.pad_id)
    found = open_answerer(save_folder(tmp_path / "long", long, words)).settings
    assert (found.max_length, found.stride, found.max_question_tokens) == (384, 128, 64)


def test_a_folder_that_does_not_fit_together_is_named_with_what_is_wrong(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model", max_length=20)
    with pytest.raises(ValueError, match=rf"{SETTINGS}: max_length: 20 is longer than the 16 positions of the model"):
        open_answerer(folder)
    write_folder(folder, stride=11)
    with pytest.raises(ValueError, match=rf"{SETTINGS}: Value error, stride: 11 is more than the 7 tokens"):
        open_answerer(folder)
    write_folder(folder, no_answer_threshold="low")
    with pytest.raises(
        ValueError, match=rf"{SETTINGS}: no_answer_threshold: Input should be a valid number, found 'lo"
    ):
        open_answerer(folder)
    write_folder(folder, doc_stride=4)
    with pytest.raises(ValueError, match=rf"{SETTINGS}: doc_stride: Extra inputs are not permitted, found 4"):
        open_answerer(folder)


def test_another_vocabulary_and_a_missing_head_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "model")
    train_wordpiece([" ".join(f"stranger{i}" for i in range(400))] * 9, vocab_size=2000).save(folder)
    with pytest.raises(ValueError, match=r"model: the tokenizer does not fit the model: it has \d+ ids, the model's"):
        open_answerer(folder)
    words = tokenizer()
    shape = BertConfig(vocab_size=words.vocab_size, d_model=16, num_layers=1, num_heads=2, d_ff=32, max_length=16)
    config, state = bert_to_huggingface(BertForPretraining(shape), pad_token_id=words.pad_id)
    encoder = {name: tensor for name, tensor in state.items() if not name.startswith("cls.")}
    bare = {**config, "architectures": ["BertForQuestionAnswering"]}, encoder
    save_folder(tmp_path / "bare", bare, words)
    with pytest.raises(ValueError, match=r"bare: the weights do not fit.*missing qa_outputs.weight \(2, 16\)"):
        open_answerer(tmp_path / "bare")
    assert "pooler" in " ".join(encoder)  # older files bring it along
    own = span_head_to_huggingface(model(words), pad_token_id=words.pad_id)
    pooler = {name: tensor for name, tensor in encoder.items() if "pooler" in name}
    save_folder(tmp_path / "old", (own[0], {**own[1], **pooler}), words)
    assert open_answerer(tmp_path / "old").answer(QUESTIONS)[0].text
    assert read_json(tmp_path / "old/config.json")["architectures"] == ["BertForQuestionAnswering"]
