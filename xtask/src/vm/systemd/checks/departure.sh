# Upgraded, removed, purged.

check_an_upgrade_while_it_runs_is_a_restart() {
    pid=$(property MainPID)
    dpkg -i tcpmon.deb
    same active "$(systemctl is-active tcpmon)" active
    must_be_back "$pid"
}

check_a_removal_takes_the_probes_along() {
    pid=$(property MainPID)
    dpkg -r tcpmon
    never "the process is still there" test -e "/proc/$pid"
    await 30 "the kernel has dropped the probes" nothing_in_the_kernel
    same "pinned objects" "$(find /sys/fs/bpf -mindepth 1)" ""
    never "the unit can be started" systemctl start tcpmon
    never "the program is still there" test -e /usr/bin/tcpmon
    never "its folder is still there" test -e /run/tcpmon
    # An administrator's file is kept until the purge.
    must "the configuration is gone" test -e /etc/tcpmon/tcpmon.toml
}

check_a_purge_leaves_nothing() {
    dpkg -P tcpmon
    same "the unit" "$(property LoadState)" not-found
    same "dpkg" "$(dpkg-query -W tcpmon 2> /dev/null)" ""
    accounts | diff $state/accounts -
    files | diff $state/files - | grep '^[<>]' > $state/left || :
    same "files left, and gone" "$(cat $state/left)" ""
    same "in /run and /var" "$(find /run /var -name '*tcpmon*' -not -path '/run/checks/*')" ""
    same "of its group of processes" "$(find /sys/fs/cgroup -name '*tcpmon*')" ""
}
