#!/usr/bin/env bash
# A home router in network namespaces, with a real miniupnpd (UPnP, NAT-PMP, PCP, IPv6 pinholes).
#
#      wan ----- rtr (NAT and miniupnpd) --- bridge --- lan      (the machine under test)
#                                                  \------ lan2     (another machine of the household)
#
#   router.sh up                 build everything and start miniupnpd
#   router.sh down               take it all away (safe to repeat)
#   router.sh hold               up, say READY, and down again when standard input ends, whatever happened to the caller
#   router.sh with CMD...        up, run CMD, and down again whatever happens
#   router.sh in NS CMD...       run CMD in wan | rtr | lan | lan2
#   router.sh daemon start|stop|crash|restart
#   router.sh reboot             crash, empty rules, another BOOTID, start
#   router.sh wanip A.B.C.D      another external address (100.64.x.y or 10.x: a second NAT, 501 and no address)
#   router.sh lanip A.B.C.D      another address of the machine under test
#   router.sh vpn on|only|off    a dead tunnel with the better default route; with the only one
#   router.sh hostfw on|off      the machine drops what is not established
#   router.sh link up|down       pull the router's cable
#   router.sh behind A.B.C.D|off another router, with NAT, in front of the router, which has this address there
#   router.sh box up|down        a container's network on the machine under test, with no way out of it
#   router.sh second up|down     a second router with another name on the same network
#   router.sh rules              the rules that miniupnpd has made, with their handles
#   router.sh log                what miniupnpd said
#   router.sh env                names and addresses as shell variables
#   router.sh selftest           check the lab itself (needs upnpc, natpmpc, socat)
#
# Settings, from the environment (those with * count at `up`, the others at each start of miniupnpd):
#   LAB=name*             prefix of the namespaces, so that labs can live side by side
#   WAN_ADDR=11.22.33.1*  must not be private, a second NAT's, or one of the documentation nets: miniupnpd refuses those
#   SECURE=yes UPNP=yes NATPMP=yes FORCE_V1=no IPV6=yes* NOTIFY=30 HTTP_PORT=5555
#   MIN_LIFETIME=120 MAX_LIFETIME=86400 LEASES=no EXT_IP=
#   RULES="allow 1024-65535 192.168.77.0/24 1024-65535|deny 0-65535 0.0.0.0/0 0-65535"
#
# Needs root, iproute2, nftables, miniupnpd and miniupnpd-nftables. Nothing of it can be seen from outside the namespaces,
# and only processes that it started are ended, by their id.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
LAB=${LAB:-pwlab}
STATE=${LAB_STATE:-${TMPDIR:-/tmp}/portway-router-lab.$LAB}
WAN_ADDR=${WAN_ADDR:-11.22.33.1}
WAN_HOST=${WAN_HOST:-11.22.33.9}      # the internet client
WAN2_ADDR=${WAN2_ADDR:-44.55.66.1}    # second router's external address
IPV6=${IPV6:-yes}
NSS="wan rtr lan lan2 rtr2 isp box"

die() { echo "router.sh: $*" >&2; exit 1; }
ns() { local n=$1; shift; ip netns exec "$LAB-$n" "$@"; }
have_ns() { ip netns list 2>/dev/null | awk '{print $1}' | grep -qx -- "$LAB-$1"; }

# ---- network -----------------------------------------------------------

make_ns() {
    ip netns add "$LAB-$1"
    ns "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
    ns "$1" ip link set lo up
}

# link NS1 IF1 NS2 IF2: a veth pair made inside, so no name ever clashes on the host
link() {
    ip -n "$LAB-$1" link add "$2" type veth peer name "$4" netns "$LAB-$3"
    ip -n "$LAB-$1" link set "$2" up
    ip -n "$LAB-$3" link set "$4" up
}

