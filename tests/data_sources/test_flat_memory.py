"""Memory that does not grow with running text, from the hub to the rows of BERT, and that of its readers on the way."""

import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.data.preparing.wikitext import articles, tokenised_articles
from pipeline.data.records import Document, write_records
from pipeline.stages.word_training import read_training_text

ROOT = Path(__file__).parents[2]


def peak_of(call: Callable[[], object]) -> int:
    """The most bytes that were held at once."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def wikitext(path: Path, count: int) -> None:
    path.write_text("".join(f" \n = Town {number} = \n \n It is a town . \n" for number in range(count)))


def dump(path: Path, count: int) -> None:
    pages = (f"<page><title>{n}</title><ns>0</ns><text>It is a town of five.</text></page>" for n in range(count))
    path.write_text(f"<mediawiki>{''.join(pages)}</mediawiki>")


@pytest.mark.parametrize(("write", "read"), [(wikitext, tokenised_articles), (dump, articles)], ids=["text", "dump"])
def test_articles_are_read_one_at_a_time(
    write: Callable[[Path, int], None], read: Callable[[Path], Iterator[tuple[str, str]]], tmp_path: Path
) -> None:
    path, peaks = tmp_path / "w", []
    for count in (500, 500, 4500):  # the first fills the caches of regular expressions
        write(path, count)
        peaks.append(peak_of(lambda: [None for _ in read(path)]))
    assert peaks[2] - peaks[1] < 4000 * 20, peaks


def test_the_text_of_word_vectors_is_held_as_numbers_and_not_as_words(tmp_path: Path) -> None:
    words = [a + b + c for a in "bdfg" for b in "aeiou" for c in "lnrst"]
    num_words, texts = 100_000, [" ".join(words)] * 1000
    for split in ("train", "valid"):
        write_records(
            tmp_path / f"{split}.jsonl", [Document(str(number), "", "own", text) for number, text in enumerate(texts)]
        )
    found = []
    peak = peak_of(lambda: found.append(read_training_text(tmp_path, min_count=1)))
    assert [len(found[0].train.words), len(found[0].valid.words)] == [num_words, num_words]
    assert peak < 2 * num_words * 15, f"{peak:,} bytes"


FLAT = """
import sys, threading, time
from pathlib import Path
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pipeline.data import token_arrays
from pipeline.data.examples import masking
from pipeline.data.preparing import overlap
from pipeline.data.preparing.corpus import PrepareConfig, prepare
from pipeline.data.examples.masking import MaskedExamples, vocabulary
from pipeline.data.fetching.hub import HubSource
from pipeline.data.fetching.sources import fetch
from pipeline.stages import tokenize
from pipeline.text.tokenizer_training import train_wordpiece

tokenize._CHARACTERS_AT_ONCE = overlap._CHARACTERS_AT_ONCE = 100_000
token_arrays._TOKENS_AT_ONCE, masking._ROWS_AT_ONCE = 20_000, 1000
words = [a + b + c for a in "bdfgklmn" for b in "aeiou" for c in "lnrst"]
text = {"sources": [{"kind": "rows", "source": "h", "file": "train.jsonl"}], "every": 50}
tokenizer = train_wordpiece(words, vocab_size=300)

class Peak(threading.Thread):
    # The largest anonymous memory: pages of files that are mapped belong to all ranks, and can be dropped.
    largest = 0
    is_over = False

    def run(self):
        while not self.is_over:
            [line] = [line for line in open("/proc/self/status") if line.startswith("RssAnon")]
            self.largest = max(self.largest, int(line.split()[1]) * 1024)
            time.sleep(0.01)

def run(folder, num_bytes):
    random = np.random.default_rng(0)
    (folder / "hub").mkdir(parents=True)
    with pq.ParquetWriter(folder / "hub/train.parquet", pa.schema({"text": pa.string()})) as file:
        while num_bytes > 0:
            texts = []
            for _ in range(50):
                sentences = [" ".join(random.choice(words, 10)).capitalize() + "." for _ in range(15)]
                texts.append("\\n\\n".join(" ".join(sentences[i:i + 5]) for i in (0, 5, 10)))
            file.write_table(pa.table({"text": texts}))
            num_bytes -= sum(map(len, texts))
    hub = HubSource(kind="hub", dataset=str(folder / "hub"), revision="a", splits=("train",), licence="none")
    fetch("h", hub, folder / "raw" / "h", cache=folder, kept=folder / "kept", settings=None)
    prepare(PrepareConfig(text=text), folder / "raw", folder / "prepared")
    (folder / "tokens").mkdir()
    tokenize._write(folder / "tokens", "wordpiece", tokenizer, folder / "prepared", by_sentence=True)
    tokens = token_arrays.read_token_arrays(folder / "tokens/text-wordpiece/train", tokenizer_hash=tokenizer.hash)
    examples = MaskedExamples(tokens, vocabulary(tokenizer), max_length=128, mask_share=0.15, short_share=0.1,
                              whole_words=False, seed=0)
    examples.sizes(0)
    examples.collate(np.arange(4), 0)

peaks = []
for name, num_bytes in (("small", 1_000_000), ("large", 7_000_000)):
    peak = Peak(daemon=True)
    peak.start()
    run(Path(sys.argv[1]) / name, num_bytes)
    peak.is_over = True
    peaks.append(peak.largest)
print(peaks[1] - peaks[0])
"""


def test_memory_stays_flat_from_the_hub_to_the_rows_of_bert_when_the_text_is_seven_times_as_large(
    tmp_path: Path,
) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", FLAT, str(tmp_path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    growth = int(ended.stdout.splitlines()[-1])
    assert growth < 0.75 * 6_000_000, f"{growth:,} bytes more for 6,000,000 more bytes of text"
