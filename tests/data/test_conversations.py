"""Rows as conversations, and batches of those."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from modeling_umons import build_tokenizer
from modeling_umons.data.collator import ArrowRows, UtteranceCollator
from modeling_umons.data.conversations import ConversationCollator, ConversationRows, add_history, rows_for
from modeling_umons.data.schema import make_features, to_table
from modeling_umons.inference.logits import predict_logits
from modeling_umons.tasks.task import make_task


WORDS = ("good", "bad", "so")
FRAME = 3
# Video, segment, start and speaker: out of order, with gaps and without.
ROWS = [
    ("b", 2, None, "Ross"), ("a", 1, 9.0, "Joey"), ("b", 0, None, "Joey"), (None, None, None, None),
    ("a", 0, 3.0, "Ross"), ("b", 7, None, None), ("a", None, 2.0, "Ross"), ("a", None, 1.0, "Joey"),
    (None, 0, 0.0, "Ross"),
]  # fmt: skip
CONVERSATIONS = [[2, 0, 5], [4, 1, 7, 6], [3], [8]]


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    random = np.random.default_rng(0)
    rows = [
        {
            "segment_id": str(i), "video_id": video, "segment": segment, "start": start, "speaker": speaker,
            "text": " ".join(random.choice(WORDS, 1 + i % 3)), "sentiment": float(min(i - 3, 3)),
            "audio_features": random.normal(size=(1 + i % 4, FRAME)).astype(np.float32) if i != 4 else None,
        }
        for i, (video, segment, start, speaker) in enumerate(ROWS)
    ]  # fmt: skip
    features = make_features(FRAME)
    features["speaker"] = features["text"]
    return Dataset(to_table(rows, features))


def make(kind, task="sentiment", **options):
    return kind(["text", "audio"], build_tokenizer(list(WORDS)), make_task(task), audio_size=FRAME, **options)


def numbers_of(rows: ConversationRows) -> list[list[int]]:
    return [[int(i) for i in table["segment_id"].to_pylist()] for table in rows]


def test_conversations_in_their_order(dataset):
    rows = ConversationRows(dataset)
    assert len(rows) == 4
    assert numbers_of(rows) == CONVERSATIONS
    tables = rows.__getitems__([1, 3, 0])
    assert [table["segment_id"].to_pylist() for table in tables] == [["4", "1", "7", "6"], ["8"], ["2", "0", "5"]]


def test_recordings_without_an_order_are_no_conversation(dataset):
    """Else their order would tell what they are: they may be sorted by their labels."""
    unordered = dataset.map(lambda row: {"segment": None, "start": None}, features=dataset.features)
    assert numbers_of(ConversationRows(unordered)) == [[i] for i in range(len(ROWS))]
    assert numbers_of(ConversationRows(unordered.remove_columns(["segment", "start"]))) == [
        [i] for i in range(len(ROWS))
    ]
    one_order = dataset.map(lambda row: {"segment": None}, features=dataset.features).select([1, 4, 6, 7])
    assert numbers_of(ConversationRows(one_order)) == [[7, 6, 4, 1]]


def test_long_conversations_are_cut(dataset):
    rows = ConversationRows(dataset, max_utterances=3)
    assert numbers_of(rows) == [[2, 0, 5], [4, 1, 7], [6], [3], [8]]
    with pytest.raises(ValueError, match="max_utterances is 0: it must be at least 1"):
        ConversationRows(dataset, max_utterances=0)


def test_rows_that_are_left_out_leave_no_gap(dataset):
    assert numbers_of(ConversationRows(dataset.select([0, 1, 5, 6]))) == [[0, 5], [1, 6]]


def test_rows_that_are_repeated_make_more_conversations(dataset):
    """As `--repeat` has them: the second time they are said in a conversation of their own."""
    rows = ConversationRows(dataset.select([0, 0, 1, 2, 2, 4]))
    assert numbers_of(rows) == [[2, 0], [2, 0], [4, 1]]


def test_without_videos_every_row_is_alone(dataset):
    rows = ConversationRows(dataset.select_columns(["text", "segment"]))
    assert len(rows) == 9
    assert all(len(table) == 1 for table in rows)


def test_conversation_batch_matches_utterance_batch(dataset):
    batch = next(iter(DataLoader(ConversationRows(dataset), 4, collate_fn=make(ConversationCollator))))
    assert batch["input_ids"].shape == (4, 4, 3)
    assert batch["input_features"].shape == (4, 4, 4, FRAME)
    mask = batch["utterance_mask"]
    assert mask.dtype == torch.long
    assert mask.sum(dim=1).tolist() == [3, 4, 1, 1]
    order = [row for conversation in CONVERSATIONS for row in conversation]
    flat = make(UtteranceCollator)(ArrowRows(dataset)[order])
    for name, values in flat.items():
        assert batch[name].dtype == values.dtype
        assert batch[name][mask.bool()].equal(values)
        padding = batch[name][~mask.bool()].float()
        assert padding.isnan().all() if name == "labels" else not padding.any()


def test_speakers_are_told_apart(dataset):
    collator = make(ConversationCollator)
    ids = collator(list(ConversationRows(dataset)))["speaker_ids"]
    assert ids.dtype == torch.long
    joey, ross, nobody = ids[0, :3].tolist()
    assert len({joey, ross, nobody}) == 3
    assert ids[1].tolist() == [ross, joey, joey, ross]
    assert ids[2, 0] == nobody
    without = collator(list(ConversationRows(dataset.remove_columns("speaker"))))
    assert "speaker_ids" not in without
    nulls = dataset.remove_columns("speaker").add_column("speaker", [None] * len(dataset))
    assert not collator(list(ConversationRows(nulls)))["speaker_ids"].any()


def test_labels_of_padding(dataset):
    rows = ConversationRows(dataset)
    assert make(ConversationCollator, "sentiment-2")(list(rows))["labels"].tolist() == [
        [0, 0, 1, -100], [1, 0, 1, 1], [1, -100, -100, -100], [1, -100, -100, -100],
    ]  # fmt: skip
    labels = make(ConversationCollator, "joint")(list(rows))["labels"]
    assert labels.shape == (4, 4, 7)
    assert labels[0, :, 0].nan_to_num(99).tolist() == [-1, -3, 2, 99]


class Echo(torch.nn.Module):
    """Says of each utterance its first number and how many frames it has."""

    device = torch.device("cpu")

    def forward(self, input_features, input_features_mask, **inputs):
        assert "labels" not in inputs
        answers = [input_features.flatten(-2)[..., 0], input_features_mask.sum(dim=-1).float()]
        return type("Outputs", (), {"logits": torch.stack(answers, dim=-1)})


@pytest.mark.parametrize("kind", [UtteranceCollator, ConversationCollator], ids=["rows", "conversations"])
def test_logits_come_in_the_order_of_the_rows(dataset, kind):
    logits = predict_logits(Echo(), dataset, make(kind), batch_size=2)
    assert logits.dtype == np.float32
    features = dataset.with_format("numpy")["audio_features"]
    first = [0.0 if row == 4 else features[row][0][0] for row in range(9)]
    np.testing.assert_allclose(logits[:, 0], first)
    np.testing.assert_allclose(logits[:, 1], [0 if row == 4 else 1 + row % 4 for row in range(9)])


def test_rows_for_follows_the_collator(dataset):
    assert isinstance(rows_for(make(UtteranceCollator), dataset), ArrowRows)
    assert len(rows_for(make(ConversationCollator, max_utterances=1), dataset)) == 9


def texts_of(dataset: Dataset) -> list[list[str]]:
    return [[utterance["text"] for utterance in history] for history in dataset["history"]]


def test_history_has_previous_utterances_of_the_conversation(dataset):
    texts = dataset["text"][:]
    found = add_history(dataset.select(range(len(dataset))), 2)
    expected = {row: order[max(0, i - 2) : i] for order in CONVERSATIONS for i, row in enumerate(order)}
    assert texts_of(found) == [[texts[row] for row in expected[i]] for i in range(len(ROWS))]
    assert [utterance["speaker"] for utterance in found[5]["history"]] == ["Joey", "Ross"]
    assert add_history(dataset, 0) is dataset


def test_history_skips_rows_without_text(dataset):
    texts = [None if row in (0, 1) else text for row, text in enumerate(dataset["text"])]
    changed = dataset.remove_columns("text").add_column("sentence", texts)
    found = texts_of(add_history(changed, 2, "sentence"))
    assert found[5] == [texts[2]]
    assert found[6] == [texts[4], texts[7]]


def test_own_history_is_kept():
    texts = Dataset.from_dict({"text": ["so", "bad"], "history": [["good"], None]})
    assert add_history(texts, 1)["history"][:] == [[{"speaker": None, "text": "good"}], []]
    rows = Dataset.from_dict({"text": ["so"], "history": [[{"text": "bad", "speaker": "Ross"}]]})
    assert add_history(rows, 1) is rows


def test_history_of_wrong_type_raises():
    with pytest.raises(ValueError, match="The column history is of the type string"):
        add_history(Dataset.from_dict({"text": ["so"], "history": ["good"]}), 1)


def test_history_without_conversations_warns(caplog):
    assert texts_of(add_history(Dataset.from_dict({"text": ["so", "bad"]}), 1)) == [[], []]
    assert "No row has previous utterances" in caplog.text


def test_collator_pads_history(dataset):
    collator = make(UtteranceCollator, context_size=2, max_context_length=4)
    batch = collator(ArrowRows(add_history(dataset, 2))[:])
    mask = batch["history_mask"]
    assert batch["history_ids"].shape == mask.shape == (len(ROWS), 4)
    assert mask.sum(dim=1)[[0, 2, 3]].tolist() == [4, 1, 0]  # cut, the speaker only, nothing
