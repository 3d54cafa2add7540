"""Beam search against an enumeration of all targets and against a beam in plain Python without early stopping.

Legend: N rows, V vocabulary, K beam size.
"""

import functools
import itertools
import math

import pytest
import torch
from torch import Tensor, tensor
from torch.testing import assert_close

from pipeline.decoding.beam import Hypothesis, Normalisation, Stop, _best, _peaks, beam_search, greedy_search
from pipeline.models.seq2seq import Seq2Seq, TransformerConfig
from tests.decoding.toy import ToyModel, ToyState

EOS, BOS = 0, 3
SOURCES = [11, 5, 7, 300, 42, 8, 19, 1000]
LENGTHS = [4, 5, 3, 1, 6, 2, 5, 4]
NORMALISATIONS: list[tuple[Normalisation, float]] = [("gnmt", 0.6), ("length", 1.0), ("gnmt", 0.0), ("length", 2.0)]


def _state(sources: list[int]) -> ToyState:
    return ToyState(tensor(sources))


def _search(
    model: ToyModel,
    sources: list[int],
    lengths: list[int],
    *,
    beam_size: int,
    num_best: int = 1,
    normalisation: Normalisation = "gnmt",
    length_penalty: float = 0.6,
    stop: Stop = "proven",
    suppressed: tuple[int, ...] = (),
) -> list[list[Hypothesis]]:
    return beam_search(
        model,
        _state(sources),
        bos=BOS,
        eos=EOS,
        max_lengths=tensor(lengths),
        beam_size=beam_size,
        num_best=num_best,
        normalisation=normalisation,
        length_penalty=length_penalty,
        stop=stop,
        suppressed=suppressed,
    )


@functools.cache
def _log_probs(model: ToyModel, source: int, prefix: tuple[int, ...]) -> list[float]:
    """log p(next token | prefix), one model step at a time."""
    state = _state([source])
    for token in (BOS, *prefix):
        logits, state = model.step(tensor([token]), state)
    row: list[float] = logits.double().log_softmax(-1)[0].tolist()
    return row


def _normalised(log_prob: float, length: int, normalisation: Normalisation, alpha: float) -> float:
    return log_prob / float(((5 + length) / 6) ** alpha if normalisation == "gnmt" else length**alpha)


def _enumerated(
    model: ToyModel, source: int, max_length: int, normalisation: Normalisation, alpha: float, vocab_size: int
) -> list[Hypothesis]:
    """Every target of at most `max_length` tokens with EOS, best first."""
    every: list[Hypothesis] = []
    for num_tokens in range(max_length):
        for tokens in itertools.product([v for v in range(vocab_size) if v != EOS], repeat=num_tokens):
            steps = [_log_probs(model, source, tokens[:i])[token] for i, token in enumerate((*tokens, EOS))]
            log_prob = float(sum(steps))
            every.append(Hypothesis(tokens, log_prob, _normalised(log_prob, num_tokens + 1, normalisation, alpha)))
    return sorted(every, key=lambda hypothesis: -hypothesis.score)


def _plain_beam(
    model: ToyModel,
    source: int,
    max_length: int,
    beam_size: int,
    normalisation: Normalisation,
    alpha: float,
    *,
    stop: Stop = "proven",
) -> list[Hypothesis]:
    """The definition in a loop: K best continuations, the ended ones leave, the beam is refilled.

    It never stops early, or, with `filled`, as soon as K have ended; with `likely` and `settled` when nothing open
    would be among the best one and the K best of those that ended, as it is.
    """
    beam: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    finished: list[Hypothesis] = []
    for length in range(1, max_length + 1):
        continued = sorted(
            (
                (log_prob + step, (*tokens, token))
                for log_prob, tokens in beam
                for token, step in enumerate(_log_probs(model, source, tokens))
                if length < max_length or token == EOS
            ),
            reverse=True,
        )
        for log_prob, tokens in continued[:beam_size]:
            if tokens[-1] == EOS:
                finished.append(Hypothesis(tokens[:-1], log_prob, _normalised(log_prob, length, normalisation, alpha)))
        beam = [(log_prob, tokens) for log_prob, tokens in continued if tokens[-1] != EOS][:beam_size]
        if stop == "filled" and len(finished) >= beam_size:
            break
        scores = sorted((hypothesis.score for hypothesis in finished), reverse=True)
        num_ahead = {"likely": 1, "settled": beam_size}.get(stop, len(scores) + 1)
        is_ahead = beam and len(scores) >= num_ahead
        if is_ahead and scores[num_ahead - 1] >= _normalised(beam[0][0], length, normalisation, alpha):
            break
    return sorted(finished, key=lambda hypothesis: -hypothesis.score)


