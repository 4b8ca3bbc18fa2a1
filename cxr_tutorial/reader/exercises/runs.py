"""Exercises of chapter 10: what a step sees, what is left to run, what a plan needs (floor 2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from cxr_tutorial.reader.exercises.kinds import Exercise, Extend, Implement, Misconception, Predict
from cxr_tutorial.reader.exercises.quiz import Question

_STEP = Predict(
    "What a step sees",
    96,
    (
        Misconception(8, "That is one batch of one process. A step averages over batches and over processes."),
        Misconception(24, "The three batches of one process are counted; four processes do the same at once."),
        Misconception(32, "Each process adds up three batches before it steps."),
        Misconception(15, "Sizes multiply: every process adds up every batch, and every batch has 8 pictures."),
    ),
    ("How many pictures has one process seen when it steps?", "8 · 3, and four processes do that.", "8 · 3 · 4."),
    "Multiply, and ask whether the learning rate was meant for a batch of that size.",
)


def _grids(generator: torch.Generator) -> Iterator[Mapping[str, Any]]:
    yield {"cells": ["a", "b"], "done": ["a"]}
    yield {"cells": ["a", "b"], "done": ["a", "z"]}
    yield {"cells": ["c", "a", "b"], "done": []}
    for _ in range(4):
        order = torch.randperm(9, generator=generator).tolist()
        cells = [f"jsrt-s{k}" for k in order]
        yield {"cells": cells, "done": [f"jsrt-s{k}" for k in sorted(order[:5])]}


def _left(cells: list[str], done: list[str]) -> list[str]:
    return [cell for cell in cells if cell not in set(done)]


_LEFT = Implement(
    "What is left",
    _left,
    _grids,
    (
        Misconception(
            lambda cells, done: sorted(set(cells) - set(done)),
            "A set forgets the order of the plan, and a second stage may then come before its first.",
        ),
        Misconception(
            lambda cells, done: cells[len(done) :],
            "You take for granted that the first ones are done. With several workers any of them may be, and a folder "
            "may hold other records, too.",
        ),
        Misconception(
            lambda cells, done: [cell for cell in cells if cell in set(done)],
            "Those are the ones that need not run again.",
        ),
    ),
    (
        "What marks a cell as done? That its record is there.",
        "Keep the order of `cells` and leave out what is in `done`.",
    ),
    "That is all that resuming a grid is: the records are the state, there is no other.",
)


def _mean_of_parts(gradients: Any, sizes: Any) -> Any:
    weights = torch.tensor(sizes, dtype=torch.float64)
    return (torch.as_tensor(gradients, dtype=torch.float64) * weights[:, None]).sum(0) / weights.sum()


def _parts(generator: torch.Generator) -> Iterator[Mapping[str, Any]]:
    yield {"gradients": [[1.0, 2.0], [3.0, 6.0]], "sizes": [1, 1]}
    yield {"gradients": [[1.0, 0.0], [4.0, 3.0]], "sizes": [1, 2]}
    for _ in range(4):
        drawn = torch.randn(3, 4, generator=generator).tolist()
        yield {"gradients": drawn, "sizes": torch.randint(1, 9, (3,), generator=generator).tolist()}


_PARTS = Implement(
    "Parts of a batch",
    _mean_of_parts,
    _parts,
    (
        Misconception(
            lambda gradients, sizes: torch.as_tensor(gradients, dtype=torch.float64).mean(0),
            "That is right for parts of one size. Here the last part may be smaller, and its pictures would count "
            "more.",
        ),
        Misconception(
            lambda gradients, sizes: torch.as_tensor(gradients, dtype=torch.float64).sum(0),
            "The sum grows with the number of parts, and the step with it.",
        ),
        Misconception(
            lambda gradients, sizes: (
                torch.as_tensor(gradients, dtype=torch.float64) * torch.tensor(sizes)[:, None]
            ).sum(0),
            "Each part has its weight, but nothing divides by the number of all pictures.",
        ),
    ),
    (
        "The whole batch's loss is a mean over pictures. Write it with the means of the parts.",
        "Each part's gradient counts as often as the part has pictures.",
        "The sum of size times gradient, divided by the sum of the sizes.",
    ),
    "Equal parts make the weights vanish: one reason why every process draws batches of one size.",
)

_BATCH_NORM = Predict(
    "Two halves, one batch",
    {"group": True, "batch": False},
    (
        Misconception(
            {"group": True, "batch": True},
            "Batch normalisation takes mean and deviation over the pictures of a part: in two halves a picture has "
            "other neighbours.",
        ),
        Misconception(
            {"group": False, "batch": False},
            "Group normalisation looks at one picture alone, and so it does not notice how the batch was cut.",
        ),
        Misconception(
            {"group": False, "batch": True},
            "The other way round: which of the two looks at other pictures?",
        ),
    ),
    ("Over which axes does each take its mean?", "Does a picture's output depend on its neighbours in the batch?"),
    "So with batch normalisation 'the same batch size' on more devices is another training.",
)


def _plan(answer: Any) -> str | None:
    if not isinstance(answer, Mapping) or not {"group", "cells"} <= answer.keys():
        return "A plan is a dictionary with `group`, its name, and `cells`, what is varied."
    if not isinstance(answer["group"], str) or not isinstance(answer["cells"], Mapping):
        return "The group is a word, and the cells are a dictionary of fields, as in a TOML file."
    cells = answer["cells"]
    if not isinstance(cells.get("seed"), list | tuple) or len(set(cells["seed"])) < 3:
        return "A plan wants at least three seeds: one run says what can happen, not what does."
    if not any(unit in cells for unit in ("steps", "epochs")):
        return "Give a budget in `steps` or `epochs`, which repeats exactly; seconds do not."
    if not any(isinstance(value, list | tuple) and len(value) > 1 for name, value in cells.items() if name != "seed"):
        return "Nothing but the seed is varied, so there is nothing to compare."
    return None


_OWN = Extend(
    "A plan of your own",
    _plan,
    (
        {"group": "mine"},
        {"group": "mine", "cells": {"net": ["unet", "ppaunet"], "seed": [1], "steps": 100}},
        {"group": "mine", "cells": {"net": ["unet", "ppaunet"], "seed": [1, 2, 3], "seconds": 60}},
        {"group": "mine", "cells": {"net": "unet", "seed": [1, 2, 3], "steps": 100}},
    ),
    (
        "What do you want to know, and which field of the configuration says so?",
        "The same as TOML is run by `cxr-tutorial grid run --plan mine.toml`.",
    ),
    "Count its cells and multiply by the time of one before you start it.",
)

EXERCISES: tuple[Exercise, ...] = (_STEP, _LEFT, _PARTS, _BATCH_NORM, _OWN)

QUIZ = (
    Question(
        "The machine was switched off in the middle of a grid. What do you do?",
        (
            (
                "Delete the folder and start over, so that nothing half-written is left.",
                "A record gets its name only when it is whole; what is half-written has a hidden name and is gone on "
                "with.",
            ),
            (
                "Give the same command again.",
                "Yes: what is done is read, what was begun goes on from its checkpoint, the rest is run.",
            ),
            (
                "Edit the plan so that it holds only what is missing.",
                "The command finds that out by itself, and a changed plan is another experiment.",
            ),
        ),
    ),
    Question(
        "Two machines give Dice that differ in the fifth digit, from one seed. Is one of them broken?",
        (
            (
                "Yes: the seed fixes everything.",
                "It fixes the random numbers. Sums of floating-point numbers depend on their order, and that the "
                "hardware chooses.",
            ),
            (
                "No: sums are made in another order there, and training makes small differences grow.",
                "Yes. That is why a record names its device, and why the comparison has a tolerance elsewhere.",
            ),
            (
                "No: seeds mean nothing on different machines.",
                "They still fix the first weights, the pictures and the changes to them: nearly all of the chance.",
            ),
        ),
    ),
    Question(
        "Why are budgets of an experiment given in steps and not in seconds?",
        (
            (
                "Because steps can be repeated exactly.",
                "Yes: a second holds more steps on a faster or quieter machine.",
            ),
            ("Because seconds are not precise enough.", "They are precise; they are just not the same work twice."),
            (
                "Because the paper does so.",
                "What the paper does is not known; and it would be no reason.",
            ),
        ),
    ),
)
