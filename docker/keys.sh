#!/bin/sh
# Prints new WireGuard keys for compose.yaml: sh docker/keys.sh > docker/.env
# Of tunnel IJ, side 1 is the router with the smaller number. RLR is the command that makes keys; by default the image does.
set -eu
umask 077

RLR=${RLR:-docker run --rm -i --network none rlr:slim}
# RLR may be several words.
rlr() { $RLR "$@"; }

echo "# Private keys: keep this file to yourself."
for tunnel in 12 13 23; do
  for side in 1 2; do
    key=$(rlr genkey)
    pub=$(printf '%s\n' "$key" | rlr pubkey)
    echo "TUN${tunnel}_KEY${side}=${key}"
    echo "TUN${tunnel}_PUB${side}=${pub}"
  done
done
