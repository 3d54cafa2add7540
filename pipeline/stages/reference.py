"""Log-probabilities of the frozen fine-tuned model for the preference pairs: computed once, cached as data."""

from pathlib import Path

import torch
from pydantic import PositiveInt
from safetensors.torch import save_file

from pipeline.artifacts import publish, write_json
from pipeline.config import ByTokens, Config, load
from pipeline.data.examples.preferences import preference_examples
from pipeline.data.plan import plan_epoch
from pipeline.evaluation.held_out import in_view
from pipeline.inference.handover import open_gpt
from pipeline.inference.scoring import pair_log_probs
from pipeline.layout import Layout
from pipeline.models.gpt import GPT
from pipeline.stages.preference_pairs import HASHES, PreferencePairsConfig, SplitPairs, pair_counts, read_split
from pipeline.text.tokenizer import Tokenizer
from pipeline.training.launch import launch
from pipeline.training.run import stage_run


class ReferenceConfig(Config):
    """The stage reference."""

    pairs: PreferencePairsConfig
    """Which pairs; the stage dpo refuses others."""
    tokens_per_batch: PositiveInt
    """Tokens of one side of the pairs that go through the model at once, padding included."""


@torch.no_grad()
def log_probs_of_pairs(
    model: GPT, split: SplitPairs, tokenizer: Tokenizer, *, tokens_per_batch: int
) -> dict[str, torch.Tensor]:
    """`chosen` and `rejected`, one sum of log-probabilities for each pair, in the order of the pairs."""
    examples = preference_examples(split.encoded, tokenizer)
    device = next(model.parameters()).device
    result = {side: torch.zeros(len(split.encoded)) for side in ("chosen", "rejected")}
    batching = ByTokens(kind="tokens", tokens_per_step=tokens_per_batch)
    for step in in_view(plan_epoch(examples.sizes(0), batching, seed=0, epoch=0), name="log-probabilities"):
        found = pair_log_probs(model, examples.collate(step.indices, 0).to(device))
        rows = torch.from_numpy(step.indices)
        result["chosen"][rows] = found.chosen.float().cpu()
        result["rejected"][rows] = found.rejected.float().cpu()
    return result


def main(path: Path) -> None:
    """Writes one file a split, and how often the model prefers the answer that people do."""
    config = load(path, ReferenceConfig)
    layout = Layout.of(path)
    inputs = (layout.model("sft"), layout.data("prepared/rated"))
    with stage_run(__spec__.name, path, config, seed=0, inputs=inputs) as run:
        opened = open_gpt(inputs[0])
        model = opened.model.to(run.device).eval()
        splits = {name: read_split(layout, name, config.pairs, opened.tokenizer) for name in ("train", "valid")}
        found = {
            name: log_probs_of_pairs(model, split, opened.tokenizer, tokens_per_batch=config.tokens_per_batch)
            for name, split in splits.items()
        }
        with publish(run.layout.output) as folder:
            for name, tensors in found.items():
                save_file(tensors, folder / f"{name}.safetensors")
            write_json(folder / HASHES, {name: split.hash for name, split in splits.items()})
        agreement = {name: float((sums["chosen"] > sums["rejected"]).float().mean()) for name, sums in found.items()}
        run.finish({"pairs": pair_counts(splits), "prefers_chosen": agreement})


if __name__ == "__main__":
    launch(main)
