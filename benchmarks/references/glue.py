"""The reference of a number on GLUE: transformers' Trainer on the same weights, files and settings, on this machine.

python -m benchmarks.references.glue --number ID [--threads N]

It reads conf/numbers/ID/finetune/TASK/SEED.yaml, and the data and the encoder that `make reproduce NUMBER=ID` fetched
and prepared, fine-tunes BertForSequenceClassification under the Trainer once for each file, and scores the dev set with
the same functions as our own runs. Rows of similar length are together, padded to the longest of their batch: the
Trainer's best setting for texts; as it comes, it takes rows in random order, and scripts for GLUE pad them to 128.
Every run is a process of its own and does what a stage of ours does: it encodes the texts, trains, scores the dev set
and saves as often, and predicts at the end. Seconds are those of the whole process. What is done is written after every
run into the file that number.yaml names as its reference, and not done again unless the configuration has changed.

Threads are those that `make reproduce` uses, so that the times of both can be compared: all, or OMP_NUM_THREADS. The
report takes the reference in when `make reproduce NUMBER=ID` is called again.
"""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.shared.apart import apart
from benchmarks.shared.options import parser
from pipeline.artifacts import read_json, write_json
from pipeline.config import ByExamples, Epochs, load
from pipeline.data.examples.classification import LabelledText
from pipeline.data.preparing.glue import TASKS, GlueName
from pipeline.evaluation.glue import classification_score, regression_score
from pipeline.layout import Layout
from pipeline.numbers.made import machine, versions
from pipeline.numbers.number import Number, open_number
from pipeline.numbers.report import configuration_of
from pipeline.numbers.tasks import task_of
from pipeline.stages.finetune import FinetuneConfig
from pipeline.stages.finetune_sources import GlueTaskConfig, glue_texts, sources
from pipeline.stages.finetune_texts import glue_figure

_RECORDED = ("ours", "seconds", "seeds", "configurations")
"""What is kept of the runs of a task, in one order."""


def main(arguments: Sequence[str] | None = None) -> None:
    choices = parser("references.glue", __doc__, "threads")
    choices.set_defaults(threads=int(machine()["threads"]))
    choices.add_argument("--number", required=True, help="a number whose number.yaml names a reference")
    options = choices.parse_args(arguments)
    torch.set_num_threads(options.threads)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    number = open_number(options.number)
    if not number.config.reference:
        raise SystemExit(f"error: {options.number}: its number.yaml names no reference")
    file = Path(number.config.reference)
    begun = {"machine": machine(), "versions": made_with()}
    found: dict[str, Any] = read_json(file) if file.is_file() else {**begun, "tasks": {}}
    for name, here in begun.items():
        if found[name] != here:
            raise SystemExit(
                f"error: {file}: {name}: its runs were made with {found[name]}, here it is {here}: "
                "remove the file to begin anew here"
            )
    _warn_of_other_machines(number)
    found["source"] = "transformers' Trainer, rows of similar length together"
    for path in number.deciding_runs:
        task = found["tasks"].setdefault(task_of(path), {name: [] for name in _RECORDED})
        config, configuration = load(path, FinetuneConfig), configuration_of(number, path)
        if config.training.seed in task["seeds"]:
            place = task["seeds"].index(config.training.seed)
            if task["configurations"][place] == configuration:
                continue
            for name in _RECORDED:
                del task[name][place]
        started = perf_counter()
        score = apart(options.threads, train_file, path)
        seconds = perf_counter() - started
        task["ours"].append(score["glue"])
        task["seconds"].append(round(seconds, 1))
        task["seeds"].append(config.training.seed)
        task["configurations"].append(configuration)
        write_json(file, found)
        print(f"{task_of(path)}, seed {config.training.seed}: {score}, {seconds:.0f} s", flush=True)


def _warn_of_other_machines(number: Number) -> None:
    """Says before the first training that its time will have nothing beside it."""
    report = read_json(number.report) if number.report.is_file() else {}
    others = [name for name, made in report.get("made", {}).items() if made["machine"] != machine()]
    if others:
        sys.stderr.write(
            f"warning: {number.report}: {len(others)} runs, as {others[0]}, were made on "
            f"{report['made'][others[0]]['machine']}, this is {machine()}: their times cannot be compared; "
            f"call make reproduce NUMBER={number.id} here, or this with the same --threads\n"
        )


