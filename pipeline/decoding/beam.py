"""Beam search over a batch of rows, and greedy search as its narrowest case.

Legend: N rows (sources), M rows still searched, K beam size, B best hypotheses asked for, C candidates, L longest
target, V scores. The caller puts the model in evaluation mode. What is found for a row does not depend on the batch it
is in, and unless asked otherwise a row is searched until nothing open can enter its B best: no shortcut on top of the
beam itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.decoding.protocol import S, StepModel

Normalisation = Literal["gnmt", "length"]
"""What a log-probability is divided by: `((5 + n) / 6) ** a` (Wu et al. 2016, eq. 14) or `n ** a`, for n tokens with
EOS."""


Stop = Literal["proven", "settled", "likely", "filled"]
"""When the search of a row ends: once nothing open can enter its B best (proven), whatever its length; sooner, once
nothing open would enter the K best (settled, as transformers ends it) or the B best (likely) if it ended at the length
it has; or once K hypotheses have finished (filled), as fairseq and CTranslate2 end it. The sooner, the more rows find
something else: benchmarks/translate_decoding.py counts them."""


_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class Hypothesis:
    """A finished target."""

    tokens: tuple[int, ...]
    """The tokens between BOS and EOS, without them."""
    log_prob: float
    """Sum of the log-probabilities, that of EOS included."""
    score: float
    """`log_prob` after length normalisation: what the search maximises."""


def greedy_search(
    model: StepModel[S],
    state: S,
    *,
    bos: int,
    eos: int,
    max_lengths: Int[Tensor, "N"],
    suppressed: Sequence[int] = (),
) -> list[Hypothesis]:
    """The likeliest token at every step: a beam of one that ends with its first EOS."""
    found = beam_search(
        model,
        state,
        bos=bos,
        eos=eos,
        max_lengths=max_lengths,
        beam_size=1,
        num_best=1,
        normalisation="length",
        length_penalty=0.0,
        suppressed=suppressed,
    )
    return [hypotheses[0] for hypotheses in found]


@torch.inference_mode()
def beam_search(
    model: StepModel[S],
    state: S,
    *,
    bos: int,
    eos: int,
    max_lengths: Int[Tensor, "N"],
    beam_size: int,
    num_best: int,
    normalisation: Normalisation,
    length_penalty: float,
    stop: Stop = "proven",
    suppressed: Sequence[int] = (),
) -> list[list[Hypothesis]]:
    """The `num_best` finished hypotheses of each of the N rows of `state`, best first.

    At every step the K best of all continuations of a row are taken; those that end with EOS are finished, and the
    best others fill the beam up to K. At `max_lengths` tokens, EOS included, a row may only end. A row has fewer than
    `num_best` hypotheses only if there are no more within its length, or `stop` ends it sooner. `suppressed` tokens are
    never generated; the probabilities of the others stay as the model gives them.
    """
    if not 1 <= num_best <= beam_size:
        raise ValueError(f"num_best must be in 1..beam_size, found {num_best} with beam_size {beam_size}")
    if length_penalty < 0.0:
        raise ValueError(f"length_penalty must be 0 or more, found {length_penalty}: longer is never worse normalised")
    if int(max_lengths.min()) < 1:
        raise ValueError(f"max_lengths must be 1 or more, found {int(max_lengths.min())}")
    found: list[list[Hypothesis]] = [[] for _ in max_lengths]
    never = torch.tensor(list(suppressed), dtype=torch.long, device=max_lengths.device)
    beam = _Beam.begun(
        max_lengths,
        num_kept=beam_size if stop == "settled" else num_best,
        final_penalty=_penalty(max_lengths, normalisation, length_penalty),
        eos=eos,
    )
    last_tokens = torch.full_like(max_lengths, bos)
    for length in range(1, int(max_lengths.max()) + 1):
        logits, state = model.step(last_tokens, state)
        candidates = _candidates(
            logits, beam.log_probs, num_best=2 * beam_size, must_end=beam.max_lengths == length, eos=eos, never=never
        )
        penalty = _penalty(torch.tensor(float(length), device=max_lengths.device), normalisation, length_penalty)
        beam, parents = beam.extended(candidates, length=length, beam_size=beam_size, penalty=penalty, eos=eos)
        is_done = beam.is_done(stop, num_best=num_best, beam_size=beam_size, penalty=penalty)
        kept = ~is_done
        if bool(is_done.any()):
            best_of_done = beam.best.select(is_done).hypotheses(eos)
            for row, hypotheses in zip(beam.rows[is_done].tolist(), best_of_done, strict=True):
                found[row] = hypotheses[:num_best]
            beam = beam.select(kept)
        if len(beam.rows) == 0:
            break
        last_tokens = beam.tokens[:, :, length - 1].flatten()
        num_before = len(logits)
        origins = (torch.arange(len(kept), device=kept.device)[:, None] * (num_before // len(kept)) + parents)[kept]
        if not torch.equal(origins.flatten(), torch.arange(num_before, device=kept.device)):
            state = state.select(origins.flatten())
    return found


@dataclass(frozen=True)
class _Beam:
    """The rows that are still searched: their open hypotheses, one to begin with and K from the first token on."""

    rows: Int[Tensor, "M"]
    """Their places among the N."""
    max_lengths: Int[Tensor, "M"]
    final_penalty: Float[Tensor, "M"]
    """What a hypothesis of the longest length is divided by."""
    log_probs: Float[Tensor, "M K"]
    """Of the open hypotheses, best first."""
    tokens: Int[Tensor, "M K L"]
    """Padded with EOS."""
    best: "_Finished"
    num_finished: Int[Tensor, "M"]
    """How many hypotheses have ended, whether they are kept or not."""

    @staticmethod
    def begun(max_lengths: Int[Tensor, "N"], *, num_kept: int, final_penalty: Float[Tensor, "N"], eos: int) -> "_Beam":
        num_rows, longest, device = len(max_lengths), int(max_lengths.max()), max_lengths.device
        return _Beam(
            rows=torch.arange(num_rows, device=device),
            max_lengths=max_lengths,
            final_penalty=final_penalty,
            log_probs=torch.zeros(num_rows, 1, device=device),
            tokens=torch.full((num_rows, 1, longest), eos, device=device),
            best=_Finished.none(num_rows, num_kept, longest, eos=eos, device=device),
            num_finished=torch.zeros_like(max_lengths),
        )

    def extended(
        self, candidates: "_Candidates", *, length: int, beam_size: int, penalty: Float[Tensor, ""], eos: int
    ) -> "tuple[_Beam, Int[Tensor, 'M K']]":
        """The beam with one token more, and which hypothesis each open one continues.

        Of the K best candidates those that end are finished; the best that do not fill the beam.
        """
        is_eos = candidates.tokens == eos  # (M, C)
        ending, best, num_finished = is_eos[:, :beam_size], self.best, self.num_finished
        if bool(ending.any()):
            best = best.merged(
                log_probs=candidates.log_probs[:, :beam_size].masked_fill(~ending, -torch.inf),
                penalty=penalty,
                tokens=_take(self.tokens, candidates.parents[:, :beam_size]),
            )
            num_finished = num_finished + (ending & candidates.log_probs[:, :beam_size].isfinite()).sum(1)
        log_probs, chosen = candidates.log_probs.masked_fill(is_eos, -torch.inf).topk(beam_size, dim=1)
        parents = candidates.parents.gather(1, chosen)
        tokens = _take(self.tokens, parents)
        tokens[:, :, length - 1] = candidates.tokens.gather(1, chosen)
        extended = replace(self, log_probs=log_probs, tokens=tokens, best=best, num_finished=num_finished)
        return extended, parents

    def is_done(self, stop: Stop, *, num_best: int, beam_size: int, penalty: Float[Tensor, ""]) -> Bool[Tensor, "M"]:
        """Which rows are at their end, by `stop`."""
        best_open = self.log_probs[:, 0]
        # Log-probabilities only fall and penalties only grow: at its longest an open hypothesis cannot be above this.
        is_proven = self.best.scores[:, num_best - 1] >= best_open / self.final_penalty
        match stop:
            case "proven":
                return is_proven
            case "settled" | "likely":
                return is_proven | (self.best.scores[:, -1] >= best_open / penalty)
            case "filled":
                return is_proven | (self.num_finished >= beam_size)
            case _:
                assert_never(stop)

    def select(self, kept: Bool[Tensor, "M"]) -> "_Beam":
        """The beams of some rows."""
        return _Beam(
            rows=self.rows[kept],
            max_lengths=self.max_lengths[kept],
            final_penalty=self.final_penalty[kept],
            log_probs=self.log_probs[kept],
            tokens=self.tokens[kept],
            best=self.best.select(kept),
            num_finished=self.num_finished[kept],
        )


@dataclass(frozen=True)
class _Candidates:
    """The best continuations of each row, best first: enough of them that K are left without EOS."""

    log_probs: Float[Tensor, "M C"]
    parents: Int[Tensor, "M C"]
    """Which open hypothesis is continued."""
    tokens: Int[Tensor, "M C"]


def _candidates(
    logits: Float[Tensor, "MK V"],
    open_log_probs: Float[Tensor, "M K"],
    *,
    num_best: int,
    must_end: Bool[Tensor, "M"],
    eos: int,
    never: Int[Tensor, "X"],
) -> _Candidates:
    """The best continuations of each row, `never` left out; only EOS where it `must_end`. Writes into `logits`.

    Where there are fewer, the rest are impossible ones.
    """
    logits = logits.float()
    some_must_end = bool(must_end.any())
    is_other = torch.arange(logits.shape[1], device=logits.device) != eos
    totals, peaks = [], []
    # Some rows at a time: what is passed over several times then stays in the cache.
    ending = torch.split(must_end.repeat_interleave(open_log_probs.shape[1]), _ROWS_AT_ONCE)
    for some, must_end_here in zip(torch.split(logits, _ROWS_AT_ONCE), ending, strict=True):
        totals.append(some[:, 0] - some.log_softmax(1)[:, 0])  # log sum exp, in half the time of logsumexp
        some.index_fill_(1, never, -torch.inf)
        if some_must_end:
            some.masked_fill_(must_end_here[:, None] & is_other, -torch.inf)
        peaks.append(_peaks(some, num_best))
    addends = open_log_probs - torch.cat(totals).view_as(open_log_probs)
    found = _best(logits, torch.cat(peaks), addends, num_best=num_best)
    missing = num_best - found.log_probs.shape[1]
    if missing == 0:
        return found
    return _Candidates(
        F.pad(found.log_probs, (0, missing), value=-torch.inf),
        F.pad(found.parents, (0, missing)),
        F.pad(found.tokens, (0, missing), value=eos),
    )


def _peaks(scores: Float[Tensor, "MK V"], num_best: int) -> Float[Tensor, "MK P"]:
    """The highest score of each of P groups of tokens, whose size is best where C groups are looked at: see `_best`.

    Group g has the tokens g, g + P, g + 2 P, ...: the maxima are then taken over whole vectors. What makes no full
    group is in none.
    """
    vocab_size = scores.shape[1]
    group_size = max(1, math.isqrt(vocab_size // num_best))
    num_groups = vocab_size // group_size
    return scores[:, : num_groups * group_size].reshape(-1, group_size, num_groups).amax(1)


def _best(
    scores: Float[Tensor, "MK V"], peaks: Float[Tensor, "MK P"], addends: Float[Tensor, "M K"], *, num_best: int
) -> _Candidates:
    """The best of the K * V sums, score plus addend, of each row.

    They are found in two steps, which look at every number once and sort few of them: the C best are in the C groups
    with the highest `peaks`. The tokens that make no full group come to these.
    """
    num_rows, beam_size = addends.shape
    vocab_size, num_groups = scores.shape[1], peaks.shape[1]
    # The size of a group again, since there are more groups than a group has tokens.
    grouped = vocab_size // num_groups * num_groups
    offsets = torch.arange(0, beam_size * vocab_size, vocab_size, device=scores.device)  # (K,)
    members = torch.arange(0, grouped, num_groups, device=scores.device)  # (Q,)
    rest = torch.arange(grouped, vocab_size, device=scores.device)

    peaks = (peaks.view(num_rows, beam_size, -1) + addends[:, :, None]).flatten(1)
    _, groups = peaks.topk(min(num_best, peaks.shape[1]), dim=1)
    firsts = offsets[groups // num_groups] + groups % num_groups
    places = torch.cat(
        [
            (firsts[:, :, None] + members).flatten(1),
            (offsets[:, None] + rest).flatten().expand(num_rows, -1),
        ],
        dim=1,
    )
    rows = torch.arange(0, num_rows * beam_size, beam_size, device=scores.device)[:, None]
    sums = scores[rows + places // vocab_size, places % vocab_size] + addends.gather(1, places // vocab_size)
    best, order = sums.topk(min(num_best, sums.shape[1]), dim=1)
    places = places.gather(1, order)
    return _Candidates(best, places // vocab_size, places % vocab_size)


@dataclass(frozen=True)
class _Finished:
    """The best finished hypotheses of each row, best first; minus infinity where there is none yet."""

    scores: Float[Tensor, "M B"]
    log_probs: Float[Tensor, "M B"]
    tokens: Int[Tensor, "M B L"]
    """Padded with EOS."""

    @staticmethod
    def none(num_rows: int, num_best: int, longest: int, *, eos: int, device: torch.device) -> "_Finished":
        nothing = torch.full((num_rows, num_best), -torch.inf, device=device)
        return _Finished(nothing, nothing, torch.full((num_rows, num_best, longest), eos, device=device))

    def merged(
        self, *, log_probs: Float[Tensor, "M K"], penalty: Float[Tensor, ""], tokens: Int[Tensor, "M K L"]
    ) -> "_Finished":
        """The best of these and of new ones of one length."""
        scores, order = torch.cat([self.scores, log_probs / penalty], dim=1).topk(self.scores.shape[1], dim=1)
        return _Finished(
            scores=scores,
            log_probs=torch.cat([self.log_probs, log_probs], dim=1).gather(1, order),
            tokens=_take(torch.cat([self.tokens, tokens], dim=1), order),
        )

    def select(self, kept: Bool[Tensor, "M"]) -> "_Finished":
        return _Finished(self.scores[kept], self.log_probs[kept], self.tokens[kept])

    def hypotheses(self, eos: int) -> list[list[Hypothesis]]:
        """As Python objects, those that exist."""
        lengths = (self.tokens != eos).sum(2).tolist()
        return [
            [
                Hypothesis(tuple(tokens[:length]), log_prob, score)
                for score, log_prob, tokens, length in zip(*row, strict=True)
                if score > float("-inf")
            ]
            for row in zip(self.scores.tolist(), self.log_probs.tolist(), self.tokens.tolist(), lengths, strict=True)
        ]


def _penalty(lengths: Tensor, normalisation: Normalisation, length_penalty: float) -> Tensor:
    """What the log-probability of a hypothesis of so many tokens is divided by."""
    match normalisation:
        case "gnmt":
            return ((5.0 + lengths) / 6.0) ** length_penalty
        case "length":
            return lengths.float() ** length_penalty
        case _:
            assert_never(normalisation)


def _take(tokens: Int[Tensor, "M X L"], indices: Int[Tensor, "M Y"]) -> Int[Tensor, "M Y L"]:
    """tokens[m, indices[m, y]]."""
    return tokens.gather(1, indices[:, :, None].expand(-1, -1, tokens.shape[2]))
