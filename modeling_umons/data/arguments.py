"""Options of the data that a command reads."""

from dataclasses import dataclass, field

from ..tasks.task import TASKS


@dataclass
class DataArguments:
    """Data to train on."""

    train_file: str | None = field(
        default=None, metadata={"help": "Table with the training rows, or with all splits (column `split`)."}
    )
    validation_file: str | None = field(default=None, metadata={"help": "Table with the validation rows."})
    test_file: str | None = field(default=None, metadata={"help": "Table with the test rows."})
    dataset_name: str | None = field(
        default=None, metadata={"help": "In place of tables: a folder or Hub repository for `load_dataset`."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Configuration of --dataset_name."})
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read the training rows of --dataset_name while training, without downloading them. Requires "
            "--max_steps, extracted features and a validation split."
        },
    )
    streaming_buffer: int = field(
        default=10_000,
        metadata={
            "help": "Rows that --streaming shuffles at a time. As many first rows of the stream provide the "
            "vocabulary, class weights and baselines."
        },
    )
    task: str | None = field(
        default=None,
        metadata={
            "help": f"Task: {', '.join(TASKS)}. By default that of --model_name_or_path, or joint for a new model."
        },
    )
    text_column: str = field(default="text", metadata={"help": "Column of texts."})
    audio_column: str = field(
        default="file_name",
        metadata={"help": "Column of audio or video files; not read if there is a column `audio_features`."},
    )
    label_columns: list[str] = field(
        default_factory=list,
        metadata={
            "aliases": ["--label_column"],
            "help": "Columns of the labels, in their order: the column of classes (default: label), or those of "
            "multi_label and regression. Other tasks have columns with the names of their labels by default.",
        },
    )
    label_range: list[float] | None = field(
        default=None,
        metadata={
            "help": "Lowest and highest label: sentiments on another scale, such as 1 5, are rescaled to [-3, 3]; "
            "labels of regression outside of it are refused."
        },
    )
    allow_overlap: bool = field(
        default=False, metadata={"help": "Train even if a video_id is in more than one split."}
    )
    repeat: list[str] = field(
        default_factory=list,
        metadata={"help": "Repetitions of rows by their column `source`, such as ravdess=4."},
    )
    validation_share: float = field(
        default=0.1, metadata={"help": "Fraction of training rows held out if there is no validation split."}
    )
    preprocessing_num_proc: int | None = field(
        default=None, metadata={"help": "Number of processes that decode files."}
    )
