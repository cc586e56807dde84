"""Small real TFLite models, images and releases. The models are drawn with LiteRT's own schema: no TensorFlow."""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from common.config import BrokerConfig
from common.messages import ReleaseStatus
from device.config import DeviceConfig, ServingConfig
from device.store import CurrentRelease, DeviceStore, current_release
from tests.device.requesting import Install, Model, Rig

SIZE = 8


@dataclass
class Drawing:
    """A model under construction: every tensor holds one number, save the first, which holds the image."""

    tensors: list[Any] = field(default_factory=list)
    buffers: list[Any] = field(default_factory=lambda: [schema.BufferT()])
    operators: list[Any] = field(default_factory=list)
    codes: list[Any] = field(default_factory=list)

    def tensor(self, shape: tuple[int, ...], kind: int, scale: float = 0.0) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = f"t{len(self.tensors)}", np.array(shape, np.int32), kind
        if scale:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = np.array([scale], np.float32)
            tensor.quantization.zeroPoint = np.array([0], np.int64)
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, values: Any, kind: int) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        self.buffers.append(buffer)
        place = self.tensor(values.shape, kind)
        self.tensors[place].buffer = len(self.buffers) - 1
        return place

    def apply(self, name: str, given: list[int], result: int, options: Any = None) -> int:
        code, operator = schema.OperatorCodeT(), schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, name)
        code.version = 1
        operator.opcodeIndex = len(self.codes)
        operator.inputs, operator.outputs = np.array(given, np.int32), np.array([result], np.int32)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            operator.builtinOptions = options
        self.codes.append(code)
        self.operators.append(operator)
        return result

    def content(self, given: int, *results: int) -> bytes:
        graph, model = schema.SubGraphT(), schema.ModelT()
        graph.tensors, graph.operators = self.tensors, self.operators
        graph.inputs, graph.outputs = np.array([given], np.int32), np.array(results, np.int32)
        model.version, model.subgraphs, model.buffers, model.operatorCodes = 3, [graph], self.buffers, self.codes
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def draw_model(
    slope: float = 0.05,
    centre: float = 127.5,
    shape: tuple[int, ...] = (1, SIZE, SIZE, 3),
    pixels: str = "float32",
    result: str = "probability",
) -> bytes:
    """A judge of brightness: probability = sigmoid(slope * (mean pixel - centre)).

    `pixels` float32, uint8, or uint8 quantised by 2; `result` probability, logit, probability quantised by 1/256,
    probability reshaped, softmax, or probability beside the logit.
    """
    kinds, one, drawing = schema.TensorType, (1, 1, 1, 1), Drawing()
    given = drawing.tensor(
        shape, kinds.FLOAT32 if pixels == "float32" else kinds.UINT8, 2.0 if "quantised" in pixels else 0.0
    )
    image = given
    if pixels != "float32":
        image = drawing.apply(
            "DEQUANTIZE" if "quantised" in pixels else "CAST", [given], drawing.tensor(shape, kinds.FLOAT32)
        )
    keep = schema.ReducerOptionsT()
    keep.keepDims = True
    axes = drawing.constant(np.array([1, 2, 3], np.int32), kinds.INT32)
    mean = drawing.apply("MEAN", [image, axes], drawing.tensor(one, kinds.FLOAT32), keep)
    factor = drawing.constant(np.array([slope], np.float32), kinds.FLOAT32)
    scaled = drawing.apply("MUL", [mean, factor], drawing.tensor(one, kinds.FLOAT32), schema.MulOptionsT())
    offset = drawing.constant(np.array([-slope * centre], np.float32), kinds.FLOAT32)
    last = drawing.apply("ADD", [scaled, offset], drawing.tensor(one, kinds.FLOAT32), schema.AddOptionsT())
    logit = last
    if result == "softmax":
        last = drawing.apply("SOFTMAX", [last], drawing.tensor(one, kinds.FLOAT32), schema.SoftmaxOptionsT())
    elif result != "logit":
        last = drawing.apply("LOGISTIC", [last], drawing.tensor(one, kinds.FLOAT32))
    if "quantised" in result:
        last = drawing.apply("QUANTIZE", [last], drawing.tensor(one, kinds.UINT8, 1 / 256))
    if "reshaped" in result:
        flat = drawing.constant(np.array([1, 1], np.int32), kinds.INT32)
        last = drawing.apply("RESHAPE", [last, flat], drawing.tensor((1, 1), kinds.FLOAT32))
    return drawing.content(given, *([last, logit] if "beside" in result else [last]))


@pytest.fixture(scope="session")
def model() -> Callable[..., bytes]:
    return draw_model


@pytest.fixture(scope="session")
def png() -> Callable[[int], bytes]:
    """The bytes of a grey PNG of 20 x 12 pixels."""

    def draw(grey: int) -> bytes:
        file = io.BytesIO()
        Image.new("L", (20, 12), grey).save(file, "PNG")
        return file.getvalue()

    return draw


@pytest.fixture
def install() -> Callable[..., CurrentRelease]:
    """Put a release into a state folder as the daemon does."""

    def install(folder: Path, release: str, content: bytes, labels: tuple[str, ...] = ("no", "yes")) -> CurrentRelease:
        store = DeviceStore(folder)
        source = folder / "download"
        source.write_bytes(content)
        ref = store.models.add(source, None, 4096)
        store.install(ReleaseStatus(release=release, model=ref, labels=labels, round=1))
        store.models.close()
        current = current_release(folder)
        assert current is not None
        return current

    return install


@pytest.fixture
def rig(
    request: pytest.FixtureRequest, tmp_path: Path, mosquitto: BrokerConfig, model: Model, install: Install
) -> Iterator[Rig]:
    config = DeviceConfig(
        federation=hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12],
        device="rpi1",
        state=str(tmp_path / "state"),
        broker=mosquitto,
        serving=ServingConfig(threads=1, max_image_bytes=20_000),
    )
    rig = Rig(config, model, install)
    yield rig
    rig.close()
