"""How far the gradient of a token's loss reaches back through the decoder: tanh network, GRU and LSTM in one run.

Each translates without attention, before and after some training on the pairs of a run; a table of the mean norms by
distance, beside that at distance 0, and a picture of them.

python benchmarks/gradient_by_distance.py data/PROFILE picture.png [steps]
"""

import sys
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot

from pipeline.config import ByTokens
from pipeline.data.plan import plan_epoch
from pipeline.data.prepared import read_pairs
from pipeline.data.translation import TranslationExamples, translation_examples
from pipeline.evaluation.gradient_flow import decoder_gradients
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.objectives.likelihood import token_cross_entropy
from pipeline.text.tokenizer import load_tokenizer

CELLS: tuple[Literal["rnn", "gru", "lstm"], ...] = ("rnn", "gru", "lstm")
LONGEST = 20
SHOWN = (1, 2, 3, 5, 8, 12, 16, 20)


def new(cell: Literal["rnn", "gru", "lstm"], vocab_size: int) -> Recurrent:
    torch.manual_seed(0)
    return Recurrent(
        RecurrentConfig(
            kind="recurrent", cell=cell, vocab_size=vocab_size, d_embedding=64, d_hidden=128, max_length=128,
            attention="none", dropout=0.0,
        )
    )  # fmt: skip


def train(model: Recurrent, examples: TranslationExamples, num_steps: int) -> float:
    """Cross entropy of the last step."""
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss = torch.zeros(())
    steps = plan_epoch(examples.sizes(0), ByTokens(kind="tokens", tokens_per_step=800), seed=0, epoch=0)
    for step in (steps * (1 + num_steps // len(steps)))[:num_steps]:
        batch = examples.collate(step.indices, 0)
        hidden = model(batch.src, batch.src_mask, batch.tgt)[batch.is_target]
        terms = token_cross_entropy(model.logits(hidden), batch.labels[batch.is_target])
        loss = terms.loss_sum / terms.num_targets
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    return loss.item()


def main() -> None:
    data, picture = Path(sys.argv[1]), Path(sys.argv[2])
    num_steps = int(sys.argv[3]) if len(sys.argv) > 3 else 200
    tokenizer = load_tokenizer(data / "tokens/translation")
    examples, valid = (
        translation_examples(
            read_pairs(data / f"prepared/translation/{split}.jsonl"), tokenizer, max_length=128, too_long="drop"
        )[0]
        for split in ("train", "valid")
    )
    batch = valid.collate(np.arange(min(64, len(valid.src))), 0)
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    print(f"{'':>20} {'at 0':>9} " + " ".join(f"{k:>8}" for k in SHOWN))
    for axis, when in zip(axes, ("random weights", f"{num_steps} steps"), strict=True):
        axis.set(title=f"Decoder gradients, {when}", xlabel="target tokens back", yscale="log")
        for cell in CELLS:
            model = new(cell, tokenizer.vocab_size).eval()
            loss = train(model, examples, num_steps) if when != "random weights" else None
            norms = decoder_gradients(model, batch, longest=LONGEST)
            axis.plot([norm / norms[0] for norm in norms], marker="o", markersize=3, label=cell)
            row = " ".join(f"{norms[k] / norms[0]:8.5f}" if k < len(norms) else " " * 8 for k in SHOWN)
            print(f"{cell + ', ' + when:>20} {norms[0]:9.6f} {row}" + (f"  loss {loss:.3f}" if loss else ""))
    axes[0].set_ylabel("|d loss / d state|, of that at distance 0")
    axes[0].legend()
    figure.savefig(picture, dpi=120)


if __name__ == "__main__":
    main()
