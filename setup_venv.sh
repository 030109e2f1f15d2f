# Make .venv and install a lock into it, once:
#   source setup_venv.sh requirements.lock        what running needs (the default)
#   source setup_venv.sh requirements-dev.lock    also what tests and checks need

UV_VERSION=0.13.9

find_python() {
    local name
    for name in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.10; do
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
            echo "$name"
            return
        fi
    done
    echo "No Python 3.10 to 3.13 found. Install one, or name it with PYTHON=/path/to/python" >&2
    return 1
}

make_venv() {
    local python
    python="$(find_python)" || return 1
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || {
        echo "Python cannot make a virtual environment. Install its venv module (python3-venv)" >&2
        return 1
    }
    # Commands typed after `source .venv/bin/activate` send no usage reports either.
    echo 'export DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true' >>.venv/bin/activate
    pip_install "uv==$UV_VERSION" || echo "No uv $UV_VERSION; installing with pip" >&2
}

pip_install() {
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
}

install() {
    # uv needs a fifth of pip's time. pip serves where uv is missing or fails.
    if [ -x .venv/bin/uv ]; then
        .venv/bin/uv pip install --quiet --python .venv/bin/python "$@" && return
        echo "uv failed; installing with pip" >&2
    fi
    pip_install "$@"
}

lock_state() {
    # An install is out of date when the lock, pyproject.toml or the folder changes.
    echo "$1 $(cat "$1" pyproject.toml | cksum) $(pwd)"
}

setup_venv() {
    # .venv/installed has one line per installed lock. requirements-dev.lock contains all of
    # requirements.lock, so tests add to an up-to-date .venv. All else begins with a new one.
    local lock="$1" state run_state installed
    state="$(lock_state "$lock")"
    run_state="$(lock_state requirements.lock)"
    installed="$(.venv/bin/python -c '' 2>/dev/null && cat .venv/installed 2>/dev/null)"
    if grep -qxF "$state" <<<"$installed"; then
        return
    fi
    if [ "$installed" != "$run_state" ]; then
        make_venv || return 1
    fi
    echo "Installing $lock into .venv (once)"
    install --requirement "$lock" || return 1
    install --no-deps --editable . || return 1
    printf '%s\n' "$run_state" "$state" | sort -u >.venv/installed
}

export DO_NOT_TRACK=true MLFLOW_DISABLE_TELEMETRY=true
cd "$(dirname "${BASH_SOURCE[0]}")" && setup_venv "${1:-requirements.lock}" || return 1
