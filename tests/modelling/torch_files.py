"""Files as `torch.save` writes them, made by hand."""

import struct
import zipfile

import numpy as np

PROTOCOL, STOP = b"\x80\x02", b"."
NO_HOOKS = b"ccollections\nOrderedDict\n)R"
KINDS = {"float32": b"ctorch\nFloatStorage\n", "int64": b"ctorch\nLongStorage\n"}


def text(value):
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def storage(key, length, kind="float32"):
    return b"(" + text("storage") + KINDS[kind] + text(key) + text("cpu") + number(length) + b"tQ"


def tensor(content, shape, strides=None, offset=0):
    """Return the opcodes of a tensor; `content` are those of its storage."""
    if strides is None:
        strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    name = b"ctorch._utils\n_rebuild_tensor_v2\n"
    place = number(offset) + numbers(shape) + numbers(strides)
    return name + b"(" + content + place + b"\x89" + NO_HOOKS + b"tR"


def table(**items):
    """Return a pickle of a dictionary, of the opcodes of its values."""
    body = b"".join(text(name) + value for name, value in items.items())
    return PROTOCOL + b"}(" + body + b"u" + STOP


def write_archive(path, content, storages, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        for key, values in storages.items():
            archive.writestr(f"archive/data/{key}", values)
        archive.writestr("archive/version", "3\n")
    return path


def write_tensors(path, tensors):
    """Write arrays as a checkpoint, each with a storage of its own."""
    items, storages = {}, {}
    for key, (name, array) in enumerate(tensors.items()):
        kind = array.dtype.name
        items[name] = tensor(storage(str(key), array.size, kind), array.shape)
        storages[str(key)] = np.ascontiguousarray(array).tobytes()
    return write_archive(path, table(**items), storages)


KERNELS = {"DepthwiseConv2D": (2, 3, 0, 1), "Conv2D": (3, 2, 0, 1), "Dense": (1, 0)}


def tensors_of(network, value_of):
    """Return tensors for a Keras network, as PyTorch names and shapes them.

    Args:
        network: its layers have the names of their weights in PyTorch.
        value_of: returns the value of a variable.
    """
    tensors = {}
    for layer in network.layers:
        for variable in layer.weights:
            value = np.float32(value_of(variable))
            if variable.name == "kernel":
                value = value.transpose(KERNELS[type(layer).__name__])
            name = {"gamma": "weight", "kernel": "weight", "beta": "bias"}.get(variable.name)
            name = name or variable.name.replace("moving", "running").replace("variance", "var")
            tensors[f"{layer.name}.{name}"] = value
        if type(layer).__name__ == "BatchNormalization":
            tensors[f"{layer.name}.num_batches_tracked"] = np.array(9)
    return tensors
