"""Model code, in flat folders that the Hub copies next to the weights.

Imports nothing from the rest of the package.
"""

from transformers.utils.auto_docstring import HARDCODED_CONFIG_FOR_MODELS


# `auto_docstring` takes a folder `models/<name>` for one of transformers' own and prints an error for a name that it
# does not know, unless the name of the configuration is added here, as the error advises.
HARDCODED_CONFIG_FOR_MODELS.update(umons="UmonsConfig", baselines="BaselineConfig")
