"""What a model server does with a request: a table of texts in, a table of answers out, one row for each.

The columns are those of `serving.signature`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

import pandas as pd

from pipeline.data.question_records import Question
from pipeline.inference.answering import Answerer
from pipeline.inference.generation import GreedyConfig, SamplingConfig
from pipeline.inference.models import BothWaysScorer, Classifier, Generator, Model, Scorer, Turn
from pipeline.inference.tagger import Tagger
from pipeline.inference.translator import Translator
from pipeline.inference.word_models import GapFiller, Neighbours


def answer(model: Model, request: pd.DataFrame, params: Mapping[str, Any]) -> pd.DataFrame:
    """The answers of a model to each row of a request, which may set what `params` names."""
    texts = [str(text) for text in request["text"]]
    match model:
        case Generator():
            return pd.DataFrame({"text": _generate(model, texts, params)})
        case Translator():
            return pd.DataFrame({"text": [found.text for found in model.translate_plain(texts)]})
        case Classifier():
            predictions = model.classify(texts)
            if model.has_one_answer:
                labels, values = [row.label for row in predictions], [row.value for row in predictions]
                return pd.DataFrame({"label": labels, "value": values})
            names, numbers = [list(row.labels) for row in predictions], [list(row.values) for row in predictions]
            return pd.DataFrame({"labels": names, "values": numbers})
        case Answerer():
            questions = [str(question) for question in request["question"]]
            asked = [
                Question(f"row {i}", question, text, is_labelled=False)
                for i, (question, text) in enumerate(zip(questions, texts, strict=True), start=1)
            ]
            said = model.answer(asked)
            probabilities = [row.probability for row in said]
            return pd.DataFrame({"answer": [row.text for row in said], "probability": probabilities})
        case Tagger():
            return pd.DataFrame({"entities": [[one.as_row() for one in found] for found in model.find(texts)]})
        case Scorer():
            answers = [str(answer) for answer in request["answer"]]
            pairs = [
                [Turn("user", text), Turn("assistant", answer)] for text, answer in zip(texts, answers, strict=True)
            ]
            return pd.DataFrame({"reward": model.score(pairs)})
        case GapFiller():
            filled = model.fill(texts)
            probabilities = [row.probability for row in filled]
            return pd.DataFrame({"text": [row.text for row in filled], "probability": probabilities})
        case BothWaysScorer():
            scored = model.score(texts)
            return pd.DataFrame({"ahead": [ahead for ahead, _ in scored], "back": [back for _, back in scored]})
        case Neighbours():
            nearest = model.nearest(texts, num_neighbours=params["num_neighbours"])
            words = [[word for word, _ in row] for row in nearest]
            return pd.DataFrame({"words": words, "cosines": [[cosine for _, cosine in row] for row in nearest]})
        case _:
            assert_never(model)


def _generate(model: Generator, texts: Sequence[str], params: Mapping[str, Any]) -> list[str]:
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
