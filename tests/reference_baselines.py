"""Reference implementation of TFN, MFN, Graph-MFN and MulT from the equations of their papers, and helpers of tests.

The reference computes one row at a time, without torch modules. A row is {modality: word ids (T,) or frames (T, size)}
without padding and masks; missing modalities are left out. The helpers build small models and ragged batches.
"""

import itertools
import math
from collections.abc import Mapping

import torch


MODALITIES = ("text", "audio", "video")
VALUES = {"text": "input_ids", "audio": "input_features", "video": "video_features"}
MASKS = {"text": "attention_mask", "audio": "input_features_mask", "video": "video_features_mask"}
SUBSETS = [list(s) for n in (1, 2, 3) for s in itertools.combinations(MODALITIES, n)]
# Row 3 has no text, row 4 video only, row 5 no audio. Text is longer than the frames in some rows, shorter in others.
LENGTHS = {"text": [9, 1, 4, 0, 0, 3], "audio": [3, 11, 1, 8, 0, 0], "video": [2, 5, 7, 3, 6, 4]}
# Every row has every modality.
FULL_LENGTHS = {"text": [9, 1, 4], "audio": [3, 11, 1], "video": [2, 5, 7]}
SMALL = {
    "modalities": list(MODALITIES), "vocab_size": 30, "word_embedding_size": 6, "max_text_length": 12,
    "max_audio_length": 13, "max_video_length": 12, "audio_feature_size": 5, "video_feature_size": 4,
}  # fmt: skip

State = Mapping[str, torch.Tensor]


def make_model(model_class, **overrides):
    """Build a small model in evaluation mode, with random running statistics of batch norms."""
    torch.manual_seed(0)
    model = model_class(model_class.config_class(**{**SMALL, "num_labels": 3, **overrides}))
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "batch_norm" in name and tensor.is_floating_point():
                tensor.add_(0.5 * torch.rand_like(tensor))
    return model.eval()


def make_batch(modalities=MODALITIES, lengths=LENGTHS, seed: int = 1) -> dict[str, torch.Tensor]:
    """Build a ragged batch with masks, padded with random values to the longest row."""
    generator = torch.Generator().manual_seed(seed)
    batch = {}
    for modality in modalities:
        shape = (len(lengths[modality]), max(1, *lengths[modality]))
        mask = torch.arange(shape[1]) < torch.tensor(lengths[modality])[:, None]
        if modality == "text":
            values = torch.randint(1, SMALL["vocab_size"], shape, generator=generator)
        else:
            values = torch.randn(*shape, SMALL[f"{modality}_feature_size"], generator=generator)
        batch |= {VALUES[modality]: values, MASKS[modality]: mask.long()}
    return batch


def make_times(batch: State) -> dict[str, torch.Tensor]:
    """
    Return consecutive word times (B, T, 2), NaN in padding and for every fourth word, and times of frames (B, T_m),
    NaN in some rows.
    """
    generator = torch.Generator().manual_seed(2)
    mask = batch["attention_mask"].bool()
    ends = (0.02 + 0.5 * torch.rand(mask.shape, generator=generator)).cumsum(dim=1)
    times = torch.stack([torch.nn.functional.pad(ends, (1, 0))[:, :-1], ends], dim=-1)
    times[:, 2::4] = torch.nan
    given = {"word_times": times.masked_fill(~mask[..., None], torch.nan)}
    for row, modality in enumerate(("audio", "video")):
        if VALUES[modality] in batch:
            gaps = 0.1 + 0.4 * torch.rand(batch[MASKS[modality]].shape, generator=generator)
            given[f"{modality}_times"] = gaps.cumsum(dim=1)
            given[f"{modality}_times"][row] = torch.nan
    return given


def times_of_row(batch: State, times: State, i: int) -> dict[str, torch.Tensor]:
    """Return the times of words and frames of a row without padding, by modality."""
    names = {"word_times": "text", "audio_times": "audio", "video_times": "video"}
    return {names[name]: value[i][batch[MASKS[names[name]]][i].bool()] for name, value in times.items()}


