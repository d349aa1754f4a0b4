"""Tests of the options of `umons train`: recipes, command line and invalid options."""

import dataclasses

import pytest
import yaml

from modeling_umons.data.arguments import DataArguments
from modeling_umons.training.arguments import (
    FINE_TUNING_RATE,
    PARTS,
    AugmentationArguments,
    CardArguments,
    ModelArguments,
    parse_arguments,
)


KEPT = (
    "compare",
    "compare-meld",
    "compare-mosei",
    "compare-ravdess",
    "emotion",
    "goemotions",
    "joint",
    "meld",
    "meld-context",
    "minilm-joint",
    "minilm-sentiment",
    "mosei-context",
    "ravdess",
    "ravdess-faces",
    "sample",
    "sentiment",
    "sentiment-2",
    "sentiment-7",
    "umons-base",
    "umons-base-text",
    "umons-mini",
    "umons-mini-text",
)
OF_THE_PAPER = ("emotion", "joint", "sentiment", "sentiment-2", "sentiment-7")


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a recipe and returns its path."""

    def call(text: str) -> str:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return call


def parse(*words) -> dict:
    """Return all options by name."""
    return {name: value for part in parse_arguments(list(words), "") for name, value in vars(part).items()}


# --- parsing


def test_defaults_match_paper():
    data, model, augmentation, card, run = parse_arguments([], "")
    assert [type(part) for part in (data, model, augmentation, card, run)] == list(PARTS)
    assert (run.learning_rate, run.per_device_train_batch_size, run.lr_scheduler_type) == (1e-4, 32, "constant")
    assert (run.max_grad_norm, run.weight_decay, run.adam_beta1, run.adam_beta2) == (0, 0, 0.9, 0.999)
    assert (model.hidden_size, model.intermediate_size, model.num_hidden_layers) == (512, 1024, 4)
    assert (model.num_attention_heads, model.word_embedding_size, model.hidden_dropout_prob) == (4, 300, 0.1)
    assert (model.modalities, data.task) == (["text", "audio"], None)  # joint, or that of a pretrained model
    assert augmentation == AugmentationArguments()
    assert not any(
        value for name, value in vars(augmentation).items() if name not in ("class_weights", "emotion_weight")
    )
    assert (run.max_halvings, run.patience, run.seeds) == (0, 0, 1)
    assert run.report_to == []
    assert run.load_best_model_at_end


def test_option_names_are_unique():
    names = [option.name for part in PARTS for option in dataclasses.fields(part)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("part", [DataArguments, ModelArguments, AugmentationArguments, CardArguments])
def test_options_have_help(part):
    assert all(option.metadata["help"].endswith(".") for option in dataclasses.fields(part))


def test_recipe_options_of_all_types(write):
    lines = ["modalities: [audio]", "learning_rate: 1e-3", "use_cpu: true", "load_best_model_at_end: false",
             "max_steps: -1", "test_file: null", "validation_share: 0.5", "about_data: '--- of: words, = all'",
             "repeat: [mosi=3, ravdess=6]", "warmup_steps: 0.1", "task: emotion"]  # fmt: skip
    options = parse(write("\n".join(lines)))
    assert options["modalities"] == ["audio"]
    assert (options["learning_rate"], options["max_steps"], options["warmup_steps"]) == (1e-3, -1, 0.1)
    assert (options["use_cpu"], options["load_best_model_at_end"]) == (True, False)
    assert (options["test_file"], options["validation_share"]) == (None, 0.5)
    assert options["about_data"] == "--- of: words, = all"
    assert options["repeat"] == ["mosi=3", "ravdess=6"]


def test_command_line_overrides_recipe(write):
    recipe = write("learning_rate: 1e-3\nmodalities: [audio]\nuse_cpu: true\nhidden_size: 64\nrepeat: [mosi=3]\n")
    words = [
        "--learning_rate",
        "0.1",
        "--modalities",
        "text",
        "audio",
        "--use_cpu",
        "false",
        "--hidden-size",
        "32",
        "--repeat",
        "a=1",
        "b=2",
    ]
    options = parse(recipe, *words)
    assert (options["learning_rate"], options["hidden_size"], options["use_cpu"]) == (0.1, 32, False)
    assert (options["modalities"], options["repeat"]) == (["text", "audio"], ["a=1", "b=2"])
    assert parse(recipe)["hidden_size"] == 64


def test_flag_without_value(write):
    options = parse("--tune_thresholds", "--seed", "2")
    assert (options["tune_thresholds"], options["seed"]) == (True, 2)
    assert not parse(write("tune_thresholds: true"), "--tune_thresholds", "false")["tune_thresholds"]


def test_recipe_with_yml_suffix(tmp_path):
    (tmp_path / "recipe.yml").write_text("task: emotion\n", encoding="utf-8")
    assert parse(str(tmp_path / "recipe.yml"))["task"] == "emotion"


def test_recipe_is_found_by_name():
    assert parse("emotion")["task"] == "emotion"
    with pytest.raises(OSError, match=r"emotoin: there is no such recipe\. .*emotion"):
        parse("emotoin")


def test_rows_of_command_line_replace_those_of_recipe():
    options = parse("emotion", "--train_file", "my.csv")
    assert (options["train_file"], options["dataset_name"], options["max_halvings"]) == ("my.csv", None, 2)
    options = parse("umons-mini", "--dataset_name=mosei")
    assert (options["dataset_name"], options["repeat"]) == ("mosei", [])
    options = parse("sample", "--dataset_name", "mosei")
    assert (options["train_file"], options["dataset_name"]) == (None, "mosei")


# --- invalid options


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("hiden_size: 16\nwarmup: 2\n", r"has unknown option\(s\) \['hiden_size', 'warmup'\]; see `--help`"),
        ("- text\n", "is not a recipe: it needs a line `option: value`"),
        ("", "is not a recipe"),
        ("task: [joint\n", "is not valid YAML"),
        ("task: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
        ("hidden_size: 16.5\n", "invalid int value: '16.5'"),
        ("hidden_size: [16, 32]\n", r"\['32'\]"),
        ("load_best_model_at_end: perhaps\n", "perhaps"),
    ],
)  # fmt: skip
def test_invalid_recipe_raises(write, recipe, message):
    with pytest.raises(ValueError, match=message):
        parse(write(recipe))


def test_missing_recipe_raises():
    with pytest.raises(OSError, match=r"nowhere\.yaml"):
        parse("nowhere.yaml")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--learning_speed 1", "--learning_speed"),
        ("--learning_rate fast", "invalid float value: 'fast'.*see `--help`"),
        ("--learning_rate", "expected one argument"),
        ("--seed 1 stray", "stray"),
        ("--save_total_limit 1", "--save_total_limit must be 2 or more"),
        ("--save_total_limit 0", "--save_total_limit must be 2 or more"),
        ("--max_halvings -1", "--max_halvings is -1; it must be 0 or more"),
        ("--patience -3", "--patience is -3; it must be 0 or more"),
        ("--seeds 0", "--seeds is 0; it must be 1 or more"),
        ("--word_dropout 1.5", "--word_dropout is 1.5; it must be between 0 and 1"),
        ("--mixup -1", "--mixup is -1.0; it must be 0 or more"),
        ("--focal_gamma -1", "--focal_gamma is -1.0; it must be 0 or more"),
        ("--class_weights fair", "--class_weights is 'fair'; it must be none or balanced"),
        ("--model tfn --model_name_or_path x", "pass only one"),
        ("--encoder_layer_decay 0", r"--encoder_layer_decay is 0.0; it must be in \(0, 1\]"),
        ("--encoder_layer_decay 1.5", r"--encoder_layer_decay is 1.5"),
        ("--encoder_learning_rate 0", "--encoder_learning_rate is 0.0; it must be above 0"),
        ("--lora_rank -1", "--lora_rank is -1; it must be 0 or more"),
        ("--unfreeze_epoch -1", "--unfreeze_epoch is -1; it must be 0 or more"),
        ("--max_halvings 2 --lr_scheduler_type cosine", "requires --lr_scheduler_type constant"),
        ("--max_halvings 2 --save_strategy steps --load_best_model_at_end false", "a checkpoint for each evaluation"),
        ("--patience 3 --eval_strategy steps --eval_steps 5 --save_strategy steps --save_steps 10", "a checkpoint"),
        ("--patience 3 --eval_strategy no --save_strategy no --load_best_model_at_end false", "a checkpoint for"),
        ("--eval_strategy steps --save_strategy epoch", "load_best_model_at_end"),
    ],
)  # fmt: skip
def test_invalid_options_raise(words, message):
    with pytest.raises(ValueError, match=message):
        parse(*words.split())


def test_valid_combinations_of_options():
    parse("--patience", "3", "--lr_scheduler_type", "cosine")  # early stopping
    parse(
        *[
            "--max_halvings",
            "2",
            "--eval_strategy",
            "steps",
            "--eval_steps",
            "5",
            "--save_strategy",
            "steps",
            "--save_steps",
            "5",
        ]
    )
    parse("--save_total_limit", "2")


# --- recipes of the package


def test_package_contains_recipes(root):
    assert sorted(path.stem for path in (root / "modeling_umons" / "recipes").glob("*.yaml")) == list(KEPT)


@pytest.mark.parametrize("name", KEPT)
def test_recipe_options_are_parsed(root, name, monkeypatch):
    monkeypatch.chdir(root)
    path = f"modeling_umons/recipes/{name}.yaml"
    with open(path, encoding="utf-8") as file:
        recipe = yaml.safe_load(file)
    options = parse(path)
    for option, value in recipe.items():
        assert options[option] == value
    assert (options["train_file"] is None) != (options["dataset_name"] is None)
    assert recipe["output_dir"].startswith("runs/")
    assert "seed" in recipe
    assert options["train_file"] is None or (root / options["train_file"]).exists()
    assert options["feature_extractor"] in (None, "umons-mini")


@pytest.mark.parametrize("name", OF_THE_PAPER)
def test_recipes_of_paper_match_paper(root, name):
    """Check Adam at 1e-4, batches of 32, two halvings, a patience of three epochs, and no other options."""
    *_, model, augmentation, _, run = parse_arguments([str(root / "modeling_umons" / "recipes" / f"{name}.yaml")], "")
    options = parse(str(root / "modeling_umons" / "recipes" / f"{name}.yaml"))
    assert options["task"] == name
    assert (run.learning_rate, run.per_device_train_batch_size) == (1e-4, 32)
    assert (run.max_halvings, run.patience) == (2, 3)
    assert (run.lr_scheduler_type, run.max_grad_norm, run.weight_decay, run.warmup_steps) == ("constant", 0, 0, 0)
    assert run.optim == "adamw_torch_fused"
    assert (run.gradient_accumulation_steps, run.label_smoothing_factor) == (1, 0)
    assert model == ModelArguments()
    assert augmentation == AugmentationArguments()


def test_options_of_recipe_are_optional_if_models_are_replaced(write):
    recipe = write("model: [umons, tfn]\nhidden_size: 8\n")
    for words, optional in (([], set()), (["--model", "tfn"], {"model", "hidden_size"})):
        assert parse_arguments([recipe, *words], "")[1].optional == optional


def test_learning_rate_of_fine_tuning():
    fine_tuning = ("--model_name_or_path", "umons-mini")
    assert parse()["learning_rate"] == 1e-4
    assert parse(*fine_tuning)["learning_rate"] == FINE_TUNING_RATE
    assert parse(*fine_tuning, "--learning_rate", "0.01")["learning_rate"] == 0.01


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modalities: [&a [so], &b [*a, *a]]\n", r"recipe\.yaml contains YAML aliases"),
        ("modalities: " + "[" * 5000, r"recipe\.yaml is not valid YAML"),
    ],
    ids=["aliases", "nested"],
)
def test_recipe_that_would_exhaust_memory_raises(write, text, message):
    with pytest.raises(ValueError, match=message):
        parse(write(text))
