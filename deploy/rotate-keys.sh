#!/bin/sh
# New nkeys for all users of the bus while the containers run. Services reconnect with the new ones by themselves.
set -eu
cd "$(dirname "$0")/.."
for step in 1 2; do
    sh deploy/make-secrets.sh --rotate
    docker compose kill --signal HUP nats
    sleep 2 # the server reads its files after the signal
done
