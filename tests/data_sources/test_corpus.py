"""Reading, cleaning and splitting of each role, on texts small enough to check by eye."""

import json
import struct
from pathlib import Path
from random import Random

import pytest
import yaml

from pipeline.data.cleaning import clean, clean_line, is_blank, key_of, words_of
from pipeline.data.preparing.dialogues import ConversationsConfig, Dialogues, prepare_conversations, review_request
from pipeline.data.preparing.documents import DocumentCounts, DocumentsConfig, TextFiles, split_documents
from pipeline.data.preparing.overlap import overlap
from pipeline.data.preparing.pairs import PairsConfig, prepare_pairs
from pipeline.data.preparing.parallel import Gettext, LocalisedJson, Table, read_pairs
from pipeline.data.preparing.rated import RatedConfig, RatingsTable, TwoFileRatings, prepare_rated
from pipeline.data.preparing.wikitext import prose, tokenised_articles
from pipeline.data.records import Pair, Rated
from tests.data_sources.in_memory_pairs import one_a_source, split_pairs

PO = """
# A comment
msgid ""
msgstr "Project-Id-Version: 1\\n"

#: app/views.py:12 app/other.py:3
msgid "Open the "
"file"
msgstr "Die Datei \\"öffnen\\""

#, fuzzy, python-format
msgid "guess"
msgstr "Vermutung"

#: app/models.py:1
msgid "one dog"
msgid_plural "%d dogs"
msgstr[0] "ein Hund"
msgstr[1] "%d Hunde"

#~ msgid "obsolete"
#~ msgstr "veraltet"
"""


def table(raw: Path, rows: list[tuple[str, str, str]], *, name: str = "s") -> Table:
    (raw / name).mkdir(parents=True, exist_ok=True)
    (raw / name / "p.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    return Table(kind="table", source=name, file="p.tsv", columns=("group", "src", "tgt"))


def localised(raw: Path, components: dict[str, dict[str, str]]) -> LocalisedJson:
    for name, messages in components.items():
        folder = raw / "h" / "components" / name / "translations"
        folder.mkdir(parents=True)
        (folder / "en.json").write_text(json.dumps({"a": dict(enumerate(messages))}))
        (folder / "de.json").write_text(json.dumps({"a": dict(enumerate(messages.values()))}))
    return LocalisedJson(kind="localised_json", source="h", tgt="de.json")


def test_cleaning_composes_characters_and_drops_control_characters() -> None:
    assert clean("u\u0308ber\u200b\x07 al\u00a0les\r\n\n\x85 gut ") == "über al les\ngut"


def test_cleaning_keeps_the_invisible_signs_that_are_spelling_and_no_others() -> None:
    joined = ("می\u200cروم", "क्\u200dष", "\U0001f469\u200d\U0001f680")
    assert [clean(text) for text in joined] == list(joined)
    assert clean("a\u200bb\u200ec\u200fd\u2060e\ufefff\u00adg") == "abcdefg"
    assert clean("\u2067a\u2069b\u061cc\u180ed\u206ae\ufff9f\ufffb") == "abcdef"
    mongolian = "\u182d\u1820\u182c\u180e\u1820"
    assert clean(f"{mongolian} \u180e{mongolian}\u180e") == f"{mongolian} {mongolian}"


def test_what_an_invisible_character_parted_is_composed_once_it_is_gone() -> None:
    for between in ("\u200b", "\u2066", "\u180e"):
        assert clean(f"cafe{between}\u0301") == clean_line(f"cafe{between}\u0301") == "caf\u00e9"


def test_a_line_with_nothing_to_be_seen_is_no_line() -> None:
    assert clean("a\u2764\ufe0f\n\u3164\n\u200c \u200d\nb") == "a\u2764\ufe0f\nb"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a &lt; b &amp;amp; c&#39;s &#x201C;d&#X201d;", "a < b &amp; c's \u201cd\u201d"),
        ("http://x.org/?a=1&section=2&region=3&copy=4", "http://x.org/?a=1&section=2&region=3&copy=4"),
        ("AT&T &notit; &#; &#39 &amp &nothing;", "AT&T &notit; &#; &#39 &amp &nothing;"),
        ("&CounterClockwiseContourIntegral;&frac12;", "\u2233\u00bd"),
    ],
)
def test_entities_are_resolved_where_they_end_with_a_semicolon(text: str, expected: str) -> None:
    assert clean_line(text) == expected


