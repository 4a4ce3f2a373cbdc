"""The table of attention variants in docs/validation/variants.md: ``python benchmarks/variant_table.py --write``.

Each variant at its neutral setting, against its definition written anew (tests/support/naive_variants.py) on a tiny Llama with random
weights, and at three settings on SmolLM2 that keep about 64, 32 and 16 keys of a row (or three strengths): on all heads at once,
the mean of each head's own fidelity and what the variant costs the model in loss. The text is 256 tokens that SmolLM2 wrote itself.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from measure import save

from interp.ablation.fidelity import fidelity
from interp.engine import generate
from interp.engine.forward.run import run
from interp.interventions import INTERVENTIONS, Intervention
from interp.models import load_model
from interp.models.model import Model
from interp.options_text import option_text
from tests.interventions.test_variants import DRAWN, HEADS, SETTINGS, TARGETS, VARIANTS, changed_z, inputs_of
from tests.support import naive_variants
from tests.support.tiny_models import tiny, tiny_tokens

PAGE = Path(__file__).resolve().parent.parent / "docs" / "validation" / "variants.md"
START, END = "<!-- table: benchmarks/variant_table.py -->", "<!-- end of the table -->"
PROMPT, N_TOKENS = "The history of the old town by the river begins", 256
KEYS = (64, 32, 16)


def budgets(name: str) -> list[dict[str, Any]]:
    """Three settings of a variant: those that keep ``KEYS`` of a row, or three strengths."""
    by_keys: dict[str, Any] = {
        "agent": lambda n: {"n_agents": n},
        "block_tied": lambda n: {"size": 128 // n},
        "block_top_keys": lambda n: {"size": 8, "top": n // 8},
        "blocked": lambda n: {"size": n, "halo": n // 2},
        "combiner": lambda n: {"size": 256 // n},
        "dilated": lambda n: {"size": n, "dilation": 2},
        "heavy_hitters": lambda n: {"heavy": n // 2, "recent": n // 2},
        "hip": lambda n: {"k": n},
        "information_pathways": lambda n: {"rate": n / 128},
        "landmark": lambda n: {"size": 16, "top": n // 16},
        "mask_top_keys": lambda n: {"k": 160 // n, "probability": 0.6},
        "neighborhood": lambda n: {"size": n, "stride": n // 4},
        "power_attention": lambda n: {"size": n - 8, "sinks": 1},
        "recycled": lambda n: {"k": n - 8, "stride": 16},
        "region_top_keys": lambda n: {"size": 16, "top": n // 16},
        "remembered_denominator": lambda n: {"size": n - 4, "sinks": 4, "stride": 16},
        "routing": lambda n: {"n_clusters": 128 // n, "size": 8},
        "scatterbrain": lambda n: {"k": n, "n_features": 64},
        "shifted_groups": lambda n: {"size": 2 * n - 4, "sinks": 4},
        "strided": lambda n: {"stride": 256 // n, "size": n // 2},
        "top_keys": lambda n: {"k": n},
        "window": lambda n: {"size": n},
    }
    strengths: dict[str, list[dict[str, Any]]] = {
        "amplify_span": [{"gain": gain} for gain in (-2.0, 1.0, 2.0)],
        "flex_prefill": [{"gamma": gamma, "size": 8} for gamma in (0.95, 0.9, 0.8)],
        "interpolate": [{"u": u} for u in (0.1, 0.3, 0.5)],
        "isolate_span": [{"way": way} for way in ("from_rest", "inside", "both")],
        "linear": [{"feature": feature} for feature in ("exp", "elu", "taylor")],
        "local_linear": [{"ridge": ridge} for ridge in (1000.0, 100.0, 10.0)],
        "mixture_of_heads": [{"k": 7}, {"k": 5}, {"k": 5, "at_random": True}],
        "permuted_blocks": [{"mass": mass, "size": 8} for mass in (0.98, 0.95, 0.9)],
        "power": [{"exponent": exponent} for exponent in (0.8, 1.5, 3.0)],
        "reversed_attention": [{}],
        "softplus": [{"exponent": exponent} for exponent in (1.0, 3.0, 8.0)],
        "symmetric": [{"part": part} for part in ("symmetric", "antisymmetric")],
        "taylor": [{}],
        "toeplitz": [{"decay": decay} for decay in (0.999, 0.99, 0.9)],
    }
    return strengths[name] if name in strengths else [by_keys[name](n) for n in KEYS]


def build(name: str, heads: list, targets: torch.Tensor, **options: Any) -> Intervention:
    constructor = INTERVENTIONS.get(name)
    needed = {"targets": targets} if "targets" in constructor.needs else {}
    return constructor(heads, **needed, **options)


def neutral(name: str) -> str:
    """Whether the neutral setting leaves every bit of a tiny Llama's heads."""
    found = INTERVENTIONS.get(name).neutral
    if found is None:
        return "none"
    model, tokens = tiny("llama"), tiny_tokens(2, 13)
    same = all(
        torch.equal(
            changed_z(call, layer, model, tokens, [build(name, HEADS, TARGETS, **found)]),
            changed_z(call, layer, model, tokens, []),
        )
        for layer, call in enumerate(inputs_of(model, tokens))
    )
    return "exact" if same else "NOT EXACT"


