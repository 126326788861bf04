"""Graphs that a release may hold, and those that nothing may open."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from embridge_shared.errors import ModelError, Reason
from embridge_shared.onnx_check import MAX_ELEMENTS, check_model
from embridge_shared.release import ENCODER, read_bundle, write_bundle
from support.bundles import C, D, M, encoder, parts

WEIGHTS = np.ones((C, M * D), np.float32)


def model() -> onnx.ModelProto:
    return onnx.load_from_string(encoder(WEIGHTS))


def refused(changed: onnx.ModelProto | bytes) -> str:
    data = changed if isinstance(changed, bytes) else changed.SerializeToString()
    with pytest.raises(ModelError) as caught:
        check_model(data, "the encoder")
    assert caught.value.reason is Reason.MALFORMED
    assert caught.value.hint
    return caught.value.message


def test_what_we_export_is_taken():
    check_model(encoder(WEIGHTS))
    m = model()
    m.doc_string, m.producer_name, m.graph.node[0].doc_string = "about", "embridge", "a mean"
    helper.set_model_props(m, {"key": "value"})
    m.graph.value_info.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["B", C]))
    check_model(m.SerializeToString())


def test_tensors_in_other_files():
    m = model()
    tensor = m.graph.initializer[0]
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/shadow"
    assert "other files" in refused(m)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.EXTERNAL
    assert "other files" in refused(m)


def test_a_tensor_of_an_attribute_is_looked_at_too():
    m = model()
    value = numpy_helper.from_array(np.ones(3, np.float32))
    node = helper.make_node("Constant", [], ["c"], value=value)
    m.graph.node.append(node)
    check_model(m.SerializeToString())
    m.graph.node[-1].attribute[0].t.data_location = TensorProto.EXTERNAL
    assert "other files" in refused(m)


@pytest.mark.parametrize(
    "operator", ["Loop", "If", "Scan", "RandomNormal", "SequenceConstruct", "StringConcat", "Nope"]
)
def test_operators_no_release_needs(operator):
    m = model()
    m.graph.node[0].op_type = operator
    assert operator in refused(m)


def test_operators_of_others():
    m = model()
    m.graph.node[0].domain = "com.evil"
    assert "com.evil" in refused(m)
    m = model()
    m.opset_import.append(helper.make_opsetid("com.evil", 1))
    assert "com.evil" in refused(m)


def test_functions_graphs_within_and_training():
    m = model()
    m.functions.append(
        helper.make_function("", "Relu2", ["x"], ["y"], [helper.make_node("Relu", ["x"], ["y"])], m.opset_import)
    )
    assert "functions" in refused(m)
    m = model()
    m.graph.node[0].attribute.append(helper.make_attribute("body", model().graph))
    assert "graphs within" in refused(m)
    m = model()
    m.training_info.add()
    assert "training" in refused(m)
    m = model()
    m.graph.sparse_initializer.add()
    assert "sparse" in refused(m)


def test_sizes_that_are_not_theirs():
    m = model()
    m.graph.initializer[0].dims[0] = C + 1
    assert "numbers in" in refused(m)
    m = model()
    m.graph.initializer[0].dims[0] = MAX_ELEMENTS
    assert "tensor of" in refused(m)
    m = model()
    m.graph.initializer[0].dims.extend([1] * 1000)
    assert "axes" in refused(m)
    m = model()
    m.graph.initializer[0].dims[0] = -1
    assert "tensor of" in refused(m)
    m = model()
    m.graph.initializer[0].data_type = TensorProto.STRING
    assert "type" in refused(m)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\xff" * 20, b"\x0b", b"MZ\x90\x00", encoder(WEIGHTS)[:-3], b"\x3a\x00"]
)
def test_what_is_no_graph(data):
    assert refused(data)


def test_two_graphs_are_not_one():
    m = model()
    only = onnx.ModelProto(graph=m.graph).SerializeToString()
    assert "2 graphs" in refused(m.SerializeToString() + only)


def test_no_bundle_holds_such_a_graph(tmp_path):
    m = model()
    m.graph.initializer[0].data_location = TensorProto.EXTERNAL
    manifest, files = parts()
    with pytest.raises(ModelError, match=r"encoder\.onnx keeps tensors in other files"):
        write_bundle(tmp_path / "x.embridge", manifest, files | {ENCODER: m.SerializeToString()})
    write_bundle(tmp_path / "x.embridge", manifest, files)
    assert read_bundle(tmp_path / "x.embridge")
