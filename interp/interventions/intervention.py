"""A change to a run: one type, one equation, and the decorator that registers a constructor.

Where it applies, the activation becomes ``x + strength * (replacement(x) - x)``. ``strength=0`` is the identity, bit for bit; values
between 0 and 1 lie on the straight path of integrated gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from interp.errors import ExtensionError, shape_or_type
from interp.heads import Head

if TYPE_CHECKING:
    import torch

SITES = ("q", "k", "v", "scores", "pattern", "z")
AXES = {"scores": "[batch query key]", "pattern": "[batch query key]"}

Memory = dict[str, Any]


@dataclass(frozen=True, eq=False)
class HeadInputs:
    """What one head reads in one pass: ``q`` [batch query d_head], ``k`` [batch key d_head] and ``v`` [batch key d_value] in float32, just
    before the softmax (after rotary embedding). Scores are ``q k^T * scale``; where the architecture does more than that (``extra``),
    ``scale`` raises ValueError, because a variant that computes scores of its own would not do it.

    ``query_positions`` [batch query] and ``key_positions`` [batch key] are token positions; ``token_mask`` [batch key] is False at padding.
    ``rows()`` yields the unchanged pattern, a block of queries at a time: slices of queries and of keys, and the weights
    [batch some_queries some_keys], 0 in rows of padding. ``scores(queries, keys)`` [batch some_queries some_keys] are the unchanged scores
    of two slices, -inf at keys that a query does not see. ``query_norms()`` [batch head query] are the norms of all heads' queries.
    """

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    query_positions: torch.Tensor
    key_positions: torch.Tensor
    token_mask: torch.Tensor
    rows: Callable[[], Iterator[tuple[slice, slice, torch.Tensor]]]
    scores: Callable[[slice, slice], torch.Tensor]
    query_norms: Callable[[], torch.Tensor]
    plain_scale: float
    extra: str = ""

    @property
    def scale(self) -> float:
        if self.extra:
            raise ValueError(
                f"This variant computes scores from queries and keys, and this model {self.extra}, for which it is not defined: choose one "
                "that reads scores or patterns, such as window or top_keys."
            )
        return self.plain_scale


class InterventionContext(NamedTuple):
    """What a replacement knows about the slice it is given.

    ``example_ids`` [batch] are the example indices, ``positions`` [batch pos] the token positions of the slice. At ``pattern`` and
    ``scores`` these are the positions of the queries, ``visible`` [batch query key] is True for the keys that each may attend to, and
    ``keys`` [batch key] are the positions of the keys. All but ``example_ids`` may have one row for the whole batch. At ``pattern``,
    ``sink_share`` [batch query 1] is what a learned sink holds of each row, whose weights sum to the rest; None in heads without one.

    Interventions that ask for it have ``inputs``, in which the slice stands at ``query_slice`` and ``key_slice``, and a ``memory`` of one
    head and one batch of texts, which later blocks of queries and later steps of generation find as it was left.
    """

    head: Head
    example_ids: torch.Tensor
    positions: torch.Tensor
    visible: torch.Tensor | None = None
    keys: torch.Tensor | None = None
    sink_share: torch.Tensor | None = None
    inputs: HeadInputs | None = None
    query_slice: slice = slice(None)
    key_slice: slice = slice(None)
    memory: Memory | None = None

    def where(self, marked: torch.Tensor) -> torch.Tensor:
        """The keys of this slice, [batch key], that are True in ``marked`` [n_examples pos]; positions beyond its width are False."""
        assert self.keys is not None
        own = marked[self.example_ids.to(marked.device)].to(self.keys.device)
        keys, length = self.keys.expand(len(own), -1), own.shape[1]
        return own.gather(1, keys.clamp(0, length - 1)) & (keys >= 0) & (keys < length)


Replacement = Callable[["torch.Tensor", InterventionContext], "torch.Tensor"]
Positions = str | tuple[int, ...]


@runtime_checkable
class ActivationSource(Protocol):
    """Activations of another run: ``z`` of one head for given examples [batch] and positions [batch or 1, pos], [batch pos d_head]."""

    def z(self, head: Head, example_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor: ...


@dataclass(frozen=True)
class Intervention:
    """A change of some heads at one site.

    ``site`` is ``q``, ``k`` or ``v`` (what the head reads, just before the softmax, slices [batch pos d_head]; heads that share a key keep
    theirs), ``scores`` (before the softmax, slices [batch query key]), ``pattern`` (attention weights, the same slices) or ``z`` (the
    head's output before W_O, slices [batch pos d_head]). ``positions`` is ``all``, ``end``, the name of a mark, or token indices (of
    queries, at ``scores`` and ``pattern``). ``label`` names the change in tables.

    ``uses_inputs`` gives a replacement of scores, pattern or z the head's ``inputs``. ``prepare(inputs, memory)`` is called before the
    first block of each pass and may keep what it computes in ``memory``; ``in_order`` says that the replacement changes ``memory`` from
    row to row. Either of them needs the whole text, from its first token on, whatever positions it changes. ``reads_to_end`` says that
    rows depend on later tokens (a preparation of the whole prompt): then generated tokens take whole passes. ``alike`` says that the
    replacement depends on the layer alone: its heads are changed at once, as more rows of the batch, and ``context.head`` is one of them.
    """

    site: str
    heads: tuple[Head, ...]
    replacement: Replacement
    label: str
    positions: Positions = "all"
    strength: float = 1.0
    uses_inputs: bool = False
    prepare: Callable[[HeadInputs, Memory], None] | None = None
    in_order: bool = False
    reads_to_end: bool = False
    alike: bool = False

    def __post_init__(self) -> None:
        if self.site not in SITES:
            raise ValueError(f"Intervention {self.label!r}: site {self.site!r} is not one of {', '.join(SITES)}.")
        if self.site in ("q", "k", "v") and (self.uses_inputs or self.needs_whole_text):
            raise ValueError(
                f"Intervention {self.label!r}: inputs, preparation and memory are for scores, pattern and z, not for {self.site}."
            )
        if self.alike and self.needs_engine:
            raise ValueError(f"Intervention {self.label!r}: alike is for changes of scores, pattern and z that read no inputs.")
        if not self.heads:
            raise ValueError(f"Intervention {self.label!r} names no head.")
        if len(set(self.heads)) != len(self.heads):
            raise ValueError(f"Intervention {self.label!r} names a head twice: {', '.join(map(str, self.heads))}.")

    @property
    def needs_whole_text(self) -> bool:
        """Whether it reads the text from its first token on, whatever positions it changes."""
        return self.prepare is not None or self.in_order

    @property
    def needs_engine(self) -> bool:
        """Whether only the engine's own attention can apply it: TransformerLens's hooks know no inputs, and no heads that share a key."""
        return self.uses_inputs or self.needs_whole_text or self.site in ("q", "k", "v")

    @property
    def inside_attention(self) -> bool:
        """Whether attention is computed anew for it: it changes what a head reads or its rows, or a z by what the head reads."""
        return self.site != "z" or self.needs_engine

    def apply(self, x: torch.Tensor, context: InterventionContext) -> torch.Tensor:
        """``x + strength * (replacement(x) - x)``; ``x`` itself when ``strength`` is 0, the replacement itself when it is 1."""
        if self.strength == 0:
            return x
        changed = self._checked(self.replacement(x, context), x).to(x.dtype).expand_as(x)
        return changed if self.strength == 1 else x + self.strength * (changed - x)

    def _checked(self, changed: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """What the replacement returned; raises ExtensionError unless it is a tensor that broadcasts to ``x``."""
        shape = changed.shape if hasattr(changed, "expand_as") else None
        if (
            shape is None
            or len(shape) > x.dim()
            or any(n not in (1, m) for n, m in zip(shape[::-1], x.shape[::-1], strict=False))
        ):
            axes = AXES.get(self.site, "[batch pos d_head]")
            raise ExtensionError(
                f"The replacement of intervention {self.label!r} must return {axes} {tuple(x.shape)}, or what broadcasts to it, "
                f"not {shape_or_type(changed)}."
            )
        return changed

    def __str__(self) -> str:
        """Label, heads, positions and strength."""
        return f"{self.label} {' '.join(map(str, self.heads))} @{self.positions} x{self.strength:g}"

    def at(self, strength: float) -> Intervention:
        """The same change at another strength."""
        return replace(self, strength=strength)


Constructor = TypeVar("Constructor", bound=Callable[..., Intervention])


def intervention(
    *, needs: tuple[str, ...] = (), source: str = "", neutral: Mapping[str, Any] | None = None
) -> Callable[[Constructor], Constructor]:
    """A decorator that registers a constructor ``(heads, *needs, **options, positions="all") -> Intervention``.

    ``needs`` are the parameters that ``ablate_heads`` and the commands supply from the model and the task: ``means`` (mean z over the
    prompts, [n_layers n_heads d_head]), ``clean`` and ``corrupted`` (``ActivationSource`` of the clean and the corrupted prompts),
    ``source_ids`` (for each example another one of equal length), ``sinks`` (sink columns, [n_layers n_examples n_heads pos]) and
    ``targets`` (marked tokens, [n_examples pos]). All other parameters are options, written ``scale:factor=0.5``. The first line of
    the docstring describes the intervention in lists. An attention variant states the ``source`` that it is from, and the ``neutral``
    options at which the head stays as it is, bit for bit.
    """

    def declare(constructor: Constructor) -> Constructor:
        about = (constructor.__doc__ or "").strip().split("\n")[0].rstrip(".").replace("``", "")
        constructor.__dict__.update(needs=needs, about=about, source=source, neutral=neutral)
        return constructor

    return declare
