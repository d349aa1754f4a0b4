"""`umons prepare`: convert CMU-MOSEI and other corpora to Parquet."""

import argparse
import logging
import sys
from functools import partial

from .command import SOME_FAILED, make_parser, run


DESCRIPTION = """Convert CMU-MOSEI, in any of its layouts, or another corpus to Parquet for `load_dataset`.

    umons prepare --layout umons --source MOSEI --output mosei
    umons prepare --layout csd --source CMU_MOSEI --output mosei --num_proc 4
    umons prepare --layout folder --source clips --output mosei --modalities text audio

Layouts of CMU-MOSEI, by the content of the source folder:
  umons    pickles of UMONS: {train,valid,test}_{sentences,mels,r21d,sentiment,emotion}.p
  csd      computational sequences of the CMU Multimodal SDK: .csd files of words, labels and features
  mmsa     a pickle of MMSA, with splits, texts, features and labels
  folder   clips with a metadata.csv or .jsonl; features are extracted from the clips
  labels   labels.csv, and optionally transcripts*.csv; no audio, no video
Layouts of other corpora, with the same columns:
  mosi     CMU-MOSI: mosi.csv
  meld     MELD: {train,dev,test}_sent_emo.csv
  ravdess  RAVDESS: folders of actors (speech; features are extracted)
  emodb    EMO-DB: files such as 03a01Fa.wav (speech; features are extracted)
  prompts  neutral voices: prompts of Asterisk, from Debian's asterisk-core-sounds-*-g722 (speech, as above)
  goemotions  GoEmotions: {train,dev,test}.tsv, labels.txt
  mini     the training data of umons-base and umons-mini: any of the folders mosei (labels.csv, transcripts*.csv),
           mosi, goemotions, meld, ravdess, emodb, prompts

The output loads from the folder, and from the Hub after `umons push`:
    load_dataset(OUTPUT, split="train", streaming=True)            all columns except classes
    load_dataset(OUTPUT, "emotion", split="validation")            with the column `emotions`: the classes present
    load_dataset(OUTPUT, "sentiment-7", ...), "sentiment-2", "sentiment"
README.md in it is a data set card. Missing values are null, never zero.

The report has segments, videos, hours, labels and missing values, for CMU-MOSEI next to the official counts;
README.md and report.json contain it. Segments that cannot be read are left out and listed in failures.csv;
segments without a split are listed in left_out.csv. The sha256 in the report covers the rows: it does not
depend on the machine, the number of processes or the compression.

The output is written atomically. An existing output with the same rows is left unchanged; a folder with any
other content is refused.

exit status: 0 all segments were written; 3 some could not be read; 1 failure; 2 wrong usage
"""


def parse_arguments(argv: list[str] | None) -> tuple[argparse.Namespace, dict]:
    """Return the options, and those of single layouts that were given."""
    parser = make_parser("prepare", DESCRIPTION)
    parser.add_argument("--layout", required=True, help="layout of the source folder, one of the above")
    parser.add_argument("--source", required=True, help="source folder")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--num_proc", type=int, default=1, help="worker processes (default: 1)")
    options = parser.add_argument_group("options of single layouts")
    options.add_argument("--file", help="mmsa: name of the pickle, if the folder has several")
    options.add_argument("--audio", help="csd: file of audio features, or its root, if there are several")
    options.add_argument("--video", help="csd: file of video features, or its root, if there are several")
    options.add_argument("--average_per_word", action="store_true", help="csd: average the features of each word")
    options.add_argument(
        "--modalities", nargs="+", choices=["text", "audio", "video"], help="folder: modalities to extract"
    )
    options.add_argument(
        "--tower_weights",
        help="folder: a state dict of torchvision's r2plus1d_18 (a file), or KINETICS400_V1 to download it",
    )
    options.add_argument(
        "--model", help="folder, voices, mini: a saved model, whose settings and video tower extract the features"
    )
    options.add_argument(
        "--max_length",
        type=int,
        help="csd: longer features are averaged over so many equal parts; folder, voices, mini: maximum audio frames "
        "and video clips (default: 60)",
    )
    options.add_argument(
        "--audio_encoder",
        help="folder, voices: a pretrained audio encoder (a folder or Hub id), whose output replaces log-mel frames",
    )
    options.add_argument(
        "--average_audio",
        action="store_true",
        help="folder, voices: average the output of --audio_encoder over time",
    )
    options.add_argument(
        "--keep_audio",
        action="store_true",
        help="ravdess, emodb, prompts, mini: store the files as the column `audio` in place of features, for "
        "models with an audio encoder and for `umons train --waveform_augmentation`",
    )
    options.add_argument("--faces", help="ravdess: a CSV of action units by file, for the column video_features")
    options.add_argument(
        "--sources",
        nargs="+",
        choices=["mosei", "mosi", "goemotions", "meld", "ravdess", "emodb", "prompts"],
        metavar="CORPUS",
        help="mini: %(choices)s (default: those that are there)",
    )
    options.add_argument(
        "--voices_only",
        action="store_true",
        help="mini: leave out texts without a recording, but pair texts with voices",
    )
    arguments = parser.parse_args(argv)
    given = {action.dest: getattr(arguments, action.dest) for action in options._group_actions}
    return arguments, {name: value for name, value in given.items() if value is not None and value is not False}


def prepare(arguments: argparse.Namespace, options: dict) -> int:
    """Prepare the data set, and print its report."""
    from ..data.builders import builder_class
    from ..data.prepare import format_report, prepare_dataset
    from ..registration import register_auto_classes
    from ..utils.hub_files import hub_path

    register_auto_classes()
    logging.basicConfig(format="%(message)s")
    kind = builder_class(arguments.layout)
    card = hub_path("mosei", "README.md") if kind.DATASET_NAME == "mosei" else None
    builder = kind(layout=arguments.layout, data_dir=arguments.source, options=options)
    report = prepare_dataset(builder, arguments.output, arguments.num_proc, card)
    print(f"{report['data_set']} from {arguments.source} in {arguments.output}\n")
    print(format_report(report, report["failures"]))
    return SOME_FAILED if report["failures"] else 0


def main(argv: list[str] | None = None) -> int:
    return run("umons prepare", "data", partial(prepare, *parse_arguments(argv)), "Interrupted; nothing was written.")


if __name__ == "__main__":
    sys.exit(main())
