"""A model that is not there is made by what the message says, whichever command asks for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands.models import folder_of
from tests.cli.conftest import ROOT
from tests.cli.test_cli import piped, run

REMEDIES = {
    "translate": "models/cpu/translate/transformer: no such folder; make it with: dvc repro translate@transformer",
    "generate": "models/cpu/pretrain_gpt: no such folder; make it with: dvc repro pretrain_gpt",
    "chat": "models/cpu/dpo: no such folder; make it with: dvc repro dpo",
    "classify": "models/cpu/finetune/polarity: no such folder; make it with: dvc repro finetune@polarity",
    "fill-mask": "models/cpu/pretrain_bert: no such folder; make it with: dvc repro pretrain_bert",
    "similar": "models/cpu/word_vectors/skipgram: no such folder; make it with: dvc repro word_vectors@skipgram",
    "score": "models/cpu/reward: no such folder; make it with: dvc repro reward",
    "tag": "models/cpu/finetune/tags: no such folder; no configuration conf/cpu/finetune/tags.yaml makes it: write one",
    "answer": "models/cpu/finetune/squad: no such folder; no configuration conf/cpu/finetune/squad.yaml makes it:",
}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh clone: configurations and graph, and no model."""
    for name in ("conf", "dvc.yaml"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", REMEDIES)
def test_a_command_without_its_model_says_what_makes_it(
    clone: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    texts = ["the cat", "who"] if command == "answer" else ["cat"]
    code, lines, error = run(capsys, command, "--profile", "cpu", *texts)
    assert (code, lines) == (2, [])
    assert error.startswith(f"error: {REMEDIES[command]}") and error.count("\n") == 1


def test_the_model_of_another_profile_is_made_with_that_profile(clone: Path) -> None:
    with pytest.raises(ValueError, match=r"dvc repro finetune@rating, with `profile: tiny` in conf/profile.yaml$"):
        folder_of(Path("models/tiny/finetune/rating"), "", "x")


def test_a_model_beside_the_graph_is_made_by_its_stage(clone: Path) -> None:
    config = "conf/paper/finetune/squad.yaml"
    with pytest.raises(ValueError, match=rf"make it with: python -m pipeline.stages.finetune {config}$"):
        folder_of(Path("models/paper/finetune/squad"), "", "x")


def test_the_package_itself_is_the_command(clone: Path) -> None:
    found = subprocess.run([sys.executable, "-m", "pipeline", "--help"], cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout.startswith("usage: pipeline [-h] COMMAND")
    assert piped(ROOT, ["--help"], b"").stdout.decode() == found.stdout


def test_a_stage_prints_how_it_is_used() -> None:
    command = [sys.executable, "-m", "pipeline.stages.fetch", "--help"]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "usage: python -m pipeline.stages.fetch conf/PROFILE/STAGE.yaml\n"


def test_the_help_of_a_command_keeps_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(capsys, "fill-mask", "--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "Fill each [MASK] of texts; prints" in shown
