"""Attention variants as their papers define them, written anew over whole T x T tensors: what the engine's blocks are compared with.

Each function takes one head's ``q`` [n d], ``keys`` [n d], ``v`` [n d] in double precision (just before the softmax), its ``scale``,
``head`` and ``layer``, and the options, and returns the head's pattern [n n] (rows of a causal model).
"""

from math import log, log1p

import torch
from sklearn.cluster import KMeans


def dense(q, keys, scale):
    n = len(q)
    scores = q @ keys.T * scale
    return scores.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf)


def masked(q, keys, scale, keep):
    """Softmax over the keys that ``keep(i, j)`` allows."""
    scores = dense(q, keys, scale)
    for i in range(len(q)):
        for j in range(len(q)):
            if not keep(i, j):
                scores[i, j] = -torch.inf
    return scores.softmax(-1).nan_to_num()


def window(q, keys, v, scale, head, layer, size):
    return masked(q, keys, scale, lambda i, j: i - j < size)


def dilated(q, keys, v, scale, head, layer, size, dilation):
    offsets = {dilation * step for step in range(size)}
    return masked(q, keys, scale, lambda i, j: i - j in offsets)


def neighborhood(q, keys, v, scale, head, layer, size, stride, dilation=1):
    def keep(i, j):
        leader = i
        while leader % stride != stride - 1:
            leader += 1
        return j > leader - size * dilation and (i - j) % dilation == 0

    return masked(q, keys, scale, keep)


def strided(q, keys, v, scale, head, layer, stride, size):
    return masked(q, keys, scale, lambda i, j: i - j < size or (i - j) % stride == 0)


