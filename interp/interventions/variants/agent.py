"""Agent attention (arXiv 2312.08874): queries read agents and agents read keys; the pattern is the product of two softmax maps.

Agents are the mean queries of ``n_agents`` parts of the text, so that rows depend on later tokens. In a causal model the product is cut
to the visible keys and normalised again; in an encoder it has at most ``n_agents`` independent rows. The paper's trained biases and
convolution are left out. There is no neutral setting.
"""

from collections.abc import Iterable

from interp.heads import Head
from interp.interventions.intervention import HeadInputs, Intervention, Memory, Positions, intervention
from interp.interventions.variants._rows import FAINT, check_least


@intervention(source="Agent Attention, arXiv 2312.08874")
def agent(heads: Iterable[Head], n_agents: int = 8, positions: Positions = "all") -> Intervention:
    """The head's pattern becomes softmax(q, agents) times softmax(agents, k), with ``n_agents`` pooled queries as agents."""
    check_least("agent", 1, n_agents=n_agents)

    def prepare(inputs: HeadInputs, memory: Memory) -> None:
        tokens = inputs.token_mask.expand(len(inputs.k), -1)
        n, place = tokens.sum(1, keepdim=True), (tokens.cumsum(1) - 1).clamp(min=0)
        part = (place * n_agents // n).clamp(max=n_agents - 1)[..., None]
        sums = inputs.q.new_zeros(len(inputs.q), n_agents, inputs.q.shape[-1])
        sums = sums.scatter_add(1, part.expand_as(inputs.q), inputs.q * tokens[..., None])
        counts = sums.new_zeros(sums[..., :1].shape).scatter_add(1, part, tokens[..., None].to(sums))
        agents = sums / counts.clamp(min=1)
        read = (agents @ inputs.k.mT * inputs.scale).masked_fill(~tokens[:, None], -1e30).softmax(-1)
        memory.update(agents=agents, read=read, empty=counts[..., 0] == 0)

    def rows(x, at):
        agents, read, empty = (at.memory[name] for name in ("agents", "read", "empty"))
        chosen = at.inputs.q[:, at.query_slice] @ agents.mT * at.inputs.scale
        weights = chosen.masked_fill(empty[:, None], -1e30).softmax(-1) @ read[..., at.key_slice]
        weights = (weights + FAINT) * at.visible
        return weights / weights.sum(-1, keepdim=True).clamp(min=FAINT)

    return Intervention(
        "pattern", tuple(heads), rows, f"agent {n_agents}", positions, uses_inputs=True, prepare=prepare, reads_to_end=True
    )
