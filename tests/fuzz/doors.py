"""Doors: places where files and requests of untrusted people come in. Each makes mutated inputs and opens them."""

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import pickletools
import shutil
import socket
import sys
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

import numpy as np
from mutations import json_bytes, json_lines, mutate_bytes, mutate_table, one_of, pick
from numpy.random import Generator


TESTS = Path(__file__).resolve().parent.parent
FIXTURES, SAMPLE = TESTS / "fixtures", TESTS.parent / "hub" / "sample"
Mutation = Callable[[bytes, Generator], bytes]


class Door(ABC):
    """
    Inputs of one kind, and the function that opens them.

    Args:
        folder: folder for the inputs.

    Attributes:
        names: names of the originals.
    """

    names: list[str]

    def __init__(self, folder: Path):
        self.folder = folder

    @abstractmethod
    def write(self, name: str, rng: Generator | None) -> Path:
        """Write an input, mutated unless `rng` is `None`, and return a path whose name is in its error messages."""

    @abstractmethod
    def open(self, path: Path) -> Any:
        """Open an input as the commands do. Raises OSError or ValueError for an invalid one."""

    def is_named(self, path: Path, message: str) -> bool:
        """Return whether an error message names the input."""
        return path.name in message


class FileDoor(Door):
    """Door of single files. `samples` maps names to their bytes and mutation."""

    samples: dict[str, tuple[bytes, Mutation]]

    @property
    def names(self) -> list[str]:
        return list(self.samples)

    def write(self, name: str, rng: Generator | None) -> Path:
        data, mutation = self.samples[name]
        path = self.folder / name
        path.write_bytes(data if rng is None else mutation(data, rng))
        return path


class FolderDoor(Door):
    """Door of folders. `mutations` maps the names of the files in the folder `original` to their mutation."""

    mutations: dict[str, Mutation]
    original: Path

    @property
    def names(self) -> list[str]:
        return list(self.mutations)

    def write(self, name: str, rng: Generator | None) -> Path:
        shutil.rmtree(self.folder / "copy", ignore_errors=True)
        shutil.copytree(self.original, self.folder / "copy")
        path = self.folder / "copy" / name
        if rng is not None and rng.random() < 0.03:
            path.unlink()
        elif rng is not None:
            path.write_bytes(self.mutations[name](path.read_bytes(), rng))
        return path


class Media(FileDoor):
    """Clips and audio files, decoded whole, in part and in windows."""

    OPTIONS = ({}, {"frame_rate": 15.0}, {"start": 0.3, "end": 0.8}, {"window_s": 0.4})

    def __init__(self, folder: Path):
        super().__init__(folder)
        from small_clips import FORMATS, encode

        self.samples = {f"clip.{suffix}": (encode(*codecs), mutate_bytes) for suffix, codecs in FORMATS.items()}
        self.options = {}

    def write(self, name: str, rng: Generator | None) -> Path:
        self.options = {} if rng is None else pick(self.OPTIONS, rng)
        return super().write(name, rng)

    def open(self, path: Path) -> Any:
        from modeling_umons.models.umons.media_umons import iter_windows, read_clip

        clips = iter_windows(path, **self.options) if "window_s" in self.options else [read_clip(path, **self.options)]
        for clip in clips:
            check_clip(clip)


def check_clip(clip) -> None:
    """Check that what was decoded is finite and consistent."""
    assert 0 < clip.duration < 60
    assert clip.audio is None or (clip.audio.dtype == np.float32 and np.isfinite(clip.audio).all())
    if clip.frames is not None:
        assert clip.frames.shape == (len(clip.frame_times), 112, 112, 3)
        assert (np.diff(clip.frame_times) > 0).all()
        assert 0 <= clip.frame_times.min() <= clip.frame_times.max() < clip.duration


