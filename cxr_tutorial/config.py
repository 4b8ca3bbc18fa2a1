"""What is run: a configuration, its checks, and how records bring it back (floor 3)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from typing import Any

from cxr_tutorial.data.batches import Augmentation
from cxr_tutorial.errors import InputError
from cxr_tutorial.train import GAMES, Game, Recipe

METHODS = (
    "supervised",
    "mean-teacher",
    "cross-pseudo",
    "appaunet",
    "appaunet-paper",
    "multi-task",
    "classifier",
    "masked-classifier",
    "lungs-classifier",
)

ALONE = ("classifier", "masked-classifier", "lungs-classifier")  # D without an S that learns
#: option -> the methods that would take no notice of it
UNUSED = {
    "views": ("supervised", "mean-teacher", "cross-pseudo"),
    "synthetic": ("supervised", "mean-teacher", "cross-pseudo", *ALONE),
    "validate_every": ("mean-teacher", "cross-pseudo", *ALONE),
    "test_data": ("classifier", "lungs-classifier"),
    "masks": ALONE,
    "start": ("classifier",),
    "game": ("supervised",),
    "lungs_size": tuple(name for name in METHODS if name != "lungs-classifier"),
    "net": ("classifier",),
    "widths": ("classifier",),
} | dict.fromkeys(("learning_rate", "loss", "loss_options", "side_weight"), ALONE)  # of the recipe: those of S
#: method -> the options of the game that it uses, where it does not use all
USED = {
    "mean-teacher": ("consistency", "confidence", "unlabelled_batch_size", "warmup", "ramp"),
    "cross-pseudo": ("consistency", "unlabelled_batch_size", "warmup", "ramp"),
} | dict.fromkeys(ALONE, ("learning_rate", "weight_decay", "betas", "masks", "discriminator"))
#: options that are whole numbers, and the least of each
WHOLE = {
    "size": 16,
    "seed": 0,
    "masks": 0,
    "labels": 0,
    "validate_every": 0,
    "lungs_size": 16,
    "views": 0,
    "synthetic": 0,
}


@dataclass(frozen=True)
class Config:
    """What is run. Exactly one of steps, epochs and seconds is given.

    Attributes
    ----------
    data : a name in `experiment.DATA`, several joined by `+`, or a folder of pictures with masks (see `load_folder`).
    root : where the data lies; default `$CXR_DATA/<data>`.
    split : `"public"` (published lists), `"patient"` (ours: by patient, drawn by `seed`), or one of ten folds:
        `"fold-0"` ... (published, for tuberculosis) or `"patient-fold-0"` ... (ours, the same for every seed).
    size : pixels per side in training.
    method : a name in `METHODS`. net, widths, recipe : how to train what.
    game : how S and D play, or how a semi-supervised baseline weighs its term; default that of the method.
    start : a file of weights to go on from, such as those of a run at a smaller size; `"synthetic"` for those that ship
        with the package, of a net that saw synthetic X-rays only; None for new ones.
    masks, labels : how many of each the training sees; None for all.
    seed : of the weights, the label budget and the patient split; that of the recipe is of the draws.
    test_data : more sets, all of whose masks are compared.
    validate_every : steps between looks at the validation part (0: none); writes `curve.csv`.
    lungs_size : pixels per side at which the net of `start` finds the lungs that lungs-classifier crops to.
    views : how many times each picture is shown to D in the tests, changed anew as in training; 0: once, as it is.
        For methods that train a D.
    synthetic : how many synthetic X-rays with their exact masks stand at the end of each batch, as more real pairs;
        their classes, which are of no real disease, are not shown. For methods that train S and D together.
    """

    data: str = "synthetic"
    root: str | None = None
    split: str = "patient"
    size: int = 128
    method: str = "supervised"
    net: str = "ppaunet"
    widths: str | tuple[int, ...] = "small"
    recipe: Recipe = field(default_factory=Recipe)
    game: Game | None = None
    start: str | None = None
    masks: int | None = None
    labels: int | None = None
    steps: int | None = None
    epochs: float | None = None
    seconds: float | None = None
    seed: int = 0
    test_data: tuple[str, ...] = ()
    validate_every: int = 0
    lungs_size: int = 128
    views: int = 0
    synthetic: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}: choose one of {', '.join(METHODS)}")
        if self.method in ("masked-classifier", "lungs-classifier") and self.start is None:
            raise InputError(f"{self.method} does not train the net that draws the masks: name its weights by start")
        for name, least in WHOLE.items():
            value = getattr(self, name)
            left_out = value is None and name in ("masks", "labels")
            if not left_out and not (type(value) is int and value >= least):
                raise InputError(f"{name} must be a whole number >= {least}, got {value!r}")
        if self.seed >= 2**63:
            raise InputError(f"seed must be below 2**63, got {self.seed}")
        texts = (self.data, self.split, self.net, self.root or "", self.start or "", *self.test_data)
        if not all(isinstance(text, str) for text in texts):
            raise InputError(f"data, split, net, root, start and what test_data holds are texts, got {texts}")
        chosen, usual = vars(self.recipe) | vars(self), _usual()
        for name, methods in UNUSED.items():
            if self.method in methods and chosen[name] != usual[name]:
                raise InputError(f"{self.method} makes no use of {name}: leave it out, got {chosen[name]}")
        if self.game and self.method in USED:
            of_game = GAMES.get(self.method, Game())
            for name in (one.name for one in fields(Game) if one.name not in USED[self.method]):
                if (value := getattr(self.game, name)) != getattr(of_game, name):
                    raise InputError(f"{self.method} makes no use of the game's {name}: leave it out, got {value}")
        if not re.fullmatch(r"public|patient|(patient-)?fold-\d", self.split):
            raise InputError(f"unknown split {self.split!r}: choose public, patient, fold-0 ... or patient-fold-0 ...")

    @property
    def on_lungs(self) -> bool:
        """Whether each picture is cut to the lungs first, with the masks that a fixed S drew for its own."""
        return self.method == "lungs-classifier"


@cache
def _usual() -> dict[str, Any]:
    """The default of every option of a configuration and of its recipe."""
    return vars(Recipe()) | {one.name: one.default for one in fields(Config)}


def read_config(content: Mapping[str, Any]) -> Config:
    """The configuration that a record holds; fields that are younger than the record get their default.

    >>> read_config({"data": "jsrt", "steps": 3, "recipe": {"loss": "xe", "side_weight": [1, 0.5]}}).recipe.side_weight
    (1, 0.5)

    Raises
    ------
    InputError : a field that no run of `run` has: the record was made by something else.
    """
    made = _tuples(content)
    try:
        if made.get("game"):
            made["game"] = Game(**_tuples(made["game"]))
        recipe = _tuples(made.get("recipe", {}))
        if "augmentation" in recipe:
            recipe["augmentation"] = Augmentation(**recipe["augmentation"])
        return Config(**(made | {"recipe": Recipe(**recipe)}))
    except TypeError as error:
        raise InputError(f"not made by `experiment.run`, but by a script of its own ({error})") from error


def differing(one: Config, other: Config) -> list[str]:
    """The fields in which two configurations differ.

    >>> differing(Config(steps=3), Config(steps=4))
    ['steps']
    """

    def canonical(value: Any) -> str:
        return json.dumps(value, sort_keys=True)

    mine, theirs = asdict(one), asdict(other)
    return [name for name in mine if canonical(mine[name]) != canonical(theirs[name])]


def _tuples(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


def game_of(config: Config) -> Game:
    """The run's game: its own, or that of its method."""
    return config.game or GAMES.get(config.method, Game())
