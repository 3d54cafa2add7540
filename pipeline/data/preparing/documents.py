"""Running text: speeches, encyclopedia articles, the user's plain text files, or rows of a hub data set.

Every n-th document of a source is held out. Documents are read twice, one at a time: first to learn what is held out
and what is repeated, then to write; memory holds a byte of each document and the keys of held-out paragraphs, so that
the corpus may be larger than it.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal, assert_never

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from pipeline.config import Config
from pipeline.data.cleaning import clean, key_of, words_of
from pipeline.data.preparing.parallel import Into
from pipeline.data.preparing.repeats import KeyFile
from pipeline.data.preparing.wikitext import articles, tokenised_articles
from pipeline.data.records import Document, files_below, read_rows, read_text
from pipeline.progress import progress

_WORD = re.compile(r"\w")
SplitName = Literal["train", "valid", "test"]


class TextSource(Config):
    """What every kind of text source has."""

    source: str
    """Folder below raw/."""
    into: Into = "split"
    """A fixed split, or `split`: every n-th document is held out."""


class TextFiles(TextSource):
    """Plain text: a file is a document, blank lines part its paragraphs."""

    kind: Literal["files"]
    files: str = "*.txt"
    """Pattern of the file names, at any depth."""


class WikipediaDump(TextSource):
    """A MediaWiki XML dump."""

    kind: Literal["wikipedia"]
    files: str
    """Pattern of the file names, at any depth."""


class WikiTextFiles(TextSource):
    """WikiText (Merity et al. 2017): articles behind each other, as words and punctuation between spaces.

    Its marks inside of words (`@-@`) are undone, and what it left out (`<unk>`) is left out here as well.
    """

    kind: Literal["wikitext"]
    files: str
    """Pattern of the file names, at any depth."""


class TextRows(TextSource):
    """JSON lines, for example a split of a hub data set: a row is a document."""

    kind: Literal["rows"]
    file: str
    """The file, below the source's folder."""
    text: str = "text"
    """Key of the text."""
    rows_per_document: PositiveInt = 1
    """Rows behind each other that make a document, each a paragraph of it. More than one is for data sets of one
    sentence a row that have lost the borders of their documents, as the first BookCorpus: what follows is then truly
    the next sentence, but what is drawn from another document may be of the same book. Since parts of a book would lie
    in several splits, such a source goes as a whole into one."""
    min_paragraph_words: NonNegativeInt = 0
    """Fewest words of a paragraph; headings and the entries of lists are shorter."""

    @model_validator(mode="after")
    def _keeps_a_book_in_one_split(self) -> "TextRows":
        if self.rows_per_document > 1 and self.into == "split":
            raise ValueError(
                f"rows_per_document: {self.rows_per_document} rows make a part of a book, and its parts would lie in "
                "several splits; allowed is into: train, valid or test"
            )
        return self


AnyText = Annotated[TextFiles | WikipediaDump | WikiTextFiles | TextRows, Field(discriminator="kind")]


class DocumentsConfig(Config):
    """Running text and how it is split."""

    sources: tuple[AnyText, ...] = ()
    """Text sources; none leaves running text out."""
    every: PositiveInt = 20
    """Of so many documents of a source, one goes to test and one to valid."""
    test_offset: NonNegativeInt = 10
    """Which of them goes to test, counted from 0 in the order of file names."""
    valid_offset: NonNegativeInt = 0
    """Which of them goes to valid."""
    min_words: PositiveInt = 20
    """Fewest words of a document that is split here."""
    min_shared_words: PositiveInt = 8
    """Fewest words of a training paragraph that is dropped because a held-out document has it too."""


@dataclass
class DocumentCounts:
    """What was dropped while documents were split."""

    num_read: int = 0
    """Documents of all sources."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Documents, and paragraphs of those that are kept, by the reason."""


