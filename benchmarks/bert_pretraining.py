"""Pretraining BERT: our training step beside a plain loop around transformers' BertForPreTraining.

python -m benchmarks.bert_pretraining [--threads N] [--steps N] [--rounds N] [--size base|mini]

Both sides start from the same weights and take the same batches with the same masks and labels, with published dropout
(0.1, of the attention weights too), gradients clipped to norm 1 and fused AdamW, in float32. Rows are sentence pairs
of 128 tokens, a tenth of them shorter, as the stage draws them from generated documents, whose words have Zipf's
frequencies. `base` is 12 layers x 768, 30,522 pieces and 8 rows a step; `mini` is 4 layers x 256, 8,192 pieces and 32
rows. Rounds take turns, each in a process of its own. Their loop projects every position on the vocabulary, as the
class does. Ours keeps the memory that it frees (pipeline/runtime.py), as a stage does; the others run as they come.

Only useful operations count: no padding, no projection of unmasked positions, and of the last layer nothing behind the
attention scores of positions that neither head reads. The share of the machine's peak compares them with a product of
two 2048 x 2048 matrices. With one thread the clock is the processor's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from benchmarks.shared.apart import apart
from benchmarks.shared.options import parser, positive
from benchmarks.shared.peak import clock_of, matrix_peak
from benchmarks.shared.steps import stage_step, whole_steps
from pipeline.config import ByExamples, OptimizerConfig, ScheduleConfig, Steps, TrainingConfig
from pipeline.data.batches import MaskedBatch, MicroBatch
from pipeline.data.examples.masking import MaskedExamples, Vocabulary
from pipeline.data.plan import TrainingPlan
from pipeline.data.token_arrays import in_memory
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.flops import bert_flops
from pipeline.models.huggingface.bert import bert_to_huggingface
from pipeline.runtime import keep_freed_memory
from pipeline.stages.pretrain_bert import BertPretraining

LENGTH, MASK_SHARE, SHORT_SHARE = 128, 0.15, 0.1
PAD, CLS, SEP, MASK, FIRST = range(5)
LR, CLIP, DECAY = 1e-4, 1.0, 0.01


@dataclass(frozen=True)
class Size:
    """A model and its optimizer step."""

    model: BertConfig
    num_rows: int


def size(vocab_size: int, d_model: int, num_layers: int, num_heads: int, *, num_rows: int) -> Size:
    """A size with the published proportions and dropout."""
    model = BertConfig(
        vocab_size=vocab_size,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=num_heads,
        d_ff=4 * d_model,
        max_length=512,
        dropout=0.1,
        attention_dropout=0.1,
    )
    return Size(model, num_rows)


SIZES = {"base": size(30_522, 768, 12, 12, num_rows=8), "mini": size(8192, 256, 4, 4, num_rows=32)}

TakeStep = Callable[[MicroBatch[MaskedBatch]], None]


def main(arguments: Sequence[str] | None = None) -> None:
    choices = parser("bert_pretraining", __doc__, "threads")
    choices.add_argument("--steps", type=positive, default=6, help="optimizer steps of each round; default %(default)s")
    choices.add_argument("--rounds", type=positive, default=3, help="rounds of each side; default %(default)s")
    choices.add_argument("--size", choices=SIZES, help="one of the sizes; default both")
    options = choices.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    for name in [options.size] if options.size else SIZES:
        compare(name, options.steps, options.rounds, options.threads)


def compare(name: str, num_steps: int, num_rounds: int, threads: int) -> None:
    """Times both sides in turn, and prints speeds, shares of the peak and the ratio."""
    chosen = SIZES[name]
    batches = micro_batches(chosen, 1 + num_steps * num_rounds)
    module = training_module(chosen)
    check_same_loss(module, theirs(module.model), batches[0])
    del module
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for begin in range(1, len(batches), num_steps):
        for side, seconds in times.items():
            seconds += apart(threads, measure, side, chosen, batches[:1] + batches[begin : begin + num_steps], threads)
    report(name, chosen, batches[1:], times, matrix_peak(clock_of(threads)), threads)


def measure(side: str, chosen: Size, batches: Sequence[MicroBatch[MaskedBatch]], threads: int) -> list[float]:
    """The seconds of a step on each batch but the first."""
    take, clock = SIDES[side](training_module(chosen)), clock_of(threads)
    take(batches[0])
    times = []
    for micro in batches[1:]:
        started = clock()
        take(micro)
        times.append(clock() - started)
    return times


def report(
    name: str,
    chosen: Size,
    batches: Sequence[MicroBatch[MaskedBatch]],
    times: Mapping[str, Sequence[float]],
    peak: float,
    threads: int,
) -> None:
    """Prints medians over the steps: of speeds, and of the ratios of both sides at the same batch."""
    masks = [micro.batch.attention_mask for micro in batches]
    tokens = np.array([int(mask.sum()) for mask in masks])
    useful = np.array([useful_flops(chosen.model, micro.batch) for micro in batches])
    padding = 1.0 - tokens.sum() / sum(mask.numel() for mask in masks)
    rows = f"{chosen.num_rows} rows, {tokens.mean():.0f} tokens a step, {100 * padding:.1f}% padding"
    print(f"{name}: {threads} thread(s), {len(batches)} steps of {rows}; peak {peak / 1e9:.0f} GFLOP/s")
    for side, seconds in times.items():
        speeds, rate = tokens / np.array(seconds), float(np.median(useful / np.array(seconds)))
        print(
            f"{side:>13} {np.median(speeds):8.0f} tokens/s ({speeds.min():.0f} to {speeds.max():.0f}), "
            f"{rate / 1e9:5.1f} useful GFLOP/s, share {rate / peak:.2f}",
        )
    ratios = np.array(times["transformers"]) / np.array(times["ours"])
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    print(f"{'ratio':>13} {middle:8.2f} (quartiles {low:.2f} and {high:.2f})", flush=True)


def useful_flops(config: BertConfig, batch: MaskedBatch) -> float:
    """Forward and backward of real tokens, with the masked positions alone projected."""
    lengths, num_masked = batch.attention_mask.sum(1).numpy(), int(batch.is_masked.sum())
    return 3.0 * sum(bert_flops(config, lengths, num_masked).values())


def micro_batches(chosen: Size, count: int, *, length: int = LENGTH) -> list[MicroBatch[MaskedBatch]]:
    """The first optimizer steps of the stage's plan over generated documents."""
    random = np.random.default_rng(1)
    ranks = np.arange(1, chosen.model.vocab_size - FIRST + 1)
    documents, num_tokens = [], 0
    while num_tokens < 1.5 * count * chosen.num_rows * length:
        lengths = random.integers(5, 40, size=30)
        words = FIRST + random.choice(len(ranks), size=lengths.sum(), p=1 / ranks / (1 / ranks).sum())
        documents.append([part.tolist() for part in np.split(words, lengths.cumsum()[:-1])])
        num_tokens += len(words)
    ordinary = np.arange(FIRST, chosen.model.vocab_size)
    continues = np.zeros(chosen.model.vocab_size, dtype=bool)
    examples = MaskedExamples(
        in_memory(documents),
        Vocabulary(PAD, CLS, SEP, MASK, ordinary, continues),
        max_length=length,
        mask_share=MASK_SHARE,
        short_share=SHORT_SHARE,
        whole_words=False,
        seed=1,
    )
    batching = ByExamples(kind="examples", examples_per_step=chosen.num_rows)
    return list(whole_steps(TrainingPlan(examples, batching, Steps(kind="steps", num_steps=count), seed=1)))


