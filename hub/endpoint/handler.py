# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Handler of a Hugging Face Inference Endpoint. A push adds the modules that it imports."""

from pathlib import Path
from threading import Lock
from typing import Any

from request_handling import Limits, predict, read_request
from transformers import pipeline


DEADLINE_S = 60.0  # for a file


class EndpointHandler:
    """
    Handler that predicts with the model of its repository.

    Args:
        path: folder of the repository; by default the folder of this file. Its code is executed (`trust_remote_code`),
            as it was deployed on purpose. Requests choose neither model nor code.
    """

    def __init__(self, path: str = ""):
        folder = str(path or Path(__file__).absolute().parent)
        self.pipeline = pipeline("multimodal-emotion-recognition", model=folder, trust_remote_code=True)
        self.pipeline.decode_in_worker(DEADLINE_S)
        self.limits = Limits()
        self.lock = Lock()  # the toolkit may call from several threads, and tokenizers are not thread-safe

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | list[Any]:
        """
        Predict `{"inputs": ..., "parameters": {...}}`.

        Args:
            data: `inputs` are a text, the bytes of a clip or audio file, a dict of `text`, `audio` and `video` (media
                in base64), or a list of those. `parameters` are `top_k`, `chunk_length_s`, `return_timestamps` and
                `return_attention` of the pipeline.

        Returns:
            The result of the pipeline; for a list of inputs a list, with `{"error": message}` for inputs that failed.

        Raises:
            RequestError: a ValueError with a message for the client.
        """
        request = read_request(data, self.limits)
        with self.lock:
            return predict(self.pipeline, request, self.limits)
