"""What a training would cost, from its configuration alone: parameters, operations, GPU-hours, memory of each GPU.

Nothing is trained and no data are read; whatever is assumed stands in the text. Legend: P parameters, G GPUs, D model
size, F width of the feed-forward networks, V vocabulary.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never

import torch
from pydantic import PositiveInt
from torch import nn

from pipeline.config import ByExamples, ByTokens, Config, Steps, TrainingConfig, load
from pipeline.layout import Layout
from pipeline.models.bert import BertConfig, BertForPretraining
from pipeline.models.flops import bert_flops, forward_flops, gpt_flops
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.seq2seq import TransformerConfig
from pipeline.stages.pretrain_bert import PretrainBertConfig
from pipeline.stages.pretrain_gpt import PretrainGPTConfig
from pipeline.stages.tokenize import TokenizeConfig
from pipeline.stages.translate import TranslateConfig, build_model

_FILLED = 0.95
"""Share of a step's padded tokens of the longer side that are real, on either side: measured on Multi30k, 0.93-0.95."""
_UTILISATION = 0.4
_PEAKS = {"V100": 125.0, "A100": 312.0, "H100": 989.0}
"""Dense half-precision matrix products of NVIDIA's data sheets, in 10^12 operations a second."""
_PLAIN_STATES, _DEEPSPEED_STATES = (4, 4, 8), (4, 4, 12)
"""Bytes a parameter of weights, gradients and Adam's two moments, all in float32 (`RuntimeConfig.precision`); DeepSpeed
keeps weights of its own beside the moments."""
_GIB = 2**30


class PublishedSize(Config):
    """How many parameters a paper says that a model has."""

    num_parameters: PositiveInt
    """As printed, which is rounded."""
    source: str
    """Where it stands."""
    note: str = ""
    """Why ours has another number, where it differs by more than 2%."""
    configurations: tuple[str, ...]
    """The files below conf/ that train this model."""


