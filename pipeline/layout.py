"""Where the files of a profile live: derived from the path of the configuration, and from nothing else.

conf/cpu/sft.yaml              -> data/cpu, models/cpu/sft, metrics/cpu/sft.json
conf/cpu/translate/gru.yaml    -> models/cpu/translate/gru, metrics/cpu/translate/gru.json
conf/numbers/multi30k/sft.yaml -> runs/multi30k/data, runs/multi30k/models/sft, runs/multi30k/metrics/sft.json
"""

from dataclasses import dataclass
from pathlib import Path

LOCAL = Path(".pipeline")
"""State that belongs to this checkout alone: checkpoints, caches, logs, costs. Never a DVC output."""


@dataclass(frozen=True)
class Layout:
    """The folders of one stage of one profile, relative to the repository root."""

    profile: str
    stage: str
    """The stage with its matrix item, for example `translate/gru`."""
    is_number: bool
    """True for a published number, which runs beside the chain, under runs/."""

    @staticmethod
    def of(config: Path) -> "Layout":
        """The layout that belongs to a configuration file below conf/.

        Raises ValueError when the path is not conf/PROFILE/STAGE.yaml, with an optional folder before the item.
        """
        parts = config.with_suffix("").parts
        if "conf" not in parts:
            raise ValueError(f"{config}: expected a file below conf/, as conf/PROFILE/STAGE.yaml")
        below = parts[len(parts) - parts[::-1].index("conf") :]
        is_number = below[0] == "numbers"
        below = below[1:] if is_number else below
        if len(below) < 2:
            raise ValueError(f"{config}: expected conf/PROFILE/STAGE.yaml or conf/PROFILE/STAGE/ITEM.yaml")
        return Layout(profile=below[0], stage="/".join(below[1:]), is_number=is_number)

    def _root(self, kind: str) -> Path:
        return Path("runs", self.profile, kind) if self.is_number else Path(kind, self.profile)

    def data(self, part: str) -> Path:
        """A folder below data: raw, prepared/text, tokens/bpe, ..."""
        return self._root("data") / part

    def model(self, stage: str) -> Path:
        """The model folder that a stage (with its item) hands over."""
        return self._root("models") / stage

    @property
    def model_name(self) -> str:
        """The name of this stage's model in a registry: the profile and the stage, as in `cpu-translate-gru`."""
        return f"{self.profile}-{self.stage}".replace("/", "-")

    @property
    def output(self) -> Path:
        """The model folder of this stage."""
        return self.model(self.stage)

    @property
    def metrics(self) -> Path:
        """The metrics file of this stage."""
        return self.metrics_of(self.stage)

    def metrics_of(self, stage: str) -> Path:
        """The metrics file of a stage (with its item)."""
        return self._root("metrics") / f"{stage}.json"

    @property
    def curve(self) -> Path:
        """The learning curve of this stage."""
        return self._root("metrics") / "curves" / f"{self.stage}.csv"

    @property
    def samples(self) -> Path:
        """Examples of this stage's output, for people."""
        return self._root("metrics") / "samples" / f"{self.stage}.json"

    @property
    def predictions(self) -> Path:
        """The folder of what this stage's model says of every held-out example."""
        return self._root("metrics") / "predictions" / self.stage

    @property
    def reports(self) -> Path:
        """The folder of the report on all stages."""
        return self._root("reports")

    @property
    def local(self) -> Path:
        """This stage's checkpoints, run id and logs."""
        return LOCAL / "stages" / self._root("").as_posix().replace("/", "-") / self.stage

    @property
    def cost(self) -> Path:
        """Seconds and memory of this stage's last run here; not part of any result."""
        return LOCAL / "costs" / self._root("").as_posix().replace("/", "-") / f"{self.stage}.json"
