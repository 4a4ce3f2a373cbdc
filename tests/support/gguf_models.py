"""A tiny GGUF file, and the module that it holds."""

import torch
import transformers


def write_gguf(path):
    """A Qwen2 of 2 layers with all matrices in Q8_0 and vectors in F32. Returns the module with the weights that the file means."""
    import gguf
    from tokenizers import pre_tokenizers

    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "ab", "Ġd", "<|endoftext|>"]
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.Qwen2Config(
        **sizes, vocab_size=len(tokens), intermediate_size=96, max_position_embeddings=50, rms_norm_eps=1e-6,
        tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )  # fmt: skip
    torch.manual_seed(0)
    hf = transformers.Qwen2ForCausalLM(config).eval()
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(2)
    writer.add_context_length(50)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_freq_base(5000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["a b", "Ġ d"])
    writer.add_eos_token_id(len(tokens) - 1)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, 2)
    q8 = gguf.GGMLQuantizationType.Q8_0
    with torch.no_grad():
        for key, weight in hf.named_parameters():
            weight.copy_(torch.randn_like(weight) * (0.3 if weight.dim() > 1 else 1.0))
            stem, kind = key.rsplit(".", 1)
            name = f"{names.get_name(stem)}.{kind}"
            if weight.dim() == 1:
                writer.add_tensor(name, weight.numpy())
                continue
            packed = gguf.quants.quantize(weight.numpy(), q8)
            writer.add_tensor(name, packed, raw_dtype=q8)
            weight.copy_(torch.from_numpy(gguf.quants.dequantize(packed, q8)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return hf
