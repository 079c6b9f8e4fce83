use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const HOUR_NS: i64 = 3_600_000_000_000;
const NOW_NS: i64 = 1_790_000_000_000_000_000;
const ALL: BatchLimits = BatchLimits {
    jobs_max: 1000,
    bytes_max: u64::MAX,
};

fn new_job(version: u64, bytes: u64, age_hours: i64) -> NewJob {
    NewJob {
        version: VersionId(version),
        path: format!("/home/ada/{version}.pdf").into_bytes(),
        bytes,
        mtime_ns: NOW_NS - age_hours * HOUR_NS,
    }
}

fn queue(window: usize) -> (Db, Queue) {
    let db = Db::in_memory(crate::schema::MIGRATIONS).unwrap();
    let queue = Queue::with_window(db.clone(), Weights::default(), window).unwrap();
    (db, queue)
}

fn enqueue(db: &Db, queue: &Queue, jobs: &[NewJob]) {
    db.write::<_, DbError>(|tx| queue.enqueue(tx, jobs, NOW_NS)).unwrap();
}

fn versions(jobs: &[Job]) -> Vec<u64> {
    jobs.iter().map(|job| job.version.0).collect()
}

#[test]
fn the_best_job_is_leased_first_also_when_it_came_last() {
    let (db, queue) = queue(2);
    enqueue(
        &db,
        &queue,
        &[
            new_job(1, 1 << 30, 9000),
            new_job(2, 1 << 20, 900),
            new_job(3, 1 << 25, 9000),
        ],
    );
    let one = BatchLimits { jobs_max: 1, ..ALL };
    assert_eq!(versions(&queue.lease(one, NOW_NS).unwrap()), [2]);
    enqueue(&db, &queue, &[new_job(4, 10, 1)]);
    assert_eq!(versions(&queue.lease(ALL, NOW_NS).unwrap()), [4, 3, 1]);
    assert!(queue.lease(ALL, NOW_NS).unwrap().is_empty());
}

#[test]
fn a_job_larger_than_the_batch_is_leased_alone() {
    let (db, queue) = queue(10);
    enqueue(
        &db,
        &queue,
        &[
            new_job(1, 50, 0),
            new_job(2, 60, 0),
            new_job(3, 500, 0),
            new_job(4, 600, 0),
        ],
    );
    let limits = BatchLimits {
        jobs_max: 10,
        bytes_max: 110,
    };
    let batches: Vec<_> = (0..4)
        .map(|_| versions(&queue.lease(limits, NOW_NS).unwrap()))
        .collect();
    assert_eq!(batches, [vec![1, 2], vec![3], vec![4], vec![]]);
}

#[test]
fn a_version_already_queued_is_left_alone() {
    let (db, queue) = queue(10);
    enqueue(&db, &queue, &[new_job(1, 50, 0)]);
    enqueue(&db, &queue, &[new_job(1, 70, 0)]);
    let jobs = queue.lease(ALL, NOW_NS).unwrap();
    assert_eq!((jobs.len(), jobs[0].bytes), (1, 50));
    assert_eq!(queue.counts().unwrap().bytes, 50);
}

#[test]
fn jobs_of_a_transaction_that_is_rolled_back_are_never_leased() {
    let (db, queue) = queue(10);
    let failed: Result<(), DbError> = db.write(|tx| {
        queue.enqueue(tx, &[new_job(1, 50, 0)], NOW_NS)?;
        Err(DbError::Foreign { path: String::new() })
    });
    assert!(failed.is_err());
    assert!(queue.lease(ALL, NOW_NS).unwrap().is_empty());
    assert_eq!(queue.counts().unwrap(), QueueCounts::default());
}

#[test]
fn leases_of_a_process_that_died_wait_again_and_what_was_sent_does_not() {
    let (db, queue) = queue(10);
    enqueue(&db, &queue, &[new_job(1, 1, 0), new_job(2, 2, 0), new_job(3, 3, 0)]);
    assert_eq!(
        queue.lease(BatchLimits { jobs_max: 2, ..ALL }, NOW_NS).unwrap().len(),
        2
    );
    db.write::<_, DbError>(|tx| queue.sending(tx, &[VersionId(1)])).unwrap();
    drop(queue);

    let queue = Queue::open(db, Weights::default()).unwrap();
    let states: Vec<_> = queue
        .list(10)
        .unwrap()
        .iter()
        .map(|job| (job.version.0, job.state))
        .collect();
    assert_eq!(
        states,
        [(1, JobState::Sending), (2, JobState::Waiting), (3, JobState::Waiting)]
    );
    assert_eq!(versions(&queue.lease(ALL, NOW_NS).unwrap()), [2, 3]);
}

