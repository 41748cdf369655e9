//! The fuzz targets without a fuzzer: what each looks for (`fuzz/looks`), on random bytes, on the
//! seeds (`fuzz/seeds`), and on seeds with something amiss. So every `cargo test` looks for it,
//! with any compiler; `cargo xtask fuzz` looks longer, and by what the code does with the bytes.

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*, sample::Index};

use crate::{
    export::{
        alertmanager::words,
        web::{WebConfig, credentials},
    },
    kernel::{btf, sock_diag},
    model,
};

#[path = "../../fuzz/looks/answer.rs"]
mod look_answer;
#[path = "../../fuzz/looks/btf.rs"]
mod look_btf;
#[path = "../../fuzz/looks/cgroup.rs"]
mod look_cgroup;
#[path = "../../fuzz/looks/credentials.rs"]
mod look_credentials;
#[path = "../../fuzz/looks/event_line.rs"]
mod look_event_line;
#[path = "../../fuzz/looks/filter.rs"]
mod look_filter;
#[path = "../../fuzz/looks/net_counters.rs"]
mod look_net_counters;
#[path = "../../fuzz/looks/record.rs"]
mod look_record;
#[path = "../../fuzz/looks/sock_diag.rs"]
mod look_sock_diag;
#[path = "../../fuzz/looks/web_config.rs"]
mod look_web_config;

type Look = fn(&[u8]);

const LOOKS: [(&str, Look); 10] = [
    ("answer", look_answer::look),
    ("btf", look_btf::look),
    ("cgroup", look_cgroup::look),
    ("credentials", look_credentials::look),
    ("event_line", look_event_line::look),
    ("filter", look_filter::look),
    ("net_counters", look_net_counters::look),
    ("record", look_record::look),
    ("sock_diag", look_sock_diag::look),
    ("web_config", look_web_config::look),
];

fn folder() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The seeds of a target, in no order; some have none, since they make their own headers.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(folder().join("seeds").join(target)).into_iter().flatten().flatten();
    files.map(|file| fs::read(file.path()).expect("a seed")).collect()
}

#[test]
fn each_target_is_here_and_is_right_about_its_seeds() {
    let files = fs::read_dir(folder().join("fuzz_targets")).expect("targets").flatten();
    let mut targets: Vec<_> =
        files.map(|file| file.file_name().to_string_lossy().replace(".rs", "")).collect();
    targets.sort();
    assert_eq!(targets, LOOKS.map(|(name, _)| name));
    for (name, look) in LOOKS {
        for seed in seeds(name) {
            look(&seed);
        }
    }
}

#[test]
fn seeds_are_understood() {
    let text = |target: &str, seed: &str| {
        fs::read_to_string(folder().join("seeds").join(target).join(seed)).expect("a seed")
    };
    for seed in ["event", "left", "gap"] {
        model::json::parse_line(text("event_line", seed).as_bytes()).expect(seed);
    }
    model::filter::Filter::from_query(&text("filter", "all")).expect("a filter");
    WebConfig::parse(&text("web_config", "full")).expect("a configuration");
    let pod = text("cgroup", "pod");
    let lines: Vec<_> = pod.lines().collect();
    assert!(model::pod::PodCgroup::of_path(lines[0]).is_some());
    assert!(model::pod::PodContainer::of_link(lines[1], lines[2]).is_some());
    assert!(credentials::credentials(text("credentials", "basic").as_bytes()).is_some());
}

proptest! {
    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..300), text in ".{0,100}") {
        for (_, look) in LOOKS {
            look(&bytes);
            look(text.as_bytes());
        }
    }

    #[test]
    fn seeds_with_something_amiss(
        which: Index,
        cuts in vec((any::<Index>(), 0..9_usize, vec(any::<u8>(), 0..4)), 1..4),
    ) {
        for (name, look) in LOOKS {
            let seeds = seeds(name);
            if seeds.is_empty() {
                continue;
            }
            let mut bytes = which.get(&seeds).clone();
            for (at, length, instead) in &cuts {
                let at = at.index(bytes.len() + 1);
                let end = (at + length).min(bytes.len());
                bytes.splice(at..end, instead.iter().copied());
            }
            look(&bytes);
        }
    }
}
