"""What is special about each task's prompts."""

from collections import Counter

import pytest

from tests.support.tokenizer_only_models import task_model

NAMES_OF_MARKS = {"ioi": "s1", "induction": "first", "key_value": "key"}


def prompts(name: str, n: int, **options):
    from interp.tasks import write_prompts

    return write_prompts(name, task_model("word"), n, **options)


def split(text: str) -> list[str]:
    from interp.tasks import words_and_templates

    return words_and_templates.split(text)


def marked(prompt, name: str) -> str:
    return prompt.clean[slice(*prompt.marks[name])]


def changed(prompt) -> list[tuple[str, str]]:
    """The words that the corrupted prompt has in place of others."""
    pairs = zip(split(prompt.clean), split(prompt.corrupted), strict=True)
    return [(a, b) for a, b in pairs if a != b]


# ---------------------------------------------------------------------------------------------------------------------


def test_ioi_names_the_receiver_first_in_exactly_half_of_the_prompts():
    first = [p.marks["io"] < p.marks["s1"] for p in prompts("ioi", 72)]
    assert sum(first) == 36


def test_ioi_uses_every_sentence_form_equally_often_in_both_orders():
    from interp.tasks.words_and_templates import IOI_TEMPLATES

    assert len(IOI_TEMPLATES) == 18
    made = prompts("ioi", 36)
    lengths = Counter((len(split(p.clean)), p.marks["io"] < p.marks["s1"]) for p in made)
    for template in IOI_TEMPLATES:
        length = len(split(template.format(a="A", b="B", s="B", place="p", object="o")))
        same = sum(len(split(t.format(a="A", b="B", s="B", place="p", object="o"))) == length for t in IOI_TEMPLATES)
        assert lengths[length, True] == lengths[length, False] == same


def test_ioi_repeats_the_subject_and_not_the_receiver():
    for p in prompts("ioi", 60):
        (io,), (s,) = p.answers, p.distractors
        assert marked(p, "io") == io and marked(p, "s1") == marked(p, "s2") == s
        assert Counter(split(p.clean))[io] == 1 and Counter(split(p.clean))[s] == 2
        assert p.marks["s1"] < p.marks["s2"] and p.marks["io"] < p.marks["s2"]


def test_ioi_corrupted_has_three_other_names_all_different():
    for p in prompts("ioi", 60):
        new = [b for _, b in changed(p)]
        assert [a for a, _ in changed(p)].count(p.distractors[0]) == 2
        assert len(set(new)) == 3 and not set(new) & {*p.answers, *p.distractors}


def test_ioi_flip_changes_only_the_repeated_name():
    for p in prompts("ioi", 20, corruption="flip"):
        assert changed(p) == [(p.distractors[0], p.answers[0])]
        assert p.corrupted[slice(*p.marks["s2"])] != p.distractors[0]


def test_the_mark_after_s1_is_the_next_word():
    for p in prompts("ioi", 36):
        following = p.clean[p.marks["s1"][1] :].lstrip()
        assert p.clean[p.marks["s1_next"][0] :] == following and p.marks["s1_next"][1] == p.marks["s1_next"][0] + 1


# ---------------------------------------------------------------------------------------------------------------------


def test_induction_asks_for_a_word_that_occurred_exactly_once():
    for p in prompts("induction", 40):
        text = split(p.clean)
        places = [i for i, word in enumerate(text) if word == text[-1]]
        assert len(places) == 2 and places[0] > 0
        assert [text[places[0] + 1]] == list(p.answers)
        assert marked(p, "first") == text[-1] and marked(p, "first_next") == p.answers[0]


def test_induction_distances_vary_so_that_no_fixed_offset_answers():
    distances = Counter()
    for p in prompts("induction", 60):
        text = split(p.clean)
        distances[len(text) - 1 - text.index(text[-1])] += 1
    assert len(distances) >= 15 and max(distances.values()) <= 12


