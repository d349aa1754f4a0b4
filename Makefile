# `make demo` and `make test` are all the set-up there is: each makes .venv and installs what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
LAUNCH := $(BIN)/accelerate launch --quiet --config_file modeling_umons/recipes/accelerate/one_process.yaml

# Without code: a push adds it.
MINI_FILES := README.md config.json model.safetensors preprocessor_config.json processor_config.json report tokenizer.json tokenizer_config.json

.PHONY: demo test space benchmark mini lint clean

demo: $(INSTALLED)
	$(LAUNCH) scripts/train.py modeling_umons/recipes/sample.yaml
	$(BIN)/umons predict hub/sample/clips/075.mp4 --text "I am angry that the flight was cancelled without a word." --plot runs/sample/prediction.png
	@echo
	@echo "The model that was trained just now is runs/sample; how well it does stands in runs/sample/report/report.md."
	@echo "The prediction is by umons-mini, the small model in hub/umons-mini; its picture is runs/sample/prediction.png."
	@echo "Next: predict a clip of your own,    $(BIN)/umons predict FILE --text \"what is said\""
	@echo "      train on your own table,       $(LAUNCH) scripts/train.py --help"

test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

# The page on which people try the model: http://127.0.0.1:7860
space: $(INSTALLED)
	$(BIN)/python hub/space/app.py

# Measure speed-ups over plain implementations: a table and a plot in docs/benchmarks
benchmark: $(INSTALLED)
	$(BIN)/python scripts/benchmark.py --output docs/benchmarks

# Trains umons-mini anew from a folder with mosi, mosei, meld and ravdess: make mini DATA=folder
mini: $(INSTALLED)
	$(BIN)/python scripts/prepare_mosei.py --layout mini --source $(DATA) --output runs/mini-data --model modeling_umons/recipes/umons-mini
	$(LAUNCH) scripts/train.py modeling_umons/recipes/umons-mini.yaml
	cp -r $(addprefix runs/umons-mini/,$(MINI_FILES)) hub/umons-mini

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python scripts/check_style.py
	$(BIN)/mlinter --no-progress modeling_umons

clean:
	rm -rf .venv runs tests/conformance/hf_bar

$(INSTALLED): setup.py
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -e ".[train,data,glove,pretrained,serve,space,onnx,ray,dev]"
	touch $@
