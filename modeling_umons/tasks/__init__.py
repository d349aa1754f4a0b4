"""Prediction tasks: labels, losses and the metrics they are judged by."""