#[test]
fn a_job_given_back_waits_for_its_time_and_keeps_its_place() {
    let (db, queue) = queue(10);
    enqueue(&db, &queue, &[new_job(1, 1, 0), new_job(2, 1 << 20, 0)]);
    queue.lease(ALL, NOW_NS).unwrap();
    queue.retry(VersionId(1), NOW_NS + 10).unwrap();
    queue.retry(VersionId(2), NOW_NS + 5).unwrap();
    assert_eq!(queue.next_retry_ns().unwrap(), Some(NOW_NS + 5));
    assert!(queue.lease(ALL, NOW_NS).unwrap().is_empty());
    assert_eq!(versions(&queue.list(10).unwrap()), [1, 2]);
    let jobs = queue.lease(ALL, NOW_NS + 10).unwrap();
    assert_eq!(versions(&jobs), [1, 2]);
    assert_eq!(jobs[0].attempts, 1);
    assert_eq!(queue.next_retry_ns().unwrap(), None);
}

#[test]
fn a_job_whose_content_was_lost_waits_again() {
    let (db, queue) = queue(10);
    enqueue(&db, &queue, &[new_job(1, 7, 0)]);
    queue.lease(ALL, NOW_NS).unwrap();
    db.write::<_, DbError>(|tx| queue.sending(tx, &[VersionId(1)])).unwrap();
    assert_eq!(queue.counts().unwrap().sending_bytes, 7);
    db.write::<_, DbError>(|tx| queue.reopen(tx, &[VersionId(1)])).unwrap();
    assert_eq!(versions(&queue.lease(ALL, NOW_NS).unwrap()), [1]);
    db.write::<_, DbError>(|tx| queue.settle(tx, &[VersionId(1), VersionId(99)]))
        .unwrap();
    assert_eq!(queue.counts().unwrap(), QueueCounts::default());
}

#[test]
fn version_ids_use_all_64_bits() {
    let (db, queue) = queue(10);
    enqueue(&db, &queue, &[new_job(u64::MAX, u64::MAX, 0)]);
    let job = db
        .read::<_, DbError>(|conn| queue.get(conn, VersionId(u64::MAX)))
        .unwrap()
        .unwrap();
    assert_eq!(
        (job.version.0, job.state, job.class.as_str()),
        (u64::MAX, JobState::Waiting, "document")
    );
}

#[test]
fn list_shows_as_many_as_asked_in_the_order_of_lease() {
    let (db, queue) = queue(3);
    let jobs: Vec<_> = (0..50)
        .map(|n| new_job(n, 1 << (n % 30), (n * 37 % 100) as i64))
        .collect();
    enqueue(&db, &queue, &jobs);
    let listed = versions(&queue.list(20).unwrap());
    assert_eq!(listed.len(), 20);
    assert_eq!(listed, versions(&queue.lease(ALL, NOW_NS).unwrap())[..20]);
    assert_eq!(queue.list(usize::MAX).unwrap().len(), 50);
}

#[derive(Clone, Debug)]
enum Step {
    Enqueue(Vec<(u64, i64)>),
    Lease(usize, u64),
    Retry(usize, i64),
    Sending(usize),
    Reopen(usize),
    Settle(usize),
    Reopened,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        prop::collection::vec((0u64..1 << 34, 0i64..50_000), 1..12).prop_map(Step::Enqueue),
        (1usize..6, 0u64..1 << 35).prop_map(|(jobs, bytes)| Step::Lease(jobs, bytes)),
        (any::<usize>(), 0i64..20).prop_map(|(job, wait)| Step::Retry(job, wait)),
        any::<usize>().prop_map(Step::Sending),
        any::<usize>().prop_map(Step::Reopen),
        any::<usize>().prop_map(Step::Settle),
        Just(Step::Reopened),
    ]
}

#[derive(Clone, Debug)]
struct ModelJob {
    bytes: u64,
    rank: Rank,
    state: JobState,
    not_before_ns: i64,
}

type Model = BTreeMap<u64, ModelJob>;

