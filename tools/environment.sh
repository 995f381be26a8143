#!/bin/sh
# Creates the virtual environment .venv with the packages a task needs; again if pyproject.toml or constraints.txt change.
# usage: tools/environment.sh EXTRA      (all: to run everything; dev: also to test and check)
set -eu
cd "$(dirname "$0")/.."
extra=$1
venv=${VENV:-.venv}
stamp="$venv/.made-$extra"

if [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt constraints.txt ]; then exit 0; fi
if [ "$extra" = all ] && [ -e "$venv/.made-dev" ] && [ "$venv/.made-dev" -nt pyproject.toml ] \
    && [ "$venv/.made-dev" -nt constraints.txt ]; then exit 0; fi

log() { printf '%s\n' "$*" >&2; }

python=
for name in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null 2>&1 \
        && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$name
        break
    fi
done
[ -n "$python" ] || { log "Loratory needs Python 3.11 or newer; none was found (set PYTHON to one)."; exit 2; }

if [ ! -x "$venv/bin/python" ]; then
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        log "$python cannot create virtual environments; on Debian and Ubuntu, first run:"
        log "    apt-get install python$version-venv"
        exit 2
    fi
    log "Creating the environment in $venv."
    "$python" -m venv "$venv"
fi
log "Installing what Loratory needs into $venv: about 500 MB to download the first time, 2 GB on disk"
log "(if the package index serves PyTorch with CUDA, as usual on Linux: about 3 GB and 8 GB)."
"$venv/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt --editable ".[$extra]"
touch "$stamp"
