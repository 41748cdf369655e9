//! The recipes' scripts: each step acknowledged by the process that takes it or by the kernel's
//! table, so that every run gives the same transitions.

mod closing;
mod dying;
mod load;
mod opening;
mod pair;
mod reuse;
mod services;
mod stage;

use super::error::{LabError, Result};
use super::expectation::{Expectation, Namespace};
use super::place::Lab;
use super::recipe::{ConnectBy, Recipe};
use pair::End;
use reuse::Taken;
use stage::{Stage, Watch};

/// The most connections of a recipe that tells every socket: each is held in memory and in JSON.
const MOST: u64 = 100_000;

/// Carries out `recipe` with `connections` connections in the namespaces that were prepared for it.
pub(super) fn play<'a>(
    lab: &'a mut Lab,
    recipe: Recipe,
    connections: u64,
    netns: Vec<Namespace>,
    watch: Watch<'a>,
) -> Result<Expectation> {
    if connections == 0 {
        return Err(LabError::Unsuitable("--connections must be at least 1".into()));
    }
    match recipe {
        Recipe::ThreeServices => return services::play(lab, connections, &netns),
        Recipe::Churn | Recipe::TimeWait => return load::play(lab, recipe, connections),
        _ => {}
    }
    if connections > MOST {
        return Err(LabError::Unsuitable(format!(
            "--connections {connections}: {} tells every socket, so at most {MOST}; churn and time-wait make more",
            recipe.name()
        )));
    }
    let mut stage = Stage::set(lab, recipe, netns, watch)?;
    match recipe {
        Recipe::ClientFirst => closing::in_turn(&mut stage, connections, End::Client)?,
        Recipe::ServerFirst => closing::in_turn(&mut stage, connections, End::Server)?,
        Recipe::SimultaneousClose => closing::at_once(&mut stage, connections)?,
        Recipe::HalfClose => closing::half(&mut stage, connections)?,
        Recipe::ResetByClient => closing::reset(&mut stage, connections, End::Client)?,
        Recipe::ResetByServer => closing::reset(&mut stage, connections, End::Server)?,
        Recipe::ResetUnread => closing::unread(&mut stage, connections)?,
        Recipe::SimultaneousOpen => opening::at_once(&mut stage, connections)?,
        Recipe::Refused => opening::refused(&mut stage, connections)?,
        Recipe::Exhausted => opening::exhausted(&mut stage, connections, ConnectBy::Blocking)?,
        Recipe::ExhaustedNonblocking => {
            opening::exhausted(&mut stage, connections, ConnectBy::Nonblocking)?;
        }
        Recipe::ExhaustedIoUring => {
            opening::exhausted(&mut stage, connections, ConnectBy::IoUring)?;
        }
        Recipe::Prefork => opening::prefork(&mut stage, connections)?,
        Recipe::Reuseport => opening::reuseport(&mut stage, connections)?,
        Recipe::ReuseOff => reuse::connect_again(&mut stage, connections, "0", Taken::No)?,
        Recipe::ReuseOn | Recipe::ReuseOnWire => {
            reuse::connect_again(&mut stage, connections, "1", Taken::Yes)?;
        }
        Recipe::ReuseLoopback => reuse::connect_again(&mut stage, connections, "2", Taken::Yes)?,
        Recipe::ReuseLoopbackOnWire => {
            reuse::connect_again(&mut stage, connections, "2", Taken::No)?;
        }
        Recipe::NewIncarnation => reuse::new_incarnation(&mut stage, connections)?,
        Recipe::FinTimeoutShort => dying::fin_timeout_short(&mut stage, connections)?,
        Recipe::FinTimeoutLong => dying::fin_timeout_long(&mut stage, connections)?,
        Recipe::TableFull => dying::table_full(&mut stage, connections)?,
        Recipe::ResetInTimeWait => dying::reset(&mut stage, connections)?,
        Recipe::DataAfterClose => dying::data_after_close(&mut stage, connections)?,
        Recipe::SynAfterClose => dying::syn_after_close(&mut stage, connections)?,
        Recipe::Destroyed => dying::destroyed(&mut stage, connections)?,
        Recipe::NamespaceRemoved => dying::with_namespace(&mut stage, connections)?,
        Recipe::Churn | Recipe::TimeWait | Recipe::ThreeServices => {}
    }
    Ok(stage.finish())
}
