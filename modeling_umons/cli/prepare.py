"""Turn CMU-MOSEI, in any layout that people hold it in, into Parquet that `load_dataset(OUTPUT, split=...)` reads.

    python scripts/prepare_mosei.py --layout umons --source MOSEI --output mosei
    python scripts/prepare_mosei.py --layout csd --source CMU_MOSEI --output mosei --num_proc 4
    python scripts/prepare_mosei.py --layout folder --source clips --output mosei --modalities text audio

The layouts of CMU-MOSEI, and what the source folder holds:
  umons    the pickles of UMONS: {train,valid,test}_{sentences,mels,sentiment,emotion}.p
  csd      computational sequences of the CMU Multimodal SDK: .csd files of words, labels and features
  mmsa     a pickle of MMSA, with the splits, texts, features and labels
  folder   clips with a metadata.csv or .jsonl; features are extracted from them
  labels   labels.csv, and transcripts*.csv where one has them; no sound, no video
and of other data sets, with the same columns:
  mosi     CMU-MOSI: mosi.csv          meld   MELD: {train,dev,test}_sent_emo.csv
  ravdess  RAVDESS: folders of actors (speech; features are extracted)
  mini     what umons-mini is trained on: folders mosi, mosei (labels.csv, transcripts*.csv), meld and ravdess

Afterwards
    load_dataset(OUTPUT, split="train", streaming=True)            all columns but those of classes
    load_dataset(OUTPUT, "emotion", split="validation")            with the column `emotions`, the classes present
    load_dataset(OUTPUT, "sentiment-7", ...), "sentiment-2", "sentiment"
load, from the folder or from the Hub after `hf upload-large-folder`, `hf upload` or HfApi().upload_folder: README.md in
it is a data set card. What is missing in the source is null, never zero.

A report (segments, videos, hours, labels, what is missing; for CMU-MOSEI the official counts beside it) is shown, and
stands in README.md and report.json. A segment that cannot be read is left out, and failures.csv says why; left_out.csv
names segments that the source has but no split. The sha256 in the report is of the rows: it is the same whatever the
machine, the number of processes and the compression.

The output appears whole or not at all. It may exist when it holds the same rows, and is then left as it is; a folder
with anything else in it is refused.

exit status: 0 all segments were written; 3 some could not be read; 1 nothing could be done; 2 wrong usage
"""

import argparse
import logging
import sys
from pathlib import Path

from ..data.builders import BUILDERS, builder_class
from ..data.prepare import format_report, prepare_dataset


LAYOUTS = [layout for builder in BUILDERS for layout in builder.LAYOUTS]
MOSEI_CARD = Path(__file__).resolve().parent.parent.parent / "hub" / "mosei" / "README.md"


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace, dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", required=True, choices=LAYOUTS, help="how the source is laid out")
    parser.add_argument("--source", required=True, help="the folder that holds it")
    parser.add_argument("--output", required=True, help="the folder to write")
    parser.add_argument("--num_proc", type=int, default=1, help="worker processes (default: 1)")
    options = parser.add_argument_group("options of single layouts")
    options.add_argument("--file", help="mmsa: the name of the pickle, where the folder has several")
    options.add_argument("--audio", help="csd: the file of sound features, or its root, where there are several")
    options.add_argument("--video", help="csd: the file of video features, or its root, where there are several")
    options.add_argument(
        "--average_per_word", action="store_true", help="csd: one row of features for each word, their mean"
    )
    options.add_argument(
        "--modalities", nargs="+", choices=["text", "audio", "video"], help="folder: what to take from the clips"
    )
    options.add_argument(
        "--tower_weights",
        help="folder: a state dict of torchvision's r2plus1d_18 (a file), or KINETICS400_V1, which is fetched",
    )
    options.add_argument(
        "--model", help="folder, ravdess, mini: a saved model, to extract with its settings and its video tower"
    )
    options.add_argument(
        "--max_length",
        type=int,
        help="folder, ravdess, mini: audio frames and video clips kept of a segment (default: 60)",
    )
    options.add_argument(
        "--sources", nargs="+", choices=["mosi", "mosei", "meld", "ravdess"], help="mini: which to take (default: all)"
    )
    args = parser.parse_args()
    given = {action.dest: getattr(args, action.dest) for action in options._group_actions}
    return parser, args, {name: value for name, value in given.items() if value is not None and value is not False}


def main() -> int:
    parser, args, options = parse_arguments()
    logging.basicConfig(format="%(message)s")
    builder_of_layout = builder_class(args.layout)
    card = MOSEI_CARD if builder_of_layout.DATASET_NAME == "mosei" else None
    try:
        builder = builder_of_layout(layout=args.layout, data_dir=args.source, options=options)
        report = prepare_dataset(builder, args.output, args.num_proc, card)
    except ValueError as error:
        parser.error(str(error))
    except (ImportError, OSError) as error:  # the first where a layout needs a package that is not installed
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped; nothing was written.", file=sys.stderr)
        return 130
    print(f"{report['data_set']} from {args.source} in {args.output}\n")
    print(format_report(report, report["failures"]))
    return 3 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
