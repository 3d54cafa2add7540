"""A registered model answers over HTTP, from its stored code and weights alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from pipeline.inference.generation import GreedyConfig
from pipeline.inference.handover import save_gpt, save_reward
from pipeline.inference.models import Generator, Scorer, Turn, open_model
from pipeline.models.gpt import GPT, GPTConfig
from pipeline.models.heads import RewardModel
from pipeline.text.tokenizer_training import train_byte_bpe

ROOT = Path(__file__).parents[2]
TEXTS = ["the cat sat on the mat", "a dog ran after the cat"] * 4


@pytest.fixture(scope="module")
def gpt_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT with random weights."""
    torch.manual_seed(0)
    tokenizer = train_byte_bpe(TEXTS, vocab_size=300)
    config = GPTConfig(vocab_size=tokenizer.vocab_size, d_model=16, num_layers=1, num_heads=2, max_length=64)
    folder = tmp_path_factory.mktemp("models") / "gpt"
    save_gpt(folder, GPT(config), tokenizer)
    save_reward(folder.parent / "reward", RewardModel(GPT(config)), tokenizer)
    return folder


def test_an_unknown_folder_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a model folder of GPT2LMHeadModel.*found architectures None"):
        open_model(tmp_path / "nothing")


def longest_text(model: Generator, num_around: int, max_new_tokens: int) -> str:
    """A text that fills the context together with so many special tokens and an answer."""
    room = model.model.config.max_length - num_around - max_new_tokens
    text = "q" * room
    assert len(model.tokenizer.encode(text)) == room
    return text


def test_a_text_is_extended_whole_or_refused_with_both_lengths(gpt_folder: Path) -> None:
    model = open_model(gpt_folder)
    assert isinstance(model, Generator)
    decoding = GreedyConfig(kind="greedy", max_new_tokens=8)
    text = longest_text(model, 1, 8)  # <bos>
    assert len(model.extend([text], decoding)) == 1
    message = r"a text has 57 tokens, the context of 64 leaves 56 beside max_new_tokens 8: 'q+'"
    with pytest.raises(ValueError, match=message):
        model.extend(["the cat", text + "q"], decoding)


def test_old_turns_are_left_out_whole_and_a_turn_that_does_not_fit_is_refused(gpt_folder: Path) -> None:
    model = open_model(gpt_folder)
    assert isinstance(model, Generator)
    decoding = GreedyConfig(kind="greedy", max_new_tokens=8)
    text = longest_text(model, 3, 8)  # <bos>, <user>, <assistant>
    before = [Turn("user", "the cat"), Turn("assistant", "sat")]
    assert model.answer([[*before, Turn("user", text)]], decoding) == model.answer([[Turn("user", text)]], decoding)
    with pytest.raises(ValueError, match=r"a text has 57 tokens, the context of 64 leaves 56"):
        model.answer([[Turn("user", text + "q")]], decoding)


def test_a_score_does_not_depend_on_the_other_conversations(gpt_folder: Path) -> None:
    model = open_model(gpt_folder.parent / "reward")
    assert isinstance(model, Scorer)
    pairs = [[Turn("user", "the cat"), Turn("assistant", answer)] for answer in ("sat", "ran after the dog")]
    assert model.score(pairs) == model.score(pairs[:1]) + model.score(pairs[1:])


REGISTER = """
import sys
from pathlib import Path
from mlflow import MlflowClient
from pipeline.inference.mlflow_model import register
uri = "sqlite:///mlflow.db"
client = MlflowClient(tracking_uri=uri)
experiment = client.create_experiment("e", artifact_location=Path("mlartifacts").absolute().as_uri())
register(Path(sys.argv[1]), "gpt", uri=uri, run_id=client.create_run(experiment).info.run_id)
"""

# An environment without these packages, and without this checkout: what answers is the stored copy of the code.
WITHOUT = f"""
import sys
for name in ("transformers", "deepspeed", "gensim", "lightning"):
    sys.modules[name] = None
sys.path = [path for path in sys.path if path != {str(ROOT)!r}]
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
"""


def test_a_registered_gpt_answers_over_http_without_transformers(gpt_folder: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_DISABLE_TELEMETRY": "true"}
    subprocess.run([sys.executable, "-c", REGISTER, str(gpt_folder)], cwd=tmp_path, env=environment, check=True)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    version = MlflowClient(tracking_uri=uri).get_model_version("gpt", "1")

    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/sitecustomize.py").write_text(WITHOUT)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--model-uri", f"models:/gpt/{version.version}"]
    served = environment | {
        "MLFLOW_TRACKING_URI": uri,
        "PYTHONPATH": str(tmp_path / "blocked"),
        # MLflow starts uvicorn by its name.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, env=served, stdout=log, stderr=log, start_new_session=True)
    try:
        request = {"dataframe_records": [{"text": "the cat"}], "params": {"max_new_tokens": 5, "chat": False}}
        answer = _post(f"http://127.0.0.1:{port}", json.dumps(request).encode(), server, tmp_path / "server.log")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    model = open_model(gpt_folder)
    assert isinstance(model, Generator)
    expected = model.extend(["the cat"], GreedyConfig(kind="greedy", max_new_tokens=5))
    assert json.loads(answer) == {"predictions": [{"text": expected[0]}]}


def _post(address: str, body: bytes, server: "subprocess.Popen[bytes]", log: Path) -> bytes:
    """The answer of a server that may still be starting."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/ping", timeout=5)
        except OSError:
            time.sleep(0.5)
            continue
        request = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
        return bytes(urllib.request.urlopen(request, timeout=60).read())
    raise AssertionError(f"no answer from the server:\n{log.read_text()}")
