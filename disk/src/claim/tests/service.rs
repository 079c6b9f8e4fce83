//! A writer with a single voter, step by step: when it may acknowledge, and what ends it.

use std::time::Duration;

use proto::epoch::{EPOCH_COUNTER_MAX, Epoch};
use proto::id::DeviceId;

use crate::claim::quorum::Quorum;
use crate::claim::times::Times;
use crate::claim::writer::{Answer, Ask, Commit, Event, Handover, Offline, Rules, Service, Writer};

const OURS: DeviceId = DeviceId([1; 32]);
const OTHER: DeviceId = DeviceId([2; 32]);

fn rules() -> Rules {
    Rules {
        device: OURS,
        quorum: Quorum::of(1).unwrap(),
        times: Times::USUAL,
        handover: Handover::Awaited,
        offline: Offline::Stop,
    }
}

fn at(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn found() -> Commit<&'static str> {
    let epoch = Epoch::above(None, OTHER).unwrap();
    Commit {
        epoch,
        number: 7,
        root: "seven",
    }
}

/// Answers all that is asked as a voter that has promised nobody else, at one moment.
fn answered(writer: &mut Writer<&'static str>, now: Duration) -> Vec<Event<&'static str>> {
    let mut events = Vec::new();
    while let Some(asked) = writer.asks(0, now).pop() {
        let answer = match asked.ask {
            Ask::ReadPromise => Answer::Promise(None),
            Ask::Claim(epoch) => Answer::Promise(Some(epoch)),
            Ask::ReadHeads => Answer::Heads(vec![found()]),
            Ask::PutHead(_) => Answer::Took,
        };
        let event = writer.answered(0, asked.tag, answer, now);
        if matches!(event, Some(Event::Found { .. })) {
            assert!(writer.adopt());
        }
        events.extend(event);
    }
    events
}

fn open(rules: Rules) -> Writer<&'static str> {
    let mut writer = Writer::take_over(rules, None);
    answered(&mut writer, at(0));
    writer
}

#[test]
fn a_taker_adopts_and_is_open_when_the_other_s_term_is_surely_over() {
    let mut writer = Writer::take_over(rules(), None);
    let events = answered(&mut writer, at(100));
    let epoch = writer.epoch().unwrap();
    let adopted = Commit { epoch, ..found() };
    let free_from = at(162);
    let state = Some(found());
    assert_eq!(events, [Event::Found { state, free_from }, Event::Accepted(adopted)]);
    assert_eq!(writer.service(at(161)), Service::NotYet);
    answered(&mut writer, at(161));
    assert_eq!(writer.service(at(162)), Service::Open);
}

#[test]
fn a_forced_takeover_is_open_at_once_and_says_until_when_the_other_may_be() {
    let forced = Rules {
        handover: Handover::Forced,
        ..rules()
    };
    let mut writer = Writer::take_over(forced, None);
    let events = answered(&mut writer, at(100));
    assert!(matches!(events[0], Event::Found { free_from, .. } if free_from == at(162)));
    assert_eq!(writer.service(at(100)), Service::Open);
}

#[test]
fn without_an_answer_it_stalls_then_fails_and_is_open_again_with_one() {
    let mut writer = open(rules());
    answered(&mut writer, at(100));
    assert_eq!(writer.service(at(159)), Service::Open);
    assert_eq!(writer.service(at(160)), Service::Stalled);
    assert_eq!(writer.service(at(459)), Service::Stalled);
    assert_eq!(writer.service(at(460)), Service::Failing);
    answered(&mut writer, at(500));
    assert_eq!(writer.service(at(559)), Service::Open);
}

#[test]
fn the_term_is_counted_from_before_the_question_and_late_answers_count_for_nothing() {
    let mut writer = open(rules());
    let asked = writer.asks(0, at(100)).pop().unwrap();
    let Ask::Claim(epoch) = asked.ask else {
        panic!("{asked:?}")
    };
    let mut late = writer.clone();
    writer.answered(0, asked.tag, Answer::Promise(Some(epoch)), at(150));
    assert_eq!(writer.service(at(159)), Service::Open);
    assert_eq!(writer.service(at(160)), Service::Stalled);
    late.answered(0, asked.tag, Answer::Promise(Some(epoch)), at(160));
    assert_eq!(late.service(at(160)), Service::Stalled);
    assert_ne!(late.asks(0, at(160)).pop().unwrap().tag, asked.tag);
}

