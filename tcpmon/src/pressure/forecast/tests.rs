//! Loads of which it is known when they run dry, replayed second by second.

use super::*;
use crate::pressure::{
    facts::{NamespaceFacts, PortHolder},
    usage::{
        tests::{holder, namespace, route},
        uses,
    },
};

/// The usual range.
const CAPACITY: u32 = 28_232;

/// A load: how many connections begin in each second. Each closes at once and waits for 60 s.
struct Replay {
    opened: Vec<u64>,
    /// Of each second, the forecast then.
    forecasts: Vec<Forecast>,
    /// The second in which there was no port left.
    dry: Option<usize>,
}

fn play(rate: impl Fn(u32) -> f64, live: impl Fn(u32) -> u64, seconds: u32) -> Replay {
    let mut forecaster = Forecaster::default();
    let netns: Arc<str> = "shop".into();
    let mut replay = Replay { opened: Vec::new(), forecasts: Vec::new(), dry: None };
    let mut carried = 0.0;
    for second in 0..seconds {
        carried += rate(second);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let whole = carried as u64;
        carried -= number(whole);
        replay.opened.push(whole);
        let entered: u64 = replay.opened.iter().sum();
        let waiting: u64 = replay.opened.iter().rev().take(60).sum();
        let live = live(second);
        if waiting + live >= u64::from(CAPACITY) {
            replay.dry = Some(second as usize);
            break;
        }
        let now = PortUse {
            live,
            time_wait: waiting,
            entered,
            ..PortUse::none(route("10.0.0.1", "10.0.0.2"), Some(CAPACITY))
        };
        let at = Duration::from_secs(second.into());
        let told = forecaster.step(at, &netns, std::slice::from_ref(&now));
        replay.forecasts.push(told[0].expect("a capacity"));
    }
    replay
}

/// A number between -1 and 1 that looks random and is the same each time.
fn noise(second: u32) -> f64 {
    f64::from((second.wrapping_mul(2_654_435_761) >> 8) % 2_001) / 1_000.0 - 1.0
}

#[test]
fn a_steady_load_that_fits_never_runs_out() {
    for rate in [10.0, 100.0, 400.0, 460.0] {
        let replay = play(|_| rate, |_| 0, 300);
        assert_eq!(replay.dry, None, "{rate}");
        for (second, forecast) in replay.forecasts.iter().enumerate().skip(3) {
            assert!(forecast.eta_seconds.is_infinite(), "{rate}/s at {second} s: {forecast:?}");
        }
        let settled = replay.forecasts[30].settles_at;
        let wanted = rate * 60.0 / f64::from(CAPACITY);
        assert!((settled / wanted - 1.0).abs() < 0.02 || wanted < 0.05, "{settled} {wanted}");
    }
}

#[test]
fn noise_on_a_load_that_fits_raises_nothing() {
    for part in [0.2, 0.5, 0.9] {
        let replay = play(|second| 380.0 * (1.0 + part * noise(second)), |_| 50, 600);
        assert_eq!(replay.dry, None);
        let soon = replay.forecasts.iter().filter(|it| it.eta_seconds < 600.0).count();
        assert_eq!(soon, 0, "{part}");
    }
}

/// How far off the forecasts are, seconds before the end by fractions of what was left.
fn errors(replay: &Replay) -> Vec<(f64, f64)> {
    let dry = replay.dry.expect("it runs dry");
    let told = replay.forecasts.iter().enumerate().skip(3);
    told.filter(|(_, forecast)| forecast.eta_seconds.is_finite())
        .map(|(second, forecast)| {
            let left = number((dry - second) as u64);
            (left, (forecast.eta_seconds - left) / left)
        })
        .collect()
}

/// What docs/forecast.md states, in lines of its table (`cargo test -p tcpmon --lib
/// forecast -- --nocapture the_table`).
#[test]
fn the_table_of_errors() {
    type Rate = fn(u32) -> f64;
    let constant: [(&str, Rate); 3] =
        [("500/s", |_| 500.0), ("600/s", |_| 600.0), ("2,000/s", |_| 2_000.0)];
    let noisy: [(&str, Rate); 2] = [
        ("640/s, each second up to 20 % more or less", |second| {
            640.0 * (1.0 + 0.2 * noise(second))
        }),
        ("640/s, each second up to 50 % more or less", |second| {
            640.0 * (1.0 + 0.5 * noise(second))
        }),
    ];
    let rising: [(&str, Rate); 3] = [
        ("from 0, 2/s more each second", |second| 2.0 * f64::from(second)),
        ("from 0, 10/s more each second", |second| 10.0 * f64::from(second)),
        ("300/s, then 700/s after two minutes", |second| if second < 120 { 300.0 } else { 700.0 }),
    ];
    for (name, rate) in constant.into_iter().chain(noisy).chain(rising) {
        let replay = play(rate, |_| 0, 900);
        let errors = errors(&replay);
        let dry = replay.dry.expect("it runs dry");
        let (left, _) = errors[0];
        let mut off: Vec<f64> = errors.iter().map(|(left, error)| (error * left).abs()).collect();
        off.sort_by(f64::total_cmp);
        let (median, worst) = (off[off.len() / 2], off[off.len() - 1]);
        println!("| {name} | {dry} s | {left} s | {median:.1} s | {worst:.1} s |");
        assert!(left >= 8.0 && median <= 5.0 && worst <= 60.0, "{name}: {left} {median} {worst}");
    }
}

