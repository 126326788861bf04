#!/bin/sh
# Take a bare Debian 12 machine to a running edge or cloud. Run it again after anything went wrong, or to update: what is
# there already stays, configuration above all.
#
#   provision.sh edge BUNDLE.edge.tar [--plan PLAN.toml]
#   provision.sh cloud HOST [HOST ...]
#
# Options, before the first word:
#   --source DIR    the checkout, or a wheel, to install from; by default the checkout this script lies in
#   --no-start      install and enable, but start nothing
set -eu

PREFIX=/opt/embridge
CONFIG=/etc/embridge
SITE=/var/lib/embridge-site
BROKER=/etc/mosquitto/embridge
TORCH_INDEX=${TORCH_INDEX-https://download.pytorch.org/whl/cpu}

here=$(cd "$(dirname "$0")" && pwd)
source=$(dirname "$here")
start=yes

say() { printf 'provision: %s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
usage() { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }

while [ $# -gt 0 ]; do
    case $1 in
        --source) [ $# -ge 2 ] || usage; source=$2; shift 2 ;;
        --no-start) start=no; shift ;;
        -*) usage ;;
        *) break ;;
    esac
done
[ $# -ge 2 ] || usage
part=$1
shift
case $part in edge | cloud) ;; *) usage ;; esac
[ "$(id -u)" = 0 ] || die "run it as root"
[ -e "$source" ] || die "there is no $source"
# shellcheck source=/dev/null
. /etc/os-release
if [ "${ID:-}" != debian ] || [ "${VERSION_ID:-0}" -lt 12 ]; then
    die "this is ${PRETTY_NAME:-no Debian}; Debian 12 or later is asked for"
fi

packages() {
    missing=""
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    say "installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086  # a list
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
}

accounts() {
    install -D -m 0644 "$here/systemd/embridge.sysusers" /usr/lib/sysusers.d/embridge.conf
    install -D -m 0644 "$here/systemd/embridge.tmpfiles" /usr/lib/tmpfiles.d/embridge.conf
    systemd-sysusers embridge.conf
    systemd-tmpfiles --create embridge.conf
}

software() {
    umask 022
    [ -x $PREFIX/venv/bin/python ] || python3 -m venv $PREFIX/venv
    index=""
    if [ "$part" = cloud ] && [ -n "$TORCH_INDEX" ]; then index="--extra-index-url $TORCH_INDEX"; fi
    say "installing embridge[$1] from $source"
    constraints=$here/../constraints.txt
    # shellcheck disable=SC2086  # two words or none
    $PREFIX/venv/bin/python -m pip install -q --disable-pip-version-check $index -c "$constraints" "${source}[$1]"
    if [ -d "$source" ]; then
        # The version may be the same and the code another.
        $PREFIX/venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --force-reinstall \
            -c "$constraints" "$source"
    fi
    # Commands on this machine look at the installation the services run, not at the user's own.
    rm -f /usr/local/bin/embridge
    cat > /usr/local/bin/embridge <<END
#!/bin/sh
export EMBRIDGE_CONFIG="\${EMBRIDGE_CONFIG:-$CONFIG/embridge.toml}"
export EMBRIDGE_EDGE__STATE_DIR="\${EMBRIDGE_EDGE__STATE_DIR:-/var/lib/embridge/edge}"
export EMBRIDGE_CLOUD__STATE_DIR="\${EMBRIDGE_CLOUD__STATE_DIR:-/var/lib/embridge/cloud}"
exec $PREFIX/venv/bin/embridge "\$@"
END
    chmod 0755 /usr/local/bin/embridge
    $PREFIX/venv/bin/embridge --version >&2
    umask 077
}

# Root's; the service reads the settings, and is handed the keys by systemd.
belongings() {
    chown -R root:embridge $CONFIG
    find $CONFIG -type d -exec chmod 0750 {} +
    find $CONFIG -type f -exec chmod 0640 {} +
    for key in $CONFIG/client.pem $CONFIG/http.pem; do
        if [ -f "$key" ]; then chown root:root "$key"; chmod 0600 "$key"; fi
    done
}

unit() {
    install -D -m 0644 "$here/systemd/embridge-$1.service" "/etc/systemd/system/embridge-$1.service"
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    systemctl enable "embridge-$1.service"
    if [ "$start" = yes ] && [ -d /run/systemd/system ]; then
        # Ready is not waited for: a cloud is ready once its broker is, an edge at once.
        systemctl restart --no-block "embridge-$1.service"
    fi
}

edge() {
    bundle=$1
    shift
    plan=""
    if [ $# -gt 0 ]; then
        if [ "$1" != --plan ] || [ $# -ne 2 ]; then usage; fi
        plan=$2
        [ -f "$plan" ] || die "there is no $plan"
    fi
    if [ ! -f $CONFIG/embridge.toml ] && [ ! -f "$bundle" ]; then
        die "there is no $bundle; \`embridge site edge NAME\` makes it on the cloud"
    fi
    packages systemd python3-venv dbus bluez rfkill chrony
    accounts
    software edge,lsl
    if [ ! -f $CONFIG/embridge.toml ]; then
        $PREFIX/venv/bin/embridge edge install --dir $CONFIG "$bundle"
    elif [ -f "$bundle" ] && ! tar -xOf "$bundle" client.pem | cmp -s - $CONFIG/client.pem; then
        $PREFIX/venv/bin/embridge edge install --renew --dir $CONFIG "$bundle"
    fi
    if [ -n "$plan" ]; then
        install -m 0640 "$plan" $CONFIG/plan.toml
        grep -q '^plan = ' $CONFIG/embridge.toml || sed -i 's#^\[edge\]$#[edge]\nplan = "/etc/embridge/plan.toml"#' $CONFIG/embridge.toml
    fi
    belongings
    if [ -d /run/systemd/system ]; then rfkill unblock bluetooth || say "Bluetooth could not be switched on"; fi
    unit edge
    say "done; remove $bundle, it holds this edge's key"
}

cloud() {
    packages systemd python3-venv mosquitto chrony libgomp1
    accounts
    software cloud
    if [ ! -f $SITE/site.json ]; then
        hosts=""
        for host in "$@"; do hosts="$hosts --broker-host $host"; done
        # shellcheck disable=SC2086  # host names have no blanks
        $PREFIX/venv/bin/embridge site init $SITE $hosts --cloud-host "$1" --broker-folder $BROKER --cloud-folder $CONFIG
    fi
    install -d -m 0750 -o root -g mosquitto $BROKER
    for file in "$SITE"/broker/*; do install -m 0640 -o root -g mosquitto "$file" "$BROKER/"; done
    # Mosquitto reads conf.d; the settings stand alone there as long as it has no other listener.
    install -m 0644 "$SITE/broker/mosquitto.conf" /etc/mosquitto/conf.d/embridge.conf
    for file in "$SITE"/cloud/*; do
        # A setting that was changed by hand is kept; certificates are those of the site.
        case $file in *.toml) [ ! -f $CONFIG/embridge.toml ] || continue ;; esac
        install -m 0640 "$file" $CONFIG/
    done
    belongings
    if [ -d /run/systemd/system ] && [ "$start" = yes ]; then systemctl restart mosquitto; fi
    unit cloud
    say "done; move $SITE/ca to a medium that is not connected: its key admits anybody"
}

"$part" "$@"
say "\`embridge doctor --$part\` tells how it is; \`journalctl -fu embridge-$part\` what it does"
