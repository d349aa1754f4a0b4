"""Reference implementation of UMONS from the equations of the paper (Delbrouck et al., Challenge-HML 2020).

One row at a time, without torch modules. A row has no padding and no mask; missing modalities are left out.
"""

from collections.abc import Mapping

import torch


class Weights:
    """Parameters below a prefix of a state dict: `weights / "self_attn" / "q_proj"`, then `.weight` and `.bias`."""

    def __init__(self, state_dict: Mapping[str, torch.Tensor], prefix: str = ""):
        self.state_dict, self.prefix = state_dict, prefix

    def __truediv__(self, name: str) -> "Weights":
        return Weights(self.state_dict, f"{self.prefix}{name}.")

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.state_dict[self.prefix + name]


def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Over a vector."""
    powers = (scores - scores.max()).exp()
    return powers / powers.sum()


def linear(x: torch.Tensor, weights: Weights) -> torch.Tensor:
    return x @ weights["weight"].T + weights["bias"]


def layer_norm(x: torch.Tensor, weights: Weights, eps: float) -> torch.Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return (x - mean) / (variance + eps).sqrt() * weights["weight"] + weights["bias"]


def mlp(x: torch.Tensor, weights: Weights) -> torch.Tensor:
    return linear(linear(x, weights / "fc1").clamp(min=0), weights / "fc2")


def lstm(x: torch.Tensor, weights: Weights) -> torch.Tensor:
    """(T, word size) -> (T, D), step by step."""
    size = weights["weight_hh_l0"].shape[1]
    h = c = x.new_zeros(size)
    steps = []
    for step in x:
        gates = (
            weights["weight_ih_l0"] @ step
            + weights["bias_ih_l0"]
            + weights["weight_hh_l0"] @ h
            + weights["bias_hh_l0"]
        )
        i, f, g, o = gates[:size], gates[size : 2 * size], gates[2 * size : 3 * size], gates[3 * size :]
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        steps.append(h)
    return torch.stack(steps)


def attention(query: torch.Tensor, source: torch.Tensor, weights: Weights, num_heads: int) -> torch.Tensor:
    """MHA(query, key=source, value=source), head by head and step by step."""
    q, k, v = linear(query, weights / "q_proj"), linear(source, weights / "k_proj"), linear(source, weights / "v_proj")
    size = q.shape[1] // num_heads
    result = torch.zeros_like(q)
    for head in range(num_heads):
        part = slice(head * size, (head + 1) * size)
        for t in range(len(q)):
            probabilities = softmax(k[:, part] @ q[t, part] / size**0.5)
            result[t, part] = sum(p * value for p, value in zip(probabilities, v[:, part], strict=True))
    return linear(result, weights / "o_proj")


def glimpses(m: torch.Tensor, weights: Weights, count: int) -> torch.Tensor:
    """`count` looks at a sequence (T, D), each through a softmax over time of its own: (count, D)."""
    scores = mlp(m, weights)
    return torch.stack([sum(a * step for a, step in zip(softmax(scores[:, j]), m, strict=True)) for j in range(count)])


def block(x: dict[str, torch.Tensor], weights: Weights, config, is_last: bool) -> dict[str, torch.Tensor]:
    """One co-attention block over {modality: (T, D)}."""
    guide = x.get(config.guide_modality)
    result = {}
    for modality, q in x.items():
        w = weights / "modality_layers" / modality

        def norm(value: torch.Tensor, name: str, w: Weights = w) -> torch.Tensor:
            return layer_norm(value, w / f"{name}_layer_norm", config.layer_norm_eps)

        h = norm(q + attention(q, q, w / "self_attn", config.num_attention_heads), "self_attn")
        if config.use_cross_attention and modality != config.guide_modality:
            seen = 0 if guide is None else attention(h, guide, w / "cross_attn", config.num_attention_heads)
            h = norm(h + seen, "cross_attn")
        m = norm(h + mlp(h, w / "mlp"), "mlp") + (q if config.use_outer_residual else 0)
        has_glimpses = config.use_glimpses and not is_last
        result[modality] = m if not has_glimpses else norm(m + glimpses(m, w / "glimpse", len(m)), "glimpse")
    return result


def encode_row(weights: Weights, config, row: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """
    Compute the outputs of `UmonsModel` for one row. `row` has any of `text`, word ids (T,), `audio` and `video`,
    frames (T, size). Returns the sequences after the last block, {modality: (T, D)}, and the pooled vector (2 * D,).
    """
    front_ends = weights / "front_ends"
    x = {}
    for modality in config.modalities:
        if modality in row and modality == "text":
            words = (front_ends / "text" / "embed_tokens")["weight"][row["text"]]
            x["text"] = lstm(words, front_ends / "text" / "lstm")
        elif modality == "audio" and modality in row and config.audio_front_end == "lstm":
            x["audio"] = lstm(row["audio"], front_ends / "audio")
        elif modality in row:
            x[modality] = linear(row[modality], front_ends / modality)

    for i in range(config.num_hidden_layers):
        x = block(x, weights / "layers" / str(i), config, is_last=i == config.num_hidden_layers - 1)

    s = 0
    for modality, m in x.items():
        pooler = weights / "poolers" / modality
        summary = glimpses(m, pooler / "glimpse", 1)[0] if config.use_glimpses else sum(m) / len(m)
        s = s + linear(summary, pooler / "projection")
    return x, layer_norm(s, weights / "layer_norm", config.layer_norm_eps)


def classify_row(state_dict: Mapping[str, torch.Tensor], config, row: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits (num_labels,) of `UmonsForSequenceClassification` for one row, from its state dict."""
    _, pooled = encode_row(Weights(state_dict) / "model", config, row)
    return linear(pooled, Weights(state_dict) / "classifier")
