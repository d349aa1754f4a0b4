"""Measure models on distorted voices of the speakers in no training split.

    python scripts/measure_robustness.py hub/umons-base hub/umons-mini --data DATA --output docs/robustness.json

DATA has the folders `ravdess` and `emodb`. Levels, noise, babble, rooms, the band of the telephone, codecs and cuts
are those of `umons evaluate --robustness`. The plot has the name of the output.
"""

import argparse
import json
from pathlib import Path

from datasets import Dataset, Features

from modeling_umons.data.arguments import DataArguments
from modeling_umons.data.layouts import open_source
from modeling_umons.data.rows import FileAudio
from modeling_umons.evaluation.report import to_json
from modeling_umons.evaluation.robustness import draw_robustness, measure_robustness
from modeling_umons.inference.loading import load_model
from modeling_umons.tasks.task import task_of
from modeling_umons.utils.files import write_atomically


GROUP_BY = ("speaker", "gender", "intensity")  # EMO-DB has one speaker
CORPORA = {"ravdess": "RAVDESS, actors 18 to 20", "emodb": "EMO-DB, speaker 09"}


def read_voices(data: Path, name: str) -> Dataset:
    """Return the recordings of the test speakers of a corpus."""
    source = open_source(name, data / name, keep_audio=True)
    features = Features({**source.features, "audio": FileAudio(decode=False)})
    rows = [source.read("test", segment_id) for segment_id in source.segments["test"]]
    return Dataset.from_list([{column: row.get(column) for column in features} for row in rows], features=features)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="folders of models")
    parser.add_argument("--data", type=Path, required=True, help="folder of the corpora")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write; other models in it are kept")
    arguments = parser.parse_args()
    report = json.loads(arguments.output.read_text(encoding="utf-8")) if arguments.output.is_file() else {}
    columns = DataArguments(audio_column="audio")
    for path in arguments.models:
        model, processor = load_model(path)
        for name in CORPORA:
            measured = measure_robustness(
                model, processor, task_of(model.config), read_voices(arguments.data, name), columns,
                group_by=[column for column in GROUP_BY if name == "ravdess"],
            )  # fmt: skip
            report.setdefault(Path(path).name, {})[name] = measured
            write_atomically(arguments.output, to_json(report))
    curves = {
        f"{model}, {CORPORA[name]}": measured for model, found in report.items() for name, measured in found.items()
    }
    draw_robustness(arguments.output.with_suffix(".png"), curves)


if __name__ == "__main__":
    main()
