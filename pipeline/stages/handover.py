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
    """The GPT in a folder, ours or any GPT-2's, with `dropout` put into it."""
    found = load_model(folder)
    try:
        model = gpt_from_huggingface({**found.config, "resid_pdrop": dropout, "embd_pdrop": dropout}, found.state)
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
    """The reward model in a folder."""
    found = load_model(folder)
    try:
        model = reward_from_huggingface(found.config, found.state)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return OpenedReward(model, load_tokenizer(folder))


def save_reward(folder: Path, model: RewardModel, tokenizer: Tokenizer) -> None:
    """Publishes a reward model in Hugging Face layout."""
    config, state = reward_to_huggingface(
        model, bos_token_id=tokenizer.bos_id, eos_token_id=tokenizer.eos_id, pad_token_id=tokenizer.pad_id
    )
    with publish(folder) as temporary:
        save_model(temporary, config, state)
        tokenizer.save(temporary)
