#!/usr/bin/env bash
# Installs what is needed and runs the tests, two files at a time; what follows on the command line
# goes to pytest (-n 0 for one process).
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"
exec .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
