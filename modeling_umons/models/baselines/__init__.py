"""Baselines of the UMONS model from related work: TFN, MFN, Graph-MFN, Multilogue-Net and MulT."""