# nft_rules NS WANIF LANIF: miniupnpd does not make its own table or chains
nft_rules() {
    ns "$1" nft -f - <<NFT
table inet filter
flush table inet filter
table inet filter {
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        meta l4proto ipv6-icmp accept
        iifname "$3" accept
        jump miniupnpd
    }
    chain miniupnpd { }
    chain prerouting {
        type nat hook prerouting priority -100; policy accept;
        jump prerouting_miniupnpd
    }
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        jump postrouting_miniupnpd
        oifname "$2" meta nfproto ipv4 masquerade
    }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
}
NFT
}

net_up() {
    local n
    for n in wan rtr lan lan2; do make_ns "$n"; done
    link wan wan0 rtr wan0
    ip -n "$LAB-rtr" link add br0 type bridge mcast_snooping 0
    ip -n "$LAB-rtr" link set br0 up
    link lan eth0 rtr p1;  ip -n "$LAB-rtr" link set p1 master br0
    link lan2 eth0 rtr p2; ip -n "$LAB-rtr" link set p2 master br0

    ip -n "$LAB-wan" addr add "$WAN_HOST/24" dev wan0
    ip -n "$LAB-wan" route add default dev wan0        # "the internet": all on link
    ip -n "$LAB-rtr" addr add "$WAN_ADDR/24" dev wan0
    ip -n "$LAB-rtr" route replace default dev wan0
    ip -n "$LAB-rtr" addr add 192.168.77.1/24 dev br0
    ip -n "$LAB-lan" addr add 192.168.77.2/24 dev eth0
    ip -n "$LAB-lan" route add default via 192.168.77.1 metric 100
    ip -n "$LAB-lan2" addr add 192.168.77.3/24 dev eth0
    ip -n "$LAB-lan2" route add default via 192.168.77.1
    ns rtr sysctl -qw net.ipv4.ip_forward=1
    if [ "$IPV6" = yes ]; then
        ns rtr sysctl -qw net.ipv6.conf.all.forwarding=1
        ip -n "$LAB-wan" addr add 2001:db8:99::9/64 dev wan0 nodad
        ip -n "$LAB-wan" route add 2001:db8:77::/64 via 2001:db8:99::1
        ip -n "$LAB-rtr" addr add 2001:db8:99::1/64 dev wan0 nodad
        ip -n "$LAB-rtr" addr add 2001:db8:77::1/64 dev br0 nodad
        ip -n "$LAB-lan" addr add 2001:db8:77::2/64 dev eth0 nodad
        ip -n "$LAB-lan" route add default via 2001:db8:77::1
        ip -n "$LAB-lan2" addr add 2001:db8:77::3/64 dev eth0 nodad
        ip -n "$LAB-lan2" route add default via 2001:db8:77::1
    fi
    nft_rules rtr wan0 br0
}

# ---- miniupnpd ---------------------------------------------------------

# conf NS WANIF LANIF UUID -> a file's name
write_conf() {
    local out=$STATE/$1.conf rules ext='' lease=''
    rules=${RULES:-allow 1024-65535 192.168.77.0/24 1024-65535|deny 0-65535 0.0.0.0/0 0-65535}
    [ -n "${EXT_IP:-}" ] && ext="ext_ip=$EXT_IP"
    if [ "${LEASES:-no}" = yes ]; then
        touch "$STATE/$1.leases"                       # must exist
        lease="lease_file=$STATE/$1.leases"
    fi
    local v6off=no; [ "$IPV6" = yes ] || v6off=yes
    awk -v rules="$rules" -v wanif="$2" -v lanif="$3" -v uuid="$4" -v ext="$ext" -v lease="$lease" \
        -v v6off="$v6off" -v port="${HTTP_PORT:-5555}" -v upnp="${UPNP:-yes}" -v pmp="${NATPMP:-yes}" \
        -v minl="${MIN_LIFETIME:-120}" -v maxl="${MAX_LIFETIME:-86400}" -v sec="${SECURE:-yes}" \
        -v notify="${NOTIFY:-30}" -v v1="${FORCE_V1:-no}" '
        { gsub(/@WAN_IF@/, wanif); gsub(/@LAN_IF@/, lanif); gsub(/@UUID@/, uuid)
          gsub(/@EXT_IP_LINE@/, ext); gsub(/@LEASE_LINE@/, lease); gsub(/@IPV6_DISABLE@/, v6off)
          gsub(/@HTTP_PORT@/, port); gsub(/@UPNP@/, upnp); gsub(/@NATPMP@/, pmp)
          gsub(/@MIN_LIFETIME@/, minl); gsub(/@MAX_LIFETIME@/, maxl); gsub(/@SECURE@/, sec)
          gsub(/@NOTIFY@/, notify); gsub(/@FORCE_V1@/, v1) }
        /^@RULES@/ { n = split(rules, r, "|"); for (i = 1; i <= n; i++) print r[i]; next }
        { print }' "$here/miniupnpd.conf.in" >"$out"
    echo "$out"
}