def error(name: str) -> float | None:
    """The largest difference from the definition, divided by the largest value; None for those that are tested otherwise."""
    if name in DRAWN:
        return None
    model, tokens, worst = tiny("llama"), tiny_tokens(2, 13), 0.0
    for options in SETTINGS[name]:
        for layer, call in enumerate(inputs_of(model, tokens)):
            head = HEADS[layer].head
            found = changed_z(call, layer, model, tokens, [build(name, HEADS, TARGETS, **options)])[:, head]
            for row in range(len(tokens)):
                q, k, v = (
                    x[row].double() for x in (call.q[:, head], call.k[:, head // call.group_size], call.head_value(head))
                )
                needed = {"targets": TARGETS[row]} if "targets" in INTERVENTIONS.get(name).needs else {}
                wanted = getattr(naive_variants, name)(q, k, v, call.scale, head, layer, **options, **needed) @ v
                worst = max(worst, float((found[row] - wanted).abs().max() / v.abs().max()))
    return worst


def loss(model: Model, tokens: list[int], n_prompt: int, variants: list[Intervention]) -> float:
    """Nats for each token that the model wrote."""
    logits = run(model, tokens, intervene=variants).logits[0, n_prompt - 1 : -1].double()
    written = torch.tensor(tokens[n_prompt:])
    return float(-logits.log_softmax(-1).gather(1, written[:, None]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", default="", help="only these, separated by commas")
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    options = parser.parse_args()
    model = load_model("smollm2")
    heads = model.facts.heads()
    prompt = model.to_tokens(PROMPT)
    tokens = [*prompt, *generate(model, prompt, N_TOKENS - len(prompt), temperature=0.8).tokens]
    targets = torch.zeros(1, N_TOKENS, dtype=torch.bool)
    targets[0, 8:24] = True
    plain, rows = loss(model, tokens, len(prompt), []), []
    print(f"loss of the unchanged model: {plain:.3f} nats a token")
    for name in options.variants.split(",") if options.variants else VARIANTS:
        row: dict[str, Any] = {"variant": name, "source": INTERVENTIONS.get(name).source}
        row |= {"neutral": neutral(name), "error": error(name), "settings": []}
        for setting in budgets(name):
            change = [build(name, heads, targets, **setting)]
            found = {"setting": ",".join(f"{o}={option_text(v)}" for o, v in setting.items()) or "as it is"}
            found["loss"] = loss(model, tokens, len(prompt), change) - plain
            if change[0].site != "z":
                measured = fidelity(model, torch.tensor([tokens]), change)
                for metric in ("density", "retained_mass", "output_error"):
                    found[metric] = statistics.median(measured.heads(metric).values.ravel().tolist())
            row["settings"].append(found)
        rows.append(row)
        print(row["variant"], flush=True)
    if options.write:
        save("variants", rows)
        page = PAGE.read_text()
        before, after = page[: page.index(START) + len(START)], page[page.index(END) :]
        PAGE.write_text(f"{before}\n\n{as_markdown(rows)}\n{after}")


def as_markdown(rows: list[dict[str, Any]]) -> str:
    lines = ["| variant | neutral | error | setting | density | retained mass | output error | loss |", "|" + "---|" * 8]
    for row in rows:
        wrong = "" if row["error"] is None else f"{row['error']:.0e}"
        for i, found in enumerate(row["settings"]):
            first = [f"`{row['variant']}`", row["neutral"], wrong] if i == 0 else ["", "", ""]
            measured = [f"{found[name]:.3f}" if name in found else "" for name in ("density", "retained_mass", "output_error")]
            cells = [*first, f"`{found['setting']}`", *measured, f"{found['loss']:+.3f}"]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
