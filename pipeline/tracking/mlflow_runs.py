"""Sends the events of a run folder to MLflow, from where the last sender of that folder stopped.

All stages of one pipeline run are children of one MLflow parent, whose id stands in .pipeline/run.json until the last
stage closes it. With `pipeline.inference.mlflow_model`, which a model server runs, the only importer of mlflow.
"""

import json
import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# Before mlflow reads them: it shall report to nobody, and fail fast, for retrying is done in helper.py.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from pipeline.provenance import content_hash
from pipeline.tracking.files import EVENTS, PARENTS, SENT, START, read, write

_log = logging.getLogger(__name__)

EXPERIMENT = "pipeline"
FAULTS = (MlflowException, SQLAlchemyError, OSError)
"""What a server that is away, or a store that is broken, makes of a call."""
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
"""A fact that the server will never take: repeating it is of no use."""
_MOST_TRIES = 2
"""A process may be killed with its container while it sends; a fact that ends two of them is to blame itself."""
_STORED = ("text", "artifact", "register")
"""Events whose content goes into the store of artifacts: it may fail while the server takes everything else."""
_CONFIG = -1
"""Stands among the places of events for the configuration, which is no event."""
_METRICS_PER_BATCH = 900
_PARAMS_PER_BATCH = 90
_LONGEST_VALUE = 5_900