@pytest.mark.parametrize("name", ["induction", "key_value"])
def test_swapped_keys_make_the_distractor_follow(name):
    for p in prompts(name, 40):
        old, new = zip(*changed(p), strict=True)
        text = [w for w in split(p.corrupted) if w not in ":;"]
        assert len(old) == 2 and set(old) == set(new)
        assert [text[text.index(text[-1]) + 1]] == list(p.distractors)


def test_key_value_pairs_are_all_different_and_the_first_is_never_asked_for():
    for p in prompts("key_value", 40, n_pairs=5):
        *pairs, query = p.clean.split("; ")
        listed = dict(pair.split(": ") for pair in pairs)
        assert len(listed) == 5 and len({*listed, *listed.values()}) == 10
        assert listed[query.rstrip(":")] == p.answers[0] != next(iter(listed.values()))
        assert (marked(p, "key"), marked(p, "value"), marked(p, "query")) == (query[:-1], p.answers[0], query[:-1])


# ---------------------------------------------------------------------------------------------------------------------


def test_colored_objects_asks_for_one_colour_and_the_corrupted_prompt_for_the_third():
    for p in prompts("colored_objects", 40):
        assert len(changed(p)) == 1 and split(p.clean).count(marked(p, "query")) == 2
        assert f"a {p.answers[0]} {marked(p, 'query')}" in p.clean
        assert f"a {p.distractors[0]} {changed(p)[0][1]}" in p.clean
        assert (marked(p, "color"), marked(p, "distractor")) == (p.answers[0], p.distractors[0])
        assert split(p.clean).count(marked(p, "solved")) == 2 and p.clean.endswith(marked(p, "question"))


def test_greater_than_takes_every_start_year_once_in_96_prompts():
    made = prompts("greater_than", 96)
    assert sorted(marked(p, "start") for p in made) == [f"{year:02d}" for year in range(2, 98)]
    for p in made:
        start = marked(p, "start")
        assert changed(p) == [(start, "01")]
        assert min(p.answers) == f"{int(start) + 1:02d}" and max(p.distractors) == start
        assert len(p.answers) == 99 - int(start) and len(p.answers) + len(p.distractors) == 100


def test_greater_than_leaves_out_years_that_are_one_token():
    from interp.tasks import write_prompts

    made = [p for p in write_prompts("greater_than", task_model("bpe"), 300) if " 18" in p.clean]
    single = {str(year) for year in range(60, 70)}
    assert made and not single & {y for p in made for y in (marked(p, "start"), *p.answers, *p.distractors)}
    assert all(len(p.answers) + len(p.distractors) == 90 for p in made)


@pytest.mark.parametrize("skipped", [0, 2, 3])
def test_docstring_asks_for_the_parameter_after_the_last_described_one(skipped):
    for p in prompts("docstring", 20, n_skipped=skipped):
        head = p.clean.split("(self, ")[1].split(")")[0].split(", ")
        described = [line.split()[1].rstrip(":") for line in p.clean.split("\n") if line.startswith(":param ")]
        asked = head[skipped + 2]
        assert described == head[skipped : skipped + 2] and list(p.answers) == [asked]
        assert set(p.distractors) == set(head) - {asked} and p.clean.endswith("\n:param")
        assert marked(p, "before_answer") == marked(p, "described") == described[1] and marked(p, "answer") == asked
        assert not {*p.answers, *p.distractors} & set(split(p.corrupted))


# ---------------------------------------------------------------------------------------------------------------------


def fillers_before(prompt) -> int:
    sentences = prompt.clean[: prompt.marks["needle"][0]].split(".")
    return sum(bool(s.strip()) and "word" not in split(s) for s in sentences)


def test_needle_depths_come_equally_often():
    assert Counter(map(fillers_before, prompts("needle", 27, n_filler=8))) == dict.fromkeys(range(9), 3)


