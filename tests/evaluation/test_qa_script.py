"""SQuAD 2.0's exact match and F1 against the script by which `transformers` scored models until its version 4.

It is the official script with another way in, and `transformers` 5 has none; its file is read out of an old package.
"""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from pipeline.data.fetching.package import PackageSource
from pipeline.evaluation.qa import AnswerScore, Threshold, no_answer_score
from tests.packages import fetched

SOURCE = PackageSource(
    kind="package",
    package="transformers",
    version="2.3.0",
    archive="transformers-2.3.0-py3-none-any.whl",
    sha256="2c237b06d60bb7f17f6b9e1ab9c5d4530508a287bc16ec64b5f7bb11d99df717",
    licence="Apache-2.0",
    files=("transformers/data/metrics/squad_metrics.py",),
)
WORDS = ("the", "A", "an", "cat", "Cat,", "dog", "dogs", "(sat)", "...", "Zürich", "é", "1,000", "10%", "theatre")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The script."""
    target = fetched(SOURCE, tmp_path_factory.mktemp("script"))
    spec = importlib.util.spec_from_file_location("squad_metrics", next(target.rglob("squad_metrics.py")))
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    # What it imports of its package is for the search of answers, not for their scores.
    unused = ModuleType("transformers.tokenization_bert")
    unused.__dict__.update(BasicTokenizer=None, whitespace_tokenize=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, unused.__name__, unused)
        spec.loader.exec_module(found)
    return found


Row = tuple[str, list[str], float]
"""An answer, its references, and the value of "no answer"."""


def questions(seed: int, count: int) -> list[Row]:
    """About a third without an answer, and as many left unanswered; a right answer now and then."""
    random = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(random.choice(WORDS, random.integers(0, 4)))

    rows: list[Row] = []
    for value in random.uniform(-5, 5, count).tolist():
        references = [text() for _ in range(random.integers(0, 4))]
        answer = "" if random.random() < 0.3 else text()
        rows.append((references[0] if references and random.random() < 0.4 else answer, references, value))
    return rows


def thresholds(found: Threshold, score: float, threshold: float, rows: list[Row]) -> None:
    """The same best score, and the same threshold, unless it is best to answer nothing, of which the script says 0."""
    assert 100 * found.score == pytest.approx(score)
    if found.threshold >= min(row[2] for row in rows):
        assert found.threshold == threshold


@pytest.mark.parametrize("count", [1, 2, 25])
def test_scores_with_and_without_an_answer_are_those_of_the_script(script: ModuleType, count: int) -> None:
    num_unanswerable = 0
    for seed in range(60):
        rows = questions(seed, count)
        limit = float(np.random.default_rng(seed).uniform(-6, 6))
        found = no_answer_score(
            [row[0] for row in rows], [row[1] for row in rows], np.array([row[2] for row in rows]), threshold=limit
        )
        asked = [
            SimpleNamespace(qas_id=str(i), answers=[{"text": one} for one in row[1]]) for i, row in enumerate(rows)
        ]
        answers, values = ({str(i): row[place] for i, row in enumerate(rows)} for place in (0, 2))
        theirs = script.squad_evaluate(asked, answers, values, limit)
        for part, prefix in (
            (AnswerScore(found.exact_match, found.f1, count), ""),
            (found.has_answer, "HasAns_"),
            (found.no_answer, "NoAns_"),
        ):
            assert (part is None) == (f"{prefix}total" not in theirs)
            if part:
                assert 100 * part.exact_match == pytest.approx(theirs[f"{prefix}exact"])
                assert 100 * part.f1 == pytest.approx(theirs[f"{prefix}f1"])
                assert part.num == theirs[f"{prefix}total"]
        thresholds(found.best_exact, theirs["best_exact"], theirs["best_exact_thresh"], rows)
        thresholds(found.best_f1, theirs["best_f1"], theirs["best_f1_thresh"], rows)
        num_unanswerable += sum(not row[1] for row in rows)
    assert 60 * count * 0.1 < num_unanswerable < 60 * count * 0.5
