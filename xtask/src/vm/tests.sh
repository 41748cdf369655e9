# Runs the tests of `cargo xtask vm`, and those that fail once more, one at a time: an emulated
# machine with one CPU is slow, and what waits for another program may have waited too short. What
# fails then has failed; what does not is told.

# Most of a test is waiting, so they wait together.
export RUST_TEST_THREADS=4
said=/run/said
{ @COMMAND@; echo $? > /run/code; } 2>&1 | tee $said
code=$(cat /run/code)
[ "$code" -eq 0 ] && exit 0
failed=$(sed -n 's/^test \([^ ]*\) \.\.\. FAILED$/\1/p' $said)
# Nothing failed by name, or too much for chance.
[ -n "$failed" ] && [ "$(echo "$failed" | wc -l)" -le 8 ] || exit "$code"
echo "once more, one at a time, since this machine is emulated:" $failed
exec @PROGRAM@ --exact --test-threads 1 $failed
