"""Plans: the cells that the book's tables are made of, and a reader's own."""

from dataclasses import replace
from pathlib import Path

import pytest

from cxr_tutorial.config import read_config
from cxr_tutorial.errors import InputError
from cxr_tutorial.grid import PLANS, Grid, find_cell, plan_cells, read_plan, state_of
from cxr_tutorial.grid.cells import differences
from cxr_tutorial.grid.plans import EIGHT_NETS
from cxr_tutorial.losses import LOSSES
from cxr_tutorial.results import load_records
from cxr_tutorial.shipped import shipped


def test_names_are_unique_and_every_first_stage_comes_before_its_second():
    seen: set[str] = set()
    for cell in plan_cells(PLANS):
        assert cell.name not in seen
        assert cell.after is None or cell.after in seen
        assert find_cell(cell.name) == cell or cell.name.startswith("full-128")
        seen.add(cell.name)


def test_every_budget_is_in_steps_and_the_seed_is_the_recipes_too():
    for cell in plan_cells(PLANS):
        assert cell.config.steps
        assert cell.config.seed == cell.config.recipe.seed


def test_the_networks_meet_every_loss_in_three_seeds_with_equal_steps():
    cells = plan_cells(["losses"])
    met = {(c.config.data, c.config.net, c.config.recipe.loss, c.config.seed) for c in cells}
    assert len(met) == len(cells) == 2 * 8 * 4 * 3
    assert {c.config.net for c in cells} == set(EIGHT_NETS)
    assert len({c.config.steps for c in cells}) == 1


def test_kl_tversky_is_read_in_three_ways_beside_its_rivals_and_watched():
    cells = plan_cells(["kltv"])
    assert {c.config.recipe.loss for c in cells} == set(LOSSES)
    ours = [c.config.recipe.loss_options for c in cells if c.config.recipe.loss == "kltv"]
    assert {(one["mode"], one["fp_weight"]) for one in ours} == {
        (mode, weight) for mode in ("foreground_abs", "bernoulli", "spatial") for weight in (0.3, 0.5)
    }
    assert {c.config.validate_every for c in cells} == {25}


def test_each_hospital_is_tested_on_the_two_others():
    for cell in plan_cells(["cross-hospital"]):
        assert {cell.config.data, *cell.config.test_data} == {"jsrt", "montgomery", "shenzhen"}


def test_every_shipped_record_of_a_group_is_of_its_cell():
    cells = {cell.name: cell for cell in plan_cells(PLANS)}
    records = {f"{one.group}/{one.id}": one for one in load_records() if one.group in PLANS}
    assert len(records) > 150
    assert {name: differences(cells[name], record) for name, record in records.items()} == {
        name: [] for name in records
    }


def test_a_record_of_another_configuration_is_not_taken_for_the_cells(tmp_path):
    cell = find_cell("ablation/jsrt-unet-s1")
    grid = Grid(shipped("results"), tmp_path)
    assert state_of(cell, grid).kind == "done"
    other = replace(cell, config=replace(cell.config, masks=10))
    assert state_of(other, grid).kind == "broken"
    assert "another configuration: masks" in state_of(other, grid).reason


def test_older_records_are_read_with_defaults_and_strange_ones_refused():
    assert read_config({"data": "jsrt", "steps": 5}).game is None
    assert read_config(find_record_config("tb", "montgomery-classifier-l100-f0")).game.learning_rate == 5e-3
    with pytest.raises(InputError, match="runner"):
        read_config({"data": "jsrt", "runner": "ours"})


def find_record_config(group: str, name: str) -> dict:
    return next(one for one in load_records(shipped("results", group)) if one.id == name).config


MINE = """
group = "mine"
[cells]
data = "synthetic"
net = ["unet", "ppaunet"]
widths = [[4, 8, 16]]
steps = 2
seed = [1, 2]
recipe.loss = ["xe", "kltv"]
recipe.augmentation = "strong"
"""


def test_a_plan_of_ones_own_is_the_product_of_its_values(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(MINE)
    cells = read_plan(file)
    assert len({cell.name for cell in cells}) == 8
    assert cells[0].name == "mine/unet-s1-xe"
    assert cells[0].config.widths == (4, 8, 16)
    assert {cell.config.recipe.seed for cell in cells} == {1, 2}
    assert find_cell("mine/ppaunet-s2-kltv", file).config.recipe.loss == "kltv"
    assert len(plan_cells(["tiny"], file)) == 8 + len(plan_cells(["tiny"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 2", ""), "exactly one of steps"),
        (("net =", "nets ="), "no field nets"),
        (('"mine"', '"losses"'), "choose a new name"),
        (("[cells]", "[cell]"), "expected"),
        (('"strong"', '"wild"'), "unknown augmentation 'wild'"),
        (('"strong"', '[["usual"]]'), "unknown augmentation .'usual'"),
        (('data = "synthetic"', 'split = "thirds"'), "unknown split 'thirds'"),
        (("recipe.loss", "recipe.lost"), "no field recipe.lost"),
        (("[[4, 8, 16]]", "[4, 8, 16]"), "widths is a list itself"),
        (("[[4, 8, 16]]", "[[4]]"), "widths must be 2 to 5"),
        (("steps = 2", 'steps = "2"'), "steps: a whole one"),
        (("steps = 2", "steps = 2\nsplit = 3"), "are texts"),
        (("steps = 2", "steps = 2\nroot = [[1]]"), "are texts"),
        (("steps = 2", 'steps = 2\nsize = "big"'), "size must be a whole number"),
        (("seed = [1, 2]", "seed = []"), "seed has no value"),
        (("seed = [1, 2]", "seed = 1.5"), "seed must be a whole number"),
        (("steps = 2", 'steps = 2\nrecipe.compile = "no"'), "compile is True or False"),
        (("steps = 2", 'steps = 2\ntest_data = ["jsrt", "montgomery"]'), "test_data is a list itself"),
        (("steps = 2", "steps = 2\nrecipe.devices = 2"), "a grid runs each cell on one"),
        (("steps = 2", 'steps = 2\nrecipe.loss_options = "x"'), "loss_options is a table"),
        (('["xe", "kltv"]', '["xe", "hinge"]'), "no loss 'hinge'"),
        (('"ppaunet"]', '"resnet"]'), "unknown net 'resnet'"),
        (("steps = 2", 'steps = 2\nstart = ["a/b", "a_b"]'), "two cells would be called"),
    ],
)
def test_a_mistake_in_a_plan_is_named(tmp_path, change, message):
    file = tmp_path / "mine.toml"
    file.write_text(MINE.replace(*change))
    with pytest.raises(InputError, match=message):
        read_plan(file)
    with pytest.raises(InputError, match="absent"):
        read_plan(Path("absent.toml"))


@pytest.mark.parametrize(
    ("groups", "only", "message"),
    [
        (["loses"], "", "no group loses"),
        ([], "", "no group named"),
        (["tiny"], "(", "not a regular"),
        (["tiny"], "jsrt", "no cell's name"),
    ],
)
def test_a_mistake_in_a_choice_is_named(groups, only, message):
    with pytest.raises(InputError, match=message):
        plan_cells(groups, only=only)
    with pytest.raises(InputError, match="no cell 'tiny/other'"):
        find_cell("tiny/other")
