#!/bin/sh
# install.sh VENV PYTHON WHAT: make the virtual environment if there is none, then install WHAT
# editable, pinned by constraints.txt; by uv where it is installed, else by venv and pip.
set -eu
venv=$1 python=$2 what=$3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "phonenas needs Python 3.11 or newer; $python is $("$python" --version). Name another:  make PYTHON=python3.12 ..." >&2
    exit 1
}
if command -v uv >/dev/null 2>&1; then
    [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
    uv pip install --quiet --python "$venv/bin/python" --constraint constraints.txt --editable "$what"
else
    [ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable "$what"
fi
