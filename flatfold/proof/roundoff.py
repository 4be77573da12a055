"""What one rounding is, by the type of a graph, and how many are allowed."""

from __future__ import annotations

ROUNDOFF = {"DOUBLE": 2.0**-53, "FLOAT": 2.0**-24, "FLOAT16": 2.0**-11, "BFLOAT16": 2.0**-8}
SPACING = {"FLOAT16": 2.0**-24, "FLOAT": 2.0**-149, "BFLOAT16": 2.0**-133}  # below normal
MARGIN = 1.01
