"""What the README tells people to write is what the program reads."""

import re
from pathlib import Path
from typing import get_args

import pytest

from pipeline.commands.options import parser
from pipeline.config import Config, OptimizerConfig, load
from pipeline.data.corpus import PrepareConfig
from pipeline.data.sources import FetchConfig
from pipeline.layout import Layout
from pipeline.models.recurrent import DropoutRates, RecurrentConfig
from pipeline.models.seq2seq import TransformerConfig
from pipeline.numbers.number import NumberConfig
from pipeline.numbers.tasks import TaskFigures
from pipeline.stages.finetune import FinetuneConfig
from pipeline.stages.tokenize import TokenizeConfig
from pipeline.stages.translate import TranslateConfig

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SCHEMAS: dict[str, type[Config]] = {
    "fetch": FetchConfig,
    "prepare": PrepareConfig,
    "finetune/reviews": FinetuneConfig,
}


@pytest.mark.parametrize("stage", sorted(SCHEMAS))
def test_the_examples_of_own_data_are_valid(stage: str, tmp_path: Path) -> None:
    (block,) = re.findall(rf"```yaml\n# conf/mine/{stage}\.yaml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / f"{Path(stage).name}.yaml"
    path.write_text(block)
    load(path, SCHEMAS[stage])


def test_the_commands_for_people_exist() -> None:
    commands = re.findall(r"^(?:.*\| )?pipeline ([\w-]+)", README, re.MULTILINE)
    assert {"translate", "classify", "generate", "chat", "similar", "score"} <= set(commands)
    for command in commands:
        with pytest.raises(SystemExit) as ended:
            parser().parse_args([command, "--help"])
        assert ended.value.code == 0


def test_runtimes_and_paths_that_are_named_exist() -> None:
    for runtime in re.findall(r"PIPELINE_RUNTIME=(\w+)", README):
        assert (ROOT / "conf/runtime" / f"{runtime}.yaml").is_file()
    named = set(re.findall(r"\b(?:conf|pipeline|docker|benchmarks|tests)/[\w/.*-]*[\w*/]", README))
    assert {
        "conf/numbers/glue-bert-base",
        "conf/cpu/finetune/polarity-*.yaml",
        "conf/paper/translate/big.yaml",
    } <= named
    for path in named:
        # The reader's own files, and names that stand for others.
        if not path.startswith("conf/mine") and not re.search("[A-Z]{2}", path):
            assert any(ROOT.glob(path.rstrip("/"))), path


@pytest.mark.parametrize("name", ["README.md", "docs/details.md"])
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


def test_a_registered_model_that_is_named_is_that_of_a_stage() -> None:
    names = {name for line in README.splitlines() for name in re.findall(r"[`/](cpu-[\w-]+)", line)}
    known = {Layout.of(path).model_name for path in (ROOT / "conf/cpu").rglob("*.yaml")}
    assert len(names) >= 5 and names <= known


def test_a_swept_key_exists() -> None:
    from omegaconf import OmegaConf

    swept = re.findall(r"-S '([^':]+):([\w.]+)=", README)
    assert len(swept) == len(re.findall(r"-S ", README))
    assert {"conf/cpu/dpo.yaml", "conf/cpu/finetune/polarity.yaml"} <= {file for file, _ in swept}
    for file, key in swept:
        assert OmegaConf.select(OmegaConf.load(ROOT / file), key) is not None, f"{file}:{key}"


def test_the_options_of_translation_models_are_those_of_their_configurations() -> None:
    (section,) = re.findall(r"^## Translation models\n(.*?)^\|", README, re.DOTALL | re.MULTILINE)
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
    (section,) = re.findall(r"^## Published numbers\n(.*?)^<!--", README, re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"`([a-z_]+)(?:: \w+)?`", section))
    of_tasks = {"beside_tasks", "pretraining"}
    assert named == {"reads_test", "above", "byte_bpe", *of_tasks}
    assert "`reads_test: false` of `translate/*.yaml` keeps the test set closed" in " ".join(section.split())
    assert TranslateConfig.model_fields["reads_test"].annotation is bool
    assert "above" in NumberConfig.model_fields and of_tasks <= TaskFigures.model_fields.keys()
    assert "byte_bpe" in TokenizeConfig.model_fields


def test_the_options_of_an_estimate_exist() -> None:
    (paragraph,) = re.findall(r"^`pipeline estimate CONFIG.*?\n\n", README, re.DOTALL | re.MULTILINE)
    options = set(re.findall(r"--(\w+)", paragraph))
    assert {"gpus", "step"} <= options
    assert options <= vars(parser().parse_args(["estimate", "conf/tiny/pretrain_gpt.yaml"])).keys()


def test_every_benchmark_and_picture_that_is_named_exists() -> None:
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    table = README.partition("<!-- speed")[2].partition("<!-- end of speed")[0]
    named = set(re.findall(r"`(\w+)` \|$", table, re.MULTILINE))
    assert {"translate_training", "translate_decoding"} <= named
    assert named | set(re.findall(r"python -m benchmarks\.(\w+)", README)) <= scripts
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / picture).stat().st_size < 60_000, picture