def rows_of(batch: State) -> list[dict[str, torch.Tensor]]:
    """Return the rows without padding, as the reference takes them."""
    given = [modality for modality in MODALITIES if VALUES[modality] in batch]
    rows = []
    for i in range(len(batch[VALUES[given[0]]])):
        row = {m: batch[VALUES[m]][i][batch[MASKS[m]][i].bool()] for m in given}
        rows.append({m: value for m, value in row.items() if len(value)})
    return rows


def some_rows(batch: State, rows: list[int]) -> dict[str, torch.Tensor]:
    return {name: value[rows] for name, value in batch.items()}


def without(batch: State, modality: str) -> dict[str, torch.Tensor]:
    return {name: value for name, value in batch.items() if name not in (VALUES[modality], MASKS[modality])}


def with_padding(batch: State, in_front: int, inside: int, behind: int) -> dict[str, torch.Tensor]:
    """Return the same rows with more padding, of arbitrary values; `inside` is after the first step."""
    batch = dict(batch)
    for modality in MODALITIES:
        for name, fill in ((VALUES[modality], 7), (MASKS[modality], 0)):
            if name in batch:
                value = batch[name]
                front, middle, end = (torch.full_like(value[:, :1], fill).repeat_interleave(n, dim=1)
                                      for n in (in_front, inside, behind))  # fmt: skip
                batch[name] = torch.cat([front, value[:, :1], middle, value[:, 1:], end], dim=1)
    return batch


# --- shared operations


def linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return state[f"{name}.weight"] @ x + state[f"{name}.bias"]


