"""Options of the data that a command reads."""

from dataclasses import dataclass, field

from ..tasks.task import TASKS


@dataclass
class DataArguments:
    """What to train on."""

    train_file: str | None = field(default=None, metadata={"help": "A table with training rows, or with all splits."})
    validation_file: str | None = field(default=None, metadata={"help": "A table with validation rows."})
    test_file: str | None = field(default=None, metadata={"help": "A table with test rows."})
    dataset_name: str | None = field(
        default=None, metadata={"help": "Instead of tables: a folder or Hub repository that `load_dataset` takes."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    task: str = field(default="joint", metadata={"help": f"What to predict: {', '.join(TASKS)}."})
    text_column: str = field(default="text", metadata={"help": "The column of texts."})
    audio_column: str = field(
        default="file_name",
        metadata={"help": "The column of sound or video files; not read where there is a column `audio_features`."},
    )
    label_column: str = field(default="label", metadata={"help": "The column of classes, for --task classification."})
    repeat: list[str] = field(
        default_factory=list,
        metadata={"help": "Sources (the column `source`) that an epoch goes through several times, as ravdess=4."},
    )
    validation_share: float = field(default=0.1, metadata={"help": "What to hold out where nothing else says."})
    preprocessing_num_proc: int | None = field(default=None, metadata={"help": "Processes that read the files."})
