"""A blueprint as the weights of a real GPT-2 (learned positions, LayerNorm) or Llama (rotary, RMSNorm, grouped heads).

Both keep their norms: with an epsilon of 2^40 and a weight of 2^20 a norm returns its input up to rounding, whatever its size, except
for the mean that LayerNorm subtracts; and no coordinate has a mean, because every hidden direction is orthogonal to the vector of
ones. All coordinates are hidden by a random rotation except the massive activation, which lies on one axis and is written by a
neuron of an MLP. Every other MLP weight and every bias is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from interp.heads import Head
from interp.models.planted.head_roles import Blueprint
from interp.models.planted.head_weights import Columns, RotaryOffsets, group_columns
from interp.models.planted.residual_coordinates import MASSIVE, ResidualCoordinates
from interp.models.planted.vocabulary import BOS, DELIMITER

EPSILON, NORM_WEIGHT = 2.0**40, 2.0**20
D_MLP = 8
NEURON = 32.0  # the pre-activation of the neuron: gelu and silu return it to 1e-13
STILL = 2.0**60  # factor on a rotary wavelength that leaves an angle of 0 to rounding


@dataclass(frozen=True, eq=False)
class Basis:
    """Directions of the residual coordinates: ``write_directions`` and ``read_directions`` [size d_model], dual to each other, and
    the ``axis`` of the massive activation."""

    write_directions: Float[ndarray, "size d_model"]
    read_directions: Float[ndarray, "size d_model"]
    axis: int

    @classmethod
    def random(cls, space: ResidualCoordinates, d_model: int, rng: Generator) -> Basis:
        """Random orthonormal directions, orthogonal to the vector of ones and, except for the massive activation, to its axis."""
        axis = int(rng.integers(d_model))
        drawn = rng.standard_normal((d_model, space.size + 1))
        drawn[:, 0], drawn[:, 1] = 1, np.eye(d_model)[axis]
        written = np.linalg.qr(drawn)[0].T[1:].copy()
        massive = int(np.argmax(space.massive[0]))
        written[[0, massive]] = written[[massive, 0]]
        read = written.copy()
        written[massive] = np.eye(d_model)[axis]
        read[massive] = (written[massive] - 1 / d_model) * d_model / (d_model - 1)
        return cls(written, read, axis)


def gpt2(blueprint: Blueprint, rng: Generator) -> tuple[Any, int]:
    """A GPT-2 in double precision, and the axis of its massive activation."""
    space, sizes = blueprint.space, blueprint.sizes
    config = GPT2Config(
        vocab_size=len(space.vocabulary), n_positions=space.length, n_embd=sizes.d_model, n_layer=sizes.n_layers,
        n_head=sizes.n_heads, n_inner=D_MLP, layer_norm_epsilon=EPSILON, tie_word_embeddings=False,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=BOS, eos_token_id=None,
    )  # fmt: skip
    basis = Basis.random(space, sizes.d_model, rng)
    weights = {
        "transformer.wte.weight": (space.token + space.one) @ basis.write_directions,
        "transformer.wpe.weight": space.position @ basis.write_directions,
        "lm_head.weight": space.output @ basis.read_directions,
    }
    for layer, (q, k, v, o) in enumerate(_layers(blueprint, None, rng)):
        at = f"transformer.h.{layer}"
        weights[f"{at}.attn.c_attn.weight"] = basis.read_directions.T @ np.concatenate([*q, *k, *v], axis=1)
        weights[f"{at}.attn.c_proj.weight"] = np.concatenate(o, axis=1).T @ basis.write_directions
    if blueprint.massive_layer is not None:
        at = f"transformer.h.{blueprint.massive_layer}.mlp"
        weights[f"{at}.c_fc.weight"] = _neuron(NEURON * space.token[DELIMITER] @ basis.read_directions).T
        weights[f"{at}.c_proj.weight"] = _neuron(MASSIVE / NEURON * space.massive[0] @ basis.write_directions)
    return _with_weights(GPT2LMHeadModel(config), weights), basis.axis


def llama(blueprint: Blueprint, rng: Generator) -> tuple[Any, int]:
    """A Llama in double precision, and the axis of its massive activation."""
    space, sizes = blueprint.space, blueprint.sizes
    rotary = RotaryOffsets.random(space.length, sizes.d_head, rng)
    factors = [float(1 / w) if w else STILL for w in rotary.frequencies]
    config = LlamaConfig(
        vocab_size=len(space.vocabulary), hidden_size=sizes.d_model, intermediate_size=D_MLP, num_hidden_layers=sizes.n_layers,
        num_attention_heads=sizes.n_heads, num_key_value_heads=sizes.n_kv_heads, head_dim=sizes.d_head,
        max_position_embeddings=space.length, rms_norm_eps=EPSILON, tie_word_embeddings=False, bos_token_id=BOS, eos_token_id=None,
        rope_parameters={
            "rope_type": "longrope", "rope_theta": 1.0, "factor": 1.0, "attention_factor": 1.0,
            "original_max_position_embeddings": space.length, "short_factor": factors, "long_factor": factors,
        },
    )  # fmt: skip
    basis = Basis.random(space, sizes.d_model, rng)
    weights = {
        "model.embed_tokens.weight": (space.token + space.one) @ basis.write_directions,
        "lm_head.weight": space.output @ basis.read_directions,
    }
    for layer, (q, k, v, o) in enumerate(_layers(blueprint, rotary, rng)):
        at = f"model.layers.{layer}.self_attn"
        for name, parts in (("q", q), ("k", k[:: sizes.group_size]), ("v", v[:: sizes.group_size])):
            weights[f"{at}.{name}_proj.weight"] = np.concatenate(parts, axis=1).T @ basis.read_directions
        weights[f"{at}.o_proj.weight"] = basis.write_directions.T @ np.concatenate(o, axis=1)
    if blueprint.massive_layer is not None:
        at = f"model.layers.{blueprint.massive_layer}.mlp"
        weights[f"{at}.gate_proj.weight"] = _neuron(NEURON * space.token[DELIMITER] @ basis.read_directions)
        weights[f"{at}.up_proj.weight"] = _neuron(space.token[DELIMITER] @ basis.read_directions)
        weights[f"{at}.down_proj.weight"] = _neuron(MASSIVE / NEURON * space.massive[0] @ basis.write_directions).T
    return _with_weights(LlamaForCausalLM(config), weights), basis.axis


def _layers(blueprint: Blueprint, rotary: RotaryOffsets | None, rng: Generator) -> Iterator[tuple[tuple[Columns, ...], ...]]:
    """For each layer the q, k, v and output columns of all its query heads."""
    sizes = blueprint.sizes
    for layer in range(sizes.n_layers):
        found = []
        for first in range(0, sizes.n_heads, sizes.group_size):
            group = [blueprint.heads.get(Head(layer, head)) for head in range(first, first + sizes.group_size)]
            found += group_columns(group, blueprint, rotary, rng)
        yield tuple(zip(*found, strict=True))


def _neuron(vector: Float[ndarray, " d_model"]) -> Float[ndarray, "d_mlp d_model"]:
    return np.outer(np.eye(D_MLP)[0], vector)


def _with_weights(hf: Any, weights: Mapping[str, ndarray]) -> Any:
    """The module in double precision with these weights, identity norms, and zeros elsewhere."""
    hf.double()
    for name, parameter in hf.named_parameters():
        is_norm = parameter.dim() == 1 and name.endswith("weight")
        value = weights.get(name, np.full(parameter.shape, NORM_WEIGHT if is_norm else 0.0))
        parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return hf
