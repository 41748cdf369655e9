# From nothing to a service that runs.

check_the_package_installs_and_starts_the_service() {
    useradd --create-home member
    useradd --create-home outsider
    files > $state/files
    accounts > $state/accounts
    bpf_objects > $state/bpf_objects
    same "programs before the installation" "$(programs)" ""
    dpkg -i tcpmon.deb
    # The package has done so already; this is what people type.
    systemctl enable --now tcpmon
    same enabled "$(systemctl is-enabled tcpmon)" enabled
    same active "$(systemctl is-active tcpmon)" active
    same Type "$(property Type)" notify
    programs | wc -l > $state/programs
    never "no program named tcpmon_ is in the kernel" test 0 = "$(cat $state/programs)"
    # With Type=notify it has answered for itself: no wait is needed after a start.
    systemctl restart tcpmon
    curl -sSf --max-time 20 http://127.0.0.1:10066/readyz
}

check_the_unit_is_in_order() {
    same "dpkg --verify" "$(dpkg --verify tcpmon)" ""
    same "systemd-analyze verify" "$(systemd-analyze verify tcpmon.service 2>&1)" ""
    systemd-analyze security --no-pager tcpmon.service > $state/exposure
    must "the exposure is above 3: $(tail -n 1 $state/exposure)" \
        grep -q 'Overall exposure level for tcpmon.service: [0-2]\.[0-9]' $state/exposure
    must "the group's number is a system's" test "$(getent group tcpmon | cut -d: -f3)" -lt 1000
}

# Bits of capability sets: CAP_DAC_READ_SEARCH 2, CAP_SYS_PTRACE 19, CAP_SYS_ADMIN 21,
# CAP_PERFMON 38, CAP_BPF 39.
check_the_process_has_the_user_and_the_privileges_of_the_page() {
    pid=$(property MainPID)
    user=$(id -u tcpmon)
    for thread in /proc/"$pid"/task/*; do
        name=$(cat "$thread/comm")
        expected=0000000000080004
        [ "$name" != tcpmon-survey ] || expected=0000000000280004
        same "CapEff of $name" "$(status "$thread" CapEff)" $expected
        same "CapPrm of $name" "$(status "$thread" CapPrm)" $expected
        same "CapBnd of $name" "$(status "$thread" CapBnd)" 000000c000280004
        same "NoNewPrivs of $name" "$(status "$thread" NoNewPrivs)" 1
        same "Seccomp of $name" "$(status "$thread" Seccomp)" 2
        same "Uid of $name" "$(status "$thread" Uid)" "$user $user $user $user"
    done
    must "there is no thread tcpmon-survey" grep -q '^tcpmon-survey$' /proc/"$pid"/task/*/comm
}

# status THREAD FIELD
status() {
    sed -n "s/^$2:[[:space:]]*//p" "$1/status" | tr '\t' ' '
}

check_the_socket_belongs_to_the_group() {
    same "the folder's" "$(stat -c '%a %U %G' /run/tcpmon)" "755 tcpmon tcpmon"
    same "the socket's" "$(stat -c '%a %U %G' /run/tcpmon/tcpmon.sock)" "660 tcpmon tcpmon"
}

check_the_journal_has_the_start_and_no_error() {
    must "the journal has no start-up line" said 'observing TCP transitions; clients on'
    same "warnings and worse" "$(journal --priority warning)" ""
}

# All files of the system, but for what others write, and for copies that dpkg and the tools for
# accounts keep of the files before a change.
files() {
    find / -xdev \( -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/cache \
        -o -path /opt/checks -o -path /home -o -path /var/lib/systemd/timers \) -prune -o -print |
        grep -v '^/etc/[a-z]*-$\|^/var/lib/dpkg/[a-z]*-old$' | sort
}

# Accounts without the numbers that other changes of them move.
accounts() {
    cut -d: -f1 /etc/passwd /etc/shadow /etc/group /etc/gshadow
}
