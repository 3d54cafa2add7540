"""One real optimizer step of a configuration on the CPU: does it train at all, before anybody pays for GPUs?

Model, objective, optimizer, learning rate and clipping are those of the stage, and Lightning runs them as in a
training. What is made up are the tokens, drawn at random, and the size of the batch. Memory: float32 weights,
gradients and two moments are 16 bytes a parameter; the batch is so small that its activations hardly count.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, assert_never

import numpy as np
from lightning.pytorch import LightningModule, Trainer

from pipeline.commands.estimate import bert_shape, gpt_shape, num_steps, training_kind, translation_config
from pipeline.config import ByExamples, Steps, TrainingConfig, load
from pipeline.data.batches import Batch, Examples
from pipeline.data.examples.masking import MaskedExamples, Vocabulary
from pipeline.data.examples.translation import TokenRows, TranslationExamples
from pipeline.data.examples.windows import TrainingWindows
from pipeline.data.loaders import Cut, TrainingLoader, validation_batches
from pipeline.data.plan import TrainingPlan
from pipeline.data.token_arrays import in_memory
from pipeline.layout import Layout
from pipeline.models.bert import BertForPretraining
from pipeline.models.gpt import GPT
from pipeline.models.translation import pad_id
from pipeline.runtime import RuntimeConfig, build_trainer
from pipeline.seeds import seed_everything
from pipeline.stages.pretrain_bert import BertPretraining, PretrainBertConfig
from pipeline.stages.pretrain_gpt import GPTPretraining, PretrainGPTConfig
from pipeline.stages.translate import training_module
from pipeline.training.base import StageModule
from pipeline.training.callbacks import StepCallback

B = TypeVar("B", bound=Batch)

_ROWS = 8
_LONGEST = 64
"""Rows of the batch, and their most tokens where the configuration allows more."""
_ONE_PROCESS = RuntimeConfig(
    accelerator="cpu",
    strategy="single",
    num_devices=1,
    num_nodes=1,
    accumulation=1,
    precision="32-true",
    num_threads=1,
    prefetch=0,
    zero_stage=0,
    offload="none",
)


@dataclass(frozen=True)
class FirstStep:
    """What the first optimizer step of a training did."""

    tokens: Mapping[str, int]
    """Tokens of the batch by side."""
    before: float
    after: float
    """Loss of the batch on both sides of the step, without dropout and smoothing, as a validation measures it."""
    gradient_norm: float
    """Global norm before clipping."""
    clip_norm: float
    """Norm that the gradient was clipped to; 0 where any is allowed."""
    lr: float
    """Learning rate of the step."""
    seconds: float
    """Of forward pass, backward pass, clipping and optimizer."""


def describe_step(path: Path, *, sentence_length: int) -> Iterator[str]:
    """Takes the step, and says what it did as lines of text; FloatingPointError where loss or gradient is no number."""
    found = first_step(path, sentence_length=sentence_length)
    tokens = " and ".join(f"{count:,} {side}" for side, count in found.tokens.items())
    yield f"one optimizer step on this CPU, of random weights and a batch of {tokens} tokens drawn at random"
    change = found.before - found.after
    verdict = f"lower by {change:.2g}" if change > 0 else f"NOT lower, but higher by {-change:.2g}"
    yield f"  loss of the same batch: {found.before:.6f} before the step, {found.after:.6f} after it, {verdict}"
    is_clipped = 0.0 < found.clip_norm < found.gradient_norm
    norm = f"{found.gradient_norm:.3g}" + (f", clipped to {found.clip_norm:g}" if is_clipped else "")
    yield f"  norm of the gradient {norm}; learning rate {found.lr:.3g}; {found.seconds:.1f} seconds"


def first_step(path: Path, *, sentence_length: int) -> FirstStep:
    """The first step of what `pipeline.commands.estimate.workload` has an estimate of; ValueError for anything else.

    Rows of sentence pairs have `sentence_length` tokens on each side, EOS included.
    """
    kind = training_kind(path)
    match kind:
        case "translate":
            return _translation(path, sentence_length)
        case "pretrain_gpt":
            return _gpt(path)
        case "pretrain_bert":
            return _bert(path)
        case _:
            assert_never(kind)


def _translation(path: Path, sentence_length: int) -> FirstStep:
    config, length = translation_config(path, sentence_length), sentence_length
    pad = pad_id(config.model.vocab_size)
    random = np.random.default_rng(config.training.seed)
    # Id 0 is EOS, which ends each row, and the last one is <pad>, which also begins a target.
    src, tgt = (
        TokenRows.of(random.integers(1, pad, (_ROWS, length - 1)).tolist(), max_length=length, eos_id=0)
        for _ in range(2)
    )
    examples = TranslationExamples(src=src, tgt=tgt, pad_id=pad, bos_id=pad)
    tokens = {"source": _ROWS * length, "target": _ROWS * length}
    return _step(path, lambda: training_module(config), config.training, examples, tokens)


def _gpt(path: Path) -> FirstStep:
    config = load(path, PretrainGPTConfig)
    shape, length = gpt_shape(path, config), min(_LONGEST, config.model.max_length)
    random = np.random.default_rng(config.training.seed)
    document = random.integers(shape.vocab_size, size=_ROWS * length + 1).tolist()
    examples = TrainingWindows(in_memory([[document]]), length=length, seed=config.training.seed)
    tokens = {"text": _ROWS * length}
    return _step(path, lambda: GPTPretraining(GPT(shape), config.training), config.training, examples, tokens)


def _bert(path: Path) -> FirstStep:
    """From random weights, also where those of a training would begin with counts of its text."""
    config = load(path, PretrainBertConfig)
    shape, length = bert_shape(path, config), min(_LONGEST, config.model.max_length)
    random = np.random.default_rng(config.training.seed)
    # The special tokens of our WordPiece are 0 [PAD], 1 [UNK], 2 [CLS], 3 [SEP], 4 [MASK].
    words = np.arange(5, shape.vocab_size)
    room = length - 3
    documents = [[random.choice(words, half).tolist() for half in (room // 2, room - room // 2)] for _ in range(_ROWS)]
    examples = MaskedExamples(
        in_memory(documents),
        Vocabulary(
            pad_id=0,
            cls_id=2,
            sep_id=3,
            mask_id=4,
            ordinary_ids=words,
            continues_word=np.zeros(shape.vocab_size, dtype=bool),
        ),
        max_length=length,
        mask_share=config.masking.mask_share,
        short_share=0.0,
        whole_words=config.masking.whole_words,
        seed=config.training.seed,
    )
    tokens = {"text": int(examples.sizes(0).lengths.sum())}
    return _step(
        path, lambda: BertPretraining(BertForPretraining(shape), config.training), config.training, examples, tokens
    )


class _Watch(StepCallback):
    """Measures the loss on both sides of the step, and the seconds between."""

    def __init__(self, validate: Callable[[], Mapping[str, float]]) -> None:
        self.validate = validate
        self.losses: list[float] = []
        self.seconds = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The loss before, and the start of the clock."""
        self.losses.append(self.validate()["total"])
        self._started = time.monotonic()

    def on_step_end(self, trainer: Trainer, module: StageModule[Any], update: int) -> None:
        """The end of the clock, and the loss after."""
        self.seconds = time.monotonic() - self._started
        self.losses.append(self.validate()["total"])