daemon_pid() { # NS: its pid if it is alive and still ours
    local pid comm
    pid=$(cat "$STATE/$1.pid" 2>/dev/null) || return 1
    comm=$(cat "/proc/$pid/comm" 2>/dev/null) || return 1
    # One that ended stays until its new parent reaps it.
    ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null || return 1
    [ "$comm" = miniupnpd ] && echo "$pid"
}

# Nothing else has sockets in a router's namespace.
listens() { # NS
    [ "${UPNP:-yes}" = no ] || ns "$1" ss -Hltn | grep -q . || return 1
    [ "${NATPMP:-yes}" = no ] || ns "$1" ss -Hlun 'sport = :5351' | grep -q .
}

daemon_start() { # NS WANIF LANIF UUID
    daemon_pid "$1" >/dev/null && return 0
    local conf; conf=$(write_conf "$@")
    # Its BOOTID is the second it starts in (its option for another is heeded by its log alone), and no router starts twice
    # within one.
    while [ "$(date +%s)" = "$(cat "$STATE/ended" 2>/dev/null)" ]; do sleep 0.1; done
    # -d: in the foreground, and the log on standard error. -P: it writes a pid file of its own, at a path compiled in.
    ip netns exec "$LAB-$1" miniupnpd -d -f "$conf" -P "$STATE/$1.own.pid" \
        </dev/null >>"$STATE/$1.log" 2>&1 &
    echo $! >"$STATE/$1.pid"      # ip execs the daemon, so this is its pid
    disown                        # or the shell would report its end
    for _ in $(seq 50); do
        kill -0 "$(cat "$STATE/$1.pid")" 2>/dev/null || { tail -n 20 "$STATE/$1.log" >&2; die "miniupnpd ended at once"; }
        if listens "$1"; then return 0; fi
        sleep 0.1
    done
    die "miniupnpd does not listen"
}

daemon_end() { # NS SIGNAL
    local pid
    pid=$(daemon_pid "$1") || { rm -f "$STATE/$1.pid"; return 0; }
    kill "-$2" "$pid"
    for _ in $(seq 50); do daemon_pid "$1" >/dev/null || break; sleep 0.1; done
    daemon_pid "$1" >/dev/null && kill -KILL "$pid"
    rm -f "$STATE/$1.pid" "$STATE/$1.own.pid"
    date +%s >"$STATE/ended"
}

UUID1=4a0cbca6-8550-4398-b8aa-7156f5cf1ea0
UUID2=5b1dcdb7-9661-44a9-a9bb-8267a6d02fb1
start1() { daemon_start rtr wan0 br0 "$UUID1"; }
start2() { HTTP_PORT=5556 EXT_IP="" daemon_start rtr2 wan0 lan0 "$UUID2"; }

# ---- commands ----------------------------------------------------------

up() {
    [ "$(id -u)" = 0 ] || die "needs root"
    local t; for t in ip nft miniupnpd ss; do command -v "$t" >/dev/null || die "missing: $t"; done
    down
    mkdir -p "$STATE"
    trap 'echo "router.sh: up failed, cleaning" >&2; down' EXIT
    net_up
    start1
    trap - EXIT
}

down() {
    local n
    for n in rtr2 rtr; do daemon_end "$n" KILL; done
    for n in $NSS; do if have_ns "$n"; then ip netns del "$LAB-$n"; fi; done
    rm -f -- "$STATE"/rtr{,2}.{conf,pid,own.pid,log,leases}
    rm -f -- "$STATE/ended"
    rmdir -- "$STATE" 2>/dev/null || true
}

