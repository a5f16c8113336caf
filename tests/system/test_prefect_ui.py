"""Prefect's UI as served by `hallmark up`: graph and summary of a run, and the form that starts one."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect
from pydantic import BaseModel
from scipy import ndimage

from hallmark.flows.experiments import presets
from hallmark.tasks.ml.config.experiment import Experiment
from hallmark.tasks.ml.evaluation.promotion.decision_rule import Rule
from tests.support import browsers, stations
from tests.support.processes import until
from tests.support.stations import Workspace

STEPS = ("prepare", "examine", "fit", "evaluate", "diagnose", "export", "verify", "stamp", "register", "card")
SCHEDULE = """
[[schedule]]
name = "iris-yearly"
experiment = "iris"
cron = "0 0 1 1 *"
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """Start a station and train the iris preset in it."""
    with stations.open_workspace(tmp_path_factory.mktemp("station")) as workspace:
        workspace.schedules.write_text(SCHEDULE)
        for arguments in (["up", "--detach"], ["train", "iris", "--training.device", "cpu"]):
            completed = workspace.hallmark(*arguments)
            assert completed.returncode == 0, completed.stderr
        yield workspace


@pytest.fixture
def page(workspace: Workspace, tmp_path: Path) -> Iterator[Page]:
    """Open the Prefect address that `hallmark up` prints."""
    with browsers.open_page(tmp_path, is_ours=False) as page:
        page.goto(workspace.station.url("prefect"))
        page.get_by_text("Dashboard").first.wait_for()
        yield page


def open_part(page: Page, name: str) -> None:
    """Follow a link of the sidebar."""
    page.locator("a.p-context-nav-item", has_text=name).click()


def open_run(page: Page) -> None:
    open_part(page, "Runs")
    page.get_by_role("link", name="iris training.device=cpu").first.click()
    page.get_by_text(f"{len(STEPS)} Task runs").wait_for()


def boxes(page: Page) -> list[tuple[float, float, int]]:
    """Return centre and area, in pixels, of the boxes in the run graph. Completed tasks are green."""
    canvas = page.locator("canvas")
    with Image.open(io.BytesIO(canvas.screenshot())) as image:
        red, green, blue = np.asarray(image.convert("RGB"), int).transpose(2, 0, 1)
    labels, count = ndimage.label((green > red + 60) & (green > blue + 40))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    box = canvas.bounding_box()
    assert box
    lowest = box["height"] - 20  # below is the bar with the states of the flow run
    regions = [(*ndimage.center_of_mass(labels == label), sizes[label]) for label in range(1, count + 1)]
    return [(box["x"] + x, box["y"] + y, size) for y, x, size in regions if size > 200 and y < lowest]


def fields(model: type[BaseModel]) -> list[tuple[str, str]]:
    """Return title and description of a model's fields in order; the fields of a nested model follow its own entry."""
    entries: list[tuple[str, str]] = []
    for name, field in model.model_json_schema()["properties"].items():
        entries.append((field.get("title", name.title()), field["description"]))
        kind = model.model_fields[name].annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            entries += fields(kind)
    return entries


def field(page: Page, title: str) -> Locator:
    label = page.get_by_text(re.compile(rf"^{title}( \(Optional\))?$"))
    return page.locator(".schema-form-property").filter(has=label).last


def submit(page: Page) -> dict[str, Any] | None:
    """Submit the form; return the new flow run, or None if the server answers 503 because its SQLite is locked."""
    with page.expect_response(re.compile("create_flow_run")) as response:
        page.get_by_role("button", name="Submit").click()
    body: dict[str, Any] = response.value.json()
    assert response.value.status in (201, 503), body
    return body if response.value.ok else None


def test_graph_of_a_run_has_a_box_for_each_step(page: Page, pictures: Path) -> None:
    open_run(page)
    until(lambda: len(boxes(page)) == len(STEPS))
    browsers.take_screenshot(pictures / "prefect_run.png", page.locator(".p-bread-crumbs"), page.locator("canvas"))
    x, y, _ = max(boxes(page), key=lambda box: box[2])
    page.mouse.click(x, y)
    panel = page.locator("[class*=selection-panel]")
    panel.get_by_text("Completed").wait_for()
    assert panel.inner_text().splitlines()[0] in {f"{step} iris" for step in STEPS}
    page.locator("#task-runs").click()
    tab = page.get_by_role("tabpanel")
    for step in STEPS:
        expect(tab.get_by_role("link", name=f"{step} iris", exact=True).first).to_be_visible()


def test_summary_of_a_run_is_a_table_with_a_link_to_mlflow(page: Page, pictures: Path) -> None:
    open_run(page)
    page.locator("#artifacts").click()
    page.get_by_role("link", name="summary").click()
    table = page.locator("table")
    for row in ("test accuracy", "parity", "sha256", "iris version 1, champion"):
        expect(table.get_by_role("row").filter(has_text=row)).to_have_count(1)
    expect(page.get_by_role("heading", name="Findings")).to_be_visible()
    page.screenshot(path=pictures / "prefect_summary.png")
    with page.expect_popup() as popup:
        table.get_by_role("link", name="iris training.device=cpu").click()
    popup.value.get_by_role("heading", name="iris training.device=cpu").wait_for()


def open_form(page: Page) -> None:
    open_part(page, "Deployments")
    page.get_by_role("link", name="iris-yearly").first.click()
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.get_by_text("Custom run").first.click()
    field(page, "Latency Budget").wait_for()


def test_form_of_a_schedule_shows_all_fields_and_descriptions(page: Page, pictures: Path) -> None:
    open_form(page)
    experiment, rule = fields(Experiment), fields(Rule)
    titles = [
        "experiment",
        *(title for title, _ in experiment),
        "rule",
        *(title for title, _ in rule),
        "notify",
        "schedule",
        "derived_name",
    ]
    shown = page.locator(".schema-form-property__label").all_inner_texts()
    assert [title.removesuffix(" (Optional)") for title in shown] == titles
    text = page.locator("form").inner_text()
    assert [description for _, description in experiment + rule if description not in text] == []
    page.screenshot(path=pictures / "prefect_form.png")


def test_form_of_a_schedule_starts_a_run_with_its_values(page: Page, workspace: Workspace) -> None:
    open_form(page)
    field(page, "Epochs").locator("input").fill("3")
    run = until(lambda: submit(page))
    expected = presets.get("iris")
    expected = expected.model_copy(update={"training": expected.training.model_copy(update={"epochs": 3})})
    assert run["parameters"]["experiment"] == json.loads(expected.model_dump_json())
    path = f"/flow_runs/{run['id']}"
    until(lambda: workspace.prefect(path)["state_type"] in ("COMPLETED", "FAILED", "CRASHED"))
    assert workspace.prefect(path)["state_type"] == "COMPLETED"