def split_documents(
    config: DocumentsConfig,
    raw: Path,
    counts: DocumentCounts,
    extra: Callable[[], Iterable[Document]],
    *,
    scratch: Path | None = None,
) -> Iterator[tuple[SplitName, Document]]:
    """Every kept document with its split; `extra` are further training documents, for example rated texts.

    A training paragraph that also stands in a held-out document is dropped, and so is a repeated document. `scratch` is
    a folder with room for 12 bytes a document.
    """
    held_out: set[bytes] = set()
    keys = KeyFile(scratch)
    for split, document in progress(_assigned(config, raw, DocumentCounts()), name="text: reading", unit="documents"):
        keys.append(key_of(document.text))
        if split != "train":
            held_out.update(key_of(line) for line in document.text.split("\n"))
    for is_repeat, (split, document) in zip(keys.repeats(), _assigned(config, raw, counts), strict=True):
        if is_repeat:
            counts.dropped["duplicate_documents"] += 1
            continue
        lines = document.text.split("\n")
        if split == "train":
            kept = [line for line in lines if not (_is_long(line, config) and key_of(line) in held_out)]
            counts.dropped["held_out_paragraphs"] += len(lines) - len(kept)
            lines = kept
        if any(lines):
            yield split, Document(document.id, document.title, document.source, "\n".join(lines))
    for document in extra():
        yield "train", document


def _is_long(line: str, config: DocumentsConfig) -> bool:
    return len(words_of(line)) >= config.min_shared_words


def _assigned(config: DocumentsConfig, raw: Path, counts: DocumentCounts) -> Iterator[tuple[SplitName, Document]]:
    """Every document of every source with the split that its number gives it; those without a word have none."""
    for source in config.sources:
        number = 0
        for document in read_documents(source, raw, counts):
            counts.num_read += 1
            if not _WORD.search(document.text):
                counts.dropped["empty_documents"] += 1
            elif source.into != "split":
                yield source.into, document
            elif len(words_of(document.text)) < config.min_words:
                counts.dropped["short_documents"] += 1
            else:
                place = number % config.every
                number += 1
                yield (
                    ("test" if place == config.test_offset else "valid" if place == config.valid_offset else "train"),
                    document,
                )


def read_documents(source: AnyText, raw: Path, counts: DocumentCounts) -> Iterator[Document]:
    """The cleaned documents of a source, in order. ValueError names file and line of a fault."""
    folder = raw / source.source
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such source; fetch.yaml has to name it")
    match source:
        case TextFiles():
            for path in files_below(folder, source.files):
                title = path.relative_to(folder).with_suffix("").as_posix()
                paragraphs = re.split(r"\n\s*\n", read_text(path))
                text = "\n".join(clean(paragraph).replace("\n", " ") for paragraph in paragraphs)
                yield Document(f"{source.source}/{title}", path.stem, source.source, clean(text))
        case WikipediaDump():
            for path in files_below(folder, source.files):
                for title, text in articles(path):
                    yield Document(f"{source.source}/{title}", title, source.source, text)
        case WikiTextFiles():
            for path in files_below(folder, source.files):
                for title, text in tokenised_articles(path):
                    yield Document(f"{source.source}/{title}", title, source.source, text)
        case TextRows():
            yield from _of_rows(source, folder / source.file, counts)
        case _:
            assert_never(source)


def _of_rows(source: TextRows, path: Path, counts: DocumentCounts) -> Iterator[Document]:
    """The documents of a file of rows; with one row each, its number is the document's, and else that of its first."""
    rows = enumerate(read_rows(path), start=1)
    while chunk := list(islice(rows, source.rows_per_document)):
        lines = []
        for number, row in chunk:
            if not isinstance(row.get(source.text), str):
                raise ValueError(
                    f"{path}:{number}: no text at key {source.text!r}; the row has {', '.join(sorted(row))}"
                )
            text = clean(row[source.text])
            lines += text.split("\n") if source.rows_per_document == 1 else [text.replace("\n", " ")]
        first, row = chunk[0]
        lines = [line for line in lines if line]
        kept = [line for line in lines if len(line.split()) >= source.min_paragraph_words]
        counts.dropped["short_paragraphs"] += len(lines) - len(kept)
        title = str(row.get("title", first)) if source.rows_per_document == 1 else str(first)
        yield Document(f"{source.source}/{first}", title, source.source, "\n".join(kept))
