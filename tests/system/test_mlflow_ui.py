"""MLflow's UI as served by `hallmark ui`: runs, comparison and artifacts of a published and a corrected preset."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from hallmark.flows.experiments import presets
from hallmark.flows.train import train
from hallmark.tasks.ml.artifact import certificate
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.runtime.prefect_api import answers
from tests.support import browsers, databases
from tests.support.processes import HALLMARK, free_port, process, until

CORRECTED, PUBLISHED = "iris", "iris_as_published"


@pytest.fixture(scope="module")
def folder(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:  # noqa: ARG001 - the server comes first
    """Train both presets in a new home and tracking store; return their folder."""
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HALLMARK_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", databases.mlflow(folder / "mlruns" / "mlflow.db"))
        train(experiment(PUBLISHED))
        train(experiment(CORRECTED))
        yield folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    port = free_port()
    with process([HALLMARK, "ui", "--port", str(port)], folder / "ui.log"):
        until(lambda: answers(f"http://127.0.0.1:{port}"))
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page(address: str, tmp_path: Path) -> Iterator[Page]:
    """Open the address that `hallmark ui` prints."""
    with browsers.open_page(tmp_path, is_ours=False) as page:
        page.goto(address)
        yield page


def experiment(name: str) -> Experiment:
    preset = presets.get(name)
    return preset.model_copy(update={"training": preset.training.model_copy(update={"device": "cpu"})})


def run_name(name: str) -> str:
    return presets.run_name(experiment(name))


def differences() -> dict[str, list[str]]:
    """Return the fields that differ as `[corrected, published]`. The UI shows the later run first."""
    corrected, published = experiment(CORRECTED).flat(), experiment(PUBLISHED).flat()
    return {name: [str(corrected[name]), str(value)] for name, value in published.items() if corrected[name] != value}


def open_runs(page: Page) -> None:
    """Open the list of runs of the MLflow experiment."""
    browsers.follow(page.get_by_role("link", name="iris", exact=True))
    for name in (CORRECTED, PUBLISHED):
        page.get_by_role("link", name=run_name(name), exact=True).wait_for()


def open_run(page: Page, name: str) -> None:
    open_runs(page)
    browsers.follow(page.get_by_role("link", name=run_name(name), exact=True))
    page.get_by_role("heading", name=run_name(name)).wait_for()


def open_compare(page: Page) -> None:
    """Select both runs and press Compare."""
    open_runs(page)
    page.locator(".ag-header input[type=checkbox]").first.click()
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("heading", name="Comparing 2 Runs from 1 Experiment").wait_for()


def section(page: Page, heading: str) -> Locator:
    """Return the innermost section of Compare with this heading and a switch."""
    return page.locator("div").filter(has_text=heading).filter(has=page.get_by_role("switch")).last


def rows(table: Locator) -> dict[str, list[str]]:
    """Return the rows of a table by their first cell."""
    cells = [row.locator("th, td").all_inner_texts() for row in table.get_by_role("row").all()]
    return {name.strip(): ["".join(text.split()) for text in texts] for name, *texts in cells}


def curves(page: Page) -> set[str]:
    """Return the SVG paths of the drawn lines. Plotly draws each line twice, smoothed and unsmoothed."""
    drawn = page.locator(".js-plotly-plot .scatterlayer .trace path.js-line").all()
    return {str(line.get_attribute("d")) for line in drawn}


def displayed_image(page: Page) -> list[str | int]:
    """Return URL, width and height of the displayed image, or an empty list if there is none yet."""
    script = "images => images.slice(0, 1).flatMap(one => [one.src, one.naturalWidth, one.naturalHeight])"
    image: list[str | int] = page.locator("img[src^=blob]").evaluate_all(script)
    return image


def test_ui_opens_on_training_runs_without_banners(page: Page, folder: Path) -> None:
    page.get_by_text("Recent Experiments").wait_for()
    open_runs(page)
    assert "workflowType=machine_learning" in page.url
    for banner in ("MLflow collects usage data", "Ask questions about your", "Detect Issues"):
        expect(page.get_by_text(banner)).to_have_count(0)
    assert "Traceback" not in (folder / "ui.log").read_text()


def test_choice_of_the_user_is_kept_after_a_reload(page: Page) -> None:
    page.get_by_role("button", name="GenAI").click()
    expect(page.get_by_role("link", name="Prompts", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("link", name="Prompts", exact=True)).to_be_visible()


def test_compare_shows_the_parameters_that_differ(page: Page, pictures: Path) -> None:
    open_compare(page)
    table = page.locator("table").nth(1)
    values_by_name = rows(table)
    assert set(values_by_name) == set(experiment(CORRECTED).flat())
    assert {name: values for name, values in values_by_name.items() if len(set(values)) == 2} == differences()
    page.get_by_role("switch").first.click()
    expect(table.get_by_role("row")).to_have_count(len(differences()))
    assert rows(table) == differences()
    browsers.take_screenshot(pictures / "mlflow_compare.png", page.get_by_text("Run details"), table)


def test_compare_draws_both_loss_curves(page: Page, pictures: Path) -> None:
    open_compare(page)
    browsers.follow(page.get_by_role("link", name="train/loss", exact=True))
    for name in (CORRECTED, PUBLISHED):
        expect(page.get_by_text(f"{run_name(name)} (train/loss)")).to_be_visible()
    until(lambda: len(curves(page)) == 2)
    assert all(curve.count("L") > 10 for curve in curves(page))
    page.screenshot(path=pictures / "mlflow_curves.png")


@pytest.mark.parametrize("name", [CORRECTED, PUBLISHED])
def test_pictures_of_a_run_open(name: str, page: Page, folder: Path) -> None:
    open_run(page, name)
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("pictures", exact=True).click()
    run = page.url.split("/runs/")[1].split("/")[0]
    files = list(folder.glob(f"mlruns/artifacts/*/{run}/artifacts/pictures/*.png"))
    assert len(files) >= 4
    for file in files:
        before = displayed_image(page)[:1]  # the previous image may still be displayed
        page.get_by_text(file.name, exact=True).click()
        page.get_by_text(f"pictures/{file.name}", exact=True).wait_for()
        with Image.open(file) as image:
            size = [*image.size]
        until(lambda: displayed_image(page)[1:] == size and displayed_image(page)[:1] != before)  # noqa: B023 - called at once


def test_description_of_a_run_lists_its_findings(page: Page) -> None:
    open_run(page, PUBLISHED)
    for code in ("scaling_fitted_beyond_training", "training_loss_as_validation"):
        expect(page.locator("li strong", has_text=code)).to_be_visible()


def test_model_version_of_a_run_shows_schema_and_offers_the_file(page: Page, folder: Path) -> None:
    open_run(page, CORRECTED)
    browsers.follow(page.locator("a[href*='#/models/iris/versions/1']").first)
    expect(page.get_by_text("@ champion")).to_be_visible()
    page.get_by_text("Inputs (4)").click()
    page.get_by_text("Outputs (2)").click()
    (file,) = folder.glob("home/fits/*/iris.onnx")
    for column in certificate.read(file)[0].inputs:
        expect(page.get_by_role("row", name=column.name)).to_contain_text("Tensor (dtype: float32, shape: [-1,1])")
    expect(page.get_by_role("row", name="probabilities")).to_contain_text("Tensor (dtype: float32, shape: [-1,3])")
    browsers.follow(page.get_by_role("link", name="model", exact=True))
    browsers.follow(page.get_by_role("link", name="Artifacts", exact=True))
    page.get_by_text("model.onnx", exact=True).click()
    size = page.get_by_text(f"{round(file.stat().st_size / 1024, 2):g}KB")
    with page.expect_download() as download:
        page.locator("div").filter(has=size).filter(has=page.get_by_role("button")).last.get_by_role("button").click()
    assert download.value.path().read_bytes() == file.read_bytes()
