# How it is ended against its will, and comes back. Each check begins with the allowance of
# restarts that a service has.

check_after_sigkill_it_is_back() {
    systemctl reset-failed tcpmon
    pid=$(property MainPID)
    kill -KILL "$pid"
    must_be_back "$pid"
    must "systemd does not say how it ended" said 'Main process exited, code=killed, status=9/KILL'
    same NRestarts "$(property NRestarts)" 1
}

# The unit's thirty seconds would be waited for; five are the same to systemd and the daemon. A
# stopped process does not take the watchdog's SIGABRT, so that TimeoutStopSec= passes as well
# before it is killed.
check_the_watchdog_ends_one_that_stands_still() {
    drop_in '[Service]' 'WatchdogSec=5'
    systemctl restart tcpmon
    systemctl reset-failed tcpmon
    # One that moves is left alone.
    pid=$(property MainPID)
    await 20 "the watchdog is fed" fed_since "$(property WatchdogTimestampMonotonic)"
    kill -STOP "$pid"
    must_be_back "$pid"
    must "systemd does not say that it was the watchdog" said 'Watchdog timeout (limit 5s)'
    must "systemd does not say that it was the watchdog" said "Failed with result 'watchdog'"
    no_drop_in
}

fed_since() {
    [ "$(property WatchdogTimestampMonotonic)" -gt "$1" ]
}

# What it holds is far more than 8 MB, so that the kernel ends it as soon as it may have no more.
check_after_the_oom_killer_it_is_back() {
    systemctl reset-failed tcpmon
    pid=$(property MainPID)
    systemctl set-property --runtime tcpmon.service MemoryMax=8M
    await 60 "the kernel's OOM killer" said 'killed by the OOM killer\|oom-kill'
    systemctl set-property --runtime tcpmon.service MemoryMax=512M
    must_be_back "$pid"
    must "systemd does not say that it was the OOM killer" said "Failed with result 'oom-kill'"
    rm -r /run/systemd/system.control/tcpmon.service.d
    systemctl daemon-reload
}

# Nothing that systemd could do mends a file, so it does not try again and again.
check_a_wrong_configuration_is_refused_once() {
    systemctl reset-failed tcpmon
    cp /etc/tcpmon/tcpmon.toml $state/tcpmon.toml
    echo 'tpo = 50' > /etc/tcpmon/tcpmon.toml
    never "it starts with a key that there is not" systemctl restart tcpmon
    same "how it ended" "$(property ExecMainStatus) $(property NRestarts)" "2 0"
    same "the state" "$(property ActiveState)" failed
    must "the journal does not name the key" said 'tpo'
    cp $state/tcpmon.toml /etc/tcpmon/tcpmon.toml
    systemctl start tcpmon
    metrics > $state/metrics
}

check_the_kernel_has_no_complaint() {
    journalctl --dmesg --no-pager > $state/kernel
    never "the kernel warns" grep 'WARNING:\|BUG:\|Oops' $state/kernel
}

# drop_in LINE...: an administrator's addition to the unit, in memory.
drop_in() {
    mkdir -p /run/systemd/system/tcpmon.service.d
    printf '%s\n' "$@" > /run/systemd/system/tcpmon.service.d/check.conf
    systemctl daemon-reload
}

no_drop_in() {
    rm -r /run/systemd/system/tcpmon.service.d
    systemctl daemon-reload
    systemctl restart tcpmon
}
