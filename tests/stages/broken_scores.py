"""The stages sft and reward with scores that fail behind the training; run as a stage is."""

import sys
from pathlib import Path
from unittest.mock import patch

from pipeline.stages import reward, sft
from pipeline.training.launch import launch

if __name__ == "__main__":
    stage, scores = {"sft": (sft, "generate"), "reward": (reward, "rewards_of_pairs")}[
        Path(sys.argv[1]).stem.partition("-")[0]
    ]
    with patch.object(stage, scores, side_effect=ValueError("the scores are broken")):
        launch(stage.main)
