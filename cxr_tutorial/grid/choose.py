"""Which cells a command means: of the groups, and of a user's own plan in a file (floor 3)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, replace
from functools import cache
from itertools import chain, product
from pathlib import Path
from typing import Any

import torch

from cxr_tutorial.config import Config
from cxr_tutorial.data.batches import AUGMENTATIONS
from cxr_tutorial.errors import InputError
from cxr_tutorial.grid.plans import PLANS, Cell
from cxr_tutorial.nets import build_segmentor
from cxr_tutorial.train import Recipe
from cxr_tutorial.train.recipe import Budget


def plan_cells(groups: Iterable[str], file: str | Path | None = None, only: str = "") -> list[Cell]:
    """The cells of these groups and of a user's own plan, each once, those of a first stage before their second.

    Parameters
    ----------
    groups : names in `PLANS`.
    file : a plan of one's own, see `read_plan`.
    only : keep the cells in whose name this regular expression is found, and the first stages that they need.

    Raises
    ------
    InputError : an unknown group, no group and no file, an expression that cannot be read or finds nothing.

    >>> [cell.name for cell in plan_cells(["tiny"], only="48")]
    ['tiny/unet-s1', 'tiny/unet-48-s1']
    """
    groups = list(groups)
    unknown = [name for name in groups if name not in PLANS]
    if unknown or not (groups or file):
        raise InputError(f"no group {', '.join(unknown) or 'named'}: choose some of {', '.join(PLANS)}")
    own = read_plan(file) if file else []
    cells = {cell.name: cell for cell in chain(*(_cells_of(PLANS[name]) for name in groups), own)}
    try:
        found = {name for name in cells if re.search(only, name)}
    except re.error as error:
        raise InputError(f"{only!r} is not a regular expression: {error}") from error
    if not found:
        raise InputError(f"no cell's name holds {only!r}; `cxr-tutorial grid plan` lists them")
    found |= {after for name in found if (after := cells[name].after)}
    return [cell for name, cell in cells.items() if name in found]


@cache
def _cells_of(plan: Callable[[], Iterator[Cell]]) -> tuple[Cell, ...]:
    return tuple(plan())


def find_cell(name: str, file: str | Path | None = None) -> Cell:
    """The cell of this name.

    >>> find_cell("losses/jsrt-unet-kltv-s2").config.recipe.loss
    'kltv'
    """
    group = name.partition("/")[0]
    cells = plan_cells([group] if group in PLANS else [], file)
    for cell in cells:
        if cell.name == name:
            return cell
    raise InputError(f"no cell {name!r}; `cxr-tutorial grid plan` lists them")


def read_plan(file: str | Path) -> list[Cell]:
    """A plan of one's own: every combination of the values that a TOML file lists.

    ::

        group = "mine"
        [cells]
        data = ["jsrt", "montgomery"]
        net = "unet"
        steps = 450
        seed = [1, 2, 3]
        recipe.loss = ["xe", "kltv"]

    Keys of `[cells]` are the fields of `config.Config` but `game`, and behind `recipe.` those of `train.Recipe`,
    where `augmentation` is a name. A list holds the values to try; a field that is a list itself, such as `widths`, is
    written as a list of lists. `seed` is the recipe's too. What has several values stands in the names.

    Raises
    ------
    InputError : the file cannot be read, an unknown field, method, net, loss, split or augmentation, a value of the
        wrong kind, no or several budgets, several devices, two cells of one name.
    """
    file = Path(file)
    try:
        content = tomllib.loads(file.read_text())
        group, values = str(content["group"]), dict(content["cells"])
        of_recipe = {f"recipe.{key}": value for key, value in values.pop("recipe", {}).items()}
    except (OSError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{file} is not a plan ({error!r}): expected `group = ...` and a table [cells]") from error
    if not re.fullmatch(r"[\w.-]+", group) or group in PLANS:
        raise InputError(f"the group of {file} is {group!r}: choose a new name of letters, digits and dashes")
    lists = {key: value if isinstance(value, list) else [value] for key, value in (values | of_recipe).items()}
    known = {one.name for one in fields(Config)} - {"game"} | {f"recipe.{one.name}" for one in fields(Recipe)}
    if unknown := set(lists) - known:
        raise InputError(f"{file}: no field {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    for key, example in (("widths", "[[4, 8, 16]]"), ("test_data", '[["jsrt", "montgomery"]]')):
        if not all(isinstance(one, list) or (key == "widths" and isinstance(one, str)) for one in lists.get(key, [])):
            raise InputError(f"{file}: {key} is a list itself: write a list of those to try, such as {example}")
    if empty := [key for key, value in lists.items() if not value]:
        raise InputError(f"{file}: {', '.join(empty)} has no value: list those to try, or leave it out")
    varied = [key for key, value in lists.items() if len(value) > 1]
    cells: dict[str, Cell] = {}
    for combination in product(*lists.values()):
        chosen = {key: _frozen(key, value) for key, value in zip(lists, combination, strict=True)}
        name = f"{group}/{'-'.join(_word(key, chosen[key]) for key in varied) or 'run'}"
        if name in cells:
            raise InputError(f"{file}: two cells would be called {name}: give values that differ in letters or digits")
        try:
            cells[name] = Cell(name, _configured(chosen))
        except (TypeError, AttributeError) as error:
            raise InputError(f"{file}: a field has a value of the wrong kind, in {chosen}: {error}") from error
    return list(cells.values())


def _configured(chosen: dict[str, Any]) -> Config:
    """The configuration of these values; whatever can be refused before it runs is refused."""
    recipe = Recipe(**{key.partition(".")[2]: value for key, value in chosen.items() if "." in key})
    recipe = replace(recipe, seed=chosen.get("recipe.seed", chosen.get("seed", 0)))
    config = Config(recipe=recipe, **{key: value for key, value in chosen.items() if "." not in key})
    Budget(config.steps, config.epochs, config.seconds)
    with torch.device("meta"):
        build_segmentor(config.net, config.widths)
    return config


def _frozen(key: str, value: Any) -> Any:
    if key == "recipe.augmentation":
        if not isinstance(value, str) or value not in AUGMENTATIONS:
            raise InputError(f"unknown augmentation {value!r}: choose one of {', '.join(AUGMENTATIONS)}")
        return AUGMENTATIONS[value]
    return tuple(value) if isinstance(value, list) else value


def _word(key: str, value: Any) -> str:
    text = re.sub(r"[^\w.+]+", "_", str(value)).strip("_")
    return f"s{text}" if key == "seed" else text if isinstance(value, str) else f"{key.rpartition('.')[2]}{text}"
