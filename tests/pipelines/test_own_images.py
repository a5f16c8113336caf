"""A user's folder of images, end to end: trained, shipped as a file, applied to other photos, and retrained."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from hallmark.flows.__main__ import run
from hallmark.flows.experiments import options
from hallmark.flows.reproduce import reproduce
from hallmark.flows.retrain import retrain
from hallmark.flows.train import train
from hallmark.tasks.common.results import Outcome
from hallmark.tasks.evaluate import evaluate
from hallmark.tasks.export import export
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.config.data import Images, Split
from hallmark.tasks.ml.config.experiment import Experiment, Training
from hallmark.tasks.ml.config.models import CNN, MLP, Linear, Model
from hallmark.tasks.ml.data.dataset_store import open_split
from hallmark.tasks.ml.data.images import image_file
from hallmark.tasks.ml.reports import data_profile
from hallmark.tasks.ml.reports.plots import evaluation_plots
from hallmark.tasks.ml.training import trainer
from hallmark.tasks.runtime import settings
from hallmark.tasks.stamp import stamp
from hallmark.tasks.verify import verify
from tests.conftest import prepare
from tests.support import photographed
from tests.support.consoles import Call
from tests.unit.ml.data.images.test_cache import watched
from tests.unit.ml.data.images.test_image_file import bomb

FAST = ["--training.device=cpu", "--training.epochs=4", "--training.batch_size=16", "--model.channels=4,8"]


def photo(file: Path, label: int, height: int = 300, width: int = 200) -> Path:
    """Save a photo of another size than the training images, rotated as by a phone, with its EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = np.kron(photographed.drawn(label, 77, 12, 16), np.ones((25, 20, 1), np.uint8))
    Image.fromarray(upright).resize((width, height)).transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    return file


@pytest.fixture(scope="module")
def trained(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, Outcome]:  # noqa: ARG001 - the server comes first
    folder = photographed.folder(tmp_path_factory.mktemp("own") / "photos", count=60)
    for number in range(3):
        photographed.save(folder / "red" / f"{number:03d}.png", photographed.drawn(0, number)[:, :, 0])
    experiment = options.experiment(str(folder), FAST)
    return experiment, train(experiment)


def test_a_folder_becomes_a_model(trained: tuple[Experiment, Outcome]) -> None:
    experiment, outcome = trained
    assert (experiment.name, outcome.dataset.name) == ("photos", "photos")
    assert isinstance(experiment.model, CNN)
    assert outcome.dataset.shape == (12, 16, 3)
    assert outcome.evaluation.metrics["test/accuracy"] > 0.9
    sealed, _ = certificate.read(outcome.artifact.path)
    (image,) = sealed.inputs
    assert (image.name, image.dtype, image.shape, image.resized) == ("image", "uint8", (12, 16, 3), True)
    assert image.description.startswith("colour image (RGB) as a decoder gives it, 12 x 16 pixels, 0 to 255; a file of")
    assert sealed.classes == ("blue", "red")
    assert certificate.check(outcome.artifact.path).holds
    (value,) = onnx.load(outcome.artifact.path).graph.input
    sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
    assert (value.name, value.type.tensor_type.elem_type, sizes) == ("image", onnx.TensorProto.UINT8, [0, 12, 16, 3])


