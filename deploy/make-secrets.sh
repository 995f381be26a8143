#!/bin/sh
# Creates deploy/secrets: a random password for each user of the bus, and the API key. Existing files are kept.
# Only you can enter the folder; the files themselves are readable, for the containers they are mounted into.
set -eu
cd "$(dirname "$0")"
umask 022
mkdir -p secrets
chmod 700 secrets
for name in admin catalog gateway tagger trainer api_key; do
    [ -s "secrets/$name" ] || printf 'p%s\n' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" > "secrets/$name"
    chmod 444 "secrets/$name"
done
