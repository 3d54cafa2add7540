"""Questions out of running text: the right answer stands behind the question, the wrong ones in other documents."""

import pytest

from pipeline.data.records import Document
from pipeline.evaluation.next_sentence import as_choices, ask, neighbours
from pipeline.text.tokenizer import Tokenizer
from pipeline.text.tokenizer_training import train_byte_bpe

TEXTS = (
    "One cat sat here today. Two dogs ran over there.\nThree birds flew away quickly. No.",
    "Four men went home late. Five women stayed out. Six children were asleep already.",
    "Seven ships sailed north again. Eight came back. Nine were lost at sea.",
)
DOCUMENTS = [Document(str(number), "", "toy", text) for number, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_byte_bpe(TEXTS, vocab_size=300)


def test_neighbours_stand_in_one_paragraph_and_have_the_allowed_length() -> None:
    found = neighbours(DOCUMENTS, min_words=4, max_words=5)
    assert [(pair.document, pair.first, pair.second) for pair in found] == [
        (0, "One cat sat here today.", "Two dogs ran over there."),
        (1, "Four men went home late.", "Five women stayed out."),
        (1, "Five women stayed out.", "Six children were asleep already."),
    ]


def test_each_question_has_its_next_sentence_once_and_others_from_other_documents() -> None:
    pairs = neighbours(DOCUMENTS, min_words=3, max_words=6)
    rounds = [ask(pairs, num_questions=100, num_candidates=3, seed=seed) for seed in range(8)]
    assert all(len(questions) == len(pairs) for questions in rounds)
    after = {pair.first: pair for pair in pairs}
    for question in (question for questions in rounds for question in questions):
        pair = after[question.first]
        assert question.candidates[question.answer] == pair.second
        assert len(set(question.candidates)) == 3
        assert not any(other in TEXTS[pair.document] for other in question.candidates if other != pair.second)


def test_questions_are_a_function_of_the_seed_and_answers_stand_in_every_place() -> None:
    many = [
        Document(str(i), "", "toy", f"Here is text {i} again. There is word {i} too. It ends {i} now.")
        for i in range(40)
    ]
    pairs = neighbours(many, min_words=3, max_words=9)
    first, again, other = (ask(pairs, num_questions=60, num_candidates=4, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    counts = [sum(question.answer == place for question in first) for place in range(4)]
    assert min(counts) > 5


def test_wrong_candidates_are_as_long_as_the_right_one_where_there_are_such() -> None:
    documents = [Document(str(i), "", "toy", " ".join(f"Now {'w ' * n}{i}." for n in (3, 3, 9, 9))) for i in range(6)]
    for question in ask(neighbours(documents, min_words=2, max_words=20), num_questions=18, num_candidates=4, seed=3):
        assert len({len(candidate.split()) for candidate in question.candidates}) == 1


def test_a_prompt_is_bos_the_examples_as_lines_and_the_question(tokenizer: Tokenizer) -> None:
    pairs = neighbours(DOCUMENTS[1:], min_words=3, max_words=6)
    examples = neighbours(DOCUMENTS[:1], min_words=3, max_words=6)
    questions = ask(pairs, num_questions=2, num_candidates=2, seed=1)
    for num_shots, shown in ((0, ""), (1, "One cat sat here today. Two dogs ran over there.\n")):
        for question, choice in zip(
            questions,
            as_choices(questions, examples, tokenizer, num_shots=num_shots, max_length=99, seed=1),
            strict=True,
        ):
            assert choice.prompt[0] == tokenizer.bos_id
            assert tokenizer.decode(choice.prompt) == shown + question.first
            assert [tokenizer.decode(one) for one in choice.candidates] == [f" {one}" for one in question.candidates]
            assert choice.answer == question.answer


def test_a_long_prompt_loses_its_beginning_and_never_the_candidate(tokenizer: Tokenizer) -> None:
    pairs = neighbours(DOCUMENTS, min_words=3, max_words=6)
    questions = ask(pairs, num_questions=5, num_candidates=2, seed=1)
    for choice in as_choices(questions, pairs, tokenizer, num_shots=3, max_length=40, seed=1):
        assert 1 + 1 <= len(choice.prompt) <= 40 - max(len(candidate) for candidate in choice.candidates)
        assert choice.prompt[0] == tokenizer.bos_id


def test_questions_without_other_documents_or_enough_candidates_are_refused(tokenizer: Tokenizer) -> None:
    pairs = neighbours(DOCUMENTS, min_words=3, max_words=6)
    with pytest.raises(ValueError, match="at least two documents, found 2 pairs"):
        ask(pairs[-2:], num_questions=1, num_candidates=2, seed=1)
    with pytest.raises(ValueError, match="for 9 candidates"):
        ask(pairs, num_questions=5, num_candidates=9, seed=1)
    with pytest.raises(ValueError, match="num_shots: found 9, there are 5 examples"):
        as_choices([], pairs, tokenizer, num_shots=9, max_length=40, seed=1)
    questions = ask(pairs, num_questions=1, num_candidates=2, seed=1)
    with pytest.raises(ValueError, match="does not fit the context of 5"):
        as_choices(questions, pairs, tokenizer, num_shots=0, max_length=5, seed=1)
