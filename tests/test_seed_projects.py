"""What the users of fedpi's two forerunners did, by commands, on files of the names that they had."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from common.learning import weight_files
from coordinator.cli import main as coordinator
from coordinator.config import read_config
from device.cli import main as device

pytestmark = [
    pytest.mark.tensorflow,
    # Keras reads TensorFlow's variables in a way that NumPy 2 discourages.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

ROOT = Path(__file__).parents[1]
SIZE = ("--option", "image_size=32")


def call(group: object, *arguments: object) -> Result:
    result = CliRunner().invoke(group, [str(argument) for argument in arguments], catch_exceptions=False)  # type: ignore[arg-type]  # both are groups
    assert result.exit_code == 0, result.output
    return result


def draw(folder: Path, count: int, seed: int) -> None:
    """Noise in which the positives have a bright spot: different enough that no two are near copies."""
    rng = np.random.default_rng(seed)
    for label in ("no", "yes"):
        (folder / label).mkdir(parents=True)
        for number in range(count):
            pixels = np.kron(rng.integers(0, 90, (8, 8), np.uint8), np.ones((8, 8), np.uint8))
            if label == "yes":
                x, y = rng.integers(4, 40, 2)
                pixels[y : y + 18, x : x + 18] = 235
            Image.fromarray(pixels).save(folder / label / f"{number:03d}.png")


# ---- the first: a small CNN, a main set, two Raspberry Pis -----------------------------------


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder after `train_main`, and one client variant trained on each Pi."""
    home = tmp_path_factory.mktemp("first")
    draw(home / "images", 40, 0)
    call(coordinator, "split", home / "images", "--out", home, "--sites", "rasp1,rasp2", "--layout", "folders")
    call(
        coordinator, "train", "--data", home, "--site", "main", *SIZE, "--out", home / "main_weights.h5",
        "--tensorboard", home / "events",
    )  # fmt: skip
    for site in ("rasp1", "rasp2"):
        call(
            device, "train", "--data", home, "--site", site, "--model", "extra_dense_cnn", *SIZE, "--epochs", 4,
            "--init", home / "main_weights.h5", "--out", home / f"{site}_weights.h5",
        )  # fmt: skip
    return home


def test_train_main_is_ten_epochs_with_a_history(first: Path) -> None:
    assert (first / "main_weights.h5").is_file()
    assert Image.open(first / "main_training_history.png").size[0] > 800
    out = first / "again.weights.h5"
    report = json.loads(
        call(coordinator, "train", "--data", first, "--site", "main", *SIZE, "--out", out, "--json").stdout
    )
    assert len(report["epochs"]) == 10
    assert report["picture"] == str(first / "again_training_history.png")
    one, other = weight_files.read(first / "main_weights.h5"), weight_files.read(out)
    assert all(np.array_equal(one[name], other[name]) for name in one)  # the same seed, whatever kind of file


def test_tensorboard_opens_the_event_files(first: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(first / "events" / "main"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "accuracy"}
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 11))


def test_train_client_takes_the_shared_layers_by_name_and_leaves_the_earlier_ones(first: Path) -> None:
    main, client = (weight_files.read(first / f"{name}_weights.h5") for name in ("main", "rasp1"))
    assert client.keys() - main.keys() == {f"extra_{kind}/{place}" for kind in ("conv", "dense") for place in (0, 1)}
    still = {name.split("/")[0] for name in main if np.array_equal(main[name], client[name])}
    assert still == {"conv1", "conv2", "conv3"}


def test_federated_averages_the_shared_layers_into_the_global_model(first: Path) -> None:
    clients = [first / "rasp1_weights.h5", first / "rasp2_weights.h5"]
    out = first / "global_weights.h5"
    call(coordinator, "aggregate", *clients, "--global", first / "main_weights.h5", "--shared-only", "--out", out)
    one, other, merged = (weight_files.read(path) for path in (*clients, out))
    assert merged.keys() == weight_files.read(first / "main_weights.h5").keys()
    for name, tensor in merged.items():
        np.testing.assert_allclose(tensor, (one[name] + other[name]) / 2, atol=1e-6)


def test_a_clients_extra_layers_can_be_averaged_among_clients(first: Path) -> None:
    out = first / "variant_weights.h5"
    call(coordinator, "aggregate", first / "rasp1_weights.h5", first / "rasp2_weights.h5", "--out", out)
    one, other, merged = (weight_files.read(first / f"{name}_weights.h5") for name in ("rasp1", "rasp2", "variant"))
    np.testing.assert_allclose(merged["extra_conv/0"], (one["extra_conv/0"] + other["extra_conv/0"]) / 2, atol=1e-6)


def test_a_clients_extra_layers_can_stay_with_it(first: Path) -> None:
    """The next round begins with the global layers over the client's own file."""
    own, merged = first / "rasp1_weights.h5", first / "main_weights.h5"
    out = first / "next.h5"
    call(
        device, "train", "--data", first, "--site", "rasp1", "--model", "extra_dense_cnn", *SIZE, "--epochs", 0,
        "--init", own, "--init", merged, "--out", out,
    )  # fmt: skip
    start = weight_files.read(out)
    np.testing.assert_array_equal(start["extra_conv/0"], weight_files.read(own)["extra_conv/0"])
    np.testing.assert_array_equal(start["dense/0"], weight_files.read(merged)["dense/0"])


