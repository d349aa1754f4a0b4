"""`umons export`: export a model to ONNX."""

import argparse
import sys
from functools import partial
from pathlib import Path

from .command import make_parser, run


DESCRIPTION = """Export a model to ONNX, and check it against PyTorch.

    umons export runs/sample runs/onnx
    umons export umons-mini runs/onnx --int8 --check_dataset mosi --split test

The output folder has model.onnx, config.json and the files of the processor. The inputs of model.onnx are
those of the model, values and mask of each modality; batch size and lengths are dynamic; the output is
`logits`. The graph always takes all modalities: a missing one is a sequence of any length with a mask of
zeros, which `complete_inputs` of modeling_umons.export.onnx adds to the output of the processor.

Pretrained text and audio encoders are part of model.onnx, which then takes the output of AutoProcessor:
`input_ids`, and waveforms or Whisper's spectrograms, of one length. A video tower or encoder is not part of
it: the graph takes its output, `video_features` or `video_embeds`. An encoder that ONNX cannot represent is an error.

Before anything is written, logits are compared with PyTorch's for 1, 3 and 8 rows, the shortest and longest
sequences, and rows and batches with a missing modality; a difference above 1e-4 is an error. The folder is
written atomically.

--int8 adds model_int8.onnx, with 8-bit weights, and prints sizes and speeds; --check_dataset prints the
metrics of each engine. These differences are reported only, never refused.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("export", DESCRIPTION)
    parser.add_argument("model", help="a folder or Hub id")
    parser.add_argument("output", type=Path, help="folder to write; new or empty")
    parser.add_argument("--int8", action="store_true", help="write model_int8.onnx too, and measure its speed")
    parser.add_argument("--float_word_vectors", action="store_true", help="with --int8: keep word vectors in float32")
    parser.add_argument("--check_dataset", help="evaluate every engine on this table or data set")
    parser.add_argument("--split", default="test", help="split of --check_dataset (default: test)")
    arguments = parser.parse_args(argv)
    if arguments.float_word_vectors and not arguments.int8:
        parser.error("--float_word_vectors requires --int8.")
    return arguments


def export(arguments: argparse.Namespace) -> None:
    """Export the model, and print how far it is from PyTorch."""
    from transformers.utils.logging import disable_progress_bar

    from ..export.export_model import export_model

    disable_progress_bar()
    export_model(arguments.model, **{name: value for name, value in vars(arguments).items() if name != "model"})


def main(argv: list[str] | None = None) -> int:
    return run("umons export", "onnx", partial(export, parse_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main())