class Tables(FileDoor):
    """Tables of clips, training tables, tables of layouts, timed words and recipes."""

    CLIPS = (
        "file_name,text,words,sentiment,emotions,start,end,split\n"
        "a.wav,so glad,,1.5,,0,1.5,train\n"
        "b.wav,,,-3,,,,validation\n"
        "c.wav,well,,0,,2,3,test\n"
    )
    WORDS = [{"word": "so", "timestamp": [0.0, 0.5]}, {"word": "glad", "start": 0.5, "end": 1.0}]
    ROWS = [
        {"file_name": "a.wav", "text": "so", "words": [{"word": "so", "start": 0.0, "end": 0.5}], "sentiment": 1.0},
        {"file_name": "b.wav", "text": "glad", "words": None, "sentiment": -1, "emotions": [0, 0, 1, 0, 0, 0]},
        {"file_name": "c.wav", "emotions": {"happy": 1}},
    ]

    def __init__(self, folder: Path):
        super().__init__(folder)
        import pyarrow as pa
        import pyarrow.parquet as pq

        training = (SAMPLE / "trainset.csv").read_bytes()[:2000].rpartition(b"\n")[0] + b"\n"
        columns = {name: [row.get(name) for row in self.ROWS] for name in ("file_name", "text", "words", "sentiment")}
        pq.write_table(pa.table(columns), parquet := io.BytesIO())
        text = one_of(mutate_table, mutate_table, mutate_bytes)
        tsv = one_of(lambda data, rng: mutate_table(data, rng, "\t"), mutate_bytes)
        self.samples = {
            "clips.csv": (self.CLIPS.encode(), text),
            "clips.tsv": (self.CLIPS.replace(",", "\t").encode(), tsv),
            "clips.jsonl": ("\n".join(map(json.dumps, self.ROWS)).encode(), one_of(json_lines, mutate_bytes)),
            "clips.parquet": (parquet.getvalue(), mutate_bytes),
            "training.csv": (training, text),
            "mosi.csv": (b"segment_id,split,sentiment,text\na_1,train,1,so\na_2,test,-3,glad\n", text),
            "words.json": (json.dumps(self.WORDS).encode(), one_of(json_bytes, mutate_bytes)),
            "recipe.yaml": ((TESTS.parent / "modeling_umons" / "recipes" / "sample.yaml").read_bytes(), mutate_bytes),
        }

    def open(self, path: Path) -> Any:
        from modeling_umons.cli.timeline import read_words
        from modeling_umons.data.layouts.mosi import MosiTable
        from modeling_umons.recipes import read_recipe

        if path.name == "words.json":
            return read_words(path)
        if path.name == "recipe.yaml":
            return read_recipe(str(path))
        if path.name == "training.csv":
            return read_training_table(path)
        if path.name == "mosi.csv":
            source = MosiTable(path.parent)
            return [source.read(split, name) for split, names in source.segments.items() for name in names]
        return read_clips(path)


def read_clips(path: Path) -> list:
    from modeling_umons.data.clip_tables import plan_shards, read_clip_table, typed_columns

    clips = read_clip_table(path)
    plan_shards(clips, 2)
    rows = []
    for row in clips.rows:
        try:
            rows.append(typed_columns(row, with_text=True))
        except ValueError as error:  # of this clip only; the caller names it
            rows.append(error)
    return rows


def read_training_table(path: Path) -> None:
    from modeling_umons.data.arguments import DataArguments
    from modeling_umons.data.rows import load_training_splits, read_labels
    from modeling_umons.tasks.task import make_task

    splits = load_training_splits(DataArguments(train_file=str(path), validation_share=0.5), seed=0)
    task = make_task("joint")
    for rows in splits.values():
        if set(task.columns) <= set(rows.column_names):
            read_labels(rows, task)


