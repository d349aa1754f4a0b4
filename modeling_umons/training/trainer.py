"""Trainer of transformers with task losses, augmentation, schedule and complete checkpoints."""

import errno
import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import BatchSamplerShard
from accelerate.utils import str_to_bool
from datasets import Dataset
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import WEIGHTS_NAME

from ..data.collator import ArrowRows, DrawnRows, UtteranceCollator
from ..data.conversations import ConversationCollator, rows_for
from ..data.sampling import EvenBatches, LengthGroups, order_by_length, row_lengths
from ..data.streams import RowStream
from ..evaluation.metrics import task_metrics
from ..inference.logits import predict_in_row_order
from ..tasks.losses import TaskLoss, balanced_weights, flatten_conversations
from ..tasks.task import Task
from ..utils.files import write_atomically
from .arguments import AugmentationArguments, RunArguments
from .augmentation import Augmentation, DrawByEpoch
from .checkpoints import (
    REPORT,
    check_archives,
    check_complete,
    check_fingerprint,
    check_room,
    complete_checkpoint,
    discard_run,
    find_checkpoint,
    list_checkpoints,
    load_state,
    name_damage,
    remove_later,
)
from .encoders import (
    UnfreezeEncoders,
    encoders_of,
    merge_lora,
    parameter_groups,
    running_encoders,
    set_frozen_encoders_to_eval,
)
from .fast_dropout import use_fast_dropout
from .fingerprint import run_fingerprint
from .progress import show_progress
from .schedule import ReloadBestAndHalve, best_checkpoint, is_improvement
from .sharding import gather_deepspeed_weights, gather_fsdp_weights


logger = logging.getLogger(__name__)


