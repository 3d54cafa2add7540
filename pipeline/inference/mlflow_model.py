"""Model folders in MLflow: the code that a model server runs, and the entry that puts a folder into the registry.

MLflow stores this file beside a copy of the package and of the folder ("models from code"), so that
`mlflow models serve --env-manager local` answers with torch and tokenizers alone. It also executes this file when it
stores one, in a process beside a training: what needs torch is imported by the server alone.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, assert_never

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.logged_model_status import LoggedModelStatus
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property

from pipeline.kinds import has_one_answer, kind_of, num_outputs, problem_of

_ARTIFACT = "folder"
_PACKAGE = Path(__file__).parents[1]
_CONTENT = "content"
"""The tag of a version that stands for the bytes of its model and of its code."""
_DECODING = ParamSchema(
    [
        ParamSpec("max_new_tokens", DataType.long, 48),
        ParamSpec("temperature", DataType.double, 0.0),
        ParamSpec("top_p", DataType.double, 1.0),
        ParamSpec("seed", DataType.long, 0),
        ParamSpec("chat", DataType.boolean, True),
    ]
)
"""What a request to a GPT may set; temperature 0 is greedy, chat false continues the text instead of answering it."""
_NEIGHBOURS = ParamSchema([ParamSpec("num_neighbours", DataType.long, 10)])
"""What a request to word vectors may set."""


class ServedModel(PythonModel):
    """Answers requests with a model folder."""

    def load_context(self, context: PythonModelContext) -> None:
        """Opens the folder, once, on a GPU where there is one."""
        from pipeline.inference.device import chosen_device
        from pipeline.inference.models import open_model

        self.model = open_model(Path(context.artifacts[_ARTIFACT]), chosen_device("auto"))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row of answers for each row of the request; see `signature` for the columns."""
        from pipeline.inference.requests import answer

        return answer(self.model, model_input, params or {})


def signature(folder: Path) -> ModelSignature:
    """The columns and parameters of requests to a model folder, and the columns of its answers.

    ValueError names a folder that answers no requests, and one whose outputs nobody can tell.
    """
    text = ColSpec("string", "text")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = kind_of(config, folder)
    match kind:
        case "gpt":
            return ModelSignature(Schema([text]), Schema([text]), _DECODING)
        case "translator":
            return ModelSignature(Schema([text]), Schema([text]))
        case "classifier":
            try:
                is_one = has_one_answer(problem_of(config), num_outputs(config))
            except ValueError as error:
                raise ValueError(f"{folder}: {error}") from error
            if is_one:
                return ModelSignature(Schema([text]), Schema([ColSpec("string", "label"), ColSpec("double", "value")]))
            labels, values = ColSpec(Array(DataType.string), "labels"), ColSpec(Array(DataType.double), "values")
            return ModelSignature(Schema([text]), Schema([labels, values]))
        case "answerer":
            request = Schema([text, ColSpec("string", "question")])
            return ModelSignature(request, Schema([ColSpec("string", "answer"), ColSpec("double", "probability")]))
        case "tagger":
            names = {"type": DataType.string, "text": DataType.string, "start": DataType.long, "end": DataType.long}
            properties = [Property(name, of) for name, of in (names | {"probability": DataType.double}).items()]
            return ModelSignature(Schema([text]), Schema([ColSpec(Array(Object(properties)), "entities")]))
        case "reward":
            request = Schema([text, ColSpec("string", "answer")])
            return ModelSignature(request, Schema([ColSpec("double", "reward")]))
        case "bert":
            return ModelSignature(Schema([text]), Schema([text, ColSpec("double", "probability")]))
        case "bilm":
            return ModelSignature(Schema([text]), Schema([ColSpec("double", "ahead"), ColSpec("double", "back")]))
        case "word_vectors":
            words, cosines = ColSpec(Array(DataType.string), "words"), ColSpec(Array(DataType.double), "cosines")
            return ModelSignature(Schema([text]), Schema([words, cosines]), _NEIGHBOURS)
        case _:
            assert_never(kind)


def register(folder: Path, name: str, *, uri: str, run_id: str) -> str:
    """Makes a model folder the next version of the registered model `name`, and returns the number of its version.

    The same bytes of model and code are one version, whichever run made them; what an interrupted call has stored for
    this run is taken as it is. ValueError names a folder that answers no requests.
    """
    described, content = signature(folder), _content(folder)
    mlflow.set_tracking_uri(uri)
    client = MlflowClient(tracking_uri=uri)
    known = client.search_model_versions(f"name = '{name}' AND tags.{_CONTENT} = '{content}'")
    if known:
        return str(max(int(version.version) for version in known))
    model_id = _stored(client, run_id, content) or _store(folder, described, run_id, content)
    return str(mlflow.register_model(f"models:/{model_id}", name, tags={_CONTENT: content}).version)


def _stored(client: MlflowClient, run_id: str, content: str) -> str:
    """The id of a model that is stored completely and not registered; empty if there is none."""
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND tags.{_CONTENT} = '{content}'")
    return next((str(model.model_id) for model in found if model.status == LoggedModelStatus.READY), "")


def _store(folder: Path, described: ModelSignature, run_id: str, content: str) -> str:
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__)),
            artifacts={_ARTIFACT: str(folder)},
            code_paths=[str(_PACKAGE)],
            signature=described,
            # Given, because MLflow would otherwise run the model to find out.
            pip_requirements=["-r requirements.lock"] if Path("requirements.lock").is_file() else [],
            tags={_CONTENT: content},
        )
    return str(info.model_id)


def _content(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files of the folder and of the package."""
    total = hashlib.sha256()
    for root in (folder, _PACKAGE):
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                total.update(f"{digest} {path.relative_to(root).as_posix()}\n".encode())
    return total.hexdigest()


set_model(ServedModel())
