"""The lock files pin what pyproject.toml asks for, and no more."""

from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Each lock by the requirements that it is for.
LOCKED = {
    "requirements.lock": [*PROJECT["dependencies"], *EXTRAS["app"], *EXTRAS["openvino"]],
    "requirements-dev.lock": [*PROJECT["dependencies"], *(r for e in EXTRAS.values() for r in e)],
}
ENVIRONMENTS = [
    {
        "python_version": version,
        "python_full_version": f"{version}.4",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        **machine,
    }
    for version in ("3.10", "3.11", "3.12", "3.13")
    for machine in (
        {"sys_platform": "linux", "os_name": "posix", "platform_machine": "x86_64"},
        {"sys_platform": "darwin", "os_name": "posix", "platform_machine": "arm64"},
    )
]


def pins(lock, environment=None):
    """Return the specifier of each package that a lock installs in an environment."""
    pinned = map(Requirement, (ROOT / lock).read_text().splitlines())
    return {
        canonicalize_name(pin.name): pin.specifier
        for pin in pinned
        if pin.marker is None or pin.marker.evaluate(environment)
    }


def wanted(lock):
    """Return the requirements of a lock, without the project's mention of itself."""
    return [r for r in map(Requirement, LOCKED[lock]) if r.name != PROJECT["name"]]


def with_dependencies(requirements):
    """Return the names of requirements and of all that they need, by what is installed here."""
    queue, seen = list(requirements), set()
    while queue:
        requirement = queue.pop()
        for extra in ("", *requirement.extras):
            name = canonicalize_name(requirement.name)
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needs = map(Requirement, requires(name) or [])
            queue += [n for n in needs if n.marker is None or n.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_lock_for_tests_contains_the_lock_for_running(environment):
    for_running = pins("requirements.lock", environment)
    for_tests = pins("requirements-dev.lock", environment)
    assert for_running.items() <= for_tests.items()
    assert len(for_running) > 100


@pytest.mark.parametrize("lock", LOCKED)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_requirement_is_pinned_to_a_version_it_allows(lock, environment):
    pinned = pins(lock, environment)
    for requirement in wanted(lock):
        (pin,) = pinned[canonicalize_name(requirement.name)]
        assert pin.operator == "=="
        assert requirement.specifier.contains(pin.version), requirement


@pytest.mark.parametrize("lock", LOCKED)
def test_a_lock_has_what_its_requirements_need_and_no_more(lock):
    assert set(pins(lock)) == with_dependencies(wanted(lock))


def test_users_install_no_tool_that_only_tests_need():
    for_running = pins("requirements.lock")
    tools = {Requirement(r).name for extra in ("dev", "dask", "s3") for r in EXTRAS[extra]}
    # MLflow needs flask-cors too; the extra dev names the project and its other extras.
    for_both = {"flask-cors", PROJECT["name"]}
    assert tools & for_running.keys() <= for_both


@pytest.mark.parametrize("lock", LOCKED)
def test_a_lock_names_no_index_and_no_path(lock):
    for line in (ROOT / lock).read_text().splitlines():
        assert not line.startswith("-")
        assert "/" not in line
        assert "@" not in line
