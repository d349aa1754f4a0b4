"""Turn clips into features: Parquet shards that `load_dataset(OUTPUT, split=..., streaming=True)` reads.

    python scripts/extract_features.py --input clips --output features
    python scripts/extract_features.py --input clips/metadata.csv --output features --modalities text audio video \\
        --tower_weights r2plus1d_18.pt --dtype bfloat16 --num_proc 4
    torchrun --nproc_per_node 4 scripts/extract_features.py --input clips --output features --tower_weights KINETICS400_V1

The input is one of
  - a folder of clips or sound files, searched with its subfolders;
  - a table (.csv, .jsonl, .parquet), or a folder with a metadata.csv, .jsonl or .parquet: a column `file_name` (beside
    the table), and any of `start` and `end` (seconds, for segments of long files), `split`, `text`, `words`,
    `segment_id`, `video_id`, `segment`, `sentiment`, `emotions` (six numbers: happy, sad, anger, surprise, disgust,
    fear), or one column for each emotion;
  - a folder that `save_to_disk` of `datasets` wrote or `load_dataset` loads, with a column of sound or video.

The output has log-mel frames (80 values, one frame in 0.2 s) as `audio_features`, or what --audio_encoder makes of the
sound; what scripts/train.py --audio_encoder reads; R(2+1)D features of clips of 16 frames
at 15 frames per second, one in 8 frames (512 values) as `video_features`, and what the input has of the other columns.
What is missing is null.

A run that was stopped, even killed, goes on where it stopped when the same command is given again: shards are written
whole or not at all. A folder with features of other settings, or of an input that has changed since, is refused.

A file that cannot be read costs its row alone. failures.csv in the output says which (row of the input, counted from 0)
and why; it also names rows that were kept without one of their features.

exit status: 0 all rows were written; 3 some rows failed and were left out; 1 nothing could be done; 2 wrong usage
"""

import argparse
import sys

from ..data.extraction import FAILURES_NAME, ExtractionReport, ExtractionSettings, extract_features


SHOWN_FAILURES = 20


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", required=True, help="the clips: a folder, a table or a data set")
    parser.add_argument("--output", required=True, help="the folder to write")
    parser.add_argument(
        "--modalities",
        nargs="+",
        choices=["text", "audio", "video"],
        help="what goes into the output; text is copied (default: text audio, and video with --tower_weights or --video_encoder)",
    )
    parser.add_argument(
        "--max_length",
        type=int,
        help="audio frames and video clips kept of a row (default: 60; of an audio encoder half a minute)",
    )
    parser.add_argument(
        "--tower_weights",
        help="a state dict of torchvision's r2plus1d_18 (a file), or KINETICS400_V1, which is fetched",
    )
    parser.add_argument(
        "--audio_encoder",
        help="a pretrained encoder of sound (wav2vec 2.0, WavLM, Whisper ...: a folder or Hub id), in place of log-mel",
    )
    parser.add_argument(
        "--video_encoder", help="one of clips of pictures (VideoMAE, TimeSformer ...), in place of the video tower"
    )
    parser.add_argument(
        "--model", help="a saved model, to extract with its settings, its encoders and its video tower"
    )
    parser.add_argument(
        "--dtype",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of the video tower; bfloat16 is faster, and good for two to three digits (default: float32)",
    )
    parser.add_argument("--shard_size", type=int, default=256, help="rows of a shard (default: 256)")
    parser.add_argument("--num_proc", type=int, help="worker processes or actors (default: one for each GPU, or 1)")
    parser.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="ray runs the workers as actors on the cluster of RAY_ADDRESS, or on this machine (default: local)",
    )
    return parser, parser.parse_args()


def print_report(report: ExtractionReport, output: str) -> None:
    print(f"{report.num_rows} rows in {output}, {report.num_left_out} left out.")
    if not report.failures:
        return
    shown = report.failures[:SHOWN_FAILURES]
    width = max(4, *(len(file) for _, file, _ in shown))
    print(f"\n{'row':>6}  {'file':{width}}  reason")
    for row, file, reason in shown:
        print(f"{row:6}  {file:{width}}  {reason}")
    if len(report.failures) > len(shown):
        print(f"... and {len(report.failures) - len(shown)} more in {FAILURES_NAME}")


def main() -> int:
    parser, args = parse_arguments()
    modalities = args.modalities or ["text", "audio", *(["video"] if args.tower_weights or args.video_encoder else [])]
    try:
        settings = ExtractionSettings(
            tuple(modalities),
            args.max_length,
            args.tower_weights,
            args.model,
            args.dtype,
            args.shard_size,
            args.audio_encoder,
            args.video_encoder,
        )
        report = extract_features(args.input, args.output, settings, args.num_proc, args.engine)
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. Run the same command again to resume.", file=sys.stderr)
        return 130
    if report is None:  # a rank that is not the first
        return 0
    print_report(report, args.output)
    if report.num_rows == 0:
        return 1
    return 3 if report.num_left_out else 0


if __name__ == "__main__":
    sys.exit(main())
