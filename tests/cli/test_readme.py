"""What the README and the files of docs/ tell people to write is what the program reads."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from pipeline.artifacts import read_json
from pipeline.commands.options import parser
from pipeline.config import Config, OptimizerConfig, load
from pipeline.data.fetching.sources import FetchConfig
from pipeline.data.preparing.corpus import PrepareConfig
from pipeline.data.preparing.tasks import TaskSource
from pipeline.layout import Layout
from pipeline.models.recurrent import DropoutRates, RecurrentConfig
from pipeline.models.seq2seq import TransformerConfig
from pipeline.numbers.number import NumberConfig, open_number
from pipeline.numbers.tasks import TaskFigures
from pipeline.stages.finetune import FinetuneConfig
from pipeline.stages.pretrain_bert import PretrainBertConfig
from pipeline.stages.tokenize import TokenizeConfig
from pipeline.stages.translate import TranslateConfig

ROOT = Path(__file__).parents[2]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}
README = PAGES["README.md"]
ALL = "\n".join(PAGES.values())
SCHEMAS: dict[str, type[Config]] = {
    "fetch": FetchConfig,
    "prepare": PrepareConfig,
    "tokenize": TokenizeConfig,
    "finetune/reviews": FinetuneConfig,
}
OF_TINY: dict[str, type[Config]] = {"tokenize": TokenizeConfig, "pretrain_bert": PretrainBertConfig}
"""Stages without a complete example: a part takes the place of keys of the profile tiny."""
GPT2 = "runs/my-bert/data/raw/gpt2"
PART = re.compile(r"```yaml\n# part of conf/mine/(\w+)(?:/\w+)?\.yaml\n(.*?)```", re.DOTALL)
"""A block with keys that take the place of those of the complete example: its stage and its text."""


def whole(stage: str) -> str:
    """The complete example of a stage."""
    (block,) = re.findall(rf"```yaml\n# conf/mine/{stage}\.yaml\n(.*?)```", ALL, re.DOTALL)
    return str(block)


@pytest.mark.parametrize("stage", sorted(SCHEMAS))
def test_the_examples_of_own_data_are_valid(stage: str, tmp_path: Path) -> None:
    path = tmp_path / f"{Path(stage).name}.yaml"
    path.write_text(whole(stage))
    load(path, SCHEMAS[stage])


def test_the_parts_of_examples_are_valid_in_their_files(tmp_path: Path) -> None:
    parts = PART.findall(PAGES["own-data.md"])
    # All that is shown as YAML is read here or above.
    assert len(parts) + len(SCHEMAS) == ALL.count("```yaml")
    examples = {stage.partition("/")[0]: stage for stage in SCHEMAS}
    read: dict[str, list[Any]] = {stage: [] for stage in examples}
    for stage, block in parts:
        path = tmp_path / f"{stage}.yaml"
        if stage in OF_TINY:
            complete = yaml.safe_load((ROOT / f"conf/tiny/{stage}.yaml").read_text())
            path.write_text(yaml.safe_dump(complete | yaml.safe_load(block)))
            load(path, OF_TINY[stage])
            continue
        example = examples[stage]
        path.write_text(yaml.safe_dump(yaml.safe_load(whole(example)) | yaml.safe_load(block)))
        read[stage].append(load(path, SCHEMAS[example]))
    tasks = {task.kind for config in read["prepare"] for task in config.tasks.values()}
    assert tasks == kinds(TaskSource)
    pairs = {source.kind for config in read["prepare"] for source in config.translation.sources}
    assert {"two_files", "table", "rows"} <= pairs
    assert {"glue", "tagging", "questions"} <= {config.task.kind for config in read["finetune"]}
    assert {source.kind for config in read["fetch"] for source in config.sources.values()} == {"hub", "hub_model"}


def kinds(union: Any) -> set[str]:
    """The tags of a union of configurations that differ in `kind`."""
    return {get_args(one.model_fields["kind"].annotation)[0] for one in get_args(get_args(union)[0])}


def test_the_commands_for_people_exist() -> None:
    commands = re.findall(r"^(?:.*\| )?pipeline ([\w-]+)", ALL, re.MULTILINE)
    assert {"translate", "classify", "generate", "chat", "similar", "score", "bleu"} <= set(commands)
    commands += re.findall(r"`pipeline ([\w-]+)", ALL)
    for command in set(commands) - {"COMMAND"}:
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([command, "--help"])
        assert ended.value.code == 0


def test_runtimes_and_paths_that_are_named_exist() -> None:
    runtimes = set(re.findall(r"PIPELINE_RUNTIME=(\w+)", ALL))
    assert {"zero2", "ddp_two_nodes", "gpu_fp16", "cpu_bf16"} <= runtimes
    for runtime in runtimes:
        assert (ROOT / "conf/runtime" / f"{runtime}.yaml").is_file()
    named = set(re.findall(r"\b(?:conf|pipeline|docker|benchmarks|tests)/[\w/.*-]*[\w*/]", ALL))
    assert {
        "conf/numbers/glue-bert-base",
        "conf/cpu/finetune/polarity-*.yaml",
        "conf/paper/translate/big.yaml",
        "conf/tiny/translate/gru.yaml",
        "tests/objectives/",
    } <= named
    for path in named:
        # The reader's own files, and names that stand for others.
        if not path.startswith(("conf/mine", "conf/numbers/my-bert")) and not re.search("[A-Z]{2}", path):
            assert any(ROOT.glob(path.rstrip("/"))), path


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{name}" for name in sorted(PAGES) if name != "README.md")])
def test_a_link_leads_to_a_file_that_is_handed_on_and_to_a_heading_of_it(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    for target, _, heading in (link.partition("#") for link in re.findall(r"\]\(([^):]+)\)", text)):
        path = (ROOT / name).parent / (target or Path(name).name)
        assert path.is_file() and not any(path.match(pattern) for pattern in ignored if pattern), target
        headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
        assert not heading or heading in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}, (
            heading
        )


def test_the_readme_leads_to_every_file_of_docs() -> None:
    linked = {link.partition("#")[0] for link in re.findall(r"\]\((docs/[^)]+)\)", README)}
    assert linked == {f"docs/{name}" for name in PAGES} - {"docs/README.md"} and len(linked) >= 7


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_line_that_people_read_is_short(name: str) -> None:
    text = re.sub(
        r"^ *```.*?^ *```$|^<!-- (\w+):.*?^<!-- end of \1 -->$", "", PAGES[name], flags=re.DOTALL | re.MULTILINE
    )
    assert [line for line in text.splitlines() if len(line) > 120 and not line.startswith("|")] == []


def test_a_registered_model_that_is_named_is_that_of_a_stage() -> None:
    page = PAGES["runs-and-serving.md"]
    names = {name for line in page.splitlines() for name in re.findall(r"[`/](cpu-[\w-]+)", line)}
    known = {Layout.of(path).model_name for path in (ROOT / "conf/cpu").rglob("*.yaml")}
    assert len(names) >= 5 and names <= known


def test_a_swept_key_exists() -> None:
    from omegaconf import OmegaConf

    swept = re.findall(r"-S '([^':]+):([\w.]+)=", ALL)
    assert len(swept) == len(re.findall(r"-S ", ALL))
    assert {"conf/cpu/dpo.yaml", "conf/cpu/finetune/polarity.yaml"} <= {file for file, _ in swept}
    for file, key in swept:
        assert OmegaConf.select(OmegaConf.load(ROOT / file), key) is not None, f"{file}:{key}"


def test_the_options_of_translation_models_are_those_of_their_configurations() -> None:
    (section,) = re.findall(
        r"^# Translation models\n(.*?)^\|", PAGES["translation-models.md"], re.DOTALL | re.MULTILINE
    )
    configs = (RecurrentConfig, TransformerConfig, TranslateConfig, DropoutRates, OptimizerConfig)
    fields = {name: field for one in configs for name, field in one.model_fields.items()}
    choices = {choice for field in fields.values() for choice in get_args(field.annotation) if isinstance(choice, str)}
    named = set(re.findall(r"`([a-z_]+)`", section))
    assert {"cell", "lstm", "local_p", "input_feeding", "truncate_steps", "norm", "learned"} <= named
    assert named <= set(fields) | choices
    for config in (RecurrentConfig, TransformerConfig):
        for name, field in config.model_fields.items():
            own = {choice for choice in get_args(field.annotation) if isinstance(choice, str)}
            assert name == "kind" or own <= named, name


def test_the_keys_that_published_numbers_speak_of_are_those_of_their_files() -> None:
    page = PAGES["published-numbers.md"]
    (section,) = re.findall(r"^## Published numbers\n(.*?)^<!--", README, re.DOTALL | re.MULTILINE)
    assert re.findall(r"`([a-z_]+)(?:: \w+)?`", section) == []
    # Another program is no key, and neither is the name of a source.
    named = set(re.findall(r"`([a-z_]+)(?:: \w+)?`", page)) - {"transformers", "bert"}
    of_tasks = {"beside_tasks", "pretraining"}
    of_number = {"above", "source", "reported", "reach", "goals", "tasks", "average_of", "key"}
    of_report = {"made", "machine_before", "threads"}
    assert named == {"reads_test", "byte_bpe", "max_length", *of_number, *of_tasks, *of_report}
    report = read_json(ROOT / "reports/numbers/multi30k-en-de.json")
    assert {"made", "machine_before"} <= report.keys() and "threads" in report["machine"]
    assert "`reads_test: false` of `translate/*.yaml` keeps the test set closed" in " ".join(page.split())
    assert TranslateConfig.model_fields["reads_test"].annotation is bool
    assert "max_length" in FinetuneConfig.model_fields
    assert of_number <= NumberConfig.model_fields.keys() and of_tasks <= TaskFigures.model_fields.keys()
    assert "byte_bpe" in TokenizeConfig.model_fields


def test_the_commands_for_a_bert_of_ones_own_make_a_number_with_three_seeds_of_each_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = PAGES["published-numbers.md"].partition("\n## A BERT of your own on GLUE\n")[2].partition("\n## ")[0]
    copied, reduced = re.findall(r"```\n(.*?)```", section, re.DOTALL)
    assert copied.endswith("make reproduce NUMBER=my-bert\n")
    shutil.copytree(ROOT / "conf/numbers/glue-bert-base", tmp_path / "conf/numbers/glue-bert-base")
    monkeypatch.chdir(tmp_path)
    for commands, num_runs, encoders in (
        (copied.replace("make reproduce", ": make reproduce"), 135, {"models/mine/pretrain_bert", GPT2}),
        (reduced, 27, {"models/mine/pretrain_bert"}),
    ):
        subprocess.run(["bash", "-ec", commands], check=True)
        number = open_number("my-bert")
        runs = {path: load(path, FinetuneConfig) for path in number.runs}
        assert (len(runs), len(number.deciding_runs)) == (num_runs, 27)
        assert {run.encoder for run in runs.values()} == encoders
        assert all(path.stem == f"seed-{run.training.seed}" for path, run in runs.items())
        assert f"{num_runs} " in section


def test_the_options_of_an_estimate_exist() -> None:
    found = re.findall(r"^(?:- )?`pipeline estimate CONFIG.*?\n\n", ALL, re.DOTALL | re.MULTILINE)
    assert len(found) == ALL.count("`pipeline estimate CONFIG")
    options = set(re.findall(r"--(\w+)", "".join(found)))
    assert {"gpus", "step"} <= options
    assert options <= vars(parser().parse_args(["estimate", "conf/tiny/pretrain_gpt.yaml"])).keys()


def test_every_benchmark_and_picture_that_is_named_exists() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    table = PAGES["benchmarks.md"].partition("<!-- speed")[2].partition("<!-- end of speed")[0]
    named = set(re.findall(r"`(\w+)` \|$", table, re.MULTILINE))
    assert {"translate_training", "translate_decoding"} <= named
    assert named | set(re.findall(r"python -m benchmarks\.(\w+)(?![\w.])", ALL)) <= scripts
    assert all(
        (ROOT / "benchmarks/references" / f"{name}.py").is_file()
        for name in re.findall(r"python -m benchmarks\.references\.(\w+)", ALL)
    )
    pictures = re.findall(r"!\[[^]]*\]\(([^)]+)\)", PAGES["translation-models.md"])
    assert pictures and ALL.count("![") == len(pictures)
    for picture in pictures:
        assert (ROOT / "docs" / picture).stat().st_size < 60_000, picture


def test_the_environment_variables_are_those_that_the_program_reads() -> None:
    table = README.partition("\n## Environment variables\n")[2].partition("\n## ")[0]
    named = [name for row in re.findall(r"^\| (`[^|]*) \|", table, re.MULTILINE) for name in re.findall(r"\w+", row)]
    read = {path: path.read_text() for path in (ROOT / "pipeline").rglob("*.py")}
    ours = {name for text in read.values() for name in re.findall(r"\bPIPELINE_[A-Z_]+\b", text)}
    assert {name for name in named if name.startswith("PIPELINE_")} == ours
    others = [*read.values(), (ROOT / "Makefile").read_text(), (ROOT / "docker/compose.yaml").read_text()]
    others += [path.read_text() for path in (ROOT / "tests/foundations").glob("*.py")]
    assert len(set(named)) == len(named) >= 12
    assert [name for name in named if not any(re.search(rf"\b{name}\b", text) for text in others)] == []
