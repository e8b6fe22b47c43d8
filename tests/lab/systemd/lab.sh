#!/usr/bin/env bash
# A real systemd as process 1 of namespaces of its own (mount, pid, cgroup, ipc, uts, net), without systemd on this machine.
# Needs root, overlayfs and cgroup v2, and mmdebstrap for the first run.
#
#   lab.sh root SUITE                     makes a Debian root once (trixie: systemd 257, bookworm: 252), prints its path
#   lab.sh boot SUITE [SRC:DEST]...       boots it; each file is bound read-only to its place. Prints `up PID` once systemd is
#                                         up, and takes everything down when standard input ends
#
# Nothing is written to the root: its upper layer lives in memory, and goes away with the lab. Inside are the loopback
# interface and nothing else. `nsenter -t PID -a COMMAND` runs a command inside.
#
# Roots are kept in $PORTWAY_TEST_ROOTS, else in portway-lab of the cache ($XDG_CACHE_HOME, ~/.cache).
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin

cache=${PORTWAY_TEST_ROOTS:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/portway-lab}
mirror=${PORTWAY_TEST_MIRROR:-http://deb.debian.org/debian}
packages=systemd,libnss-systemd,dbus,iproute2,procps,ca-certificates,rpm

say() { printf 'lab: %s\n' "$*" >&2; }

# What has no use here: a console, kernel modules, timers.
masked=(
    console-getty.service getty.target systemd-modules-load.service systemd-logind.service
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
)

make_root() { # SUITE ROOT
    local part=$2.part unit
    say "making the $1 root in $2, once"
    rm -rf --one-file-system "$part"
    mmdebstrap --quiet --variant=minbase --mode=root --format=directory --include="$packages" \
        --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$1" "$part" "$mirror" >&2
    for unit in "${masked[@]}"; do ln -sfn /dev/null "$part/etc/systemd/system/$unit"; done
    mkdir -p "$part/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\n' >"$part/etc/systemd/journald.conf.d/lab.conf"
    echo lab >"$part/etc/hostname"
    printf '127.0.0.1 localhost lab\n::1 localhost\n' >"$part/etc/hosts"
    # No caches are made again at a first boot.
    touch "$part/etc/.updated" "$part/var/.updated"
    rm -rf --one-file-system "$2"
    mv "$part" "$2"
}

root_of() { # SUITE
    # One with other packages is another root.
    local root
    root=$cache/$1-$(printf %s "$packages" | cksum | cut -d' ' -f1)
    mkdir -p "$cache"
    (
        flock 9
        [ -e "$root/usr/lib/systemd/systemd" ] || make_root "$1" "$root"
    ) 9>"$root.lock"
    printf '%s\n' "$root"
}

# The way to process 1: runs as process 1 of the new namespaces.
init() { # WORK ROOT [SRC:DEST]...
    local work=$1 root=$2 file name major minor
    shift 2
    mount -t tmpfs -o mode=755 lab "$work"
    mkdir "$work/upper" "$work/scratch" "$work/root"
    mount -t overlay overlay -o "lowerdir=$root,upperdir=$work/upper,workdir=$work/scratch" "$work/root"
    for file in "$@"; do
        mkdir -p "$work/root$(dirname "${file#*:}")"
        : >"$work/root${file#*:}"
        mount --bind -o ro "${file%%:*}" "$work/root${file#*:}"
    done
    cd "$work/root"
    mount -t proc -o nosuid,noexec,nodev proc proc
    mount -t sysfs -o ro,nosuid,noexec,nodev sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755,nosuid tmpfs dev
    # A console of its own that swallows everything. systemd changes the owner and the mode of its console, so that
    # must not be the null device of this machine.
    while read -r name major minor; do mknod -m 666 "dev/$name" c "$major" "$minor"; done <<'DEVICES'
null 1 3
zero 1 5
full 1 7
random 1 8
urandom 1 9
tty 5 0
console 1 3
DEVICES
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    for file in tmp dev/shm; do mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$file"; done
    mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
    : >etc/machine-id
    hostname lab
    ip link set lo up
    mkdir .old
    pivot_root . .old
    umount -l /.old
    rmdir /.old
    mount --make-rshared /
    exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        chroot . /usr/lib/systemd/systemd --system --show-status=false
}

# The life of a lab: a cgroup of its own, process 1, and the end of both.
live() { # WORK ROOT [SRC:DEST]...
    local work=$1 pid1=""
    mkdir "$work/cgroup" "$work/lab"
    mount -t cgroup2 cgroup2 "$work/cgroup"
    group=$work/cgroup/portway-lab.$$
    mkdir "$group"
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        exec unshare --pid --cgroup --ipc --uts --mount --net --fork --kill-child=KILL --propagation private \
            "$0" init "$work/lab" "${@:2}"
    ) </dev/null >"$work/log" 2>&1 &
    child=$!
    # shellcheck disable=SC2317 # the trap calls it
    end() {
        kill -KILL "$child" 2>/dev/null || true
        wait "$child" 2>/dev/null || true
        local try
        for try in $(seq 100); do
            find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [ -d "$group" ] || return 0
            sleep 0.05
        done
        say "the cgroup $group could not be removed in $try tries"
    }
    trap end EXIT
    trap 'exit 143' TERM
    trap 'exit 130' INT
    local state try
    for try in $(seq 600); do
        kill -0 "$child" 2>/dev/null || break
        read -r pid1 _ <"/proc/$child/task/$child/children" 2>/dev/null || true
        if [ -n "$pid1" ] && [ "$(cat "/proc/$pid1/comm" 2>/dev/null)" = systemd ]; then
            state=$(nsenter -t "$pid1" -a systemctl is-system-running 2>/dev/null || true)
            case $state in
                running | degraded)
                    # Not before: a reader takes this for the whole answer.
                    printf 'up %s\n' "$pid1"
                    # Until the one who wanted the lab is gone. In the background, so that a signal is heard at once.
                    cat >/dev/null <&0 &
                    wait $! || true
                    return 0
                    ;;
            esac
        fi
        sleep 0.05
    done
    say "systemd did not come up (${state:-no process 1}, $try tries):"
    cat "$work/log" >&2
    return 1
}

case ${1:-} in
    root) root_of "$2" ;;
    boot)
        root=$(root_of "$2")
        work=$(mktemp -d "${TMPDIR:-/tmp}/portway-lab.XXXXXX")
        trap 'rm -rf --one-file-system "$work"' EXIT
        trap 'kill -TERM "$lab" 2>/dev/null || true' TERM INT HUP
        unshare --mount --propagation private "$0" live "$work" "$root" "${@:3}" <&0 &
        lab=$!
        status=0
        wait "$lab" || status=$?
        while kill -0 "$lab" 2>/dev/null; do wait "$lab" || status=$?; done
        exit "$status"
        ;;
    # The next two are for this script itself.
    live) live "${@:2}" ;;
    init) init "${@:2}" ;;
    *)
        sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
