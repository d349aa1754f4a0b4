r"""Compare two runs of `umons train --seeds` on the same rows, with intervals of their differences.

    umons train mosei-context --context_size 0 --output_dir runs/mosei-context-0
    umons train mosei-context
    python scripts/compare_runs.py runs/mosei runs/mosei-context-0 runs/mosei-context --split validation \
        --output docs/results_context.json

Scores are means over the seeds. Intervals are 95 % bootstrap intervals over videos, of the difference on the same
samples. They describe the choice of the rows, and not the randomness of training, which the scores of the seeds show.
Prints the table.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from modeling_umons.data.arguments import DataArguments
from modeling_umons.data.rows import load_splits
from modeling_umons.evaluation.bootstrap import intervals_of_statistics
from modeling_umons.evaluation.metrics import headline_metrics, task_metrics, weighted_metrics
from modeling_umons.evaluation.scoring import Member, common_task, score
from modeling_umons.registration import register_auto_classes
from modeling_umons.utils.files import write_atomically
from modeling_umons.utils.tables import markdown_table


def load_seeds(run: Path) -> list[Member]:
    """Load the models of a run, one for each seed. Raises FileNotFoundError if there are none."""
    folders = sorted(run.glob("seed-*")) or [run]
    if missing := [str(folder) for folder in folders if not (folder / "config.json").exists()]:
        raise FileNotFoundError(f"{missing[0]} has no model; name folders of `umons train --output_dir`.")
    return [Member.load(str(folder), torch.device("cpu")) for folder in folders]


def compare(dataset: str, runs: list[Path], split: str, data: DataArguments) -> dict:
    """
    Return the scores of two runs and their difference, each with its interval, and the scores of the seeds.

    Raises ValueError for runs of different tasks or of the same name.
    """
    by_run = {run.name: load_seeds(run) for run in runs}
    if len(by_run) < len(runs):
        raise ValueError(f"Both runs are called {runs[0].name}: rename the folder of one.")
    members = [member for run in by_run.values() for member in run]
    task = common_task(members, data)
    found = score(members, task, split, load_splits(dataset, data)[split], data, batch_size=128)
    truth, groups = found[members[0].name].truth, found[members[0].name].groups
    names = headline_metrics(task.name)

    def score_runs(weights: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
        scores = {name: weighted_metrics(task, weights, truth, one.logits) for name, one in found.items()}
        values = {
            (run, name): np.mean([scores[member.name][name] for member in seeds], axis=0)
            for run, seeds in by_run.items()
            for name in names
        }
        first, second = by_run
        return values | {("difference", name): values[second, name] - values[first, name] for name in names}

    values = score_runs(np.ones((1, len(truth))))
    intervals = intervals_of_statistics(score_runs, len(truth), groups)
    report: dict = {"split": split, "rows": len(truth), "groups": len(set(groups or ()))}
    for run, name in values:
        report.setdefault(run, {})[name] = [float(values[run, name][0]), *intervals[run, name]]
    for run, seeds in by_run.items():
        of_seeds = [task_metrics(task, truth, found[member.name].logits) for member in seeds]
        report[f"{run}_seeds"] = {name: [scores[name] for scores in of_seeds] for name in names}
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="data set of both runs")
    parser.add_argument("runs", type=Path, nargs=2, metavar="RUN", help="folder of `umons train --seeds`")
    parser.add_argument("--split", default="validation", help="split that is scored (default: validation)")
    parser.add_argument("--label_columns", nargs="+", default=[], help="columns of the labels")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    register_auto_classes()
    data = DataArguments(label_columns=arguments.label_columns)
    report = compare(arguments.dataset, arguments.runs, arguments.split, data)
    write_atomically(arguments.output, json.dumps(report, indent=2) + "\n")
    names = [*(run.name for run in arguments.runs), "difference"]
    cells = [[name, *("{:.3f} ({:.3f} to {:.3f})".format(*one) for one in report[name].values())] for name in names]
    print(markdown_table(["run", *report["difference"]], cells))


if __name__ == "__main__":
    main()
