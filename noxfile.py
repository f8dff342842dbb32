"""The test suite on other Pythons, with the newest and with the oldest dependencies: `nox` (pip install nox uv).

nox -s newest-3.13            # what pip would install today
nox -s oldest                 # the lower ends of the ranges in pyproject.toml
"""

import nox

nox.options.default_venv_backend = "uv"

EXTRAS = ",".join(set(nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]) - {"timm", "docs"})


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def newest(session: nox.Session) -> None:
    """With the newest releases."""
    session.install("--upgrade", "--editable", f".[{EXTRAS}]")
    session.run("python", "-m", "pytest", *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(python="3.11")
def oldest(session: nox.Session) -> None:
    """With the oldest releases that pyproject.toml allows."""
    session.install("--resolution", "lowest-direct", "--editable", f".[{EXTRAS}]")
    session.run("python", "-m", "pytest", *session.posargs, env={"OMP_NUM_THREADS": "1"})