def _step(
    path: Path,
    build: Callable[[], StageModule[B]],
    training: TrainingConfig,
    examples: Examples[B],
    tokens: Mapping[str, int],
) -> FirstStep:
    """One step of all examples, at the learning rate of the first step of the whole training."""
    seed_everything(training.seed)
    module = build()
    module.num_steps = num_steps(path, training)
    batching = ByExamples(kind="examples", examples_per_step=len(examples.sizes(0).lengths))
    plan = TrainingPlan(examples, batching, Steps(kind="steps", num_steps=1), seed=training.seed)
    alone = Cut(rank=0, world_size=1, accumulation=1)
    watch = _Watch(lambda: module.validate(validation_batches(examples, batching, alone)))
    clip_norm = training.optimizer.clip_norm
    trainer = build_trainer(_ONE_PROCESS, clip_norm=clip_norm, callbacks=[watch], folder=Layout.of(path).local)
    trainer.fit(module, TrainingLoader(plan, alone, start=0, prefetch=0))
    row, (before, after) = module.history[-1], watch.losses
    return FirstStep(
        tokens=tokens,
        before=before,
        after=after,
        gradient_norm=row["grad_norm"],
        clip_norm=clip_norm,
        lr=row["lr"],
        seconds=watch.seconds,
    )