#[test]
fn who_is_told_to_goes_on_offline() {
    let continues = Rules {
        offline: Offline::Continue,
        ..rules()
    };
    assert_eq!(open(continues).service(at(1_000_000)), Service::Open);
}

#[test]
fn one_commit_after_the_other_each_with_the_next_number() {
    let mut writer = open(rules());
    for number in 8..10 {
        assert!(writer.commit("next"));
        assert!(!writer.commit("too early"));
        let events = answered(&mut writer, at(100));
        assert!(
            matches!(&events[..], [Event::Accepted(commit)] if commit.number == number),
            "{events:?}"
        );
    }
}

#[test]
fn a_commit_that_is_confirmed_after_the_term_is_asked_about_anew() {
    let mut writer = open(rules());
    assert!(writer.commit("eight"));
    let put = writer.asks(0, at(100)).remove(0);
    writer.answered(0, put.tag, Answer::Took, at(100));
    let confirm = writer.asks(0, at(100)).remove(0);
    let promise = || Answer::Promise(writer.epoch());
    assert_eq!(writer.clone().answered(0, confirm.tag, promise(), at(160)), None);
    let in_time = writer.clone().answered(0, confirm.tag, promise(), at(159));
    assert!(matches!(in_time, Some(Event::Accepted(_))));
    let events = answered(&mut writer, at(160));
    assert!(matches!(&events[..], [Event::Accepted(commit)] if commit.number == 8));
}

#[test]
fn a_fenced_writer_is_fenced_for_ever() {
    let mut writer = open(rules());
    assert!(writer.commit("lost"));
    let put = writer.asks(0, at(100)).remove(0);
    writer.answered(0, put.tag, Answer::Took, at(100));
    let confirm = writer.asks(0, at(100)).remove(0);
    let by = Epoch::above(writer.epoch(), OTHER).unwrap();
    let event = writer.answered(0, confirm.tag, Answer::Promise(Some(by)), at(100));
    assert_eq!(event, Some(Event::Fenced { by }));
    assert_eq!(writer.service(at(101)), Service::Fenced);
    assert!(!writer.commit("nothing") && writer.asks(0, at(200)).is_empty());
    assert_eq!(
        writer.answered(0, confirm.tag, Answer::Promise(Some(by)), at(100)),
        None
    );
}

#[test]
fn a_restart_goes_on_without_waiting_if_nobody_came_between() {
    let epoch = open(rules()).epoch().unwrap();
    let last = Commit { epoch, ..found() };
    let mut writer = Writer::resume(rules(), last.clone(), 100);
    assert_eq!(writer.service(at(5)), Service::NotYet);
    assert_eq!(answered(&mut writer, at(5)), [Event::Accepted(last)]);
    assert_eq!(writer.service(at(5)), Service::Open);
}

#[test]
fn a_claim_that_comes_too_late_ends_the_takeover() {
    let mut writer: Writer<&str> = Writer::take_over(rules(), None);
    let read = writer.asks(0, at(0)).remove(0);
    writer.answered(0, read.tag, Answer::Promise(None), at(0));
    let claim = writer.asks(0, at(0)).remove(0);
    let by = Epoch::above(None, OTHER).unwrap();
    let event = writer.answered(0, claim.tag, Answer::Promise(Some(by)), at(0));
    assert_eq!(event, Some(Event::Fenced { by }));
}

#[test]
fn where_counting_ends_a_takeover_does() {
    let last = Epoch {
        counter: EPOCH_COUNTER_MAX,
        device: OTHER,
    };
    let mut writer: Writer<&str> = Writer::take_over(rules(), None);
    let asked = writer.asks(0, at(0)).remove(0);
    let event = writer.answered(0, asked.tag, Answer::Promise(Some(last)), at(0));
    assert_eq!(event, Some(Event::Fenced { by: last }));
}
