"""Measure an exported model on prompts it was not trained on, through `transformers` and its own tokenizer.

    python data/training/evaluate.py data/models/interp-mini --out report.json

Accuracy is the share of scored tokens predicted from the true text before them (teacher-forced); greater-than is probability
mass, P(later year) - P(year not later). Beyond the tasks: needle by depth, what a swapped plan does, answers generated freely,
how much each head matters (mean ablation: its output is replaced by its average over the task's tokens; a drop is positive) and
where attention rests on `#`. Evaluation text has its own random streams; words and sentence forms are those of training.
"""

import argparse
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import generator
import torch
from generator import IDS, MAKERS, POOL, encode, filler, plain, words

DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
ABLATED_TASKS = ("induction", "key_value", "value_key", "needle", "ioi", "colored", "docstring", "facts_held", "plan_order")

Hits = tuple[float, int]
"""Summed score and number of scored tokens (or of sentences, for greater-than)."""


# ---------------------------------------------------------------------------------------------------------------------
# Prompts


def make_copy(rng: Random, difficulty: float, pool: list[str]) -> str:
    """A random sequence of 5 to 50 words and its copy: the plain induction prompt."""
    drawn = rng.sample(pool, rng.randint(5, 50))
    return " ".join([*drawn, drawn[0], *(f"@{word}" for word in drawn[1:])])


def make_one_color(rng: Random, difficulty: float, pool: list[str]) -> str:
    """Colored objects with a single question."""
    return generator.make_colored(rng, difficulty, pool, most=1)


def make_needle_at(depth: float, fillers: int = 16) -> generator.Maker:
    """Two needles among filler, the one that is asked at `depth` (0 = first sentence, 1 = last)."""

    def make(rng: Random, difficulty: float, pool: list[str]) -> str:
        asked, other = rng.sample(words.NAMES, 2)
        word, decoy = rng.sample(pool, 2)
        form = rng.choice(words.NEEDLE_TEMPLATES)
        text = [filler(rng) for _ in range(fillers)]
        text.insert(rng.randint(0, fillers), form.format(name=other, word=decoy))
        text.insert(round(depth * len(text)), form.format(name=asked, word=word))
        return " ".join([*text, f"{rng.choice(words.NEEDLE_QUESTIONS).format(name=asked)} @{word}."])

    return make


TASKS: dict[str, generator.Maker] = {name: maker for name, maker in MAKERS.items() if name != "story"}
TASKS |= {"facts_held": generator.make_facts_held, "copy": make_copy, "colored_one_question": make_one_color}
TASKS |= {f"needle_depth_{depth:.2f}": make_needle_at(depth) for depth in DEPTHS}


def documents(name: str, n: int, seed: int) -> list[str]:
    """The first `n` evaluation documents of a task."""
    return [TASKS[name](Random(f"eval/{seed}/{name}/{number}"), 1.0, POOL) for number in range(n)]


# ---------------------------------------------------------------------------------------------------------------------
# Accuracy


def batches(tokenizer, texts: list[str], size: int = 25) -> Iterator[tuple[dict, list[generator.Tokens]]]:
    """Right-padded batches of documents, and their marks; the tokenizer must read them as the generator does."""
    for start in range(0, len(texts), size):
        marked = [encode(text) for text in texts[start : start + size]]
        inputs = tokenizer(
            [plain(text) for text in texts[start : start + size]], padding=True, padding_side="right", return_tensors="pt"
        )
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        for ids, tokens in zip(inputs["input_ids"].tolist(), marked, strict=True):
            if ids[: len(tokens.ids) - 1] != tokens.ids[:-1]:
                raise ValueError(f"The tokenizer reads a document differently: {tokenizer.convert_ids_to_tokens(ids)}.")
        yield inputs, marked


@torch.no_grad()
def score(model, tokenizer, texts: list[str]) -> Hits:
    """Correct (or mass) and count over the scored tokens of the documents."""
    total, count = 0.0, 0
    for inputs, marked in batches(tokenizer, texts):
        logits = model(**inputs).logits
        for row, tokens in enumerate(marked):
            for position, (token, scored, soft) in enumerate(zip(tokens.ids, tokens.scored, tokens.soft, strict=True)):
                if soft >= 0:
                    years = logits[row, position - 1].softmax(-1)[IDS["00"] : IDS["00"] + 100]
                    total += float(years[soft + 1 :].sum() - years[: soft + 1].sum())
                elif scored:
                    total += float(logits[row, position - 1].argmax() == token)
                count += scored or soft >= 0
    return total, count


