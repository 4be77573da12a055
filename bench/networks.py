"""Networks of the zoo and of timm in their training form, exported to ONNX files.

timm and what it imports are kept below a folder of their own, since torchvision asks for a PyTorch
with CUDA; nothing of it is installed. torchvision's native operators do not load beside another
PyTorch, and the networks use none of them, so they are only declared.

    python -m bench.networks NAME FORM FILE [--deployed]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build/timm"
PINNED = Path(__file__).with_name("timm.txt")
FORMS = ("script, fixed", "script, open", "dynamo, fixed", "dynamo, open")
PREFIX = "timm "
SECONDS = 600  # to download the packages
SIZE = 128  # pixels along each side, for the networks of timm that take them
DEPLOYED = ("fuse", "reparameterize", "switch_to_deploy")  # what timm calls of a module
UNLOADED = ("nms", "qnms")  # of torchvision, the operators that importing it asks for

# Names of timm, one network of each family.
_WITH_DEPLOYED_FORM = """
levit_128s repghostnet_050 repvgg_a0 repvgg_b1g4 mobileone_s0 fastvit_t8 repvit_m0_9 repvit_m1
ghostnetv3_050 efficientvit_m0 shvit_s1
"""
_CONVOLUTIONAL = """
dm_nfnet_f0 nfnet_l0 resnetv2_50x1_bit resnetv2_18 inception_next_atto convnext_atto
convnextv2_atto densenet121 dla46_c hrnet_w18_small ese_vovnet19b_dw cs3darknet_focus_s tinynet_e
mnasnet_small hardcorenas_a lcnet_035 mobilenetv4_conv_small_035 efficientnetv2_rw_t starnet_s1
rdnet_tiny ghostnetv2_100 rexnet_100 regnety_002 resnest14d ecaresnet26t skresnet18 selecsls42
gernet_s hgnetv2_b0 dpn48b
"""
_MIXING = """
botnet26t_256 resmlp_12_224 efficientformer_l1 efficientformerv2_s0 edgenext_xx_small
mobilevitv2_050 nextvit_small poolformer_s12 caformer_s18 swin_tiny_patch4_window7_224
vit_tiny_patch16_224 xcit_nano_12_p16_224 cait_xxs24_224 coat_lite_tiny crossvit_9_240 pvt_v2_b0
maxvit_pico_rw_256 davit_tiny visformer_tiny
"""
TIMM = (*_WITH_DEPLOYED_FORM.split(), *_CONVOLUTIONAL.split(), *_MIXING.split())
LARGER = {"crossvit_9_240": 240, "efficientformer_l1": 224}  # which do not take SIZE


def main() -> int:
    parser = argparse.ArgumentParser(prog="networks", description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="of the zoo, or 'timm NAME'")
    parser.add_argument("form", choices=FORMS)
    parser.add_argument("path", type=Path)
    parser.add_argument("--deployed", action="store_true", help="as timm's reparameterize_model")
    options = parser.parse_args()
    network, shape = created(options.name)
    if options.deployed:
        from timm.utils.model import reparameterize_model

        if not has_deployed_form(network):
            print(f"{options.name} has no deployed form", file=sys.stderr)
            return 1
        network = reparameterize_model(network)
    export(network, shape, options.form, options.path)
    return 0


def created(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The network and the shape of its input; no weight and no statistic has its neutral value."""
    from flatfold import create_model
    from flatfold.models import ZOO
    from flatfold.models.initialise import initialise

    if not name.startswith(PREFIX):
        return create_model(name).eval(), tuple(ZOO[name].input_shape)
    name = name.removeprefix(PREFIX)
    size = LARGER.get(name, SIZE)
    network = _created_by_timm(name, size).eval()
    initialise(network, seed=0)
    return network, (3, size, size)


def _created_by_timm(name: str, size: int) -> Any:
    """A network of timm for maps of a size, which those with positions have to be told."""
    declare_operators()
    import timm

    try:
        return timm.create_model(name, pretrained=False, img_size=size)
    except TypeError:  # one that takes maps of any size
        return timm.create_model(name, pretrained=False)


def declare_operators() -> None:
    """Make timm importable: its folder, and what torchvision asks for when it is imported."""
    if FOLDER.is_dir() and str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    import torch

    for name in UNLOADED:
        if not hasattr(torch.ops.torchvision, name):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{name}", schema)


def has_deployed_form(network: nn.Module) -> bool:
    """Whether timm's reparameterize_model changes anything."""
    return any(hasattr(part, name) for part in network.modules() for name in DEPLOYED)


def export(network: nn.Module, shape: Sequence[int], form: str, path: Path) -> None:
    """Write an ONNX file by an exporter of PyTorch, at a fixed size or with open axes."""
    import torch

    torch.manual_seed(0)
    x = torch.randn(1, *shape)
    dynamo = form.startswith("dynamo")
    axes = {0: "n", 2: "h", 3: "w"} if form.endswith("open") else {}
    sizes = {axis: torch.export.Dim.DYNAMIC for axis in axes}
    how: dict[str, Any] = {"dynamic_shapes": (sizes,)} if dynamo else {"dynamic_axes": {"x": axes}}
    with torch.no_grad():
        torch.onnx.export(
            network, (x,), path, dynamo=dynamo, input_names=["x"], verbose=False, **how
        )


def why_no_timm() -> str:
    """Why timm cannot be imported, once its packages were fetched; "" if it can be."""
    check = "import bench.networks as n; n.declare_operators(); import timm"
    if not FOLDER.is_dir():
        pip = ("install", "--quiet", "--no-deps", "--target", str(FOLDER), "-r", str(PINNED))
        try:
            done = subprocess.run([sys.executable, "-m", "pip", *pip], timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return f"its packages were not there within {SECONDS} s"
        if done.returncode:
            return f"pip cannot install {PINNED.name} below {FOLDER.relative_to(ROOT)}"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    return done.stderr.strip().rpartition("\n")[2] if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
