"""The names that each package offers, and the list of modules in its docstring."""

from __future__ import annotations

import importlib
import pkgutil
import re
from types import ModuleType

import pytest

# What other packages and users may import from each package, and nothing else.
PUBLIC = {
    "flatfold": (
        "FlatfoldError Optimized __version__ compare compile create_model list_models load "
        "optimize reduce verify"
    ),
    "flatfold.frontend": "Source canonicalize from_proto read_model resolve",
    "flatfold.models": "ZOO ModelSpec create_model list_models",
}
LISTS = (*PUBLIC, "flatfold.cli")

# A line of a docstring about one module or package: "    name.py    what is in it".
LISTED = re.compile(r" *(\w+)(\.py|/)  +\S.*")


def modules_of(package: ModuleType) -> list[str]:
    """The files and folders of a package as its docstring should list them, in any order."""
    found = pkgutil.iter_modules(package.__path__)
    return sorted(
        module.name + ("/" if module.ispkg else ".py")
        for module in found
        if not module.name.startswith("__")
    )


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_offers_the_settled_names(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package].split())
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", LISTS)
def test_a_docstring_lists_every_module_of_its_package(package: str) -> None:
    module = importlib.import_module(package)
    lines = (LISTED.fullmatch(line) for line in (module.__doc__ or "").splitlines())
    assert sorted(line[1] + line[2] for line in lines if line) == modules_of(module)


def test_an_unknown_name_is_an_attribute_error() -> None:
    for package in PUBLIC:
        with pytest.raises(AttributeError):
            importlib.import_module(package).no_such_name  # noqa: B018