class Csd(FolderDoor):
    """Computational sequences of the CMU SDK."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        from small_datasets import write_csd_folder

        self.original = write_csd_folder(folder / "csd")
        self.mutations = {
            path.name: mutate_bytes for path in sorted(self.original.iterdir()) if "Phones" not in path.name
        }

    def open(self, path: Path) -> Any:
        return read_source("csd", path.parent)

    def is_named(self, path: Path, message: str) -> bool:
        return super().is_named(path, message) or f"{path.parent} has no .csd file" in message


def read_source(layout: str, folder: Path, **options: str) -> list:
    from modeling_umons.data.layouts import open_source

    source = open_source(layout, folder, **options)
    _ = source.features
    return [source.read(split, name) for split, names in source.segments.items() for name in names]


class Pickles(FolderDoor):
    """Pickles of the published implementation and of MMSA, and compressed pickles; none may execute anything."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        from small_datasets import write_mmsa_folder, write_umons_folder

        self.original = write_umons_folder(folder / "pickles")
        (write_mmsa_folder(folder / "mmsa") / "aligned_50.pkl").rename(self.original / "aligned_50.pkl")
        self.canary = folder / "executed"
        self.mutations = {
            path.name: one_of(mutate_bytes, self.mutate_opcodes, self.insert_call)
            for path in sorted(self.original.iterdir())
        }

    def mutate_opcodes(self, data: bytes, rng: Generator) -> bytes:
        """Replace, duplicate or remove one instruction."""
        places = [place for _, _, place in pickletools.genops(data)] + [len(data)]
        index = rng.integers(0, len(places) - 1)
        first, last = places[index : index + 2]
        other = rng.integers(0, len(places) - 1)
        instruction = pick((b"", data[first:last] * 2, data[places[other] : places[other + 1]]), rng)
        return data[:first] + instruction + data[last:]

    def insert_call(self, data: bytes, rng: Generator) -> bytes:
        """Insert a call that writes a file, perhaps compressed or in an archive."""
        call = b"cposix\nmkdir\n(V%s\ntR0" % os.fsencode(self.canary)
        _, _, place = pick(list(pickletools.genops(data)), rng)
        data = data[:place] + call + data[place:]
        return pick((bytes, bytes, bytes, gzip.compress, bz2.compress, lzma.compress, archive), rng)(data)

    def open(self, path: Path) -> Any:
        try:
            if path.suffix == ".pkl":
                return read_source("mmsa", path.parent, file=path.name)
            return read_source("umons", path.parent)
        finally:
            assert not self.canary.exists()


def archive(data: bytes) -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as written:
        written.writestr("archive/data.pkl", data)
        written.writestr("archive/version", b"3\n")
    return file.getvalue()


