//! The state diagram, and how a connection begins and ends, step by step.

use crate::cli::paper::Paper;

/// The diagram of RFC 9293 (figure 5) in the kernel's words; 76 columns.
const DIAGRAM: &str = r"
                             +-------------+
                             |    CLOSE    |
                             +-------------+
                  listen()    |           |    connect(): send SYN
           +------------------+           +-----------------+
           v                                                v
    +-------------+                                  +-------------+
    |   LISTEN    |                                  |  SYN_SENT   |
    +-------------+                                  +-------------+
           | SYN came:                                  |       |
           | send SYN+ACK     SYN came: send SYN+ACK    |       |
           v               (both opened at once)        |       |
    +-------------+                                     |       |
    |  SYN_RECV   |<------------------------------------+       |
    +-------------+                                             |
           | ACK came                     SYN+ACK came: send ACK|
           |                 +-------------+                    |
           +---------------->| ESTABLISHED |<-------------------+
                             +-------------+
         close(): send FIN    |           |    FIN came: send ACK
           +------------------+           +-----------------+
           v                                                v
    +-------------+ FIN came:  +-------------+       +-------------+
    |  FIN_WAIT1  |----------->|   CLOSING   |       | CLOSE_WAIT  |
    +-------------+ send ACK   +-------------+       +-------------+
      |         | FIN and ACK        |                      | close():
      | ACK     | of ours came:      | ACK of our           | send FIN
      v came    | send ACK           | FIN came             v
    +---------+ |                    |               +-------------+
    |FIN_WAIT2| |                    |               |  LAST_ACK   |
    +---------+ |                    |               +-------------+
      | FIN     v                    v                      |
      | came: +-------------------------+                   | ACK of our
      +------>|        TIME_WAIT        |                   | FIN came
        send  +-------------------------+                   |
        ACK                | 60 s                           |
                           v                                |
                    +-------------+                         |
                    |    CLOSE    |<------------------------+
                    +-------------+
";

const ESTABLISHMENT: &str = r"
      the end that connects                      the end that accepts

   1  CLOSE                                      CLOSE
   2                                             LISTEN         bind(), listen()
   3  SYN_SENT       ---------- SYN --------->
   4                 <------- SYN+ACK --------   NEW_SYN_RECV
   5  ESTABLISHED    ---------- ACK --------->
   6                                             ESTABLISHED    after SYN_RECV
";

const TERMINATION: &str = r"
      the end that closes first                  the other end

   1  FIN_WAIT1      ---------- FIN --------->   close() or shutdown()
   2                 <--------- ACK ----------   CLOSE_WAIT
   3  FIN_WAIT2                                  read() returned 0
   4                 <--------- FIN ----------   LAST_ACK       close()
   5  TIME_WAIT      ---------- ACK --------->
   6                                             CLOSE          after the ACK
   7  CLOSE          after 60 s
";

const SIMULTANEOUS: &str = r"
      one end                                    the other end

   1  FIN_WAIT1      --- FIN ---.  .-- FIN ---   FIN_WAIT1      both close()
                                 \/
                                 /\
   2  CLOSING        <----------'  '--------->   CLOSING
   3                 --- ACK ---.  .-- ACK ---
                                 \/
                                 /\
   4  TIME_WAIT      <----------'  '--------->   TIME_WAIT      both, for 60 s
";

/// The common lists of states by side, and what they take for granted.
const SIDES: &str = "Lists that give SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSING and TIME_WAIT to the \
                     client, LISTEN, SYN_RECV, CLOSE_WAIT and LAST_ACK to the server, and CLOSE \
                     and ESTABLISHED to both, mean a client that connects and also closes first. \
                     Who connects decides about the beginning only; who closes first decides about \
                     the end: a server that ends idle connections has FIN_WAIT1 to TIME_WAIT, and \
                     its clients have CLOSE_WAIT and LAST_ACK.";

/// The whole overview.
pub(super) fn overview(paper: &mut Paper) {
    paper.heading("The states of a TCP connection");
    paper.gap();
    picture(paper, DIAGRAM);
    paper.paragraph(
        2,
        "A reset (RST) leads from any of these but LISTEN to CLOSE at once. Names are the kernel's; \
         RFC 9293 writes SYN-RECEIVED for SYN_RECV, FIN-WAIT-1 for FIN_WAIT1, CLOSED for CLOSE.",
    );

    paper.heading("How a connection begins");
    paper.gap();
    picture(paper, ESTABLISHMENT);
    paper.paragraph(
        2,
        "While step 5 is awaited, Linux keeps a small request socket in NEW_SYN_RECV, which ss \
         shows as SYN-RECV; the full socket comes with the ACK and is in SYN_RECV for an instant. \
         Two ends that connect to each other at once both go from SYN_SENT by SYN_RECV to \
         ESTABLISHED (simultaneous open): rare.",
    );

    paper.heading("How a connection ends");
    paper.gap();
    picture(paper, TERMINATION);
    paper.paragraph(
        2,
        "Either end may close first, whichever connected: it is the one that gets TIME_WAIT. If \
         the other end closes at once, 2 and 4 are one segment, and the first goes from FIN_WAIT1 \
         to TIME_WAIT. After close(), Linux puts the socket into the time-wait table in FIN_WAIT2 \
         already; after shutdown(), only at step 5.",
    );

    paper.heading("Client's states, server's states");
    paper.paragraph(2, SIDES);

    paper.heading("Both close at once: CLOSING");
    paper.gap();
    picture(paper, SIMULTANEOUS);
    paper.paragraph(
        2,
        "Each sends its FIN before it has seen the other's, so the FIN that comes does not \
         acknowledge its own. A lost ACK alone does not lead here: the FIN that follows it \
         acknowledges the same once more, and leads from FIN_WAIT1 to TIME_WAIT.",
    );
}

fn picture(paper: &mut Paper, lines: &str) {
    for line in lines.lines().skip(1) {
        paper.line(line);
    }
    paper.gap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_fit_80_columns() {
        for picture in [DIAGRAM, ESTABLISHMENT, TERMINATION, SIMULTANEOUS] {
            for line in picture.lines() {
                assert!(line.len() <= 80 && line.is_ascii(), "{line}");
            }
        }
    }
}