# readdress NS IF ADDRESS DEFAULT-ROUTE...: by one process, so that hardly any program sees the interface without an address
readdress() {
    local n=$1 dev=$2 address=$3; shift 3
    ip -n "$LAB-$n" -4 -batch - <<BATCH
addr flush dev $dev
addr add $address/24 dev $dev
route replace default $*
BATCH
}

second() {
    case ${1:-} in
        up)
            have_ns rtr2 && return 0
            make_ns rtr2
            link rtr p3 rtr2 lan0; ip -n "$LAB-rtr" link set p3 master br0
            ip -n "$LAB-rtr2" link add wan0 type veth peer name wan1 netns "$LAB-wan"
            ip -n "$LAB-rtr2" link set wan0 up; ip -n "$LAB-wan" link set wan1 up
            ip -n "$LAB-rtr2" addr add "$WAN2_ADDR/24" dev wan0
            ip -n "$LAB-wan" addr add "${WAN2_ADDR%.*}.9/24" dev wan1
            ip -n "$LAB-rtr2" addr add 192.168.77.254/24 dev lan0
            ip -n "$LAB-rtr2" route add default dev wan0
            ns rtr2 sysctl -qw net.ipv4.ip_forward=1
            nft_rules rtr2 wan0 lan0
            start2 ;;
        down) daemon_end rtr2 TERM; if have_ns rtr2; then ip netns del "$LAB-rtr2"; fi ;;
        *) die "second up|down" ;;
    esac
}

# The router's cable leads to another router. That one has the external address, and gives the router this one.
behind() {
    local address=${1:?an address or off}
    if [ "$address" = off ]; then
        have_ns isp || return 0
        ip -n "$LAB-isp" link del out0
        ip -n "$LAB-isp" link set in0 netns "$LAB-wan" name wan0
        ip netns del "$LAB-isp"
        ip -n "$LAB-wan" link set wan0 up
        ip -n "$LAB-wan" addr add "$WAN_HOST/24" dev wan0
        ip -n "$LAB-wan" route add default dev wan0
        readdress rtr wan0 "$WAN_ADDR" dev wan0
        return 0
    fi
    make_ns isp
    ip -n "$LAB-wan" link set wan0 netns "$LAB-isp" name in0
    ip -n "$LAB-isp" link set in0 up
    link wan wan0 isp out0
    ip -n "$LAB-wan" addr add "$WAN_HOST/24" dev wan0
    ip -n "$LAB-wan" route add default dev wan0
    ip -n "$LAB-isp" addr add "$WAN_ADDR/24" dev out0
    ip -n "$LAB-isp" route add default dev out0
    ip -n "$LAB-isp" addr add "${address%.*}.1/24" dev in0
    ns isp sysctl -qw net.ipv4.ip_forward=1
    ns isp nft -f - <<NFT
table ip nat {
    chain pre { type nat hook prerouting priority -100; }
    chain post { type nat hook postrouting priority 100; oifname "out0" masquerade; }
    chain forward { type filter hook forward priority 0; policy drop
        ct state established,related accept
        ct status dnat accept
        iifname "in0" accept
    }
}
NFT
    readdress rtr wan0 "$address" via "${address%.*}.1" dev wan0
}