def score_all(model, tokenizer, n: int = 200, seed: int = 1) -> dict[str, Hits]:
    """`score` for every task, on at least `n` documents each."""
    return {name: score(model, tokenizer, documents(name, n, seed)) for name in TASKS}


def evaluate(model, tokenizer, n: int = 200, seed: int = 1) -> dict[str, float]:
    """Accuracy (for greater-than probability mass) of every task, each on `n` documents with one or more scored tokens."""
    return {name: total / count for name, (total, count) in score_all(model, tokenizer, n, seed).items()}


def interval(hits: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, z = hits / count, 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - half, middle + half


# ---------------------------------------------------------------------------------------------------------------------
# Generation


@torch.no_grad()
def continuations(model, tokenizer, prompts: list[str], size: int = 25) -> list[str]:
    """What the model writes after each prompt, greedily, up to `<eos>`."""
    written = []
    for start in range(0, len(prompts), size):
        inputs = tokenizer(prompts[start : start + size], padding=True, padding_side="left", return_tensors="pt")
        ids = model.generate(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=90, do_sample=False
        )
        written += tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return written


def said(text: str) -> str | None:
    """The word after "Answer :", or None."""
    found = re.search(r"Answer : (\w+)", text)
    return found and found[1]


def free_running(model, tokenizer, n: int, seed: int) -> dict[str, Hits]:
    """Right answers when the model writes the steps; for arithmetic and tracking it writes the plan too."""
    results = {}
    for name in ("arithmetic", "tracking", "plan_order", "plan_operation"):
        stop = " Plan:" if name in ("arithmetic", "tracking") else " Step "
        texts = [generator.make_tracking(Random(f"eval/{seed}/free/{number}"), 1.0, POOL, vague=False) for number in range(n)]
        texts = texts if name == "tracking" else documents(name, n, seed)
        texts = [plain(text) for text in texts]
        prompts = [text.split(stop)[0] + stop.rstrip() for text in texts]
        written = continuations(model, tokenizer, prompts)
        right = [said(" ".join(words.split(text))) for text in texts]
        results[name] = (sum(said(text) == answer for text, answer in zip(written, right, strict=True)), n)
    return results


def plan_swaps(model, tokenizer, n: int, seed: int) -> dict[str, Hits]:
    """Steps that follow a changed plan: two names exchanged, an operation flipped, another object to follow."""
    pairs: dict[str, list[tuple[str, str, str]]] = {"plan_order": [], "plan_operation": [], "tracking": []}
    for text in map(plain, documents("plan_order", n, seed)):
        head, first, second, tail = re.fullmatch(r"(.*Plan: first )(\w+), second (\w+)(.*?\.) Step .*", text).groups()
        pairs["plan_order"].append((f"{head}{second}, second {first}{tail} Step first:", second, first))
    for text in map(plain, documents("plan_operation", n, seed)):
        head, operation, tail, start = re.fullmatch(
            r"(.*, first )(\w+)( .*?Step start: \w+ = (?:\d+)\. Step)( first).*", text
        ).groups()
        other = "subtract" if operation == "add" else "add"
        pairs["plan_operation"].append((f"{head}{other}{tail}{start}:", other, operation))
    for number in range(n):
        text = plain(generator.make_tracking(Random(f"eval/{seed}/swap/{number}"), 1.0, POOL, vague=True))
        head, old = re.fullmatch(r"(.*Plan: follow the )(\w+)\..*", text).groups()
        new = next(thing for thing in re.findall(r"puts the (\w+)", text) if thing != old)
        pairs["tracking"].append((f"{head}{new}. Step: the", new, old))
    results = {}
    for name, prompts in pairs.items():
        written = [text.split()[0] for text in continuations(model, tokenizer, [prompt for prompt, _, _ in prompts])]
        results[f"{name} follows the new plan"] = (sum(w == new for w, (_, new, _) in zip(written, prompts, strict=True)), n)
        results[f"{name} follows the old plan"] = (sum(w == old for w, (_, _, old) in zip(written, prompts, strict=True)), n)
    return results


# ---------------------------------------------------------------------------------------------------------------------
# Heads


@contextmanager
def head_outputs(model, layer: int, change: Callable[[torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
    """Inside, `change` sees the concatenated head outputs of a layer and may return others."""
    projection = model.model.layers[layer].self_attn.o_proj
    handle = projection.register_forward_pre_hook(lambda module, inputs: change(inputs[0]))
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def head_drops(model, tokenizer, n: int, seed: int, tasks: tuple[str, ...] = ABLATED_TASKS) -> dict[str, dict[str, float]]:
    """Drop of accuracy when one head is replaced by its mean, per head and task; the first row holds the accuracies."""
    table: dict[str, dict[str, float]] = {"none": {}}
    width = model.config.head_dim
    for name in tasks:
        texts = documents(name, n, seed)
        total, count = score(model, tokenizer, texts)
        table["none"][name] = total / count
        for layer in range(model.config.num_hidden_layers):
            seen: list[torch.Tensor] = []
            with head_outputs(model, layer, lambda z, seen=seen: seen.append(z)):
                kept = torch.cat(
                    [inputs["attention_mask"].flatten() for inputs, _ in batches(tokenizer, texts) if model(**inputs)]
                )
            mean = torch.cat([z.flatten(0, 1) for z in seen])[kept.bool()].mean(0)
            for head in range(model.config.num_attention_heads):
                span = slice(head * width, (head + 1) * width)

                def replaced(z: torch.Tensor, span: slice = span, mean: torch.Tensor = mean) -> torch.Tensor:
                    z = z.clone()
                    z[..., span] = mean[span]
                    return z

                with head_outputs(model, layer, replaced):
                    total, count = score(model, tokenizer, texts)
                table.setdefault(f"L{layer}H{head}", {})[name] = table["none"][name] - total / count
    return table


@torch.no_grad()
def sinks(model, tokenizer, n: int, seed: int) -> dict[str, dict[str, float]]:
    """Attention received by <bos>, `#`, newlines, full stops and words, in multiples of the uniform share: mean and best head.

    Documents are four sections of filler with `#` before sections 2 to 4; only attention from at least 3 tokens later counts.
    """
    received: dict[str, list[torch.Tensor]] = {}
    implementation, model.config._attn_implementation = model.config._attn_implementation, "eager"
    for number in range(n):
        rng = Random(f"eval/{seed}/sinks/{number}")
        text = "\n# ".join(" ".join(filler(rng) for _ in range(4)) for _ in range(4))
        inputs = tokenizer(text, return_tensors="pt")
        pattern = torch.cat(model(input_ids=inputs["input_ids"], output_attentions=True).attentions)
        length = pattern.shape[-1]
        for key, token in enumerate(tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])):
            if key + 3 < length:
                queries = torch.arange(key + 3, length)
                kind = token if token in ("<bos>", "#", "<nl>", ".") else "word"
                received.setdefault(kind, []).append((pattern[:, :, queries, key] * (queries + 1)).mean(-1))
    model.config._attn_implementation = implementation
    result = {}
    for kind, values in received.items():
        mean = torch.stack(values).mean(0)
        layer, head = divmod(int(mean.argmax()), mean.shape[1])
        result[kind] = {"mean": float(mean.mean()), "best": float(mean.max()), "head": f"L{layer}H{head}"}
    return result


def main() -> None:
    """Print every number and write them as JSON."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--n", type=int, default=200, help="documents per task")
    parser.add_argument("--n-heads", type=int, default=50, help="documents per task and head in the ablation table")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(arguments.folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.folder, local_files_only=True)
    asked = (model, tokenizer, arguments.n, arguments.seed)
    report: dict[str, dict] = {"accuracy": {}}
    for name, (hits, count) in score_all(*asked).items():
        low, high = interval(max(0.0, hits), count)
        report["accuracy"][name] = {"value": hits / count, "low": low, "high": high, "documents": arguments.n, "scored": count}
        print(f"{name:24} {hits / count:.3f} [{low:.3f}, {high:.3f}]  {arguments.n} documents, {count} scored", flush=True)
    for kind, measure in {"free_running": free_running, "plan_swaps": plan_swaps}.items():
        report[kind] = {name: {"hits": hits, "n": n} for name, (hits, n) in measure(*asked).items()}
        print(kind, *(f"\n  {name}: {value['hits']} of {value['n']}" for name, value in report[kind].items()), flush=True)
    report["sinks"] = sinks(model, tokenizer, 40, arguments.seed)
    print("sinks", *(f"\n  {kind}: {value}" for kind, value in report["sinks"].items()), flush=True)
    report["head_drops"] = head_drops(model, tokenizer, arguments.n_heads, arguments.seed) if arguments.n_heads else {}
    for head, row in report["head_drops"].items():
        print(f"  {head:5}", *(f"{name} {value:+.2f}" for name, value in row.items()), flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