INVISIBLE = ["\u2066\u2069", "\u061c", "\u180e", "\u3164", "\ufe0f", "\u2800", "\u034f\u115f", "\ufffa", "\U000e0067"]


@pytest.mark.parametrize("text", ["", " \t", "\u200b", "&nbsp;", "\u200c \u200d", "&#8203;\x07", *INVISIBLE])
def test_a_text_of_which_nothing_can_be_seen_is_blank(text: str) -> None:
    assert is_blank(text) and not is_blank(f"{text}.")


def test_keys_ignore_case_punctuation_and_digits_but_not_words() -> None:
    assert key_of("Step 1: Open!") == key_of("step 2 - open")
    assert key_of("step one open") != key_of("step open")
    assert key_of("a b", "c") != key_of("a", "b c")


def test_a_vowel_sign_is_a_part_of_its_word() -> None:
    assert words_of("वह खाता है; Cafe\u0301!") == ["वह", "खाता", "है", "cafe\u0301"]
    he_eats, she_eats = "वह खाता है", "वह खाती है"
    assert key_of(he_eats) != key_of(she_eats)


def test_a_message_catalogue_gives_plurals_and_no_fuzzy_or_obsolete_entries(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "m.po").write_text(PO)
    pairs = list(read_pairs(Gettext(kind="gettext", source="g"), tmp_path))
    assert [(pair.src, pair.tgt, pair.group) for pair in pairs] == [
        ("Open the file", 'Die Datei "öffnen"', "m.po:app/views.py"),
        ("one dog", "ein Hund", "m.po:app/models.py"),
        ("%d dogs", "%d Hunde", "m.po:app/models.py"),
    ]


def test_a_compiled_catalogue_is_read_without_context_markers(tmp_path: Path) -> None:
    texts = [(b"", b"header"), (b"menu\x04Open", "Öffnen".encode()), (b"dog\0dogs", b"Hund\0Hunde")]
    start, blob, tables = 28 + 16 * len(texts), b"", (b"", b"")
    for pair in texts:
        places = []
        for text in pair:
            places.append(struct.pack("<2I", len(text), start + len(blob)))
            blob += text + b"\0"
        tables = (tables[0] + places[0], tables[1] + places[1])
    header = struct.pack("<7I", 0x950412DE, 0, len(texts), 28, 28 + 8 * len(texts), 0, 0)
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "m.mo").write_bytes(header + tables[0] + tables[1] + blob)
    pairs = list(read_pairs(Gettext(kind="gettext", source="g"), tmp_path))
    assert [(pair.src, pair.tgt) for pair in pairs] == [("Open", "Öffnen"), ("dog", "Hund"), ("dogs", "Hunde")]


@pytest.mark.parametrize("line", ["msgid unquoted", 'msgstr "open', "nonsense"])
def test_a_broken_catalogue_names_file_and_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "g").mkdir()
    (tmp_path / "g" / "m.po").write_text(f"# first\n{line}\n")
    with pytest.raises(ValueError, match=r"m\.po:2: not a line of a message catalogue"):
        list(read_pairs(Gettext(kind="gettext", source="g"), tmp_path))


def test_placeholders_are_numbered_alike_on_both_sides_and_must_agree(tmp_path: Path) -> None:
    source = localised(
        tmp_path,
        {
            "c": {
                "Turn {name} to %(mode)s for {name}": "{name} für {name} auf %(mode)s stellen",
                "Lost {place} here": "Hier ist etwas verloren",
                "Same": "same",
                "See <b>this</b> one": "Sieh <b>dies</b>",
                "Hi": "Ein unverhältnismäßig langer Satz, der nichts mit der Quelle zu tun hat",
            }
        },
    )
    result = prepare_pairs(PairsConfig(sources=(source,)), tmp_path)
    assert [(pair.src, pair.tgt) for pair in result.splits["train"]] == [
        ("Turn {1} to {2} for {1}", "{1} für {1} auf {2} stellen")
    ]
    dropped = {name: count for name, count in result.dropped.items() if count}
    assert dropped == {"placeholders": 1, "equal": 1, "markup": 1, "length_ratio": 1}


