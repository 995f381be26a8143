#!/bin/sh
# Creates deploy/secrets: an nkey for each user of the bus, the API key, and what the NATS server knows of the users.
# Existing files are kept. `make-secrets.sh --rotate` makes new keys in two steps; see docs/operations.md.
# It runs in the image `init`; with PYTHON set, in that Python instead, if Loratory is installed there.
set -eu
cd "$(dirname "$0")"
if [ -n "${PYTHON:-}" ]; then
    exec "$PYTHON" -P -m contracts.wire.server.secret_files secrets "$@"
fi
mkdir -p secrets
image=$(docker build --quiet --target init ..)
exec docker run --rm --network none --user "$(id -u):$(id -g)" --volume "$PWD/secrets:/secrets" "$image" \
    python -P -m contracts.wire.server.secret_files /secrets "$@"
