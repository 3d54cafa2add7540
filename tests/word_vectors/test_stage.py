"""The stage as its user runs it, for every method, and what it hands over."""

import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gensim.models import KeyedVectors

from pipeline.config import load
from pipeline.data.fetching.generated import TOPICS, GeneratedSource, generate
from pipeline.data.records import Document, write_records
from pipeline.evaluation.word_similarity import WordVectors
from pipeline.inference.word_folder import Composer, open_words
from pipeline.stages.word_vectors import WordVectorsConfig, composable
from pipeline.text.subwords import Subwords
from tests.training.harness import ROOT, Workspace, change_yaml, snapshot

METHODS = ("svd", "cbow", "skipgram", "fasttext", "glove")


@pytest.fixture(scope="module", autouse=True)
def on_cpu() -> Iterator[None]:
    """The server from which ranks are forked imports DeepSpeed once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")
        yield


@pytest.fixture(scope="session")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code as it was when the tests began."""
    return snapshot(tmp_path_factory.mktemp("code"))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents and test sets of the toy language."""
    folder = tmp_path_factory.mktemp("toy")
    source = GeneratedSource(kind="generated", seed=1, num_documents=200, num_pairs=1, num_rated=1, num_conversations=1)
    generate(source, folder / "raw")
    documents = [
        Document(path.stem, path.stem, "toy", path.read_text().replace("\n\n", "\n").strip())
        for path in sorted((folder / "raw/text").iterdir())
    ]
    for split, chosen in (("train", documents[10:]), ("valid", documents[:10])):
        write_records(folder / f"prepared/text/{split}.jsonl", chosen)
    words = folder / "prepared/words"
    words.mkdir()
    for name in ("questions-words.txt", "wordsim353.tsv", "simlex999.txt"):
        (words / name).write_bytes((folder / "raw" / name).read_bytes())
    return folder / "prepared"


def _workspace(root: Path, code: Path, prepared: Path, method: str, changes: dict[str, Any]) -> Workspace:
    config = f"conf/tiny/word_vectors/{method}.yaml"
    workspace = Workspace(root, code, module="pipeline.stages.word_vectors", config=config)
    (root / config).parent.mkdir(parents=True)
    (root / config).write_text((ROOT / config).read_text())
    change_yaml(root / config, changes)
    (root / "data/tiny").mkdir(parents=True)
    (root / "data/tiny/prepared").symlink_to(prepared)
    return workspace


@pytest.fixture(scope="module", params=METHODS)
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, code: Path, prepared: Path
) -> Iterator[Workspace]:
    """A finished run of each method, with the configuration of profile tiny."""
    workspace = _workspace(tmp_path_factory.mktemp("done") / "root", code, prepared, request.param, {})
    workspace.run("cpu")
    yield workspace


def test_gensim_opens_the_folder_and_words_of_a_topic_are_near_each_other(done: Workspace) -> None:
    vectors = KeyedVectors.load_word2vec_format(
        str(done.output / "vectors.bin"), binary=True, fvocab=str(done.output / "vocabulary.txt")
    )
    opened = open_words(done.output)
    assert tuple(vectors.index_to_key) == opened.words
    np.testing.assert_array_equal(vectors.vectors, opened.matrix)
    # All of GloVe's vectors share a direction; what tells words apart is the rest.
    centred = WordVectors(opened.words, opened.matrix - opened.matrix.mean(0))
    topic_of = {noun: topic for topic, (nouns, _) in TOPICS.items() for noun in nouns}
    cosines: dict[bool, list[float]] = {True: [], False: []}
    for one, two in combinations(topic_of, 2):
        cosine = centred.units[centred.numbers[one]] @ centred.units[centred.numbers[two]]
        cosines[topic_of[one] == topic_of[two]].append(float(cosine))
    assert np.mean(cosines[True]) > np.mean(cosines[False]) + 0.4


def test_metrics_and_samples_hold_what_the_report_shows(done: Workspace) -> None:
    name = done.stage.removeprefix("tiny/")
    metrics = json.loads((done.root / f"metrics/tiny/{name}.json").read_text())
    for test in ("wordsim353", "simlex999"):
        assert metrics[test]["num_covered"] == metrics[test]["num_pairs"] == 120
        assert metrics[test]["spearman"] > 0.3
    analogies = metrics["analogies"]
    assert analogies["total"]["num_covered"] > 0
    assert analogies["sections"].keys() == {"gram8-plural"}
    samples = json.loads((done.root / f"metrics/tiny/samples/{name}.json").read_text())
    assert len(samples) == 30
    assert all(row.keys() == {"word", "x", "y", "cluster", "nearest"} for row in samples)
    assert ("composed" in metrics) == name.endswith("fasttext")


def test_the_curve_of_a_decomposition_has_a_row_for_each_dimension_and_every_other_one_for_each_step(
    done: Workspace,
) -> None:
    metrics = json.loads((done.root / f"metrics/{done.stage}.json").read_text())["training"]
    curve = done.curve()
    if done.stage.endswith("svd"):
        shares = [row["train/explained_share"] for row in curve]
        assert [row["update"] for row in curve] == list(range(1, 17))
        assert shares[0] > 0 and shares == sorted(shares) and shares[-1] == metrics["explained_share"] < 1
    else:
        assert [row["update"] for row in curve] == list(range(1, metrics["num_steps"] + 1))
        assert {"train/total", "valid/total"} <= curve[-1].keys()


def test_fasttext_composes_words_that_it_has_not_seen(tmp_path: Path, code: Path, prepared: Path) -> None:
    workspace = _workspace(tmp_path / "root", code, prepared, "fasttext", {"min_count": 250})
    workspace.run("cpu")
    opened = open_words(workspace.output)
    assert opened.composer is not None and "harbours" not in opened.words
    assert opened.composer.vector("harbours").shape == (16,)
    metrics = json.loads((workspace.root / "metrics/tiny/word_vectors/fasttext.json").read_text())
    assert metrics["wordsim353"]["num_covered"] < metrics["composed"]["wordsim353"]["num_covered"] == 120


def test_a_word_too_short_for_the_ngrams_of_fasttext_is_left_out_of_what_is_composed() -> None:
    composer = Composer(Subwords(num_words=0, num_buckets=5, min_length=5, max_length=6), torch.randn(5, 3))
    vectors = WordVectors(["harbour"], np.ones((1, 3)))
    assert composable(["cd", "harbour", "harbours"], vectors, composer) == ["harbours"]


def test_lengths_of_ngrams_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fasttext.yaml"
    text = (ROOT / "conf/tiny/word_vectors/fasttext.yaml").read_text()
    path.write_text(text.replace("min_ngram: 3", "min_ngram: 7"))
    with pytest.raises(ValueError, match="min_ngram 7 is above max_ngram 6"):
        load(path, WordVectorsConfig)


def test_configurations_of_all_profiles_are_complete() -> None:
    for profile in ("cpu", "tiny", "paper"):
        for method in METHODS:
            path = ROOT / f"conf/{profile}/word_vectors/{method}.yaml"
            assert load(path, WordVectorsConfig).method.kind == method
