"""Metrics, confidence intervals, baselines, reports and plots."""
