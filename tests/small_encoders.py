"""Tiny random encoders of several families, as configurations and as saved folders."""

from pathlib import Path

import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertTokenizerFast,
    DebertaV2Config,
    DistilBertConfig,
    HubertConfig,
    PreTrainedConfig,
    RobertaConfig,
    TimesformerConfig,
    VideoMAEConfig,
    VideoMAEImageProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
)


SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
# 16 kHz and one step in 20 samples; full-size encoders have one step in 320 samples.
SPEECH = {
    **SIZES, "conv_dim": (16, 16), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2, "layerdrop": 0.0, "mask_time_prob": 0.0,
}  # fmt: skip
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "so",
    "very",
    "glad",
    "sad",
    "won",
    "##der",
    "##ful",
    "day",
    "!",
]

TEXT = {
    "bert": lambda: BertConfig(vocab_size=len(VOCABULARY), **SIZES),
    "distilbert": lambda: DistilBertConfig(vocab_size=len(VOCABULARY), dim=16, hidden_dim=16, n_layers=2, n_heads=2),
    "deberta-v2": lambda: DebertaV2Config(vocab_size=len(VOCABULARY), **SIZES),
    # 14 of its positions are for tokens.
    "roberta": lambda: RobertaConfig(
        vocab_size=len(VOCABULARY), max_position_embeddings=16, pad_token_id=1, bos_token_id=2, eos_token_id=3, **SIZES
    ),
}
AUDIO = {
    "wav2vec2": lambda: Wav2Vec2Config(**SPEECH, feat_extract_norm="layer", do_stable_layer_norm=True),
    "hubert": lambda: HubertConfig(**SPEECH, feat_extract_norm="layer", do_stable_layer_norm=True),
    "whisper": lambda: WhisperConfig(
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_mel_bins=8,
        max_source_positions=100,
        vocab_size=20,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
}
VIDEO = {
    "videomae": lambda: VideoMAEConfig(image_size=16, patch_size=8, num_frames=4, **SIZES),
    "timesformer": lambda: TimesformerConfig(image_size=16, patch_size=8, num_frames=4, **SIZES),
}


def save_encoder(config: PreTrainedConfig, folder: Path) -> str:
    """Save a random model of this configuration and its preprocessor."""
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    if config.model_type in TEXT:
        words = VOCABULARY[1:]
        words.insert(config.pad_token_id, "[PAD]")
        (folder / "vocab.txt").write_text("\n".join(words))
        BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=512).save_pretrained(folder)
    elif config.model_type == "whisper":  # two seconds
        WhisperFeatureExtractor(feature_size=8, chunk_length=2).save_pretrained(folder)
    elif config.model_type in AUDIO:
        Wav2Vec2FeatureExtractor().save_pretrained(folder)
    else:
        VideoMAEImageProcessor(size={"shortest_edge": 16}).save_pretrained(folder)
    return str(folder)


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def changed(model, before: dict[str, torch.Tensor]) -> set[str]:
    """Return the names of weights that differ from `before`."""
    return {name for name, value in model.state_dict().items() if not value.equal(before[name])}
