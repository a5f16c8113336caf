"""`hallmark card`: the model card, and a page that runs the model in the browser."""

from pathlib import Path
from typing import TYPE_CHECKING

from hallmark.flows.cli.shared import output_file
from hallmark.flows.cli.shared.errors import report_errors
from hallmark.flows.cli.shared.printing import Flag, print_json, print_row, short_path
from hallmark.tasks.common.digests import RUN_ID_DIGITS
from hallmark.tasks.common.errors import HallmarkError, InputError

if TYPE_CHECKING:
    from hallmark.tasks.tracking.stored import StoredRun


def card(
    run: str,
    /,
    *,
    output: Path | None = None,
    live: Path | None = None,
    overwrite: Flag = False,
    json: Flag = False,
) -> None:
    """Save the card of a model: one HTML page, readable offline. Every run that ships a file writes one.

    The card shows the data, the test results, the worst mistakes and how to use the file. With --live, also write a
    folder whose page runs the model in the browser, on your drawings and pictures.

    Example: hallmark card iris@champion --output iris.html

    Parameters
    ----------
    run
        The first digits of a run id, the name of an experiment (its newest finished run), MODEL@ALIAS or
        models:/MODEL/VERSION.
    output
        File to write. Default: NAME.card.html in the current folder, unless --live is given.
    live
        Folder to write, for models whose input is an image. Open its index.html with a double click. The first use
        downloads onnxruntime-web (33 MB) from HALLMARK_NPM_REGISTRY, the address of an npm registry.
    overwrite
        Replace the file or the folder if it exists.
    json
        Print one JSON object instead of the paths.
    """
    from hallmark.tasks.runtime import signals

    with report_errors(as_json=json), signals.as_interrupt():
        from hallmark.tasks.ml.predict import output_files
        from hallmark.tasks.tracking import run_lookup, run_queries

        if output:
            output_files.check_output(output, "", overwrite=overwrite)
        stored = run_lookup.find(run)
        if not output and not live:
            output = Path(f"{stored.experiment}.card.html")
            output_files.check_output(output, "", overwrite=overwrite)
        content = run_queries.card(stored)
        page = _live(stored, content, live, overwrite=overwrite) if live else None
        if output:
            output_file.write(output, content)
    written = {"card": output and output.absolute(), "live": page and page.absolute()}
    if json:
        paths = {name: str(path) if path else None for name, path in written.items()}
        print_json({"status": "written", "run_id": stored.id, **paths})
    else:
        for name, path in written.items():
            if path:
                print_row(name, short_path(path), width=6)


def _live(run: "StoredRun", content: bytes, folder: Path, *, overwrite: bool) -> Path:
    from hallmark.tasks.ml.reports.live_page import browser_runtime, live_folder
    from hallmark.tasks.runtime import settings
    from hallmark.tasks.tracking import run_lookup

    try:
        file = run_lookup.shipped(run)
    except InputError as error:
        raise InputError(f"--live: run {run.id[:RUN_ID_DIGITS]}: {error}") from error
    live_folder.refuse_folder(file, folder, overwrite=overwrite)
    machine = settings.read()
    runtime = browser_runtime.fetch(machine.writable_home(), machine.npm_registry)
    accuracy = f"test accuracy {run.metrics['test/accuracy']:.1%}"
    lead = f"{run.experiment} version {run.model_version}, {accuracy}."
    try:
        return live_folder.write(file, content, lead, runtime, folder)
    except OSError as error:
        raise HallmarkError(f"{folder}: cannot be written: {error.strerror or error}") from error
