import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.examples.preferences import RewardExamples, encode_pairs, preference_examples
from pipeline.data.examples.rating_pairs import PreferencePair, agreement, pairs_from_ratings
from pipeline.data.records import Message, Rated
from pipeline.text.tokenizer import Tokenizer

PROMPTS = {"movie": "Write about a movie.", "news": "Write about the news."}


def rated(number: int, mean: float, domain: str = "movie") -> Rated:
    return Rated(f"r{number}", f"text {number}", mean, (round(mean),) * 3, domain, f"r{number}")


def pair(number: int, chosen: str, rejected: str) -> PreferencePair:
    prompt = (Message("user", "who may rule a free people?"),)
    return PreferencePair(prompt, chosen, rejected, f"c{number}", f"r{number}", distance=1.0, agreement=1.0)


PAIRS = [
    pair(0, "no king", "the old man said nothing at all to him"),
    pair(1, "it is locked; nobody answered", "x"),
    pair(
        2, "our ships sailed on the third of June, and the harbour was empty when they came back, as it had been", "y"
    ),
]


_ratings = st.lists(
    st.tuples(st.integers(-40, 40).map(lambda tenths: tenths / 10), st.sampled_from(["movie", "news", "other"])),
    min_size=2,
    max_size=30,
)


@given(_ratings, st.sampled_from([0.5, 1.0, 2.0]), st.integers(1, 4), st.integers(0, 5))
def test_pairs_keep_distance_domain_and_number_of_uses(
    values: list[tuple[float, str]], min_distance: float, max_uses: int, seed: int
) -> None:
    texts = [rated(i, mean, domain) for i, (mean, domain) in enumerate(values)]
    by_id = {text.id: text for text in texts}
    possible = any(
        a.domain == b.domain and a.domain != "other" and a.mean - b.mean >= min_distance - 1e-9
        for a in texts
        for b in texts
    )
    if not possible:
        with pytest.raises(ValueError, match=r"rated .* apart"):
            pairs_from_ratings(texts, prompts=PROMPTS, min_distance=min_distance, max_uses=max_uses, seed=seed)
        return
    pairs = pairs_from_ratings(texts, prompts=PROMPTS, min_distance=min_distance, max_uses=max_uses, seed=seed)
    uses: Counter[str] = Counter()
    for one in pairs:
        chosen, rejected = by_id[one.chosen_id], by_id[one.rejected_id]
        assert chosen.mean - rejected.mean >= min_distance - 1e-6
        assert chosen.domain == rejected.domain
        assert one.prompt[0].content == PROMPTS[chosen.domain]
        assert (one.chosen, one.rejected) == (chosen.text, rejected.text)
        uses.update([chosen.id, rejected.id])
    assert max(uses.values()) <= max_uses
    assert len({(one.chosen_id, one.rejected_id) for one in pairs}) == len(pairs)


def test_pairs_are_many_and_depend_on_the_seed_but_not_on_the_order_of_the_texts() -> None:
    texts = [rated(i, float(i % 7 - 3)) for i in range(70)]

    def make(texts: list[Rated], seed: int) -> tuple[PreferencePair, ...]:
        return pairs_from_ratings(texts, prompts=PROMPTS, min_distance=1.0, max_uses=4, seed=seed)

    assert make(texts, 1) == make(texts[::-1], 1)
    assert make(texts, 1) != make(texts, 2)
    assert len(make(texts, 1)) >= 0.9 * 70 * 4 / 2


def test_agreement_is_the_share_of_annotator_pairs_that_order_the_texts_alike() -> None:
    assert agreement((3, 1), (0, 1)) == (2 + 1 + 0.5) / 4
    assert agreement((2, 2), (1, 0)) == 1.0
    assert agreement((0,), (0,)) == 0.5
    with pytest.raises(ValueError, match="individual ratings"):
        agreement((), (1,))


def test_both_responses_follow_the_prompt_and_only_they_count(byte_bpe: Tokenizer) -> None:
    encoded, _ = encode_pairs(PAIRS[:1], byte_bpe, max_length=100, too_long="raise")
    batch = preference_examples(encoded, byte_bpe).collate(np.array([0]), 0)
    prompt = [1, 3, *byte_bpe.encode("who may rule a free people?"), 4]
    for side, text in (("chosen", PAIRS[0].chosen), ("rejected", PAIRS[0].rejected)):
        response = [*byte_bpe.encode(text), 2]
        ids, labels = getattr(batch, f"{side}_ids")[0], getattr(batch, f"{side}_labels")[0]
        counted = getattr(batch, f"{side}_is_response")[0]
        whole = [*prompt, *response]
        assert ids[: len(whole) - 1].tolist() == whole[:-1]
        assert labels[: len(whole) - 1].tolist() == whole[1:]
        assert labels[counted].tolist() == response
        assert (ids[len(whole) - 1 :] == 0).all()


