"""Whole files of formats that libraries write."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, processors

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def tokenizers():
    """A tokenizer.json of a few letters."""
    numbers = {_BEGIN: 0, _END: 1, "a": 2, "f": 3, "o": 4, "x": 5, "fo": 6}
    tokenizer = Tokenizer(models.BPE(vocab=numbers, merges=[("f", "o")], unk_token=_END))
    tokenizer.add_special_tokens([_BEGIN, _END])
    tokenizer.post_processor = processors.RobertaProcessing((_END, 1), (_BEGIN, 0))
    whole = tokenizer.to_str()
    # The library finds out when it meets a text with an unknown letter.
    unknown = whole.replace(f'"unk_token":"{_END}"', '"unk_token":"none"')
    assert unknown != whole
    return [whole.encode(), unknown.encode()]


def networks():
    """Networks of ONNX's format: a part of DINOv2's encoder, and some that lie."""
    arrays = {
        "backbone.embeddings.cls_token": np.zeros((1, 1, 4), np.float32),
        "backbone.embeddings.patch_embeddings.projection.weight": np.zeros(
            (4, 3, 2, 2), np.float32
        ),
        "onnx::Concat_1": np.zeros((1, 1, 4), np.float32),
        "onnx::Reshape_2": np.zeros((1, 4, 4), np.float32),
        "onnx::MatMul_3": np.zeros((4, 8), np.float32),
    }
    whole = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    linear = helper.make_node(
        "MatMul", ["x", "onnx::MatMul_3"], ["y"], "/backbone/encoder/layer.0/mlp/fc1/MatMul"
    )
    elsewhere = TensorProto(name="a", dims=[4], data_type=TensorProto.FLOAT)
    elsewhere.data_location = TensorProto.EXTERNAL
    elsewhere.external_data.add(key="location", value="/etc/passwd")
    vast = TensorProto(name="a", dims=[2**40, 2**20], data_type=TensorProto.FLOAT, raw_data=b"1234")
    graphs = [
        ([linear], whole),
        ([], [elsewhere]),
        ([], [vast]),
        ([helper.make_node("MatMul", [], ["y"], "z")], whole),
    ]
    return [
        helper.make_model(helper.make_graph(nodes, "g", [], [], stored)).SerializeToString()
        for nodes, stored in graphs
    ]