def test_photos_of_another_size_get_the_predictions_of_the_file(
    trained: tuple[Experiment, Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained[1].artifact.path
    (tmp_path / "new").mkdir()
    files = [photo(tmp_path / "new" / f"{name}.jpg", label) for label, name in enumerate(("a", "b"))]
    files.append(photographed.save(tmp_path / "new" / "grey.png", np.full((40, 30), 9, np.uint8)))
    for name in ("broken.jpg", "Thumbs.db"):
        (tmp_path / "new" / name).write_text("none")
    assert run(["predict", str(model), str(tmp_path / "new")]) == 0
    out, error = capsys.readouterr()
    assert re.search(r"left out +.*broken\.jpg: cannot be read as an image: its format is unknown", error)
    rows = list(csv.DictReader(out.splitlines()))
    assert [(row["file"], row["class"]) for row in rows[:2]] == [("a.jpg", "red"), ("b.jpg", "blue")]
    x = np.stack([image_file.read_resized(file, (12, 16, 3)) for file in files])
    _, expected = onnxruntime.InferenceSession(model).run(None, {"image": x})
    found = np.array([[float(row["p_blue"]), float(row["p_red"])] for row in rows])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert run(["predict", str(model), str(files[1])]) == 0
    assert list(csv.DictReader(capsys.readouterr().out.splitlines())) == rows[1:2]
    np.save(tmp_path / "x.npy", x)
    assert run(["predict", str(model), str(tmp_path / "x.npy")]) == 0
    again = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["p_red"] for row in again] == [row["p_red"] for row in rows]


def test_prediction_decodes_training_files_as_training_did(
    trained: tuple[Experiment, Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    """Compare bytes: every file, as `predict` decodes it, is a row of the dataset."""
    experiment, outcome = trained
    splits = [open_split(outcome.dataset, split) for split in ("train", "validation", "test")]
    known = {row.tobytes() for split in splits for row in split.x}
    assert isinstance(experiment.data, Images)
    files = sorted(Path(experiment.data.path).glob("*/*"))
    assert len(files) == 120
    assert {image_file.read_resized(file, (12, 16, 3)).tobytes() for file in files} == known
    assert run(["predict", str(outcome.artifact.path), str(files[0].parent)]) == 0
    assert "60 rows, 0 outside the training range" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.csv", "is a table, but the model takes colour images of 12 x 16 pixels"),
        ("bomb.png", "cannot be read as an image: has more than 89,478,485 pixels"),
        ("x.png", "cannot be read as an image"),
        ("x.npy", "expected uint8 of shape (N, 12, 16, 3) or (12, 16, 3), found uint8 of shape (2, 12, 16)"),
    ],
)
def test_input_that_is_not_such_an_image_is_refused(
    trained: tuple[Experiment, Outcome], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, message: str
) -> None:
    (tmp_path / "x.csv").write_text("a\n1\n")
    bomb(tmp_path / "bomb.png", 30_000)
    (tmp_path / "x.png").write_text("none")
    np.save(tmp_path / "x.npy", np.zeros((2, 12, 16), np.uint8))
    assert run(["predict", str(trained[1].artifact.path), str(tmp_path / name)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


def test_a_second_run_opens_no_image_and_gives_the_same_file(trained: tuple[Experiment, Outcome]) -> None:
    experiment, outcome = trained
    assert isinstance(experiment.data, Images)
    with watched(Path(experiment.data.path)) as opened:
        again = train(experiment, fresh=True)
    assert opened == []
    assert again.artifact.sha256 == outcome.artifact.sha256
    assert again.model_version.version == outcome.model_version.version  # the same file is no new version


def test_a_training_on_images_is_reproduced_bit_by_bit(trained: tuple[Experiment, Outcome]) -> None:
    result = reproduce(trained[1].run.id)
    assert result.is_identical
    assert result.differences == ()


def test_a_folder_that_has_grown_is_retrained(prefect_server: str, tmp_path: Path) -> None:  # noqa: ARG001 - as above
    folder = photographed.folder(tmp_path / "growing", count=80)
    experiment = options.experiment(str(folder), FAST)
    first = retrain(experiment)
    assert first.verdict == "FIRST"
    assert retrain(experiment).verdict == "UNCHANGED"
    for label, name in enumerate(("red", "blue")):
        for number in range(80, 160):
            photographed.save(folder / name / f"{number:03d}.png", photographed.drawn(label, number))
    again = retrain(experiment)
    assert again.verdict in ("HOLD", "PROMOTE")
    assert again.decision
    assert again.decision.judgement
    gates = {gate["name"]: gate["passed"] for gate in again.decision.judgement["gates"]}
    assert gates["same inputs and classes"]


LINEAR, PERCEPTRON, CONVOLUTIONS = Linear(kind="linear"), MLP(kind="mlp", hidden=(9,)), CNN(kind="cnn", channels=(4,))


@pytest.mark.parametrize(
    ("model", "scaling", "colour"),
    [
        (LINEAR, "standard", "colour"),
        (LINEAR, "range", "grey"),
        (PERCEPTRON, "none", "colour"),
        (CONVOLUTIONS, "range", "colour"),
        (CONVOLUTIONS, "standard", "colour"),
        (CONVOLUTIONS, "range", "grey"),
    ],
)
def test_every_model_and_scaling_is_proven_in_grey_and_in_colour(
    tmp_path: Path, model: Model, scaling: str, colour: str
) -> None:
    folder = photographed.folder(tmp_path / "photos", count=30)
    split = Split(test=0.3)
    source = Images.model_validate(
        {"kind": "images", "path": str(folder), "scaling": scaling, "colour": colour, "split": split}
    )
    training = Training(epochs=3, batch_size=8, lr=0.001, device="cpu")
    experiment = Experiment(name="x", data=source, model=model, training=training)
    dataset = prepare(source, tmp_path)
    fit = trainer.fit(dataset, source, model, training, tmp_path, lambda *_: None)
    evaluated = evaluate.fn(experiment, dataset, fit, None)
    bare = export.fn(experiment, dataset, fit)
    artifact = stamp.fn(experiment, dataset, fit, evaluated, bare, verify.fn(experiment, dataset, fit, bare, None))
    assert certificate.check(artifact.path).holds
    assert fit.epochs == 3


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (50, 16), (500, 32)])
def test_model_and_training_suit_the_number_of_images(tmp_path: Path, count: int, batch_size: int) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            (tmp_path / "photos" / name / f"{number}.png").touch()
    experiment = options.experiment(str(tmp_path / "photos"), [])
    assert isinstance(experiment.model, CNN)
    assert experiment.training.batch_size == batch_size
    assert 0 < experiment.training.patience < experiment.training.epochs
    assert options.experiment(str(tmp_path / "photos"), ["--training.batch_size=7"]).training.batch_size == 7


def test_a_folder_in_a_toml_file_is_relative_to_that_file(tmp_path: Path) -> None:
    photographed.folder(tmp_path / "photos", count=3)
    lines = ['name = "mine"', "[data]", 'kind = "images"', 'path = "photos"', "height = 9", "width = 8"]
    (tmp_path / "mine.toml").write_text("\n".join(lines) + "\n")
    experiment = options.experiment(str(tmp_path / "mine.toml"), [])
    assert isinstance(experiment.data, Images)
    assert (experiment.name, experiment.data.path) == ("mine", str(tmp_path / "photos"))
    assert (experiment.data.height, experiment.data.width, experiment.data.scaling) == (9, 8, "range")
    moved = experiment.data.model_copy(update={"path": "/elsewhere"})
    assert experiment.model_copy(update={"data": moved}).digest == experiment.digest


def test_plots_of_colour_images_are_in_colour(trained: tuple[Experiment, Outcome], tmp_path: Path) -> None:
    _, path = data_profile.profile(trained[1].dataset, tmp_path)
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    red, blue = pixels[:, :, 0] - pixels[:, :, 2] > 100, pixels[:, :, 2] - pixels[:, :, 0] > 100
    assert red.sum() > 1000
    assert blue.sum() > 1000
    test = open_split(trained[1].dataset, "test")
    wrong = np.eye(2, dtype=np.float32)[1 - test.y]
    drawn = evaluation_plots.mistakes(
        np.asarray(test.x), test.y, wrong, ("blue", "red"), tmp_path / "mistakes.png", light=True
    )
    pixels = np.asarray(Image.open(drawn).convert("RGB")).astype(int)
    assert (pixels[:, :, 0] - pixels[:, :, 2] > 100).sum() > 1000


def missing(folder: Path) -> None:
    folder.rename(folder.parent / "elsewhere")


def empty(folder: Path) -> None:
    (folder / "green").mkdir()


def escaping(folder: Path) -> None:
    (folder / "red" / "x.png").symlink_to("/etc/hostname")


def unreadable(folder: Path) -> None:
    for number in (0, 1):
        (folder / "red" / f"{number:03d}.png").write_text("none")


def bombed(folder: Path) -> None:
    for number in (0, 1):
        bomb(folder / "red" / f"{number:03d}.png", 30_000)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, "photos: there is no such file or folder"),
        (empty, "green: has no images"),
        (escaping, "red/x.png: is a link that leaves"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], None], message: str
) -> None:
    folder = photographed.folder(tmp_path / "photos", count=3)
    spoil(folder)
    assert run(["train", str(folder)]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (unreadable, "2 of 40 files (5.0%) cannot be read (red/000.png"),
        (bombed, "red/000.png: has more than 89,478,485"),
    ],
)
def test_faults_found_while_reading_the_files_are_refused_in_one_line_too(
    tmp_path: Path, console: Call, spoil: Callable[[Path], None], message: str
) -> None:
    folder = photographed.folder(tmp_path / "photos", count=20)
    spoil(folder)
    code, output, error = console("train", folder, "--json")
    assert code == 2, error
    assert message in error
    assert len(error.strip().splitlines()) == 1
    result = json.loads(output.splitlines()[-1])
    assert result["status"] == "refused"
    assert not (settings.read().home / "fits" / "x").exists()


