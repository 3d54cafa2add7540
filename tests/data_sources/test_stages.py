"""fetch and prepare as a user runs them: own files in, the same bytes every time, one clear message on bad input."""

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi

from pipeline.stages import fetch, prepare
from pipeline.training import launch

ROOT = Path(__file__).parents[2]
TOY = """
sources:
  toy: {kind: generated, seed: 1, num_documents: 60, num_pairs: 400, num_rated: 200, num_conversations: 60}
"""
TOY_PREPARE = """
text: {sources: [{kind: files, source: toy, files: text/*.txt}]}
translation:
  sources: [{kind: table, source: toy, file: translation.tsv, columns: [group, src, tgt]}]
  num_valid: 20
  num_test: 20
rated: {sources: [{kind: table, source: toy, file: rated.tsv}]}
rated_as_text: true
conversations: {sources: [{kind: chats, source: toy, file: conversations.jsonl}], reviews: {opening_share: 0.5}}
words: toy
"""


def configure(project: Path, stage: str, text: str) -> Path:
    """Writes one configuration; returns its path relative to the project."""
    path = Path("conf/own") / f"{stage}.yaml"
    (project / path).write_text(text)
    return path


def own_files(project: Path, files: dict[str, str | bytes]) -> None:
    """The user's folder `mine`, fetched as the source `mine`."""
    (project / "mine").mkdir()
    for name, content in files.items():
        (project / "mine" / name).write_bytes(content.encode() if isinstance(content, str) else content)
    fetch.main(configure(project, "fetch", "sources: {mine: {kind: folder, path: mine, licence: own}}"))


def rows(path: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def digest(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_two_runs_give_the_same_bytes(project: Path) -> None:
    digests = []
    for _ in range(2):
        fetch.main(configure(project, "fetch", TOY))
        prepare.main(configure(project, "prepare", TOY_PREPARE))
        digests.append(digest(Path("data")) | digest(Path("metrics")))
    assert digests[0] == digests[1]
    assert len(digests[0]) > 70


def test_the_bytes_do_not_depend_on_the_seed_of_pythons_hashes(project: Path) -> None:
    configs = [configure(project, "fetch", TOY), configure(project, "prepare", TOY_PREPARE)]
    script = (
        "import sys; from pathlib import Path; from pipeline.stages import fetch, prepare; "
        "fetch.main(Path(sys.argv[1])); prepare.main(Path(sys.argv[2]))"
    )
    digests = []
    for seed in ("1", "2"):
        command = [sys.executable, "-c", script, *map(str, configs)]
        subprocess.run(command, check=True, env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)})
        digests.append(digest(Path("data")))
    assert digests[0] == digests[1]


def test_every_role_of_the_toy_data_is_prepared_and_no_split_shares_a_text(project: Path) -> None:
    fetch.main(configure(project, "fetch", TOY))
    prepare.main(configure(project, "prepare", TOY_PREPARE))
    for role, key in (("translation", "src"), ("rated", "text"), ("text", "text"), ("conversations", "messages")):
        splits = [
            {str(row[key]) for row in rows(f"data/own/prepared/{role}/{split}.jsonl")}
            for split in ("train", "valid", "test")
        ]
        assert all(splits), role
        assert not (splits[0] & splits[1] or splits[0] & splits[2] or splits[1] & splits[2]), role
    counts = json.loads(Path("metrics/own/prepare.json").read_text())["counts"]
    assert counts["translation"]["test"]["records"] == 20
    assert counts["text"]["train"]["records"] == len(rows("data/own/prepared/text/train.jsonl"))
    assert counts["words"]["questions-words.txt"] > 100


def test_held_out_rated_texts_never_become_running_text(project: Path) -> None:
    fetch.main(configure(project, "fetch", TOY))
    prepare.main(configure(project, "prepare", TOY_PREPARE))
    running = Path("data/own/prepared/text/train.jsonl").read_text()
    assert all(str(row["text"]) in running for row in rows("data/own/prepared/rated/train.jsonl"))
    for split in ("valid", "test"):
        assert not any(str(row["text"]) in running for row in rows(f"data/own/prepared/rated/{split}.jsonl"))