#[test]
fn a_load_that_does_not_fit_is_told_to_the_second() {
    // 600 a second need 36,000 ports: dry after 47 s.
    for rate in [500.0, 600.0, 2_000.0] {
        let replay = play(|_| rate, |_| 0, 300);
        let dry = replay.dry.expect("it runs dry");
        let first = replay.forecasts.iter().position(|it| it.eta_seconds.is_finite());
        assert!(first.expect("a forecast") <= 4, "{rate}: {first:?} of {dry}");
        for (left, error) in errors(&replay) {
            assert!((error * left).abs() < 1.6, "{rate}: {left} s before, off by {error}");
        }
    }
}

#[test]
fn a_load_with_noise_that_does_not_fit_is_told_well_before() {
    let replay = play(|second| 640.0 * (1.0 + 0.5 * noise(second)), |_| 0, 300);
    let errors = errors(&replay);
    assert!(errors[0].0 > 30.0, "{errors:?}");
    let mean =
        errors.iter().map(|(_, error)| error.abs()).sum::<f64>() / number(errors.len() as u64);
    assert!(mean < 0.2, "{mean}");
}

/// A rate that itself rises is underestimated, by half of what it will still rise.
#[test]
fn a_rising_load_is_told_late_but_before_its_end() {
    // Two more a second in each second: level t^2 for a minute, then 120 t - 3600.
    let replay = play(|second| 2.0 * f64::from(second), |_| 0, 600);
    let dry = replay.dry.expect("it runs dry");
    let first = replay.forecasts.iter().position(|it| it.eta_seconds <= 600.0).expect("told");
    let before = dry - first;
    assert!(before >= 20, "told {before} s before {dry} s");
}

#[test]
fn a_leak_of_live_sockets_has_its_hour() {
    let replay = play(|_| 0.0, |second| 2_000 + 20 * u64::from(second), 700);
    let forecast = replay.forecasts[100];
    // 4,000 are held at 100 s: 24,232 more at 20 a second.
    assert!((forecast.eta_seconds - 1_211.6).abs() < 2.0, "{forecast:?}");
    let filled = play(|_| 0.0, |second| 2_000.min(400 * u64::from(second)), 60);
    assert!(filled.forecasts[20].eta_seconds.is_infinite(), "a pool that is full grows no more");
}

#[test]
fn what_was_there_before_the_first_reading_leaves_within_a_minute() {
    let mut forecaster = Forecaster::default();
    let now = |at: u64, waiting, entered| PortUse {
        time_wait: waiting,
        entered: entered + at,
        ..PortUse::none(route("10.0.0.1", "10.0.0.2"), Some(CAPACITY))
    };
    let netns: Arc<str> = "shop".into();
    for second in 0..=20_u64 {
        let uses = [now(0, 20_000, 100 * second)];
        let told = forecaster.step(Duration::from_secs(second), &netns, &uses);
        let forecast = told[0].expect("a capacity");
        assert!(forecast.eta_seconds.is_infinite(), "{second}: {forecast:?}");
    }
}

/// Sysctls that are switched after 30 s: what has waited since long before is no load.
#[test]
fn a_switched_sysctl_is_no_rate() {
    // 88 ports, 50 of them waiting; one a minute enters. Those that are live have the route watched.
    let waiting = |second: u64, timestamps| PortHolder {
        live: 5,
        time_wait: 50,
        time_wait_young: 0,
        time_wait_entered: 5_000 + second / 60,
        fin_wait2: 0,
        timestamps,
        ..holder(route("10.0.0.1", "10.0.0.2"), true)
    };
    let on = |reuse, timestamps, second| {
        let mut netns: NamespaceFacts = namespace(reuse, vec![waiting(second, timestamps)]);
        netns.sysctls.tcp_timestamps = Some(timestamps.into());
        netns
    };
    for (what, before, after) in [
        ("tcp_tw_reuse off", (1, true), (0, true)),
        ("tcp_tw_reuse to loopback only", (1, true), (2, true)),
        ("tcp_timestamps off", (1, true), (1, false)),
        ("tcp_tw_reuse on", (0, true), (1, true)),
        ("nothing", (0, true), (0, true)),
    ] {
        let mut forecaster = Forecaster::default();
        let netns: Arc<str> = "shop".into();
        for second in 0..90 {
            let (reuse, timestamps) = if second < 30 { before } else { after };
            let uses = uses(&on(reuse, timestamps, second));
            let told = forecaster.step(Duration::from_secs(second), &netns, &uses);
            let forecast = told[0].expect("a capacity");
            assert!(
                forecast.eta_seconds.is_infinite() && forecast.rate < 1.0,
                "{what}, {second} s: {forecast:?}"
            );
        }
    }
}

#[test]
fn memory_is_bounded_and_idle_routes_are_forgotten() {
    let mut forecaster = Forecaster::default();
    let netns: Arc<str> = "shop".into();
    let uses: Vec<PortUse> = (0..20_000_u32)
        .map(|number| {
            let dst = std::net::Ipv4Addr::from(number).into();
            let route = Route { dst, ..route("10.0.0.1", "::") };
            PortUse { live: 50, ..PortUse::none(route, Some(100)) }
        })
        .collect();
    for second in 0..5 {
        let told = forecaster.step(Duration::from_secs(second), &netns, &uses);
        assert_eq!(told.len(), uses.len());
    }
    assert_eq!(forecaster.routes.len(), ROUTES);
    forecaster.forget_before(Duration::from_secs(30));
    assert!(forecaster.routes.is_empty());
}