class Sender:
    """One run of one stage, as far as it has been sent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = read(folder / START)
        state = read(folder / SENT)
        self.run_id: str = state.get("run_id", "")
        self.sent: int = state.get("sent", 0)
        """Bytes of the events file that have been sent."""
        self.tries: int = state.get("tries", 0)
        """Processes that began to send what comes next and have not said how it went."""
        self.status: str = state.get("status", "KILLED")
        """How the run ended as far as the events say; KILLED until they say anything."""
        self.closed: bool = state.get("closed", False)
        self.is_described: bool = state.get("is_described", False)
        """Whether the run has its parameters."""
        self.unstored: list[int] = state.get("unstored", [])
        """Where in the events file those begin that the store of artifacts did not take, in their order."""
        self.fault = ""
        """What the store of artifacts said last when it took nothing."""

    @cached_property
    def client(self) -> MlflowClient:
        """The client of the server that the stage named."""
        return MlflowClient(tracking_uri=self.facts["uri"])

    def connect(self) -> None:
        """Opens the parent and this run, or finds them again and says that they are running."""
        self._experiment = self._open_experiment()
        self._parent_id = self._open_parent()
        if self.run_id and self._exists(self.run_id):
            self.client.update_run(self.run_id, status="RUNNING")
        else:
            self.run_id = self._create()
            self.sent, self.is_described, self.unstored = 0, False, [_CONFIG]
        self.closed = False
        # Whatever fails from here on, this run is the one that the next attempt goes on with.
        self._save()
        if not self.is_described:
            self._add_params(self.run_id, self.facts["config"])
            self.is_described = True
        self.store_rest()

    def _open_experiment(self) -> str:
        found = self.client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        # A server knows where its artifacts go; a local database would put them into another folder.
        is_server = urlsplit(self.facts["uri"]).scheme in ("http", "https")
        location = None if is_server else Path("mlartifacts").absolute().as_uri()
        return str(self.client.create_experiment(EXPERIMENT, artifact_location=location))

    def _open_parent(self) -> str:
        parents = read(PARENTS)
        family, uri, commit = self.facts["family"], self.facts["uri"], self.facts["commit"]
        known = parents.get(family, {})
        if known.get("uri") == uri and self._exists(known["run_id"]):
            return str(known["run_id"])
        tags = {"family": family, "profile": self.facts["profile"], "mlflow.source.git.commit": commit}
        run = self.client.create_run(self._experiment, run_name=f"{family} {commit[:8]}".strip(), tags=tags)
        write(PARENTS, parents | {family: {"run_id": run.info.run_id, "uri": uri}})
        return str(run.info.run_id)

    def _create(self) -> str:
        stage = self.facts["stage"]
        inputs = [Path(path) for path in self.facts["inputs"]]
        tags = {
            "mlflow.parentRunId": self._parent_id,
            "mlflow.source.name": f"pipeline.stages.{stage.split('/')[0]}",
            "mlflow.source.git.commit": self.facts["commit"],
            "profile": self.facts["profile"],
            "stage": stage,
            "key": self.facts["key"],
        }
        tags |= {f"input/{path.as_posix()}": content_hash([path]) for path in inputs if path.exists()}
        return str(self.client.create_run(self._experiment, run_name=stage, tags=tags).info.run_id)

    def _exists(self, run_id: str) -> bool:
        try:
            return bool(self.client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def send(self) -> None:
        """Sends every whole line that has not been sent."""
        pending: list[Metric] = []
        place = self.sent
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(place)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                begin, place = place, place + len(line)
                fact = _parse(line)
                if fact.get("event") == "metrics":
                    pending += _metrics(fact["values"], fact["step"], fact["time"])
                    if len(pending) < _METRICS_PER_BATCH:
                        continue
                self._deliver(fact, pending, begin, place)
        self._deliver({}, pending, place, place)

    def _deliver(self, fact: Mapping[str, Any], pending: list[Metric], begin: int, end: int) -> None:
        """Sends the pending metrics, then one other fact, whose line goes from `begin` to `end`."""
        for start in range(0, len(pending), _METRICS_PER_BATCH):
            self.client.log_batch(self.run_id, metrics=pending[start : start + _METRICS_PER_BATCH])
        pending.clear()
        if fact and self.tries == _MOST_TRIES:
            _log.warning("passed over: %d processes ended while they sent %s", self.tries, fact)
        elif fact:
            self.tries += 1
            self._save()
            # Behind what was not stored the others wait: a newer text must not be replaced by an older one.
            waits = bool(self.unstored) and fact.get("event") in _STORED
            try:
                if waits or not self._is_taken(fact):
                    self.unstored.append(begin)
            except FAULTS:
                self.tries = 0
                self._save()
                raise
        self.sent, self.tries = end, 0
        self._save()

    def _is_taken(self, fact: Mapping[str, Any]) -> bool:
        """Sends a fact; False where the store of artifacts alone fails.

        What is refused counts as taken. A server that is away is an error.
        """
        try:
            self._send(fact)
        except FAULTS as error:
            if isinstance(error, MlflowException) and error.error_code in _REFUSALS:
                _log.warning("refused: %s: %s", fact, error)
                return True
            if fact.get("event") not in _STORED:
                raise
            self.client.get_run(self.run_id)
            if not self.fault:
                _log.warning("artifacts are not stored, and kept for later: %s", error)
            self.fault = str(error) or type(error).__name__
            return False
        return True

    def store_rest(self) -> None:
        """Tries once more what the store of artifacts did not take."""
        for place in tuple(self.unstored):
            if self._is_taken(self._fact_at(place)):
                self.unstored.remove(place)
                self._save()
        if not self.unstored:
            self.fault = ""

    def store_later(self) -> None:
        """`store_rest` for a run that has ended, which stays as it ended."""
        if not self._exists(self.run_id):
            self.unstored = []
            self._save()
            return
        ended = self.client.get_run(self.run_id).info.end_time
        self.store_rest()
        # What registers a model has opened the run again.
        self.client.set_terminated(self.run_id, self.status, ended)

    def _fact_at(self, place: int) -> Mapping[str, Any]:
        if place == _CONFIG:
            content = json.dumps(self.facts["config"], indent=2) + "\n"
            return {"event": "text", "name": "config.json", "content": content}
        with (self.folder / EVENTS).open("rb") as file:
            file.seek(place)
            return _parse(file.readline())

    def _send(self, fact: Mapping[str, Any]) -> None:
        match fact.get("event"):
            case "start":
                self.status = "KILLED"
            case "finish":
                self.status = fact["status"]
            case "params":
                self._add_params(self.run_id, fact["values"])
            case "text":
                self.client.log_text(self.run_id, fact["content"], fact["name"])
            case "artifact":
                self._upload(Path(fact["path"]))
            case "register":
                self._register(Path(fact["folder"]), fact["name"])

    def _add_params(self, run_id: str, values: Mapping[str, Any]) -> None:
        """Adds the settings that the run does not have: MLflow refuses to change one."""
        known = self.client.get_run(run_id).data.params
        params = [Param(key, value[:_LONGEST_VALUE]) for key, value in flat(values).items() if key not in known]
        for start in range(0, len(params), _PARAMS_PER_BATCH):
            self.client.log_batch(run_id, params=params[start : start + _PARAMS_PER_BATCH])

    def _upload(self, path: Path) -> None:
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), path.name)
        elif path.is_file():
            self.client.log_artifact(self.run_id, str(path))
        else:
            _log.warning("%s: gone before it was sent", path)

    def _register(self, folder: Path, name: str) -> None:
        """Registers a model folder with the code that serves it; one that answers no requests is an artifact."""
        if not folder.is_dir():
            _log.warning("%s: gone before it was registered", folder)
            return
        from pipeline.inference.mlflow_model import register

        try:
            version = register(folder, name, uri=self.facts["uri"], run_id=self.run_id)
            self.client.set_tag(self.run_id, "model", f"models:/{name}/{version}")
        except ValueError as error:
            _log.warning("not registered, an artifact alone: %s", error)
            self._upload(folder)
        shutil.rmtree(folder, ignore_errors=True)

    def machine(self, values: Mapping[str, float]) -> None:
        """Sends measurements of the machine; their step is the number of seconds since the run began."""
        if not values:
            return
        now = int(time.time() * 1000)
        begun = int(self.client.get_run(self.run_id).info.start_time)
        self.client.log_batch(self.run_id, metrics=_metrics(values, (now - begun) // 1000, now))

    def close(self) -> None:
        """Ends the run as its events say; the last stage also closes the parent and links what was cached."""
        self.store_rest()
        self.client.set_terminated(self.run_id, self.status)
        self.closed = True
        self._save()
        if not self.facts["last"] or self.status != "FINISHED":
            return
        ran = self.client.search_runs([self._experiment], f"tags.mlflow.parentRunId = '{self._parent_id}'")
        stages_run = {run.data.tags["stage"] for run in ran}
        for stage, run_id in newest_runs(self.folder, self.facts["stage"]).items():
            if stage not in stages_run:
                self.client.set_tag(self._parent_id, f"cached/{stage}", run_id)
        self.client.set_terminated(self._parent_id, "FINISHED")
        parents = read(PARENTS)
        write(PARENTS, {family: run for family, run in parents.items() if family != self.facts["family"]})

    def _save(self) -> None:
        state = {
            "run_id": self.run_id,
            "sent": self.sent,
            "tries": self.tries,
            "status": self.status,
            "closed": self.closed,
            "is_described": self.is_described,
            "unstored": self.unstored,
        }
        write(self.folder / SENT, state)


def newest_runs(folder: Path, stage: str) -> dict[str, str]:
    """The id of the newest run of every stage of the family to which the run folder of `stage` belongs."""
    family = folder.parents[stage.count("/") + 2]
    senders = [Sender(start.parent) for start in sorted(family.rglob(f"tracking/*/{START}"))]
    return {sender.facts["stage"]: sender.run_id for sender in senders if sender.run_id}


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as text under dotted names; lists stay whole, as JSON."""
    result: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value if isinstance(value, str) else json.dumps(value)
    return result


def _metrics(values: Mapping[str, float], step: int, milliseconds: int) -> list[Metric]:
    """MLflow takes letters, digits and _-. :/ in a name."""
    return [Metric(re.sub(r"[^\w\-. :/]", "_", key), value, milliseconds, step) for key, value in values.items()]


def _parse(line: bytes) -> dict[str, Any]:
    """One event; a line that a kill cut off is reported and counts as nothing."""
    try:
        fact: dict[str, Any] = json.loads(line) if line.strip() else {}
    except json.JSONDecodeError:
        _log.warning("passed over a line that a kill cut off: %r", line[:200])
        return {}
    return fact
