"""Preference pairs from human ratings, as the reward model, the reference and DPO read them: the same pairs for all."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pipeline.config import Config
from pipeline.data.examples.preferences import EncodedPair, PreferenceReport, encode_pairs
from pipeline.data.examples.rating_pairs import PreferencePair, pairs_from_ratings
from pipeline.data.prepared import read_rated
from pipeline.layout import Layout
from pipeline.text.tokenizer import Tokenizer

HASHES = "pairs.json"
"""What the stage reference writes beside its log-probabilities: the hash of the pairs of each split."""


class PreferencePairsConfig(Config):
    """How rated texts become pairs."""

    prompts: dict[str, str]
    """The request that both texts answer, by the domain of the texts; domains without one are left out."""
    min_distance: PositiveFloat
    """Smallest difference of the mean ratings of a pair, on the scale from -4 to 4."""
    max_uses: PositiveInt
    """Largest number of pairs that a text is in."""
    seed: NonNegativeInt
    """Seed of who meets whom."""
    max_length: PositiveInt
    """Longest conversation in tokens; a prompt is shortened to fit, a pair whose response does not fit is left out."""


@dataclass(frozen=True)
class SplitPairs:
    """The pairs of one split, their ids, and what became of those that did not fit."""

    pairs: tuple[PreferencePair, ...]
    encoded: tuple[EncodedPair, ...]
    report: PreferenceReport

    @property
    def hash(self) -> str:
        """SHA-256 of the ids of all pairs in their order: what is said of them belongs to these pairs alone."""
        total = hashlib.sha256()
        for pair in self.encoded:
            for ids in (pair.prompt, pair.chosen, pair.rejected):
                total.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes())
        return total.hexdigest()


def read_split(layout: Layout, split: str, config: PreferencePairsConfig, tokenizer: Tokenizer) -> SplitPairs:
    """The pairs of one split of data/<profile>/prepared/rated."""
    texts = read_rated(layout.data(f"prepared/rated/{split}.jsonl"))
    pairs = pairs_from_ratings(
        texts,
        prompts=config.prompts,
        min_distance=config.min_distance,
        max_uses=config.max_uses,
        seed=config.seed,
    )
    encoded, report = encode_pairs(pairs, tokenizer, max_length=config.max_length, too_long="drop")
    return SplitPairs(tuple(pairs[i] for i in report.kept), encoded, report)


def pair_counts(splits: Mapping[str, SplitPairs]) -> dict[str, dict[str, float]]:
    """Counts, truncation and the agreement of the annotators, by split."""
    return {
        name: {
            "pairs": split.report.num_pairs,
            "dropped": split.report.num_dropped,
            "shortened": split.report.num_shortened,
            "annotator_agreement": sum(pair.agreement for pair in split.pairs) / max(1, len(split.pairs)),
        }
        for name, split in splits.items()
    }
