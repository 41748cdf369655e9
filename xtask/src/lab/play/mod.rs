//! The recipes' scripts: each step acknowledged by the process that takes it or by the kernel's
//! table, so that every run gives the same transitions.

mod closing;
mod load;
mod opening;
mod pair;
mod stage;

use super::error::{LabError, Result};
use super::expectation::Expectation;
use super::place::Lab;
use super::recipe::{ConnectBy, Recipe};
use pair::End;
use stage::Stage;

/// The most connections of a recipe that tells every socket: each is held in memory and in JSON.
const MOST: u64 = 100_000;

/// Carries out `recipe` with `connections` connections.
pub(super) fn play(lab: &mut Lab, recipe: Recipe, connections: u64) -> Result<Expectation> {
    if connections == 0 {
        return Err(LabError::Unsuitable("--connections must be at least 1".into()));
    }
    if recipe.is_load() {
        return load::play(lab, recipe, connections);
    }
    if connections > MOST {
        return Err(LabError::Unsuitable(format!(
            "--connections {connections}: {} tells every socket, so at most {MOST}; churn and time-wait make more",
            recipe.name()
        )));
    }
    let mut stage = Stage::set(lab, recipe)?;
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
        Recipe::Churn | Recipe::TimeWait => {}
    }
    Ok(stage.finish())
}
