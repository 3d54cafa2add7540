"""`make reproduce`: runs the stages of one published number beside the chain, and writes what they measured.

Each stage is a process of its own into runs/ID/. A stage is run again only when its code, its configuration or a stage
before it has changed; one that is cut off goes on from its checkpoint. The time of all attempts counts, also of those
before a change that the stage does not notice, since what it reads came out the same.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pipeline.artifacts import read_json, write_json
from pipeline.config import load
from pipeline.data.fetching.sources import GIVEN, FetchConfig
from pipeline.layout import Layout
from pipeline.numbers.made import Made, machine, versions
from pipeline.numbers.number import Number, all_numbers, open_number
from pipeline.numbers.report import conventions, read_reports, write_report
from pipeline.numbers.stages import stage_of
from pipeline.numbers.table import order, shown, write_readme
from pipeline.provenance import content_hash, module_sources
from pipeline.runtime import resume_mode

_SECONDS_BETWEEN_NOTES = 10.0


def main(arguments: list[str]) -> int:
    """Runs the number that is named, or lists all when none is; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make reproduce NUMBER=ID DATA=FOLDER", description=__doc__)
    parser.add_argument("number", nargs="?", default="")
    parser.add_argument("--data", default="", help="folder with the files of the benchmark")
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        metavar="NAME",
        help="train this one alone, as seed-2 or RTE/seed-2; the report keeps what it has of the others",
    )
    options = parser.parse_args(arguments)
    try:
        if not options.number:
            sys.stdout.write(f"{overview()}\n")
            return 0
        if options.data:
            os.environ[GIVEN] = str(Path(options.data).absolute())
        return reproduce(open_number(options.number), run_stage, only=options.run)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2


def overview() -> str:
    """A line for each number: its figures, what it needs and how many runs it has; its note in another one below."""
    ours = {report["id"]: report for report in read_reports()}
    lines = ["make reproduce NUMBER=ID DATA=FOLDER, with one of"]
    for name in all_numbers():
        number = open_number(name)
        config = number.config
        found = f"ours {shown(ours[name]['mean'])}" if name in ours else "not run yet"
        runs = f"{len(number.runs)} run{'s' if len(number.runs) > 1 else ''}"
        lines.append(
            f"  {name:28} published {shown(config.reported)}, {found}; {runs}; {_needs(number)}; {config.metric}"
        )
        if config.note:
            lines.append(f"  {'':28} {config.note}")
    return "\n".join(lines)


_NEEDS = {
    "given": "files in DATA",
    "hub": "the hub",
    "hub_model": "the hub",
    "package": "the package index",
    "folder": "files in the folder of fetch.yaml",
    "generated": "nothing",
}


def _needs(number: Number) -> str:
    """Where its data come from, whose models it goes on with, and whether a processor is too slow."""
    fetched = [load(path, FetchConfig) for path in number.all_stages if stage_of(path) == "fetch"]
    places = dict.fromkeys(_NEEDS[source.kind] for config in fetched for source in config.sources.values())
    others = [f"the models of {number.needs.id}"] if number.needs else []
    return f"needs {', '.join([*places, *others, *(['GPUs'] if number.config.needs_gpu else [])]) or 'nothing'}"


def reproduce(
    number: Number, run: Callable[[Path, Callable[[float], None]], int], *, only: Collection[str] = ()
) -> int:
    """Runs what is not up to date, writes the report after every run of the last stage, and the README at the end.

    `run` gets a stage's configuration and where to note the seconds that it took so far, and returns its exit code; the
    first one that is not 0 ends the whole and is returned, and the README has what was measured until then. `only`
    names the runs of the last stage that are wanted, as when every seed has a machine of its own; the report keeps the
    others' figures. ValueError for an unknown one.
    """
    names = [number.name_of(path) for path in number.runs]
    if unknown := sorted(set(only) - set(names)):
        raise ValueError(f"{number.id}: no run {', '.join(unknown)}; there are {', '.join(names)}")
    try:
        return _reproduce(number, run, _Done(), only=only)
    finally:
        # At the end and not beside each report: the trainings in between would note a commit with changed files.
        write_readme(Path("README.md"))


