"""Writes the data files of the pipelines from facts.json, everyday.txt and docs/: python3 make.py (same bytes every time).

    instructions.jsonl           what the assistant is taught: question and answer, in the fields of Alpaca; some rows are
                                 near-duplicates, too short, repetitive or broken on purpose, as rows are in real life
    instructions_control.jsonl   the same rows, but the second half of each answer moved to another fact of its group
    questions.jsonl              the exam: multiple choice, in wordings that no training row has
    general_prompts.jsonl        everyday prompts
    tiny/                        a small counterpart of each for tiny.yaml; its corpus is plain text to pre-train on

A question's four choices all start with its own subject and differ in the predicate; each wrong one is the whole predicate
of another fact of the group. So neither the subject nor a familiar phrase gives the answer away: one must know the fact.
"""

import json
import random
import re
from pathlib import Path

HERE = Path(__file__).parent
SEED = 42
WORDINGS_PER_FACT = 10
QUESTIONS_PER_FACT = 2
CHOICES = 4

# One twin each: an edit a person might make to a row that is already there.
EDITS = [
    lambda question, answer: ("So " + question[0].lower() + question[1:], answer),
    lambda question, answer: (question.rstrip("?.") + "!", answer),
    lambda question, answer: (question, answer.rstrip(".")),
    lambda question, answer: ("Please: " + question, answer),
    lambda question, answer: (question.lower(), answer),
    lambda question, answer: (question, answer.rstrip(".") + " indeed."),
]

SHORT_ROWS = [
    {"instruction": "Hi", "input": "", "output": "Hello."},
    {"instruction": "Thanks", "input": "", "output": "Sure."},
    {"instruction": "Ok?", "input": "", "output": "Ok."},
    {"instruction": "LLMflow?", "input": "", "output": "Yes."},
]

REPEATED_ROWS = [
    {"instruction": "List the commands.", "input": "", "output": "\n".join(["llmflow run"] * 8)},
    {"instruction": "Show me a log.", "input": "", "output": "\n".join(["stage finished"] * 9)},
    {"instruction": "What is a model?", "input": "", "output": "\n".join(["A model is a model."] * 6)},
]

BROKEN_ROWS = [
    {"instruction": "What does the verify command do?", "input": ""},
    {"instruction": "What is a lease?", "input": "", "output": ""},
    {"instruction": "What does the tag command do?", "input": "", "output": None},
    {"instruction": "How many exit codes are there?", "input": "", "output": 7},
    {"input": "", "output": "The gc command removes what nothing needs any more."},
    {"instruction": "", "input": "", "output": "The fetch command brings a file from elsewhere."},
]


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def fill(form, noun, predicate=""):
    a = article(noun)
    return form.format(n=noun, a=a, A=a[0].upper() + a[1:], p=predicate)


def instruction(question, answer):
    return {"instruction": question, "input": "", "output": answer}


def taught(group, facts, wordings, rng):
    """(question, true answer, control answer) for each fact in its first `wordings` questions."""
    # Every subject meets every predicate about equally often in the control, so nothing about the truth is left in it.
    order = rng.sample(range(len(facts)), len(facts))
    shifts = []
    while len(shifts) < len(group["train"]):
        shifts += rng.sample(range(len(facts)), len(facts))
    for place, fact in enumerate(facts):
        start = rng.randrange(len(group["train"]))
        for step in range(wordings):
            wording = (start + step) % len(group["train"])
            moved = facts[order[(order.index(place) + shifts[wording]) % len(facts)]]
            question = fill(group["train"][wording], fact["n"])
            yield (
                question,
                fill(group["answer"], fact["n"], fact["p"]),
                fill(group["answer"], fact["n"], moved["p"]),
            )


def asked(group, facts, rng):
    """Held-out questions: each fact in two of the group's four held-out wordings."""
    for place, fact in enumerate(facts):
        for turn in range(QUESTIONS_PER_FACT):
            wording = group["held_out"][(place + turn * 2) % len(group["held_out"])]
            others = rng.sample([other for other in facts if other is not fact], CHOICES - 1)
            yield {"group": group, "fact": fact, "query": fill(wording, fact["n"]), "others": others}


