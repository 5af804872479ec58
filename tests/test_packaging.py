"""What is said once is said once: the version, the checks before a merge, the floor of the coverage."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import bitwidth as bw

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
CI = (ROOT / ".ci" / "run").read_text("utf-8")


def test_the_version_is_written_in_one_place() -> None:
    assert "version" in PROJECT["project"]["dynamic"]
    assert "version" not in PROJECT["project"]
    place = ROOT / PROJECT["tool"]["hatch"]["version"]["path"]
    assert f'\n__version__ = "{bw.__version__}"\n' in place.read_text("utf-8")
    others = [path for path in (ROOT / "bitwidth").rglob("*.py") if "__version__ =" in path.read_text("utf-8")]
    assert others == [place]


def test_the_hooks_before_a_commit_are_checks_of_ci() -> None:
    hooks = re.findall(r"entry: python -m (.+)", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    assert [hook.split()[0] for hook in hooks] == ["ruff", "ruff", "mypy"]
    assert all(re.search(rf"^\.venv/bin/{hook}( \.)?$", CI, re.MULTILINE) for hook in hooks)
    tools = {re.split(r"[<>=]", item)[0] for item in PROJECT["project"]["optional-dependencies"]["dev"]}
    assert tools >= {"ruff", "mypy", "pre-commit", "pytest-cov"}


def test_coverage_has_a_floor_and_leaves_nothing_out() -> None:
    settings = PROJECT["tool"]["coverage"]
    assert settings["run"]["branch"]
    assert settings["report"]["fail_under"] >= 95
    assert settings["report"]["exclude_also"] == ["if TYPE_CHECKING:", "raise AssertionError"]
    assert "--cov" in CI
    assert not [path for path in (ROOT / "bitwidth").rglob("*.py") if "pragma: no " in path.read_text("utf-8")]


def test_what_the_coverage_step_leaves_out_exists() -> None:
    ignored = re.findall(r"--ignore=(\S+)", CI)
    assert len(ignored) > 1
    assert [name for name in ignored if not (ROOT / name).exists()] == []