def _assert_same(found: list[Hypothesis], expected: list[Hypothesis]) -> None:
    assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.log_prob == pytest.approx(theirs.log_prob, abs=1e-4)
        assert ours.score == pytest.approx(theirs.score, abs=1e-4)


@pytest.mark.parametrize("stop", ["proven", "settled", "filled"])
@pytest.mark.parametrize(("normalisation", "alpha"), NORMALISATIONS)
def test_a_beam_wide_enough_finds_what_exhaustive_search_finds(
    normalisation: Normalisation, alpha: float, stop: Stop
) -> None:
    """Settled and filled wait for K hypotheses to end, and in a beam that holds all, fewer end before the last step."""
    model = ToyModel(vocab_size=4)
    model.table[:, EOS] += 2.0  # many of the best are short, so that ending too soon is seen
    found = _search(
        model, SOURCES, LENGTHS, beam_size=250, num_best=6, normalisation=normalisation, length_penalty=alpha, stop=stop
    )
    for source, length, hypotheses in zip(SOURCES, LENGTHS, found, strict=True):
        _assert_same(hypotheses, _enumerated(model, source, length, normalisation, alpha, 4)[:6])


def _likeliest(
    model: ToyModel, source: int, max_length: int, num_best: int, normalisation: Normalisation, alpha: float
) -> list[Hypothesis]:
    """The best targets up to the first length at which no prefix of that length is better than the worst of them."""
    every = _enumerated(model, source, max_length, normalisation, alpha, 4)
    for length in range(1, max_length):
        ended = [hypothesis for hypothesis in every if len(hypothesis.tokens) < length][:num_best]
        prefixes = itertools.product([1, 2, 3], repeat=length)
        best_open = max(
            sum(_log_probs(model, source, tokens[:i])[token] for i, token in enumerate(tokens)) for tokens in prefixes
        )
        if len(ended) == num_best and ended[-1].score >= _normalised(best_open, length, normalisation, alpha):
            return ended
    return every[:num_best]


@pytest.mark.parametrize("num_best", [1, 6])
@pytest.mark.parametrize(("normalisation", "alpha"), NORMALISATIONS)
def test_a_likely_search_finds_the_best_up_to_the_length_at_which_nothing_open_is_better_as_it_is(
    normalisation: Normalisation, alpha: float, num_best: int
) -> None:
    model = ToyModel(vocab_size=4)
    model.table[:, EOS] += 2.0
    found = _search(
        model, SOURCES, LENGTHS, beam_size=250, num_best=num_best, normalisation=normalisation, length_penalty=alpha,
        stop="likely",
    )  # fmt: skip
    are_exact = []
    for source, length, hypotheses in zip(SOURCES, LENGTHS, found, strict=True):
        _assert_same(hypotheses, _likeliest(model, source, length, num_best, normalisation, alpha))
        exact = _enumerated(model, source, length, normalisation, alpha, 4)[:num_best]
        are_exact.append([one.tokens for one in hypotheses] == [one.tokens for one in exact])
    # Where length is worth nothing, what is open only falls; where it is worth much, something longer is missed.
    assert all(are_exact) or alpha > 0.0
    assert not all(are_exact) or alpha < 2.0


@pytest.mark.parametrize(("normalisation", "alpha"), NORMALISATIONS)
@pytest.mark.parametrize("beam_size", [1, 2, 3, 5])
def test_a_narrow_beam_finds_what_the_plain_beam_finds_without_early_stopping(
    beam_size: int, normalisation: Normalisation, alpha: float
) -> None:
    model = ToyModel(vocab_size=8)
    lengths = [12, 9, 3, 1, 15, 2, 10, 7]
    found = _search(
        model, SOURCES, lengths, beam_size=beam_size, num_best=beam_size, normalisation=normalisation,
        length_penalty=alpha,
    )  # fmt: skip
    for source, length, hypotheses in zip(SOURCES, lengths, found, strict=True):
        expected = _plain_beam(model, source, length, beam_size, normalisation, alpha)[:beam_size]
        _assert_same(hypotheses, expected)


