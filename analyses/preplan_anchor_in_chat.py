"""Are preplan and anchor tokens coupled in a chat model's own responses, and does that depend on sinks? (arXiv 2510.13554)

    python analyses/preplan_anchor_in_chat.py --model smollm2

The model answers sixteen questions, sampled at temperature 0.7. The statistics of the paper are printed against random groups of heads
and circular shifts: once with heads grouped by their attention distance, as in the paper, and once by their distance without the first
token, since heads that rest on it have the longest distance. In SmolLM2-135M no statistic is above chance both times
(docs/validation/smollm2.md). It takes about six minutes of processor time and 1.2 GiB.
"""

from __future__ import annotations

import argparse

import interp

QUESTIONS = [
    "A shop sells pens at 3 dollars each. Tom buys 4 pens and pays with 20 dollars. How much change does he get? Explain step by step.",
    "How do I make a cup of tea? Give me numbered steps.",
    "Anna has 12 apples. She gives 5 to Ben and buys 8 more. How many does she have now? Explain step by step.",
    "Write a short story about a fox who is afraid of the dark.",
    "What are three differences between cats and dogs?",
    "A train leaves at 9:15 and arrives at 11:40. How long is the journey? Explain step by step.",
    "Plan a birthday party for ten children, and then say what to do first.",
    "Explain why the sky is blue to a child.",
    "Give me a recipe for pancakes with a list of ingredients first.",
    "A box has 3 red, 5 blue and 2 green balls. What share of them is blue? Explain step by step.",
    "Write a letter to a neighbor whose dog barks at night.",
    "What should I pack for a week in the mountains? Say why for each thing.",
    "Describe how a bill becomes a law, in five steps.",
    "A garden is 6 meters long and 4 meters wide. What is its area, and its perimeter? Explain step by step.",
    "Compare a bicycle with a car for a trip of five kilometers.",
    "Tell me about the life of a honey bee, from egg to death.",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--n-questions", type=int, default=len(QUESTIONS))
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = interp.load_model(options.model)
    prompts = [model.to_chat_tokens(question) for question in QUESTIONS[: options.n_questions]]
    for exclude in ("none", "first"):
        how = {"max_new_tokens": options.max_new_tokens, "temperature": 0.7, "seed": options.seed, "exclude": exclude}
        found = interp.detect(model, "preplan_anchor", prompts=prompts, **how)
        statistics = found.tables["statistics"].query("heads == 'groups' and null != 'random positions'")
        columns = ["statistic", "null", "observed", "expected", "null_low", "null_high", "p_value", "n"]
        print(f"\nexclude={exclude}: {found.details['n_response_tokens']:,} tokens of {len(prompts)} responses")
        print(statistics[columns].round(3).to_string(index=False))


if __name__ == "__main__":
    main()
