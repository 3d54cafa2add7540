"""Translating texts with a model: the search in batches, whose folder is `translator_folder.py`.

Shared by the stage translate and by whatever opens its folder later. What is found for a text does not depend on the
texts beside it. Legend: B texts of a batch, S source length with EOS.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from pipeline.config import ByTokens, Config
from pipeline.data.batches import Sizes
from pipeline.data.cleaning import clean_line
from pipeline.data.examples.padding import pad_ids, pad_mask
from pipeline.data.plan import plan_epoch
from pipeline.decoding.beam import Hypothesis, Normalisation, Stop, beam_search, greedy_search
from pipeline.decoding.ensemble import Ensemble, EnsembleState, Member
from pipeline.decoding.protocol import StepModel
from pipeline.decoding.sampling import uniforms
from pipeline.decoding.target_sampling import sample_targets
from pipeline.models.recurrent import Recurrent
from pipeline.models.seq2seq import Seq2Seq
from pipeline.progress import progress
from pipeline.text.forms import PLAIN, MosesText, PlainText, into_form, out_of_form
from pipeline.text.target_text import TargetText
from pipeline.text.tokenizer import Tokenizer
from pipeline.workers import side_by_side

_TOKENS_PER_BATCH = 2048


class SearchConfig(Config):
    """How translations are searched."""

    beam_size: PositiveInt
    """Hypotheses that stay open for each source; 1 is greedy search, which normalises nothing."""
    normalisation: Normalisation
    """What a log-probability is divided by; `transformers` knows `length` alone."""
    length_penalty: NonNegativeFloat
    """Exponent of the normalisation; 0 prefers short translations, larger values longer ones."""
    max_extra_tokens: NonNegativeInt
    """Longest translation: the tokens of its source and so many more (Vaswani et al. 2017, section 6.1: 50)."""
    stop: Stop = "settled"
    """proven: the search ends when nothing open can become the best; settled: sooner, when as it is nothing open is
    better than any of the `beam_size` best that have ended; likely: when nothing is better than the best one; filled:
    when `beam_size` hypotheses have ended."""

    @property
    def greedy(self) -> "SearchConfig":
        """The same as a greedy search."""
        return self.model_copy(update={"beam_size": 1})


class DrawConfig(Config):
    """How translations are drawn from the model's distribution, in place of the search."""

    temperature: PositiveFloat
    """Divides the logits: below 1 the likely tokens become likelier."""
    top_k: NonNegativeInt
    """Draw from so many of the likeliest tokens (Fan et al. 2018); 0 for all."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)]
    """Draw from the smallest set of tokens with this probability (Holtzman et al. 2020); 1 for all."""
    seed: NonNegativeInt
    """Seed of the draws."""


@dataclass(frozen=True)
class Translation:
    """What was found for one text."""

    text: str
    tokens: tuple[int, ...]
    """Its tokens without EOS."""
    log_prob: float
    """log p(tokens, EOS | source)."""
    score: float
    """`log_prob` after length normalisation."""
    at_limit: bool = False
    """True where it is as long as allowed: its end may be missing."""


Finished = list[tuple[int, list[Translation]]]
"""The translations of some texts, each behind the place of its text."""


@dataclass(frozen=True)
class Translator:
    """A trained model at work; the model is in evaluation mode."""

    model: Seq2Seq | Recurrent
    tokenizer: Tokenizer
    search: SearchConfig
    form: PlainText | MosesText = PLAIN
    """The form of the texts that the model reads and writes."""
    others: tuple[Seq2Seq | Recurrent, ...] = ()
    """Models of the same tokenizer that decide on each token together with `model`: an ensemble."""
    tokens_at_once: int = _TOKENS_PER_BATCH
    """Tokens of the sources, padded ones too, that are searched together; more of them where one text has more."""

    @property
    def models(self) -> tuple[Seq2Seq | Recurrent, ...]:
        """All that decide: one, or those of an ensemble."""
        return (self.model, *self.others)

    @property
    def longest_text(self) -> int:
        """The most tokens of a text, EOS not counted."""
        return min(model.config.max_length for model in self.models) - 1

    @property
    def suppressed(self) -> tuple[int, ...]:
        """Tokens that no translation has: the unknown one stands for no text."""
        special = self.tokenizer.special
        return (self.tokenizer.id_of("unk"),) if "unk" in special and special["unk"] != special["eos"] else ()

    def as_source(self, text: str) -> str:
        """A text of people as the model reads it: one line, cleaned as `prepare` cleans pairs, in the model's form."""
        return into_form(clean_line(text), self.form, "src")

    def translate_plain(self, texts: Sequence[str]) -> list[Translation]:
        """The best translation of each text as people write it."""
        found = self.translate([self.as_source(text) for text in texts])
        return [replace(one, text=out_of_form(one.text, self.form)) for one in found]

    def translate(
        self, texts: Sequence[str], *, too_long: Literal["refuse", "cut"] = "refuse", is_shown: bool = True
    ) -> list[Translation]:
        """The best translation of each text, in the order of the texts; both are in the model's form.

        A text longer than the model reads is a ValueError that names it, or its end is cut off: for evaluation, where
        no text may be missing. A text without a token stays one. Of several ranks only one has its progress shown.
        """
        found: dict[int, Translation] = {}
        for finished in progress(
            self.searched(self.encode(texts, too_long=too_long), num_best=1),
            name=f"translating, beam {self.search.beam_size}",
            unit="texts",
            total=len(texts),
            size=len,
            is_shown=is_shown,
        ):
            found.update((place, best) for place, (best,) in finished)
        return [found[place] for place in range(len(texts))]

    def searched(self, sources: Sequence[Int[np.ndarray, "_"]], *, num_best: int) -> Iterator[Finished]:
        """The best translations of each source, best first, in batches of similar length.

        Several are of different texts: of the segmentations of a text the best one counts. There are fewer than
        `num_best` where the beam holds no more texts. ValueError where it is narrower than `num_best`.
        """
        if num_best > self.search.beam_size:
            raise ValueError(
                f"num_best must be in 1..beam_size, found {num_best} with beam_size {self.search.beam_size}"
            )

        def find(places: Sequence[int], start: _Start) -> list[list[Hypothesis]]:
            search, bos, eos = self.search, self.tokenizer.bos_id, self.tokenizer.eos_id
            model, state, limits = start.model, start.state, start.limits
            if search.beam_size == 1 and num_best == 1:
                best = greedy_search(model, state, bos=bos, eos=eos, max_lengths=limits, suppressed=self.suppressed)
                return [[one] for one in best]
            found = beam_search(
                model,
                state,
                bos=bos,
                eos=eos,
                max_lengths=limits,
                beam_size=search.beam_size,
                # One text may be in the beam several times.
                num_best=1 if num_best == 1 else search.beam_size,
                normalisation=search.normalisation,
                length_penalty=search.length_penalty,
                stop=search.stop,
                suppressed=self.suppressed,
            )
            return found if num_best == 1 else [self._different(row)[:num_best] for row in found]

        return self._in_batches(sources, find)

    def drawn(
        self, sources: Sequence[Int[np.ndarray, "_"]], numbers: Sequence[int], draw: DrawConfig, *, num_draws: int
    ) -> Iterator[Finished]:
        """Translations of each source drawn at random, in batches of similar length.

        The draws are a function of the seed and the number that the source has in `numbers`, not of its batch.
        """

        def find(places: Sequence[int], start: _Start) -> list[list[Hypothesis]]:
            found: list[list[Hypothesis]] = [[] for _ in places]
            for iteration in range(num_draws):
                uniform = uniforms(
                    seed=draw.seed,
                    iteration=iteration,
                    prompt_ids=[numbers[place] for place in places],
                    num_positions=int(start.limits.max()),
                )
                hypotheses = sample_targets(
                    start.model,
                    start.state,
                    uniform.to(start.limits.device),
                    bos=self.tokenizer.bos_id,
                    eos=self.tokenizer.eos_id,
                    max_lengths=start.limits,
                    temperature=draw.temperature,
                    top_k=draw.top_k,
                    top_p=draw.top_p,
                    suppressed=self.suppressed,
                )
                for row, hypothesis in zip(found, hypotheses, strict=True):
                    row.append(hypothesis)
            return found

        return self._in_batches(sources, find)

    def encode(self, texts: Sequence[str], *, too_long: Literal["refuse", "cut"]) -> list[Int[np.ndarray, "_"]]:
        """Source ids with EOS."""
        longest = self.longest_text
        encoded = self._ids(texts)
        for text, ids in zip(texts, encoded, strict=True):
            if len(ids) > longest and too_long == "refuse":
                raise ValueError(f"text of {len(ids)} tokens, the model reads at most {longest}: {text[:60]!r}...")
        return [np.array([*ids[:longest], self.tokenizer.eos_id], dtype=np.int64) for ids in encoded]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, EOS not counted: those with more than `longest_text` do not fit."""
        return [len(ids) for ids in self._ids(texts)]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer.encode_batch(texts)

    def _in_batches(
        self,
        sources: Sequence[Int[np.ndarray, "_"]],
        find: "Callable[[Sequence[int], _Start], list[list[Hypothesis]]]",
    ) -> Iterator[Finished]:
        filled = np.array([i for i, source in enumerate(sources) if len(source) > 1], dtype=np.int64)
        if len(filled) < len(sources):
            nothing = Translation(text="", tokens=(), log_prob=0.0, score=0.0)
            yield [(i, [nothing]) for i, source in enumerate(sources) if len(source) == 1]
        if len(filled) == 0:
            return
        lengths = np.array([len(sources[i]) for i in filled], dtype=np.int64)
        batching = ByTokens(kind="tokens", tokens_per_step=max(self.tokens_at_once, int(lengths.max())))
        planned = plan_epoch(Sizes(lengths=lengths, num_targets={}), batching, seed=0, epoch=0)
        # The most work first: side by side the last ones then end at about the same time.
        steps = sorted(planned, key=lambda step: int(lengths[step.indices].sum()), reverse=True)

        @torch.inference_mode()
        def translated(places: list[int]) -> Finished:
            start = self._start([sources[i] for i in places])
            rows = zip(places, find(places, start), start.limits.tolist(), strict=True)
            return [(place, [self._translation(one, limit) for one in row]) for place, row, limit in rows]

        batches = (filled[step.indices].tolist() for step in steps)
        if next(self.model.parameters()).device.type == "cpu":
            yield from side_by_side(translated, batches)
        else:
            yield from map(translated, batches)

    def _start(self, sources: Sequence[Int[np.ndarray, "_"]]) -> "_Start":
        models = self.models
        assert not any(model.training for model in models), "dropout would act in the search"
        device = next(self.model.parameters()).device
        src = pad_ids(sources, self.tokenizer.pad_id).to(device)
        mask = pad_mask([np.ones(len(source), dtype=bool) for source in sources]).to(device)
        limits = (mask.sum(1) + self.search.max_extra_tokens).clamp(max=self.longest_text + 1)
        if not self.others:
            return _Start(self.model, self.model.start(src, mask), limits)
        members = tuple(Member[Any](model, model.start(src, mask)) for model in models)
        return _Start(Ensemble(), EnsembleState(members), limits)

    def _different(self, found: Sequence[Hypothesis]) -> list[Hypothesis]:
        """The hypotheses without those whose text a better one has."""
        by_text: dict[str, Hypothesis] = {}
        for one in found:
            by_text.setdefault(out_of_form(self._target_text.of(one.tokens), self.form), one)
        return list(by_text.values())

    @cached_property
    def _target_text(self) -> TargetText:
        return TargetText(self.tokenizer, self.form)

    def _translation(self, found: Hypothesis, limit: int) -> Translation:
        return Translation(
            text=self._target_text.of(found.tokens),
            tokens=found.tokens,
            log_prob=found.log_prob,
            score=found.score,
            at_limit=len(found.tokens) + 1 >= limit,
        )


@dataclass(frozen=True)
class _Start:
    """A batch whose sources are read."""

    model: StepModel[Any]
    state: Any
    limits: Int[Tensor, "B"]
    """Longest translation of each source in tokens, EOS included."""
