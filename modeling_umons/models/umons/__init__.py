"""The UMONS model: configuration, model, processors, pipeline."""
