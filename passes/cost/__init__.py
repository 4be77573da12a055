"""What nodes cost on a target.

model.py     CostModel: the price of a node, from its shapes
profiles.py  the figures of each target
"""

from __future__ import annotations

from flatfold.passes.cost.model import Cost, CostModel
from flatfold.passes.cost.profiles import PROFILES, Profile

__all__ = ["PROFILES", "Cost", "CostModel", "Profile"]
