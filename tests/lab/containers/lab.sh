#!/usr/bin/env bash
# A machine with a container engine and without an image registry: builds an unmodified Dockerfile, runs a command.
#
#   lab.sh [--podman] [--build TAG=CONTEXT] [--build-arg NAME=VALUE]... [--built DIRECTORY] [--] COMMAND...
#   lab.sh --clean
#
# Needs root. The command finds $ENGINE (docker or podman), and its status is that of the lab. Everything runs in mount,
# process and network namespaces of its own, so that bridges, open ports and firewall rules never reach the machine, and
# all of it ends with the command. What stays is a store of images (PORTWAY_LAB, by default ~/.cache/portway-containers), which
# --clean removes. One lab runs at a time. With --built, the stage `build` of the Dockerfile is this directory: nothing is
# compiled.
#
# The image that the Dockerfile starts from is made here: Debian, a C compiler, and the Rust of this machine.
#
# Docker's engine and compose are those of Debian 13, unpacked into the store: nothing of them is installed.
set -euo pipefail
shopt -s inherit_errexit

engine=docker build='' built='' arguments=() store=${PORTWAY_LAB:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/portway-containers}
mirror=http://deb.debian.org/debian
while [ $# -gt 0 ]; do
    case $1 in
        --podman) engine=podman; shift ;;
        --build) build=$2; shift 2 ;;
        --build-arg) arguments+=(--build-arg "$2"); shift 2 ;;
        --built) built=$2; arguments+=(--build-context "build=$2"); shift 2 ;;
        --clean) rm -rf --one-file-system "$store"; exit ;;
        --) shift; break ;;
        -*) sed -n '4,5p' "$0" >&2; exit 2 ;;
        *) break ;;
    esac
done
say() { printf 'lab: %s\n' "$*" >&2; }
[ "$(id -u)" = 0 ] || { say "needs root"; exit 1; }

mkdir -p "$store"/{podman,docker}
store=$(realpath "$store")
exec 9>"$store/lock"
flock 9
work=$(mktemp -d)
trap 'rm -rf --one-file-system "$work"' EXIT

# --- what is made once ---------------------------------------------------------------------------------------------

