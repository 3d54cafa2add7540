"""How answers are compared: the same requests and draws for both models, sums over each answer alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import tensor

from pipeline.inference.generation import generate
from pipeline.inference.handover import OpenedGPT, open_gpt, open_scorer, save_reward
from pipeline.inference.scoring import Policy, answer_log_probs, join, score_answers
from pipeline.layout import Layout
from pipeline.models.gpt import GPT
from pipeline.models.heads import RewardModel
from pipeline.stages.alignment import (
    AlignmentConfig,
    Judged,
    PromptsConfig,
    Requests,
    evaluate_alignment,
    read_judged,
    read_prompts,
)
from pipeline.text.tokenizer_training import train_byte_bpe
from tests.stages.opinions import ALIGNMENT, World, gpt, prompts, tokenizer

LAYOUT = Layout.of(Path("conf/tiny/dpo.yaml"))
CONFIG = AlignmentConfig.model_validate(ALIGNMENT)


@pytest.fixture(autouse=True)
def inside(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world.root)


def opened() -> OpenedGPT:
    return open_gpt(LAYOUT.model("sft"))


def judge(config: AlignmentConfig, tuned: GPT) -> Judged:
    return evaluate_alignment(LAYOUT, config, read_judged(LAYOUT, config, opened()), tuned=tuned, start=opened())


def read(split: str, config: PromptsConfig, max_new_tokens: int) -> Requests:
    return read_prompts(LAYOUT, split, config, opened(), max_new_tokens, key="prompts")


def test_a_model_beside_itself_has_not_changed() -> None:
    judged = judge(CONFIG, opened().model)
    assert judged.metrics["before"] == judged.metrics["after"]
    assert judged.metrics["judge_change"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert judged.metrics["kl"] == judged.metrics["kl_standard_error"] == 0.0
    assert [one["before"] for one in judged.samples] == [one["after"] for one in judged.samples]


def test_settings_are_chosen_on_other_requests_than_are_reported() -> None:
    found = {split: judge(CONFIG.model_copy(update={"split": split}), gpt(5)).metrics for split in ("valid", "test")}
    assert found["valid"]["num_prompts"] == found["test"]["num_prompts"] == 12
    assert found["valid"]["kl"] != found["test"]["kl"]
    assert found["test"]["kl"] > 0


def test_requests_are_those_of_the_sources_and_spread_over_the_split() -> None:
    rows = [json.loads(line) for line in Path("data/tiny/prepared/conversations/test.jsonl").read_text().splitlines()]
    wanted = [row["messages"][0]["content"] for row in rows if row["source"] == "review-movie"]
    found = read("test", CONFIG.prompts, 8)
    special = tokenizer()
    assert [special.decode(ids.tolist()) for ids in found.ids] == wanted
    numbered = Requests(tuple(np.array([i]) for i in range(10)), tuple(i % 2 == 0 for i in range(10)))
    assert [int(ids[0]) for ids in numbered.spread(4).ids] == [0, 2, 5, 7]
    assert numbered.spread(4).is_shortened == (True, True, False, False)
    assert numbered.spread(10) is not None and len(numbered.spread(20).ids) == 10


def test_a_request_that_is_too_long_loses_its_beginning_and_is_counted() -> None:
    short = PromptsConfig(sources=("review-movie",), max_length=6)
    whole, found = (read("test", config, 8) for config in (CONFIG.prompts, short))
    assert not any(whole.is_shortened)
    assert found.is_shortened == tuple(len(ids) > 6 for ids in whole.ids)
    for full, cut in zip(whole.ids, found.ids, strict=True):
        assert len(cut) == min(6, len(full)) and cut[-3:].tolist() == full[-3:].tolist()


def test_requests_of_no_source_and_answers_beyond_the_context_are_refused() -> None:
    reason = (
        r"prompts.sources: .*/test.jsonl: no conversations of \['news'\]; the file has \['chatter', 'review-movie'\]"
    )
    with pytest.raises(ValueError, match=reason):
        read("test", PromptsConfig(sources=("news",), max_length=24), 8)
    with pytest.raises(ValueError, match=r"prompts.max_length: requests of 24 tokens and answers of 25 do not fit"):
        read("test", CONFIG.prompts, 25)
    with pytest.raises(ValueError, match="max_length\n  Input should be greater than or equal to 4"):
        PromptsConfig(sources=("review-movie",), max_length=3)


@pytest.mark.parametrize("changes", [{"top_k": 5}, {"top_p": 0.9}])
def test_a_cut_distribution_is_refused_since_its_kl_is_another(changes: dict[str, Any]) -> None:
    settings = ALIGNMENT | {"decoding": ALIGNMENT["decoding"] | changes}  # type: ignore[operator]
    with pytest.raises(ValueError, match="top_k must be 0 and top_p 1"):
        AlignmentConfig.model_validate(settings)


def test_a_reward_model_of_another_tokenizer_is_refused(tmp_path: Path) -> None:
    words = [f"{one}{two}" for one in "abcdefghij" for two in "klmnopqrst"]
    other = train_byte_bpe(words * 2, vocab_size=tokenizer().vocab_size)
    save_reward(tmp_path / "reward", RewardModel(gpt()), other)
    assert open_scorer(LAYOUT.model("reward"), tokenizer()).score.weight.shape == (1, 32)
    with pytest.raises(ValueError, match="its tokenizer is not that of the model"):
        open_scorer(tmp_path / "reward", tokenizer())


def test_a_judge_of_another_tokenizer_is_refused_before_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, other = opened(), train_byte_bpe(["other words"] * 2, vocab_size=270)
    (tmp_path / "data").symlink_to(Path("data").resolve())
    shape = start.model.config.model_copy(update={"vocab_size": other.vocab_size})
    save_reward(tmp_path / "models/tiny/reward", RewardModel(GPT(shape)), other)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="its tokenizer is not that of the model"):
        read_judged(LAYOUT, CONFIG, start)


def test_probabilities_of_all_answers_of_one_token_sum_to_one() -> None:
    model, policy = gpt(), Policy.of(tokenizer(), temperature=0.6)
    words = range(tokenizer().vocab_size)
    log_probs = answer_log_probs(model, policy, [prompts(1)[0]] * len(words), [[word] for word in words], pad=0)
    assert np.exp(log_probs).sum() == pytest.approx(1.0, abs=1e-5)
    never = sorted(tokenizer().special_ids - {tokenizer().eos_id})
    assert (log_probs[never] == -np.inf).all()
    assert np.isfinite(np.delete(log_probs, never)).all()


def test_an_answers_probability_is_the_product_over_its_tokens_and_its_reward_its_own() -> None:
    torch.manual_seed(0)
    model, policy, reward = gpt(), Policy.of(tokenizer(), temperature=0.6), RewardModel(gpt(1)).eval()
    asked = prompts(5)
    answers = [one.token_ids for one in generate(model, tokenizer(), asked, CONFIG.decoding)]
    together = answer_log_probs(model, policy, asked, answers, pad=0)
    rewards = score_answers(reward, asked, answers, pad=0)
    for i, (prompt, answer) in enumerate(zip(asked, answers, strict=True)):
        steps = [
            answer_log_probs(model, policy, [np.array([*prompt, *answer[:t]])], [[token]], pad=0)[0]
            for t, token in enumerate(answer)
        ]
        assert together[i] == pytest.approx(sum(steps), rel=1e-4)
        ids = tensor([[*prompt, *answer]])
        assert rewards[i] == pytest.approx(float(reward(ids, tensor([ids.shape[1] - 1]))), abs=1e-5)


def test_joined_rows_hold_prompt_answer_and_padding() -> None:
    joined = join([np.array([1, 3, 4]), np.array([1, 4])], [[9, 2], [8]], pad=0, width=6)
    assert joined.ids.tolist() == [[1, 3, 4, 9, 2, 0], [1, 4, 8, 0, 0, 0]]
    assert joined.is_answer.tolist() == [[False] * 3 + [True] * 2 + [False], [False] * 2 + [True] + [False] * 3]
    assert joined.last.tolist() == [4, 2]
