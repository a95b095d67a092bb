import json

import jax.numpy as jnp
import numpy as np
import pytest

from sgm.interop.diffusers.safetensors import mapped


def file_of(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


ENTRY = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}


@pytest.mark.parametrize(
    "dtype",
    [np.float64, np.float32, np.float16, jnp.bfloat16, np.int64, np.int32, np.int16, np.int8, np.uint8, np.bool_],
)
def test_tensors_are_those_that_safetensors_writes(tmp_path, dtype):
    reference = pytest.importorskip("safetensors.numpy", reason="its files are read, but it is not installed")
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.integers(0, 2, shape).astype(dtype) for name, shape in {"b": (3, 4), "a.c": (5,), "d": ()}.items()
    }
    reference.save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    found = mapped(tmp_path / "model.safetensors")
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        np.testing.assert_array_equal(found[name], tensor)


def test_tensors_are_views_that_cannot_be_written(tmp_path):
    data = np.arange(6, dtype=np.float32)
    tensor = mapped(file_of(tmp_path / "file", {"x": ENTRY}, data.tobytes()))["x"]
    np.testing.assert_array_equal(tensor, data.reshape(2, 3))
    assert not tensor.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        tensor[0, 0] = 1


@pytest.mark.parametrize(
    ("header", "size", "message"),
    [
        (ENTRY, 23, r"x is of shape \(2, 3\) and dtype F32 at the bytes 0 to 24, but there are 23; download it again"),
        (ENTRY | {"shape": [2, 2]}, 24, r"x is of shape \(2, 2\) and dtype F32 at the bytes 0 to 24"),
        (ENTRY | {"shape": [-2, -3]}, 24, r"x is of shape \(-2, -3\)"),
        (ENTRY | {"data_offsets": [-24, 0]}, 24, "at the bytes -24 to 0"),
        (ENTRY | {"dtype": "F8_E5M2"}, 24, "x has the dtype F8_E5M2; convert it to one of F64, F32"),
        ({"dtype": "F32", "shape": [2, 3]}, 24, "its header is not that of a safetensors file"),
        ([1, 2], 24, "its header is not that of a safetensors file"),
    ],
    ids=["short", "shape", "sizes", "negative", "dtype", "fields", "entry"],
)
def test_broken_tensors(tmp_path, header, size, message):
    with pytest.raises(ValueError, match=message):
        mapped(file_of(tmp_path / "file", {"x": header}, bytes(size)))


@pytest.mark.parametrize(
    "content", [b"", b"123", b"PK\x03\x04 a pickle in a zip archive"], ids=["empty", "short", "zip"]
)
def test_what_is_no_safetensors_file(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=f"file: its {len(content)} bytes are no safetensors file"):
        mapped(tmp_path / "file")


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe", b"[]", b"3"], ids=["json", "unicode", "list", "number"])
def test_broken_headers(tmp_path, text):
    with pytest.raises(ValueError, match="its header is not that of a safetensors file"):
        mapped(file_of(tmp_path / "file", text))
