"""One batch through each stage: a small model of every kind, random tokens, the stage's own objective, a backward pass.

Legend: B rows, T length in tokens, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from pipeline.config import ByExamples, OptimizerConfig, ScheduleConfig, Steps, TrainingConfig
from pipeline.data.batches import (
    Batch,
    CausalBatch,
    InstructionBatch,
    MaskedBatch,
    PreferenceBatch,
    QuestionBatch,
    RewardBatch,
    SequenceBatch,
    TaggingBatch,
    TranslationBatch,
)
from pipeline.data.examples.pieces import PieceBatch
from pipeline.data.examples.word_pairs import WindowBatch
from pipeline.models.bert import Bert, BertConfig, BertForPretraining, Pooler
from pipeline.models.bilm import BidirectionalLM, BiLMConfig
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.heads import ActorCritic, RewardModel, SequenceClassifier, SpanHead, TokenClassifier
from pipeline.models.recurrent import RecurrentConfig
from pipeline.models.seq2seq import TransformerConfig
from pipeline.models.word_vectors import skip_gram
from pipeline.objectives.likelihood import token_log_probs
from pipeline.objectives.policy import entropy_bonus, ppo_policy_loss, ppo_value_loss
from pipeline.objectives.terms import LossTerms
from pipeline.runtime import RuntimeConfig
from pipeline.stages.dpo import DirectPreferenceOptimization, SigmoidConfig
from pipeline.stages.finetune_answers import AnswerFinding
from pipeline.stages.finetune_tags import TagFineTuning
from pipeline.stages.finetune_texts import FineTuning
from pipeline.stages.pretrain_bert import BertPretraining
from pipeline.stages.pretrain_bilm import BiLMPretraining
from pipeline.stages.pretrain_gpt import GPTPretraining
from pipeline.stages.reward import RewardModelling
from pipeline.stages.sft import SupervisedFineTuning
from pipeline.stages.translate import TranslationTraining, build_model
from pipeline.stages.word_training import WindowTraining
from pipeline.training.base import StageModule

_V, _B, _T = 64, 2, 8
_TRAINING = TrainingConfig(
    seed=0,
    batching=ByExamples(kind="examples", examples_per_step=_B),
    duration=Steps(kind="steps", num_steps=1),
    optimizer=OptimizerConfig(lr=1e-3),
    schedule=ScheduleConfig(kind="constant"),
    validate_every=1,
    checkpoint_every=1,
)

Probe = tuple[nn.Module, Callable[[], tuple[LossTerms, ...]]]
"""A model and its objective on one batch."""


def run_batch(probe: Callable[[], Probe], runtime: RuntimeConfig) -> None:
    """One batch forward and backward on the device and in the precision of the runtime.

    ValueError when the loss or its gradient is no number; whatever torch raises is left as it is.
    """
    device = torch.device(runtime.accelerator)
    lower = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(runtime.precision)
    torch.manual_seed(0)
    with torch.device(device):
        model, objective = probe()
        with torch.autocast(device.type, dtype=lower) if lower else nullcontext():
            terms = objective()
    loss = torch.stack([term.weight * term.loss_sum / max(1, term.num_targets) for term in terms]).sum()
    torch.autograd.backward(loss)
    norm = float(nn.utils.get_total_norm([each.grad for each in model.parameters() if each.grad is not None]))
    if not (math.isfinite(loss.item()) and math.isfinite(norm) and norm > 0):
        raise ValueError(f"the loss is {loss.item()}, the norm of its gradient {norm}")


def word_vectors() -> Probe:
    """Skip-gram with negative sampling."""
    model = skip_gram(_V, d_model=8)
    nn.init.normal_(model.outputs.weight)
    is_pair = torch.ones(_B, _T, _T, dtype=torch.bool)
    batch = WindowBatch(centres=_tokens(), contexts=_tokens(), is_pair=is_pair, negatives=_tokens())
    return _through(WindowTraining(model, _TRAINING, num_negatives=5), batch)


def pretrain_bert() -> Probe:
    """Masked words and next sentences."""
    is_masked = torch.arange(_T).expand(_B, _T) < 2
    batch = MaskedBatch(
        input_ids=_tokens(),
        token_type_ids=_zeros(),
        attention_mask=_ones(),
        labels=_tokens(),
        is_masked=is_masked,
        next_sentence_labels=torch.arange(_B),
        is_pair=torch.ones(_B, dtype=torch.bool),
    )
    return _through(BertPretraining(BertForPretraining(_bert()), _TRAINING), batch)


def texts() -> Probe:
    """Classes of texts."""
    model = SequenceClassifier(Bert(_bert()), Pooler(_bert().d_model), num_labels=2, dropout=0.0)
    return _through(FineTuning(model, _TRAINING), SequenceBatch(_tokens(), _zeros(), _ones(), torch.arange(_B)))


def tags() -> Probe:
    """Tags of words."""
    model = TokenClassifier(Bert(_bert()), num_labels=3, dropout=0.0)
    labels = torch.arange(_T).expand(_B, _T) % 3
    return _through(TagFineTuning(model, _TRAINING), TaggingBatch(_tokens(), _zeros(), _ones(), labels, _ones()))


def answers() -> Probe:
    """First and last tokens of answers."""
    first = torch.arange(_B)
    batch = QuestionBatch(_tokens(), _zeros(), _ones(), first, first + 1, _ones(), _ones())
    return _through(AnswerFinding(SpanHead(Bert(_bert())), _TRAINING), batch)


def pretrain_gpt() -> Probe:
    """The next token."""
    positions = torch.arange(_T).expand(_B, _T)
    batch = CausalBatch(_tokens(), _tokens(), _ones(), _zeros(), positions)
    return _through(GPTPretraining(_gpt(), _TRAINING), batch)


def pretrain_bilm() -> Probe:
    """The next token and the token before."""
    model = BidirectionalLM(BiLMConfig(vocab_size=_V, d_model=16, d_hidden=16, num_layers=1))
    return _through(BiLMPretraining(model, _TRAINING), PieceBatch(_tokens(), _ones()))


def transformer() -> Probe:
    """Translation by a Transformer."""
    config = TransformerConfig(
        kind="transformer",
        vocab_size=_V,
        d_model=16,
        num_encoder_layers=1,
        num_decoder_layers=1,
        num_heads=2,
        d_ff=32,
        max_length=_T,
    )
    return _translation(config)


def recurrent() -> Probe:
    """Translation by a recurrent network."""
    config = RecurrentConfig(
        kind="recurrent", cell="gru", vocab_size=_V, d_embedding=16, d_hidden=16, max_length=_T
    )  # fmt: skip
    return _translation(config)


def sft() -> Probe:
    """Responses."""
    return _through(SupervisedFineTuning(_gpt(), _TRAINING), InstructionBatch(_tokens(), _tokens(), _ones()))


def reward() -> Probe:
    """Pairs of texts."""
    last = torch.full((_B,), _T - 1)
    batch = RewardBatch(_tokens(), last, _tokens(), last)
    return _through(RewardModelling(RewardModel(_gpt()), _TRAINING), batch)


def dpo() -> Probe:
    """Pairs of answers."""
    loss = SigmoidConfig(kind="sigmoid", beta=0.1, label_smoothing=0.0)
    none = torch.zeros(_B)
    batch = PreferenceBatch(_tokens(), _tokens(), _ones(), _tokens(), _tokens(), _ones(), none, none)
    return _through(DirectPreferenceOptimization(_gpt(), _TRAINING, loss), batch)


def ppo() -> Probe:
    """The three losses of a policy and its critic."""
    model, ids, actions = ActorCritic(_gpt(), _gpt()), _tokens(), _tokens()

    def objective() -> tuple[LossTerms, ...]:
        output, counted = model(ids), _ones()
        logits = model.logits(output.hidden[counted])
        log_probs = token_log_probs(logits, actions[counted])
        drawn = torch.randn(_B * _T)
        return (
            ppo_policy_loss(log_probs, log_probs.detach(), drawn, clip_range=0.2),
            ppo_value_loss(output.values[counted], torch.zeros(_B * _T), drawn, clip_range=0.2, weight=0.5),
            entropy_bonus(logits, weight=0.01),
        )

    return model, objective


PROBES: Mapping[str, Callable[[], Probe]] = {
    "word_vectors": word_vectors,
    "pretrain_bert": pretrain_bert,
    "finetune/texts": texts,
    "finetune/tags": tags,
    "finetune/answers": answers,
    "pretrain_gpt": pretrain_gpt,
    "pretrain_bilm": pretrain_bilm,
    "translate/transformer": transformer,
    "translate/gru": recurrent,
    "sft": sft,
    "reward": reward,
    "dpo": dpo,
    "ppo": ppo,
}


def _through(module: StageModule[Any], batch: Batch) -> Probe:
    return module.model, lambda: module.objective(batch)


def _translation(config: TransformerConfig | RecurrentConfig) -> Probe:
    module = TranslationTraining(build_model(config), _TRAINING, label_smoothing=0.1)
    return _through(module, TranslationBatch(_tokens(), _ones(), _tokens(), _tokens(), _ones()))


def _gpt() -> GPT:
    return GPT(GPTConfig(vocab_size=_V, d_model=16, num_layers=1, num_heads=2, max_length=_T))


def _bert() -> BertConfig:
    return BertConfig(vocab_size=_V, d_model=16, num_layers=1, num_heads=2, d_ff=32, max_length=_T)


def _tokens() -> Int[Tensor, "B T"]:
    # The last id is padding, which a translation model never predicts.
    return torch.randint(_V - 1, (_B, _T))


def _zeros() -> Int[Tensor, "B T"]:
    return torch.zeros(_B, _T, dtype=torch.long)


def _ones() -> Bool[Tensor, "B T"]:
    return torch.ones(_B, _T, dtype=torch.bool)
