"""Packages and their data. Metadata and tools are in pyproject.toml."""

from setuptools import find_packages, setup


setup(
    packages=[*find_packages(include=["modeling_umons", "modeling_umons.*"]), "modeling_umons.hub"],
    package_dir={"modeling_umons.hub": "hub"},
    package_data={
        "modeling_umons": ["py.typed"],
        "modeling_umons.data": ["official_splits.json"],
        "modeling_umons.publishing": ["model_card.md"],
        "modeling_umons.recipes": ["*.yaml", "accelerate/*.yaml"],
        "modeling_umons.hub": [
            "endpoint/*",
            "mosei/README.md",
            "umons-mini/*.json",
            "umons-mini/LICENSE",
            "umons-mini/README.md",
            "umons-mini/model.safetensors",
        ],
    },
)
