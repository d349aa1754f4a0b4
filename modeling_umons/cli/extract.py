"""`umons extract`: extract features of clips to Parquet."""

import argparse
import sys
from functools import partial

from .command import FAILURE, SOME_FAILED, add_engine_arguments, make_parser, run
from .output import print_failures


DESCRIPTION = """Extract features of clips to Parquet shards for `load_dataset`.

    umons extract --input clips --output features
    umons extract --input clips/metadata.csv --output features --modalities text audio video \\
        --tower_weights r2plus1d_18.pt --dtype bfloat16 --num_proc 4
    torchrun --nproc_per_node 4 -m modeling_umons.cli.extract --input clips --output features

The input is one of
  - a folder of clips or audio files, searched with its subfolders;
  - a table (.csv, .jsonl, .parquet), or a folder with a metadata.csv, .jsonl or .parquet: a column `file_name`
    (relative to the table), and any of `start` and `end` (seconds, for segments of long files), `split`, `text`,
    `words`, `segment_id`, `video_id`, `segment`, `sentiment`, `emotions` (six numbers: happy, sad, anger,
    surprise, disgust, fear), or one column per emotion;
  - a folder that `save_to_disk` of `datasets` wrote or `load_dataset` loads, with an audio or video column.

The output has
  audio_features   log-mel frames (80 values, one frame in 0.2 s), or the output of --audio_encoder
  video_features   R(2+1)D features (512 values) of clips of 16 frames at 15 frames per second, one in 8 frames,
                   or the output of --video_encoder
and the other columns above that the input has. Missing values are null.

The same command resumes an interrupted run; shards are written atomically. A folder with features of other
settings, or of an input that has changed since, is refused.

A file that cannot be read fails its own row only. failures.csv in the output has the row (counted from 0) and
the reason; it also lists rows that were kept without one of their features.

exit status: 0 all rows were written; 3 some rows failed and were left out; 1 failure; 2 wrong usage
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("extract", DESCRIPTION)
    parser.add_argument("--input", required=True, help="clips: a folder, a table or a data set")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument(
        "--modalities",
        nargs="+",
        choices=["text", "audio", "video"],
        help="modalities of the output; text is copied (default: text audio, and video with --tower_weights or "
        "--video_encoder)",
    )
    parser.add_argument(
        "--max_length",
        type=int,
        help="maximum audio frames and video clips per row (default: 60; 30 s for an audio encoder)",
    )
    parser.add_argument(
        "--tower_weights",
        help="a state dict of torchvision's r2plus1d_18 (a file), or KINETICS400_V1 to download it",
    )
    parser.add_argument(
        "--audio_encoder",
        help="a pretrained audio encoder (wav2vec 2.0, WavLM, Whisper, ...: a folder or Hub id) instead of log-mel",
    )
    parser.add_argument(
        "--video_encoder", help="a pretrained video encoder (VideoMAE, TimeSformer, ...) instead of the video tower"
    )
    parser.add_argument("--model", help="a saved model, whose settings, encoders and video tower extract the features")
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="precision of the video tower; bfloat16 is faster, and exact to two or three digits (default: float32)",
    )
    parser.add_argument("--shard_size", type=int, default=256, help="rows per shard (default: 256)")
    add_engine_arguments(parser)
    return parser.parse_args(argv)


def extract(arguments: argparse.Namespace) -> int:
    """Extract the features, and print the failures."""
    from ..data.extraction import ExtractionSettings, extract_features
    from ..data.sharding import Engine
    from ..registration import register_auto_classes

    register_auto_classes()
    engine = Engine(arguments.engine, arguments.num_proc, arguments.gpus_per_worker)
    has_video = arguments.tower_weights or arguments.video_encoder
    settings = ExtractionSettings(
        modalities=tuple(arguments.modalities or ["text", "audio", *(["video"] if has_video else [])]),
        max_length=arguments.max_length,
        tower_weights=arguments.tower_weights,
        model=arguments.model,
        dtype=arguments.dtype,
        shard_size=arguments.shard_size,
        audio_encoder=arguments.audio_encoder,
        video_encoder=arguments.video_encoder,
    )
    report = extract_features(arguments.input, arguments.output, settings, engine)
    if report is None:  # a rank other than the first
        return 0
    print_report(report, arguments.output)
    if report.num_rows == 0:
        return FAILURE
    return SOME_FAILED if report.num_left_out else 0


def print_report(report, output: str) -> None:
    """Print the number of rows, and the first failures."""
    from ..data.extraction import FAILURES_NAME

    print(f"{report.num_rows} rows in {output}, {report.num_left_out} left out.")
    print_failures(report.failures, FAILURES_NAME)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return run("umons extract", "data", partial(extract, arguments), "Interrupted. The same command resumes.")


if __name__ == "__main__":
    sys.exit(main())
