"""Training rows in evaluation data."""

import json

from datasets import Dataset

from modeling_umons import UmonsConfig, UmonsFeatureExtractor, UmonsProcessor, UmonsVideoProcessor, build_tokenizer
from modeling_umons.data.rows import make_collator
from modeling_umons.data.schema import make_features
from modeling_umons.evaluation.training_rows import FILE, find_training_rows, write_training_rows
from modeling_umons.publishing.assemble import assemble_folder


def test_training_rows_are_found_by_their_inputs(tmp_path):
    processor = UmonsProcessor(build_tokenizer(["so"]), UmonsFeatureExtractor(), UmonsVideoProcessor())
    collator = make_collator(processor, UmonsConfig(), None)
    frames = [[[0.5] * 80] * 2, None, [[0.5] * 80] * 3]
    texts = ["so", "glad", "so"]
    features = make_features(80, 512)
    features = type(features)({name: features[name] for name in ("text", "audio_features")})
    trained = Dataset.from_dict({"text": texts, "audio_features": frames}, features=features)
    assert find_training_rows(tmp_path, trained, collator) == ""
    write_training_rows(tmp_path, trained, collator)
    assert len(json.loads((tmp_path / FILE).read_text())) == 3
    assert find_training_rows(tmp_path, trained, collator).startswith("3 of 3 rows were in the training data")
    texts_only = Dataset.from_dict({"text": ["glad", "so", "new"]})
    assert find_training_rows(tmp_path, texts_only, collator).startswith("1 of 3 rows")
    assert find_training_rows(tmp_path, texts_only.select([1, 2]), collator) == ""
    (tmp_path / "README.md").write_text("# A model\n", encoding="utf-8")
    assert assemble_folder(tmp_path, tmp_path.with_name("pushed")) == [FILE]
