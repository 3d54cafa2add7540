import hashlib
import json
import shutil
from pathlib import Path

import pytest

from pipeline.data.pair_arrays import read_pair_arrays
from pipeline.data.prepared import read_documents
from pipeline.data.records import Conversation, Document, Message, Pair, Rated, write_records
from pipeline.data.token_arrays import read_token_arrays
from pipeline.stages import tokenize, translation_tokens
from pipeline.stages.tokenize import main
from pipeline.text.tokenizer import Tokenizer, load_tokenizer
from pipeline.text.tokenizer_training import train_wordpiece

CONFIG = Path("conf/own/tokenize.yaml")
ALL = """
byte_bpe: {vocab_size: 320, corpora: [text, conversations, rated]}
wordpiece: {vocab_size: 160, corpora: [text]}
translation: {vocab_size: 100}
"""


def prepare(texts: tuple[str, ...], config: str = ALL) -> None:
    """Writes the prepared files into the working folder; each kind of text and each split has a letter of its own."""
    CONFIG.parent.mkdir(parents=True, exist_ok=True)
    CONFIG.write_text(config)
    folder = Path("data/own/prepared")
    for split, mark in (("train", "ж"), ("valid", "ч"), ("test", "ш")):
        documents = [Document(f"d{i}", "", "own", f"{text}\n{text} {mark}") for i, text in enumerate(texts)]
        messages = (Message("user", "who?"), Message("assistant", "я" * 3))
        write_records(folder / "text" / f"{split}.jsonl", documents)
        write_records(folder / "conversations" / f"{split}.jsonl", [Conversation("c", "own", messages, "c")])
        write_records(folder / "rated" / f"{split}.jsonl", [Rated("r", "щ fine", 1.0, (1,), "movie", "r")])
        write_records(folder / "translation" / f"{split}.jsonl", [Pair("p", texts[0], texts[-1] + mark, "own", "p")])


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_running_it_twice_gives_the_same_bytes(texts: tuple[str, ...]) -> None:
    prepare(texts)
    main(CONFIG)
    first = hashes(Path("data/own/tokens")), hashes(Path("metrics/own"))
    main(CONFIG)
    assert (hashes(Path("data/own/tokens")), hashes(Path("metrics/own"))) == first
    assert len(first[0]) == 3 * 3 + 2 * 3 * 6 + 3 * 5 + 1


def test_the_token_arrays_hold_the_documents_in_the_ids_of_their_tokenizer(texts: tuple[str, ...]) -> None:
    prepare(texts)
    main(CONFIG)
    tokens = Path("data/own/tokens")
    for name in ("bpe", "wordpiece"):
        tokenizer = load_tokenizer(tokens / name)
        arrays = read_token_arrays(tokens / f"text-{name}" / "test", tokenizer_hash=tokenizer.hash)
        ids = arrays.parts[0].tolist()
        begin, end = arrays.document_starts[:2]
        document = ids[begin:end]
        if name == "bpe":
            assert document == [1, *tokenizer.encode(f"{texts[0]}\n{texts[0]} ш"), 2]
        else:
            sentence = arrays.sentence_starts[:3]
            assert ids[sentence[0] : sentence[1]] == tokenizer.encode(texts[0])
            assert ids[sentence[1] : sentence[2]] == tokenizer.encode(texts[0]) + tokenizer.encode("ш")
    report = json.loads(Path("metrics/own/tokenize.json").read_text())
    assert report["bpe"]["tokens_test"] == len(
        read_token_arrays(tokens / "text-bpe/test", tokenizer_hash=report["bpe"]["hash"]).parts[0]
    )


def test_the_pair_arrays_hold_the_pairs_of_each_split_in_the_ids_of_the_tokenizer(texts: tuple[str, ...]) -> None:
    prepare(texts)
    main(CONFIG)
    folder = Path("data/own/tokens/translation")
    tokenizer = load_tokenizer(folder)
    for split, mark in (("train", "ж"), ("valid", "ч"), ("test", "ш")):
        arrays = read_pair_arrays(folder / "pairs" / split, tokenizer_hash=tokenizer.hash)
        assert len(arrays.src) == len(arrays.tgt) == 1
        assert arrays.src.row(0).tolist() == tokenizer.encode(texts[0])
        assert arrays.tgt.row(0).tolist() == tokenizer.encode(texts[-1] + mark)


