"""Plain PyTorch implementation of the paper's equations, the baseline of scripts/benchmark.py.

It processes batches (`reference_umons.py` processes single rows) with a linear layer for each projection, softmax of
explicit scores and a loop over glimpses. It loads a state dict of `UmonsForSequenceClassification` and returns the
same logits. All modalities of the configuration must be present in each row.
"""

import torch
from torch import nn


MASKED = -1e9


class PlainAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def split_heads(self, x):
        batch, length, size = x.shape
        return x.view(batch, length, self.num_heads, size // self.num_heads).transpose(1, 2)

    def forward(self, query, source, mask):
        q = self.split_heads(self.q_proj(query))
        k = self.split_heads(self.k_proj(source))
        v = self.split_heads(self.v_proj(source))
        scores = torch.matmul(q, k.transpose(-2, -1)) / q.shape[-1] ** 0.5
        scores = scores.masked_fill(~mask[:, None, None], MASKED)
        probabilities = self.dropout(torch.softmax(scores, dim=-1))
        attended = torch.matmul(probabilities, v)
        return self.o_proj(attended.transpose(1, 2).contiguous().flatten(2))


class PlainMLP(nn.Module):
    """Linear -> ReLU -> dropout -> Linear."""

    def __init__(self, config, out_features):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.fc2 = nn.Linear(config.intermediate_size, out_features)

    def forward(self, x):
        return self.fc2(self.dropout(torch.relu(self.fc1(x))))


class PlainGlimpse(PlainMLP):
    """(B, T, D) -> (B, n, D)."""

    def forward(self, x, mask):
        attention = torch.softmax(super().forward(x).masked_fill(~mask[..., None], MASKED), dim=1)
        glimpses = [(attention[:, :, i : i + 1] * x).sum(dim=1) for i in range(attention.shape[2])]
        return torch.stack(glimpses, dim=1)


class PlainModalityLayer(nn.Module):
    def __init__(self, config, modality, is_last):
        super().__init__()
        self.is_guided = modality != config.modalities[0]
        self.is_last = is_last
        norms = ["self_attn", "mlp"] + self.is_guided * ["cross_attn"] + (not is_last) * ["glimpse"]
        for name in norms:
            self.add_module(f"{name}_layer_norm", nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps))
        self.self_attn = PlainAttention(config)
        if self.is_guided:
            self.cross_attn = PlainAttention(config)
        self.mlp = PlainMLP(config, config.hidden_size)
        if not is_last:
            self.glimpse = PlainGlimpse(config, config.length_limit(modality))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x, mask, guide, guide_mask):
        h = self.self_attn_layer_norm(x + self.dropout(self.self_attn(x, x, mask)))
        if self.is_guided:
            h = self.cross_attn_layer_norm(h + self.dropout(self.cross_attn(h, guide, guide_mask)))
        x = x + self.mlp_layer_norm(h + self.dropout(self.mlp(h)))
        if not self.is_last:
            x = self.glimpse_layer_norm(x + self.dropout(self.glimpse(x, mask)))
        return x


class PlainText(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.word_embedding_size)
        self.lstm = nn.LSTM(config.word_embedding_size, config.hidden_size, batch_first=True)

    def forward(self, ids):
        return self.lstm(self.embed_tokens(ids))[0]


class PlainUmons(nn.Module):
    """
    (B, T) ids and (B, T, size) features of the full length, T being what `config.length_limit` says, with their masks,
    to logits (B, num_labels); and where there are labels (0 or 1), to the loss of the emotions.
    """

    def __init__(self, config):
        super().__init__()
        sizes = {"audio": config.audio_feature_size, "video": config.video_feature_size}

        def front_end(modality):
            return PlainText(config) if modality == "text" else nn.Linear(sizes[modality], config.hidden_size)

        def pooler():
            return nn.ModuleDict(
                {
                    "glimpse": PlainGlimpse(config, 1),
                    "projection": nn.Linear(config.hidden_size, 2 * config.hidden_size),
                }
            )

        def block(is_last):
            layers = {modality: PlainModalityLayer(config, modality, is_last) for modality in config.modalities}
            return nn.ModuleDict({"modality_layers": nn.ModuleDict(layers)})

        self.config = config
        last = config.num_hidden_layers - 1
        self.model = nn.ModuleDict(
            {
                "front_ends": nn.ModuleDict({modality: front_end(modality) for modality in config.modalities}),
                "layers": nn.ModuleList([block(is_last=i == last) for i in range(config.num_hidden_layers)]),
                "poolers": nn.ModuleDict({modality: pooler() for modality in config.modalities}),
                "layer_norm": nn.LayerNorm(2 * config.hidden_size, eps=config.layer_norm_eps),
            }
        )
        self.classifier = nn.Linear(2 * config.hidden_size, config.num_labels)

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        input_features=None,
        input_features_mask=None,
        video_features=None,
        video_features_mask=None,
        labels=None,
    ):
        inputs = {
            "text": (input_ids, attention_mask),
            "audio": (input_features, input_features_mask),
            "video": (video_features, video_features_mask),
        }
        modalities = self.config.modalities
        masks = {modality: inputs[modality][1].bool() for modality in modalities}
        x = {modality: self.model["front_ends"][modality](inputs[modality][0]) for modality in modalities}
        for layer in self.model["layers"]:
            guide, guide_mask = x[modalities[0]], masks[modalities[0]]
            layers = layer["modality_layers"]
            x = {
                modality: layers[modality](x[modality], masks[modality], guide, guide_mask) for modality in modalities
            }
        pooled = 0
        for modality in modalities:
            pooler = self.model["poolers"][modality]
            pooled = pooled + pooler["projection"](pooler["glimpse"](x[modality], masks[modality])[:, 0])
        logits = self.classifier(self.model["layer_norm"](pooled))
        if labels is None:
            return logits
        return nn.functional.binary_cross_entropy_with_logits(logits, labels)
