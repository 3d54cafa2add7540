"""Every command that runs a model runs it where --device says, with its inputs there too."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from pipeline.data.question_records import Question
from pipeline.inference import packed
from pipeline.inference.answering import Answerer
from pipeline.inference.device import CPU, chosen_device
from pipeline.inference.generation import GreedyConfig
from pipeline.inference.models import (
    BothWaysScorer,
    Classifier,
    Generator,
    Model,
    Scorer,
    Turn,
    open_model,
    put_on,
)
from pipeline.inference.tagger import Tagger
from pipeline.inference.translator import Translator
from pipeline.inference.translator_folder import open_ensemble
from pipeline.inference.word_models import GapFiller, Neighbours
from tests.cli.test_cli import GREEDY, run

COMMANDS = {
    "translate": ["the cat"],
    "generate": [*GREEDY, "the cat"],
    "chat": [*GREEDY, "the cat"],
    "classify": ["the cat"],
    "tag": ["the cat"],
    "fill-mask": ["the [MASK] sat"],
    "score": ["the cat\tsat"],
    "answer": ["the cat sat", "who sat"],
}
FOLDERS = (
    "translate/transformer",
    "pretrain_gpt",
    "finetune/polarity",
    "finetune/polarity-bilstm",
    "finetune/tags",
    "pretrain_bert",
    "pretrain_bilm",
    "reward",
    "finetune/squad",
)


def has_cuda(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: number > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: number)


def test_auto_is_cuda_where_it_is_found_and_the_cpu_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    has_cuda(monkeypatch, 2)
    assert chosen_device("auto") == torch.device("cuda")
    assert [chosen_device(name) for name in ("cpu", "cuda", "cuda:1")] == [
        CPU,
        torch.device("cuda"),
        torch.device("cuda:1"),
    ]
    has_cuda(monkeypatch, 0)
    assert chosen_device("auto") == chosen_device("cpu") == CPU


@pytest.mark.parametrize(
    ("name", "number", "message"),
    [
        ("cuda", 0, "--device cuda: PyTorch .* finds no CUDA device here; cpu always works"),
        ("cuda:0", 0, "--device cuda:0: PyTorch .* finds no CUDA device here"),
        ("cuda:2", 2, r"--device cuda:2: found 2 CUDA device\(s\), counted from 0"),
        ("gpu", 2, "--device: found 'gpu', allowed are auto, cpu, cuda and cuda:NUMBER"),
        ("cuda:", 2, "--device: found 'cuda:'"),
        ("", 2, "--device: found ''"),
    ],
)
def test_a_device_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int, message: str
) -> None:
    has_cuda(monkeypatch, number)
    with pytest.raises(ValueError, match=message):
        chosen_device(name)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_moves_every_parameter_to_the_device_that_it_was_told(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    moved: list[tuple[nn.Module, torch.device]] = []

    def to(module: nn.Module, device: torch.device) -> nn.Module:
        moved.append((module, device))
        return module

    monkeypatch.setattr(nn.Module, "to", to)
    has_cuda(monkeypatch, 4)
    answered = run(capsys, command, "--device", "cuda:3", *COMMANDS[command])
    assert answered[0] == 0 and [device for _, device in moved] == [torch.device("cuda:3")]
    assert run(capsys, command, *COMMANDS[command]) == answered
    assert [device for _, device in moved] == [torch.device("cuda:3"), torch.device("cuda")]
    has_cuda(monkeypatch, 0)
    code, lines, error = run(capsys, command, "--device", "cuda", *COMMANDS[command])
    assert (code, lines) == (2, []) and error.startswith("error: --device cuda: PyTorch")


class _Seen(Exception):
    """Raised where the first module of a model is called."""


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_inputs_of_a_model_are_where_its_parameters_are(inside: Path, folder: str) -> None:
    # The device meta computes nothing, and takes no tensor of another.
    model = open_model(inside / "models/tiny" / folder, torch.device("meta"))
    seen: list[str] = []

    def look(module: nn.Module, arguments: tuple[object, ...]) -> None:
        seen.extend(one.device.type for one in arguments if isinstance(one, Tensor))
        raise _Seen

    hook = register_module_forward_pre_hook(look)
    try:
        with pytest.raises(_Seen):
            _asked(model)()
    finally:
        hook.remove()
    assert seen and set(seen) == {"meta"}


@pytest.mark.skipif(not packed.can_pack(), reason="this PyTorch has no packed product, or this CPU no AVX-512")
@pytest.mark.parametrize("folder", FOLDERS)
def test_each_kind_of_model_says_the_same_with_its_layers_packed_for_the_cpu(
    inside: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    plain = open_model(inside / "models/tiny" / folder)
    monkeypatch.setattr(packed, "_LEAST_ELEMENTS", 1)
    model = open_model(inside / "models/tiny" / folder)
    assert not isinstance(model, Neighbours)
    assert any(isinstance(part, packed.PackedLinear) for part in model.model.modules())
    assert _rounded(_asked(model)()) == _rounded(_asked(plain)())


def test_all_models_of_an_ensemble_are_moved(inside: Path) -> None:
    folder = inside / "models/tiny/translate"
    ensemble = open_ensemble([folder / "transformer", folder / "second"])
    put_on(ensemble, torch.device("meta"))
    models = (ensemble.model, *ensemble.others)
    assert [{one.device.type for one in model.parameters()} for model in models] == [{"meta"}, {"meta"}]


def _rounded(answer: object) -> str:
    """An answer as text, its numbers to two places: products add up in an order of their own."""
    return re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda found: f"{float(found[0]) + 0.0:.2f}", repr(answer))


def _asked(model: Model) -> Callable[[], object]:
    """A question to a model."""
    match model:
        case Translator():
            return lambda: model.translate(["the cat"])
        case Generator():
            return lambda: model.extend(["the cat"], GreedyConfig(kind="greedy", max_new_tokens=2))
        case Classifier():
            return lambda: model.classify(["the cat"])
        case Tagger():
            return lambda: model.find(["the cat"])
        case GapFiller():
            return lambda: model.fill(["the [MASK]"])
        case BothWaysScorer():
            return lambda: model.score(["the cat"])
        case Scorer():
            return lambda: model.score([[Turn("user", "the"), Turn("assistant", "cat")]])
        case Answerer():
            return lambda: model.answer([Question("x", "who sat", "the cat sat", is_labelled=False)])
    raise AssertionError(model)
