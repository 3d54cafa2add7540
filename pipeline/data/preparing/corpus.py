"""The corpus of a profile: every role's sources, read, cleaned, split, written, and compared for overlap.

Roles: text (running text), translation (pairs), rated (texts with human ratings), tasks (to fine-tune on),
conversations, words (test sets of word vectors). A role without sources is left out.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any, assert_never

from pydantic import PositiveInt

from pipeline.config import Config
from pipeline.data.cleaning import num_words
from pipeline.data.preparing.dialogues import ConversationsConfig, prepare_conversations
from pipeline.data.preparing.documents import DocumentCounts, DocumentsConfig, split_documents
from pipeline.data.preparing.overlap import overlap
from pipeline.data.preparing.pairs import PairsConfig, prepare_pairs
from pipeline.data.preparing.rated import RatedConfig, prepare_rated
from pipeline.data.preparing.tasks import TaskName, TaskSource, prepare_tasks
from pipeline.data.preparing.word_tests import read_analogies, read_pairs
from pipeline.data.records import (
    SPLITS,
    Conversation,
    Document,
    Pair,
    Rated,
    line_of,
    read_lines,
    read_rows,
    write_records,
)
from pipeline.progress import progress
from pipeline.text.forms import save_form

ANALOGIES = "questions-words.txt"
WORD_FILES = (ANALOGIES, "wordsim353.tsv", "simlex999.txt")


class PrepareConfig(Config):
    """What each role is made of."""

    text: DocumentsConfig = DocumentsConfig()
    """Running text, for word vectors and pretraining."""
    translation: PairsConfig = PairsConfig()
    """Sentence pairs."""
    rated: RatedConfig = RatedConfig()
    """Texts with human ratings."""
    rated_as_text: bool = False
    """Whether the rated training texts, never the held-out ones, are also running text for pretraining."""
    tasks: Mapping[TaskName, TaskSource] = {}
    """Tasks to fine-tune on, by the name of the folder that each fills."""
    conversations: ConversationsConfig = ConversationsConfig()
    """Conversations for instruction tuning."""
    words: str = ""
    """Folder below raw/ that holds the test sets of word vectors; empty for none."""
    overlap_words: PositiveInt = 8
    """Length in words of the n-grams of the overlap report."""


def prepare(config: PrepareConfig, raw: Path, out: Path) -> tuple[dict[str, Any], dict[str, dict[str, float]]]:
    """Writes the prepared corpus below `out`; returns all counts and the overlap table."""
    counts: dict[str, Any] = {}
    rated = prepare_rated(config.rated, raw)
    if config.rated.sources:
        counts["rated"] = _write(out / "rated", rated.splits)
        counts["rated"] |= {"read": rated.num_read, "dropped": _sorted(rated.dropped)}
    if config.text.sources:
        texts = rated.splits["train"] if config.rated_as_text else []
        counts["text"] = _write_documents(config.text, raw, out / "text", texts)
    if config.translation.sources:
        pairs = prepare_pairs(config.translation, raw, scratch=out)
        counts["translation"] = _write(out / "translation", pairs.splits)
        counts["translation"] |= {"read": pairs.num_read, "dropped": _sorted(pairs.dropped)}
        save_form(out / "translation", config.translation.text)
    chats = prepare_conversations(config.conversations, raw, rated.splits)
    if any(chats.splits.values()):
        counts["conversations"] = _write(out / "conversations", chats.splits)
        counts["conversations"] |= {"read": chats.num_read, "dropped": _sorted(chats.dropped)}
    if config.tasks:
        counts["tasks"] = prepare_tasks(config.tasks, raw, out / "tasks")
    if config.words:
        counts["words"] = _copy_words(raw / config.words, out / "words")
    if not counts:
        raise ValueError(
            "prepare: no role has a source; name at least one under text, translation, rated, tasks, conversations"
        )
    _refuse_empty(counts)
    table = _overlaps(out, n=config.overlap_words)
    return counts, table


def _refuse_empty(counts: Mapping[str, Any]) -> None:
    """A role that has no training record left would fail much later and less clearly."""
    for role in ("rated", "text", "translation", "conversations"):
        if role in counts and counts[role]["train"]["records"] == 0:
            dropped = counts[role]["dropped"]
            message = f"prepare: nothing of role {role} is left for training; dropped: {dropped}"
            if dropped.get("in_fixed_test"):
                what = "first requests" if role == "conversations" else "sources"
                other = "conversations" if role == "conversations" else "pairs"
                message += (
                    f"; in_fixed_test are {what} that valid or test has too: put other {other} there or into train"
                )
            raise ValueError(message)


def _write(folder: Path, splits: Mapping[str, Iterable[Pair | Rated | Conversation]]) -> dict[str, Any]:
    """Writes one role's splits, each gone through once; returns records and words of each."""
    counts: dict[str, Any] = {}
    for split in SPLITS:
        sources: Counter[str] = Counter()
        words: Counter[str] = Counter()
        num_records = write_records(folder / f"{split}.jsonl", _counted(splits[split], sources, words))
        counts[split] = {"records": num_records, "words": words.total(), "by_source": _sorted(sources)}
    return counts


