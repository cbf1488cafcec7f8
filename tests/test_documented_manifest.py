"""What docs/manifest.md says of other tools: jq and sha256sum read a manifest, Pillow and hashlib give its digests.

Its commands of pixzip run in tests/test_documents.py.
"""

from __future__ import annotations

import doctest
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import model_picture

import pixzip
from pixzip import cli

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("jq") is None or shutil.which("sha256sum") is None, reason="needs jq and sha256sum")
def test_jq_makes_the_columns_of_sha256sum(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    (tmp_path / "album").mkdir()
    for i in range(2):
        png = pixzip.write_image(pixzip.from_array(model_picture(9, 12, i)), "PNG")
        (tmp_path / "album" / f"{i}.png").write_bytes(png)
    places = [
        "-r",
        str(tmp_path / "album"),
        "-o",
        str(tmp_path / "packed"),
        "--manifest",
        str(tmp_path / "packed.jsonl"),
    ]
    assert cli.main(["compress", "-q", *places, "--model", str(model)]) == 0
    (columns,) = re.findall(r"^    (cd .*)$", (ROOT / "docs" / "manifest.md").read_text(), re.MULTILINE)
    assert subprocess.run(columns, shell=True, cwd=tmp_path, capture_output=True).returncode == 0
    (tmp_path / "packed" / "0.pxz").write_bytes(b"changed")
    assert subprocess.run(columns, shell=True, cwd=tmp_path, capture_output=True).returncode != 0


def test_python_in_the_document_on_manifests_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testfile(str(ROOT / "docs" / "manifest.md"), module_relative=False)
    assert results.attempted > 4 and results.failed == 0