def test_own_files_of_every_kind_are_taken(project: Path) -> None:
    own_files(
        project,
        {
            "one.txt": "First paragraph\nwrapped.\n\nSecond paragraph of this document, long enough to be kept.\n",
            "a.en": "the red house\nthe green car\n",
            "a.de": "das rote Haus\ndas grüne Auto\n",
            "pairs.tsv": "a small dog\tein kleiner Hund\n",
            "rated.tsv": "What a good film\t3,4,2\tmovie\nWhat a bad film\t-3,-4\tmovie\n",
            "chat.jsonl": json.dumps({"messages": [turn("user", "Hi"), turn("assistant", "Hello")]}) + "\n",
        },
    )
    prepare.main(
        configure(
            project,
            "prepare",
            """
text: {sources: [{kind: files, source: mine, into: train}], min_words: 1}
translation:
  sources:
    - {kind: two_files, source: mine, into: train, src: a.en, tgt: a.de}
    - {kind: table, source: mine, into: test, file: pairs.tsv}
rated: {sources: [{kind: table, source: mine, file: rated.tsv}], valid_share: 0, test_share: 0}
conversations: {sources: [{kind: chats, source: mine, into: train, file: chat.jsonl}]}
""",
        )
    )
    assert rows("data/own/prepared/text/train.jsonl")[0]["text"] == (
        "First paragraph wrapped.\nSecond paragraph of this document, long enough to be kept."
    )
    assert [row["tgt"] for row in rows("data/own/prepared/translation/train.jsonl")] == [
        "das rote Haus",
        "das grüne Auto",
    ]
    assert [row["src"] for row in rows("data/own/prepared/translation/test.jsonl")] == ["a small dog"]
    assert rows("data/own/prepared/conversations/train.jsonl")[0]["messages"] == [
        turn("user", "Hi"),
        turn("assistant", "Hello"),
    ]
    assert {row["mean"] for row in rows("data/own/prepared/rated/train.jsonl")} == {3.0, -3.5}


