//! Text to plan.
mod plan;
pub use plan::{ListenerKey, ListenerPlan, Plan, Service};
