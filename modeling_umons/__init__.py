"""The UMONS co-attention transformer for sentiment and emotion in text, sound and video."""
