"""`umons serve`: predictions over HTTP."""

import argparse
import sys
from functools import partial
from importlib import import_module
from pathlib import Path

from .command import WRONG_USAGE, add_model_arguments, make_parser, print_error, run


DESCRIPTION = """Serve predictions over HTTP: POST /predict, WebSocket /stream, GET /health, GET /metrics.

    umons serve --port 8000
    curl localhost:8000/predict -F file=@clip.mp4 -F text="what is said"
    curl "localhost:8000/predict?text=so+glad" -H "Content-Type: video/mp4" --data-binary @clip.mp4
    curl localhost:8000/predict -H "Content-Type: application/json" \\
      -d '{"inputs": {"text": "what a wonderful day"}, "parameters": {"top_k": 3}}'

The body is JSON, a form or a raw file. Inputs are a text, {"text", "audio", "video"} with media in
base64, or a list of those; a text in JSON may have a history and a speaker. Parameters are top_k,
chunk_length_s, return_timestamps, return_attention, return_explanations, abstain_below, overflow
and strict. URLs are not fetched.
/stream?sampling_rate=16000 takes 16-bit audio while it is recorded, and sends predictions as JSON.
The schema is at /docs. The server has neither authentication nor TLS: put a reverse proxy in front
of it before others can reach it.
"""


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = make_parser("serve", DESCRIPTION)
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port to bind (default: 8000; 0: any free port)")
    parser.add_argument("--max_batch_size", type=int, default=8, help="maximum requests per batch (default: 8)")
    parser.add_argument(
        "--max_wait_ms", type=float, default=5.0, help="maximum time to wait for a full batch (default: 5)"
    )
    parser.add_argument(
        "--max_queue", type=int, default=64, help="maximum number of open requests; others get 503 (default: 64)"
    )
    parser.add_argument("--timeout_s", type=float, default=30.0, help="timeout of a request (default: 30)")
    parser.add_argument("--max_media_mb", type=int, default=23, help="maximum MiB of media per request (default: 23)")
    parser.add_argument(
        "--max_media_s", type=float, default=600.0, help="maximum seconds of media per request (default: 600)"
    )
    parser.add_argument("--max_streams", type=int, default=20, help="maximum number of open streams (default: 20)")
    add_model_arguments(parser)
    return parser.parse_args(argv)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise ValueError for numbers out of range."""
    for name in ("max_batch_size", "max_queue", "timeout_s", "max_media_mb", "max_media_s", "max_streams"):
        if not 0 < getattr(arguments, name) < float("inf"):
            raise ValueError(f"--{name} is {getattr(arguments, name):g}: it must be more than 0, and finite.")
    if not 0 <= arguments.max_wait_ms < float("inf"):
        raise ValueError(f"--max_wait_ms is {arguments.max_wait_ms:g}: it must be 0 or more, and finite.")
    if not 0 <= arguments.port < 65536:
        raise ValueError(f"--port is {arguments.port}: ports are 0 to 65535.")


def serve(arguments: argparse.Namespace) -> None:
    """Serve requests until the process is told to stop."""
    import_module("python_multipart")  # which FastAPI imports late, for forms
    import_module("websockets")  # which uvicorn imports late, for streams
    from ..inference.loading import load_pipeline
    from ..serving.request_handling import Limits
    from ..serving.server import serve as serve_pipeline
    from ..serving.streaming import StreamLimits
    from ..utils.hub_files import DEFAULT_MODEL

    # base64 takes four bytes for three, and JSON a little more
    num_bytes = arguments.max_media_mb * 2**20
    limits = Limits(
        max_body_bytes=num_bytes * 4 // 3 + 2**20, max_media_bytes=num_bytes, max_media_s=arguments.max_media_s
    )
    options = {
        name: getattr(arguments, name) for name in ("host", "port", "max_batch_size", "max_wait_ms", "max_queue")
    }
    model = load_pipeline(arguments.model, arguments.trust_remote_code, pack=True)
    name = Path(arguments.model or DEFAULT_MODEL).name
    stream_limits = StreamLimits(max_streams=arguments.max_streams, idle_s=arguments.timeout_s)
    serve_pipeline(
        model, name=name, limits=limits, stream_limits=stream_limits, timeout_s=arguments.timeout_s, **options
    )


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    try:
        check_arguments(arguments)
    except ValueError as error:
        print_error("umons serve", error)
        return WRONG_USAGE
    return run("umons serve", "serve", partial(serve, arguments))


if __name__ == "__main__":
    sys.exit(main())
