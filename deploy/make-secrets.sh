#!/bin/sh
# Makes deploy/secrets: a random password for each user of the bus, and the key of the API. What is there is kept.
# The folder is yours alone; the files can be read by the containers they are mounted into.
set -eu
cd "$(dirname "$0")"
umask 022
mkdir -p secrets
chmod 700 secrets
for name in admin catalog gateway tagger trainer api_key; do
    [ -s "secrets/$name" ] || printf 'p%s\n' "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" > "secrets/$name"
    chmod 444 "secrets/$name"
done
