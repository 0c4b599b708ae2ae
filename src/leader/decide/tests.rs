//! Tests of the decision: `stories`, a table with a row for each situation; `histories`, random observations;
//! `simulation`, a model of Patroni with random faults; `restarts`, a running process against a new one;
//! `rule_numbers`, the rules in the code, the document and the rows.

mod histories;
mod restarts;
mod rule_numbers;
mod simulation;
mod stories;

use super::*;
use crate::leader::observation::{DcsStatus, Report, Role};
use crate::leader::reason::Reason;
use crate::leader::{MemberName, RoutingState};
