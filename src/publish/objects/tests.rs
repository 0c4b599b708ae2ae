//! Tables of the step that a publisher takes for each object, and a simulation of publishers that share one Service.

use std::time::{Duration, Instant};

use super::super::questions::Questions;
use super::*;

fn service() -> Service {
    Service {
        name: "pg".into(),
        uid: "u".into(),
        port_name: Some("postgresql".into()),
        app_protocol: None,
    }
}

fn desired(addresses: &[&str], timeline: Option<u32>) -> Desired {
    let primary = Primary {
        member: "pg-0".into(),
        addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
        port: 5432,
    };
    Desired {
        leader: (!addresses.is_empty()).then_some(primary),
        timeline,
        just_ended: true,
    }
}

/// A publisher whose name is `us`.
const US: Writer<'static> = Writer {
    identity: "us",
    alone: false,
    unanswered: None,
};
const THEM: Writer<'static> = Writer { identity: "them", ..US };

fn take(kind: Kind, found: Option<&DynamicObject>, desired: &Desired) -> Step {
    step(kind, &slices("v1"), found, desired, &service(), US)
}

fn take_slice(found: &DynamicObject, desired: &Desired, writer: Writer<'_>) -> Step {
    step(Kind::Slice4, &slices("v1"), Some(found), desired, &service(), writer)
}

/// Returns a slice that another publisher keeps.
fn theirs(desired: &Desired) -> DynamicObject {
    match step(Kind::Slice4, &slices("v1"), None, desired, &service(), THEM) {
        Step::Create(object) => *object,
        other => panic!("{other:?}"),
    }
}

