# What the service is for, and for whom.

check_transitions_are_counted_to_the_unit() {
    systemd-run --wait --quiet --unit shopper sh -c \
        'for n in 1 2 3 4 5; do curl -sSf -o /dev/null http://127.0.0.1:10066/healthz; done'
    await 30 "five connections of shopper.service" \
        series 'tcpmon_connections_total{role="active",service="shopper.service"} 5$'
    # curl closes first.
    await 30 "five sockets of it in TIME_WAIT" \
        series 'tcpmon_time_wait_entered_total{netns="host",service="shopper.service"} 5$'
}

# Twenty ports towards a listener that never closes, in a network namespace of its own; the next
# connect() finds none.
check_an_alert_fires_and_is_in_the_journal() {
    ip netns add shop
    ip -n shop link set lo up
    ip netns exec shop sh -c 'echo 40000 40019 > /proc/sys/net/ipv4/ip_local_port_range'
    systemd-run --quiet --unit shop-server --property NetworkNamespacePath=/run/netns/shop \
        systemd-socket-activate --listen 127.0.0.1:7777 sleep infinity
    await 30 "a listener in the namespace" listens
    systemd-run --quiet --unit shop-client --property NetworkNamespacePath=/run/netns/shop \
        bash -c 'for n in {1..21}; do exec {held}<>/dev/tcp/127.0.0.1/7777 || break; done; sleep 600'
    await 60 "TcpPortExhausted as a metric" \
        series 'tcpmon_alert_firing{alert="TcpPortExhausted",.*netns="shop",.*} 1$'
    must "the journal has no TcpPortExhausted" \
        said 'alert=TcpPortExhausted state=raised severity=critical netns="shop"'
    must "the failure is not shop-client's" \
        series 'tcpmon_connect_port_failures_total{netns="shop",.*service="shop-client.service"} 1$'
    # By the kernel's list of sockets, which the sandbox must let through.
    await 30 "the twenty ports that are taken" \
        series 'tcpmon_ephemeral_ports_used{netns="shop",.*kind="live"} 20$'
    must "the report does not have it" \
        sh -c 'tcpmon report | grep -q "CRITICAL *TcpPortExhausted"'
    systemctl stop shop-client shop-server
    ip netns delete shop
}

listens() {
    [ -n "$(ip netns exec shop ss -Hltn sport = :7777)" ]
}

check_a_member_of_the_group_may_follow() {
    usermod --append --groups tcpmon member
    { runuser -u member -- timeout 60 tcpmon tail --count 4 > $state/tail 2>&1 &&
        touch $state/followed; } &
    # Each look is a connection, and so four transitions and more.
    await 60 "the end of a stream of four" has_ended
    cat $state/tail
    must "no transition was shown" grep -q 'SYN_SENT *-> ESTABLISHED\|LISTEN *-> SYN_RECV' \
        $state/tail
}

has_ended() {
    series tcpmon_subscribers
    test -e $state/followed
}

check_an_outsider_is_refused_in_one_line() {
    code=0
    runuser -u outsider -- tcpmon tail --count 1 > $state/tail 2>&1 || code=$?
    same "the exit code" $code 1
    same "the message" "$(cat $state/tail)" "tcpmon: may not talk to the tcpmon daemon on \
/run/tcpmon/tcpmon.sock: join the group tcpmon, or run as root"
}

check_a_reload_keeps_the_process() {
    pid=$(property MainPID)
    systemctl reload tcpmon
    await 30 "the service is active again" is_active
    same "the process" "$(property MainPID)" "$pid"
    same "the unit's result" "$(property Result)" success
    metrics > $state/metrics
}

check_the_host_drop_in_leaves_no_privilege() {
    mkdir -p /etc/systemd/system/tcpmon.service.d
    cp /usr/share/doc/tcpmon/examples/host.conf /etc/systemd/system/tcpmon.service.d/
    systemctl daemon-reload
    systemctl restart tcpmon
    for thread in /proc/"$(property MainPID)"/task/*; do
        same "CapEff of $(cat "$thread/comm")" "$(status "$thread" CapEff)" 0000000000000000
        same "CapBnd of $(cat "$thread/comm")" "$(status "$thread" CapBnd)" 000000c000000000
    done
    metrics > $state/metrics
    rm -r /etc/systemd/system/tcpmon.service.d
    systemctl daemon-reload
    systemctl restart tcpmon
}
