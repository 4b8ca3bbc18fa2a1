"""The grid: many runs by one command, resumable after a kill at any moment (floor 3)."""

from cxr_tutorial.grid.cells import Grid, State, run_cell, state_of
from cxr_tutorial.grid.choose import find_cell, plan_cells, read_plan
from cxr_tutorial.grid.plans import PLANS, Cell

__all__ = ["PLANS", "Cell", "Grid", "State", "find_cell", "plan_cells", "read_plan", "run_cell", "state_of"]
