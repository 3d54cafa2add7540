"""Peak memory of preparing, tokenizing and reading translation pairs, for corpora of different sizes.

Generated pairs of some 12 words a side go through the stages prepare and tokenize and one epoch of batches, each in a
process of its own. Anonymous memory is what a process holds; the rest of its resident memory are pages of files, which
the system takes back when it needs them. What grows from one size to the next is printed as bytes a pair.

    python -m benchmarks.translation_memory [--sizes 10000 100000 400000]
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.shared.options import parser, positive

SIZES = (10_000, 100_000, 400_000)
HELD_OUT = 500
CONFIGURATIONS = {
    "prepare": """translation:
  sources:
    - {kind: two_files, source: made, into: train, src: train.en, tgt: train.de}
    - {kind: two_files, source: made, into: valid, src: valid.en, tgt: valid.de}
    - {kind: two_files, source: made, into: test, src: test.en, tgt: test.de}
""",
    "tokenize": "translation: {vocab_size: 8000}\n",
}
EPOCH = """
from pathlib import Path
from pipeline.config import ByTokens
from pipeline.data.pair_arrays import read_pair_arrays
from pipeline.data.plan import plan_epoch
from pipeline.data.examples.translation import choose_examples
from pipeline.text.tokenizer import load_tokenizer
folder = Path("data/bench/tokens/translation")
tokenizer = load_tokenizer(folder)
pairs = read_pair_arrays(folder / "pairs/train", tokenizer_hash=tokenizer.hash)
examples, report = choose_examples(pairs, tokenizer, max_length=256, too_long="drop")
batching = ByTokens(kind="tokens", tokens_per_step=26000)
for step in plan_epoch(examples.sizes(0), batching, seed=1, epoch=0):
    examples.collate(step.indices, 0)
"""


@dataclass(frozen=True)
class Peak:
    """Largest memory of a process in bytes, and how long it ran."""

    anonymous: int
    resident: int
    seconds: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one line for each process and size."""
    choices = parser("translation_memory", __doc__)
    choices.add_argument(
        "--sizes", type=positive, nargs="+", default=SIZES, metavar="PAIRS", help="sizes of the corpora, rising"
    )
    sizes: Sequence[int] = choices.parse_args(arguments).sizes
    if list(sizes) != sorted(set(sizes)):
        choices.error(f"--sizes: expected rising numbers, found {' '.join(map(str, sizes))}")
    peaks: dict[tuple[str, int], Peak] = {}
    print(f"{'pairs':>9}  {'work':<9} {'anonymous':>10} {'resident':>10} {'seconds':>8}")
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_corpus(folder, size)
            for work, command in commands().items():
                peak = peaks[work, size] = measured(command, folder)
                mib = (f"{value / 2**20:.0f} MiB" for value in (peak.anonymous, peak.resident))
                print(f"{size:>9,}  {work:<9} {next(mib):>10} {next(mib):>10} {peak.seconds:>8.1f}", flush=True)
    for small, large in pairwise(sizes):
        for work in commands():
            growth = (peaks[work, large].anonymous - peaks[work, small].anonymous) / (large - small)
            print(f"{work}: {growth:.0f} anonymous bytes a pair from {small:,} to {large:,}")


def commands() -> dict[str, list[str]]:
    """What is measured."""
    stages = {
        name: [sys.executable, "-m", f"pipeline.stages.{name}", f"conf/bench/{name}.yaml"] for name in CONFIGURATIONS
    }
    return stages | {"epoch": [sys.executable, "-c", EPOCH]}


def write_corpus(folder: Path, size: int) -> None:
    """Sentences of words that are drawn as in a language: a few are frequent, and one in twenty pairs is a repeat."""
    made = random.Random(1)
    words = ["".join(made.choices("abcdefghijklmnoprstuw", k=made.randint(2, 10))) for _ in range(20_000)]
    raw = folder / "data/bench/raw/made"
    raw.mkdir(parents=True)
    for split, count in (("train", size), ("valid", HELD_OUT), ("test", HELD_OUT)):
        with (raw / f"{split}.en").open("w") as src, (raw / f"{split}.de").open("w") as tgt:
            sentence = ""
            for _ in range(count):
                if made.random() > 0.05 or not sentence:
                    ranks = [int(len(words) ** made.random()) - 1 for _ in range(made.randint(4, 20))]
                    sentence = " ".join(words[rank] for rank in ranks)
                src.write(sentence + "\n")
                tgt.write(sentence[::-1] + "\n")
    (folder / "conf/bench").mkdir(parents=True)
    for name, text in CONFIGURATIONS.items():
        (folder / f"conf/bench/{name}.yaml").write_text(text)


def measured(command: list[str], folder: Path) -> Peak:
    """Runs a command, and looks at its memory every 20 ms."""
    environment = os.environ | {"PIPELINE_TRACKING": "local", "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    started = time.monotonic()
    anonymous = resident = 0
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        while child.poll() is None:
            status = Path(f"/proc/{child.pid}/status").read_text()
            found = {
                line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith(("Rss", "VmRSS"))
            }
            anonymous = max(anonymous, int(found.get("RssAnon", 0)) * 1024)
            resident = max(resident, int(found.get("VmRSS", 0)) * 1024)
            time.sleep(0.02)
    if child.returncode:
        raise SystemExit(f"exit code {child.returncode}: {' '.join(command)}")
    return Peak(anonymous, resident, time.monotonic() - started)


if __name__ == "__main__":
    main()