class UmonsTrainer(Trainer):
    """
    Trainer on Arrow rows, which are converted to tensors batch by batch. For models of conversations a batch has about
    as many utterances as otherwise rows; losses and metrics are over utterances.

    Args:
        model: the model.
        args: options of the run.
        task: the task.
        rows: data sets of usable rows (see `rows.usable_rows`), at least `train` and `validation`.
        collator: the collator.
        augmentation: options of augmentation and loss.
        processor: the processor, saved with each checkpoint.
        stream: training rows in place of `rows["train"]`, which then are the first of them.
    """

    # `compute_loss` divides by the labels of all accumulated batches of all processes.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model,
        args: RunArguments,
        task: Task,
        rows: dict[str, Dataset],
        collator: UtteranceCollator,
        augmentation: AugmentationArguments,
        processor,
        stream: RowStream | None = None,
    ):
        args.choose_best_by(task)
        _check_metric(args.metric_for_best_model, task, rows["validation"])
        # `Trainer` does not support label smoothing with several labels and warns; `TaskLoss` does.
        label_smoothing, args.label_smoothing_factor = args.label_smoothing_factor, 0.0
        train_rows = rows_for(collator, rows["train"])
        if collator.waveform_augmentation is not None:
            train_rows = DrawnRows(rows["train"])
        # The same number of steps per epoch for rows and conversations.
        batch_size = args.per_device_train_batch_size * len(train_rows) / max(len(rows["train"]), 1)
        args.per_device_train_batch_size = max(1, round(batch_size))
        train_rows = train_rows if stream is None else stream
        if args.device.type == "cpu":
            use_fast_dropout(model)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_rows,
            # Sorted by length to minimise padding; metrics do not depend on the order.
            eval_dataset=rows_for(collator, rows["validation"].select(order_by_length(rows["validation"], collator))),
            data_collator=collator,
            processing_class=processor,
            compute_metrics=lambda evaluation: evaluation_metrics(task, evaluation.label_ids, evaluation.predictions),
        )
        args.label_smoothing_factor = label_smoothing
        self.model_accepts_loss_kwargs = True  # for versions of `Trainer` without `loss_is_scaled_for_ga`
        self.model_class = type(model)  # sharded models have a class of their own
        self.augment = Augmentation(
            modality_dropout=augmentation.modality_dropout,
            word_dropout=augmentation.word_dropout,
            unk_token_id=processor.tokenizer.unk_token_id,
            time_mask=augmentation.time_mask,
            bin_mask=augmentation.bin_mask,
            mixup=augmentation.mixup,
        )
        self.fingerprint = {}
        if self.is_world_process_zero():
            self.fingerprint = run_fingerprint(rows, task.labels, model.config, processor, args, self._sharding())
        self.task_loss = self._make_loss(task, augmentation, label_smoothing, rows["train"])
        has_lora = any(hasattr(encoder, "peft_config") for encoder in encoders_of(model).values())
        for name, is_set in (("max_halvings", args.max_halvings), ("lora_rank", has_lora)):
            if is_set and self._sharding():
                raise ValueError(f"--{name} is not supported with FSDP and DeepSpeed; set it to 0.")
        if wanted := self._ignored_sharding():
            raise ValueError(
                f"The launch configuration asks for {wanted}, which accelerate ignores without GPUs. Use "
                "two_processes.yaml, or train on GPUs."
            )
        if args.max_halvings or args.patience:
            self.add_callback(ReloadBestAndHalve(args.max_halvings, args.patience))
        if collator.waveform_augmentation is not None:
            self.add_callback(DrawByEpoch(train_rows))
        if args.unfreeze_epoch:
            self.add_callback(UnfreezeEncoders(running_encoders(collator)))
        show_progress(self)

    def _sharding(self) -> str | None:
        """Return how the model is sharded, also by accelerate's config: FSDP, DEEPSPEED or `None`."""
        return self.accelerator.distributed_type.value if self.is_fsdp_enabled or self.is_deepspeed_enabled else None

    def _ignored_sharding(self) -> str | None:
        """Return the sharding of the launch configuration that accelerate does not apply, or `None`."""
        is_asked = lambda name: str_to_bool(os.environ.get(f"ACCELERATE_USE_{name}", "false"))  # noqa: E731
        return None if self._sharding() else next(filter(is_asked, ("FSDP", "DEEPSPEED")), None)

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        model = self.model if model is None else model
        has_rates = self.args.encoder_learning_rate is not None or self.args.encoder_layer_decay != 1
        if self.optimizer is None and has_rates:
            groups = parameter_groups(model, self.args, self.get_decay_parameter_names(model))
            optimizer, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            self.optimizer = optimizer(groups, **options)
        return super().create_optimizer(model)

    def get_train_dataloader(self):
        if isinstance(self.train_dataset, RowStream):  # shared by the processes: accelerate would share it again
            return DataLoader(
                self.train_dataset,
                batch_size=None,
                collate_fn=self.train_dataset.collate,
                num_workers=self.args.dataloader_num_workers,
                pin_memory=self.args.dataloader_pin_memory,
                prefetch_factor=self.args.dataloader_prefetch_factor,
            )
        loader = super().get_train_dataloader()
        shard = loader.batch_sampler
        if isinstance(shard, BatchSamplerShard) and self.args.world_size > 1 and not self.args.dataloader_drop_last:
            shard.batch_sampler = EvenBatches(
                shard.batch_sampler.sampler, self.args.train_batch_size, self.args.world_size
            )
            shard.batch_size, shard.even_batches = None, False  # the batches are even
        return loader

    def get_batch_samples(self, *args, **kwargs):
        batches, num_items_in_batch = super().get_batch_samples(*args, **kwargs)
        if isinstance(self.train_dataset, RowStream):
            for batch in batches:
                self.train_dataset.record(batch)
        return batches, num_items_in_batch

    def _get_train_sampler(self, train_dataset=None):
        # `Trainer` reads lengths from dictionaries, not from Arrow rows.
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        if not isinstance(self.train_dataset, ArrowRows):
            logger.info("Conversations are sampled at random: group_by_length applies to models of utterances.")
            return RandomSampler(self.train_dataset)
        collator = self.data_collator
        lengths = row_lengths(self.train_dataset, collator.modality_columns, collator.max_lengths)
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroups(batch_size, lengths, self.args.seed)

    def _get_eval_sampler(self, eval_dataset):
        return SequentialSampler(eval_dataset)  # predictions in the order of the rows

    def _make_loss(
        self, task: Task, augmentation: AugmentationArguments, label_smoothing: float, rows: Dataset
    ) -> TaskLoss:
        if augmentation.mixup and task.problem_type == "regression":
            raise ValueError(f"--mixup requires classes; the task {task.name!r} has none.")
        is_balanced = augmentation.class_weights == "balanced"
        weights = balanced_weights(task, _labels(task, rows)) if is_balanced else None
        options = (augmentation.focal_gamma, label_smoothing, augmentation.emotion_weight)
        return TaskLoss(task, weights, *options).to(self.args.device)

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, torch.Tensor]], device) -> torch.Tensor | None:
        """Count the known labels of the accumulated batches of all processes; see [`TaskLoss.count_items`]."""
        if not batch_samples:
            return None
        counts = sum(self.task_loss.count_items(batch["labels"].to(self.args.device)) for batch in batch_samples)
        return self.accelerator.reduce(counts, "sum") if self.args.world_size > 1 else counts

    def compute_loss(
        self, model, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch=None
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """
        Compute the loss of a batch. With `num_items_in_batch`, the losses of all accumulated batches add up to the
        mean over the known labels of all of them, in each process times the number of processes, whose gradients are
        averaged.
        """
        share = 1.0
        if model.training:
            set_frozen_encoders_to_eval(self.model)
            inputs, others, share = self.augment.mix(self.augment(inputs))
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = self.task_loss(outputs.logits, labels, num_items_in_batch)
        if share < 1:
            loss = share * loss + (1 - share) * self.task_loss(outputs.logits, labels[others], num_items_in_batch)
        if num_items_in_batch is not None:
            loss = loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def _prepare_input(self, data):
        # `Trainer` converts labels too to the dtype of DeepSpeed, which rounds them. Models convert features.
        return data.to(self.args.device) if isinstance(data, torch.Tensor) else super()._prepare_input(data)

    def prediction_step(self, *args, **kwargs):
        # No loss of single batches: their mean depends on batch size and on unknown labels. `evaluation_metrics`
        # computes the loss of all rows.
        _, logits, labels = super().prediction_step(*args, **kwargs)
        if isinstance(self.data_collator, ConversationCollator):
            # One length for all, because `Trainer` would pad float labels with -100.
            length = self.data_collator.max_utterances
            logits, labels = _pad_utterances(logits, length, 0), _pad_utterances(labels, length, -100)
        return None, logits, labels

    def _determine_best_metric(self, metrics, trial):
        is_better = is_improvement(self.args, self.state, metrics)
        if not super()._determine_best_metric(metrics, trial) and is_better:  # an equal metric with a lower loss
            self.state.best_global_step = self.state.global_step
        return is_better

    def _save(self, output_dir=None, state_dict=None):
        # Saving copies the code of the class, which for a model sharded by FSDP would be PyTorch's.
        current, self.model.__class__ = self.model.__class__, self.model_class
        try:
            super()._save(output_dir, state_dict)
        finally:
            self.model.__class__ = current

    def _unshard(self) -> None:
        """Replace a sharded model by a whole one with its weights, in all processes."""
        gather = gather_deepspeed_weights if self.is_deepspeed_enabled else gather_fsdp_weights
        model = self.model_class(self.model.config)
        model.load_state_dict(gather(self.model))
        self.model = self.model_wrapped = model.to(self.args.device).eval()
        self.accelerator._models[:] = [self.model]  # otherwise `predict` would shard it again

    def _save_checkpoint(self, model, trial):
        # A process that does not find the folder of another one would not take it for the best checkpoint.
        folder = Path(self.args.output_dir, f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}")
        folder.mkdir(parents=True, exist_ok=True)
        # `Trainer` removes older checkpoints by their time, before the new one is complete in all processes.
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        if isinstance(self.train_dataset, RowStream):
            write_atomically(self._stream_file(folder), json.dumps(self.train_dataset.state_dict()))
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            complete_checkpoint(self.args.output_dir, self.state, limit, self.fingerprint)

    def _stream_file(self, checkpoint: str | Path) -> Path:
        return Path(checkpoint, f"stream_{self.args.process_index}.json")

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        with name_damage(resume_from_checkpoint):
            if Path(resume_from_checkpoint, WEIGHTS_NAME).exists():
                raise OSError(f"{WEIGHTS_NAME} is a pickle; only safetensors are loaded")
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _read_stream_state(self, checkpoint: str | Path) -> dict[str, Any]:
        """Read the state of the stream of this process. Raises OSError if it is damaged or of other processes."""
        with name_damage(checkpoint):
            return json.loads(self._stream_file(checkpoint).read_text(encoding="utf-8"))

    def _load_optimizer_and_scheduler(self, checkpoint):
        with name_damage(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint):
        with name_damage(checkpoint):
            super()._load_rng_state(checkpoint)

    def run(self) -> None:
        """
        Train and merge LoRA; `--resume_from_checkpoint last` resumes from the last complete checkpoint, if there is
        one.

        Raises:
            OSError: there is not enough disk space, the checkpoint is damaged, or another process of the run ended.
            ValueError: the checkpoint is incomplete or of other data or options, or `output_dir` contains another run.
        """
        output = Path(self.args.output_dir)
        checkpoint = self.args.resume_from_checkpoint
        logger.info("Training in %d process(es) on %s", self.args.world_size, self.args.device)
        with self.args.main_process_first(desc="checkpoints"):
            if self.is_world_process_zero():
                check_room(output, self.model, self.args.save_total_limit or 1)
            if checkpoint == "last":
                checkpoint = find_checkpoint(output)
            elif checkpoint is not None:
                check_complete(checkpoint)
            if checkpoint is not None:
                check_fingerprint(checkpoint, self.fingerprint)
            if self.is_world_process_zero():
                self._remove_later_files(output, checkpoint)
        if checkpoint is not None:
            logger.info("Resuming from %s", checkpoint)
            with name_damage(checkpoint):
                check_archives(Path(checkpoint))
            if self._load_if_stopped(Path(checkpoint)):
                merge_lora(self.model)
                return
            if isinstance(self.train_dataset, RowStream):
                self.train_dataset.load_state_dict(self._read_stream_state(checkpoint))
        try:
            self.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        except (OSError, RuntimeError) as error:
            if _is_lost_connection(error):
                reason = str(error).splitlines()[0].partition(". ")[0]
                raise ConnectionError(
                    f"The connection to another process of this run was lost ({reason}). The output of the process "
                    "that ended first names the cause. Earlier checkpoints are complete: resume with "
                    "--resume_from_checkpoint last."
                ) from error
            if not _is_write_error(error):
                raise
            raise OSError(
                f"A checkpoint could not be written to {output}: {error}. Earlier checkpoints are complete: free disk "
                "space and resume with --resume_from_checkpoint last."
            ) from error
        self._log_best()
        if self._sharding():
            self._unshard()
        merge_lora(self.model)

    def _log_best(self) -> None:
        """Log which evaluation the weights are of."""
        entries = [entry for entry in self.state.log_history if entry.get("step") == self.state.best_global_step]
        if self.args.load_best_model_at_end and entries:
            metric = self.args.metric_for_best_model.removeprefix("eval_")
            logger.info("Best epoch on validation: %g (%s %.4g).", entries[0]["epoch"], metric, self.state.best_metric)

    def _load_if_stopped(self, checkpoint: Path) -> bool:
        """Return whether early stopping ended training at this checkpoint; if so, load the final weights."""
        with name_damage(checkpoint):
            state = load_state(checkpoint)
        schedule = state.stateful_callbacks.get(ReloadBestAndHalve.__name__)
        if not schedule or not 0 < self.args.patience <= schedule["attributes"]["without_gain"]:
            return False
        self.state = state
        logger.info("This run was stopped early (--patience %d).", self.args.patience)
        if self.args.load_best_model_at_end:
            state.best_model_checkpoint = str(best_checkpoint(state, checkpoint.parent))
            self._load_best_model()
        else:
            self._load_from_checkpoint(str(checkpoint))
        return True

    @staticmethod
    def _remove_later_files(output: Path, checkpoint: str | Path | None) -> None:
        """Remove what an earlier run wrote after the checkpoint to resume from."""
        inside = None if checkpoint is None else output / Path(checkpoint).name
        if checkpoint is None:
            discard_run(output)
        elif inside.resolve() == Path(checkpoint).resolve():
            remove_later(output, inside)
        elif list_checkpoints(output):
            raise ValueError(
                f"{output} contains checkpoints of another run than {checkpoint}; choose a new --output_dir."
            )
        else:
            (output / REPORT).unlink(missing_ok=True)

    def logits(self, rows: Dataset) -> np.ndarray:
        """Predict logits (rows, num_labels) float32."""
        return predict_in_row_order(lambda rows: self.predict(rows).predictions, rows, self.data_collator)


def evaluation_metrics(task: Task, truth: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Compute the loss of all rows and all metrics; conversations (C, U, ...) are flattened to utterances."""
    logits, truth = np.asarray(logits), np.asarray(truth)
    if logits.ndim == 3:
        utterances = flatten_conversations(torch.from_numpy(logits), torch.from_numpy(truth))
        logits, truth = (values.numpy() for values in utterances)
    loss = TaskLoss(task)(torch.from_numpy(logits), torch.from_numpy(truth))
    return {"loss": loss.item(), **task_metrics(task, truth, logits)}


def _pad_utterances(values: torch.Tensor, length: int, padding: int) -> torch.Tensor:
    """Pad (C, U, ...) to (C, length, ...); float labels are padded with NaN."""
    if padding and values.is_floating_point():
        padding = torch.nan
    more = values.new_full((len(values), length - values.shape[1], *values.shape[2:]), padding)
    return torch.cat([values, more], dim=1)


def _labels(task: Task, rows: Dataset) -> np.ndarray:
    """Read the labels of all rows without their features."""
    return task.label_array(ArrowRows(rows.select_columns(list(task.columns)))[:])[0]


def _check_metric(name: str, task: Task, rows: Dataset) -> None:
    """Check that evaluation of `rows` has this metric. Raises ValueError."""
    labels = _labels(task, rows)
    known = ["loss", *task_metrics(task, labels, np.zeros((len(labels), len(task.labels)), dtype=np.float32))]
    if name.removeprefix("eval_") not in known:
        raise ValueError(f"--metric_for_best_model is {name!r}; the task {task.name!r} has {', '.join(known)}.")


def _is_lost_connection(error: Exception) -> bool:
    """Return whether another process does not respond. NCCL raises `DistError`, gloo a RuntimeError with its file."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)


def _is_write_error(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES)
    # torch and safetensors raise their own errors for failed writes.
    return any(
        words in str(error)
        for words in ("file write failed", "PytorchStreamWriter", "os error 27", "os error 28", "unexpected pos")
    )
