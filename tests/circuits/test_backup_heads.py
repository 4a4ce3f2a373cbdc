"""A second sweep, with the heads of the first one gone, finds what stood in for them."""

import numpy as np
import pytest

from interp.ablation import ablate_heads
from interp.circuits import backup_heads
from interp.models import plant
from interp.tasks import Example, Task


@pytest.mark.parametrize("n_kv_heads", [None, 2])
def test_the_backup_of_a_planted_mover_is_found_once_the_mover_is_gone(n_kv_heads):
    source = plant("backup", seed=2, n_layers=5, n_heads=4, length=21, n_names=7, n_kv_heads=n_kv_heads, dtype="float64")
    task = Task("ioi", tuple(Example(*p) for p in source.prompts("ioi", 4)), "logit_diff")
    [mover], [backup] = source.heads("name_mover"), source.heads("backup_name_mover")
    first = ablate_heads(source.model, task, ablation="zero", heads=[mover, backup]).effects.mean(1)
    assert np.abs(first) == pytest.approx([0.0247, 0.0247], abs=1e-4)
    found = backup_heads(source.model, task, [mover], ablation="zero")
    assert np.isnan(found[mover]) and found[backup] == pytest.approx(-10, abs=1e-3)
    role = {backup, *source.heads("s_inhibition"), *source.heads("duplicate_token"), *source.heads("negative_name_mover")}
    noise = [head for head in source.model.facts.heads() if head not in {mover, *role}]
    assert max(abs(found[head]) for head in noise) < 1e-6
    pairs = ablate_heads(source.model, task, ablation="zero", heads=[mover, backup], pairs=True)
    values = dict(zip(pairs.variants, pairs.values.mean(1), strict=True))
    assert found[backup] == pytest.approx(values[mover, backup] - values[mover,], abs=1e-6)


def test_bad_input_is_refused_in_a_sentence():
    source = plant("backup", seed=2, n_layers=5)
    task = Task("ioi", tuple(Example(*p) for p in source.prompts("ioi", 2)), "logit_diff")
    with pytest.raises(ValueError, match="ablated_heads is empty"):
        backup_heads(source.model, task, [])
    with pytest.raises(LookupError, match="No ablation is called 'adaptive'"):
        backup_heads(source.model, task, [next(iter(source.roles))], ablation="adaptive")
