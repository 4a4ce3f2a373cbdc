"""Fidelity of heads under attention variants: identities of masks, agreement with whole patterns of transformers, an unchanged pass."""

import pytest
import torch
import transformers

from interp.ablation import build_variant, fidelity
from interp.engine import observe
from interp.heads import Head
from interp.metrics.attention import attention_metrics
from tests.support import naive_variants
from tests.support.tiny_models import tiny, tiny_tokens

TOKENS = tiny_tokens(2, 17)


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


@pytest.mark.parametrize("variant", ["window:size=4", "top_keys:k=3", "power_attention", "recycled:k=2,stride=5"])
def test_of_a_mask_total_variation_and_divergence_follow_from_the_retained_mass(llama, variant):
    found = fidelity(llama, TOKENS, [build_variant(variant, llama.facts.heads())])
    retained = found["retained_mass"]
    torch.testing.assert_close(found["total_variation"], 1 - retained, rtol=0, atol=2e-6)
    torch.testing.assert_close(found["kl"], -retained.log(), rtol=1e-4, atol=5e-6)
    assert bool((found["oracle_mass"] >= retained - 1e-6).all())
    assert float(retained.mean()) < 0.95


def test_the_largest_keys_are_the_best_mask_of_their_size(llama):
    found = fidelity(llama, TOKENS, [build_variant("top_keys:k=3", llama.facts.heads())])
    torch.testing.assert_close(found["oracle_mass"], found["retained_mass"])


@pytest.mark.parametrize(("variant", "options"), [("window", {"size": 4}), ("linear", {"feature": "elu"})])
def test_every_measure_is_that_of_whole_patterns(llama, variant, options):
    head = Head(1, 2)
    text = f"{variant}:" + ",".join(f"{name}={value}" for name, value in options.items())
    found = fidelity(llama, TOKENS, [build_variant(text, [head])])
    model = transformers.LlamaForCausalLM(llama.hf.config).eval()
    model.load_state_dict(llama.hf.state_dict())
    model.set_attn_implementation("eager")
    kept = {}
    attention = model.model.layers[head.layer].self_attn
    attention.register_forward_hook(
        lambda module, args, kwargs, out: kept.update(hidden=kwargs["hidden_states"]), with_kwargs=True
    )
    with torch.inference_mode():
        pattern = model(TOKENS, output_attentions=True).attentions[head.layer][:, head.head].double()
        hidden = kept["hidden"]
        width = attention.head_dim
        group = model.config.num_attention_heads // model.config.num_key_value_heads
        part = slice(head.head // group * width, (head.head // group + 1) * width)
        v = attention.v_proj(hidden)[..., part].double()
        rotary = model.model.rotary_emb(hidden, torch.arange(TOKENS.shape[1])[None])
        q, k = (
            projection(hidden).view(*hidden.shape[:2], -1, width).transpose(1, 2)
            for projection in (attention.q_proj, attention.k_proj)
        )
        q, k = transformers.models.llama.modeling_llama.apply_rotary_pos_emb(q, k, *rotary)
    for row in range(len(TOKENS)):
        own_q, own_k = q[row, head.head].double(), k[row, head.head // group].double()
        new = getattr(naive_variants, variant)(own_q, own_k, v[row], width**-0.5, head.head, head.layer, **options)
        old = pattern[row]
        visible = torch.ones_like(old).tril()
        output, changed = old @ v[row], new @ v[row]
        wanted = {
            "density": (new > 0).sum(-1) / visible.sum(-1),
            "retained_mass": (old * (new > 0)).sum(-1),
            "total_variation": (old - new).abs().sum(-1) / 2,
            "kl": torch.xlogy(new, new / old.where(old > 0, 1)).sum(-1),
            "output_error": (changed - output).norm(dim=-1) / output.norm(dim=-1),
        }
        for name, values in wanted.items():
            here = found[name][head.layer, row, head.head].double()
            torch.testing.assert_close(
                here, values.double(), rtol=2e-4, atol=5e-6, msg=lambda said, name=name: f"{name}: {said}"
            )
    others = [h for h in range(llama.facts.n_heads) if h != head.head]
    for name in ("total_variation", "kl", "output_error"):
        assert float(found[name][head.layer][:, others].abs().max()) == 0


def test_the_pass_stays_unchanged(llama):
    variants = [build_variant("window:size=2", llama.facts.heads())]
    metrics = attention_metrics(["entropy", "attention_distance"])
    plain = observe(llama, TOKENS, metrics)
    beside = observe(llama, TOKENS, metrics, intervene=variants, compare=True)
    changed = observe(llama, TOKENS, metrics, intervene=variants)
    for metric in metrics:
        torch.testing.assert_close(beside[metric.name], plain[metric.name])
        assert float((changed[metric.name] - plain[metric.name]).abs().max()) > 0.1


def test_what_cannot_be_compared_is_refused_in_a_sentence(llama):
    heads = llama.facts.heads()
    with pytest.raises(ValueError, match="changes z and no pattern"):
        fidelity(llama, TOKENS, [build_variant("mixture_of_heads:k=2", heads)])
    with pytest.raises(LookupError, match="No attention variant is called 'zero'"):
        build_variant("zero", heads)
    with pytest.raises(LookupError, match="has no option 'width'"):
        build_variant("window:width=3", heads)
    with pytest.raises(ValueError, match="size=0 is too small"):
        build_variant("window:size=0", heads)
    with pytest.raises(ValueError, match="amplify_span needs targets"):
        build_variant("amplify_span:gain=2.0", heads)