def test_no_source_sentence_lies_in_two_splits_and_groups_stay_whole(tmp_path: Path) -> None:
    rows = [(f"g{g}", f"shared text number {'abcdefgh'[g % 8]}", "geteilter Text hier") for g in range(40)]
    rows += [
        (f"g{g}", f"own words {chr(97 + g % 26)}{chr(97 + g // 26)} {w} now", f"eigene {w} {g}")
        for g in range(40)
        for w in ("x", "y")
    ]
    config = PairsConfig(sources=(table(tmp_path, rows),), num_valid=12, num_test=12)
    splits = {split: list(pairs) for split, pairs in prepare_pairs(config, tmp_path).splits.items()}
    keys = {split: {key_of(pair.src) for pair in pairs} for split, pairs in splits.items()}
    groups = {split: {pair.group for pair in pairs if "own" in pair.src} for split, pairs in splits.items()}
    assert [len(splits[split]) for split in ("valid", "test")] == [12, 12]
    for one, two in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not keys[one] & keys[two]
        assert not groups[one] & groups[two]
    assert all("shared" not in pair.src for split in ("valid", "test") for pair in splits[split])


def test_held_out_pairs_have_neither_placeholders_nor_too_few_words(tmp_path: Path) -> None:
    components = {
        f"c{n}": {f"Word{chr(97 + n)}": f"Wort{n}", f"Set {{x}} of {chr(97 + n)}": f"{{x}} von {n} setzen",
                  f"Close the door {chr(97 + n)}": f"Schließe die Tür {n}"}
        for n in range(24)
    }  # fmt: skip
    config = PairsConfig(sources=(localised(tmp_path, components),), num_test=4)
    splits = {split: list(pairs) for split, pairs in prepare_pairs(config, tmp_path).splits.items()}
    assert len(splits["test"]) == 4
    assert all(pair.src.startswith("Close the door") for pair in splits["test"])
    assert any("{1}" in pair.src for pair in splits["train"])


@pytest.mark.parametrize("seed", range(4))
def test_pairs_that_wait_on_disk_are_split_as_pairs_in_memory(seed: int, tmp_path: Path) -> None:
    """Few words and few translations make repeats, ties, shared sources and groups of every size."""
    random = Random(seed)

    def rows(count: int, num_groups: int) -> list[tuple[str, str, str]]:
        made = []
        for _ in range(count):
            src = " ".join(random.choices(("red", "green", "blue", "Blue", "grey"), k=4))
            made.append((f"g{random.randrange(num_groups)}", src, f"wort {random.choice('abc')} {src[::3]}"))
        return made

    sources = [table(tmp_path, rows(300, 40), name="own"), table(tmp_path, rows(300, 9), name="more")]
    fixed = {into: table(tmp_path, rows(8, 3), name=into) for into in ("train", "test")}
    sources += [source.model_copy(update={"into": into}) for into, source in fixed.items()]
    config = PairsConfig(sources=tuple(sources), num_test=12, num_valid=16)
    result = prepare_pairs(config, tmp_path)

    waiting = [
        Pair(f"{s.source}-{i}-0", pair.src, pair.tgt, s.source, "" if s.into == "train" else f"{s.source}/{pair.group}")
        for s in sources
        if s.into != "test"
        for i, pair in enumerate(read_pairs(s, tmp_path))
    ]
    held_out = {key_of(pair.src) for pair in read_pairs(sources[3], tmp_path)}
    expected = split_pairs(waiting, without=held_out, num_test=12, num_valid=16)
    assert list(result.splits["train"]) == expected["train"]
    assert result.splits["valid"] == expected["valid"]
    assert result.test[8:] == expected["test"]
    num_keys = len(one_a_source(waiting))
    assert result.dropped["duplicate"] == len(waiting) - num_keys
    num_kept = sum(len(list(pairs)) for pairs in result.splits.values())
    assert result.num_read == num_kept + result.dropped.total()
    assert result.dropped["in_fixed_test"] == num_keys - sum(key not in held_out for key in one_a_source(waiting)) > 0


