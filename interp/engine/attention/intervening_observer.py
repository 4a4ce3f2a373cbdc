"""Passes of the plain model whose attention applies interventions: the road of all that TransformerLens's hooks cannot change."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.attention.attention_interface import attend
from interp.engine.attention.attention_observer import AttentionObserver, verify_attention
from interp.engine.attention.attention_rows import AttentionLayer, check_heads, read_rows
from interp.engine.attention.head_changes import changes_in_layer
from interp.interventions import Intervention
from interp.models.model import Model
from interp.tasks.token_batch import TokenBatch


class InterveningObserver(AttentionObserver):
    """Applies interventions and reads nothing; layers without any compute ordinary attention. ``example_ids`` are the ids that they use.

    Raises FastPathUnavailable where the engine's attention is not proven for the model, LookupError for heads that it does not have.
    """

    def __init__(
        self,
        model: Model,
        prompts: TokenBatch,
        intervene: Sequence[Intervention],
        example_ids: Int[Tensor, " batch"] | None = None,
    ) -> None:
        check_heads(model, intervene)
        super().__init__(model, [], prompts, intervene)
        verify_attention(model)
        self.example_ids = example_ids

    def read(self, layer: AttentionLayer) -> Tensor:
        """The attention output of a layer, changed."""
        if not changes_in_layer(self.intervene, layer.index):
            return attend(layer.call)
        return read_rows(layer, None, self.intervene, self.example_ids, block=self.block)


def plain_logits_with(
    model: Model, batch: TokenBatch, intervene: Sequence[Intervention], example_ids: Int[Tensor, " batch"], n_last: int = 0
) -> Float[Tensor, "batch pos d_vocab"]:
    """Logits of the plain model under interventions, for prompts of one length: at all positions, or at the ``n_last``."""
    observer = InterveningObserver(model, batch, intervene, example_ids)
    with observer.reading():
        return observer.hf(input_ids=batch.tokens, use_cache=False, logits_to_keep=n_last).logits
