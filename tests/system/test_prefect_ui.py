"""Prefect's UI as `hallmark up` serves it: a run, what it says of itself, and the form that asks for another."""

import io
import json
import re
import urllib.request
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
    """A station in which the preset iris has been trained."""
    with stations.open_workspace(tmp_path_factory.mktemp("station")) as workspace:
        workspace.schedules.write_text(SCHEDULE)
        for words in (["up", "--detach"], ["train", "iris", "--training.device", "cpu"]):
            done = workspace.hallmark(*words)
            assert done.returncode == 0, done.stderr
        yield workspace


@pytest.fixture
def page(workspace: Workspace, tmp_path: Path) -> Iterator[Page]:
    """What somebody sees first who follows what `hallmark up` prints."""
    with browsers.open_page(tmp_path) as page:
        page.goto(workspace.station.url("prefect"))
        page.get_by_text("Dashboard").first.wait_for()
        yield page


def read(workspace: Workspace, run: str) -> dict[str, Any]:
    """A run as Prefect's API tells of it."""
    with urllib.request.urlopen(f"{workspace.station.url('prefect')}/api/flow_runs/{run}", timeout=30) as answer:  # noqa: S310 - our own address
        found: dict[str, Any] = json.load(answer)
    return found


def open_part(page: Page, name: str) -> None:
    """Follow the sidebar."""
    page.locator("a.p-context-nav-item", has_text=name).click()


def open_run(page: Page) -> None:
    open_part(page, "Runs")
    page.get_by_role("link", name="iris training.device=cpu").first.click()
    page.get_by_text(f"{len(STEPS)} Task runs").wait_for()


def boxes(page: Page) -> list[tuple[float, float, int]]:
    """The boxes of the run graph, green for completed: centre from the page's upper left, and size, in pixels."""
    canvas = page.locator("canvas")
    with Image.open(io.BytesIO(canvas.screenshot())) as picture:
        red, green, blue = np.asarray(picture.convert("RGB"), int).transpose(2, 0, 1)
    labels, count = ndimage.label((green > red + 60) & (green > blue + 40))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    box = canvas.bounding_box()
    assert box
    lowest = box["height"] - 20  # below is the bar with the states of the flow run
    found = [(*ndimage.center_of_mass(labels == label), sizes[label]) for label in range(1, count + 1)]
    return [(box["x"] + x, box["y"] + y, size) for y, x, size in found if size > 200 and y < lowest]


def fields(part: type[BaseModel]) -> list[tuple[str, str]]:
    """Title and description of a part's fields, in their order, each part of it followed by its own."""
    found: list[tuple[str, str]] = []
    for name, field in part.model_json_schema()["properties"].items():
        found.append((field.get("title", name.title()), field["description"]))
        kind = part.model_fields[name].annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += fields(kind)
    return found


def field(page: Page, title: str) -> Locator:
    label = page.get_by_text(re.compile(rf"^{title}( \(Optional\))?$"))
    return page.locator(".schema-form-property").filter(has=label).last


def submit(page: Page) -> dict[str, Any] | None:
    """Send the form; the run that is made of it. Prefect's server answers 503 where two write to its SQLite at once."""
    with page.expect_response(re.compile("create_flow_run")) as answer:
        page.get_by_role("button", name="Submit").click()
    said: dict[str, Any] = answer.value.json()
    assert answer.value.status in (201, 503), said
    return said if answer.value.ok else None


def test_a_runs_graph_has_a_box_for_each_step(page: Page, pictures: Path) -> None:
    open_run(page)
    until(lambda: len(boxes(page)) == len(STEPS))
    browsers.take_screenshot(pictures / "prefect_run.png", page.locator(".p-bread-crumbs"), page.locator("canvas"))
    x, y, _ = max(boxes(page), key=lambda box: box[2])
    page.mouse.click(x, y)
    panel = page.locator("[class*=selection-panel]")
    panel.get_by_text("Completed").wait_for()
    assert panel.inner_text().splitlines()[0] in {f"{step} iris" for step in STEPS}
    page.locator("#task-runs").click()
    listed = page.get_by_role("tabpanel")
    for step in STEPS:
        expect(listed.get_by_role("link", name=f"{step} iris", exact=True).first).to_be_visible()


def test_a_runs_summary_is_a_table_that_leads_to_mlflow(page: Page, pictures: Path) -> None:
    open_run(page)
    page.locator("#artifacts").click()
    page.get_by_role("link", name="summary").click()
    table = page.locator("table")
    for row in ("test accuracy", "parity", "sha256", "iris version 1, champion"):
        expect(table.get_by_role("row").filter(has_text=row)).to_have_count(1)
    expect(page.get_by_role("heading", name="Findings")).to_be_visible()
    page.screenshot(path=pictures / "prefect_summary.png")
    with page.expect_popup() as opened:
        table.get_by_role("link", name="iris training.device=cpu").click()
    opened.value.get_by_role("heading", name="iris training.device=cpu").wait_for()


def open_form(page: Page) -> None:
    open_part(page, "Deployments")
    page.get_by_role("link", name="iris-yearly").first.click()
    page.get_by_role("button", name="Run", exact=True).first.click()
    page.get_by_text("Custom run").first.click()
    field(page, "Latency Budget").wait_for()


def test_the_form_of_a_schedule_has_every_field_and_says_what_it_means(page: Page, pictures: Path) -> None:
    open_form(page)
    inner, rule = fields(Experiment), fields(Rule)
    titles = ["experiment", *(title for title, _ in inner), "rule", *(title for title, _ in rule), "notify", "schedule"]
    shown = page.locator(".schema-form-property__label").all_inner_texts()
    assert [title.removesuffix(" (Optional)") for title in shown] == titles
    text = page.locator("form").inner_text()
    assert [said for _, said in inner + rule if said not in text] == []
    page.screenshot(path=pictures / "prefect_form.png")


def test_the_form_of_a_schedule_can_be_sent_and_what_it_asks_for_is_run(page: Page, workspace: Workspace) -> None:
    open_form(page)
    field(page, "Epochs").locator("input").fill("3")
    run = until(lambda: submit(page))
    asked = presets.get("iris")
    asked = asked.model_copy(update={"training": asked.training.model_copy(update={"epochs": 3})})
    assert run["parameters"]["experiment"] == json.loads(asked.model_dump_json())
    until(lambda: read(workspace, run["id"])["state_type"] in ("COMPLETED", "FAILED", "CRASHED"))
    assert read(workspace, run["id"])["state_type"] == "COMPLETED"
