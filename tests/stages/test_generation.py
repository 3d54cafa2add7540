"""Answers depend on the model, the prompt's place and the seed: not on batches, and never hold a special token."""

import numpy as np
import pytest
import torch

from pipeline.data.records import Message
from pipeline.inference.generation import GreedyConfig, SamplingConfig, are_shortened, encode_prompts, generate
from pipeline.models.gpt import GPT, GPTConfig
from tests.stages import grammar

TOKENIZER = grammar.tokenizer()
GREEDY = GreedyConfig(kind="greedy", max_new_tokens=6)
SAMPLING = SamplingConfig(kind="sampling", max_new_tokens=6, temperature=1.0, top_k=0, top_p=1.0, seed=3)


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    shape = GPTConfig(vocab_size=TOKENIZER.vocab_size, d_model=16, num_layers=1, num_heads=2, max_length=24)
    model = GPT(shape).eval()
    with torch.no_grad():
        model.token_embedding.weight.mul_(15.0)  # far from uniform
    return model


def _prompts(model: GPT, count: int) -> list[np.ndarray]:
    requests = [[Message("user", grammar.walk(number, 1 + number % 4))] for number in range(count)]
    return encode_prompts(requests, model, TOKENIZER, max_new_tokens=6)


@pytest.mark.parametrize("decoding", [GREEDY, SAMPLING])
def test_an_answer_does_not_depend_on_how_many_prompts_there_are(
    model: GPT, decoding: GreedyConfig | SamplingConfig
) -> None:
    prompts = _prompts(model, 70)  # more than one batch
    assert generate(model, TOKENIZER, prompts, decoding)[:5] == generate(model, TOKENIZER, prompts[:5], decoding)


def test_another_iteration_draws_other_answers_and_the_same_one_the_same(model: GPT) -> None:
    prompts = _prompts(model, 8)
    first, second, again = (generate(model, TOKENIZER, prompts, SAMPLING, iteration=i) for i in (0, 1, 0))
    assert first == again != second


def test_the_answer_is_the_likeliest_token_at_every_step_special_tokens_apart(model: GPT) -> None:
    (prompt,) = _prompts(model, 1)
    (answer,) = generate(model, TOKENIZER, [prompt], GREEDY)
    expected: list[int] = []
    barred = sorted(TOKENIZER.special_ids - {TOKENIZER.eos_id})
    while len(expected) < 6 and TOKENIZER.eos_id not in expected:
        with torch.no_grad():
            logits = model.logits(model(torch.tensor([[*prompt.tolist(), *expected]]))[0, -1])
        logits[barred] = -torch.inf
        expected.append(int(logits.argmax()))
    assert list(answer.token_ids) == expected
    assert answer.text == TOKENIZER.decode(expected)
    assert answer.has_ended == (expected[-1] == TOKENIZER.eos_id)


def test_only_eos_of_the_special_tokens_is_ever_generated(model: GPT) -> None:
    hot = SAMPLING.model_copy(update={"temperature": 50.0})  # nearly uniform over all ids
    answers = generate(model, TOKENIZER, _prompts(model, 64), hot)
    found = {token for answer in answers for token in answer.token_ids}
    assert len(found) > 200
    assert found & TOKENIZER.special_ids <= {TOKENIZER.eos_id}


def test_generation_leaves_the_mode_of_the_model_as_it_was(model: GPT) -> None:
    prompts = _prompts(model, 2)
    model.train()
    generate(model, TOKENIZER, prompts, GREEDY)
    assert model.training
    model.eval()
    generate(model, TOKENIZER, prompts, GREEDY)
    assert not model.training


def test_a_long_request_is_shortened_so_that_the_longest_answer_fits(model: GPT) -> None:
    requests = [[Message("user", grammar.walk(0, 200))], [Message("user", grammar.walk(0, 2))]]
    prompt, short = encode_prompts(requests, model, TOKENIZER, max_new_tokens=6)
    assert len(prompt) == 24 - 6 > len(short)
    assert are_shortened(requests, [prompt, short], TOKENIZER) == (True, False)
    (answer,) = generate(model, TOKENIZER, [prompt], GREEDY)
    assert answer.token_ids


def test_an_answer_as_long_as_the_context_is_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match="max_new_tokens: found 21, the context of 24 tokens allows at most 20"):
        encode_prompts([[Message("user", "Hi")]], model, TOKENIZER, max_new_tokens=21)
