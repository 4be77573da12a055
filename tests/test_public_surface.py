"""The names that each package offers, and the list of modules in its docstring."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

# What users and other packages may import from each package, and nothing else.
PUBLIC = {
    "flatfold": (
        "FlatfoldError Images Optimized __version__ compare compile create_model list_models load "
        "optimize reduce verify"
    ),
    "flatfold.backends": (
        "TARGETS Availability Backend Engine TensorSpec availability_table best_target check_sizes "
        "load_backend precision_of random_feeds read_options running_targets shapes_of specs_of"
    ),
    "flatfold.backends.store": (
        "MANIFEST Cache Entry check_writable load load_model read_certificate read_manifest save "
        "save_model structural_copy write_model"
    ),
    "flatfold.benchmark": "Report compare",
    "flatfold.frontend": "Source canonicalize from_proto read_model resolve",
    "flatfold.models": "ZOO ModelSpec create_model list_models",
    "flatfold.passes": (
        "HINTS PIPELINE PROFILES READERS Change Decline EqualizeChannels GraphRewrite LocalRewrite "
        "Pipeline Profile Region Remark Replacement Rewrite"
    ),
    "flatfold.passes.stencil": "Geometry Stencil add compose convolution diagonal lifting",
    "flatfold.proof": (
        "Certificate Entry Equivalence NoReference Reduced Reference RegionChecks "
        "check_engine compare fingerprint input_specs onnx_reference original_session "
        "reduce_pair require_about sizes_that_run verify_parts"
    ),
}

# One module a family, which FAMILIES of flatfold.models lists.
FAMILIES = "flatfold.models.variants"

# A line of a docstring about one module or package: "    name.py    what is in it".
LISTED = re.compile(r" *(\w+)(\.py|/)  +\S.*")


def packages(name: str = "flatfold") -> Iterator[str]:
    """The names of a package and of all packages inside it."""
    yield name
    for module in pkgutil.iter_modules(importlib.import_module(name).__path__):
        if module.ispkg:
            yield from packages(f"{name}.{module.name}")


def modules_of(package: ModuleType) -> list[str]:
    """The files and folders of a package as its docstring should list them, in any order."""
    return sorted(
        module.name + ("/" if module.ispkg else ".py")
        for module in pkgutil.iter_modules(package.__path__)
        if not module.name.startswith("__")
    )


def listed_in(package: ModuleType) -> list[str]:
    """The files and folders that the docstring of a package lists."""
    lines = (LISTED.fullmatch(line) for line in (package.__doc__ or "").splitlines())
    return sorted(line[1] + line[2] for line in lines if line)


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_offers_the_settled_names(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package].split())
    assert len(module.__all__) == len(set(module.__all__))
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", PUBLIC)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    assert not hasattr(importlib.import_module(package), "no_such_name")


@pytest.mark.parametrize("package", [name for name in packages() if name != FAMILIES])
def test_a_docstring_lists_every_module_of_its_package(package: str) -> None:
    module = importlib.import_module(package)
    assert listed_in(module) == modules_of(module)