fetch_engine() {
    say "fetching Docker's engine from Debian 13 (once)"
    local part=$store/engine.part apt=$store/engine.part/apt deb
    rm -rf "$part"
    mkdir -p "$apt/lists/partial" "$apt/debs"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"
    local options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
        -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update >&2
    (cd "$apt/debs" && apt-get "${options[@]}" download docker.io docker-cli docker-buildx docker-compose containerd >&2)
    for deb in "$apt"/debs/*.deb; do dpkg-deb -x "$deb" "$part"; done
    # The one of this machine does with its control groups.
    rm -rf "$apt" "$part/usr/sbin/runc" "$part/usr/bin/runc" "$store/engine"
    mv "$part" "$store/engine"
}

# Puts this machine's toolchain where the official image has it.
cat >"$work/toolchain" <<'END'
set -eu
root=$1 toolchain=$(rustc --print sysroot) rustup=$(command -v rustup)
name=$(basename "$toolchain")
mkdir -p "$root/usr/local/rustup/toolchains" "$root/usr/local/cargo/bin"
tar -C "$(dirname "$toolchain")" --exclude=share -cf - "$name" | tar -C "$root/usr/local/rustup/toolchains" -xf -
printf 'version = "12"\nprofile = "minimal"\ndefault_toolchain = "%s"\n' "$name" >"$root/usr/local/rustup/settings.toml"
cp "$rustup" "$root/usr/local/cargo/bin/rustup"
for program in cargo rustc; do ln "$root/usr/local/cargo/bin/rustup" "$root/usr/local/cargo/bin/$program"; done
END

rust_root() {
    local root
    root=$store/rust-$(rustc --version | cut -d' ' -f2).tar
    if [ ! -s "$root" ]; then
        say "making the image to build in (once)"
        # shellcheck disable=SC2016 # the hooks know the directory
        mmdebstrap --quiet --variant=minbase --mode=root --format=tar --include=ca-certificates,gcc,libc6-dev,libcap2-bin,python3 \
            --aptopt='Apt::Install-Recommends "false"' --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
            --setup-hook='mkdir -p "$1/usr/local/share/ca-certificates"' \
            --setup-hook='cp /usr/local/share/ca-certificates/*.crt "$1/usr/local/share/ca-certificates/" 2>/dev/null || true' \
            --customize-hook="sh '$work/toolchain' \"\$1\"" bookworm "$root.part" "$mirror" >&2
        mv "$root.part" "$root"
    fi
    echo "$root"
}

[ "$engine" = podman ] || [ -x "$store/engine/usr/sbin/dockerd" ] || fetch_engine
root=''
[ -z "$build" ] || [ -n "$built" ] || root=$(rust_root)

# --- inside --------------------------------------------------------------------------------------------------------

cat >"$work/inside" <<'END'
set -euo pipefail
work=$1 store=$2 ENGINE=$3 root=$4 build=$5 count=$6
shift 6
arguments=("${@:1:count}")
shift "$count"
export ENGINE
say() { printf 'lab: %s\n' "$*" >&2; }

cp -L /etc/resolv.conf "$work/resolv.conf"
mount -t tmpfs -o mode=755 tmpfs /run
if [ -L /etc/resolv.conf ]; then
    mkdir -p "$(dirname "$(readlink -m /etc/resolv.conf)")"
    cp "$work/resolv.conf" "$(readlink -m /etc/resolv.conf)"
fi
mkdir -p /run/lock /var/lib/containers /etc/containers "$work/etc"
mount --bind "$store/podman" /var/lib/containers
mount --bind "$work/etc" /etc/containers
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
echo ready >"$work/ready"
read -r _ <"$work/way-out"

# Without CAP_SYS_RESOURCE no limit can be raised.
files=$(ulimit -Hn)
start_docker() {
    dockerd --data-root "$store/docker" --exec-root /run/docker --pidfile /run/dockerd.pid -H unix:///run/docker.sock \
        --default-ulimit "nofile=$files:$files" >>"$work/dockerd.log" 2>&1 9>&- &
    for _ in $(seq 600); do
        docker version >/dev/null 2>&1 && return
        sleep 0.1
    done
    say "dockerd did not come up"
    tail -20 "$work/dockerd.log" >&2
    return 1
}
stop_docker() {
    local pid
    pid=$(cat /run/dockerd.pid)
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
}
if [ "$ENGINE" = docker ]; then
    export PATH=$store/engine/usr/sbin:$store/engine/usr/bin:$PATH DOCKER_CONFIG=$work/docker DOCKER_BUILDKIT=1
    mkdir -p "$DOCKER_CONFIG"
    ln -s "$store/engine/usr/libexec/docker/cli-plugins" "$DOCKER_CONFIG/cli-plugins"
    # The command restarts the engine by these two.
    export store work files
    export -f start_docker stop_docker say
    start_docker
else
    export DISABLE_HC_SYSTEMD=true
    printf '[containers]\ndefault_ulimits = ["nofile=%s:%s", "nproc=4096:4096"]\n' "$files" "$files" >/etc/containers/containers.conf
    printf '[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "/run/containers/networks"\n' >>/etc/containers/containers.conf
    printf '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\nlock_type = "file"\n' >>/etc/containers/containers.conf
    echo '{"default":[{"type":"insecureAcceptAnything"}]}' >/etc/containers/policy.json
    echo 'unqualified-search-registries = ["docker.io"]' >/etc/containers/registries.conf
    printf '[storage]\ndriver = "overlay"\ngraphroot = "/var/lib/containers/storage"\nrunroot = "/run/containers/storage"\n' >/etc/containers/storage.conf
fi

clear_away() {
    local all
    all=$($ENGINE ps -aq)
    # shellcheck disable=SC2086 # one word each
    [ -z "$all" ] || $ENGINE rm -f $all >/dev/null 2>&1 || true
}
clear_away

status=0
if [ -n "$build" ]; then
    name=docker.io/library/rust:1-bookworm stamp=$root
    [ -z "$root" ] || stamp="$(basename "$root") $(stat -c %Y "$root")"
    if [ -n "$root" ] && [ "$($ENGINE image inspect -f '{{index .Config.Labels "lab"}}' "$name" 2>/dev/null)" != "$stamp" ]; then
        $ENGINE import -c "LABEL lab=\"$stamp\"" -c 'ENV RUSTUP_HOME=/usr/local/rustup' -c 'ENV CARGO_HOME=/usr/local/cargo' \
            -c 'ENV PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' "$root" "$name" >/dev/null
    fi
    more=()
    [ "$ENGINE" = docker ] || more=(--pull=never --format docker)
    $ENGINE build --network host "${more[@]}" "${arguments[@]}" -t "${build%%=*}" "${build#*=}" >"$work/build.log" 2>&1 || {
        status=$?
        tail -40 "$work/build.log" >&2
    }
fi
[ "$status" != 0 ] || [ $# = 0 ] || "$@" || status=$?
clear_away
[ "$ENGINE" != docker ] || stop_docker
exit "$status"
END

mkfifo "$work/way-out"
status=0
# 9 stays closed inside: what outlives the lab must not hold its lock.
unshare --mount --net --ipc --uts --pid --fork --mount-proc --kill-child=KILL --propagation private \
    bash "$work/inside" "$work" "$store" "$engine" "$root" "$build" "${#arguments[@]}" ${arguments[@]+"${arguments[@]}"} "$@" 9>&- <&0 &
lab=$!
trap 'kill -KILL "$lab" 2>/dev/null || true' TERM INT HUP # and with it all that runs inside
way_out=''
for _ in $(seq 200); do
    if [ -e "$work/ready" ] || ! kill -0 "$lab" 2>/dev/null; then break; fi
    sleep 0.05
done
inside=$(cat "/proc/$lab/task/$lab/children" 2>/dev/null || true)
inside=${inside%% *}
if [ -n "$inside" ]; then
    slirp4netns --configure --mtu=1500 --disable-host-loopback --ready-fd=8 "$inside" tap0 8>"$work/connected" \
        >"$work/slirp.log" 2>&1 9>&- &
    way_out=$!
    for _ in $(seq 200); do
        if [ -s "$work/connected" ] || ! kill -0 "$way_out" 2>/dev/null; then break; fi
        sleep 0.02
    done
    echo go >"$work/way-out"
fi
wait "$lab" || status=$?
while kill -0 "$lab" 2>/dev/null; do wait "$lab" || status=$?; done
if [ -n "$way_out" ]; then
    kill "$way_out" 2>/dev/null || true
    wait "$way_out" 2>/dev/null || true
fi
for group in /sys/fs/cgroup{,/*}/{docker,libpod_parent}; do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
done
exit "$status"
