"""The stage finetune with a bag of words that fails; run as a stage is."""

from unittest.mock import patch

from pipeline.stages import finetune, finetune_texts
from pipeline.training.launch import launch

if __name__ == "__main__":
    with patch.object(finetune_texts, "bag_of_words_classes", side_effect=ValueError("the baseline is broken")):
        launch(finetune.main)