/// Returns the object as the API would store it.
fn after(kind: Kind, desired: &Desired) -> DynamicObject {
    match take(kind, None, desired) {
        Step::Create(object) => *object,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_family_has_a_slice_of_its_own_and_none_is_made_for_nothing() {
    let both = desired(&["10.0.0.7", "fd00::7"], Some(1));
    for (kind, name, family, address) in [
        (Kind::Slice4, "pg-pgnorth-ipv4", "IPv4", "10.0.0.7"),
        (Kind::Slice6, "pg-pgnorth-ipv6", "IPv6", "fd00::7"),
    ] {
        let slice = after(kind, &both);
        assert_eq!(slice.metadata.name.as_deref(), Some(name));
        assert_eq!(slice.data["addressType"], family);
        assert_eq!(addresses(&slice), [address]);
        assert_eq!(slice.data["ports"][0]["name"], "postgresql");
    }
    assert!(matches!(
        take(Kind::Slice6, None, &desired(&["10.0.0.7"], None)),
        Step::Nothing
    ));
    assert!(matches!(take(Kind::Slice4, None, &desired(&[], None)), Step::Nothing));
}

#[test]
fn an_object_with_the_desired_content_is_left_as_it_is_in_the_apis_spelling_too() {
    for kind in [Kind::Slice4, Kind::Endpoints] {
        let wanted_now = desired(&["10.0.0.7"], Some(1));
        let found = after(kind, &wanted_now);
        assert!(matches!(take(kind, Some(&found), &wanted_now), Step::Nothing));
        let Step::Replace(mut empty) = take(kind, Some(&found), &desired(&[], Some(1))) else {
            panic!("{kind:?} is to be emptied")
        };
        assert!(addresses(&empty).is_empty());
        for list in ["endpoints", "subsets", "ports"] {
            if empty.data[list].is_array() {
                empty.data[list] = Value::Null;
            }
        }
        assert!(matches!(
            take(kind, Some(&empty), &desired(&[], Some(1))),
            Step::Nothing
        ));
    }
}

#[test]
fn another_publisher_s_higher_timeline_is_not_overwritten_before_it_was_asked() {
    let newer = theirs(&desired(&["10.0.0.8"], Some(5)));
    for late in [desired(&["10.0.0.7"], Some(4)), desired(&[], Some(4))] {
        let Step::Yield(Some(asked), dispute) = take_slice(&newer, &late, US) else {
            panic!("it asks first")
        };
        assert_eq!(dispute.subject, DisputeSubject::Timeline { theirs: 5, ours: 4 });
        assert_eq!(addresses(&asked), ["10.0.0.8"]);
        // The question is unanswered: nothing is written until it is answered, or until the time for an answer is over.
        assert!(matches!(take_slice(&asked, &late, US), Step::Yield(None, _)));
        let unanswered = question(&asked);
        assert!(unanswered.is_some());
        let Step::Replace(_) = take_slice(&asked, &late, Writer { unanswered, ..US }) else {
            panic!("a timeline that no publisher knows any more is dropped")
        };
    }
    // A publisher that knows the same timeline, a newer one, or none, may write.
    for next in [
        desired(&[], Some(5)),
        desired(&["10.0.0.9"], Some(6)),
        desired(&["10.0.0.9"], None),
    ] {
        assert!(matches!(take_slice(&newer, &next, US), Step::Replace(_)));
    }
    // A publisher may withdraw what it wrote itself: a cluster that was restored from a backup begins with a low
    // timeline again.
    let own = after(Kind::Slice4, &desired(&["10.0.0.8"], Some(5)));
    assert!(matches!(
        take_slice(&own, &desired(&["10.0.0.7"], Some(1)), US),
        Step::Replace(_)
    ));
    // Every publisher may write a Service without endpoints.
    let Step::Replace(empty) = take_slice(&newer, &desired(&[], Some(5)), US) else {
        panic!()
    };
    assert!(matches!(
        take_slice(&empty, &desired(&["10.0.0.7"], Some(1)), THEM),
        Step::Replace(_)
    ));
}

/// Each row has the writer of the object, true if the publisher has a Lease, true if it has just stopped routing, and
/// its step for an object with an address while it decides to hold.
#[test]
fn an_address_is_taken_away_at_once_or_after_a_question() {
    let mine = || after(Kind::Slice4, &desired(&["10.0.0.7"], Some(1)));
    let others = || theirs(&desired(&["10.0.0.7"], Some(1)));
    let by_hand = || {
        let mut object = mine();
        object.metadata.annotations = None;
        object
    };
    for (found, alone, just_ended, at_once) in [
        (mine(), false, false, true),
        (mine(), true, false, true),
        (by_hand(), false, false, true),
        (others(), false, true, true),
        (others(), true, false, true),
        (others(), false, false, false),
    ] {
        let holding = Desired {
            just_ended,
            ..desired(&[], Some(1))
        };
        match take_slice(&found, &holding, Writer { alone, ..US }) {
            Step::Replace(empty) => assert!(at_once && addresses(&empty).is_empty()),
            Step::Yield(Some(_), dispute) => {
                assert!(!at_once, "{:?} {alone} {just_ended}", annotation(&found, PUBLISHER));
                assert_eq!(dispute.with.as_deref(), Some("them"));
                assert_eq!(dispute.subject, DisputeSubject::Leader);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_publisher_that_knows_the_answer_removes_the_question_and_no_other_one_writes() {
    let route = desired(&["10.0.0.7"], Some(1));
    let found = theirs(&route);
    let holding = Desired {
        just_ended: false,
        ..desired(&[], Some(1))
    };
    let Step::Yield(Some(asked), _) = take_slice(&found, &holding, US) else {
        panic!()
    };
    let Step::Replace(answered) = take_slice(&asked, &route, THEM) else {
        panic!("it answers")
    };
    assert_eq!((question(&answered), addresses(&answered)), (None, addresses(&found)));
    // A third publisher that agrees adds nothing: otherwise two that route would write in turn.
    let third = Writer {
        identity: "third",
        ..US
    };
    assert!(matches!(take_slice(&answered, &route, third), Step::Nothing));
}

/// A simulation of publishers without a Lease that share one slice. Each reads it every 10 s, a few seconds after the
/// one before it.
struct Simulation {
    slice: DynamicObject,
    publishers: Vec<(String, Questions)>,
    start: Instant,
    seconds: u64,
    emptied: u64,
    writes: u64,
}

impl Simulation {
    fn new(slice: DynamicObject, names: &[&str]) -> Self {
        Self {
            slice,
            publishers: names
                .iter()
                .map(|name| ((*name).to_owned(), Questions::default()))
                .collect(),
            start: Instant::now(),
            seconds: 0,
            emptied: 0,
            writes: 0,
        }
    }

    /// Runs the publishers for this number of seconds. Each wants the endpoints that `of` returns for its name.
    fn run(&mut self, seconds: u64, of: impl Fn(&str) -> Desired) {
        for _ in 0..seconds {
            let turn = usize::try_from(self.seconds % 10 / 3).unwrap();
            let is_due = (self.seconds % 10).is_multiple_of(3);
            self.seconds += 1;
            let now = self.start + Duration::from_secs(self.seconds);
            let Some((name, questions)) = self.publishers.get_mut(turn).filter(|_| is_due) else {
                continue;
            };
            questions.seen(Kind::Slice4, question(&self.slice), now);
            let writer = Writer {
                identity: name,
                unanswered: questions.unanswered(Kind::Slice4, now),
                ..US
            };
            let next = match take_slice(&self.slice, &of(name), writer) {
                Step::Replace(next) | Step::Yield(Some(next), _) => next,
                _ => continue,
            };
            self.writes += 1;
            self.emptied += u64::from(addresses(&next).is_empty());
            self.slice = *next;
            self.slice.metadata.resource_version = Some(self.writes.to_string());
        }
    }
}

#[test]
fn a_publisher_that_holds_does_not_empty_what_two_others_fill_in_turn() {
    let route = desired(&["10.0.0.7"], Some(1));
    let mut simulation = Simulation::new(theirs(&route), &["them", "third", "us"]);
    let of = |name: &str| match name {
        "us" => Desired {
            just_ended: false,
            ..desired(&[], Some(1))
        },
        _ => desired(&["10.0.0.7"], Some(1)),
    };
    simulation.run(3600, of);
    assert_eq!(simulation.emptied, 0, "in an hour, with {} writes", simulation.writes);
    assert!(
        simulation.writes <= 720,
        "a question and an answer in 10 s: {}",
        simulation.writes
    );
    // The publishers with newer knowledge are gone: the address does not stay forever.
    simulation.publishers = vec![("us".to_owned(), Questions::default())];
    simulation.run(60, of);
    assert!(
        addresses(&simulation.slice).is_empty(),
        "it led to {:?} for a minute",
        addresses(&simulation.slice)
    );
}

#[test]
fn a_timeline_that_no_longer_exists_is_given_up() {
    // A publisher that is gone wrote timeline 7; the cluster was restored from a backup, on timeline 2.
    let mut simulation = Simulation::new(theirs(&desired(&["10.0.0.9"], Some(7))), &["us", "third"]);
    simulation.run(60, |_| desired(&["10.0.0.7"], Some(2)));
    assert_eq!(
        (addresses(&simulation.slice), timeline(&simulation.slice)),
        (vec!["10.0.0.7".to_owned()], Some(2))
    );
}

#[test]
fn a_late_publisher_does_not_lead_back_to_a_lower_timeline() {
    let newest = desired(&["10.0.0.9"], Some(7));
    let mut simulation = Simulation::new(theirs(&newest), &["late", "them"]);
    simulation.run(3600, |name| match name {
        "late" => desired(&["10.0.0.7"], Some(6)),
        _ => desired(&["10.0.0.9"], Some(7)),
    });
    assert_eq!(
        (addresses(&simulation.slice), simulation.emptied),
        (vec!["10.0.0.9".to_owned()], 0)
    );
}

#[test]
fn labels_annotations_and_owners_of_others_stay() {
    let mut found = after(Kind::Slice4, &desired(&["10.0.0.7"], Some(1)));
    found.metadata.resource_version = Some("7".into());
    found
        .metadata
        .labels
        .get_or_insert_default()
        .insert("theirs".into(), "x".into());
    let Step::Replace(next) = take(Kind::Slice4, Some(&found), &desired(&["10.0.0.8"], Some(2))) else {
        panic!()
    };
    let labels = next.metadata.labels.unwrap();
    assert_eq!(labels["theirs"], "x");
    assert_eq!(labels["endpointslice.kubernetes.io/managed-by"], "pgnorth");
    assert_eq!(
        next.metadata.resource_version.as_deref(),
        Some("7"),
        "a write of what was read, or none"
    );
    assert_eq!(next.metadata.owner_references.unwrap().len(), 1);
    assert_eq!(next.metadata.annotations.unwrap()[TIMELINE], "2");
}
