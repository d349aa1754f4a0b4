"""Rows of the paper's results table: tasks, combinations of modalities, models and ablations."""

from pathlib import Path
from typing import NamedTuple


# Metric of each task.
TASK_METRICS = {"sentiment-2": "acc2_has0", "sentiment-7": "acc7", "emotion": "emotion_acc"}
LETTERS = {"L": "text", "A": "audio", "V": "video"}
COMBINATIONS = ("L", "A", "V", "L+A", "L+A+V")
# Learning rates of the other models, as in the recipes of comparisons.
LEARNING_RATES = {"tfn": 0.005, "mfn": 0.0005, "graph_mfn": 0.002, "mult": 0.001}
# Options of the configuration that change one equation each, and the modalities without which they change nothing.
ABLATIONS = {
    "use_cross_attention=false": "LA",
    "use_glimpses=false": "",
    "use_outer_residual=false": "",
    "guide=audio": "LA",
    "audio_front_end=lstm": "A",
    "legacy_masking=true": "",
}


class Cell(NamedTuple):
    """Row of the table: a model of a task and a combination of modalities, trained with several seeds."""

    task: str
    combination: str
    model: str = "umons"
    ablation: str | None = None

    @property
    def system(self) -> str:
        """Name of the model, with its ablation."""
        return self.model if self.ablation is None else f"{self.model}, {self.ablation}"

    @property
    def folder(self) -> Path:
        """Folder of the runs, relative to that of the table."""
        suffix = "" if self.model == "umons" else f"-{self.model}"
        return Path(self.task, f"{self.combination}{suffix}" + (f"-{self.ablation}" if self.ablation else ""))


def ablations_of(combination: str) -> list[str]:
    """Return the ablations that change a model of these modalities."""
    return [option for option, letters in ABLATIONS.items() if set(letters) <= set(combination)]
