"""Removal of access tokens from messages."""

import re


ANY_TOKEN = re.compile(r"hf_\w{20,}")


def redact(text: str, token: str | None = None) -> str:
    """Return the text without `token`, and without anything else that looks like a token of the Hub."""
    return ANY_TOKEN.sub("hf_***", text.replace(token, "hf_***") if token else text)
