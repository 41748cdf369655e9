//! The address of `tw_timer_handler()`, by which the probes tell the timers of time-wait sockets
//! from all others.
//!
//! The kernel tells it in /proc/kallsyms to those with `CAP_SYSLOG`. Where it does not
//! (`kernel.kptr_restrict` is 2, or the capability is missing), it is learnt: a probe looks at the
//! timer of one time-wait socket, made for it.

use super::probes::{ProbeError, program, refusal};
use aya::{Ebpf, maps::Array, programs::BtfTracePoint};
use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, TcpListener, TcpStream},
};
use tcpmon_common::Learnt;

/// The function's name (net/ipv4/inet_timewait_sock.c).
const NAME: &str = "tw_timer_handler";

/// The program that learns.
const LEARN: &str = "tcpmon_timer_learn";

/// Its address in /proc/kallsyms; `None` where the kernel does not tell.
///
/// # Errors
///
/// Where the file cannot be read.
pub(super) fn from_kallsyms() -> io::Result<Option<u64>> {
    find(BufReader::with_capacity(1 << 16, File::open("/proc/kallsyms")?))
}

/// The address in a table of symbols, `ADDRESS TYPE NAME` a line; zeros where addresses are hidden
/// (`s_show()` in kernel/kallsyms.c).
fn find(mut symbols: impl BufRead) -> io::Result<Option<u64>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if symbols.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if let Some(rest) = text.strip_suffix(NAME.as_bytes())
            && let Some(address) = std::str::from_utf8(rest).ok().and_then(address_of)
        {
            return Ok((address != 0).then_some(address));
        }
    }
}

/// The address in what stands before a name.
fn address_of(text: &str) -> Option<u64> {
    let (address, kind) = text.split_once(' ')?;
    // A longer name would stand here with its beginning.
    let is_function = matches!(kind, "t " | "T ");
    is_function.then(|| u64::from_str_radix(address, 16).ok()).flatten()
}

/// Learns it from a time-wait socket on loopback, made and left to the kernel here.
///
/// # Errors
///
/// Where the probe does not run, or no connection can be made on loopback.
pub(super) fn learn(ebpf: &mut Ebpf, types: &aya::Btf) -> Result<u64, ProbeError> {
    let learner: &mut BtfTracePoint = program(ebpf, LEARN)?;
    learner.load("timer_start", types).map_err(refusal("load", LEARN))?;
    let link = learner.attach().map_err(refusal("attach", LEARN))?;
    let map = ebpf.map_mut("LEARNT").ok_or(ProbeError::Object("LEARNT"))?;
    let mut learnt: Array<_, Learnt> =
        Array::try_from(map).map_err(|error| unlearnt(&error.to_string()))?;
    let taught = show_one(|cookie| {
        learnt.set(0, Learnt { cookie, function: 0 }, 0).map_err(io::Error::other)
    });
    taught.map_err(|error| unlearnt(&error.to_string()))?;
    let function = learnt.get(&0, 0).map(|learnt| learnt.function).unwrap_or_default();
    let learner: &mut BtfTracePoint = program(ebpf, LEARN)?;
    learner.detach(link).map_err(refusal("detach", LEARN))?;
    if function == 0 { Err(unlearnt("its timer was not seen")) } else { Ok(function) }
}

fn unlearnt(why: &str) -> ProbeError {
    ProbeError::Handler(why.to_owned())
}

/// Makes a time-wait socket, after telling its cookie. When this returns its timer runs.
fn show_one(tell: impl FnOnce(u64) -> io::Result<()>) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    tell(rustix::net::sockopt::socket_cookie(&client)?)?;
    // Who closes first has the time-wait socket, once the FIN is acknowledged; loopback has done
    // so by the time that the other end has seen it.
    drop(client);
    io::Read::read(&mut &server, &mut [0])?;
    drop(server);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_among_its_neighbours() {
        let table = |lines: &str| find(lines.as_bytes()).expect("readable");
        let neighbours = "ffffffff81000000 T _text\nffffffff82b0a940 t __pfx_tw_timer_handler\n";
        assert_eq!(
            table(&format!("{neighbours}ffffffff82b0a950 t tw_timer_handler\n")),
            Some(0xffff_ffff_82b0_a950)
        );
        assert_eq!(table(&format!("{neighbours}0000000000000000 t tw_timer_handler\n")), None);
        assert_eq!(table("ffffffff82b0a950 t tw_timer_handler"), Some(0xffff_ffff_82b0_a950));
        for other in [neighbours, "", "tw_timer_handler\n", "zz t tw_timer_handler\n", "\u{0}"] {
            assert_eq!(table(other), None, "{other}");
        }
    }
}
