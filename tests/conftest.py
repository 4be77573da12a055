"""Hypothesis draws the same examples each time in `make test`; FLATFOLD_RANDOM=1 draws new ones."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile("random" if os.environ.get("FLATFOLD_RANDOM") else "fixed")