selftest() {
    local f=0 t lp=''; t=$(mktemp -d)
    ok() { echo "ok   $*"; }
    no() { echo "FAIL $*"; f=1; }
    try() { local what=$1; shift; if "$@" >"$t/out" 2>&1; then ok "$what"; else no "$what"; sed 's/^/     /' "$t/out"; fi; }
    lis() { # listener, such as TCP-LISTEN:8080,reuseaddr
        local port=${1#*:}; port=${port%%,*}
        # not through ns(): a function put in the background is a subshell, and its pid not socat's
        ip netns exec "$LAB-lan" timeout 60 socat -u "$1" OPEN:"$t/got",creat,append & lp=$!
        for _ in $(seq 100); do
            if ns lan ss -Hltun "sport = :$port" | grep -q .; then return 0; fi
            sleep 0.1
        done
        echo "no program listens on port $port" >&2
    }
    reach() { # what, listener, connect address
        local came=1
        : >"$t/got"; lis "$2"
        echo "hello $1" | ns wan timeout 4 socat -u - "$3" 2>/dev/null || true
        for _ in $(seq 20); do
            if grep -q "hello $1" "$t/got"; then came=0; break; fi
            sleep 0.1
        done
        kill "$lp" 2>/dev/null || true; wait "$lp" 2>/dev/null || true
        if [ "$came" = 0 ]; then ok "$1"; else no "$1"; return 1; fi
    }
    local d="http://192.168.77.1:${HTTP_PORT:-5555}/rootDesc.xml"     # -u $d: no 2 s search
    local lan=(ip netns exec "$LAB-lan" upnpc -u "$d") lan2=(ip netns exec "$LAB-lan2" upnpc -u "$d")
    try "UPnP search, status"         ns lan upnpc -s
    try "UPnP external address"       sh -c "${lan[*]} -s | grep -q 'ExternalIPAddress = $WAN_ADDR'"
    try "UPnP add TCP"                "${lan[@]}" -e t -a 192.168.77.2 8080 9080 TCP 600
    reach "UPnP TCP reaches"          TCP-LISTEN:8080,reuseaddr "TCP:$WAN_ADDR:9080" || true
    try "UPnP add UDP"                "${lan[@]}" -e t -a 192.168.77.2 8081 9081 UDP 600
    reach "UPnP UDP reaches"          UDP-RECV:8081 "UDP:$WAN_ADDR:9081" || true
    try "UPnP remove TCP"             "${lan[@]}" -d 9080 TCP
    try "UPnP remove UDP"             "${lan[@]}" -d 9081 UDP
    if (reach "closed" TCP-LISTEN:8080,reuseaddr "TCP:$WAN_ADDR:9080") >/dev/null; then no "removed mapping is closed"; else ok "removed mapping is closed"; fi
    try "another host maps 9082"      "${lan2[@]}" -a 192.168.77.3 8080 9082 TCP 600
    try "conflict answers 718"        sh -c "${lan[*]} -a 192.168.77.2 8080 9082 TCP 600 2>&1 | grep -q 'code 718'"
    try "another host removes 9082"   "${lan2[@]}" -d 9082 TCP
    try "denied port answers 606"     sh -c "${lan[*]} -a 192.168.77.2 80 80 TCP 600 2>&1 | grep -q 'code 606'"
    if [ "${NATPMP:-yes}" = yes ]; then
        try "NAT-PMP external address" sh -c "ip netns exec $LAB-lan natpmpc -g 192.168.77.1 | grep -q 'Public IP address : $WAN_ADDR'"
        try "NAT-PMP add TCP"         ns lan natpmpc -g 192.168.77.1 -a 9090 8090 tcp 600
        reach "NAT-PMP TCP reaches"   TCP-LISTEN:8090,reuseaddr "TCP:$WAN_ADDR:9090" || true
        try "NAT-PMP remove TCP"      ns lan natpmpc -g 192.168.77.1 -a 0 8090 tcp 0
    fi
    if [ "$IPV6" = yes ]; then
        if (reach "v6 closed" TCP6-LISTEN:8084,reuseaddr "TCP6:[2001:db8:77::2]:8084") >/dev/null; then no "IPv6 closed without a pinhole"; else ok "IPv6 closed without a pinhole"; fi
        local d6="http://[2001:db8:77::1]:${HTTP_PORT:-5555}/rootDesc.xml" id
        try "IPv6 AddPinhole"         ns lan upnpc -6 -u "$d6" -A '' 0 2001:db8:77::2 8084 tcp 600
        id=$(sed -n 's/.*Pinhole ID = //p' "$t/out")
        reach "IPv6 pinhole reaches"  TCP6-LISTEN:8084,reuseaddr "TCP6:[2001:db8:77::2]:8084" || true
        try "IPv6 DeletePinhole"      ns lan upnpc -6 -u "$d6" -D "$id"
    fi
    rm -rf -- "$t"
    return $f
}

cmd=${1:-}; [ $# -gt 0 ] && shift
case $cmd in
    up) up ;;
    down) down ;;
    with)
        up
        child=
        trap '[ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true; down' EXIT
        trap 'exit 130' INT; trap 'exit 143' TERM HUP
        "$@" <&0 & child=$!          # in the background, so that a signal acts at once
        rc=0; wait "$child" || rc=$?; child=
        exit "$rc" ;;
    hold)
        trap down EXIT
        trap 'exit 130' INT; trap 'exit 143' TERM HUP
        up
        trap down EXIT               # up has set its own
        echo READY
        cat >/dev/null ;;
    in) n=$1; shift; have_ns "$n" || die "no namespace $n"; ns "$n" "$@" ;;
    daemon)
        case ${1:-} in
            start) start1 ;;
            stop) daemon_end rtr TERM ;;
            crash) daemon_end rtr KILL ;;
            restart) daemon_end rtr TERM; start1 ;;
            *) die "daemon start|stop|crash|restart" ;;
        esac ;;
    reboot) daemon_end rtr KILL; nft_rules rtr wan0 br0; start1 ;;
    wanip)
        readdress rtr wan0 "$1" dev wan0 ;;
    lanip)
        readdress lan eth0 "$1" via 192.168.77.1 metric 100 ;;
    vpn)
        ip -n "$LAB-lan" link del vpn0 2>/dev/null || true
        ip -n "$LAB-lan" route replace default via 192.168.77.1 metric 100
        case ${1:-} in
            on | only)
                ip -n "$LAB-lan" link add vpn0 type veth peer name vpn1
                ip -n "$LAB-lan" link set vpn0 up; ip -n "$LAB-lan" link set vpn1 up
                ip -n "$LAB-lan" addr add 10.8.0.2/24 dev vpn0
                ip -n "$LAB-lan" route add default via 10.8.0.1 dev vpn0 metric 50
                [ "$1" = on ] || ip -n "$LAB-lan" route del default via 192.168.77.1 metric 100 ;;
            off) ;;
            *) die "vpn on|only|off" ;;
        esac ;;
    hostfw)
        ns lan nft delete table inet hostfw 2>/dev/null || true
        [ "${1:-}" != on ] || ns lan nft 'add table inet hostfw
            add chain inet hostfw in { type filter hook input priority 0; policy drop; }
            add rule inet hostfw in ct state established,related accept
            add rule inet hostfw in iif lo accept
            add rule inet hostfw in meta l4proto ipv6-icmp accept
            add rule inet hostfw in tcp dport 1024-65535 accept' ;;
    link)
        # the port, not the bridge: a bridge that goes down loses its IPv6 addresses
        ip -n "$LAB-rtr" link set p1 "${1:?up|down}" ;;
    behind) behind "$@" ;;
    box)
        case ${1:-} in
            up)
                make_ns box
                link box eth0 lan box0
                ip -n "$LAB-box" addr add 172.18.0.2/16 dev eth0
                ip -n "$LAB-lan" addr add 172.18.0.1/16 dev box0 ;;
            down) if have_ns box; then ip netns del "$LAB-box"; fi ;;
            *) die "box up|down" ;;
        esac ;;
    second) second "$@" ;;
    rules) ns rtr nft -a list table inet filter ;;
    log) cat "$STATE/rtr.log" ;;
    env) printf 'LAB=%s\nSTATE=%s\nWAN_ADDR=%s\nWAN_HOST=%s\nGW=192.168.77.1\nLAN_IP=192.168.77.2\n' "$LAB" "$STATE" "$WAN_ADDR" "$WAN_HOST" ;;
    selftest) selftest ;;
    *) sed -n '2,/^set -/p' "${BASH_SOURCE[0]}" | sed '$d; s/^# \{0,1\}//'; [ -z "$cmd" ] || exit 2 ;;
esac