def test_a_name_that_belongs_to_another_source_is_refused(
    trained: tuple[Experiment, Outcome], tmp_path: Path, console: Call
) -> None:
    """`photos` is the name of the folder of `trained`; `digits` that of a preset."""
    assert trained[1].model_version.name == "photos"
    for name, message in (
        ("photos", "the model 'photos' was trained on "),
        ("digits", "'digits' is the name of a preset"),
    ):
        folder = photographed.folder(tmp_path / name, count=20)
        code, _, error = console("train", folder, *FAST)
        assert (code, len(error.strip().splitlines()[-1:])) == (2, 1)
        assert message in error
        assert "add --name" in error
    assert options.experiment(str(photographed.folder(tmp_path / "photos.v2", count=3)), []).name == "photos.v2"


def test_folders_for_each_split_are_the_split_given(tmp_path: Path) -> None:
    for name, count in (("train", 30), ("val", 8), ("test", 9)):
        photographed.folder(tmp_path / "photos" / name, count=count)
    experiment = options.experiment(str(tmp_path / "photos"), [])
    assert experiment.data.split.method == "given"
    assert prepare(experiment.data, tmp_path / "home").rows == {"train": 60, "validation": 16, "test": 18}
    stratified = options.experiment(str(tmp_path / "photos"), ["--data.split.method", "stratified"])
    assert sum(prepare(stratified.data, tmp_path / "home").rows.values()) == 94


def test_height_without_width_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = photographed.folder(tmp_path / "photos", count=3)
    assert run(["train", str(folder), "--data.height", "8"]) == 2
    assert "height 8 and width None: give both or neither" in capsys.readouterr().err