@pytest.mark.parametrize(("depth", "expected"), [(0, 0), (0.25, 3), (0.5, 6), (1, 12)])
def test_needle_depth_is_the_share_of_filler_before_it(depth, expected):
    assert {fillers_before(p) for p in prompts("needle", 6, n_filler=12, depth=depth)} == {expected}


def test_needle_asks_for_one_of_several_secrets_and_swaps_two_names():
    for p in prompts("needle", 30, n_competing=3):
        asked = marked(p, "query")
        assert split(p.clean).count("word") == 5 and split(p.clean).count(asked) == 2
        assert asked == marked(p, "needle_name") and asked in marked(p, "question")
        assert marked(p, "needle_value") == p.answers[0] in marked(p, "needle") and marked(p, "distractor") == p.distractors[0]
        assert split(p.clean).count(p.answers[0]) == 1
        old, new = zip(*changed(p), strict=True)
        assert len(old) == 2 and set(old) == set(new) and asked in old


def test_facts_are_true_and_the_corrupted_country_has_another_answer():
    from interp.tasks.words_and_templates import COUNTRIES

    for p in prompts("facts", 80):
        ((old, new),) = changed(p)
        assert old == marked(p, "subject") and p.answers[0] in COUNTRIES[old] and p.distractors[0] in COUNTRIES[new]
        assert p.distractors[0] not in COUNTRIES[old]


def test_held_out_facts_are_84_and_the_others_420():
    held, seen, all_facts = (
        {p.clean for p in prompts("facts", n, held_out=h)} for n, h in ((84, True), (420, False), (504, None))
    )
    assert not held & seen and held | seen == all_facts


def test_a_plan_names_people_in_an_order_of_its_own_and_corruption_swaps_its_first_two():
    for p in prompts("plan_following", 30, n_people=5, n_steps=4):
        (first,), (second,) = p.answers, p.distractors
        assert (marked(p, "planned"), marked(p, "planned_next")) == (first, second)
        assert changed(p) == [(first, second), (second, first)]
        plan, response = marked(p, "plan"), marked(p, "response")
        assert response == f"{plan} Step first:" and p.clean.endswith(response) and plan.count(",") == 3
        told = [word for word in split(p.clean[: p.marks["plan"][0]]) if word[0].isupper() and word != "Question"]
        assert len(told) == len(set(told)) == 5 and {first, second} < set(told)
    assert {p.clean.index(p.answers[0]) < p.clean.index(p.distractors[0]) for p in prompts("plan_following", 20)} == {
        True,
        False,
    }


# ---------------------------------------------------------------------------------------------------------------------


def test_years_are_asked_for_in_the_way_the_tokenizer_cuts_them():
    from interp.tasks import make_task, write_prompts

    for prompt, example in zip(
        write_prompts("greater_than", task_model("piece"), 40), make_task("greater_than", task_model("piece"), 40), strict=True
    ):
        years = [word for word in split(prompt.clean.replace(".", " ")) if word.isdigit()]
        start, given = "".join(years[:2]), "".join(years[2:])
        assert len(start) == 4 and start[:3] == given and marked(prompt, "start") == start[3] in "12345678"
        assert prompt.answers == tuple(str(digit) for digit in range(int(start[3]) + 1, 10))
        assert {*prompt.answers, *prompt.distractors} == set("0123456789")
        assert prompt.corrupted == prompt.clean.replace(start, f"{given}0", 1) and len(example.clean) == len(example.corrupted)


def test_whole_years_that_are_one_token_are_asked_for_whole():
    from interp.tasks import write_prompts
    from tests.support.tokenizer_only_models import bare_model, whole_year_tokenizer

    for prompt in write_prompts("greater_than", bare_model(whole_year_tokenizer(), "whole"), 20):
        start = marked(prompt, "start")
        assert prompt.clean.endswith("to the year") and prompt.answers == tuple(
            str(y) for y in range(int(start) + 1, int(start[:2]) * 100 + 100)
        )
        assert (
            f"{start[:2]}01" in prompt.corrupted
            and prompt.distractors[0] == f"{start[:2]}00"
            and prompt.distractors[-1] == start
        )