class Checkpoints(FileDoor):
    """Checkpoints and vocabularies of the published implementation, converted."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        sys.path.insert(0, str(TESTS / "cli"))
        from test_convert import read_golden, save_checkpoint, save_vocabulary

        weights, arguments, _, _ = read_golden(FIXTURES / "model_la_sentiment7.safetensors")
        self.checkpoint = save_checkpoint(folder / "best.pkl", weights, arguments)
        self.vocabulary = save_vocabulary(folder / "vocabulary.pkl", size=40)
        old = save_checkpoint(folder / "old.pkl", weights, arguments, legacy=True)
        self.samples = {
            "zip_checkpoint.pkl": (self.checkpoint.read_bytes(), self.mutate_pickle),
            "old_checkpoint.pkl": (old.read_bytes(), self.mutate_pickle),
            "token_to_ix.pkl": (self.vocabulary.read_bytes(), mutate_bytes),
        }

    @staticmethod
    def mutate_pickle(data: bytes, rng: Generator) -> bytes:
        """Mutate the beginning, which describes the tensors, more often than the whole."""
        if rng.random() < 0.4:
            return mutate_bytes(data, rng)
        return mutate_bytes(data[:6000], rng) + data[6000:]

    def open(self, path: Path) -> Any:
        from modeling_umons.export.original_checkpoint import convert_checkpoint

        output = self.folder / "out"
        shutil.rmtree(output, ignore_errors=True)
        if path.name == "token_to_ix.pkl":
            convert_checkpoint(self.checkpoint, output, path)
        else:
            convert_checkpoint(path, output, self.vocabulary)


class ResumedRuns(FolderDoor):
    """Checkpoints of training, from which a run resumes."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        rows = [f"good,{value / 10},train" for value in range(16)] + ["bad,-1,validation", "good,1,validation"]
        (folder / "table.csv").write_text("\n".join(["text,sentiment,split", *rows]))
        self.train("runs")
        self.original = folder / "runs" / "checkpoint-2"
        names = (
            "model.safetensors",
            "optimizer.pt",
            "scheduler.pt",
            "rng_state.pth",
            "trainer_state.json",
            "complete",
        )
        self.mutations = {
            name: one_of(json_bytes, mutate_bytes) if name in ("trainer_state.json", "complete") else mutate_bytes
            for name in names
        }

    def train(self, output: str, *more: str) -> str:
        from modeling_umons.cli.train import main

        options = (
            "--task sentiment --modalities text --hidden_size 8 --intermediate_size 8 --num_hidden_layers 1 "
            "--num_attention_heads 2 --word_embedding_size 8 --per_device_train_batch_size 8 --num_train_epochs 2 "
            "--save_strategy epoch --use_cpu true --disable_tqdm true --report_to none"
        )
        table = ["--train_file", str(self.folder / "table.csv"), "--output_dir", str(self.folder / output)]
        with redirect_stderr(io.StringIO()) as errors, redirect_stdout(io.StringIO()):
            status = main([*options.split(), *table, *more])
        if status:
            raise ValueError(errors.getvalue())
        return errors.getvalue()

    def write(self, name: str, rng: Generator | None) -> Path:
        path = super().write(name, rng)
        resumed = self.folder / "resumed" / "checkpoint-2"
        shutil.rmtree(resumed.parent, ignore_errors=True)
        shutil.copytree(path.parent, resumed)
        return resumed

    def open(self, path: Path) -> Any:
        self.train("resumed", "--resume_from_checkpoint", str(path))


class WordVectors(FolderDoor):
    """Word vectors as text, binary, packed, and as matrices with a vocabulary."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self.original = folder / "vectors"
        shutil.copytree(FIXTURES / "word_vectors", self.original)
        glove = (self.original / "glove.txt").read_bytes()
        words = [line.split()[0].decode() for line in glove.splitlines()]
        (self.original / "glove.txt.gz").write_bytes(gzip.compress(glove))
        with zipfile.ZipFile(self.original / "glove.4d.zip", "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("glove.4d.txt", glove)
        for name in ("text", "json", "pickle"):
            np.save(self.original / f"{name}.npy", np.arange(4.0 * len(words)).reshape(-1, 4))
        (self.original / "text.txt").write_text("\n".join(words), encoding="utf-8")
        (self.original / "json.json").write_text(json.dumps({word: row for row, word in enumerate(words)}))
        (self.original / "pickle.pkl").write_bytes(pickle.dumps({word: row for row, word in enumerate(words)}))
        text = one_of(mutate_bytes, lambda data, rng: mutate_table(data, rng, " "))
        names = {path.name: mutate_bytes for path in self.original.iterdir() if path.suffix != ".md"}
        self.mutations = names | {
            "glove.txt": text,
            "word2vec.txt": text,
            "json.json": one_of(json_bytes, mutate_bytes),
        }

    def open(self, path: Path) -> Any:
        from modeling_umons.data.word_vectors import load_word_vectors

        is_vocabulary = path.name in ("text.txt", "json.json", "pickle.pkl")
        vectors = load_word_vectors(path.with_suffix(".npy") if is_vocabulary else path, size=4)
        assert all(vector.shape == (4,) and np.isfinite(vector).all() for vector in vectors.values())


class ModelFolders(FolderDoor):
    """Folders of models, loaded as `umons predict` does, with one prediction."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        from small_pipelines import make_model, make_processor, tone

        self.original = folder / "model"
        make_model(joint_sentiment=True).save_pretrained(self.original)
        make_processor().save_pretrained(self.original)
        self.audio = tone(0.5)
        settings = one_of(json_bytes, json_bytes, json_bytes, mutate_bytes)
        self.mutations = {
            path.name: settings if path.suffix == ".json" else mutate_bytes
            for path in sorted(self.original.iterdir())
            if path.suffix in (".json", ".safetensors")
        }

    def open(self, path: Path) -> Any:
        from modeling_umons.inference.loading import load_pipeline

        recognize = load_pipeline(str(path.parent))
        result = recognize({"text": "so glad", "audio": self.audio, "sampling_rate": 22050})
        json.dumps(result)