def test_only_the_named_corpora_and_only_their_training_texts_are_seen(texts: tuple[str, ...]) -> None:
    prepare(texts)
    main(CONFIG)
    wordpiece = load_tokenizer(Path("data/own/tokens/wordpiece"))
    translation = load_tokenizer(Path("data/own/tokens/translation"))
    unknown = wordpiece.id_of("unk")
    assert unknown not in wordpiece.encode("ж")
    for unseen in "чшящ":
        assert wordpiece.encode(unseen) == [unknown]
        assert translation.id_of("unk") in translation.encode(unseen)
    report = json.loads(Path("metrics/own/tokenize.json").read_text())
    assert report["wordpiece"]["unknown_rate"] == len(texts) / report["wordpiece"]["tokens_test"]
    assert report["bpe"]["unknown_rate"] == 0.0


def test_bytes_per_token_are_those_of_the_held_out_text(texts: tuple[str, ...]) -> None:
    prepare(texts)
    main(CONFIG)
    held_out = [f"{text}\n{text} ш" for text in texts]
    tokenizer = load_tokenizer(Path("data/own/tokens/bpe"))
    expected = sum(len(text.encode()) for text in held_out) / sum(map(len, tokenizer.encode_batch(held_out)))
    assert json.loads(Path("metrics/own/tokenize.json").read_text())["bpe"]["bytes_per_token"] == pytest.approx(
        expected
    )


def test_a_tokenizer_that_is_left_out_is_not_trained_and_its_texts_are_not_needed(texts: tuple[str, ...]) -> None:
    prepare(texts, "translation: {vocab_size: 100}\n")
    for path in Path("data/own/prepared/text").iterdir():
        path.unlink()
    main(CONFIG)
    assert sorted(path.name for path in Path("data/own/tokens").iterdir()) == ["report.json", "translation"]


def test_bad_input_is_named_and_leaves_the_earlier_output_as_it_was(texts: tuple[str, ...]) -> None:
    prepare(texts)
    main(CONFIG)
    before = hashes(Path("data/own"))
    CONFIG.write_text(ALL.replace("160", "16"))
    with pytest.raises(ValueError, match="vocab_size: found 16"):
        main(CONFIG)
    assert hashes(Path("data/own")) == before
    CONFIG.write_text(ALL.replace("[text]", "[texts]"))
    with pytest.raises(ValueError, match=r"wordpiece.corpora.0"):
        main(CONFIG)
    CONFIG.write_text(ALL)
    Path("data/own/prepared/rated/train.jsonl").unlink()
    with pytest.raises(ValueError, match=r"rated/train.jsonl: no such file"):
        main(CONFIG)