class PublishedSizes(Config):
    """The file conf/published_sizes.yaml."""

    sizes: tuple[PublishedSize, ...]
    """One entry a model."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU, without activations."""

    weights: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All three."""
        return self.weights + self.gradients + self.optimizer


@dataclass(frozen=True)
class Workload:
    """A training as numbers."""

    parameters: Mapping[str, int]
    """By part; a matrix that several parts share counts where it comes first."""
    flops: Mapping[str, float]
    """Forward and backward of one optimizer step by part, of real tokens."""
    num_steps: int
    tokens: Mapping[str, float]
    """Real tokens of a step by side."""
    activations: float
    """Bytes that the backward pass of one group of a step needs, were it computed at once; 0 without an estimate."""
    num_passes: int = 1
    """How often each token of a step goes through the model; operations and activations are those of all passes."""

    @property
    def num_parameters(self) -> int:
        """Tied ones once."""
        return sum(self.parameters.values())

    @property
    def step_flops(self) -> float:
        """Operations of a step."""
        return sum(self.flops.values())


def training_memory(num_parameters: int, states: tuple[int, int, int], *, zero_stage: int, num_gpus: int) -> Memory:
    """Rajbhandari et al. 2020, section 3.1 and figure 1, where `states` are 2, 2 and 12 bytes a parameter.

    Stage 1 divides the optimizer's by the number of GPUs, stage 2 the gradients too, stage 3 the weights as well.
    """
    parts = [
        size * num_parameters / (num_gpus if zero_stage >= first else 1)
        for size, first in zip(states, (3, 2, 1), strict=True)
    ]
    return Memory(*parts)


def workload(path: Path, *, sentence_length: int) -> Workload:
    """The training of a configuration; ValueError for a stage without an estimate and for a duration in epochs."""
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


def training_kind(path: Path) -> Literal["translate", "pretrain_gpt", "pretrain_bert"]:
    """Which training a configuration is of, whatever its size; ValueError for a stage without an estimate."""
    stage = Layout.of(path).stage.partition("/")[0]
    match stage:
        case "translate" | "pretrain_gpt" | "pretrain_bert":
            return stage
        case "pretrain_bert_large":
            return "pretrain_bert"
        case _:
            raise ValueError(f"{path}: no estimate of {stage}; there is one of translate, pretrain_gpt, pretrain_bert")


def published_size(path: Path) -> PublishedSize | None:
    """What a paper prints of the model of a configuration; nothing where conf/published_sizes.yaml names none."""
    conf = next(folder for folder in path.parents if folder.name == "conf")
    file = conf / "published_sizes.yaml"
    if not file.is_file():
        return None
    sizes = load(file, PublishedSizes).sizes
    return next((size for size in sizes if path.relative_to(conf).as_posix() in size.configurations), None)


def describe(
    path: Path, *, num_gpus: int, tflops: float | None, zero_stage: int | None, sentence_length: int
) -> Iterator[str]:
    """The estimate as lines of text."""
    for name, value in (("gpus", num_gpus), ("tflops", 1 if tflops is None else tflops), ("length", sentence_length)):
        if not value > 0:
            raise ValueError(f"--{name}: expected more than 0, found {value}")
    found = workload(path, sentence_length=sentence_length)
    yield f"parameters {found.num_parameters:,}"
    yield from (f"  {name:<18} {count:>13,}" for name, count in found.parameters.items())
    published = published_size(path)
    if published is not None:
        more = found.num_parameters / published.num_parameters - 1
        note = f": {published.note}" if published.note else ""
        yield f"  published: {published.num_parameters:,} ({published.source}); ours are {more:+.1%}{note}"
    tokens = " and ".join(f"{count:,.0f} {side}" for side, count in found.tokens.items())
    passes = f", each in {found.num_passes} passes" if found.num_passes > 1 else ""
    yield f"a step: {tokens} tokens{passes}, {found.step_flops:.3g} FLOPs forward and backward"
    yield from (f"  {name:<18} {flops:>13.3g}" for name, flops in found.flops.items())
    yield "  2 FLOPs a weight and token that passes it, 2 products of T x S x D in attention; backward is twice forward"
    total = found.step_flops * found.num_steps
    yield f"the training: {found.num_steps:,} steps, {total:.3g} FLOPs"
    yield from _hours(total, num_gpus, tflops)
    yield f"memory of each of {num_gpus} GPUs, in GiB, all in float32 beside products in half precision:"
    yield "  4 bytes a parameter of weights, 4 of gradients, 8 of Adam, 12 where DeepSpeed keeps weights of its own"
    for stage in range(4) if zero_stage is None else (zero_stage,):
        states = _DEEPSPEED_STATES if stage else _PLAIN_STATES
        memory = training_memory(found.num_parameters, states, zero_stage=stage, num_gpus=num_gpus)
        parts = (memory.weights, memory.gradients, memory.optimizer, memory.total)
        weights, gradients, optimizer, whole = (f"{part / _GIB:.2f}" for part in parts)
        yield f"  ZeRO-{stage}: weights {weights}, gradients {gradients}, Adam {optimizer}, together {whole}"
    if found.activations:
        share = found.activations / num_gpus / _GIB
        yield f"  and activations of a micro-batch, roughly: {share:.1f}, divided by the runtime's accumulation"


def _hours(total: float, num_gpus: int, tflops: float | None) -> Iterator[str]:
    if tflops is not None:
        rates = {f"sustained {tflops:g} TFLOP/s": tflops}
    else:
        rates = {
            f"{name}, assumed to sustain {_UTILISATION:.0%} of {peak:g} TFLOP/s": _UTILISATION * peak
            for name, peak in _PEAKS.items()
        }
    for name, rate in rates.items():
        hours = total / (rate * 1e12) / 3600
        both = (f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in (hours, hours / num_gpus))
        yield f"  {name}: {' GPU-hours, '.join(both)} hours on {num_gpus}"


def _translation(path: Path, sentence_length: int) -> Workload:
    """Pairs are taken to be of equal length."""
    config = translation_config(path, sentence_length)
    match config.training.batching:
        case ByTokens():
            num_pairs = config.training.batching.tokens_per_step * _FILLED / sentence_length
        case ByExamples():
            num_pairs = float(config.training.batching.examples_per_step)
    lengths = [sentence_length] * max(1, round(num_pairs))
    num_tokens = float(sum(lengths))
    with torch.device("meta"):
        model = build_model(config.model)
    activations = 0.0
    if isinstance(config.model, TransformerConfig):
        shape = config.model
        scores = _scores(shape, sentence_length)
        a_token = shape.num_encoder_layers * _kept(shape.d_model, shape.d_ff, num_attentions=1, scores=scores)
        a_token += shape.num_decoder_layers * _kept(shape.d_model, shape.d_ff, num_attentions=2, scores=scores)
        # The scores are computed some at a time, each with its gradients, of which the hidden states' are kept.
        activations = config.num_passes * num_tokens * (a_token + 4.0 * shape.d_model)
    factor = 3 * config.num_passes
    return _workload(
        path,
        config.training,
        model,
        flops={part: factor * flops for part, flops in forward_flops(config.model, lengths, lengths).items()},
        tokens={f"source ({sentence_length} a sentence)": num_tokens, "target": num_tokens},
        activations=activations,
        num_passes=config.num_passes,
    )


def _gpt(path: Path) -> Workload:
    config = load(path, PretrainGPTConfig)
    shape = gpt_shape(path, config)
    lengths = [shape.max_length] * _rows(config.training, shape.max_length)
    num_tokens = float(sum(lengths))
    with torch.device("meta"):
        model = GPT(shape)
    scores = _scores(shape, shape.max_length)
    a_token = shape.num_layers * _kept(shape.d_model, 4 * shape.d_model, num_attentions=1, scores=scores)
    return _workload(
        path,
        config.training,
        model,
        flops={part: 3 * flops for part, flops in gpt_flops(shape, lengths).items()},
        tokens={"text": num_tokens},
        activations=num_tokens * (a_token + _kept_scores(shape.vocab_size)),
    )


def _bert(path: Path) -> Workload:
    """A step is the mean one over the phases of the lengths; memory is that of the longest."""
    config = load(path, PretrainBertConfig)
    shape, steps = bert_shape(path, config), num_steps(path, config.training)
    with torch.device("meta"):
        model = BertForPretraining(shape)
    flops: dict[str, float] = {}
    tokens: dict[str, float] = {}
    ends = [begin for begin, _ in config.phases[1:]] + [steps]
    for (begin, length), end in zip(config.phases, ends, strict=True):
        lengths = [length] * _rows(config.training, length)
        num_tokens, share = float(sum(lengths)), (end - begin) / steps
        num_masked = round(config.masking.mask_share * num_tokens)
        for part, count in bert_flops(shape, lengths, num_masked).items():
            flops[part] = flops.get(part, 0.0) + 3 * share * count
        tokens["text" if share == 1 else f"text in rows of {length} ({share:.0%} of the steps)"] = num_tokens
        a_token = _kept(shape.d_model, shape.d_ff, num_attentions=1, scores=_scores(shape, length))
        activations = num_tokens * shape.num_layers * a_token + num_masked * _kept_scores(shape.vocab_size)
    return _workload(path, config.training, model, flops=flops, tokens=tokens, activations=activations)


def _workload(
    path: Path,
    training: TrainingConfig,
    model: nn.Module,
    *,
    flops: Mapping[str, float],
    tokens: Mapping[str, float],
    activations: float,
    num_passes: int = 1,
) -> Workload:
    """The training of a model; `activations` are those of a whole step."""
    return Workload(
        parameters=_parts(model),
        flops=flops,
        num_steps=num_steps(path, training),
        tokens=tokens,
        activations=activations / training.batching.groups_per_step,
        num_passes=num_passes,
    )


def translation_config(path: Path, sentence_length: int) -> TranslateConfig:
    """The configuration of a translation; ValueError for sentences that are longer than its model reads."""
    config = load(path, TranslateConfig)
    if sentence_length > config.model.max_length:
        raise ValueError(
            f"--length: expected at most {config.model.max_length} tokens, the model.max_length of {path}, "
            f"found {sentence_length}"
        )
    return config


def gpt_shape(path: Path, config: PretrainGPTConfig) -> GPTConfig:
    """The GPT of a configuration, with the vocabulary of its profile."""
    return GPTConfig(vocab_size=_vocab_size(path, "byte_bpe"), **config.model.model_dump())


def bert_shape(path: Path, config: PretrainBertConfig) -> BertConfig:
    """The BERT of a configuration, with the vocabulary of its profile."""
    return BertConfig(vocab_size=_vocab_size(path, "wordpiece"), **config.model.model_dump())


def _vocab_size(path: Path, kind: Literal["byte_bpe", "wordpiece"]) -> int:
    """Ids of a tokenizer of the same profile; ValueError where the profile trains none."""
    file = path.with_name("tokenize.yaml")
    config = load(file, TokenizeConfig)
    tokenizer = config.byte_bpe if kind == "byte_bpe" else config.wordpiece
    if tokenizer is None:
        raise ValueError(f"{file}: {kind}: missing key")
    return tokenizer.vocab_size


def _rows(training: TrainingConfig, length: int) -> int:
    """Rows of a step, each taken to be full."""
    match training.batching:
        case ByTokens():
            return max(1, training.batching.tokens_per_step // length)
        case ByExamples():
            return training.batching.examples_per_step


def num_steps(path: Path, training: TrainingConfig) -> int:
    """Optimizer steps of a training; ValueError for a duration in epochs."""
    if not isinstance(training.duration, Steps):
        raise ValueError(f"{path}: training.duration: an estimate needs steps; how many an epoch has, the data decide")
    return training.duration.num_steps


def _parts(model: nn.Module) -> dict[str, int]:
    """Parameters below each child of a model, shared ones once."""
    seen: set[int] = set()
    parts: dict[str, int] = {}
    for name, child in model.named_children():
        fresh = [parameter for parameter in child.parameters() if id(parameter) not in seen]
        seen |= {id(parameter) for parameter in fresh}
        if fresh:
            parts[name] = sum(parameter.numel() for parameter in fresh)
    return parts


def _kept(d_model: int, d_ff: int, *, num_attentions: int, scores: int = 0) -> int:
    """Bytes that a layer keeps of a token for its backward pass (Korthikanti et al. 2022, section 4.1).

    In half precision: an attention 11 D, the feed-forward network 3 D + 4 F, a norm 2 D each. The fused attention keeps
    no scores; another one 5 bytes for each of `scores`.
    """
    attention = (11 * d_model + 5 * scores) * num_attentions
    return attention + 3 * d_model + 4 * d_ff + 2 * d_model * (num_attentions + 1)


def _scores(shape: TransformerConfig | GPTConfig | BertConfig, length: int) -> int:
    """Attention scores that a token keeps in one attention: none in the fused kernel, which has no dropout."""
    return shape.num_heads * length if shape.attention_dropout else 0


def _kept_scores(vocab_size: int) -> float:
    """Bytes of the scores of one predicted token, and of their softmax in float32."""
    return 6.0 * vocab_size
