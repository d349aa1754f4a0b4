"""transformers' Trainer with the loss, the augmentation and the checkpoints of this project."""

import errno
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch.nn import functional as F
from torch.utils.data import SequentialSampler
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerState

from ..data.collator import ArrowRows, UtteranceCollator
from ..data.conversations import ConversationCollator, rows_for
from ..data.sampling import LengthGroups, order_by_length, row_lengths
from ..evaluation.metrics import task_metrics
from ..inference.logits import predict_in_row_order
from ..tasks.losses import TaskLoss, balanced_weights, flatten_conversations
from ..tasks.task import Task
from .arguments import AugmentationArguments, RunArguments
from .augmentation import Augmentation
from .checkpoints import (
    REPORT,
    MarkWholeCheckpoints,
    check_room,
    find_checkpoint,
    list_checkpoints,
    remove_checkpoints,
)
from .encoders import UnfreezeEncoders, merge_lora, parameter_groups, rest_frozen, running_encoders
from .fast_dropout import use_fast_dropout
from .progress import show_progress
from .schedule import ReloadBestAndHalve, best_checkpoint


logger = logging.getLogger(__name__)


class UmonsTrainer(Trainer):
    """
    `Trainer` over rows that stay in Arrow until they are a batch. For a model of conversations, which its collator makes,
    a batch is of as many conversations as it else is of rows; losses and metrics are of utterances all the same.

    Args:
        model: what is trained.
        args: the options of the run.
        task: what it learns.
        rows: data sets of usable rows (see `tables.usable_rows`); `train` and `validation` at least.
        collator: what makes batches of them.
        augmentation: the options of augmentation and loss.
        processor: saved with each checkpoint.
    """

    # `compute_loss` averages over a batch, so the losses of accumulated batches are to be averaged too.
    loss_is_scaled_for_ga = False

    def __init__(
        self,
        model,
        args: RunArguments,
        task: Task,
        rows: dict[str, Dataset],
        collator: UtteranceCollator,
        augmentation: AugmentationArguments,
        processor,
    ):
        args.choose_best_by(task)
        _check_metric(args.metric_for_best_model, task, rows["validation"])
        # `Trainer` cannot smooth labels of which several hold, and warns that it does not; `TaskLoss` does.
        label_smoothing, args.label_smoothing_factor = args.label_smoothing_factor, 0.0
        train_rows = rows_for(collator, rows["train"])
        # So many rows make a batch, be they one by one or in conversations: as many steps in an epoch for all models.
        batch_size = args.per_device_train_batch_size * len(train_rows) / max(len(rows["train"]), 1)
        args.per_device_train_batch_size = max(1, round(batch_size))
        if args.device.type == "cpu":
            use_fast_dropout(model)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_rows,
            # Metrics do not depend on the order of the rows; how much is padded does.
            eval_dataset=rows_for(collator, rows["validation"].select(order_by_length(rows["validation"], collator))),
            data_collator=collator,
            processing_class=processor,
            compute_metrics=lambda evaluation: evaluation_metrics(task, evaluation.label_ids, evaluation.predictions),
        )
        args.label_smoothing_factor = label_smoothing
        self.augment = Augmentation(
            modality_dropout=augmentation.modality_dropout,
            word_dropout=augmentation.word_dropout,
            unk_token_id=processor.tokenizer.unk_token_id,
            time_mask=augmentation.time_mask,
            bin_mask=augmentation.bin_mask,
            mixup=augmentation.mixup,
        )
        self.task_loss = self._make_loss(task, augmentation, label_smoothing, rows["train"])
        if args.max_halvings and (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            raise ValueError(
                "--max_halvings goes back to whole checkpoints, which FSDP and DeepSpeed do not write: pass 0."
            )
        if args.max_halvings or args.patience:
            self.add_callback(ReloadBestAndHalve(args.max_halvings, args.patience))
        if args.unfreeze_epoch:
            self.add_callback(UnfreezeEncoders(running_encoders(collator)))
        self.add_callback(MarkWholeCheckpoints)
        show_progress(self)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        model = self.model if model is None else model
        has_rates = self.args.encoder_learning_rate is not None or self.args.encoder_layer_decay != 1
        if self.optimizer is None and has_rates:
            groups = parameter_groups(model, self.args, self.get_decay_parameter_names(model))
            optimizer, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer(groups, **options)
        return super().create_optimizer(model)

    def _get_train_sampler(self, train_dataset=None):
        # `Trainer` finds lengths in dictionaries, and these rows are of Arrow.
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        if not isinstance(self.train_dataset, ArrowRows):
            raise ValueError(
                "--train_sampling_strategy group_by_length is for rows, but the model reads conversations."
            )
        collator = self.data_collator
        lengths = row_lengths(self.train_dataset, collator.modality_columns, collator.max_lengths)
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroups(batch_size, lengths, self.args.seed)

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(eval_dataset)  # answers come in the order of the rows, however training draws them

    def _make_loss(
        self, task: Task, augmentation: AugmentationArguments, label_smoothing: float, rows: Dataset
    ) -> TaskLoss | None:
        """`None` where the model's own loss will do."""
        if augmentation.class_weights not in ("none", "balanced"):
            raise ValueError(f"--class_weights is {augmentation.class_weights!r}; it must be none or balanced.")
        is_balanced = augmentation.class_weights == "balanced"
        if not (is_balanced or augmentation.focal_gamma or label_smoothing or augmentation.mixup):
            return None
        weights = balanced_weights(task, _labels(task, rows)) if is_balanced else None
        return TaskLoss(task, weights, augmentation.focal_gamma, label_smoothing).to(self.args.device)

    def compute_loss(
        self, model, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch=None
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        share = 1.0
        if model.training:
            rest_frozen(self.model)
            inputs, others, share = self.augment.mix(self.augment(inputs))
        if self.task_loss is None:
            outputs = model(**inputs)
            loss = outputs.loss
        else:
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = self.task_loss(outputs.logits, labels)
            if share < 1:
                loss = share * loss + (1 - share) * self.task_loss(outputs.logits, labels[others])
        return (loss, outputs) if return_outputs else loss

    def prediction_step(self, *args, **kwargs):
        # No loss of single batches: the mean of theirs depends on their size and on how unknown labels fall into them.
        # `evaluation_metrics` takes the loss of all rows.
        _, logits, labels = super().prediction_step(*args, **kwargs)
        if isinstance(self.data_collator, ConversationCollator):
            # All of one length: else batches and processes pad each other's, float labels with -100 as well.
            length = self.data_collator.max_utterances
            logits, labels = _lengthen(logits, length, 0), _lengthen(labels, length, -100)
        return None, logits, labels

    def run(self) -> None:
        """
        Trains, to a model without LoRA's parts; with `--resume_from_checkpoint last` goes on from the last whole checkpoint, if there is one.

        Raises:
            OSError: the disk is full or about to be.
        """
        output = Path(self.args.output_dir)
        checkpoint = self.args.resume_from_checkpoint
        logger.info("Training in %d process(es) on %s", self.args.world_size, self.args.device)
        with self.args.main_process_first(desc="checkpoints"):
            if self.is_world_process_zero():
                check_room(output, self.model, self.args.save_total_limit or 1)
            if checkpoint == "last":
                checkpoint = find_checkpoint(output)
            if self.is_world_process_zero():
                self._tidy(output, checkpoint)
        if checkpoint is not None:
            logger.info("Going on from %s", checkpoint)
            if self._had_stopped(Path(checkpoint)):
                merge_lora(self.model)
                return
        try:
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except (OSError, RuntimeError) as error:
            if not _is_about_writing(error):
                raise
            raise OSError(
                f"A checkpoint could not be written to {output}: {error}. What was saved before is whole: make room, and go "
                "on with --resume_from_checkpoint last."
            ) from error
        merge_lora(self.model)

    def _had_stopped(self, checkpoint: Path) -> bool:
        """Whether a run ended early with this checkpoint; if so the weights that it kept are loaded, and all is done."""
        state = TrainerState.load_from_json(checkpoint / TRAINER_STATE_NAME)
        schedule = state.stateful_callbacks.get(ReloadBestAndHalve.__name__)
        if not schedule or not 0 < self.args.patience <= schedule["attributes"]["without_gain"]:
            return False
        self.state = state
        if self.args.load_best_model_at_end:
            state.best_model_checkpoint = str(best_checkpoint(state, checkpoint.parent))
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(checkpoint))
        return True

    @staticmethod
    def _tidy(output: Path, checkpoint: str | Path | None) -> None:
        """Removes the report and the checkpoints, whole or in part, that came after the one to go on from."""
        (output / REPORT).unlink(missing_ok=True)
        inside = None if checkpoint is None else output / Path(checkpoint).name
        if checkpoint is None or inside.resolve() == Path(checkpoint).resolve():
            remove_checkpoints(output, after=inside)
        elif list_checkpoints(output):
            raise ValueError(
                f"{output} holds checkpoints, but is to go on from {checkpoint}: choose a new --output_dir."
            )

    def logits(self, rows: Dataset) -> np.ndarray:
        """(rows, num_labels) float32, of the model as it is now."""
        return predict_in_row_order(lambda rows: self.predict(rows).predictions, rows, self.data_collator)


def evaluation_metrics(task: Task, truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The loss of all rows together, and all metrics; of conversations (C, U, ...), of their utterances."""
    logits, truth = np.asarray(logits), np.asarray(truth)
    if logits.ndim == 3:
        utterances = flatten_conversations(torch.from_numpy(logits), torch.from_numpy(truth))
        logits, truth = (values.numpy() for values in utterances)
    if task.problem_type == "regression":
        value = F.mse_loss(torch.from_numpy(logits.reshape(-1)), torch.from_numpy(truth.reshape(-1)))
    else:
        value = TaskLoss(task)(torch.from_numpy(logits), torch.from_numpy(truth))
    return {"loss": value.item(), **task_metrics(task, truth, logits)}


def _lengthen(values: torch.Tensor, length: int, padding: int) -> torch.Tensor:
    """(C, U, ...) -> (C, length, ...), padding at the end: NaN in labels that are no classes."""
    if padding and values.is_floating_point():
        padding = torch.nan
    more = values.new_full((len(values), length - values.shape[1], *values.shape[2:]), padding)
    return torch.cat([values, more], dim=1)


def _labels(task: Task, rows: Dataset) -> np.ndarray:
    """The labels of all rows, without reading their features."""
    return task.label_array(ArrowRows(rows.select_columns(list(task.columns)))[:])[0]


def _check_metric(name: str, task: Task, rows: Dataset) -> None:
    """Raises ValueError where an evaluation of `rows` has no such metric."""
    labels = _labels(task, rows)
    known = ["loss", *task_metrics(task, labels, np.zeros((len(labels), len(task.labels)), dtype=np.float32))]
    if name.removeprefix("eval_") not in known:
        raise ValueError(f"--metric_for_best_model is {name!r}; the task {task.name!r} has {', '.join(known)}.")


def _is_about_writing(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)
    # torch and safetensors put what the system says about a file into their own errors.
    return any(
        words in str(error)
        for words in ("file write failed", "PytorchStreamWriter", "os error 27", "os error 28", "unexpected pos")
    )
