#!/usr/bin/env bash
# Installs what is needed and runs the tests; what follows on the command line goes to pytest.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup_venv.sh"
exec .venv/bin/python -m pytest "$@"