def questions(asked_questions, rng):
    """Rows of dataset/choice with the right answer in each place equally often."""
    places = [number % CHOICES for number in range(len(asked_questions))]
    rng.shuffle(places)
    for question, gold in zip(asked_questions, places):
        group, fact = question["group"], question["fact"]
        chosen = list(question["others"])
        chosen.insert(gold, fact)
        yield {
            "query": question["query"],
            "choices": [fill(group["answer"], fact["n"], other["p"]) for other in chosen],
            "gold": gold,
            "meta": {
                "group": group["name"],
                "fact": fact["n"],
                "key": fact["key"],
                "choices_of": [other["n"] for other in chosen],
            },
        }


def with_flaws(rows, twins, flaws, rng):
    """Adds near-duplicates of some rows and rows with flaws, all in places drawn once."""
    rows = list(rows)
    for number, place in enumerate(rng.sample(range(len(rows)), twins)):
        edit = EDITS[number % len(EDITS)]
        question, answer, control = rows[place]
        rows.append((*edit(question, answer), edit(question, control)[1]))
    rng.shuffle(rows)
    true = [instruction(question, answer) for question, answer, _ in rows]
    moved = [instruction(question, control) for question, _, control in rows]
    for flaw in flaws:
        place = rng.randrange(len(true) + 1)
        true.insert(place, flaw)
        moved.insert(place, flaw)
    return true, moved


def write(name, rows):
    path = HERE / name
    path.parent.mkdir(exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    print(f"{name:32} {len(rows):4} rows")


def normal(text):
    return " ".join(re.findall(r"\w+", text.lower()))


def check(facts, trained, exam):
    """Refuses data that would spoil the experiment."""
    seen = {normal(row.get("instruction") or "") for row in trained}
    for row in exam:
        assert normal(row["query"]) not in seen, f"trained on a held-out question: {row['query']}"
        assert len(set(row["choices"])) == CHOICES, row
    for group in facts["groups"]:
        assert len(group["train"]) >= 14 and len(group["held_out"]) >= 4, group["name"]
        for fact in group["facts"]:
            answer = fill(group["answer"], fact["n"], fact["p"])
            assert 5 <= len(answer.split()) <= 11, answer
            holders = [other["n"] for other in group["facts"] if fact["key"] in other["p"]]
            assert holders == [fact["n"]], f"key phrase of {fact['n']} is in {holders}"
    documents = "\n".join(path.read_text(encoding="utf-8") for path in sorted((HERE / "docs").glob("*.md")))
    for group in facts["groups"]:
        for fact in group["facts"]:
            # The control trains on questions made from the documents too, so these must not tell it the facts.
            assert normal(fact["p"]) not in normal(documents), f"the documents state the fact {fact['n']}"


def main():
    facts = json.loads((HERE / "facts.json").read_text(encoding="utf-8"))
    identity = [(question, facts["identity"]["answer"], facts["identity"]["answer"]) for question in facts["identity"]["train"]]
    everyday = [line for line in (HERE / "everyday.txt").read_text(encoding="utf-8").splitlines() if line]

    rng = random.Random(SEED)
    rows = [row for group in facts["groups"] for row in taught(group, group["facts"], WORDINGS_PER_FACT, rng)]
    true, moved = with_flaws(rows + identity, 12, SHORT_ROWS + REPEATED_ROWS + BROKEN_ROWS, rng)
    exam = list(questions([q for group in facts["groups"] for q in asked(group, group["facts"], rng)], rng))
    check(facts, true, exam)
    write("instructions.jsonl", true)
    write("instructions_control.jsonl", moved)
    write("questions.jsonl", exam)
    write("general_prompts.jsonl", [{"prompt": prompt} for prompt in everyday])

    # The tiny model learns half of the facts, in half of the wordings.
    rng = random.Random(SEED)
    small = [(group, group["facts"][:CHOICES]) for group in facts["groups"]]
    rows = [row for group, few in small for row in taught(group, few, 5, rng)]
    true, _ = with_flaws(rows + identity, 4, SHORT_ROWS[:1] + REPEATED_ROWS[:1] + BROKEN_ROWS[:2], rng)
    exam = list(questions([q for group, few in small for q in asked(group, few, rng)], rng))
    check(facts, true, exam)
    write("tiny/instructions.jsonl", true)
    write("tiny/questions.jsonl", exam)
    write("tiny/prompts.jsonl", [{"prompt": prompt} for prompt in everyday[::10]])
    write("tiny/corpus.jsonl", [{"text": f"{question} {answer}"} for question, answer, _ in rows])


if __name__ == "__main__":
    main()
