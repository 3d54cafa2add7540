"""GPT and reward models compute what the GPT-2 classes of `transformers` compute, in both directions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model

from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.heads import RewardModel, SequenceClassifier
from pipeline.models.huggingface.gpt import (
    gpt_classifier_from_huggingface,
    gpt_classifier_to_huggingface,
    gpt_from_huggingface,
    gpt_to_huggingface,
    reward_from_huggingface,
    reward_to_huggingface,
)
from pipeline.models.text_encoders import GPTEncoder, LastTokenPooling
from pipeline.objectives.likelihood import token_cross_entropy
from tests.parity.hf import assert_same, mean_loss, open_theirs, save_theirs, spread, text_terms

CONFIG = GPTConfig(vocab_size=37, d_model=24, num_layers=2, num_heads=3, max_length=16, dropout=0.1)
THEIRS: dict[str, Any] = {
    "vocab_size": 37,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def our_gpt() -> GPT:
    torch.manual_seed(0)
    model = GPT(CONFIG)
    spread(model)
    return model.eval()


def ids(*shape: int) -> Tensor:
    return torch.randint(3, 37, shape, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_transformers_opens_our_gpt_and_gives_our_logits_and_loss(tmp_path: Path) -> None:
    ours = our_gpt()
    theirs = open_theirs(
        tmp_path, GPT2LMHeadModel, gpt_to_huggingface(ours, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    )
    expected, logits = theirs(ids(2, 9), labels=ids(2, 9)), ours.logits(ours(ids(2, 9)))
    assert_same(logits, expected.logits)
    terms = token_cross_entropy(logits[:, :-1].flatten(0, 1), ids(2, 9)[:, 1:].flatten())
    assert_close(mean_loss(terms), expected.loss, atol=1e-4, rtol=0)
    special = theirs.config.bos_token_id, theirs.config.eos_token_id, theirs.config.pad_token_id
    assert special == (1, 2, 0)


@torch.no_grad()
def test_we_open_a_gpt2_of_transformers_and_give_its_logits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = GPT2LMHeadModel(GPT2Config(**THEIRS))
    spread(theirs.eval())
    ours = gpt_from_huggingface(*save_theirs(tmp_path, theirs)).eval()
    assert_same(ours.logits(ours(ids(2, 9))), theirs(ids(2, 9)).logits)


@torch.no_grad()
def test_we_open_the_bare_gpt2_of_older_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = GPT2Model(GPT2Config(**THEIRS))
    spread(theirs.eval())
    config, state = save_theirs(tmp_path, theirs)
    state["h.0.attn.bias"] = torch.ones(1, 1, 16, 16)
    ours = gpt_from_huggingface(config, state).eval()
    assert_same(ours(ids(2, 9)), theirs(ids(2, 9)).last_hidden_state)


@torch.no_grad()
def test_left_padded_rows_agree_and_so_does_greedy_generation(tmp_path: Path) -> None:
    ours = our_gpt()
    theirs = open_theirs(
        tmp_path, GPT2LMHeadModel, gpt_to_huggingface(ours, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    )
    prompt = ids(2, 6)
    prompt[0, :3] = 0
    mask = prompt != 0
    segments, positions = mask.long() - 1, (mask.cumsum(1) - 1).clamp(min=0)
    expected = theirs.generate(prompt, attention_mask=mask.long(), do_sample=False, max_new_tokens=6, eos_token_id=None)
    logits, state = ours.start(prompt, segments, positions)
    tokens = []
    for _ in range(6):
        tokens.append(logits.argmax(-1))
        logits, state = ours.step(tokens[-1], state)
    assert torch.equal(torch.stack(tokens, dim=1), expected[:, 6:])


@torch.no_grad()
def test_transformers_opens_our_reward_model_and_gives_our_rewards(tmp_path: Path) -> None:
    ours = RewardModel(our_gpt()).eval()
    exported = reward_to_huggingface(ours, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    theirs = open_theirs(tmp_path, GPT2ForSequenceClassification, exported)
    tokens = ids(3, 9)
    tokens[0, 5:] = 0
    assert_same(ours(tokens, torch.tensor([4, 8, 8])), theirs(tokens).logits[:, 0])


@torch.no_grad()
def test_we_open_a_reward_model_of_transformers_and_give_its_rewards(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = GPT2ForSequenceClassification(GPT2Config(**(THEIRS | {"num_labels": 1})))
    spread(theirs.eval())
    ours = reward_from_huggingface(*save_theirs(tmp_path, theirs)).eval()
    assert_same(ours(ids(3, 9), torch.tensor([8, 8, 8])), theirs(ids(3, 9)).logits[:, 0])


TOKEN_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def our_classifier(num_labels: int = 3) -> SequenceClassifier:
    encoder, pooler = GPTEncoder(our_gpt()), LastTokenPooling()
    model = SequenceClassifier(encoder, pooler, num_labels=num_labels, dropout=0.1, has_bias=False)
    spread(model)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("labels", [["value"], ["a", "b", "c"]])
def test_transformers_opens_our_classifier_and_gives_our_scores_and_loss_by_the_same_names(
    labels: list[str], tmp_path: Path
) -> None:
    ours = our_classifier(len(labels))
    exported = gpt_classifier_to_huggingface(ours, token_ids=TOKEN_IDS, labels=labels)
    theirs = open_theirs(tmp_path, GPT2ForSequenceClassification, exported)
    tokens = ids(3, 9)
    tokens[0, 5:] = 0
    mask = tokens != 0
    targets = torch.tensor([2, 0, 1]) if len(labels) > 1 else torch.tensor([1.5, -0.5, 0.0])
    expected = theirs(tokens, attention_mask=mask.long(), labels=targets)
    scores = ours(tokens, torch.zeros_like(tokens), mask)
    assert_same(scores, expected.logits)
    assert_close(mean_loss(text_terms(scores, targets)), expected.loss, atol=1e-4, rtol=0)
    assert theirs.config.id2label == dict(enumerate(labels))


@torch.no_grad()
def test_we_open_a_classifier_of_transformers_and_give_its_scores(tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = GPT2ForSequenceClassification(GPT2Config(**(THEIRS | {"num_labels": 3})))
    spread(theirs.eval())
    ours = gpt_classifier_from_huggingface(*save_theirs(tmp_path, theirs)).eval()
    tokens = ids(3, 9)
    assert_same(ours(tokens, torch.zeros_like(tokens), torch.ones_like(tokens).bool()), theirs(tokens).logits)


def test_a_classifier_whose_pad_is_its_eos_is_refused() -> None:
    with pytest.raises(ValueError, match="both 2"):
        gpt_classifier_to_huggingface(
            our_classifier(), token_ids=TOKEN_IDS | {"pad_token_id": 2}, labels=["a", "b", "c"]
        )


def test_every_tensor_that_does_not_fit_is_named() -> None:
    config, state = gpt_to_huggingface(our_gpt(), bos_token_id=1, eos_token_id=2, pad_token_id=0)
    del state["transformer.h.1.mlp.c_fc.weight"]
    state["transformer.h.0.ln_1.bias"] = torch.zeros(7)
    state["surprise"] = torch.zeros(1)
    with pytest.raises(ValueError) as caught:
        gpt_from_huggingface(config, state)
    message = str(caught.value)
    assert "missing transformer.h.1.mlp.c_fc.weight (24, 96)" in message
    assert "transformer.h.0.ln_1.bias: found (7,), expected (24,)" in message
    assert "unexpected surprise" in message


def test_an_untied_head_is_refused() -> None:
    config, state = gpt_to_huggingface(our_gpt(), bos_token_id=1, eos_token_id=2, pad_token_id=0)
    with pytest.raises(ValueError, match=r"lm_head\.weight differs from transformer\.wte\.weight"):
        gpt_from_huggingface(config, state | {"lm_head.weight": torch.zeros(37, 24)})


def test_what_our_gpt_does_not_compute_is_refused() -> None:
    config, state = gpt_to_huggingface(our_gpt(), bos_token_id=1, eos_token_id=2, pad_token_id=0)
    with pytest.raises(ValueError, match="activation_function is 'relu', only 'gelu_new'"):
        gpt_from_huggingface(config | {"activation_function": "relu"}, state)
    with pytest.raises(ValueError, match="missing key n_embd"):
        gpt_from_huggingface({"model_type": "gpt2"}, state)


def test_a_reward_model_whose_pad_is_its_eos_is_refused() -> None:
    with pytest.raises(ValueError, match="both 2"):
        reward_to_huggingface(RewardModel(our_gpt()), bos_token_id=1, eos_token_id=2, pad_token_id=2)


def test_export_and_import_are_inverse() -> None:
    ours = our_gpt()
    again = gpt_from_huggingface(*gpt_to_huggingface(ours, bos_token_id=1, eos_token_id=2, pad_token_id=0))
    assert again.config == CONFIG
    for (name, parameter), (_, other) in zip(ours.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(parameter, other), name
