"""The systems of the related work in the shape of the UMONS model: TFN, MFN, Graph-MFN and Multilogue-Net."""