def relu(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(min=0)


def sigmoid(x: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + (-x).exp())


def softmax(x: torch.Tensor) -> torch.Tensor:
    powers = (x - x.max()).exp()
    return powers / powers.sum()


def two_layers(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    """Apply the layers `{name}fc1` and `{name}fc2`."""
    return linear(state, f"{name}fc2", relu(linear(state, f"{name}fc1", x)))


def lstm_steps(state: State, name: str, suffix: str, xs: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Compute (h, c) after each step."""
    w_x, w_h = state[f"{name}.weight_ih{suffix}"], state[f"{name}.weight_hh{suffix}"]
    bias = state[f"{name}.bias_ih{suffix}"] + state[f"{name}.bias_hh{suffix}"]
    size = w_h.shape[1]
    h = c = torch.zeros(size)
    steps = []
    for x in xs:
        gates = w_x @ x + w_h @ h + bias
        i, f, g, o = (gates[k * size : (k + 1) * size] for k in range(4))
        c = sigmoid(f) * c + sigmoid(i) * torch.tanh(g)
        h = sigmoid(o) * torch.tanh(c)
        steps.append((h, c))
    return steps


# --- TFN (Zadeh et al., EMNLP 2017)


def tfn_vector(state: State, modality: str, xs: torch.Tensor) -> torch.Tensor:
    name = f"model.networks.{modality}"
    if modality == "text":
        h, _ = lstm_steps(state, f"{name}.lstm", "_l0", state["model.embed_tokens.weight"][xs])[-1]
        return linear(state, f"{name}.fc", h)
    x = sum(xs) / len(xs)
    norm = f"{name}.batch_norm"
    x = (x - state[f"{norm}.running_mean"]) / (state[f"{norm}.running_var"] + 1e-5).sqrt()
    x = x * state[f"{norm}.weight"] + state[f"{norm}.bias"]
    for layer in ("fc1", "fc2", "fc3"):
        x = relu(linear(state, f"{name}.{layer}", x))
    return x


def tfn_logits(state: State, config, row: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute z[i, j, k] = [1; a][i] * [1; v][j] * [1; t][k], and three layers."""
    sizes = {"text": config.text_output_size, "audio": config.audio_hidden_size, "video": config.video_hidden_size}
    z = [torch.tensor(1.0)]
    for modality in ("audio", "video", "text"):
        if modality in config.modalities:
            vector = tfn_vector(state, modality, row[modality]) if modality in row else torch.zeros(sizes[modality])
            z = [product * value for product in z for value in [torch.tensor(1.0), *vector]]
    hidden = relu(linear(state, "model.fc1", torch.stack(z)))
    return linear(state, "classifier", relu(linear(state, "model.fc2", hidden)))


# --- MFN (Zadeh et al., AAAI 2018) and Graph-MFN (Zadeh et al., ACL 2018)


def pooled_frames(xs: torch.Tensor, num_steps: int) -> torch.Tensor:
    """Compute step i of n as the mean of the frames from floor(i T / n) to before ceil((i + 1) T / n)."""
    spans = [(math.floor(i * len(xs) / num_steps), math.ceil((i + 1) * len(xs) / num_steps)) for i in range(num_steps)]
    return torch.stack([sum(xs[start:end]) / (end - start) for start, end in spans])


def frames_of_words(xs: torch.Tensor, times: torch.Tensor, middles: list[float]) -> torch.Tensor:
    """Compute the mean of the frames with their middle in each word; without any, the frame nearest to its middle."""
    by_word = []
    for (start, end), pooled in zip(times.tolist(), pooled_frames(xs, len(times)), strict=True):
        inside = [x for x, middle in zip(xs, middles, strict=True) if start <= middle < end]
        nearest = min(range(len(xs)), key=lambda i: abs(middles[i] - (start + end) / 2))
        known = not (math.isnan(start) or math.isnan(end))
        by_word.append((sum(inside) / len(inside) if inside else xs[nearest]) if known else pooled)
    return torch.stack(by_word)


def aligned_row(state: State, config, row: dict, times: dict[str, torch.Tensor]) -> dict:
    """Return {modality: (T, size)}, all with the steps of the first modality of the row."""
    guide = next(modality for modality in MODALITIES if modality in row)
    aligned = {}
    for modality, xs in row.items():
        if modality == "text":
            aligned["text"] = state["model.embed_tokens.weight"][xs]
        elif guide == "text" and modality in times and not times[modality].isnan().any():
            aligned[modality] = frames_of_words(xs, times["text"], times[modality].tolist())
        else:
            aligned[modality] = pooled_frames(xs, len(row[guide]))
    return aligned


def mfn_fuse(state: State, config, before: dict, now: dict) -> tuple[torch.Tensor, None]:
    """Compute c^ = softmax(NN1(c*)) * c* over the modalities of the row, with c* = [c_(t-1); c_t]."""
    sizes = dict(zip(config.modalities, config.hidden_sizes(), strict=True))
    none = {m: (torch.zeros(size), torch.zeros(size)) for m, size in sizes.items()}
    star = torch.cat(
        [(step | {m: none[m] for m in sizes if m not in now})[m][1] for step in (before, now) for m in sizes]
    )
    is_present = torch.cat([torch.full((sizes[m],), m in now) for _ in range(2) for m in sizes])
    scores = two_layers(state, "model.attention_", star)
    attention = torch.zeros_like(star)
    attention[is_present] = softmax(scores[is_present])
    return attention * star, None


def graph_mfn_fuse(state: State, config, before: dict, now: dict) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the output tau of the Dynamic Fusion Graph, and the efficacies by edge."""
    value = {}
    for i, modality in enumerate(config.modalities):
        if modality in now:
            states = torch.cat([before[modality][0], now[modality][0]])
            value[modality] = linear(state, f"model.singletons.{i}", states)
        else:
            value[modality] = torch.zeros(config.vertex_size)
    given = torch.cat([value[modality] for modality in config.modalities])
    efficacy = dict(zip(config.edges(), sigmoid(two_layers(state, "model.graph.efficacy_", given)), strict=True))
    for source, target in efficacy:
        if not set(source.split("_")) | (set(target.split("_")) - {"output"}) <= set(now):
            efficacy[source, target] = torch.tensor(0.0)

    targets = list(dict.fromkeys(target for _, target in efficacy))
    for target in targets:
        # The target's weights are at a place in its level: pairs, all three modalities, output.
        size_of = {t: len(config.modalities) + 1 if t == "output" else len(t.split("_")) for t in targets}
        level, peers = size_of[target] - 2, [t for t in targets if size_of[t] == size_of[target]]
        name, place = f"model.graph.vertices.{level}", peers.index(target)
        scaled = torch.cat([e * value[source] for (source, to), e in efficacy.items() if to == target])
        weight, bias = state[f"{name}.weight"][place], state[f"{name}.bias"][place, 0]
        is_present = target == "output" or set(target.split("_")) <= set(now)
        value[target] = relu(scaled @ weight + bias) * is_present
    return value["output"], torch.stack(list(efficacy.values()))


def memory_fusion(
    state: State, config, row: dict[str, torch.Tensor], fuse, times: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, list]:
    """Compute the logits, the states [h_t; h_a; h_v; u] (T, D), and the second result of `fuse` at each step."""
    aligned = aligned_row(state, config, row, times)
    places = {modality: i for i, modality in enumerate(config.modalities)}
    lstms = {m: lstm_steps(state, f"model.lstms.cells.{places[m]}", "", xs) for m, xs in aligned.items()}
    sizes = dict(zip(config.modalities, config.hidden_sizes(), strict=True))
    u = torch.zeros(config.memory_size)
    now = {m: (torch.zeros(sizes[m]), torch.zeros(sizes[m])) for m in lstms}
    states, others = [], []
    for t in range(len(next(iter(aligned.values())))):
        before, now = now, {m: steps[t] for m, steps in lstms.items()}
        fused, other = fuse(state, config, before, now)
        proposal = torch.tanh(two_layers(state, "model.proposal_", fused))
        retain = sigmoid(two_layers(state, "model.memory.retain_", torch.cat([fused, u])))
        update = sigmoid(two_layers(state, "model.memory.update_", torch.cat([fused, u])))
        u = retain * u + update * proposal
        hidden = [now[m][0] if m in now else torch.zeros(sizes[m]) for m in config.modalities]
        states.append(torch.cat([*hidden, u]))
        others.append(other)
    pooled = relu(linear(state, "model.output_fc", states[-1]))
    return linear(state, "classifier", pooled), torch.stack(states), others


# --- MulT (Tsai et al., ACL 2019)


def normalise(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    deviation = ((x - x.mean()) ** 2).mean().add(1e-5).sqrt()
    return (x - x.mean()) / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def convolve(weight: torch.Tensor, xs: torch.Tensor) -> torch.Tensor:
    """Compute sum_k W_k x_(t + k - (K - 1) // 2), with zeros outside of the sequence."""
    size = weight.shape[2]
    steps = []
    for t in range(len(xs)):
        places = [(k, t + k - (size - 1) // 2) for k in range(size)]
        steps.append(sum(weight[:, :, k] @ xs[place] for k, place in places if 0 <= place < len(xs)))
    return torch.stack(steps)


def with_positions(xs: torch.Tensor) -> torch.Tensor:
    """Compute sqrt(D) x_t + PE_t, with sin(t / 10000^(2i / D)) and the cosine in turn."""
    size, steps = xs.shape[1], []
    for t, x in enumerate(xs):
        angles = [t / 10000 ** (2 * (i // 2) / size) for i in range(size)]
        steps.append(
            math.sqrt(size) * x + torch.tensor([(math.sin, math.cos)[i % 2](a) for i, a in enumerate(angles)])
        )
    return torch.stack(steps)


def mult_transformer(state: State, name: str, config, zs: torch.Tensor, source: torch.Tensor | None) -> torch.Tensor:
    """Compute D blocks z = z + MHA(LN(z), LN(s)); z = z + FFN(LN(z)); s is z itself without a source."""
    zs, heads = with_positions(zs), config.num_attention_heads
    source = source if source is None else with_positions(source)
    for i in range(config.num_hidden_layers):
        layer = f"{name}.layers.{i}"
        normed = [normalise(state, f"{layer}.attn_layer_norm", z) for z in zs]
        keys = normed if source is None else [normalise(state, f"{layer}.attn_layer_norm", s) for s in source]
        size, attended = zs.shape[1] // heads, []
        for query in normed:
            q = linear(state, f"{layer}.attn.q_proj", query).split(size)
            ks = [linear(state, f"{layer}.attn.k_proj", key).split(size) for key in keys]
            vs = [linear(state, f"{layer}.attn.v_proj", key).split(size) for key in keys]
            parts = []
            for head in range(heads):
                shares = softmax(torch.stack([q[head] @ k[head] for k in ks]) / math.sqrt(size))
                parts.append(sum(share * v[head] for share, v in zip(shares, vs, strict=True)))
            attended.append(linear(state, f"{layer}.attn.o_proj", torch.cat(parts)))
        zs = zs + torch.stack(attended)
        inner = [normalise(state, f"{layer}.mlp_layer_norm", z) for z in zs]
        zs = zs + torch.stack([linear(state, f"{layer}.fc2", relu(linear(state, f"{layer}.fc1", z))) for z in inner])
    return torch.stack([normalise(state, f"{name}.layer_norm", z) for z in zs])


def mult_without_source(state: State, name: str, config, zs: torch.Tensor) -> torch.Tensor:
    """Compute the blocks of a crossmodal transformer whose source is missing: FFNs only."""
    zs = with_positions(zs)
    for i in range(config.num_hidden_layers):
        layer = f"{name}.layers.{i}"
        inner = [normalise(state, f"{layer}.mlp_layer_norm", z) for z in zs]
        zs = zs + torch.stack([linear(state, f"{layer}.fc2", relu(linear(state, f"{layer}.fc1", z))) for z in inner])
    return torch.stack([normalise(state, f"{name}.layer_norm", z) for z in zs])


def mult_logits(state: State, config, row: dict[str, torch.Tensor]) -> torch.Tensor:
    """Compute the head of [h_t; h_a; h_v], the last steps of the transformers over [Z_(b -> a); Z_(c -> a)]."""
    xs = {m: state["model.embed_tokens.weight"][x] if m == "text" else x for m, x in row.items()}
    xs = {m: convolve(state[f"model.convolutions.{m}.weight"], x) for m, x in xs.items()}
    last = []
    for target in config.modalities:
        if target not in xs:
            last.append(torch.zeros(config.memory_size))
            continue
        parts = []
        for source in config.modalities:
            name = f"model.crossmodal.{target}.{source}"
            if source != target and source in xs:
                parts.append(mult_transformer(state, name, config, xs[target], xs[source]))
            elif source != target:
                parts.append(mult_without_source(state, name, config, xs[target]))
        joined = torch.cat(parts, dim=1) if parts else xs[target]
        last.append(mult_transformer(state, f"model.memories.{target}", config, joined, None)[-1])
    h = torch.cat(last)
    return linear(state, "classifier", h + two_layers(state, "model.", h))


# --- properties of every model


@torch.no_grad()
def check_times_are_used(make_memory_fusion):
    """Check that the times of words and of each modality's frames count with `alignment="words"` only."""
    batch = make_batch(lengths=FULL_LENGTHS)
    times = make_times(batch)
    model, adaptive = make_memory_fusion(alignment="words"), make_memory_fusion(alignment="adaptive")

    def states(model, **times):
        return model.model(**batch, **times).last_hidden_state

    without_times = states(model)
    for name in ("audio_times", "video_times"):
        some = {"word_times": times["word_times"], name: times[name]}
        assert not torch.allclose(states(model, **some), without_times, atol=1e-4)
        reverse = states(model, **some | {name: times[name].flip(1)})
        assert not torch.allclose(reverse, states(model, **some), atol=1e-4)
    for incomplete in ({"word_times": times["word_times"]}, times | {"word_times": times["word_times"] * torch.nan}):
        torch.testing.assert_close(states(model, **incomplete), without_times)
    torch.testing.assert_close(states(adaptive, **times), without_times)
