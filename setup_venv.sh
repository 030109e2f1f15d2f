# Makes .venv and installs requirements.lock into it, once. Sourced by run_all.sh and run_tests.sh.

find_python() {
    local name
    for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "No Python 3.10 to 3.13 found: install one, or name it with PYTHON=/path/to/python" >&2
    return 1
}

setup_venv() {
    # What is installed is known by the files that decide it and the place they are in.
    local wanted installed=.venv/installed python
    wanted="$(pwd) $(cat requirements.lock pyproject.toml | cksum)"
    if [ "$(cat "$installed" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
        return
    fi
    python="$(find_python)" || return 1
    echo "Installing into .venv with $("$python" --version) (a few minutes, once)"
    "$python" -m venv --clear .venv || {
        echo "Python cannot make a virtual environment: install its venv module (python3-venv)" >&2
        return 1
    }
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock || return 1
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable . || return 1
    # No usage reports from commands typed after `source .venv/bin/activate` either.
    echo 'export DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true' >>.venv/bin/activate
    echo "$wanted" >"$installed"
}

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
export DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true
setup_venv || exit 1
