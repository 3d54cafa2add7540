"""Model folders as a stage hands them over, for tests of what reads them."""

from pathlib import Path

from pipeline.artifacts import publish, save_model
from pipeline.models.huggingface.names import Exported
from pipeline.text.tokenizer import Tokenizer


def save_folder(folder: Path, exported: Exported, tokenizer: Tokenizer) -> Path:
    """A model with its tokenizer; what was there before is replaced."""
    with publish(folder) as target:
        save_model(target, *exported)
        tokenizer.save(target)
    return folder
