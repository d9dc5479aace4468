"""Nothing that users import has a type that checkers have to guess."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("package", ["ledger", "projections"])
def test_every_name_users_import_has_a_type_that_all_checkers_agree_on(package: str, tmp_path: Path) -> None:
    bin_folder = Path(sys.executable).parent
    done = subprocess.run(
        [bin_folder / "basedpyright", "--verifytypes", package, "--ignoreexternal", "--outputjson"],
        check=False,
        capture_output=True,
        text=True,
        # Outside of the project, so that it is looked at as an installed package is.
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
    )
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    imported = [symbol for symbol in symbols if symbol["isExported"] and symbol["name"].count(".") == 1]
    assert len(imported) > 20
    unclear = [symbol["name"] for symbol in imported if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]]
    assert unclear == []
