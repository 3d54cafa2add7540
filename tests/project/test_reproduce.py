"""Published numbers: from files known by their checksum to the committed report, resumed where it was cut off."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from pipeline.artifacts import read_json, write_json
from pipeline.layout import Layout
from pipeline.numbers.number import NumberConfig, all_numbers, open_number
from pipeline.numbers.report import above, read_reports
from pipeline.numbers.table import BEGIN, END, markdown_table, write_readme
from pipeline.reproduce import overview, reproduce
from tests.project.toy_number import NUMBER, ROOT, Stages, write_yaml


def test_stages_run_in_the_order_of_the_chain_and_the_report_has_every_seed_with_mean_and_spread(folder: Path) -> None:
    stages = Stages(30.0, 33.0)
    assert reproduce(open_number("toy"), stages) == 0
    assert stages.ran == ["fetch", "tokenize", "translate/seed-1", "translate/seed-2"]
    report = json.loads((folder / "reports/numbers/toy.json").read_text())
    assert report["ours"] == [30.0, 33.0] and report["mean"] == 31.5 and report["reached"]
    assert report["spread"] == pytest.approx(4.5**0.5)
    assert report["signatures"] == {"bleu": "nrefs:1"}
    assert report["flops"] == 2e12 and report["seconds"] == 400.0
    assert report["command"] == "make reproduce NUMBER=toy DATA=FOLDER"
    assert {"id", "source", "metric", "reported", "versions"} <= report.keys()
    assert "| 31.50 ± 2.12 (2) |" in (folder / "README.md").read_text()


def test_both_conventions_of_bleu_are_printed_with_their_signatures_and_stand_in_the_table(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | {"key": "tokenised_bleu.greedy"})

    def run(path: Path, keep: Callable[[float], None]) -> int:
        keep(1.0)
        seed = int(path.stem[-1]) if path.stem.startswith("seed") else 0
        tokens = {"beam": 1.0, "greedy": 30.0 + seed, "signature": "tok:moses-fr"}
        plain = {"beam": 2.0, "greedy": 20.0 + seed, "signature": "tok:13a"}
        scores = {"tokenised_bleu": tokens, "bleu": plain, "chrf": plain, "training": {"flops": 1.0}}
        write_json(Layout.of(path).metrics, scores if seed else {})
        return 0

    assert reproduce(open_number("toy"), run) == 0
    printed = capsys.readouterr().err.splitlines()
    assert printed[-3:] == [
        "toy: mean 31.50 of [31.0, 32.0], published 30.00",
        "  BLEU of the tokens 31.50, tok:moses-fr",
        "  sacreBLEU 21.50, tok:13a",
    ]
    assert "| 31.50 ± 0.71 (2); beside it sacreBLEU 21.50 |" in (folder / "README.md").read_text()


def test_a_second_call_runs_nothing_and_a_changed_configuration_runs_what_follows_from_it(folder: Path) -> None:
    reproduce(open_number("toy"), Stages(30.0, 33.0))
    again = Stages()
    assert reproduce(open_number("toy"), again) == 0
    assert again.ran == []
    write_yaml(folder / "conf/numbers/toy/translate/seed-2.yaml", {"a": 2})
    seed = Stages(35.0)
    reproduce(open_number("toy"), seed)
    assert seed.ran == ["translate/seed-2"]
    write_yaml(folder / "conf/numbers/toy/tokenize.yaml", {"a": 2})
    all_after = Stages(30.0, 33.0)
    reproduce(open_number("toy"), all_after)
    assert all_after.ran == ["tokenize", "translate/seed-1", "translate/seed-2"]


def test_what_a_number_needs_is_made_first_and_counts_among_its_costs(folder: Path) -> None:
    write_yaml(folder / "conf/numbers/both/number.yaml", NUMBER | {"needs": "toy"})
    write_yaml(folder / "conf/numbers/both/ensemble.yaml", {"a": 1})
    stages = Stages(30.0, 33.0, 35.0)
    assert reproduce(open_number("both"), stages) == 0
    assert stages.ran == ["fetch", "tokenize", "translate/seed-1", "translate/seed-2", "ensemble"]
    both, toy = read_reports()
    assert (both["id"], both["ours"], both["seconds"]) == ("both", [35.0], 500.0)
    assert (toy["id"], toy["ours"], toy["seconds"]) == ("toy", [30.0, 33.0], 400.0)
    assert set(both["seconds_by_stage"]) == {"ensemble", *(f"toy/{stage}" for stage in toy["seconds_by_stage"])}
    again = Stages()
    assert reproduce(open_number("toy"), again) == 0 and again.ran == []
    write_yaml(folder / "conf/numbers/toy/translate/seed-2.yaml", {"a": 2})
    changed = Stages(34.0, 36.0)
    assert reproduce(open_number("both"), changed) == 0
    assert changed.ran == ["translate/seed-2", "ensemble"]


def test_a_number_that_needs_itself_or_an_unknown_one_is_refused(folder: Path) -> None:
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | {"needs": "toy"})
    with pytest.raises(ValueError, match="needs: toy needs toy, itself"):
        open_number("toy")
    write_yaml(folder / "conf/numbers/toy/number.yaml", NUMBER | {"needs": "tay"})
    with pytest.raises(ValueError, match="tay: no such number; there are toy"):
        open_number("toy")


@pytest.fixture
def ladder(folder: Path) -> Path:
    """The number of two seeds, published with 30, and one of one seed published with 32, which is to be above it."""
    write_yaml(folder / "conf/numbers/top/number.yaml", NUMBER | {"reported": 32.0, "above": "toy"})
    write_yaml(folder / "conf/numbers/top/translate/seed-1.yaml", {"a": 1})
    return folder


def test_a_ladder_says_whether_its_order_holds(ladder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reproduce(open_number("top"), Stages(34.0))
    assert "| `toy`, not run yet |" in (ladder / "README.md").read_text()
    (top,) = read_reports()
    assert above(top, [top]) == {"number": "toy", "mean": None, "holds": None}
    # The lower number is made later, and one seed of it before the other.
    cut = Stages(30.0)
    cut.codes["translate/seed-2"] = 143
    reproduce(open_number("toy"), cut)
    assert "| `toy` 30.00, not all seeds yet |" in markdown_table(read_reports())
    assert above(top, read_reports()) == {"number": "toy", "mean": 30.0, "holds": None}
    reproduce(open_number("toy"), Stages(33.0))
    top, toy = read_reports()
    assert above(top, [top, toy]) == {"number": "toy", "mean": 31.5, "holds": True}
    assert above(toy, [top, toy]) is None
    assert "| `toy` 31.50, holds |" in (ladder / "README.md").read_text()
    write_yaml(ladder / "conf/numbers/top/translate/seed-1.yaml", {"a": 2})
    capsys.readouterr()
    # As high is not above.
    reproduce(open_number("top"), Stages(31.5))
    assert "| `toy` 31.50, does not hold |" in (ladder / "README.md").read_text()
    assert "published 32.00; to be above `toy` 31.50, does not hold\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"above": "tay"}, "above: tay: no such number; there are top, toy"),
        ({"above": "top"}, "above: top is published with 32.0, this one with 32.0: expected a lower one"),
        ({"reported": 29.0}, "above: toy is published with 30.0, this one with 29.0: expected a lower one"),
        ({"key": "bleu.greedy"}, r"above: toy measures BLEU \(bleu.beam\), this one BLEU \(bleu.greedy\)"),
    ],
)
def test_a_ladder_has_steps_of_one_metric_that_rise_as_published(
    changes: dict[str, object], message: str, ladder: Path
) -> None:
    number = NUMBER | {"reported": 32.0, "above": "toy"} | changes
    write_yaml(ladder / "conf/numbers/top/number.yaml", number)
    with pytest.raises(ValueError, match=rf"conf/numbers/top/number.yaml: {message}"):
        open_number("top")


def test_the_ladder_of_the_course_has_four_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    steps = ["transformer", "attention", "gru", "lstm", ""]
    for upper, lower in pairwise(f"multi30k-de-en-{step}" if step else "" for step in steps):
        assert open_number(upper).config.above == lower


def test_an_unknown_number_and_a_figure_that_is_not_there_are_named(folder: Path) -> None:
    with pytest.raises(ValueError, match="other: no such number; there are toy"):
        open_number("other")
    write_yaml(folder / "conf/numbers/toy/number.yaml", {**NUMBER, "key": "bleu.greedy"})
    with pytest.raises(ValueError, match=r"metrics/translate/seed-1.json: no bleu.greedy, which number.yaml names"):
        reproduce(open_number("toy"), Stages(30.0, 33.0))
    write_yaml(folder / "conf/numbers/toy/nothing.yaml", {})
    with pytest.raises(ValueError, match=r"nothing.yaml"):
        open_number("toy")


def test_notes_and_what_a_report_does_not_know_stand_once_below_the_table_of_numbers(folder: Path) -> None:
    for name, note in (("toy", "Other tokens."), ("more", "Other tokens."), ("rest", "")):
        write_yaml(folder / f"conf/numbers/{name}/number.yaml", NUMBER | {"note": note})
        write_yaml(folder / f"conf/numbers/{name}/translate/seed-1.yaml", {"a": 1})
        reproduce(open_number(name), Stages(30.0, 33.0))
    assert "- `more`, `toy`: Other tokens.\n" in (folder / "README.md").read_text()
    more, rest, toy = read_reports()
    assert "were recorded" not in markdown_table([more, rest, toy])
    del more["made"], rest["machine"]
    assert "- `more`, `rest`: Made before the machine and the code" in markdown_table([more, rest, toy])


def test_the_list_of_numbers_says_what_each_one_needs_and_how_many_runs_it_has(folder: Path) -> None:
    given = {"kind": "given", "licence": "ours", "origin": "this test", "files": {"train.en": "0" * 64}}
    model = {"kind": "hub_model", "model": "a/b", "revision": "main", "licence": "ours"}
    write_yaml(folder / "conf/numbers/toy/fetch.yaml", {"sources": {"own": given, "bert": model}})
    write_yaml(folder / "conf/numbers/both/number.yaml", NUMBER | {"needs": "toy", "note": "Of one model."})
    write_yaml(folder / "conf/numbers/both/ensemble.yaml", {"a": 1})
    both, note, toy = overview().splitlines()[1:]
    assert "not run yet; 1 run; needs files in DATA, the hub, the models of toy; BLEU" in both
    assert note.strip() == "Of one model."
    assert "not run yet; 2 runs; needs files in DATA, the hub; BLEU" in toy


def test_a_readme_without_markers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing\n")
    with pytest.raises(ValueError, match="expected the lines"):
        write_readme(tmp_path / "README.md")


def test_every_number_of_this_project_can_be_opened_and_its_seeds_differ_in_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert len(all_numbers()) >= 11
    for name in all_numbers():
        number = open_number(name)
        assert isinstance(number.config, NumberConfig)
        if len(number.runs) == 1:
            continue
        for folder in {path.parent for path in number.runs}:
            runs = [yaml.safe_load(path.read_text()) for path in number.runs if path.parent == folder]
            seeds = [run["training"].pop("seed") for run in runs]
            assert len(set(seeds)) == len(seeds) and all(run == runs[0] for run in runs)


def test_the_table_of_the_readme_is_that_of_the_committed_reports_and_these_name_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    reports = read_reports()
    assert markdown_table(reports) in (ROOT / "README.md").read_text(encoding="utf-8")
    for report in reports:
        config = open_number(report["id"]).config
        assert (report["reported"], report["reach"], report["key"]) == (config.reported, config.reach, config.key)


def write_benchmark(data: Path) -> dict[str, str]:
    """Files of two languages in Moses tokens, and the untouched targets of the test; returns their checksums."""
    german = ["ein", "kleiner", "hund", "mann", "läuft", "springt", "sieht", "eine", "frau", "katze"]
    english = ["a", "small", "dog", "man", "walks", "jumps", "sees", "a", "woman", "cat"]
    (data / "somewhere").mkdir(parents=True)
    files: dict[Path, list[str]] = {}
    for split, numbers in (("train", range(300)), ("val", range(300, 320)), ("test", range(320, 340))):
        places = [[(n * k + n // 7 + k) % len(german) for k in range(1, 4 + n % 4)] for n in numbers]
        for language, words in (("de", german), ("en", english)):
            lines = [" ".join([*(words[place] for place in line), "."]) for line in places]
            files[data / "somewhere" / f"{split}.{language}"] = lines
    targets = files[data / "somewhere/test.en"]
    files[data / "raw.en"] = [line.removesuffix(" .").capitalize() + "." for line in targets]
    for path, lines in files.items():
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.timeout(600)
def test_a_number_is_reproduced_from_the_files_of_its_benchmark(tmp_path: Path) -> None:
    root, data = tmp_path / "clone", tmp_path / "data"
    for name in ("pipeline", "conf/runtime"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "README.md").write_text(f"{BEGIN}\n{END}\n")
    files = write_benchmark(data)
    conf = root / "conf/numbers/toy"
    write_yaml(conf / "number.yaml", {**NUMBER, "key": "tokenised_bleu.beam"})
    given = {"kind": "given", "licence": "ours", "origin": "this test"}
    raw_file = {"raw.en": files.pop("raw.en")}
    write_yaml(
        conf / "fetch.yaml", {"sources": {"tok": {**given, "files": files}, "raw": {**given, "files": raw_file}}}
    )
    rows = [
        {"kind": "two_files", "source": "tok", "into": into, "src": f"{name}.de", "tgt": f"{name}.en"}
        for into, name in (("train", "train"), ("valid", "val"), ("test", "test"))
    ]
    rows[2]["reference"] = "raw/raw.en"
    form = {"kind": "moses", "src": "de", "tgt": "en", "lowercase": True}
    write_yaml(conf / "prepare.yaml", {"translation": {"sources": rows, "text": form, "text_is_applied": True}})
    write_yaml(conf / "tokenize.yaml", {"translation": {"vocab_size": 60}})
    translate = yaml.safe_load((ROOT / "conf/tiny/translate/transformer.yaml").read_text())
    translate["training"]["duration"] = {"kind": "steps", "num_steps": 24}
    translate["training"] |= {"validate_every": 6, "checkpoint_every": 6}
    translate["model"] |= {"vocab_size": 60}
    translate["selection"] = {"choose": "best", "num_averaged": 2, "metric": "bleu", "patience": 4}
    write_yaml(conf / "translate/seed-1.yaml", translate)
    environment = {**os.environ, "PIPELINE_TRACKING": "local", "PIPELINE_RUNTIME": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pipeline.reproduce", "toy", "--data"]

    (data / "somewhere/val.de").rename(data / "val.de.away")
    missing = subprocess.run([*command, str(data)], cwd=root, env=environment, capture_output=True, text=True)
    assert missing.returncode == 2
    assert f"val.de with SHA-256 {files['val.de']} is not below {data}: no file of that name" in missing.stderr
    (data / "val.de.away").rename(data / "somewhere/val.de")

    done = subprocess.run([*command, str(data)], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = read_json(root / "reports/numbers/toy.json")
    (run,) = report["runs"].values()
    assert report["ours"] == [run["tokenised_bleu"]["beam"]]
    assert "tok:moses-en" in report["signatures"]["tokenised_bleu"] and "case:lc" in report["signatures"]["bleu"]
    assert "tok:13a" in report["signatures"]["bleu"]
    # The references of the second score are as people wrote them.
    test = (root / "runs/toy/data/prepared/translation/test.jsonl").read_text().splitlines()
    assert [json.loads(row)["reference"] for row in test] == (data / "raw.en").read_text().splitlines()
    assert read_json(root / "runs/toy/models/translate/seed-1/text.json") == form
    assert {"bleu", "tokenised_bleu", "nll"} <= run["valid"].keys()
    assert report["flops"] > 0 and report["seconds"] > 0

    # A number that goes on with its models: two that are the same one decide as this one does.
    models, metrics = "runs/toy/models/translate/seed-1", "runs/toy/metrics/translate/seed-1.json"
    both = root / "conf/numbers/both"
    write_yaml(both / "number.yaml", {**NUMBER, "key": "tokenised_bleu.beam", "needs": "toy"})
    ensemble = {
        "models": [models] * 2,
        "metrics": [metrics] * 2,
        "pairs": "runs/toy/data/prepared/translation",
        "search": translate["search"],
        "num_samples": 4,
    }
    write_yaml(both / "ensemble.yaml", ensemble)
    command[3] = "both"
    done = subprocess.run([*command, str(data)], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "conf/numbers/toy/translate/seed-1.yaml: up to date" in done.stderr
    found = read_json(root / "reports/numbers/both.json")
    assert found["ours"] == report["ours"] and found["flops"] == 2 * report["flops"]
    (together,) = found["runs"].values()
    assert {name: together[name] for name in ("bleu", "chrf")} == {name: run[name] for name in ("bleu", "chrf")}