def _counted(
    records: Iterable[Pair | Rated | Conversation], sources: Counter[str], words: Counter[str]
) -> Iterator[Pair | Rated | Conversation]:
    """The records as they are, counted by source on their way, and their words."""
    for record in records:
        sources[_source(record)] += 1
        words[_source(record)] += sum(num_words(text) for text in _texts(record))
        yield record


def _write_documents(config: DocumentsConfig, raw: Path, folder: Path, rated: Sequence[Rated]) -> dict[str, Any]:
    """Streams the documents into one file a split."""
    found = DocumentCounts()
    totals: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    sources: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        files = {
            split: stack.enter_context((folder / f"{split}.jsonl").open("w", encoding="utf-8", newline="\n"))
            for split in SPLITS
        }
        documents = split_documents(config, raw, found, lambda: _as_documents(rated), scratch=folder)
        for split, document in progress(documents, name="text: writing", unit="documents"):
            files[split].write(line_of(document))
            words = len(document.text.split())
            totals[split].update(records=1, words=words, bytes=len(document.text.encode()))
            sources[split][document.source] += words
    counts: dict[str, Any] = {
        split: {name: totals[split][name] for name in ("records", "words", "bytes")}
        | {"words_by_source": _sorted(sources[split])}
        for split in SPLITS
    }
    return counts | {"read": found.num_read, "dropped": _sorted(found.dropped)}


def _as_documents(rated: Sequence[Rated]) -> Iterator[Document]:
    """Rated texts as running text: the sentences of one review or article are the paragraphs of one document."""
    for name, sentences in groupby(rated, key=lambda record: record.document or record.id):
        records = list(sentences)
        text = "\n".join(record.text for record in records)
        yield Document(f"rated/{name}", name, f"rated-{records[0].domain}", text)


def _copy_words(source: Path, folder: Path) -> dict[str, int]:
    """Copies the test sets of word vectors that the source has; returns their number of pairs and questions.

    They are read here as they will be scored: a fault is named by its line in the source, before anything is trained.
    """
    folder.mkdir(parents=True)
    counts: dict[str, int] = {}
    for name in WORD_FILES:
        found = sorted(source.rglob(name))
        if len(found) != 1:
            raise ValueError(f"{source}: expected one {name}, found {len(found)}")
        if name == ANALOGIES:
            counts[name] = sum(len(section.questions) for section in read_analogies(found[0]))
        else:
            counts[name] = len(read_pairs(found[0]))
        lines = [line.rstrip() for _, line in read_lines(found[0]) if line.strip()]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    return counts


def _overlaps(out: Path, *, n: int) -> dict[str, dict[str, float]]:
    """The overlap of every test set with every training set that was written."""
    tests = _text_sets(out, "test") | _task_sets(out, lambda split: split != "train")
    return overlap(tests, _text_sets(out, "train") | _task_sets(out, lambda split: split == "train"), n=n)


def _text_sets(out: Path, split: str) -> dict[str, Iterable[str]]:
    """The texts of a split by role; of a pair the two languages apart."""
    sets: dict[str, Iterable[str]] = {}
    for role, fields in (("text", ("text",)), ("translation", ("src", "tgt")), ("rated", ("text",))):
        path = out / role / f"{split}.jsonl"
        if path.is_file():
            for key in fields:
                sets[role if len(fields) == 1 else f"{role}.{key}"] = _column(path, key)
    path = out / "conversations" / f"{split}.jsonl"
    if path.is_file():
        sets["conversations"] = _answers(path)
    return sets


def _task_sets(out: Path, is_wanted: Callable[[str], bool]) -> dict[str, Iterable[str]]:
    """The texts of the tasks: the held-out ones by task and split, since scores are read on dev sets as well."""
    sets: dict[str, Iterable[str]] = {}
    for path in sorted((out / "tasks").glob("*/*.jsonl")):
        if is_wanted(path.stem):
            name = f"tasks.{path.parent.name}"
            sets[name if path.stem == "train" else f"{name}.{path.stem}"] = _all_texts(path)
    return sets


def _all_texts(path: Path) -> Iterator[str]:
    """Each text of each row."""
    for row in progress(read_rows(path), name=f"overlap: {path.parent.name}/{path.stem}", unit="records"):
        yield from (row[key] for key in ("text", "second", "question", "passage") if row.get(key))
        if "words" in row:
            yield " ".join(row["words"])


def _column(path: Path, key: str) -> Iterator[str]:
    rows = progress(read_rows(path), name=f"overlap: {path.parent.name}/{path.stem}", unit="records")
    return (row[key] for row in rows)


def _answers(path: Path) -> Iterator[str]:
    """What the assistant says: requests are templates."""
    return (turn["content"] for row in read_rows(path) for turn in row["messages"] if turn["role"] == "assistant")


def _source(record: Pair | Rated | Conversation) -> str:
    return record.domain if isinstance(record, Rated) else record.source


def _texts(record: Pair | Rated | Conversation) -> list[str]:
    """The texts of a record, for counting words."""
    match record:
        case Pair():
            return [record.src, record.tgt]
        case Rated():
            return [record.text]
        case Conversation():
            return [message.content for message in record.messages]
        case _:
            assert_never(record)


def _sorted(counter: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in sorted(counter.items()) if count}