class Requests(Door):
    """Requests to a running server. The name that an answer must have is the key `error`."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        from small_clips import FORMATS, encode
        from small_pipelines import make_pipeline

        from modeling_umons.serving.server import make_app, make_server

        self.app = make_app(make_pipeline(joint_sentiment=True), timeout_s=4.0)  # of bodies that do not arrive
        self.server = make_server(self.app)
        self.socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True).start()
        clip = encode(*FORMATS["webm"])
        media = base64.b64encode(clip).decode()
        parameters = {"top_k": 2, "return_timestamps": False, "return_attention": True}
        form = (
            b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nso\r\n--x\r\n'
            b'Content-Disposition: form-data; name="file"; filename="a.webm"\r\n\r\n%b\r\n--x--\r\n' % clip
        )
        self.bodies = {
            name: ("application/json", json.dumps({"inputs": inputs, "parameters": parameters}).encode())
            for name, inputs in {
                "text": "so glad",
                "clip": {"text": "so", "video": media},
                "list": [{"text": "so"}, {"audio": media}, "glad"],
            }.items()
        } | {"raw": ("video/webm", clip), "form": ("multipart/form-data; boundary=x", form)}
        self.names = list(self.bodies)

    def write(self, name: str, rng: Generator | None) -> Path:
        content_type, body = self.bodies[name]
        if rng is not None:
            body = (json_bytes if content_type == "application/json" and rng.random() < 0.7 else mutate_bytes)(
                body, rng
            )
        target = "/predict?text=so&top_k=2" if name == "raw" else "/predict"
        head = (
            f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        ).encode()
        self.is_head_mutated = rng is not None and rng.random() < 0.1
        if self.is_head_mutated:
            head = mutate_bytes(head, rng)
        path = self.folder / "error"
        path.write_bytes(head + body)
        return path

    def open(self, path: Path) -> Any:
        with socket.create_connection(self.socket.getsockname(), timeout=30) as connection:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before the body was sent
                connection.sendall(path.read_bytes())
                if self.is_head_mutated:  # it may never end otherwise
                    connection.shutdown(socket.SHUT_WR)
            try:
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            except ConnectionResetError:
                answer = b""
        head, _, body = answer.partition(b"\r\n\r\n")
        if self.is_head_mutated and not head:
            raise ValueError(f"{path.name}: disconnected, Invalid HTTP request")
        status = int(head.split()[1])
        assert status < 500, answer[:2000]
        if status != 200:
            raise ValueError(f"{path.name} {status}: {body.decode()}")
        return json.loads(body)

    def is_named(self, path: Path, message: str) -> bool:
        return "Invalid HTTP request" in message or (super().is_named(path, message) and len(message) > 20)


DOORS = {
    "media": Media,
    "tables": Tables,
    "csd": Csd,
    "pickles": Pickles,
    "checkpoints": Checkpoints,
    "resumed_runs": ResumedRuns,
    "word_vectors": WordVectors,
    "model_folders": ModelFolders,
    "requests": Requests,
}