BAD: dict[str, tuple[dict[str, str | bytes], str, str]] = {
    "an empty file": ({"a.txt": ""}, "", "source mine: empty file: a.txt"),
    "a file that takes the place of the data card": ({"card.json": "{}"}, "", r"brings a file card\.json"),
    "text that is not UTF-8": (
        {"a.txt": b"good\nbad \xff byte\n"},
        "text: {sources: [{kind: files, source: mine}]}",
        r"a\.txt:2: not UTF-8: byte 0xff at position 4",
    ),
    "parallel files of different length": (
        {"a.en": "one\ntwo\n", "a.de": "eins\n"},
        "translation: {sources: [{kind: two_files, source: mine, src: a.en, tgt: a.de}]}",
        r"parallel files differ in length: .*a\.en has 2 lines, .*a\.de has 1",
    ),
    "an empty line in a parallel file": (
        {"a.en": "one\ntwo\n", "a.de": "eins\n\n"},
        "translation: {sources: [{kind: two_files, source: mine, into: test, src: a.en, tgt: a.de}]}",
        r"a\.de:2: empty line in a parallel file",
    ),
    "a table with a missing column": (
        {"p.tsv": "one\teins\ntwo\n"},
        "translation: {sources: [{kind: table, source: mine, file: p.tsv}]}",
        r"p\.tsv:2: expected 2 columns between tabs \(src, tgt\), found 1: 'two'",
    ),
    "a rating outside its range": (
        {"r.tsv": "a good film\t3,5\tmovie\n"},
        "rated: {sources: [{kind: table, source: mine, file: r.tsv}]}",
        r"r\.tsv:1: rating 5 is outside -4\.\.4",
    ),
    "a rating that is no number": (
        {"r.tsv": "a good film\t3,good\tmovie\n"},
        "rated: {sources: [{kind: table, source: mine, file: r.tsv}]}",
        r"r\.tsv:1: ratings are whole numbers, found '3,good'",
    ),
    "a role that does not exist": (
        {"c.jsonl": '{"messages": [{"role": "bot", "content": "x"}]}\n'},
        "conversations: {sources: [{kind: chats, source: mine, file: c.jsonl}]}",
        r"c\.jsonl:1: role 'bot' is none of system, user, assistant",
    ),
    "an answer that nobody asked for": (
        {
            "c.jsonl": '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}, '
            '{"role": "assistant", "content": "z"}]}\n'
        },
        "conversations: {sources: [{kind: chats, source: mine, file: c.jsonl}]}",
        r"c\.jsonl:1: the last two messages are the assistant's",
    ),
    "a broken line of JSON": (
        {"c.jsonl": '{"messages": [\n'},
        "conversations: {sources: [{kind: chats, source: mine, file: c.jsonl}]}",
        r"c\.jsonl:1: not JSON",
    ),
    "a source that was not fetched": (
        {"a.txt": "text"},
        "text: {sources: [{kind: files, source: yours}]}",
        r"data/own/raw/yours: no such source; fetch\.yaml has to name it",
    ),
    "no source at all": ({"a.txt": "text"}, "words: ''", "no role has a source"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_is_named_and_nothing_half_written_is_left(project: Path, case: str) -> None:
    files, config, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        own_files(project, files)
        prepare.main(configure(project, "prepare", config))
    assert not Path("data/own/prepared").exists()
    assert not list(project.glob("data/own/.*"))
    assert not Path("metrics/own/prepare.json").exists()


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_ends_in_one_message_and_exit_code_2(
    project: Path, case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files, config, message = BAD[case]

    def launched(main: Callable[[Path], None]) -> Callable[[Path], None]:
        def run(path: Path) -> None:
            monkeypatch.setattr(sys, "argv", [main.__module__, str(path)])
            launch.launch(main)

        return run

    for stage in (fetch, prepare):
        monkeypatch.setattr(stage, "main", launched(stage.main))
    with pytest.raises(SystemExit) as stop:
        own_files(project, files)
        prepare.main(configure(project, "prepare", config))
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert len(re.findall("^error: ", error, re.MULTILINE)) == 1 and "Traceback" not in error
    assert re.search(message, error.partition("error: ")[2])


def test_a_failed_run_leaves_the_earlier_result_as_it_was(project: Path) -> None:
    fetch.main(configure(project, "fetch", TOY))
    before = digest(Path("data/own/raw"))
    with pytest.raises(ValueError, match="no such folder"):
        fetch.main(configure(project, "fetch", "sources: {mine: {kind: folder, path: nowhere}}"))
    assert digest(Path("data/own/raw")) == before


def test_a_link_in_the_users_folder_is_refused(project: Path) -> None:
    (project / "mine").mkdir()
    (project / "mine" / "secret.txt").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match=r"mine/secret\.txt: is a link"):
        fetch.main(configure(project, "fetch", "sources: {mine: {kind: folder, path: mine}}"))


def test_a_full_disk_ends_in_one_line_and_leaves_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    (project / "mine").mkdir()
    (project / "mine" / "a.txt").write_text("text")
    path = configure(project, "fetch", "sources: {mine: {kind: folder, path: mine}}")
    monkeypatch.setattr(sys, "argv", ["fetch", str(path)])
    with pytest.raises(SystemExit) as stop:
        launch.launch(fetch.main)
    message = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert "the disk is full" in message.splitlines()[-1]
    assert "Traceback" not in message
    assert not [path for path in (project / "data").rglob("*") if path.is_file()]


def test_no_network_ends_in_one_line_and_a_non_zero_exit(project: Path) -> None:
    entry = {"kind": "package", "package": "toy", "version": "1", "archive": "toy-1.whl", "licence": "MIT"}
    config = {"sources": {"toy": {**entry, "sha256": "0" * 64, "files": ["*"]}}}
    path = configure(project, "fetch", json.dumps(config))
    command = [sys.executable, "-m", "pipeline.stages.fetch", str(path)]
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_EXTRA_INDEX_URL": "", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=os.environ | nowhere, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert "cannot fetch toy-1.whl: http://127.0.0.1:9/simple: not reachable" in lines[0]
    assert "Traceback" not in ended.stderr


def test_a_hub_data_set_is_written_row_by_row(project: Path) -> None:
    (project / "hub").mkdir()
    (project / "hub" / "train.jsonl").write_text('{"text": "grün", "label": 1}\n{"text": "rot", "label": 0}\n')
    config = "sources: {h: {kind: hub, dataset: hub, revision: abc123, splits: [train], licence: MIT}}"
    fetch.main(configure(project, "fetch", config))
    assert rows("data/own/raw/h/train.jsonl") == [{"text": "grün", "label": 1}, {"text": "rot", "label": 0}]
    card = json.loads(Path("data/own/raw/h/card.json").read_text())
    assert card["version"] == "abc123"
    assert card["counts"] == {"files": 1, "bytes": Path("data/own/raw/h/train.jsonl").stat().st_size}


def test_a_branch_of_the_hub_is_read_and_noted_at_its_commit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def info(self: HfApi, repo_id: str, *, revision: str) -> SimpleNamespace:
        return SimpleNamespace(sha=f"commit of {repo_id} at {revision}")

    def load(path: str, name: str | None, *, split: str, revision: str, streaming: bool) -> SimpleNamespace:
        assert streaming
        read.append(revision)
        return SimpleNamespace(reshard=lambda: [{"text": split}])

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(HfApi, "dataset_info", info)
    monkeypatch.setattr("datasets.load_dataset", load)
    config = "sources: {h: {kind: hub, dataset: own/set, revision: main, splits: [train, test], licence: MIT}}"
    fetch.main(configure(project, "fetch", config))
    card = json.loads(Path("data/own/raw/h/card.json").read_text())
    assert (card["version"], card["commit"]) == ("main", "commit of own/set at main")
    assert read == ["commit of own/set at main"] * 2


def test_the_files_of_a_hub_model_are_copied_and_noted_at_their_commit(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, list[str]]] = []
    download = project / "models--own--bert/snapshots/0123abcd"
    (download / "sub").mkdir(parents=True)
    (download / "config.json").write_text("{}")
    (download / "sub/vocab.txt").write_text("a")

    def snapshot(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(download)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = "kind: hub_model, model: own/bert, revision: main, licence: MIT"
    files = 'files: [config.json, "sub/*.txt"], optional_files: []'
    fetch.main(configure(project, "fetch", f"sources: {{b: {{{model}, {files}}}}}"))
    assert asked == [("own/bert", "main", ["config.json", "sub/*.txt"])]
    card = json.loads(Path("data/own/raw/b/card.json").read_text())
    assert (card["model"], card["version"], card["commit"]) == ("own/bert", "main", "0123abcd")
    assert card["files"].keys() == {"config.json", "sub/vocab.txt"}
    with pytest.raises(ValueError, match=r"hub model own/bert at main: no file fits model.safetensors"):
        fetch.main(configure(project, "fetch", f"sources: {{b: {{{model}, files: [config.json, model.safetensors]}}}}"))


@pytest.mark.parametrize(
    "tokenizer", [("tokenizer.json", "tokenizer_config.json"), ("vocab.txt", "special_tokens_map.json"), ("vocab.txt",)]
)
def test_of_a_hub_model_come_the_weights_and_whatever_it_has_of_a_tokenizer(
    tokenizer: tuple[str, ...], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_the_hub = ("config.json", "model.safetensors", "pytorch_model.bin", "README.md", *tokenizer)

    def snapshot(name: str, *, revision: str, allow_patterns: list[str]) -> str:
        download = project / "models--own--bert/snapshots/0123abcd"
        download.mkdir(parents=True, exist_ok=True)
        for file in on_the_hub:
            if file in allow_patterns:
                (download / file).write_text("{}")
        return str(download)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    model = "kind: hub_model, model: own/bert, revision: main, licence: MIT"
    fetch.main(configure(project, "fetch", f"sources: {{b: {{{model}}}}}"))
    card = json.loads(Path("data/own/raw/b/card.json").read_text())
    assert card["files"].keys() == {"config.json", "model.safetensors", *tokenizer}


def test_a_hub_model_that_is_not_to_be_had_is_named(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, **settings: object) -> str:
        raise OSError("no connection\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    config = "sources: {b: {kind: hub_model, model: own/bert, revision: main, licence: MIT}}"
    with pytest.raises(ValueError, match=r"hub model own/bert at main is not to be had: no connection$"):
        fetch.main(configure(project, "fetch", config))


def test_the_card_holds_the_checksum_of_every_file(project: Path) -> None:
    own_files(project, {"a.txt": "text"})
    card = json.loads(Path("data/own/raw/mine/card.json").read_text())
    assert (card["files"], card["licence"]) == ({"a.txt": hashlib.sha256(b"text").hexdigest()}, "own")
    assert json.loads(Path("data/own/raw/card.json").read_text())["mine"]["counts"] == {"files": 1, "bytes": 4}