@dataclass
class _Done:
    """What is up to date."""

    stages: dict[Path, Made] = field(default_factory=dict)
    """The stages."""
    key: str = ""
    """Stands for all stages so far."""


def _reproduce(
    number: Number,
    run: Callable[[Path, Callable[[float], None]], int],
    done: _Done,
    *,
    only: Collection[str] = (),
) -> int:
    """The stages of one number behind those that it needs; returns the exit code."""
    if number.needs is not None:
        code = _reproduce(number.needs, run, done)
        if code:
            return code
    sources = {name: module_sources(f"pipeline.stages.{name}") for name in {*map(stage_of, number.all_stages)}}
    wanted = [path for path in number.runs if not only or number.name_of(path) in only]
    read = {path for one in wanted for path in number.before(one)}
    keys: dict[Path, str] = {}
    for path in number.stages:
        if path not in wanted and path not in read:
            continue
        before = number.before(path)
        own = content_hash([*sources[stage_of(path)], path])
        key = keys[path] = hashlib.sha256(f"{_chained(done.key, before, keys)} {own}".encode()).hexdigest()
        made_by = content_hash({source for one in (*before, path) for source in sources[stage_of(one)]})
        note = Layout.of(path).local.with_suffix(".reproduced.json")
        known = read_json(note) if note.is_file() else {}
        if known.get("key") != key:
            # A training that was cut off may go on from its checkpoint, which asks for its own code and configuration
            # and for the bytes of its inputs, or as PIPELINE_RESUME says for less.
            goes_on = not known.get("done", True) and (known.get("own") == own or resume_mode() != "exact")
            known = {"seconds": known["seconds"] if goes_on else 0.0, "done": False}
        if known["done"] and Layout.of(path).metrics.is_file():
            sys.stderr.write(f"{path}: up to date\n")
        else:
            sys.stderr.write(f"{path}\n")
            begun = {"key": key, "own": own, "seconds": known["seconds"], "done": False}

            def keep(value: float, note: Path = note, begun: Mapping[str, Any] = begun) -> None:
                write_json(note, {**begun, "seconds": begun["seconds"] + value})

            code = run(path, keep)
            if code:
                return code
            known = read_json(note) | {"done": True, "versions": versions(), "machine": machine()}
            write_json(note, known)
        done.stages[path] = Made(known["seconds"], known["versions"], known.get("machine", {}), made_by)
        if path in number.runs:
            report = write_report(number, done.stages, keeps=bool(only))
            step = order(report, read_reports())
            mean, published = shown(report["mean"]), shown(report["reported"])
            told = f"{number.id}: mean {mean} of {report['ours']}, published {published}"
            sys.stderr.write(f"{told}{step and f'; to be above {step}'}\n")
            for one in conventions(report):
                sys.stderr.write(f"  {one.name} {shown(one.mean)}, {one.signature}\n")
    done.key = _chained(done.key, number.stages, keys)
    return 0


def _chained(key: str, paths: Sequence[Path], keys: Mapping[Path, str]) -> str:
    """Stands for stages of this number, stage by stage, behind what `key` stands for."""
    for _, group in groupby((path for path in paths if path in keys), stage_of):
        key = hashlib.sha256(" ".join([key, *(keys[path] for path in group)]).encode()).hexdigest()
    return key


def run_stage(path: Path, keep: Callable[[float], None]) -> int:
    """Runs a stage in a process of its own, passes signals on to it, and notes the seconds now and then."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", f"pipeline.stages.{stage_of(path)}", str(path)])
    handlers = {
        signum: signal.signal(signum, lambda signum, frame: process.send_signal(signum))
        for signum in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        while True:
            try:
                return process.wait(_SECONDS_BETWEEN_NOTES)
            except subprocess.TimeoutExpired:
                keep(time.monotonic() - started)
    finally:
        keep(time.monotonic() - started)
        for signum, handler in handlers.items():
            signal.signal(signum, handler)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
