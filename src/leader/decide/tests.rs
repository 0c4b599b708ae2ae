//! Tests of the decision. `stories` is a table with a row for each situation, `histories` are random observations, and
//! `simulation` is a model of Patroni with random faults. `restarts` compares a long-running process with a new one,
//! and `rule_numbers` compares the rules in the code, the document and the rows.

mod histories;
mod restarts;
mod rule_numbers;
mod simulation;
mod stories;

use super::*;
use crate::leader::observation::{DcsStatus, Report, Role};
use crate::leader::reason::Reason;
use crate::leader::{MemberName, RoutingState};
