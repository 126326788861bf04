#!/bin/sh
# Make what compose.yaml needs beside it: .env, the site's certificates, secrets. Run again, it adds what is missing.
set -eu

usage() {
    echo "usage: prepare.sh HOST [HOST ...]   names or addresses under which edges reach this machine" >&2
    exit 2
}
[ $# -ge 1 ] || usage
case $1 in -*) usage ;; esac
cd "$(dirname "$0")"
umask 077
embridge=${EMBRIDGE:-embridge}
command -v "$embridge" >/dev/null || { echo "prepare.sh: no $embridge here: pip install 'embridge[cloud]'" >&2; exit 1; }

if [ ! -f .env ]; then
    uid=$(id -u)
    gid=$(id -g)
    # Containers do not run as root; a site prepared by root belongs to a user that is nobody else's.
    if [ "$uid" = 0 ]; then uid=10001 gid=10001; fi
    printf 'SITE_UID=%s\nSITE_GID=%s\n' "$uid" "$gid" > .env
fi

if [ ! -f site/site.json ]; then
    # On the compose network the broker is `broker`, and the cloud is `cloud`, to itself 127.0.0.1.
    set -- "$@" broker
    hosts=""
    for host in "$@"; do hosts="$hosts --broker-host $host"; done
    # shellcheck disable=SC2086  # host names have no blanks
    "$embridge" site init site $hosts --cloud-host "$1" --cloud-host cloud --cloud-host 127.0.0.1 --bind 0.0.0.0 \
        --broker-folder /mosquitto/site --cloud-folder /etc/embridge
fi

secret() {
    [ -s "secrets/$1" ] || od -An -N24 -tx1 /dev/urandom | tr -d ' \n' > "secrets/$1"
}
mkdir -p secrets
secret catalogue.password
secret grafana.password
[ -s secrets/store.lake ] || printf 'host=catalogue dbname=embridge user=embridge password=%s\n' \
    "$(cat secrets/catalogue.password)" > secrets/store.lake
if [ ! -s secrets/objects.json ]; then
    secret objects.key
    printf '{"identities": [{"name": "embridge", "credentials": [{"accessKey": "embridge", "secretKey": "%s"}], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}]}\n' \
        "$(cat secrets/objects.key)" > secrets/objects.json
fi
[ -f secrets/metrics.token ] || : > secrets/metrics.token

if [ "$(id -u)" = 0 ]; then
    # shellcheck source=/dev/null
    . ./.env
    chown -R "$SITE_UID:$SITE_GID" site secrets
    # PostgreSQL's image has a user of its own.
    chown 999:999 secrets/catalogue.password
else
    # Without root nobody else's user can be given a file: the folder keeps others away.
    chmod 644 secrets/catalogue.password
fi
cat >&2 <<'END'
Ready. Next:
  docker compose up -d --build
  docker compose exec -T cloud embridge token create prometheus --role metrics > secrets/metrics.token
  docker compose restart prometheus
Move site/ca to a medium that is not connected: its key admits anybody.
END