def training_module(chosen: Size) -> BertPretraining:
    """The stage's module with random weights."""
    training = TrainingConfig(
        seed=1,
        batching=ByExamples(kind="examples", examples_per_step=chosen.num_rows),
        duration=Steps(kind="steps", num_steps=1),
        optimizer=OptimizerConfig(lr=LR, eps=1e-6, weight_decay=DECAY, clip_norm=CLIP),
        schedule=ScheduleConfig(kind="constant"),
        validate_every=1,
        checkpoint_every=1,
    )
    torch.manual_seed(1)
    return BertPretraining(BertForPretraining(chosen.model), training)


def our_step(module: BertPretraining) -> TakeStep:
    """Objective, backward pass, clipping and optimizer of the stage, in a process as the stage prepares it."""
    keep_freed_memory()
    return stage_step(module)


def theirs(model: BertForPretraining) -> Any:
    """Their class with our weights."""
    from transformers import BertConfig as TheirConfig
    from transformers import BertForPreTraining

    config, state = bert_to_huggingface(model, pad_token_id=PAD)
    made: Any = BertForPreTraining(TheirConfig(**config))
    # Tied matrices are saved once.
    missing = made.load_state_dict(state, strict=False).missing_keys
    if any(not name.startswith("cls.predictions.decoder") for name in missing):
        raise AssertionError(f"not exported: {missing}")
    return made


def their_loss(model: Any, batch: MaskedBatch) -> Tensor:
    """The sum of both means; rows without a pair do not occur here."""
    found: Tensor = model(
        input_ids=batch.input_ids,
        token_type_ids=batch.token_type_ids,
        attention_mask=batch.attention_mask.long(),
        labels=batch.labels.masked_fill(~batch.is_masked, -100),
        next_sentence_label=batch.next_sentence_labels,
    ).loss
    return found


def their_step(module: BertPretraining) -> TakeStep:
    """A plain loop around the class."""
    model = theirs(module.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, eps=1e-6, weight_decay=DECAY, fused=True)

    def step(micro: MicroBatch[MaskedBatch]) -> None:
        torch.autograd.backward(their_loss(model, micro.batch))
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()

    return step


SIDES: dict[str, Callable[[BertPretraining], TakeStep]] = {"ours": our_step, "transformers": their_step}


@torch.no_grad()
def check_same_loss(module: BertPretraining, model: Any, micro: MicroBatch[MaskedBatch]) -> None:
    """AssertionError unless both sides have the same loss without dropout."""
    ours, expected = module.eval().training_step(micro, 0), their_loss(model.eval(), micro.batch)
    assert_close(ours, expected, atol=1e-4, rtol=0)
    module.train()
    model.train()


if __name__ == "__main__":
    main()
