"""The built wheel, installed into an environment of its own without any development dependency."""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]

SMOKE = """
import sys, tempfile
from importlib.metadata import distributions
from pathlib import Path
import ledger, projections
from ledger import Credentials, FileTokenStore, LeaseKey, LeaseLedger, PersistedTokens

installed = {d.metadata["Name"].lower() for d in distributions()}
assert not installed & {"pytest", "hypothesis", "mypy", "ruff", "django"}, installed
assert "site-packages" in ledger.__file__ and "site-packages" in projections.__file__
assert (Path(ledger.__file__).parent / "py.typed").exists()
assert (Path(projections.__file__).parent / "py.typed").exists()
with tempfile.TemporaryDirectory() as folder:
    key = LeaseKey.parse("dev:openai:work")
    with LeaseLedger.open(f"sqlite:///{folder}/auth.db") as opened:
        credentials = Credentials(opened, FileTokenStore(f"{folder}/tokens"))
        credentials.login(key, PersistedTokens.static_bearer("a secret"))
        print(credentials.status(key).phase, opened.verify().ok)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_works_without_development_dependencies(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path)

    assert run(python, "-c", SMOKE, cwd=tmp_path).split() == ["valid", "True"]
    assert "Usage: lease-ledger" in run(python.with_name("lease-ledger"), "--help", cwd=tmp_path)
