"""Model folders in MLflow: the code that a model server runs, and the entry that puts a folder into the registry.

MLflow stores this file beside a copy of the package and of the folder ("models from code"), so that
`mlflow models serve --env-manager local` answers with torch and tokenizers alone.
"""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from pipeline.inference import Classifier, Generator, Scorer, Turn, open_model
from pipeline.stages.generation import GreedyConfig, SamplingConfig
from pipeline.stages.translation import Translator

_ARTIFACT = "folder"
_PARAMS = ParamSchema(
    [
        ParamSpec("max_new_tokens", DataType.long, 48),
        ParamSpec("temperature", DataType.double, 0.0),
        ParamSpec("top_p", DataType.double, 1.0),
        ParamSpec("seed", DataType.long, 0),
        ParamSpec("chat", DataType.boolean, True),
    ]
)
"""What a request to a GPT may set; temperature 0 is greedy, chat false continues the text instead of answering it."""


class ServedModel(PythonModel):
    """Answers requests with a model folder."""

    def load_context(self, context: PythonModelContext) -> None:
        """Opens the folder, once."""
        self.model = open_model(Path(context.artifacts[_ARTIFACT]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row of answers for each row of the request; see `signature` for the columns."""
        texts = [str(text) for text in model_input["text"]]
        match self.model:
            case Generator():
                return pd.DataFrame({"text": _generate(self.model, texts, params or {})})
            case Translator():
                return pd.DataFrame({"text": [found.text for found in self.model.translate(texts)]})
            case Classifier():
                found = self.model.classify(texts)
                columns = {"label": [row.label for row in found], "value": [row.value for row in found]}
                return pd.DataFrame(columns)
            case Scorer():
                answers = [str(answer) for answer in model_input["answer"]]
                pairs = [
                    [Turn("user", text), Turn("assistant", answer)] for text, answer in zip(texts, answers, strict=True)
                ]
                return pd.DataFrame({"reward": self.model.score(pairs)})


def _generate(model: Generator, texts: list[str], params: dict[str, Any]) -> list[str]:
    decoding: GreedyConfig | SamplingConfig = GreedyConfig(kind="greedy", max_new_tokens=params["max_new_tokens"])
    if params["temperature"] > 0.0:
        decoding = SamplingConfig(
            kind="sampling",
            max_new_tokens=params["max_new_tokens"],
            temperature=params["temperature"],
            top_k=0,
            top_p=params["top_p"],
            seed=params["seed"],
        )
    if params["chat"]:
        return model.answer([[Turn("user", text)] for text in texts], decoding)
    return model.extend(texts, decoding)


def signature(folder: Path) -> ModelSignature:
    """The columns and parameters of requests to a model folder, and the columns of its answers."""
    text, number = ColSpec("string", "text"), ColSpec("double", "value")
    match open_model(folder):
        case Generator():
            return ModelSignature(Schema([text]), Schema([text]), _PARAMS)
        case Translator():
            return ModelSignature(Schema([text]), Schema([text]))
        case Classifier():
            return ModelSignature(Schema([text]), Schema([ColSpec("string", "label"), number]))
        case Scorer():
            inputs = Schema([text, ColSpec("string", "answer")])
            return ModelSignature(inputs, Schema([ColSpec("double", "reward")]))


def log_model(folder: Path, name: str, *, uri: str, run_id: str) -> None:
    """Logs a model folder to a run and makes it the next version of the registered model `name`."""
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=run_id):
        mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__)),
            artifacts={_ARTIFACT: str(folder)},
            code_paths=[str(Path(__file__).parent)],
            signature=signature(folder),
            # Given, because MLflow would otherwise run the model to find out.
            pip_requirements=["-r requirements.lock"] if Path("requirements.lock").is_file() else [],
            registered_model_name=name,
        )


set_model(ServedModel())
