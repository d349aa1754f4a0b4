# `make demo` and `make test` need no set-up: they create .venv and install what they use, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# The demo needs a part of it only.
DEMO_INSTALLED := $(or $(wildcard $(INSTALLED)),.venv/.installed-train)
LAUNCH := $(BIN)/accelerate launch --quiet --config_file modeling_umons/recipes/accelerate/one_process.yaml

.PHONY: demo test test-oldest test-newest space benchmark base mini docs lint clean

demo: $(DEMO_INSTALLED)
	$(LAUNCH) scripts/train.py sample --resume_from_checkpoint last
	$(BIN)/umons predict hub/sample/clips/075.mp4 --text "I am angry that the flight was cancelled without a word." --plot runs/sample/prediction.png
	@echo
	@echo "The trained model is runs/sample, its report runs/sample/report/report.md. The sample is synthetic, with keywords in"
	@echo "its sentences that TF-IDF finds: the scores show that everything works, and nothing about real data."
	@echo "The prediction is by umons-base; its plot is runs/sample/prediction.png."
	@echo "Next: predict a clip of your own,    $(BIN)/umons predict FILE --text \"what is said\""
	@echo "      train on your own table,       $(BIN)/umons train --train_file TABLE"

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

# The fast tests with the lowest and the highest versions that pyproject.toml allows, in environments of their own.
# UV_TORCH_BACKEND=cpu installs torch without CUDA.
RESOLUTION_oldest := lowest-direct
RESOLUTION_newest := highest
VERSIONS := import importlib.metadata as m, platform; print("Python " + platform.python_version(), *(f"{n} {m.version(n)}" for n in ("torch", "torchvision", "transformers", "huggingface-hub", "av", "numpy", "datasets", "accelerate")), sep=", ")
FAST_TESTS := tests/data tests/evaluation tests/inference tests/models tests/tasks tests/test_registration.py
test-oldest test-newest: test-%: $(INSTALLED)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-$*
	$(BIN)/uv pip install --quiet --python .venv-$* --resolution $(RESOLUTION_$*) -e ".[all,dev]"
	.venv-$*/bin/python -c '$(VERSIONS)'
	OMP_NUM_THREADS=1 .venv-$*/bin/python -m pytest --numprocesses auto --dist loadfile $(FAST_TESTS)

# The Space, on http://127.0.0.1:7860
space: $(INSTALLED)
	$(BIN)/python hub/space/app.py

# Measure speed-ups over plain implementations: a table and a plot in docs/benchmarks
benchmark: $(INSTALLED)
	$(BIN)/python scripts/benchmark.py --output docs/benchmarks

# Retrain the models from a folder with the corpora (docs/results.md): make base mini DATA=folder. Interrupted runs resume.
# Whisper is a folder or Hub id.
WHISPER ?= openai/whisper-tiny.en
base: $(INSTALLED)
	$(BIN)/umons prepare --layout mini --sources mosei mosi goemotions meld --source $(DATA) --output runs/text-data
	$(LAUNCH) scripts/train.py umons-base-text --resume_from_checkpoint last
	$(BIN)/umons prepare --layout mini --voices_only --keep_audio --source $(DATA) --output runs/voice-data
	$(LAUNCH) scripts/train.py umons-base --audio_encoder $(WHISPER) --resume_from_checkpoint last

# After make base, which is the teacher
mini: $(INSTALLED)
	test -d runs/mini-text-data || $(BIN)/umons distill runs/text-data --model runs/umons-base-text --output runs/mini-text-data
	$(LAUNCH) scripts/train.py umons-mini-text --resume_from_checkpoint last
	$(LAUNCH) scripts/train.py umons-mini --resume_from_checkpoint last

# The documentation, in site
docs: .venv/.installed-docs
	$(BIN)/mkdocs build --strict

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check_style.py
	$(BIN)/mlinter --no-progress modeling_umons
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-oldest .venv-newest runs site tests/conformance/hf_bar

$(INSTALLED): pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e ".[all,dev]"
	touch $@

.venv/.installed-%: pyproject.toml setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e ".[$*]"
	touch $@
