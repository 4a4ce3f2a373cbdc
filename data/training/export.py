"""Write a trained network as a Hugging Face Llama folder with its word-level tokenizer.

    python data/training/export.py STATE.safetensors FOLDER

Weights are stored as float16 and `config.json` says float32, so they are computed in float32 after loading. The export stops
if the folder, loaded again, tokenises the training text differently or predicts differently from the network.
"""

import argparse
import json
from pathlib import Path
from random import Random

import generator
import torch
from generator import IDS, MAKERS, POOL, VOCABULARY
from network import Network
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer: newlines become <nl>, then `words.TOKEN_PATTERN` cuts; `<bos>` is added by the post-processor."""
    tokenizer = Tokenizer(models.WordLevel(IDS, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace("\n", " <nl> ")
    pattern = pre_tokenizers.Split(Regex(generator.words.TOKEN_PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pattern])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", IDS["<bos>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<unk>", pad_token="<pad>",
        model_max_length=512, padding_side="left", clean_up_tokenization_spaces=False,
    )  # fmt: skip


def to_llama(network: Network) -> LlamaForCausalLM:
    """The same function as a Hugging Face model."""
    shape = network.shape
    config = LlamaConfig(
        vocab_size=len(VOCABULARY), hidden_size=shape.d_model, intermediate_size=shape.d_mlp, num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads, num_key_value_heads=shape.n_heads, head_dim=shape.d_head, rms_norm_eps=1e-6,
        max_position_embeddings=shape.n_ctx, rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        attention_bias=True, mlp_bias=False, tie_word_embeddings=True,
        pad_token_id=IDS["<pad>"], bos_token_id=IDS["<bos>"], eos_token_id=IDS["<eos>"],
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    state = network.hugging_face_state()
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model


def check(folder: Path, network: Network) -> dict[str, float]:
    """Load the folder as a user does and compare it with the network on documents of every task."""
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    if model.dtype != torch.float32:
        raise ValueError(f"The exported folder loads as {model.dtype}; expected torch.float32.")
    largest, same, scored = 0.0, 0, 0
    for name, maker in MAKERS.items():
        for number in range(20):
            document = maker(Random(f"export/{name}/{number}"), 1.0, POOL)
            tokens = generator.encode(document)
            ids = tokenizer(generator.plain(document)).input_ids
            if ids != tokens.ids[:-1]:
                raise ValueError(
                    f"The tokenizer reads {generator.plain(document)!r} as {tokenizer.convert_ids_to_tokens(ids)}."
                )
            batch = torch.tensor([ids])
            with torch.no_grad():
                ours, theirs = network(batch, torch.zeros_like(batch)), model(batch).logits
            largest = max(largest, float((ours - theirs).abs().max()))
            at = torch.tensor(tokens.scored[1:-1])
            same += int((ours[0, :-1][at].argmax(-1) == theirs[0, :-1][at].argmax(-1)).sum())
            scored += int(at.sum())
    return {"largest logit difference": largest, "scored tokens": scored, "same prediction": same}


def export(network: Network, folder: Path) -> None:
    """Write config, weights and tokenizer, then check them."""
    folder.mkdir(parents=True, exist_ok=True)
    to_llama(network).half().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    for path in folder.iterdir():
        path.chmod(0o644)
    print(check(folder, network))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("state", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    from train import load_network

    export(load_network(arguments.state), arguments.folder)
