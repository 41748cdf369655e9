# The checks of `cargo xtask vm --systemd`, run by systemd in the virtual machine, in the order in
# which the service lives. The second serial port is the host's: each check is a line on it.

cd /opt/checks
stty -F /dev/ttyS1 raw -echo
exec > /dev/ttyS1
. ./lib.sh
. ./arrival.sh
. ./work.sh
. ./faults.sh
. ./departure.sh

# Tells the host the exit code, and waits for it to end the machine.
end() {
    echo "@ENDED@ $(cat $state/failures)"
    exec sleep infinity
}

systemctl is-system-running --wait > $state/running
read -r up _ < /proc/uptime
echo "$(systemctl --version | head -n 1) on Linux $(uname -r), $(cat $state/running) after $up s"

check the_package_installs_and_starts_the_service || end
check the_unit_is_in_order
check the_process_has_the_user_and_the_privileges_of_the_page
check the_socket_belongs_to_the_group
check the_journal_has_the_start_and_no_error

check transitions_are_counted_to_the_unit
check an_alert_fires_and_is_in_the_journal
check a_member_of_the_group_may_follow
check an_outsider_is_refused_in_one_line
check a_reload_keeps_the_process
check the_host_drop_in_leaves_no_privilege

check after_sigkill_it_is_back
check the_watchdog_ends_one_that_stands_still
check after_the_oom_killer_it_is_back
check a_wrong_configuration_is_refused_once
check the_kernel_has_no_complaint

check an_upgrade_while_it_runs_is_a_restart
check a_removal_takes_the_probes_along
check a_purge_leaves_nothing

end