def blocked(q, keys, v, scale, head, layer, size, halo):
    return masked(q, keys, scale, lambda i, j: (i // size) * size - halo <= j)


def shifted_groups(q, keys, v, scale, head, layer, size, sinks):
    shift = size // 2 if head % 2 == 1 else 0
    return masked(q, keys, scale, lambda i, j: j < sinks or (i + shift) // size == (j + shift) // size)


def power_attention(q, keys, v, scale, head, layer, size, sinks):
    offsets = {0} | {2**power for power in range(20)}
    return masked(q, keys, scale, lambda i, j: i - j in offsets or i - j < size or j < sinks)


def top_keys(q, keys, v, scale, head, layer, k):
    scores = dense(q, keys, scale)
    for i in range(len(q)):
        order = scores[i, : i + 1].argsort(descending=True)
        scores[i, order[k:]] = -torch.inf
    return scores.softmax(-1)


def power(q, keys, v, scale, head, layer, exponent):
    weights = dense(q, keys, scale).softmax(-1) ** exponent
    return weights / weights.sum(-1, keepdim=True)


def softplus(q, keys, v, scale, head, layer, exponent, length_scale):
    n = len(q)
    scores, weights = q @ keys.T * scale, torch.zeros(n, n, dtype=q.dtype)
    for i in range(n):
        for j in range(i + 1):
            s = float(scores[i, j]) * (log(i + 1) / log(length_scale) if length_scale else 1)
            weights[i, j] = (log1p(2.718281828459045**s) if s < 30 else s) ** exponent
    return weights / weights.sum(-1, keepdim=True)


def taylor(q, keys, v, scale, head, layer):
    s = q @ keys.T * scale
    weights = (1 + s + s**2 / 2).tril()
    return weights / weights.sum(-1, keepdim=True)


def interpolate(q, keys, v, scale, head, layer, u, to):
    n = len(q)
    target = torch.eye(n) if to == "identity" else torch.ones(n, n).tril() / torch.arange(1, n + 1)[:, None]
    return (1 - u) * dense(q, keys, scale).softmax(-1) + u * target


def toeplitz(q, keys, v, scale, head, layer, decay):
    pattern = dense(q, keys, scale).softmax(-1)
    return torch.stack([torch.stack([pattern[i, j] * decay ** abs(i - j) for j in range(len(q))]) for i in range(len(q))])


def linear(q, keys, v, scale, head, layer, feature):
    def phi(x):
        x = x * scale**0.5
        if feature == "elu":
            return torch.where(x > 0, x + 1, x.exp())
        if feature == "exp":
            return torch.cat([x.exp(), (-x).exp()])
        if feature == "relu":
            return x.clamp(min=0)
        return torch.cat([torch.ones(1, dtype=x.dtype), x, torch.outer(x, x).flatten() / 2**0.5])

    n = len(q)
    weights = torch.zeros(n, n, dtype=q.dtype)
    for i in range(n):
        for j in range(i + 1):
            weights[i, j] = phi(q[i]) @ phi(keys[j])
    weights += 1e-30 * torch.ones(n, n).tril()  # a row without weight is uniform
    return weights / weights.sum(-1, keepdim=True)


def heavy_hitters(q, keys, v, scale, head, layer, heavy, recent):
    n, scores = len(q), q @ keys.T * scale
    pattern, sums, alive = torch.zeros(n, n, dtype=q.dtype), [0.0] * n, []
    for i in range(n):
        alive.append(i)
        row = scores[i, alive].softmax(-1)
        for j, weight in zip(alive, row.tolist(), strict=True):
            pattern[i, j] = weight
            sums[j] += weight
        if len(alive) > heavy + recent:
            alive.remove(min((j for j in alive if j <= i - recent), key=lambda j: sums[j]))
    return pattern


def recycled(q, keys, v, scale, head, layer, k, stride):
    n, scores = len(q), q @ keys.T * scale
    pattern, kept = torch.zeros(n, n, dtype=q.dtype), []
    for i in range(n):
        if i % stride == 0:
            kept = scores[i, : i + 1].argsort(descending=True)[:k].tolist()
            pattern[i, : i + 1] = scores[i, : i + 1].softmax(-1)
            continue
        here = sorted({*kept, *range(i // stride * stride, i + 1)})
        pattern[i, here] = scores[i, here].softmax(-1)
    return pattern


def landmark(q, keys, v, scale, head, layer, size, top=None, representative="last"):
    n = len(q)
    pattern = torch.zeros(n, n, dtype=q.dtype)
    for i in range(n):
        own, marks = list(range(i // size * size, i + 1)), {}
        for block in range(i // size):
            inside = list(range(block * size, (block + 1) * size))
            marks[block] = q[i] @ (keys[inside[-1]] if representative == "last" else keys[inside].mean(0)) * scale
        if top is not None:
            marks = dict(sorted(marks.items(), key=lambda item: -float(item[1]))[:top])
        first = torch.stack([*(q[i] @ keys[j] * scale for j in own), *marks.values()]).softmax(-1)
        pattern[i, own] = first[: len(own)]
        for weight, block in zip(first[len(own) :], marks, strict=True):
            inside = list(range(block * size, (block + 1) * size))
            inside = inside[:-1] if representative == "last" else inside
            pattern[i, inside] = weight * (keys[inside] @ q[i] * scale).softmax(-1)
    return pattern


def block_top_keys(q, keys, v, scale, head, layer, size, top, threshold=1.0):
    n = len(q)
    scores = dense(q, keys, scale)
    for i in range(n):
        means = torch.stack([keys[b * size : min((b + 1) * size, n)].mean(0) for b in range(i // size + 1)])
        block_scores = means @ q[i] * scale
        shares, order = block_scores.softmax(-1), block_scores.argsort(descending=True).tolist()
        order.remove(i // size)
        order.insert(0, i // size)
        kept, total = [], 0.0
        for b in order[:top]:
            if threshold < 1 and total >= threshold:
                break
            kept.append(b)
            total += float(shares[b])
        for j in range(n):
            if j // size not in kept:
                scores[i, j] = -torch.inf
    return scores.softmax(-1)


def remembered_denominator(q, keys, v, scale, head, layer, size, sinks, stride):
    full, mass = dense(q, keys, scale).softmax(-1), None
    pattern = torch.zeros_like(full)
    for i in range(len(q)):
        kept = [j for j in range(i + 1) if i - j < size or j < sinks]
        own = full[i, kept].sum()
        mass = own if i % stride == 0 else mass
        pattern[i, kept] = full[i, kept] * (1 if len(kept) == i + 1 else mass / own)
    return pattern


def hip(q, keys, v, scale, head, layer, k):
    scores = dense(q, keys, scale)
    for i in range(len(q)):
        chunks = [range(c * (i + 1) // k, (c + 1) * (i + 1) // k) for c in range(k)]
        while max(map(len, chunks)) > 1:
            halves = []
            for chunk in chunks:
                middle = (chunk.start + chunk.stop + 1) // 2
                halves += [range(chunk.start, middle), range(middle, chunk.stop)]
            halves = sorted((h for h in halves if len(h)), key=lambda h: -float(scores[i, h.start]))
            chunks = halves[:k]
        kept = {chunk.start for chunk in chunks if len(chunk)}
        for j in range(len(q)):
            if j not in kept:
                scores[i, j] = -torch.inf
    return scores.softmax(-1)


def region_top_keys(q, keys, v, scale, head, layer, size, top):
    scores, n = dense(q, keys, scale), len(q)
    regions = [range(start, min(start + size, n)) for start in range(0, n, size)]
    for a, region in enumerate(regions):
        total = [float(q[list(region)].sum(0) @ keys[list(other)].sum(0)) for other in regions[: a + 1]]
        best = sorted(range(a + 1), key=lambda b: -total[b])[:top]
        for i in region:
            for j in range(n):
                if j // size not in best:
                    scores[i, j] = -torch.inf
    return scores.softmax(-1).nan_to_num()


def amplify_span(q, keys, v, scale, head, layer, gain, targets):
    weights = dense(q, keys, scale).softmax(-1)
    for i in range(len(q)):
        chosen = targets[: i + 1]
        if not bool(chosen.all()):
            weights[i, : i + 1] *= torch.where(chosen, 2.718281828459045**gain, 1.0)
    return weights / weights.sum(-1, keepdim=True)


def isolate_span(q, keys, v, scale, head, layer, way, targets):
    def keep(i, j):
        inside, other = bool(targets[i]), bool(targets[j])
        hidden = {
            "both": inside != other,
            "from_rest": inside and not other,
            "to_rest": other and not inside,
            "inside": inside and other,
        }[way]
        return i == j or not hidden

    return masked(q, keys, scale, keep)


def flex_prefill(q, keys, v, scale, head, layer, gamma, tau, size):
    n, scores = len(q), dense(q, keys, scale)
    blocks = [range(start, min(start + size, n)) for start in range(0, n, size)]
    last = scores[-size:].softmax(-1)
    vertical = [float(last[:, j].mean()) for j in range(n)]
    slash = [
        sum(float(last[r, n - len(last) + r - d]) for r in range(len(last)) if n - len(last) + r >= d) / len(last)
        for d in range(n)
    ]
    sums = torch.tensor([sum(vertical[j] for j in block) for block in blocks], dtype=q.dtype)
    mean_q, mean_k = (torch.stack([x[list(block)].mean(0) for block in blocks]) for x in (q, keys))
    pooled = (mean_k @ q[-size:].mean(0) * scale).softmax(-1)
    middle = (pooled + sums) / 2
    divergence = sum(float((p * (p / middle).log()).sum()) for p in (pooled, sums)) / 2
    kept = {(a, b) for a in range(len(blocks)) for b in range(a + 1) if a == b or b == 0}
    if divergence**0.5 < tau:
        table = {}
        for a in range(len(blocks)):
            row = (mean_k[: a + 1] @ mean_q[a] * scale).softmax(-1)
            table |= {(a, b): float(row[b]) for b in range(a + 1)}
        total = 0.0
        for pair in sorted(table, key=lambda pair: -table[pair]):
            if total >= gamma * len(blocks):
                break
            kept.add(pair)
            total += table[pair]
    else:

        def largest(by_token):
            total, count = 0.0, 0
            for weight in sorted(by_token, reverse=True):
                if total >= gamma:
                    break
                total, count = total + weight, count + 1
            order = sorted(range(len(blocks)), key=lambda b: -sum(by_token[t] for t in blocks[b]))
            return set(order[: count // size + 1])

        columns, distances = largest(vertical), largest(slash)
        for a in range(len(blocks)):
            for b in range(a + 1):
                if b in columns or a - b in distances or (a > b and a - b - 1 in distances):
                    kept.add((a, b))
    if n <= 2 * size:
        return scores.softmax(-1)
    for i in range(n):
        for j in range(n):
            if (i // size, j // size) not in kept:
                scores[i, j] = -torch.inf
    return scores.softmax(-1)


def agent(q, keys, v, scale, head, layer, n_agents):
    n, parts = len(q), {}
    for i in range(n):
        parts.setdefault(i * n_agents // n, []).append(i)
    agents = torch.stack([q[parts[a]].mean(0) for a in sorted(parts)])
    product = (q @ agents.T * scale).softmax(-1) @ (agents @ keys.T * scale).softmax(-1)
    return product.tril() / product.tril().sum(-1, keepdim=True)


def combiner(q, keys, v, scale, head, layer, size):
    scores, n = dense(q, keys, scale), len(q)
    for i in range(n):
        for block in range(i // size):
            inside = list(range(block * size, (block + 1) * size))
            scores[i, inside] = q[i] @ keys[inside].mean(0) * scale
    return scores.softmax(-1)


def block_tied(q, keys, v, scale, head, layer, size):
    pattern = dense(q, keys, scale).softmax(-1)
    for i in range(len(q)):
        for start in range(0, i + 1, size):
            inside = list(range(start, min(start + size, i + 1)))
            pattern[i, inside] = pattern[i, inside].mean()
    return pattern


def scatterbrain(q, keys, v, scale, head, layer, k, n_features, seed=0):
    n, scores = len(q), dense(q, keys, scale)
    directions = torch.randn(q.shape[1], n_features, generator=torch.Generator().manual_seed(seed)).to(q.dtype)
    phi = [
        (x @ directions - (x**2).sum(-1, keepdim=True) / 2).exp() / n_features**0.5 for x in (q * scale**0.5, keys * scale**0.5)
    ]
    weights = (phi[0] @ phi[1].T).tril()
    for i in range(n):
        for j in scores[i, : i + 1].argsort(descending=True)[:k].tolist():
            weights[i, j] = scores[i, j].exp()
    return weights / weights.sum(-1, keepdim=True)


def local_linear(q, keys, v, scale, head, layer, ridge):
    pattern = dense(q, keys, scale).softmax(-1)
    for i in range(len(q)):
        x = pattern[i, : i + 1].clone()
        mean = x @ keys[: i + 1]
        centred = keys[: i + 1] - mean
        spread = sum(w * torch.outer(c, c) for w, c in zip(x, centred, strict=True)) + ridge * torch.eye(
            len(mean), dtype=q.dtype
        )
        pattern[i, : i + 1] = x * (1 + centred @ torch.linalg.solve(spread, q[i] - mean))
    return pattern


def symmetric(q, keys, v, scale, head, layer, part):
    scores, n = q @ keys.T * scale, len(q)
    split = {"symmetric": (scores + scores.T) / 2, "antisymmetric": (scores - scores.T) / 2}[part]
    return split.masked_fill(~torch.ones(n, n, dtype=torch.bool).tril(), -torch.inf).softmax(-1)


def reversed_attention(q, keys, v, scale, head, layer):
    return dense(q, keys, scale).softmax(0)


def permuted_blocks(q, keys, v, scale, head, layer, size, widths, mass):
    pattern, n = dense(q, keys, scale).softmax(-1), len(q)
    fewest = None
    for width in widths:
        rows = -(-n // width)
        order = [column + width * row for column in range(width) for row in range(rows)]
        block = {token: place // size for place, token in enumerate(order)}
        held = {}
        for i in range(n):
            for j in range(i + 1):
                cell = block[i], block[j]
                held[cell] = held.get(cell, 0) + float(pattern[i, j])
        kept, total = set(), 0.0
        for cell in sorted(held, key=held.get, reverse=True):
            if total < mass * n:
                kept.add(cell)
                total += held[cell]
        if fewest is None or len(kept) < len(fewest[0]):
            fewest = kept, block
    kept, block = fewest
    return masked(q, keys, scale, lambda i, j: (block[i], block[j]) in kept)


def routing(q, keys, v, scale, head, layer, n_clusters, size, seed=0):
    points = torch.cat([x.float() / x.float().norm(dim=-1, keepdim=True) for x in (q, keys)]).numpy()
    labels = KMeans(n_clusters, n_init="auto", random_state=seed).fit_predict(points)
    return masked(q, keys, scale, lambda i, j: labels[i] == labels[len(q) + j] or i - j < size)