fn nth(model: &Model, state: JobState, n: usize) -> Option<VersionId> {
    let fitting: Vec<_> = model.iter().filter(|(_, job)| job.state == state).collect();
    (!fitting.is_empty()).then(|| VersionId(*fitting[n % fitting.len()].0))
}

fn expected_lease(model: &Model, limits: BatchLimits, now_ns: i64) -> Vec<u64> {
    let mut waiting: Vec<_> = model
        .iter()
        .filter(|(_, job)| job.state == JobState::Waiting && job.not_before_ns <= now_ns)
        .collect();
    waiting.sort_by_key(|(_, job)| std::cmp::Reverse(job.rank));
    let mut bytes = 0;
    let mut batch = Vec::new();
    for (version, job) in waiting {
        bytes += job.bytes;
        if batch.len() == limits.jobs_max || (bytes > limits.bytes_max && !batch.is_empty()) {
            break;
        }
        batch.push(*version);
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn the_queue_leases_what_a_sorted_list_would(steps in prop::collection::vec(step(), 1..40)) {
        let (db, mut queue) = queue(4);
        let mut model = Model::new();
        let mut now_ns = NOW_NS;
        for (number, step) in steps.into_iter().enumerate() {
            now_ns += 1;
            match step {
                Step::Enqueue(files) => {
                    let first = (number as u64) * 100;
                    let jobs: Vec<_> = files.iter().zip(first..)
                        .map(|(&(bytes, age), version)| new_job(version, bytes, age)).collect();
                    enqueue(&db, &queue, &jobs);
                    for job in jobs {
                        let total = queue.0.scorer.score(&job.path, job.bytes, job.mtime_ns, NOW_NS).1.total;
                        let rank = Rank::new(total, job.version.0 as i64);
                        model.insert(job.version.0, ModelJob { bytes: job.bytes, rank, state: JobState::Waiting, not_before_ns: 0 });
                    }
                }
                Step::Lease(jobs_max, bytes_max) => {
                    let limits = BatchLimits { jobs_max, bytes_max };
                    let leased = versions(&queue.lease(limits, now_ns).unwrap());
                    prop_assert_eq!(&leased, &expected_lease(&model, limits, now_ns));
                    for version in leased {
                        model.get_mut(&version).unwrap().state = JobState::Leased;
                    }
                }
                Step::Retry(job, wait) => if let Some(version) = nth(&model, JobState::Leased, job) {
                    queue.retry(version, now_ns + wait).unwrap();
                    let job = model.get_mut(&version.0).unwrap();
                    (job.state, job.not_before_ns) = (JobState::Waiting, now_ns + wait);
                },
                Step::Sending(job) => if let Some(version) = nth(&model, JobState::Leased, job) {
                    db.write::<_, DbError>(|tx| queue.sending(tx, &[version])).unwrap();
                    model.get_mut(&version.0).unwrap().state = JobState::Sending;
                },
                Step::Reopen(job) => if let Some(version) = nth(&model, JobState::Sending, job) {
                    db.write::<_, DbError>(|tx| queue.reopen(tx, &[version])).unwrap();
                    model.get_mut(&version.0).unwrap().state = JobState::Waiting;
                },
                Step::Settle(job) => for state in [JobState::Sending, JobState::Waiting] {
                    if let Some(version) = nth(&model, state, job) {
                        db.write::<_, DbError>(|tx| queue.settle(tx, &[version])).unwrap();
                        model.remove(&version.0);
                    }
                },
                Step::Reopened => {
                    queue = Queue::with_window(db.clone(), Weights::default(), 4).unwrap();
                    for job in model.values_mut().filter(|job| job.state == JobState::Leased) {
                        job.state = JobState::Waiting;
                    }
                }
            }
            let counts = queue.counts().unwrap();
            let sending = || model.values().filter(|job| job.state == JobState::Sending);
            prop_assert_eq!(counts, QueueCounts {
                jobs: model.len() as u64,
                bytes: model.values().map(|job| job.bytes).sum(),
                sending_jobs: sending().count() as u64,
                sending_bytes: sending().map(|job| job.bytes).sum(),
            });
        }
    }

    #[test]
    fn ranks_sort_as_scores_and_keep_them(a in -1e9f64..1e9, b in -1e9f64..1e9) {
        prop_assert_eq!(Rank::new(a, 1) > Rank::new(b, 1), a > b);
        prop_assert_eq!(Rank::new(a, 1).total(), a);
        prop_assert!(Rank::new(a, 1) > Rank::new(a, 2));
    }
}