def test_a_fixed_test_set_stays_whole_and_leaves_training(tmp_path: Path) -> None:
    source = table(tmp_path, [("g", "a b c", "d e f"), ("g", "a b c", "d e f"), ("g", "same", "same")])
    test, train = source.model_copy(update={"into": "test"}), source.model_copy(update={"into": "train"})
    result = prepare_pairs(PairsConfig(sources=(train, test)), tmp_path)
    assert [pair.src for pair in result.splits["test"]] == ["a b c", "a b c", "same"]
    assert list(result.splits["train"]) == []
    assert result.dropped["in_fixed_test"] == 1


def test_a_repeated_source_takes_its_most_frequent_translation(tmp_path: Path) -> None:
    source = table(tmp_path, [("a", "Close", "Zu"), ("b", "Close", "Schließen"), ("c", "close!", "Schließen")])
    result = prepare_pairs(PairsConfig(sources=(source,)), tmp_path)
    assert [(pair.src, pair.tgt) for pair in result.splits["train"]] == [("Close", "Schließen")]


def test_every_twentieth_document_is_held_out_and_its_paragraphs_leave_training(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    shared = "this very long paragraph stands in each of the many documents here"
    for number in range(40):
        own = (
            f"document {chr(97 + number % 26)}{chr(97 + number // 26)} has words of its own that nobody else has at all"
        )
        (tmp_path / "t" / f"{number:02}.txt").write_text(f"{own}\n\n{shared}\n")
    config = DocumentsConfig(sources=(TextFiles(kind="files", source="t"),), min_words=5)
    counts = DocumentCounts()
    kept = list(split_documents(config, tmp_path, counts, lambda: ()))
    assert [document.title for split, document in kept if split == "test"] == ["10", "30"]
    assert [document.title for split, document in kept if split == "valid"] == ["00", "20"]
    assert all((shared in document.text) == (split != "train") for split, document in kept)
    assert counts.dropped["held_out_paragraphs"] == 36


def test_wiki_markup_becomes_prose() -> None:
    markup = """{{Infobox|{{nested|x}}|name=y}}
'''Anna''' is a [[river|long river]] in [[Utopia]],<ref name="a">{{cite|x}}</ref> {{convert|5|km|mi}} long.<!-- no -->
[[File:a.jpg|thumb|A [[river]] in the image caption]]
{| class="wikitable"
| cell one two three four five six
|}
== History ==
* a list item of many words that is no prose
It was found by [http://x.org the old sailors] &amp; their ''crew'' in May.
== References ==
Nothing of this part is kept at all here.
"""
    assert prose(markup) == (
        "Anna is a long river in Utopia, 5 km long.\nIt was found by the old sailors & their crew in May."
    )


def rated_table(raw: Path, rows: list[tuple[str, str, str]]) -> RatedConfig:
    (raw / "r").mkdir(parents=True)
    (raw / "r" / "r.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    return RatedConfig(sources=(RatingsTable(kind="table", source="r", file="r.tsv"),), valid_share=0.2, test_share=0.2)


def test_texts_that_share_eight_words_go_to_the_same_split(tmp_path: Path) -> None:
    rows = []
    for number in range(60):
        name = f"{chr(97 + number % 26)}{chr(97 + number // 26)}"
        stem = f"film {name} has a plot that keeps {name} watching"
        rows += [(f"the first {stem} tonight", "1,2", "movie"), (f"yet again {stem} forever", "3", "movie")]
    splits = prepare_rated(rated_table(tmp_path, rows), tmp_path).splits
    assert [len(splits[split]) for split in ("train", "valid", "test")] == [72, 24, 24]
    for split in splits.values():
        films = [record.text.split("film ")[1].split()[0] for record in split]
        assert all(films.count(film) == 2 for film in films)


def test_two_files_of_ratings_are_joined_by_id_and_checked(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    folder.mkdir()
    (folder / "t.txt").write_text(
        "1_1\t1.5\tgood film here\r\n1_2\t-1\tbad film ''here''\r\n2_1\t4\tgreat film here\r\n"
    )
    (folder / "r.txt").write_text("\ufeff1_2\t-1\t0\t[-1, -1]\r\n1_1\t1.5\t0.5\t[1, 2]\r\n2_1\t3.5\t0.5\t[3, 4]\r\n")
    source = TwoFileRatings(kind="two_files", source="v", texts="t.txt", ratings="r.txt", domain="movie")
    result = prepare_rated(RatedConfig(sources=(source,), valid_share=0, test_share=0), tmp_path)
    assert [(record.text, record.mean, record.ratings, record.group) for record in result.splits["train"]] == [
        ("good film here", 1.5, (1, 2), "movie-1"),
        ('bad film "here"', -1.0, (-1, -1), "movie-1"),
    ]
    assert result.dropped["mean_differs_from_ratings"] == 1


def test_a_review_request_gives_the_opening_words_and_the_text_answers() -> None:
    record = Rated("movie-1", "One two three four five six", 1.0, (1,), "movie", "g")
    plain, opened = (review_request(record, opening_share=share) for share in (0.0, 0.999))
    assert [message.role for message in opened.messages] == ["user", "assistant"]
    assert opened.messages[1].content == record.text
    assert '"One two' in opened.messages[0].content
    assert "One" not in plain.messages[0].content
    assert opened.messages[0].content.startswith(plain.messages[0].content)


def test_the_same_first_request_never_lies_in_two_splits(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    turns = [[f"Question {chr(97 + number)}?", f"answer {word}"] for number in range(20) for word in ("one", "two")]
    (tmp_path / "d" / "x.yml").write_text(yaml.safe_dump({"conversations": [*turns, ["No answer?"], ["A?", None]]}))
    config = ConversationsConfig(sources=(Dialogues(kind="dialogues", source="d", files="*.yml"),), every=5)
    result = prepare_conversations(config, tmp_path, {"train": [], "valid": [], "test": []})
    requests = {name: {chat.messages[0].content for chat in chats} for name, chats in result.splits.items()}
    assert {name: len(chats) for name, chats in result.splits.items()} == {"train": 24, "valid": 8, "test": 8}
    assert not requests["train"] & requests["test"] and not requests["train"] & requests["valid"]
    assert result.dropped == {"empty_turn": 1}


def test_the_overlap_is_the_share_of_test_ngrams_that_training_has() -> None:
    tests = {"t": ["a b c d", "x y"]}  # trigrams: abc, bcd, and the short text as one
    trains = {"one": ["z a B, c."], "two": ["b c d e", "x y"], "none": ["x y z"]}
    assert overlap(tests, trains, n=3) == {"t": {"num_ngrams": 3.0, "one": 0.333333, "two": 0.666667, "none": 0.0}}


def test_wikitext_is_read_by_article_with_its_marks_undone(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text(
        " \n = A Game = \n \n It is a role @-@ playing <unk> of 1 @,@ 000 men .\n More .\n = = Plot = = \n \n War .\n"
        " = = = Deeper = = = \n \n x\n = 1 = \n y\n \n = 1 = 2 ? = \n \n Sums <unk>-like .\n \n = Empty = \n \n"
    )
    assert list(tokenised_articles(tmp_path / "w.txt")) == [
        ("A Game", "It is a role-playing of 1,000 men .\nMore .\nWar .\nx\n= 1 =\ny"),
        ("1 = 2 ?", "Sums ."),
    ]
    (tmp_path / "w.txt").write_text("No title .\n")
    with pytest.raises(ValueError, match=r"w.txt:1: expected the title of an article, = Title =, found 'No title \."):
        list(tokenised_articles(tmp_path / "w.txt"))
