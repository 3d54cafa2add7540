"""Training of the three kinds of tokenizer. The same texts in the same order give the same bytes.

byte-level BPE (Radford et al. 2019) for GPT: every text has an encoding, nothing is unknown.
WordPiece (Devlin et al. 2019), cased, or lower-case with accents stripped, for BERT.
joint BPE (Sennrich et al. 2016) for translation: both languages in one vocabulary, a word begins with its space.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from itertools import accumulate
from typing import TypeVar

import tokenizers
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from pipeline.text.chat import CHAT_TEMPLATE
from pipeline.text.tokenizer import Role, Tokenizer
from pipeline.text.wordpiece import BERT_TOKENS, CONTINUES, wordpiece_backend

Texts = TypeVar("Texts", bound=Iterable[str])

_BYTE_BPE: dict[Role, str] = {
    "pad": "<pad>",
    "bos": "<bos>",
    "eos": "<eos>",
    "user": "<user>",
    "assistant": "<assistant>",
    "system": "<system>",
}
_WORDPIECE: dict[Role, str] = dict(BERT_TOKENS.items())
CHARACTER_COVERAGE = 0.9995
"""Share of the occurrences of all characters that get a piece of their own, as in SentencePiece; the rare ones beyond
it are unknown."""
_SMALL_ALPHABET = 1000
"""So many characters get a piece of their own however much they cover; alphabets that small are never cut."""
_SPACE = "▁"
_WORDS = r"▁?[\p{L}\p{M}]+|▁?\p{N}+|▁?[^▁\p{L}\p{M}\p{N}]+|▁"
"""Letters, digits and the rest apart, each with the space before it."""


def train_byte_bpe(texts: Iterable[str], *, vocab_size: int) -> Tokenizer:
    """Byte-level BPE with ids 0 <pad>, 1 <bos>, 2 <eos>, 3 <user>, 4 <assistant>, 5 <system>.

    The texts are gone through more than once and never held: what opens a file anew for each pass will do.
    """
    assert iter(texts) is not texts, "an iterator is used up after the first pass"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _check_size(vocab_size, len(alphabet) + len(_BYTE_BPE))
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_BYTE_BPE.values()),
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(_not_empty(texts), trainer)
    return Tokenizer(backend=backend, special=_BYTE_BPE, chat_template=CHAT_TEMPLATE)


def train_wordpiece(
    texts: Iterable[str],
    *,
    vocab_size: int,
    lower_case: bool = True,
    character_coverage: float = CHARACTER_COVERAGE,
) -> Tokenizer:
    """WordPiece with ids 0 [PAD], 1 [UNK], 2 [CLS], 3 [SEP], 4 [MASK]; lower-casing it strips accents too.

    `character_coverage` of all characters get a piece of their own, as far as the vocabulary has room for two of each:
    one that begins a word and one that continues it.
    The texts are gone through more than once and never held: what opens a file anew for each pass will do.
    """
    assert iter(texts) is not texts, "an iterator is used up after the first pass"
    normalise = normalizers.BertNormalizer(lowercase=lower_case).normalize_str
    alphabet = _alphabet(
        (normalise(text) for text in _not_empty(texts)),
        character_coverage=character_coverage,
        room=(vocab_size - len(_WORDPIECE)) // 2,
    )
    _check_size(vocab_size, 2 * len(alphabet) + len(_WORDPIECE))
    counting = tokenizers.Tokenizer(models.WordPiece(unk_token=_WORDPIECE["unk"]))
    counting.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        # The library numbers continuing characters in the order of a randomised hash map; named here, in ours.
        special_tokens=[*_WORDPIECE.values(), *(CONTINUES + character for character in alphabet)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        continuing_subword_prefix=CONTINUES,
        show_progress=False,
    )
    counting.train_from_iterator((normalise(text) for text in texts), trainer)
    return Tokenizer(backend=wordpiece_backend(counting.get_vocab(), lower_case=lower_case), special=_WORDPIECE)


def train_translation_bpe(
    texts: Iterable[str], *, vocab_size: int, character_coverage: float = CHARACTER_COVERAGE
) -> Tokenizer:
    """BPE over both languages, with 0 <eos>, 1 <unk> and, as the last id, <pad>, which also starts the decoder.

    `character_coverage` of all characters get a piece of their own, as far as the vocabulary has room for them.
    The texts are gone through more than once and never held: what opens a file anew for each pass will do.
    """
    assert iter(texts) is not texts, "an iterator is used up after the first pass"
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    normalise = backend.normalizer.normalize_str
    characters = _alphabet(
        (normalise(text) for text in _not_empty(texts)),
        character_coverage=character_coverage,
        room=vocab_size - 3 - len(_SPACE),
    )
    # In the texts it is a space, and every word begins with one.
    alphabet = sorted({*characters, _SPACE})
    _check_size(vocab_size, len(alphabet) + 3)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(split=False), pre_tokenizers.Split(Regex(_WORDS), "isolated")]
    )
    backend.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=["<eos>", "<unk>"],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator((normalise(text) for text in texts), trainer)
    backend.add_special_tokens([AddedToken("<pad>", special=True)])
    backend.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <eos> $B <eos>", special_tokens=[("<eos>", backend.token_to_id("<eos>"))]
    )
    return Tokenizer(backend=backend, special={"eos": "<eos>", "unk": "<unk>", "pad": "<pad>", "bos": "<pad>"})


def _not_empty(texts: Texts) -> Texts:
    if not any(text.strip() for text in texts):
        raise ValueError(f"a tokenizer cannot be trained on {sum(1 for _ in texts)} texts without a character")
    return texts


def _alphabet(texts: Iterable[str], *, character_coverage: float, room: int) -> list[str]:
    """The most frequent characters, ties broken by code point, in the order of their code points.

    So many that they cover the share of all occurrences that is asked for: 1,000 at the least, and beyond these no more
    than there is room for.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    ranked = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    covered = list(accumulate(-count for count, _ in ranked))
    wanted = bisect_left(covered, character_coverage * covered[-1]) + 1
    return sorted(character for _, character in ranked[: max(_SMALL_ALPHABET, min(wanted, room))])


def _check_size(vocab_size: int, smallest: int) -> None:
    if vocab_size < smallest:
        raise ValueError(f"vocab_size: found {vocab_size}, these texts need at least {smallest} for single characters")