def test_the_reward_is_read_at_the_true_last_token(byte_bpe: Tokenizer) -> None:
    encoded, _ = encode_pairs(PAIRS[:2], byte_bpe, max_length=100, too_long="raise")
    examples = RewardExamples(encoded, pad_id=0)
    batch = examples.collate(np.array([1, 0]), 0)
    for ids, last in ((batch.chosen_ids, batch.chosen_last), (batch.rejected_ids, batch.rejected_last)):
        for row, end in zip(ids, last, strict=True):
            assert row[end] == byte_bpe.eos_id
            assert (row[end + 1 :] == byte_bpe.pad_id).all() and not (row[: end + 1] == byte_bpe.pad_id).any()
    assert batch.chosen_ids.shape == batch.rejected_ids.shape == (2, examples.sizes(0).lengths.max())


def test_sizes_fit_collate_and_a_row_does_not_depend_on_its_batch(byte_bpe: Tokenizer) -> None:
    encoded, _ = encode_pairs(PAIRS, byte_bpe, max_length=100, too_long="drop")
    for examples in (preference_examples(encoded, byte_bpe), RewardExamples(encoded, pad_id=0)):
        sizes, together = examples.sizes(0), examples.collate(np.arange(len(encoded)), 0)
        assert sizes.num_targets["loss"].tolist() == [1] * len(encoded)
        for i in range(len(encoded)):
            alone = examples.collate(np.array([i]), 0)
            assert alone.chosen_ids.shape[1] == sizes.lengths[i]
            for field in dataclasses.fields(alone):
                one, row = getattr(alone, field.name), getattr(together, field.name)[i]
                assert (row[: one.shape[1]] if one.ndim == 2 else row).equal(one[0])
                if "is_response" in field.name:
                    assert not row[one.shape[1] :].any()


def test_a_prompt_is_shortened_alike_for_both_and_a_response_that_does_not_fit_is_dropped(byte_bpe: Tokenizer) -> None:
    limit = 34
    encoded, report = encode_pairs(PAIRS, byte_bpe, max_length=limit, too_long="drop")
    assert report.kept == (0, 1)
    assert (report.num_pairs, report.num_dropped, report.num_shortened) == (2, 1, 2)
    for one in encoded:
        assert one.length == limit
        assert one.chosen[: len(one.prompt)].tolist() == one.rejected[: len(one.prompt)].tolist() == one.prompt.tolist()
        assert one.prompt[:2].tolist() == [1, 3] and one.prompt[-1] == 4
    with pytest.raises(ValueError, match=r"pair c2 / r2.*34 tokens"):
        encode_pairs(PAIRS, byte_bpe, max_length=limit, too_long="raise")


def test_reference_log_probabilities_go_with_their_pairs(byte_bpe: Tokenizer) -> None:
    encoded, _ = encode_pairs(PAIRS[:2], byte_bpe, max_length=100, too_long="raise")
    examples = preference_examples(encoded, byte_bpe)
    assert examples.collate(np.array([0, 1]), 0).reference_chosen.tolist() == [0.0, 0.0]
    attached = examples.with_reference(np.array([-1.0, -2.0]), np.array([-3.0, -4.0]))
    batch = attached.collate(np.array([1, 0]), 0)
    assert batch.reference_chosen.tolist() == [-2.0, -1.0]
    assert batch.reference_rejected.tolist() == [-4.0, -3.0]
    with pytest.raises(ValueError, match="of 3 pairs do not fit 2 pairs"):
        examples.with_reference(np.zeros(3), np.zeros(3))


@pytest.mark.parametrize("seed", range(10))
def test_texts_are_paired_with_other_partners_until_their_uses_are_spent(seed: int) -> None:
    texts = [rated(0, -2.0), rated(1, -2.0), rated(2, 2.0), rated(3, 2.0)]
    pairs = pairs_from_ratings(texts, prompts=PROMPTS, min_distance=1.0, max_uses=2, seed=seed)
    found = sorted((one.chosen_id, one.rejected_id) for one in pairs)
    assert found == [("r2", "r0"), ("r2", "r1"), ("r3", "r0"), ("r3", "r1")]
