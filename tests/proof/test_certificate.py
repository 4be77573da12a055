"""A certificate is valid for two graphs and no others, and lists every new node."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

import flatfold
from flatfold.errors import InputError
from flatfold.proof import Certificate, fingerprint, require_about
from tests.nets import Net


@pytest.fixture(scope="module")
def done() -> flatfold.result.Optimized:
    net = Net((1, 4, 9, 8), dtype=np.float32)
    y = net.op("Relu", net.bn(net.conv(net.x, 6, 4, (3, 3)), 6))
    y = net.op("Add", net.conv(y, 6, 6, (3, 3)), net.conv(y, 6, 6, (1, 1)))
    return flatfold.optimize(net.model(net.op("GlobalAveragePool", y)))


def test_it_lists_every_change_and_survives_json(done):
    found = done.certificate()
    assert found == Certificate.from_dict(json.loads(json.dumps(found.to_dict())))
    assert len(found.changes) == sum(remark.applied for remark in done.remarks) == 2
    assert all(entry.certified and 0 < entry.ratio <= 1.01 for entry in found.changes)
    replaced = {name for entry in found.changes for name in entry.replaced}
    assert {"conv0", "batchnormalization1", "conv3", "conv4", "add5"} <= replaced
    require_about(found, done.training, done.graph)


def changed(model: ir.Model, what: str) -> ir.Model:
    model = model.clone()
    conv = next(node for node in model.graph if node.op_type == "Conv")
    if what == "weight":
        array = conv.inputs[1].const_value.numpy().copy()
        array.flat[0] = np.nextafter(array.flat[0], np.float32(9))
        conv.inputs[1].const_value = ir.Tensor(array, name=conv.inputs[1].name)
    elif what == "attribute":
        conv.attributes["pads"] = ir.AttrInt64s("pads", [0, 2, 2, 0])
    elif what == "operator":
        next(node for node in model.graph if node.op_type == "Relu").op_type = "Sigmoid"
    elif what == "output":
        model.graph.outputs[0].name = "other"
    elif what == "comment":
        conv.doc_string = "a comment"
        conv.metadata_props["note"] = "nothing to do with it"
    return model


@pytest.mark.parametrize("what", ["weight", "attribute", "operator", "output"])
def test_any_change_of_a_graph_is_noticed(done, what):
    other = changed(done.graph, what)
    with pytest.raises(InputError, match="another rewritten graph"):
        require_about(done.certificate(), done.training, other)
    with pytest.raises(InputError, match="another original graph"):
        require_about(done.certificate(), changed(done.training, what), done.graph)


def test_comments_do_not_matter(done):
    require_about(done.certificate(), done.training, changed(done.graph, "comment"))


def test_where_weights_are_kept_does_not_matter(done, tmp_path):
    ir.save(done.graph, tmp_path / "a.onnx", external_data="a.data", size_threshold_bytes=0)
    assert fingerprint(ir.load(tmp_path / "a.onnx")) == fingerprint(done.graph)


def test_an_attribute_that_no_change_accounts_for_is_noticed(done):
    """Both fingerprints are right, but a node that nobody made is not what it was."""
    other = done.graph.clone()
    pool = next(node for node in other.graph if node.op_type == "GlobalAveragePool")
    pool.attributes["note"] = ir.AttrInt64("note", 1)
    whole = replace(done.certificate(), rewritten=fingerprint(other))
    with pytest.raises(InputError, match=f"{pool.name}.* is in no change"):
        require_about(whole, done.training, other)


def test_a_node_that_no_change_accounts_for_is_noticed(done):
    whole = done.certificate()
    for index in range(len(whole.changes)):
        fewer = replace(whole, changes=whole.changes[:index] + whole.changes[index + 1 :])
        with pytest.raises(InputError, match="is in no change"):
            require_about(fewer, done.training, done.graph)
    first = replace(whole.changes[0], replaced=("nobody",))
    with pytest.raises(InputError, match="nobody"):
        require_about(
            replace(whole, changes=(first, *whole.changes[1:])), done.training, done.graph
        )


@pytest.mark.parametrize(
    "content",
    [{}, {"kind": "flatfold-certificate", "schema": 2}, {"kind": "flatfold-certificate"}],
)
def test_anything_else_is_refused(content):
    with pytest.raises(InputError):
        Certificate.from_dict(content)


def test_a_damaged_certificate_is_refused(done):
    whole = done.certificate().to_dict()
    for key in ("original", "rewritten", "changes", "prime"):
        with pytest.raises(InputError, match="damaged"):
            Certificate.from_dict({k: v for k, v in whole.items() if k != key})
    for wrong in (1, [1], [{}], "text"):
        with pytest.raises(InputError, match="damaged"):
            Certificate.from_dict({**whole, "changes": wrong})
