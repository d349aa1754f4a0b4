# Copyright 2026 The modeling_umons authors.
# SPDX-License-Identifier: MIT
"""Handler of a Hugging Face Inference Endpoint: stands in the repository of a model, beside requests_umons.py and fetch_umons.py."""

from pathlib import Path
from threading import Lock
from typing import Any

from fetch_umons import fetch_media, is_public
from requests_umons import Limits, RequestError, answer, read_request
from transformers import pipeline


class EndpointHandler:
    """
    Answers with the model of the repository it stands in.

    Args:
        path: folder of the repository; this file's own by default. Its code is run (`trust_remote_code`): who deploys a
            repository has chosen it. Requests choose neither model nor code.
    """

    def __init__(self, path: str = ""):
        folder = str(path or Path(__file__).absolute().parent)
        self.pipeline = pipeline("multimodal-emotion-recognition", model=folder, trust_remote_code=True)
        self.limits = Limits()
        self.lock = Lock()  # the toolkit may call from several threads, and a tokenizer serves one at a time

    def __call__(self, data: dict[str, Any]) -> dict[str, Any] | list[Any]:
        """
        Answers `{"inputs": ..., "parameters": {...}}`.

        Args:
            data: inputs are an http(s) URL, the bytes of a clip or sound file, a dict of `text`, `audio` and `video` (media
                as base64 or http(s) URL), or a list of those. Parameters are `top_k`, `chunk_length_s`, `return_timestamps`
                and `return_attention` of the pipeline.

        Returns:
            What the pipeline gives; for a list of inputs a list, with `{"error": words}` for an input that failed.

        Raises:
            RequestError, FetchError: ValueErrors whose words are for the client.
        """
        request = read_request(data, self.limits)
        fetch_media(request, self.limits, is_public)
        with self.lock:
            (found,) = answer(self.pipeline, [request], self.limits)
        if isinstance(found, RequestError):
            raise found
        return found
