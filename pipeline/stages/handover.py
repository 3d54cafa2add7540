"""Opening and saving the GPT folders that the stages from pretraining to alignment hand on."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.artifacts import load_model, publish, save_model
from pipeline.models.gpt import GPT
from pipeline.models.heads import RewardModel
from pipeline.models.huggingface.gpt import (
    gpt_from_huggingface,
    gpt_to_huggingface,
    reward_from_huggingface,
    reward_to_huggingface,
)
from pipeline.text.tokenizer import Tokenizer, load_tokenizer


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
    """The GPT in a folder, ours or any GPT-2's, with `dropout` put into it and none in its attention."""
    found = load_model(folder)
    try:
        model = gpt_from_huggingface({**found.config, **_dropouts(dropout)}, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    tokenizer = load_tokenizer(folder)
    tokenizer.check_fits(model.config.vocab_size, folder)
    return OpenedGPT(model, tokenizer)


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