def test_evaluate_compares_before_and_after_on_unseen_data_of_each_site(first: Path) -> None:
    call(coordinator, "train", "--data", first, "--site", "main", *SIZE, "--epochs", 0, "--out", first / "zero.h5")
    arguments = ("--before", first / "zero.h5", *SIZE, "--data", first, "--site", "rasp1", "--site", "rasp2")
    plots = first / "plots"
    result = call(coordinator, "evaluate", first / "main_weights.h5", *arguments, "--plots", plots)
    for word in ("accuracy", "AUC", "sensitivity", "specificity", "F1", "loss", "TN", "are few", "rasp2: accuracy"):
        assert word in result.stdout
    assert {path.name for path in plots.iterdir()} == {"roc.png", "precision_recall.png"}
    rows = json.loads(call(coordinator, "evaluate", first / "main_weights.h5", *arguments, "--json").stdout)
    assert [(row["site"], row["model"]) for row in rows] == [
        (site, model) for site in ("rasp1", "rasp2", "all") for model in ("before", "after")
    ]
    low, high = rows[-1]["intervals"]["accuracy"]
    assert low <= rows[-1]["figures"]["accuracy"] <= high
    assert rows[-1]["figures"]["count"] == rows[0]["figures"]["count"] + rows[2]["figures"]["count"]


def test_export_tflite_gives_all_variants_and_measures_them(first: Path) -> None:
    out = first / "export"
    arguments = ("export", first / "main_weights.h5", *SIZE, "--data", first, "--site", "rasp1", "--out", out)
    found = json.loads(call(device, *arguments, "--json").stdout)
    assert [v["variant"] for v in found["variants"]] == ["float32", "float16", "dynamic", "int8"]
    for variant in found["variants"]:
        assert variant["reason"] == ""
        assert variant["size"] == (out / f"model_{variant['variant']}.tflite").stat().st_size
        assert variant["milliseconds"] > 0
        assert variant["max_difference"] < 0.05
    assert found["variants"][3]["size_share"] < 0.5  # the smallest model: what is not weights weighs most here
    assert "model_int8.tflite" in call(device, *arguments).stdout


# ---- the second: MobileNetV2, train/ and val/ ------------------------------------------------


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clients' folders with train/ and val/, their models, and the recipe at 32 pixels without pretraining."""
    home = tmp_path_factory.mktemp("second")
    config = (ROOT / "config" / "coordinator-mobilenet-224.yaml").read_text()
    for old, new in (
        ("224\n", "32\n"),
        ("alpha: 1.0", "alpha: 0.35"),
        ("weights: imagenet", "weights: null"),
        ("1000", "9"),
    ):
        assert old in config
        config = config.replace(old, new)
    (home / "recipe.yaml").write_text(config)
    for client in (0, 1):
        draw(home / f"client_{client}" / "train", 12, client)
        draw(home / f"client_{client}" / "val", 4, 10 + client)
        call(
            device, "train", "--data", home / f"client_{client}", "--recipe", home / "recipe.yaml", "--epochs", 2,
            "--out", home / f"client_{client}_model.h5",
        )  # fmt: skip
    return home


def test_the_configuration_is_that_of_the_second_forerunner() -> None:
    config = read_config(ROOT / "config" / "coordinator-mobilenet-224.yaml")
    plan, options = config.training_in(1), config.model.options
    assert (plan.epochs, plan.batch_size, plan.learning_rate) == (10, 32, 1e-4)
    assert (plan.patience > 0, plan.validation_share > 0) == (True, True)
    assert (options["image_size"], options["alpha"], options["weights"]) == (224, 1.0, "imagenet")
    assert config.strategy.__class__.__name__ == "InverseIndex"


def test_a_client_saves_its_model_and_its_training_history(second: Path) -> None:
    for client in (0, 1):
        assert (second / f"client_{client}_model.h5").is_file()
        assert (second / f"client_{client}_training_history.png").is_file()


def test_the_server_aggregates_by_inverse_index_and_evaluates_on_val(second: Path) -> None:
    files = [second / f"client_{client}_model.h5" for client in (0, 1)]
    out = second / "GLOBAL_MODEL_MOB.h5"
    call(coordinator, "aggregate", *files, "--strategy", "inverse_index", "--out", out)
    one, other, merged = (weight_files.read(path) for path in (*files, out))
    for name in ("probability/0", "mobilenet_v2/Conv1/0"):
        np.testing.assert_allclose(merged[name], (11 * one[name] + other[name]) / 12, atol=1e-5)
    recipe = ("--recipe", second / "recipe.yaml")
    for data in (second / "client_0", second / "client_0" / "val"):
        (row,) = json.loads(call(coordinator, "evaluate", out, *recipe, "--data", data, "--json").stdout)
        assert row["figures"]["count"] == 8


def test_training_stops_early_on_a_share_of_the_clients_own_images(second: Path) -> None:
    recipe = second / "early.yaml"
    text = (second / "recipe.yaml").read_text().replace("patience: 3", "patience: 1")
    recipe.write_text(text.replace("learning_rate: 0.0001", "learning_rate: 0.05"))
    arguments = ("--data", second / "client_0", "--recipe", recipe, "--out", second / "early_model.h5", "--json")
    report = json.loads(call(device, "train", *arguments, "--no-plot").stdout)
    losses = [epoch["validation_loss"] for epoch in report["epochs"]]
    assert report["num_examples"] == 20
    assert len(losses) < 10
    assert report["kept"]["validation_loss"] == min(losses)
    assert report["picture"] is None
