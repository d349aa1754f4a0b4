"""The systems of the related work in the shape of the UMONS model: TFN, MFN, Graph-MFN and Multilogue-Net.

Their classes are in `modeling_umons` itself, which loads each when it is first used.
"""