def test_unknown_characters_of_training_are_told_with_their_share_and_counted_on_both_sides(
    texts: tuple[str, ...], translation_bpe: Tokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    Path("given").mkdir()
    translation_bpe.save(Path("given"))
    prepare(texts, "translation: {vocab_size: 200, given: given}\n")
    write_records(Path("data/own/prepared/translation/train.jsonl"), [Pair("p", "the", "жч the ж", "own", "p")])
    main(CONFIG)
    num_tokens = len(translation_bpe.encode("жч the ж"))
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    (told,) = [one for one in warnings if "unknown to the tokenizer" in one]
    assert f"{300 / num_tokens:.3g}% of the target tokens" in told and "2 characters, most often ж ч:" in told
    report = json.loads(Path("metrics/own/tokenize.json").read_text())["translation"]
    assert report["unknown_rate_train_src"] == 0.0
    assert report["unknown_rate_train_tgt"] == pytest.approx(3 / num_tokens)
    assert report["unknown_rate_test_tgt"] > 0.0


def test_a_given_tokenizer_is_taken_as_it_is_and_the_pairs_are_in_its_ids(texts: tuple[str, ...]) -> None:
    prepare(texts)
    main(CONFIG)
    shutil.copytree("data/own/tokens/translation", "own-tokenizer")
    prepare(("entirely", "other", "texts"), "translation: {vocab_size: 100, given: own-tokenizer}")
    main(CONFIG)
    given, taken = load_tokenizer(Path("own-tokenizer")), load_tokenizer(Path("data/own/tokens/translation"))
    assert taken.hash == given.hash
    arrays = read_pair_arrays(Path("data/own/tokens/translation/pairs/test"), tokenizer_hash=given.hash)
    assert arrays.src.row(0).tolist() == given.encode("entirely")


def test_a_given_tokenizer_of_another_size_is_refused_and_one_of_other_ids_is_renumbered(
    texts: tuple[str, ...],
) -> None:
    prepare(texts)
    main(CONFIG)
    prepare(texts, "translation: {vocab_size: 90, given: data/own/tokens/translation}")
    with pytest.raises(ValueError, match=r"vocab_size: found 90, the tokenizer in .*translation has 100, with <eos>"):
        main(CONFIG)
    shutil.copytree("data/own/tokens/bpe", "bpe")
    # One more than it has: an unknown token.
    prepare(texts, "translation: {vocab_size: 321, given: bpe}")
    main(CONFIG)
    given, taken = load_tokenizer(Path("bpe")), load_tokenizer(Path("data/own/tokens/translation"))
    arrays = read_pair_arrays(Path("data/own/tokens/translation/pairs/test"), tokenizer_hash=taken.hash)
    assert taken.tokens(arrays.src.row(0).tolist()) == given.tokens(given.encode(texts[0]))


def test_training_pairs_are_written_in_several_segmentations_and_the_others_in_one(texts: tuple[str, ...]) -> None:
    prepare(texts, "translation: {vocab_size: 100, bpe_dropout: 0.3, num_segmentations: 4}")
    main(CONFIG)
    tokenizer = load_tokenizer(Path("data/own/tokens/translation"))
    pairs = Path("data/own/tokens/translation/pairs")
    train = read_pair_arrays(pairs / "train", tokenizer_hash=tokenizer.hash)
    rows = [train.src.row(i).tolist() for i in range(len(train.src))]
    assert [tokenizer.decode(ids) for ids in rows] == [texts[0]] * 4
    assert len({tuple(ids) for ids in rows}) > 1
    for split in ("valid", "test"):
        held_out = read_pair_arrays(pairs / split, tokenizer_hash=tokenizer.hash)
        assert [held_out.src.row(i).tolist() for i in range(len(held_out.src))] == [tokenizer.encode(texts[0])]


def test_several_equal_segmentations_are_refused(texts: tuple[str, ...]) -> None:
    prepare(texts, "translation: {vocab_size: 100, num_segmentations: 4}")
    with pytest.raises(ValueError, match="num_segmentations: 4 equal ones without bpe_dropout; allowed is 1"):
        main(CONFIG)


def test_documents_are_encoded_alike_however_many_at_once(
    texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(texts)
    main(CONFIG)
    first = hashes(Path("data/own/tokens"))
    monkeypatch.setattr(tokenize, "_CHARACTERS_AT_ONCE", 150)
    main(CONFIG)
    assert hashes(Path("data/own/tokens")) == first


def test_a_tokenizer_is_trained_on_one_document_in_so_many_all_through_the_corpus(texts: tuple[str, ...]) -> None:
    prepare(texts, "wordpiece: {vocab_size: 160, corpora: [text], one_in: 3}\n")
    file = Path("data/own/prepared/text/train.jsonl")
    documents = read_documents(file)
    read = tokenize.TrainingTexts(Path("data/own/prepared"), ("text",), one_in=3)
    assert len(documents) > 3
    assert list(read) == [line for document in documents[::3] for line in document.text.split("\n")]
    main(CONFIG)
    thinned = load_tokenizer(Path("data/own/tokens/wordpiece"))
    assert thinned.tokens(range(160)) == train_wordpiece(read, vocab_size=160).tokens(range(160))
    assert json.loads(Path("data/own/tokens/report.json").read_text())["wordpiece"]["tokens_train"] > 0


def test_a_cased_wordpiece_is_trained_on_request(texts: tuple[str, ...]) -> None:
    prepare(texts, "wordpiece: {vocab_size: 160, corpora: [text], lower_case: false}\n")
    main(CONFIG)
    found = load_tokenizer(Path("data/own/tokens/wordpiece"))
    assert found.hash == train_wordpiece([f"{text}\n{text} ж" for text in texts], vocab_size=160, lower_case=False).hash


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
def test_a_given_wordpiece_is_taken_as_it_is(kind: str, texts: tuple[str, ...], wordpiece: Tokenizer) -> None:
    given = Path("given")
    given.mkdir()
    if kind == "vocab.txt":
        (given / kind).write_text("\n".join(wordpiece.tokens(range(200))) + "\n", encoding="utf-8")
    else:
        wordpiece.save(given)
    prepare(texts, "wordpiece: {vocab_size: 200, corpora: [text], given: given}\n")
    main(CONFIG)
    assert load_tokenizer(Path("data/own/tokens/wordpiece")).hash == wordpiece.hash
    prepare(texts, "wordpiece: {vocab_size: 199, corpora: [text], given: given}\n")
    with pytest.raises(ValueError, match=r"wordpiece.vocab_size: found 199, the tokenizer in given has 200"):
        main(CONFIG)


def test_a_given_vocabulary_is_read_as_fine_tuning_reads_the_same_folder(texts: tuple[str, ...]) -> None:
    given, pieces = Path("given"), ["[PAD]", "[UNK]", "<s>", "</s>", "[MASK]", "Paris", "paris"]
    given.mkdir()
    (given / "vocab.txt").write_text("\n".join(pieces) + "\n")
    named = {"cls_token": "<s>", "sep_token": "</s>"}
    for told, setting, piece in (
        ({"do_lower_case": False}, "", "Paris"),
        ({"do_lower_case": False}, ", lower_case: false", "Paris"),
        ({}, "", "paris"),
        ({}, ", lower_case: false", "Paris"),
    ):
        (given / "tokenizer_config.json").write_text(json.dumps(told | named))
        prepare(texts, f"wordpiece: {{vocab_size: 7, corpora: [text], given: given{setting}}}\n")
        main(CONFIG)
        found = load_tokenizer(Path("data/own/tokens/wordpiece"))
        assert found.tokens(found.encode("Paris")) == [piece]
        assert (found.id_of("cls"), found.id_of("sep")) == (2, 3)
        if told:
            assert found.hash == load_tokenizer(given).hash


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_given_wordpiece_may_not_be_told_another_case_than_its_folder_says(
    is_whole: bool, texts: tuple[str, ...], wordpiece: Tokenizer
) -> None:
    Path("given").mkdir()
    wordpiece.save(Path("given"))
    if not is_whole:
        Path("given/tokenizer.json").unlink()
        Path("given/vocab.txt").write_text("\n".join(wordpiece.tokens(range(200))) + "\n", encoding="utf-8")
        Path("given/tokenizer_config.json").write_text('{"do_lower_case": true}')
    prepare(texts, "wordpiece: {vocab_size: 200, corpora: [text], given: given, lower_case: false}\n")
    message = "wordpiece.lower_case: found false, the tokenizer in given says true; leave lower_case out"
    with pytest.raises(ValueError, match=message):
        main(CONFIG)


def test_a_given_tokenizer_without_the_special_tokens_of_bert_is_refused(
    texts: tuple[str, ...], translation_bpe: Tokenizer
) -> None:
    Path("given").mkdir()
    translation_bpe.save(Path("given"))
    prepare(texts, "wordpiece: {vocab_size: 200, corpora: [text], given: given}\n")
    with pytest.raises(ValueError, match=r"given: a tokenizer of BERT has .* no cls, sep, mask"):
        main(CONFIG)


def test_the_bert_takes_the_sources_that_it_names_and_the_gpt_all(texts: tuple[str, ...]) -> None:
    prepare(texts, "byte_bpe: {vocab_size: 320, corpora: [text]}\n")
    for split in ("train", "valid", "test"):
        file = Path(f"data/own/prepared/text/{split}.jsonl")
        rows = [Document("other", "", "other", "ю ю ю"), *read_documents(file)]
        write_records(file, rows)
    CONFIG.write_text(ALL.replace("corpora: [text]}", "corpora: [text], sources: [own]}"))
    main(CONFIG)
    wordpiece = load_tokenizer(Path("data/own/tokens/wordpiece"))
    assert wordpiece.encode("ю") == [wordpiece.id_of("unk")]
    for name, count in (("wordpiece", len(texts)), ("bpe", len(texts) + 1)):
        tokenizer = load_tokenizer(Path("data/own/tokens") / name)
        arrays = read_token_arrays(Path(f"data/own/tokens/text-{name}/train"), tokenizer_hash=tokenizer.hash)
        assert arrays.num_documents == count
    CONFIG.write_text(ALL.replace("corpora: [text]}", "corpora: [text], sources: [own, books]}"))
    with pytest.raises(ValueError, match=r"wordpiece.sources: .*train.jsonl has no document of books"):
        main(CONFIG)


def refuse_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_: object, **settings: object) -> None:
        raise AssertionError("trained a tokenizer before what is refused was found")

    for module, name in (
        (tokenize, "train_byte_bpe"),
        (tokenize, "train_wordpiece"),
        (translation_tokens, "train_translation_bpe"),
    ):
        monkeypatch.setattr(module, name, train)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("sources", ["", ", sources: [books]", ", sources: [books, more]"])
def test_a_split_without_text_is_refused_before_the_first_training(
    sources: str, split: str, texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(texts, ALL.replace("corpora: [text]}", f"corpora: [text]{sources}}}"))
    for name in ("train", "valid", "test"):
        source = "own" if name == split else "books"
        documents = [] if name == split and not sources else [Document("b", "", source, "some text")]
        write_records(Path(f"data/own/prepared/text/{name}.jsonl"), documents)
    refuse_training(monkeypatch)
    message = f"text/{split}.jsonl: no documents.*; text of prepare.yaml needs a source with into: {split}"
    if sources and split == "train":
        message = "wordpiece.sources: .*train.jsonl has no document of books"
    with pytest.raises(ValueError, match=message):
        main(CONFIG)


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_a_split_without_pairs_is_refused_before_the_first_training(
    split: str, texts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(texts)
    write_records(Path(f"data/own/prepared/translation/{split}.jsonl"), [])
    refuse_training(monkeypatch)
    with pytest.raises(ValueError, match=f"translation/{split}.jsonl: no pairs; .* needs a source with into: {split}"):
        main(CONFIG)


@pytest.mark.parametrize(
    ("role", "config", "keys", "unwanted"),
    [
        ("text", ALL, "byte_bpe.corpora: text and wordpiece.corpora: text", "byte_bpe and wordpiece"),
        ("text", "byte_bpe: {vocab_size: 320, corpora: [rated]}\n", "byte_bpe", "byte_bpe"),
        ("rated", ALL, "byte_bpe.corpora: rated", "byte_bpe.corpora: rated"),
        ("translation", ALL, "translation", "translation"),
    ],
)
def test_what_prepare_has_no_source_of_is_named_with_the_keys_that_read_it(
    role: str, config: str, keys: str, unwanted: str, texts: tuple[str, ...]
) -> None:
    """As in a profile with sentence pairs alone, and the tokenize.yaml of another one."""
    prepare(texts, config)
    shutil.rmtree(f"data/own/prepared/{role}")
    with pytest.raises(ValueError) as caught:
        main(CONFIG)
    assert str(caught.value) == (
        f"conf/own/tokenize.yaml: {keys}: prepare.yaml made no {role}, there is no data/own/prepared/{role}; "
        f"leave {unwanted} out of tokenize.yaml, or add a source under {role} of prepare.yaml"
    )