@pytest.mark.parametrize("beam_size", [1, 3, 8])
@pytest.mark.parametrize("vocab_size", [2, 3, 17, 64, 5999])
def test_the_best_continuations_are_those_of_sorting_all_of_them(vocab_size: int, beam_size: int) -> None:
    generator = torch.Generator().manual_seed(vocab_size)
    log_probs = torch.randn(7 * beam_size, vocab_size, generator=generator).log_softmax(1)
    open_log_probs = torch.randn(7, beam_size, generator=generator)
    open_log_probs[3, 1:] = -torch.inf
    peaks = _peaks(log_probs, 2 * beam_size)
    found = _best(log_probs, peaks, open_log_probs, num_best=2 * beam_size)
    sums = (log_probs.view(7, beam_size, -1) + open_log_probs[:, :, None]).flatten(1)
    expected, places = sums.topk(min(2 * beam_size, sums.shape[1]), dim=1)
    assert_close(found.log_probs, expected)
    is_possible = expected > -torch.inf  # minus infinity is the same everywhere
    assert torch.equal((found.parents * vocab_size + found.tokens)[is_possible], places[is_possible])


@pytest.mark.parametrize("sooner", ["settled", "likely", "filled"])
@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_a_search_that_stops_sooner_finds_what_the_plain_beam_finds_until_then(beam_size: int, sooner: Stop) -> None:
    model = ToyModel(vocab_size=12)
    model.table[:, EOS] += 2.0  # most hypotheses end well before they have to
    lengths = [12, 9, 3, 1, 15, 2, 10, 7]

    def search(stop: Stop) -> list[list[Hypothesis]]:
        model.rows_of_steps.clear()
        return beam_search(
            model, _state(SOURCES), bos=BOS, eos=EOS, max_lengths=tensor(lengths), beam_size=beam_size,
            num_best=1, normalisation="length", length_penalty=1.0, stop=stop,
        )  # fmt: skip

    search("proven")
    num_rows = sum(model.rows_of_steps)
    found = search(sooner)
    assert sum(model.rows_of_steps) < num_rows
    for source, length, hypotheses in zip(SOURCES, lengths, found, strict=True):
        expected = _plain_beam(model, source, length, beam_size, "length", 1.0, stop=sooner)
        _assert_same(hypotheses, expected[:1])


def test_the_search_goes_on_after_the_first_finished_hypothesis() -> None:
    # Length-normalised, a longer target wins in at least one row although a shorter one ended before it.
    model = ToyModel(vocab_size=8)
    found = _search(model, SOURCES, [12] * 8, beam_size=4, num_best=4, normalisation="length", length_penalty=1.0)
    assert any(
        len(hypothesis.tokens) < len(hypotheses[0].tokens) for hypotheses in found for hypothesis in hypotheses[1:]
    )


def test_what_is_found_for_a_row_does_not_depend_on_the_batch() -> None:
    model = ToyModel(vocab_size=8)
    lengths = [12, 9, 3, 1, 15, 2, 10, 7]
    together = _search(model, SOURCES, lengths, beam_size=4, num_best=3)
    order = [6, 1, 7, 3, 0, 5, 2, 4]
    shuffled = _search(model, [SOURCES[i] for i in order], [lengths[i] for i in order], beam_size=4, num_best=3)
    for i in range(8):
        alone = _search(model, [SOURCES[i]], [lengths[i]], beam_size=4, num_best=3)[0]
        assert [h.tokens for h in together[i]] == [h.tokens for h in alone]
        assert [h.tokens for h in shuffled[order.index(i)]] == [h.tokens for h in alone]


def test_finished_rows_leave_the_batch_and_the_search_stops_before_the_longest_length() -> None:
    model = ToyModel(vocab_size=8)
    _search(model, SOURCES, [60] * 8, beam_size=3)
    first, *others = model.rows_of_steps
    assert (first, others[0]) == (8, 24), "all begin with one hypothesis"
    assert others == sorted(others, reverse=True)
    assert model.rows_of_steps[-1] < 24
    assert len(model.rows_of_steps) < 60


