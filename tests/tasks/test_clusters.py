"""Prompts that belong to clusters: what a task does with them."""

from dataclasses import replace

import pytest

from interp.tasks import Example, Task
from tests.support.sweep_cases import random_task


def clustered(labels, seed: int = 1) -> Task:
    """A task with an example for each label."""
    task = random_task(len(labels), 0, seed=seed)
    examples = zip(task, labels, strict=True)
    return replace(task, examples=tuple(replace(example, cluster=label) for example, label in examples))


def test_selecting_and_swapping_keep_the_clusters():
    task = clustered("aabca")
    assert (task.clusters, task.n_clusters) == (list("aabca"), 3)
    assert task.select([4, 2, 0]).clusters == ["a", "b", "a"]
    assert task.swapped().clusters == task.clusters
    assert (task.provenance["n_clusters"], task.provenance["clusters"]) == (3, list("aabca"))


def test_clusters_are_part_of_the_digest_and_a_task_without_them_has_its_old_one():
    from interp.records import digest

    task, other, plain = clustered("aabca"), clustered("aabcb"), random_task(5, 0)
    assert len({task.digest(), other.digest(), plain.digest()}) == 3
    rows = [[e.clean, e.corrupted, e.answers, e.distractors, sorted(e.marks.items())] for e in plain]
    assert plain.digest() == digest([plain.name, rows])


def test_a_cluster_for_some_examples_is_refused():
    with pytest.raises(ValueError, match="2 of the 4 examples of task 'random' have no cluster: give it to all or to none"):
        clustered(["a", None, "b", None])


@pytest.mark.parametrize("seed", range(7))
@pytest.mark.parametrize(
    ("labels", "sizes"),
    [("abcabcab", (5, 3)), ("aaaaabc", (5, 2)), ("aabbccdde", (5, 4)), ("aab", (2, 1))],
    ids=["three", "one large", "five", "two"],
)
def test_no_cluster_is_in_both_halves_and_their_sizes_are_as_near_as_it_allows(labels, sizes, seed):
    task = clustered(labels)
    first, second = task.halves(seed)
    assert not {*first.clusters} & {*second.clusters}
    assert sorted([*first, *second], key=hash_of) == sorted(task, key=hash_of)
    assert (len(first), len(second)) == sizes


def hash_of(example: Example):
    return example.clean


def test_another_seed_halves_clusters_otherwise():
    assert len({frozenset(clustered("abcdefgh").halves(seed)[0].clusters) for seed in range(9)}) > 3


def test_of_four_clusters_or_more_the_half_that_is_tested_has_two():
    from random import Random

    for seed in range(40):
        rng = Random(seed)
        labels = [label for label in "abcd" for _ in range(rng.choice([1, 2, 3, 7]))]
        assert clustered(labels).halves(seed)[1].n_clusters >= 2


def test_a_single_cluster_is_not_halved():
    with pytest.raises(ValueError, match="are of one cluster, which is not split"):
        clustered("aaa").halves()


def test_halves_without_clusters_are_those_of_a_shuffled_list():
    from random import Random

    task = random_task(7, 0)
    order = Random(3).sample(range(7), 7)
    assert [half.examples for half in task.halves(3)] == [
        tuple(task.examples[i] for i in part) for part in (order[:4], order[4:])
    ]
