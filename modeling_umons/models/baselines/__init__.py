"""Baselines of the UMONS model from related work: TFN, MFN, Graph-MFN and Multilogue-Net."""