def train_file(path: Path) -> dict[str, float]:
    """`train` with the configuration of a run and the texts that the stage prepare made for it."""
    config = load(path, FinetuneConfig)
    assert isinstance(config.task, GlueTaskConfig)
    (folder,) = sources(config.task, Layout.of(path))
    return train(config, glue_texts(folder, config.task.name), config.task.name, dynamic=True)


def train(
    config: FinetuneConfig, texts: Mapping[str, Sequence[LabelledText]], name: GlueName, *, dynamic: bool
) -> dict[str, float]:
    """The scores on the dev set; with `dynamic`, rows of similar length are together."""
    from transformers import AutoTokenizer, BertForSequenceClassification, DataCollatorWithPadding, Trainer

    classes = TASKS[name].classes
    tokenizer = AutoTokenizer.from_pretrained(config.encoder)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    rows: Any = {
        split: _encode(tokenizer, texts[split], classes, config, dynamic=dynamic) for split in ("train", "valid")
    }
    torch.manual_seed(config.training.seed)
    model = BertForSequenceClassification.from_pretrained(
        config.encoder,
        num_labels=max(1, len(classes)),
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        classifier_dropout=config.dropout,
    )
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            args=_settings(config, scratch, dynamic=dynamic),
            train_dataset=rows["train"],
            eval_dataset=rows["valid"],
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train()
        predicted = trainer.predict(rows["valid"])
    # The Trainer groups these rows by length too: the labels are those in its order.
    predictions, labels = np.asarray(predicted.predictions), np.asarray(predicted.label_ids)
    if classes:
        score = asdict(classification_score(predictions.argmax(-1), labels, num_classes=len(classes)))
    else:
        score = asdict(regression_score(predictions[:, 0].astype(np.float64), labels.astype(np.float64)))
    return {**score, "glue": glue_figure(score, TASKS[name].scores)}


def _encode(
    tokenizer: Any, texts: Sequence[LabelledText], classes: tuple[str, ...], config: FinetuneConfig, *, dynamic: bool
) -> list[dict[str, Any]]:
    second = [text.second or "" for text in texts] if texts[0].second is not None else None
    encoded = tokenizer(
        [text.text for text in texts],
        second,
        truncation=True,
        max_length=config.max_length,
        padding=False if dynamic else "max_length",
    )
    labels = [classes.index(text.label) if classes else float(text.label) for text in texts]
    return [{key: encoded[key][i] for key in encoded} | {"labels": label} for i, label in enumerate(labels)]


def _settings(config: FinetuneConfig, folder: str, *, dynamic: bool) -> Any:
    """The settings of a configuration as the Trainer's."""
    from transformers import TrainingArguments

    training, optimizer = config.training, config.training.optimizer
    assert isinstance(training.batching, ByExamples) and isinstance(training.duration, Epochs)
    return TrainingArguments(
        output_dir=folder,
        seed=training.seed,
        per_device_train_batch_size=training.batching.examples_per_step,
        per_device_eval_batch_size=64,
        num_train_epochs=training.duration.num_epochs,
        learning_rate=optimizer.lr,
        adam_beta1=optimizer.betas[0],
        adam_beta2=optimizer.betas[1],
        adam_epsilon=optimizer.eps,
        weight_decay=optimizer.weight_decay,
        max_grad_norm=optimizer.clip_norm,
        lr_scheduler_type="linear",
        warmup_steps=training.schedule.num_warmup_steps,
        train_sampling_strategy="group_by_length" if dynamic else "random",
        eval_strategy="steps",
        eval_steps=training.validate_every,
        save_strategy="steps",
        save_steps=training.checkpoint_every,
        save_total_limit=1,
        logging_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )


def made_with() -> dict[str, str]:
    """Versions of our packages and of the Trainer's."""
    return {**versions(), "transformers": version("transformers")}


if __name__ == "__main__":
    main()
