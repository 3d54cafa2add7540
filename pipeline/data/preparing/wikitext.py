"""Running text out of MediaWiki markup, or of WikiText: paragraphs of prose, without tables, references and lists."""

import bz2
import re
from collections.abc import Iterator
from itertools import chain, islice, tee
from pathlib import Path
from xml.etree import ElementTree

from pipeline.data.cleaning import clean, resolve_entities
from pipeline.data.records import read_lines

_COMMENT = re.compile(r"<!--.*?-->", re.S)
_DROPPED = re.compile(
    r"<(ref|math|gallery|pre|source|syntaxhighlight|code|table|timeline|score|imagemap)\b(?:[^>]*?/>|.*?</\1\s*>)",
    re.S | re.I,
)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_CONVERT = re.compile(r"\{\{(?:convert|cvt)\|([^|{}]+)\|([^|{}]+)[^{}]*\}\}", re.I)
_LANG = re.compile(r"\{\{(?:lang|nowrap|small|smallcaps|em|strong)\|(?:[^|{}]*\|)?([^|{}]+)\}\}", re.I)
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
_TABLE = re.compile(r"^[ \t:]*\{\|(?:(?!^[ \t:]*\{\|).)*?^[ \t]*\|\}", re.S | re.M)
_LINK = re.compile(r"\[\[([^\[\]]*)\]\]")
_EXTERNAL = re.compile(r"\[(?:https?|ftp|mailto)?:?//[^\s\]]*\s*([^\]]*)\]")
_HEADING = re.compile(r"^=+\s*(.*?)\s*=+\s*$")
_BACK_MATTER = {"see also", "references", "external links", "further reading", "notes", "bibliography", "sources"}
_EMPTY_BRACKETS = re.compile(r"\s*\(\s*[,;:\s]*\)|(?<=\()[,;\s]+")
_NAMESPACE = re.compile(r"^:?(?:file|image|category|[a-z]{2,3}):", re.I)


_TITLE = re.compile(r"= ([^=].*?) =")
_INSIDE_A_WORD = re.compile(r" @([-,.])@ ")
_LEFT_OUT = "<unk>"


def tokenised_articles(path: Path) -> Iterator[tuple[str, str]]:
    """Title and prose of every article of a file of WikiText; ValueError for text before the first title.

    A title stands between empty lines; lines that look like one are also within formulas and tables.
    """
    title, lines = "", list[str]()
    read = chain([(0, "")], ((number, line.strip()) for number, line in read_lines(path)), [(0, "")])
    first, second, third = tee(read, 3)
    neighbours = zip(first, islice(second, 1, None), islice(third, 2, None), strict=False)
    for (_, before), (number, text), (_, after) in neighbours:
        heading = None if before or after else _TITLE.fullmatch(text)
        if heading:
            if lines:
                yield title, clean("\n".join(lines))
            title, lines = heading[1], []
        elif text and not text.startswith("= = "):
            if not title:
                raise ValueError(f"{path}:{number}: expected the title of an article, = Title =, found {text[:60]!r}")
            words = _INSIDE_A_WORD.sub(r"\1", text).split(" ")
            lines.append(" ".join(word for word in words if _LEFT_OUT not in word))
    if lines:
        yield title, clean("\n".join(lines))


def articles(path: Path) -> Iterator[tuple[str, str]]:
    """Title and prose of every article of a MediaWiki XML dump (plain or .bz2), one at a time, without redirects."""
    with bz2.open(path) if path.suffix == ".bz2" else path.open("rb") as stream:
        title, namespace, text = "", "", ""
        try:
            events = ElementTree.iterparse(stream, ("start", "end"))
            _, root = next(events)
            for event, element in events:
                if event == "start":
                    continue
                match element.tag.rpartition("}")[2]:
                    case "title":
                        title = element.text or ""
                    case "ns":
                        namespace = element.text or ""
                    case "text":
                        text = element.text or ""
                    case "page":
                        if namespace == "0" and not text.lstrip().upper().startswith("#REDIRECT"):
                            yield title, prose(text)
                        # The page and its place among the children of the root, which would grow with the dump.
                        root.clear()
        except ElementTree.ParseError as error:
            raise ValueError(f"{path}: not a MediaWiki dump: {error}") from error


def prose(markup: str) -> str:
    """The paragraphs of an article up to its back matter, one a line."""
    text = _DROPPED.sub("", _COMMENT.sub("", markup))
    text = _LANG.sub(r"\1", _CONVERT.sub(r"\1 \2", text))
    text = _innermost(_TEMPLATE, text)
    text = _innermost(_TABLE, text)
    text = _links(text)
    text = _EXTERNAL.sub(r"\1", text)
    text = _TAG.sub("", text)
    text = resolve_entities(text).replace("'''", "").replace("''", "")
    paragraphs: list[str] = []
    for line in text.split("\n"):
        heading = _HEADING.match(line)
        if heading and heading.group(1).casefold() in _BACK_MATTER:
            break
        if heading or not line.strip() or line.startswith(("*", "#", ":", ";", "|", "!", "{", "}")):
            continue
        paragraph = clean(_EMPTY_BRACKETS.sub("", line))
        if len(paragraph.split()) >= 5:
            paragraphs.append(paragraph)
    return "\n".join(paragraphs)


def _innermost(pattern: re.Pattern[str], text: str) -> str:
    """Removes what the pattern fits from the inside out."""
    while True:
        shorter = pattern.sub("", text)
        if shorter == text:
            return text
        text = shorter


def _links(text: str) -> str:
    """Links as the words that a reader sees; images, categories and other languages vanish."""
    while True:
        plain = _LINK.sub(_visible, text)
        if plain == text:
            return text
        text = plain


def _visible(link: re.Match[str]) -> str:
    target = link.group(1)
    return "" if _NAMESPACE.match(target) else target.rpartition("|")[2]
