"""Cells of the paper's results table: tasks and combinations of modalities."""

# Metric of each task.
TASK_METRICS = {"sentiment-2": "acc2_has0", "sentiment-7": "acc7", "emotion": "emotion_acc"}
LETTERS = {"L": "text", "A": "audio", "V": "video"}
COMBINATIONS = ("L", "A", "V", "L+A", "L+A+V")
