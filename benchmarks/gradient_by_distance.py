"""How far the gradient of a token's loss reaches back through the decoder: tanh network, LSTM and GRU in one run.

python -m benchmarks.gradient_by_distance [--data FOLDER] [--picture FILE] [--steps N] [--threads N]

Each translates without attention, before and after some training; a table of the mean norms by distance, beside that at
distance 0, and a picture of them. The FOLDER has train.en and train.de, whose last pairs are held out for the
measurement; without one, they are generated.
"""

from collections.abc import Sequence
from typing import Literal

import matplotlib
import numpy as np
import torch

matplotlib.use("Agg")
from matplotlib import pyplot

from benchmarks.shared.options import parser, positive
from benchmarks.shared.sentences import read_pairs
from pipeline.config import ByTokens
from pipeline.data.examples.translation import TranslationExamples, translation_examples
from pipeline.data.plan import plan_epoch
from pipeline.data.records import Pair
from pipeline.evaluation.gradient_flow import decoder_gradients
from pipeline.models.recurrent import Recurrent, RecurrentConfig
from pipeline.objectives.likelihood import token_cross_entropy
from pipeline.text.tokenizer_training import train_translation_bpe

Cell = Literal["rnn", "lstm", "gru"]
CELLS: tuple[Cell, ...] = ("rnn", "lstm", "gru")
LONGEST = 20
SHOWN = (1, 2, 3, 5, 8, 12, 16, 20)
NUM_HELD_OUT = 64


def new(cell: Cell, vocab_size: int) -> Recurrent:
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


def main(arguments: Sequence[str] | None = None) -> None:
    choices = parser("gradient_by_distance", __doc__, "data", "picture", "threads")
    choices.add_argument("--steps", type=positive, default=200, help="optimizer steps; default %(default)s")
    options = choices.parse_args(arguments)
    torch.set_num_threads(options.threads)
    pairs = read_pairs(options.data)
    tokenizer = train_translation_bpe([text for pair in pairs for text in pair], vocab_size=8000)
    rows = [Pair(id=str(i), src=src, tgt=tgt, source="", group="") for i, (src, tgt) in enumerate(pairs)]
    examples, held_out = (
        translation_examples(some, tokenizer, max_length=128, too_long="drop")[0]
        for some in (rows[:-NUM_HELD_OUT], rows[-NUM_HELD_OUT:])
    )
    batch = held_out.collate(np.arange(len(held_out.src)), 0)
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5), sharey=True, layout="constrained")
    print("Mean norm of d loss / d state, and by tokens back its share of that at 0:")
    print(f"{'':>20} {'at 0':>9} " + " ".join(f"{k:>8}" for k in SHOWN))
    for axis, num_steps in zip(axes, (0, options.steps), strict=True):
        when = f"{num_steps} steps" if num_steps else "random weights"
        axis.set(
            title=f"Decoder gradients, {when}",
            xlabel="target tokens back",
            yscale="log",
            xticks=range(0, LONGEST + 1, 5),
        )
        for cell in CELLS:
            model = new(cell, tokenizer.vocab_size).eval()
            loss = f"  loss {train(model, examples, num_steps):.3f}" if num_steps else ""
            norms = decoder_gradients(model, batch, longest=LONGEST)
            axis.plot([norm / norms[0] for norm in norms], marker="o", markersize=3, label=cell.upper())
            row = " ".join(f"{norms[k] / norms[0]:8.5f}" if k < len(norms) else " " * 8 for k in SHOWN)
            print(f"{cell + ', ' + when:>20} {norms[0]:9.6f} {row}{loss}", flush=True)
    axes[0].set_ylabel("|d loss / d state|, of that at distance 0")
    axes[0].legend()
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.picture, dpi=80)
    print(options.picture)


if __name__ == "__main__":
    main()
