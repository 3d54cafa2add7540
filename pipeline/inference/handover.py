"""Opening and saving the GPT folders that the stages from pretraining to alignment hand on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifacts import load_model, publish, save_model
from pipeline.models.gpt import GPT
from pipeline.models.heads import RewardModel
from pipeline.models.huggingface.gpt import (
    gpt_from_huggingface,
    gpt_to_huggingface,
    reward_from_huggingface,
    reward_to_huggingface,
    with_rows,
)
from pipeline.models.huggingface.names import setting
from pipeline.text.tokenizer import Tokenizer, load_padded_tokenizer, load_tokenizer


@dataclass(frozen=True)
class OpenedGPT:
    """A GPT with the tokenizer that its folder holds."""

    model: GPT
    tokenizer: Tokenizer


@dataclass(frozen=True)
class OpenedReward:
    """A reward model with the tokenizer that its folder holds."""

    model: RewardModel
    tokenizer: Tokenizer


def open_gpt(folder: Path, *, dropout: float = 0.0) -> OpenedGPT:
    """The GPT in a folder, ours or any GPT-2's, with `dropout` put into it and none in its attention.

    A GPT-2 without padding of its own is given some: a token of the tokenizer and its row of the embeddings.
    """
    tokenizer = load_padded_tokenizer(folder)
    model = read_gpt(folder, tokenizer, _dropouts(dropout))
    tokenizer.check_fits(model.config.vocab_size, folder)
    return OpenedGPT(model, tokenizer)


def read_gpt(folder: Path, tokenizer: Tokenizer, changes: Mapping[str, Any]) -> GPT:
    """The GPT in a folder with `changes` in its configuration, and with a row for the padding of `tokenizer`.

    ValueError names the folder and what does not fit. Ids without a row other than that of padding stay so.
    """
    found = load_model(folder)
    try:
        config, state = {**found.config, **changes}, found.state
        without_row = tokenizer.ids_from(setting(config, "vocab_size"))
        if without_row and without_row == {tokenizer.pad_id}:
            config, state = with_rows(config, state, 1 + tokenizer.pad_id)
        return gpt_from_huggingface(config, state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def save_gpt(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """Publishes a GPT in Hugging Face layout, its tokenizer beside it."""
    config, state = gpt_to_huggingface(
        model, bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id, pad_token_id=tokenizer.pad_id
    )
    with publish(folder) as temporary:
        save_model(temporary, config, state)
        tokenizer.save(temporary)


def open_reward(folder: Path) -> OpenedReward:
    """The reward model in a folder, without dropout."""
    found = load_model(folder)
    try:
        model = reward_from_huggingface({**found.config, **_dropouts(0.0)}, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    tokenizer = load_tokenizer(folder)
    tokenizer.check_fits(model.trunk.config.vocab_size, folder)
    return OpenedReward(model, tokenizer)


def open_scorer(folder: Path, tokenizer: Tokenizer) -> RewardModel:
    """The reward model in a folder, for ids of `tokenizer`; ValueError when it was made with another."""
    opened = open_reward(folder)
    if opened.tokenizer.hash != tokenizer.hash:
        raise ValueError(f"{folder}: its tokenizer is not that of the model whose answers it is to score")
    return opened.model


def save_reward(folder: Path, model: RewardModel, tokenizer: Tokenizer) -> None:
    """Publishes a reward model in Hugging Face layout."""
    config, state = reward_to_huggingface(
        model, bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id, pad_token_id=tokenizer.pad_id
    )
    with publish(folder) as temporary:
        save_model(temporary, config, state)
        tokenizer.save(temporary)


def _dropouts(probability: float) -> dict[str, float]:
    """Settings of a GPT-2: a published one brings some of its own, and preferences are learned without."""
    return {"resid_pdrop": probability, "embd_pdrop": probability, "attn_pdrop": 0.0}