def test_facts_of_other_countries_come_first_where_the_vocabulary_is_one_of_pieces():
    from interp.tasks import write_prompts

    for plain, few in zip(prompts("facts", 30, n_shots=0), prompts("facts", 30, n_shots=3), strict=True):
        assert few.clean.count(". ") == 3 and "." not in plain.clean
        *shots, question = few.clean.split(". ")
        country = marked(few, "subject")
        assert country in question and not any(country in shot for shot in shots) and few.corrupted.startswith(". ".join(shots))
    assert prompts("facts", 5) == prompts("facts", 5, n_shots=0)
    assert all(p.clean.count(". ") == 2 for p in write_prompts("facts", task_model("piece"), 5))


def test_two_solved_objects_trade_places_with_the_asked_one_in_the_corrupted_prompt():
    for p in prompts("colored_objects", 30, n_solved=2):
        (answer,), (distractor,), asked = p.answers, p.distractors, marked(p, "query")
        items, first, second, question = p.clean.split(". ")
        assert question == f"The {asked} is" and f"a {answer} {asked}" in items and second.endswith(f"is {distractor}")
        other = second.split()[1]
        assert (
            p.corrupted == f"{items}. {first}. The {asked} is {answer}. The {other} is" and f"a {distractor} {other}" in items
        )
    assert prompts("colored_objects", 5) == prompts("colored_objects", 5, n_solved=1)


def test_pronouns_of_women_and_men_come_equally_often_and_the_corrupted_name_is_of_the_other_gender():
    from interp.tasks.words_and_templates import NAMES, PRONOUN_NAMES

    assert {*PRONOUN_NAMES["she"], *PRONOUN_NAMES["he"]} <= {*NAMES} and not {*PRONOUN_NAMES["she"]} & {*PRONOUN_NAMES["he"]}
    made = prompts("gendered_pronoun", 48)
    assert Counter(p.answers for p in made) == {("she",): 24, ("he",): 24}
    for p in made:
        ((name, other),) = changed(p)
        assert name == marked(p, "name") in PRONOUN_NAMES[p.answers[0]] and other in PRONOUN_NAMES[p.distractors[0]]


def test_subject_and_attractor_differ_in_number_and_the_corrupted_subject_has_the_attractors():
    from interp.tasks.words_and_templates import PLURALS

    made = prompts("agreement", 30)
    for i, p in enumerate(made):
        subject, attractor = marked(p, "subject"), marked(p, "attractor")
        assert changed(p) == [(subject, PLURALS.get(subject) or next(one for one, many in PLURALS.items() if many == subject))]
        assert (subject in PLURALS, attractor in PLURALS) == ((True, False), (False, True))[i % 2]
        assert ("is" in p.answers, "are" in p.distractors) == (subject in PLURALS,) * 2
        verbs = [word for word in split(p.clean) if word in ("is", "are")]
        assert sorted(verbs) == ["are", "is"]


def test_the_opposites_of_a_prompt_are_all_of_different_pairs():
    from interp.tasks.words_and_templates import OPPOSITES

    pairs = {**OPPOSITES, **{b: a for a, b in OPPOSITES.items()}}
    for p in prompts("antonyms", 40, n_shots=4):
        *shots, asked = [part.removeprefix("The opposite of ").split(" is") for part in p.clean.split(". ")]
        ((word, other),) = changed(p)
        assert (word, pairs[word]) == (asked[0], p.answers[0]) and pairs[other] == p.distractors[0]
        used = [word, pairs[word], other, pairs[other], *(w for a, b in shots for w in (a, b.strip()))]
        assert len(shots) == 4 and len({*used}) == 12 and all(pairs[a] == b.strip() for a, b in shots)