def test_targets_are_no_longer_than_allowed_and_always_end() -> None:
    model = ToyModel(vocab_size=50, scale=0.1)  # EOS is unlikely: most targets are forced to end
    lengths = [1, 2, 3, 9, 5, 6, 7, 8]
    found = _search(model, SOURCES, lengths, beam_size=3, num_best=3)
    for length, hypotheses in zip(lengths, found, strict=True):
        assert hypotheses and all(len(hypothesis.tokens) < length for hypothesis in hypotheses)
        assert all(EOS not in hypothesis.tokens for hypothesis in hypotheses)
        assert all(math.isfinite(hypothesis.score) for hypothesis in hypotheses)


def test_there_are_fewer_hypotheses_than_asked_for_only_if_no_more_exist() -> None:
    found = _search(ToyModel(vocab_size=3), [5, 7], [1, 2], beam_size=6, num_best=6)
    assert [len(hypotheses) for hypotheses in found] == [1, 3]  # (), and (), (1,), (2,)


def test_suppressed_tokens_are_never_generated_and_change_no_probability() -> None:
    model = ToyModel(vocab_size=5)
    held = _search(model, SOURCES, LENGTHS, beam_size=200, num_best=5, suppressed=(2, 4))
    for source, length, hypotheses in zip(SOURCES, LENGTHS, held, strict=True):
        every = _enumerated(model, source, length, "gnmt", 0.6, 5)
        _assert_same(hypotheses, [h for h in every if not {2, 4} & set(h.tokens)][:5])


def test_greedy_search_takes_the_likeliest_token_until_eos() -> None:
    model = ToyModel(vocab_size=8)
    lengths = [12, 9, 3, 1, 15, 2, 10, 7]
    found = greedy_search(model, _state(SOURCES), bos=BOS, eos=EOS, max_lengths=tensor(lengths))
    for source, length, hypothesis in zip(SOURCES, lengths, found, strict=True):
        tokens: tuple[int, ...] = ()
        log_prob = 0.0
        while True:
            steps = _log_probs(model, source, tokens)
            best = EOS if len(tokens) + 1 == length else max(range(8), key=steps.__getitem__)
            log_prob += steps[best]
            if best == EOS:
                break
            tokens = (*tokens, best)
        assert hypothesis.tokens == tokens
        assert hypothesis.log_prob == hypothesis.score == pytest.approx(log_prob, abs=1e-4)


@pytest.mark.parametrize(
    ("beam_size", "num_best", "length_penalty", "length"),
    [(2, 3, 0.6, 4), (2, 0, 0.6, 4), (2, 1, -0.1, 4), (2, 1, 0.6, 0)],
)
def test_impossible_settings_are_refused(beam_size: int, num_best: int, length_penalty: float, length: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        _search(ToyModel(8), [5], [length], beam_size=beam_size, num_best=num_best, length_penalty=length_penalty)


def test_padding_of_the_source_changes_nothing_that_a_transformer_translates() -> None:
    torch.manual_seed(1)
    config = TransformerConfig(
        kind="transformer", vocab_size=14, d_model=16, num_encoder_layers=1, num_decoder_layers=2, num_heads=2,
        d_ff=32, max_length=40,
    )  # fmt: skip
    model = Seq2Seq(config).eval()
    pad = 13
    sources = [[5, 6, 7], [3], [9, 9, 2, 4, 8, 1], [12, 2]]

    def translated(rows: list[list[int]], width: int) -> list[Hypothesis]:
        src: Tensor = tensor([row + [pad] * (width - len(row)) for row in rows])
        with torch.no_grad():
            state = model.start(src, src != pad)
        found = beam_search(
            model, state, bos=pad, eos=EOS, max_lengths=tensor([12] * len(rows)), beam_size=4, num_best=2,
            normalisation="gnmt", length_penalty=1.0,
        )  # fmt: skip
        return [hypothesis for hypotheses in found for hypothesis in hypotheses]

    together = translated(sources, 9)
    alone = [hypothesis for row in sources for hypothesis in translated([row], len(row))]
    _assert_same(together, alone)
    assert len({hypothesis.tokens for hypothesis in together}) > 4
