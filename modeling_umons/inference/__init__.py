"""Batch prediction and timelines, shared by the command line, the server and the Space."""
