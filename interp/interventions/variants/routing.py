"""Routing attention (Routing Transformers, arXiv 2003.05997): queries attend to the keys of their own k-means cluster.

Queries and keys are normalised to length 1 and clustered together, text by text and head by head (scikit-learn's k-means); a window of near
tokens stays visible. The paper learns centroids in training; here they are those of the whole text, so that rows depend on later
tokens.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import HeadInputs, Intervention, Memory, Positions, intervention
from interp.interventions.variants._rows import check_least, keep_keys, lags


@intervention(source="Routing Transformers, arXiv 2003.05997", neutral={"n_clusters": 1})
def routing(
    heads: Iterable[Head], n_clusters: int = 4, size: int = 8, seed: int = 0, positions: Positions = "all"
) -> Intervention:
    """The head attends to the keys in the cluster of the query, of ``n_clusters``, and to the last ``size`` tokens."""
    check_least("routing", 1, n_clusters=n_clusters, size=size)
    check_least("routing", 0, seed=seed)

    def prepare(inputs: HeadInputs, memory: Memory) -> None:
        import torch
        from sklearn.cluster import KMeans

        labels = torch.zeros(2, *inputs.token_mask.expand(len(inputs.k), -1).shape, dtype=torch.long)
        for row, tokens in enumerate(inputs.token_mask.expand(len(inputs.k), -1)):
            points = (
                torch.nn.functional.normalize(torch.cat([inputs.q[row, tokens], inputs.k[row, tokens]]), dim=-1).cpu().numpy()
            )
            n = min(n_clusters, len(points) // 2)
            found = torch.from_numpy(KMeans(n, n_init="auto", random_state=seed).fit_predict(points)).long()
            labels[:, row, tokens.cpu()] = found.view(2, -1)
        memory["queries"], memory["keys"] = labels.to(inputs.k.device)

    def rows(x, at):
        same = at.memory["queries"][:, at.query_slice, None] == at.memory["keys"][:, None, at.key_slice]
        return keep_keys(x, same | (lags(at).abs() < size), at.visible, at.sink_share)

    label = f"routing {n_clusters}+{size}"
    return Intervention("pattern", tuple(heads), rows, label, positions, uses_inputs=True, prepare=prepare, reads_to_end=True)
