# What the checks have in common. State is in files: each check is a process of its own.

state=/run/checks
mkdir -p $state
echo 0 > $state/failures

# check NAME: runs check_NAME, and tells the host how it went.
check() {
    title=$(echo "$1" | tr _ ' ')
    begun=$(now)
    # Not as a condition, where `set -e` would not be heeded.
    (set -eu; "check_$1") > $state/said 2>&1
    code=$?
    if [ $code -eq 0 ]; then
        echo "ok $title ($(($(now) - begun)) s)"
        return 0
    fi
    echo 1 > $state/failures
    echo "not ok $title: $(tail -n 1 $state/said)"
    { tail -n 30 $state/said; journalctl -n 25 -o short-monotonic --no-pager; } | sed 's/^/# /'
    return 1
}

# Seconds since the start of the machine.
now() {
    read -r up _ < /proc/uptime
    echo "${up%.*}"
}

# must WHAT COMMAND...: ends the check, and says WHAT, unless the command succeeds.
must() {
    what=$1
    shift
    "$@" || { echo "$what"; exit 1; }
}

# never WHAT COMMAND...: ends the check, and says WHAT, if the command succeeds.
never() {
    what=$1
    shift
    if "$@"; then
        echo "$what"
        exit 1
    fi
}

# same WHAT HAVE WANT
same() {
    [ "$2" = "$3" ] || { echo "$1: \"$2\" instead of \"$3\""; exit 1; }
}

# await SECONDS WHAT COMMAND...: until the command succeeds.
await() {
    deadline=$(($(now) + $1)) limit=$1 what=$2
    shift 2
    until "$@" > /dev/null 2>&1; do
        [ "$(now)" -lt "$deadline" ] || { echo "$what: not within $limit s"; exit 1; }
        sleep 0.3
    done
}

# What systemd says of the service.
property() {
    systemctl show --property "$1" --value tcpmon.service
}

metrics() {
    curl -sSf --max-time 20 http://127.0.0.1:10066/metrics
}

# series REGEX: whether there is a series that begins so.
series() {
    metrics | grep -q "^$1"
}

is_active() {
    [ "$(property ActiveState)" = active ]
}

# is_another PID: whether the service runs, in another process than this.
is_another() {
    is_active && [ "$(property MainPID)" != "$1" ] && metrics
}

# Back in another process, and with one set of probes.
must_be_back() {
    await 90 "the service is back in another process than $1" is_another "$1"
    same "programs in the kernel" "$(programs | wc -l)" "$(cat $state/programs)"
}

# The daemon's programs in the kernel. Systemd has some of its own.
programs() {
    bpftool prog show | grep -o ' name tcpmon_[a-z_]*'
}

# Whether nothing of the daemon's is in the kernel: programs, what they are attached by, maps.
nothing_in_the_kernel() {
    [ -z "$(programs)" ] && [ "$(bpf_objects)" = "$(cat $state/bpf_objects)" ]
}

# How many maps and links there are. Systemd's programs are attached without links.
bpf_objects() {
    echo "$(bpftool map show | grep -c '^[0-9]') $(bpftool link show | grep -c '^[0-9]')"
}

# journal ARGUMENT...: the service's lines of this boot, as they were written.
journal() {
    journalctl --sync
    journalctl --boot --unit tcpmon.service --output cat --no-pager "$@"
}

# said REGEX: whether the journal has it.
said() {
    journal | grep -q "$1"
}
